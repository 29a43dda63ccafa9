//! Members of a control plane: the address of their API, and their disks.

use std::sync::Arc;

use agent_protocol::{
    File, MachineConfig, Probe,
    programs::{EtcdConfig, EtcdMember, VipConfig},
};
use base_testkit::wait_for;
use cluster_api::Connect;
use fabric_api::{Fabric, KeptDisk, MachineId};
use fabric_sim::{Ailment, Cure, SimWorld};

use crate::stand::{BOUND, Stand, config, endpoint, machine, network};

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
