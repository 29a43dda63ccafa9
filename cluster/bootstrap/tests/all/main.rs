//! Rendered configurations: properties for every plugin, and differences between plugins.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod control_planes;
mod kubeconfigs;
mod machines;
mod nodes;
mod rendered;

use std::net::Ipv4Addr;

use agent_protocol::MachineConfig;
use cluster_bootstrap::{ControlPlaneAddresses, ControlPlanePlace, Member, NodePlace, node_config};
use cluster_pki::ClusterPki;
use cluster_spec::{ClusterSpec, PodNetworking, PoolMode, PoolSpec, testkit};
use jiff::Timestamp;
use serde_json::Value;

const PLUGINS: [PodNetworking; 4] = [
    PodNetworking::Kubenet,
    PodNetworking::AzureFlat,
    PodNetworking::AzureOverlay,
    PodNetworking::None,
];
const VIP: Ipv4Addr = Ipv4Addr::new(100, 64, 24, 1);

fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap()
}

fn at() -> ControlPlaneAddresses {
    ControlPlaneAddresses {
        vip: VIP,
        stamp: Ipv4Addr::new(100, 64, 16, 20),
        vnet: Ipv4Addr::new(10, 239, 255, 244),
    }
}

/// The first member, of a control plane with these members.
fn place_of(numbers: &[u8]) -> ControlPlanePlace {
    ControlPlanePlace {
        members: numbers
            .iter()
            .map(|number| Member {
                machine: format!("m{number}"),
                stamp: Ipv4Addr::new(100, 64, 16, 19 + number),
                vnet: Ipv4Addr::new(10, 239, 255, 243 + number),
            })
            .collect(),
        roaming: numbers.len() > 1,
        ..ControlPlanePlace::alone("m1", at())
    }
}

fn spec(plugin: PodNetworking) -> ClusterSpec {
    let pool = PoolSpec {
        vm_size: "Standard_DS2_v2".into(),
        mode: PoolMode::User,
        labels: [("tier".to_owned(), "back".to_owned())].into(),
        taints: vec!["dedicated=back:NoSchedule".into()],
        ..testkit::pool("blue", 1)
    };
    ClusterSpec {
        name: "shop".into(),
        resource_group: "Retail-West".into(),
        node_resource_group: "MC_Retail-West_shop_local".into(),
        fqdn: "shop-dns-1.hcp.local.example.org".into(),
        network: testkit::network(plugin),
        pools: vec![pool],
        ..testkit::cluster()
    }
}

fn place(plugin: PodNetworking) -> NodePlace {
    NodePlace {
        node_name: "aks-blue-12345678-vmss00000a".into(),
        address: Ipv4Addr::new(10, 224, 0, 14),
        pod_range: match plugin {
            PodNetworking::Kubenet | PodNetworking::AzureOverlay => "10.244.7.0/24".parse().ok(),
            PodNetworking::AzureFlat => "10.224.1.64/27".parse().ok(),
            PodNetworking::None => None,
        },
        subscription: "0000".into(),
        machine: "m1".into(),
        host_cores: 16,
        host_memory_mib: 65_536,
        own_disk: true,
        registry: None,
    }
}

fn node(spec: &ClusterSpec, pki: &ClusterPki) -> MachineConfig {
    node_config(
        spec,
        &spec.pools[0],
        &place(spec.network.plugin),
        pki,
        VIP,
        now(),
        7,
    )
    .unwrap()
}

fn pki() -> ClusterPki {
    ClusterPki::generate(now()).unwrap()
}

fn file<'a>(config: &'a MachineConfig, path: &str) -> &'a str {
    let found = config.files.iter().find(|file| file.path == path);
    &found.unwrap_or_else(|| panic!("no {path} in {config:?}")).content
}

fn object(config: &MachineConfig, path: &str) -> Value {
    serde_json::from_str(file(config, path)).unwrap()
}

/// Every file named in a program's flags, as `--flag=/etc/…`.
fn named(config: &MachineConfig) -> impl Iterator<Item = &str> {
    config
        .processes
        .iter()
        .flat_map(|process| &process.argv)
        .filter_map(|word| word.split_once('='))
        .map(|(_, value)| value)
        .filter(|value| value.starts_with("/etc/"))
}
