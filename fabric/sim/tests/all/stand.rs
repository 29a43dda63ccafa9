//! A world, its service, and a cluster in it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use agent_api::Agents;
use agent_protocol::{MachineConfig, Process};
use agent_sessions::{DirectoryError, Enrolment, MachineDirectory, Sessions};
use async_trait::async_trait;
use base_env::Env;
use base_testkit::wait_for;
use cluster_api::{ClusterApi, Connect, Endpoint};
use fabric_api::{Attach, Fabric, MachineId, MachineSpec, NetworkId, NetworkSpec, NicSpec, SubnetSpec};
use fabric_sim::{SimOptions, SimWorld};

pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// Machines without a token in their seed enrol with an empty one.
const SHA256_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// All machines are known; the enrolled key of each is recorded.
#[derive(Default)]
pub(crate) struct Directory(pub(crate) Mutex<BTreeMap<String, String>>);

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
pub(crate) struct Stand {
    pub(crate) env: Env,
    pub(crate) world: SimWorld,
    pub(crate) agents: Arc<dyn Agents>,
    pub(crate) directory: Arc<Directory>,
}

impl Stand {
    pub(crate) fn new(seed: u64) -> Self {
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

    pub(crate) async fn make(&self, id: &str, role: &str, address: &str) {
        self.world
            .ensure_machine(&machine(id, role, address))
            .await
            .unwrap();
        self.agents.publish(id, config(role, 1));
    }

    /// Replaces the service by another one with the same directory.
    pub(crate) fn restart_service(&mut self) {
        self.world.lose_service();
        let sessions = Sessions::new(self.env.clone(), Arc::clone(&self.directory) as _);
        self.agents = self.world.agents(sessions);
    }
}

pub(crate) fn network() -> NetworkSpec {
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

pub(crate) fn machine(id: &str, role: &str, address: &str) -> MachineSpec {
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

pub(crate) fn config(role: &str, generation: u64) -> Arc<MachineConfig> {
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

pub(crate) fn endpoint() -> Endpoint {
    Endpoint {
        server: String::new(),
        ca: String::new(),
        certificate: String::new(),
        key: String::new(),
    }
}

pub(crate) async fn node_ready(env: &Env, api: &Arc<dyn ClusterApi>, name: &str, ready: bool) {
    wait_for(&env.clock, "the node", BOUND, async || match api.nodes().await {
        Ok(nodes) if nodes.iter().any(|node| node.name == name && node.ready == ready) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// A cluster with a control plane and a node, ready.
pub(crate) async fn cluster(seed: u64) -> (Stand, Arc<dyn ClusterApi>) {
    let stand = Stand::new(seed);
    stand.world.ensure_network(&network()).await.unwrap();
    stand.make("cp", "control-plane", "10.224.0.4").await;
    stand.make("n1", "node", "10.224.0.5").await;
    let api = stand.world.connect("c1", &endpoint()).unwrap();
    node_ready(&stand.env, &api, "host-n1", true).await;
    (stand, api)
}
