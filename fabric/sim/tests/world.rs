//! The world follows the contracts of fabric, agents and clusters, in virtual time.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use agent_api::Agents;
use agent_protocol::{
    File, MachineConfig, Probe, Process, ProcessState,
    programs::{EtcdConfig, EtcdMember, VipConfig},
};
use agent_sessions::{DirectoryError, Enrolment, MachineDirectory, Sessions};
use async_trait::async_trait;
use base_env::Env;
use base_testkit::wait_for;
use cluster_api::{ClusterApi, ClusterError, Connect, Endpoint, NodeWish};
use fabric_api::{
    Attach, Fabric, FabricError, KeptDisk, MachineId, MachineSpec, NetworkId, NetworkSpec, NicSpec, Power,
    SubnetSpec,
};
use fabric_sim::{Ailment, Call, Cure, SimOptions, SimWorld};
use futures::StreamExt as _;
use serde_json::json;

const BOUND: Duration = Duration::from_secs(60);

/// Machines without a token in their seed enrol with an empty one.
const SHA256_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// All machines are known; the enrolled key of each is recorded.
#[derive(Default)]
struct Directory(Mutex<BTreeMap<String, String>>);

#[async_trait]
impl MachineDirectory for Directory {
    async fn token(&self, machine: &str) -> Result<Option<Enrolment>, DirectoryError> {
        Ok(Some(Enrolment {
            token_hash: SHA256_OF_NOTHING.to_owned(),
            enrolled_key: self.0.lock().unwrap().get(machine).cloned(),
            token_used: false,
        }))
    }

    async fn bind_key(&self, machine: &str, key: &str) -> Result<bool, DirectoryError> {
        let mut keys = self.0.lock().unwrap();
        let bound = keys.entry(machine.to_owned()).or_insert_with(|| key.to_owned());
        Ok(bound == key)
    }

    async fn token_used(&self, _: &str) -> Result<(), DirectoryError> {
        Ok(())
    }
}

/// A world, its service, and the service's directory.
struct Stand {
    env: Env,
    world: SimWorld,
    agents: Arc<dyn Agents>,
    directory: Arc<Directory>,
}

impl Stand {
    fn new(seed: u64) -> Self {
        let env = Env::simulated(seed);
        let world = SimWorld::new(env.clone(), SimOptions::default());
        let directory = Arc::new(Directory::default());
        let agents = world.agents(Sessions::new(env.clone(), Arc::clone(&directory) as _));
        Self {
            env,
            world,
            agents,
            directory,
        }
    }

    async fn make(&self, id: &str, role: &str, address: &str) {
        self.world
            .ensure_machine(&machine(id, role, address))
            .await
            .unwrap();
        self.agents.publish(id, config(role, 1));
    }

    /// Replaces the service by another one with the same directory.
    fn restart_service(&mut self) {
        self.world.lose_service();
        let sessions = Sessions::new(self.env.clone(), Arc::clone(&self.directory) as _);
        self.agents = self.world.agents(sessions);
    }
}

fn network() -> NetworkSpec {
    NetworkSpec {
        id: NetworkId::from("c1"),
        address_space: vec!["10.224.0.0/12".parse().unwrap()],
        subnets: vec![SubnetSpec {
            name: "nodes".into(),
            range: "10.224.0.0/16".parse().unwrap(),
            gateway: "10.224.0.1".parse().unwrap(),
            filter: None,
            serves: None,
        }],
        reserved: Vec::new(),
        routes: Vec::new(),
        uplink: "100.64.0.9".parse().unwrap(),
        balancers: Vec::new(),
        egress: None,
    }
}

fn machine(id: &str, role: &str, address: &str) -> MachineSpec {
    MachineSpec {
        id: MachineId::from(id),
        hostname: format!("host-{id}"),
        image: "1.36.3".into(),
        cpu_millis: 1000,
        memory_mib: 512,
        disk_gib: None,
        nics: vec![NicSpec {
            name: "eth0".into(),
            attach: Attach::Subnet {
                network: NetworkId::from("c1"),
                subnet: "nodes".into(),
            },
            address: format!("{address}/16").parse().unwrap(),
            // A cluster's only member has the address of its API on its interface.
            extra: if role == "control-plane" {
                vec!["100.64.8.1".parse().unwrap()]
            } else {
                Vec::new()
            },
            gateway: None,
            routes: Vec::new(),
            sending: None,
        }],
        seed_files: BTreeMap::new(),
        labels: BTreeMap::from([
            ("cluster".to_owned(), "c1".to_owned()),
            ("role".to_owned(), role.to_owned()),
        ]),
    }
}

