//! For tests of code that reads specs: a cluster with AKS' defaults, which a test modifies.

use crate::{ClusterSpec, NetworkProfile, PodNetworking, PoolMode, PoolSpec, Tier};

/// A Free cluster `c` of one pool, `np1`.
pub fn cluster() -> ClusterSpec {
    ClusterSpec {
        name: "c".to_owned(),
        resource_group: "g".to_owned(),
        location: "local".to_owned(),
        node_resource_group: "mc".to_owned(),
        fqdn: "c.local".to_owned(),
        kubernetes_version: "1.36.3".to_owned(),
        network: network(PodNetworking::AzureOverlay),
        pools: vec![pool("np1", 1)],
        disable_local_accounts: false,
        tier: Tier::Free,
        restore: None,
        stopped: false,
        archived: false,
        access: Default::default(),
        issuer: None,
        workload_identity: false,
        directory: None,
        disks_off: false,
        files_off: false,
        snapshots_off: false,
        ingress: Default::default(),
        autoscaler: Default::default(),
        rotations: Default::default(),
        forced_until: None,
        emulated: None,
    }
}

/// AKS' ranges; with a pod range if the plugin uses one.
pub fn network(plugin: PodNetworking) -> NetworkProfile {
    let range = |text: &str| text.parse().expect("a constant that parses");
    NetworkProfile {
        plugin,
        vnet_range: range("10.224.0.0/12"),
        node_range: range("10.224.0.0/16"),
        control_plane_range: range("10.239.255.240/28"),
        pod_range: matches!(plugin, PodNetworking::Kubenet | PodNetworking::AzureOverlay)
            .then(|| range("10.244.0.0/16")),
        service_range: range("10.0.0.0/16"),
        dns_service_ip: [10, 0, 0, 10].into(),
        outbound: true,
        vnet: None,
        policy: Default::default(),
    }
}

/// A system pool with this number of small nodes, in its first incarnation.
pub fn pool(name: &str, count: u32) -> PoolSpec {
    PoolSpec {
        name: name.to_owned(),
        count,
        vm_size: "Standard_B2s".to_owned(),
        mode: PoolMode::System,
        kubernetes_version: "1.36.3".to_owned(),
        image: None,
        max_pods: 30,
        labels: [].into(),
        taints: Vec::new(),
        os_disk_gib: 128,
        incarnation: format!("{name}-1"),
        surge: 1,
        unavailable: 0,
        drain_minutes: crate::DRAIN_MINUTES,
        soak_minutes: 0,
        undrainable: Default::default(),
        removed: Default::default(),
        renewed: None,
        subnet: None,
        stopped: false,
        autoscale: None,
    }
}
