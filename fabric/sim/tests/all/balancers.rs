//! Balancers in a world: stored with their networks, and no address used twice.

use std::collections::{BTreeMap, BTreeSet};

use base_env::Env;
use fabric_api::{
    Attach, BalancedPort, Balancer, Fabric, MachineId, MachineSpec, NetworkId, NetworkSpec, NicSpec,
    Protocol, Side, SubnetSpec,
};
use fabric_sim::{SimOptions, SimWorld};

fn balancer(address: &str, side: Side) -> Balancer {
    let machines = ["10.224.0.5", "10.224.0.6"].map(|text| text.parse().unwrap());
    Balancer {
        address: address.parse().unwrap(),
        side,
        ports: vec![BalancedPort {
            protocol: Protocol::Tcp,
            port: 80,
            target: 30080,
            machines: machines.into(),
            sticky: false,
        }],
        sources: Vec::new(),
    }
}

fn network(id: &str, uplink: &str) -> NetworkSpec {
    NetworkSpec {
        id: NetworkId::from(id),
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
        uplink: uplink.parse().unwrap(),
        egress: None,
        balancers: vec![
            balancer("100.64.8.5", Side::Stamp),
            balancer("10.224.0.9", Side::Subnet),
        ],
    }
}

fn machine(id: &str, address: &str) -> MachineSpec {
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
            extra: Vec::new(),
            gateway: None,
            routes: Vec::new(),
            sending: None,
        }],
        seed_files: BTreeMap::new(),
        labels: BTreeMap::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn balancers_are_kept_with_their_network_and_share_no_address() {
    let world = SimWorld::new(Env::simulated(1), SimOptions::default());
    let mut spec = network("c1", "100.64.0.9");
    for _ in 0..2 {
        world.ensure_network(&spec).await.unwrap();
    }
    world.ensure_machine(&machine("n1", "10.224.0.5")).await.unwrap();
    let address = "100.64.8.5".parse().unwrap();
    let n1 = MachineId::from("n1");
    assert_eq!(
        world.reached(address, Protocol::Tcp, 80),
        Some(BTreeSet::from([n1.clone()]))
    );
    assert_eq!(world.reached(address, Protocol::Udp, 80), None);
    world.stop_machine(&n1).await.unwrap();
    assert_eq!(world.reached(address, Protocol::Tcp, 80), Some(BTreeSet::new()));
    let line = "  balancer 100.64.8.5 Stamp Tcp/80->30080=10.224.0.5,10.224.0.6\n";
    assert!(world.dump().contains(line), "{}", world.dump());
    assert_eq!(world.violations(), Vec::<String>::new());

    // A machine, another network's balancer, and a balancer that comes after a machine.
    world.ensure_machine(&machine("n2", "10.224.0.9")).await.unwrap();
    world.ensure_network(&network("c2", "100.64.0.10")).await.unwrap();
    spec.balancers.push(balancer("10.224.0.5", Side::Subnet));
    world.ensure_network(&spec).await.unwrap();
    assert_eq!(world.violations().len(), 3, "{:?}", world.violations());
}