fn config(role: &str, generation: u64) -> Arc<MachineConfig> {
    Arc::new(MachineConfig {
        generation,
        role: role.into(),
        processes: vec![Process {
            name: "main".into(),
            argv: vec!["main".into()],
            env: BTreeMap::new(),
            probe: None,
            restart_on: Vec::new(),
            stop_order: 0,
            grace_seconds: 1,
            ..Process::default()
        }],
        ..MachineConfig::default()
    })
}

fn endpoint() -> Endpoint {
    Endpoint {
        server: String::new(),
        ca: String::new(),
        certificate: String::new(),
        key: String::new(),
    }
}

async fn node_ready(env: &Env, api: &Arc<dyn ClusterApi>, name: &str, ready: bool) {
    wait_for(&env.clock, "the node", BOUND, async || match api.nodes().await {
        Ok(nodes) if nodes.iter().any(|node| node.name == name && node.ready == ready) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// A cluster with a control plane and a node, ready.
async fn cluster(seed: u64) -> (Stand, Arc<dyn ClusterApi>) {
    let stand = Stand::new(seed);
    stand.world.ensure_network(&network()).await.unwrap();
    stand.make("cp", "control-plane", "10.224.0.4").await;
    stand.make("n1", "node", "10.224.0.5").await;
    let api = stand.world.connect("c1", &endpoint()).unwrap();
    node_ready(&stand.env, &api, "host-n1", true).await;
    (stand, api)
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_history() {
    let mut histories = Vec::new();
    for seed in [1, 1, 2] {
        let (Stand { env, world, .. }, _) = cluster(seed).await;
        histories.push((env.clock.monotonic(), world.dump()));
    }
    // The clock is the runtime's: only differences are comparable.
    let first = histories[0].1.clone();
    assert_eq!(first, histories[1].1);
    assert_eq!(
        first,
        "stamp up\n\
         network c1 uplink=100.64.0.9 subnets=nodes\n\
         machine cp ready image=1.36.3 cluster=c1 role=control-plane host=host-cp address=10.224.0.4 generation=1\n\
         machine n1 ready image=1.36.3 cluster=c1 role=node host=host-n1 address=10.224.0.5 generation=1\n\
         cluster c1 api=ready\n\
         \x20 node host-n1 Ready v1.36.3 serving=pending\n"
    );
    assert_eq!(histories[0].0, histories[1].0);
    assert_ne!(histories[0].0, histories[2].0);
}

#[tokio::test(start_paused = true)]
async fn a_node_needs_its_own_configuration_and_an_api() {
    let stand = Stand::new(1);
    let Stand {
        env, world, agents, ..
    } = &stand;
    world.ensure_network(&network()).await.unwrap();
    stand.make("n1", "node", "10.224.0.5").await;
    let api = world.connect("c1", &endpoint()).unwrap();
    env.clock.sleep(BOUND).await;
    assert!(matches!(api.ready().await, Err(ClusterError::Unavailable(_))));
    let changes = api.changes();
    let seen = changes.count();
    stand.make("cp", "control-plane", "10.224.0.4").await;
    node_ready(env, &api, "host-n1", true).await;
    assert_ne!(changes.count(), seen);

    let report = agents.report("cp").unwrap();
    assert_eq!(
        (report.generation, report.processes["main"].state),
        (1, ProcessState::Ready)
    );
    // A newer configuration is accepted.
    agents.publish("cp", config("control-plane", 3));
    wait_for(&env.clock, "generation 3", BOUND, async || {
        match agents.report("cp") {
            Some(report) if report.generation == 3 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // The service keeps the newer one.
    agents.publish("cp", config("control-plane", 2));
    env.clock.sleep(BOUND).await;
    assert_eq!(agents.report("cp").unwrap().generation, 3);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_holds_what_it_was_given() {
    let (Stand { env, world, .. }, api) = cluster(1).await;
    let wish = NodeWish {
        name: "host-n1".into(),
        pod_range: Some("10.244.0.0/24".parse().unwrap()),
        labels: BTreeMap::from([("a".to_owned(), "1".to_owned())]),
        taints: vec!["k=v:NoSchedule".into()],
        inherited: None,
        takes_pods: true,
        address: Some("10.224.0.5".parse().unwrap()),
    };
    api.set_node(&wish).await.unwrap();
    let changes = api.changes();
    let seen = changes.count();
    api.set_node(&wish).await.unwrap();
    assert_eq!(changes.count(), seen, "the same again is no change");
    let stranger = NodeWish {
        address: Some("10.224.0.6".parse().unwrap()),
        ..wish.clone()
    };
    assert_eq!(api.approve_serving(&[stranger]).await.unwrap(), 0);
    assert_eq!(api.approve_serving(std::slice::from_ref(&wish)).await.unwrap(), 1);
    assert_eq!(api.approve_serving(std::slice::from_ref(&wish)).await.unwrap(), 0);
    let fewer = NodeWish {
        labels: BTreeMap::new(),
        taints: Vec::new(),
        ..wish.clone()
    };
    api.set_node(&fewer).await.unwrap();
    let node = api.nodes().await.unwrap().remove(0);
    assert!(!node.labels.contains_key("a") && node.taints.is_empty());
    assert_eq!(node.pod_range.as_deref(), Some("10.244.0.0/24"));
    let other_range = NodeWish {
        pod_range: Some("10.244.1.0/24".parse().unwrap()),
        ..wish
    };
    assert!(matches!(
        api.set_node(&other_range).await,
        Err(ClusterError::Refused { .. })
    ));

    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "kube-system", "name": "x"}});
    assert_eq!(api.apply(std::slice::from_ref(&object)).await.unwrap(), 1);
    assert_eq!(api.apply(std::slice::from_ref(&object)).await.unwrap(), 0);
    assert!(world.dump().contains("  object v1/ConfigMap kube-system/x\n"));
    assert!(world.remove_object("c1", "v1/ConfigMap kube-system/x"));
    assert_eq!(api.apply(&[object]).await.unwrap(), 1);

    assert!(api.drain("host-n1").await.unwrap().left > 0);
    wait_for(&env.clock, "the pods to go", BOUND, async || {
        match api.drain("host-n1").await {
            Ok(drained) if drained.left == 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    api.delete_node("host-n1").await.unwrap();
    api.delete_node("host-n1").await.unwrap();
    env.clock.sleep(BOUND).await;
    assert!(
        api.nodes().await.unwrap().is_empty(),
        "a kubelet makes its node object once"
    );
}

#[tokio::test(start_paused = true)]
async fn machines_stop_crash_vanish_and_come_back() {
    let (
        Stand {
            env, world, agents, ..
        },
        api,
    ) = cluster(1).await;
    assert!(world.crash(&MachineId::from("n1")));
    assert_eq!(world.power(&MachineId::from("n1")), Some(Power::Stopped));
    node_ready(&env, &api, "host-n1", false).await;
    world
        .ensure_machine(&machine("n1", "node", "10.224.0.5"))
        .await
        .unwrap();
    node_ready(&env, &api, "host-n1", true).await;

    // A control plane that restarts keeps its cluster; without its machine the cluster is gone.
    world.stop_machine(&MachineId::from("cp")).await.unwrap();
    assert!(api.ready().await.is_err());
    world
        .ensure_machine(&machine("cp", "control-plane", "10.224.0.4"))
        .await
        .unwrap();
    node_ready(&env, &api, "host-n1", true).await;
    assert!(world.vanish(&MachineId::from("cp")));
    assert!(!world.vanish(&MachineId::from("cp")));
    assert!(!world.dump().contains("  node "));

    world.fail_boots(1);
    world
        .ensure_machine(&machine("n2", "node", "10.224.0.6"))
        .await
        .unwrap();
    env.clock.sleep(BOUND).await;
    assert_eq!(world.power(&MachineId::from("n2")), Some(Power::Running));
    assert!(agents.report("n2").is_none(), "it runs and says nothing");
    world.delete_machine(&MachineId::from("n2")).await.unwrap();
    world.delete_machine(&MachineId::from("n2")).await.unwrap();
    assert_eq!(world.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn calls_fail_as_told_and_are_counted() {
    let Stand { env, world, .. } = Stand::new(1);
    world.fail_next(Call::EnsureNetwork, 1);
    world.lose_answer(Call::EnsureNetwork, 1);
    assert!(matches!(
        world.ensure_network(&network()).await,
        Err(FabricError::Failed { .. })
    ));
    assert!(
        world.list().await.unwrap().networks.is_empty(),
        "it failed before"
    );
    assert!(world.ensure_network(&network()).await.is_err());
    assert_eq!(world.list().await.unwrap().networks.len(), 1, "it failed after");
    world.ensure_network(&network()).await.unwrap();
    let tally = world.tally(Call::EnsureNetwork);
    assert_eq!((tally.calls, tally.failed), (3, 2));

    // Interrupted: the machine exists partially, and another call completes it.
    let cut = env
        .clock
        .timeout(
            Duration::from_millis(1),
            world.ensure_machine(&machine("n1", "node", "10.224.0.5")),
        )
        .await;
    assert!(cut.is_err());
    assert_eq!(world.power(&MachineId::from("n1")), Some(Power::Partial));
    world
        .ensure_machine(&machine("n1", "node", "10.224.0.5"))
        .await
        .unwrap();
    assert_eq!(world.power(&MachineId::from("n1")), Some(Power::Running));

    // Actions that would break a real host are recorded.
    world
        .ensure_machine(&machine("n2", "node", "10.224.0.5"))
        .await
        .unwrap();
    world.delete_network(&NetworkId::from("c1")).await.unwrap();
    assert_eq!(world.violations().len(), 2, "{:?}", world.violations());
    let lost = machine("n3", "node", "10.224.0.7");
    assert!(matches!(
        world.ensure_machine(&lost).await,
        Err(FabricError::NotFound(_))
    ));
    for call in Call::ALL {
        assert_eq!(call.name().parse::<Call>(), Ok(*call));
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_restarts_finds_everything_again() {
    let (mut stand, api) = cluster(1).await;
    let before = stand.world.dump();
    stand.restart_service();
    let Stand {
        env, world, agents, ..
    } = &stand;
    assert!(agents.report("cp").is_none());
    let mut reports = agents.subscribe();
    reports.next().await.unwrap();
    wait_for(&env.clock, "reports", BOUND, async || match agents.report("cp") {
        Some(_) => Ok(()),
        None => Err("none".into()),
    })
    .await;
    assert_eq!(world.dump(), before);
    api.ready().await.unwrap();

    agents.forget("n1");
    assert!(agents.report("n1").is_none());
    world.stall_api("c1", true);
    assert!(api.ready().await.is_err());
    world.stall_api("c1", false);
    api.ready().await.unwrap();
    assert!(agents.logs("cp", "main", 3).await.unwrap().lines().count() == 3);
    assert!(agents.logs("none", "main", 3).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_lost_its_disk_has_another_key() {
    let (
        Stand {
            env, world, agents, ..
        },
        _,
    ) = cluster(1).await;
    let id = MachineId::from("n1");
    let boot = || agents.report("n1").map(|report| report.boot.clone());
    let first = boot();
    // With its disk it is the enrolled machine…
    assert!(world.crash(&id));
    world
        .ensure_machine(&machine("n1", "node", "10.224.0.5"))
        .await
        .unwrap();
    env.clock.sleep(BOUND).await;
    let second = boot();
    assert_ne!(first, second);
    // …and without it another one, under the same name, so `start_machine` refuses.
    assert!(world.vanish(&id));
    let spec = machine("n1", "node", "10.224.0.5");
    let refused = world.start_machine(&spec).await.unwrap_err();
    assert!(matches!(refused, FabricError::NoDisk(_)), "{refused}");
    assert_eq!(world.power(&id), None);
    world
        .ensure_machine(&machine("n1", "node", "10.224.0.5"))
        .await
        .unwrap();
    env.clock.sleep(BOUND).await;
    assert_eq!(world.power(&id), Some(Power::Running));
    assert_eq!(boot(), second);
    assert!(!agents.heard("n1"));
}

const MEMBERS: [(&str, &str); 3] = [
    ("cp0", "10.224.0.4"),
    ("cp1", "10.224.0.5"),
    ("cp2", "10.224.0.6"),
];

/// The configuration of one of three members.
fn member_config(id: &str, own: &str) -> Arc<MachineConfig> {
    let file = |path: &str, content: String| File {
        path: path.to_owned(),
        mode: 0o600,
        content,
    };
    let members = MEMBERS.map(|(name, address)| EtcdMember {
        name: name.to_owned(),
        address: address.parse().unwrap(),
    });
    let others = MEMBERS.iter().filter(|(_, address)| *address != own);
    let vip = VipConfig {
        address: "100.64.8.1".parse().unwrap(),
        interface: "eth0".to_owned(),
        own: own.parse().unwrap(),
        peers: others.map(|(_, address)| address.parse().unwrap()).collect(),
        key: String::new(),
        health: Probe::Unix { path: String::new() },
        status: String::new(),
    };
    let etcd = serde_json::to_string(&EtcdConfig::bare(id, members)).unwrap();
    Arc::new(MachineConfig {
        files: vec![
            file("/etc/landfall/etcd.json", etcd),
            file("/etc/landfall/vip.json", serde_json::to_string(&vip).unwrap()),
        ],
        ..MachineConfig::clone(&config("control-plane", 1))
    })
}

/// The member that the address of the cluster's API leads to.
fn leads_to(world: &SimWorld) -> String {
    let text = world.dump_control_planes();
    let (_, after) = text.split_once("leads to ").unwrap();
    after.split(':').next().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn the_address_of_an_api_moves_away_from_a_member_that_does_not_serve() {
    let stand = Stand::new(1);
    let Stand {
        env, world, agents, ..
    } = &stand;
    world.ensure_network(&network()).await.unwrap();
    for (id, address) in MEMBERS {
        let mut spec = machine(id, "control-plane", address);
        spec.nics[0].extra.clear();
        world.ensure_machine(&spec).await.unwrap();
        agents.publish(id, member_config(id, address));
    }
    let api = world.connect("c1", &endpoint()).unwrap();
    let serves = || {
        wait_for(&env.clock, "the API", BOUND, async || {
            api.ready().await.map_err(|error| error.to_string())
        })
    };
    serves().await;
    // A hanging member still has the address on its interface; a failing one releases it; a stopped one is
    // silent.
    let befall = |number: usize, member: &MachineId| match number {
        0 => world.ail(member, Ailment::Hangs, Cure::Replace),
        1 => world.ail(member, Ailment::Deaf("kube-apiserver".to_owned()), Cure::Replace),
        _ => world.crash(member),
    };
    for number in 0..3 {
        let before = leads_to(world);
        let member = MachineId::from(before.as_str());
        assert!(befall(number, &member));
        serves().await;
        let now = leads_to(world);
        assert_ne!(now, before, "{}", world.dump_control_planes());
        // All ailments are removed.
        world.heal();
        let address = MEMBERS.iter().find(|(id, _)| *id == before).unwrap().1;
        let mut spec = machine(&before, "control-plane", address);
        spec.nics[0].extra.clear();
        world.ensure_machine(&spec).await.unwrap();
        env.clock.sleep(BOUND).await;
        serves().await;
        assert_eq!(
            world.vip_problems(),
            Vec::<String>::new(),
            "{}",
            world.dump_control_planes()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn every_disk_with_a_database_is_kept_until_it_is_let_go() {
    let mut stand = Stand::new(1);
    let id = MachineId::from("cp1");
    let disk = |number| KeptDisk {
        machine: id.clone(),
        number,
    };
    for round in 1..=2 {
        stand.world.ensure_network(&network()).await.unwrap();
        for (id, address) in MEMBERS {
            let mut spec = machine(id, "control-plane", address);
            spec.nics[0].extra.clear();
            stand.world.ensure_machine(&spec).await.unwrap();
            stand.agents.publish(id, member_config(id, address));
        }
        let api = stand.world.connect("c1", &endpoint()).unwrap();
        wait_for(&stand.env.clock, "the API", BOUND, async || {
            api.ready().await.map_err(|error| error.to_string())
        })
        .await;
        for (id, _) in MEMBERS.into_iter().chain(MEMBERS) {
            stand.world.reset_machine(&MachineId::from(id)).await.unwrap();
        }
        assert_eq!(stand.world.kept_disks().len(), 3 * round);
        // Their next disks have other keys.
        stand.directory.0.lock().unwrap().clear();
        stand.restart_service();
    }
    stand.world.delete_kept_disk(&disk(1)).await.unwrap();
    let kept = stand.world.list().await.unwrap().kept_disks;
    assert!(!kept.contains(&disk(1)) && kept.contains(&disk(2)), "{kept:?}");
    stand.world.delete_machine(&id).await.unwrap();
    assert_eq!(stand.world.kept_disks().len(), 4);
}
