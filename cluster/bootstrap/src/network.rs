//! A cluster's VNET and the network interfaces of its machines.

use std::net::Ipv4Addr;

use cluster_spec::{ClusterSpec, PodNetworking};
use fabric_api::{Attach, NetworkId, NetworkSpec, NicSpec, RouteSpec, Sending, StampNetwork, SubnetSpec};
use ipnet::Ipv4Net;

use crate::{API_PORT, ControlPlaneAddresses, NodePlace};

/// The nodes' subnet.
pub const NODE_SUBNET: &str = "nodes";
/// The hidden subnet of the control plane's own interface.
pub const CONTROL_PLANE_SUBNET: &str = "control-plane";

/// The router's address in a subnet: the first usable one, as in Azure.
fn gateway(range: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(range.network()) + 1)
}

/// The name of a subnet of a tenant's VNET: no two subnets of a VNET have the same range.
fn tenant_subnet(range: Ipv4Net) -> String {
    format!("nodes-{}", range.to_string().replace(['.', '/'], "-"))
}

/// The VNET with its route table. In a tenant's VNET, the cluster's part of it: the subnets of its nodes, and
/// routes to nodes of others.
pub fn network(spec: &ClusterSpec, id: NetworkId, uplink: Ipv4Addr, routes: Vec<RouteSpec>) -> NetworkSpec {
    let profile = &spec.network;
    let subnet = |name: &str, range: Ipv4Net| SubnetSpec {
        name: name.to_owned(),
        range,
        gateway: gateway(range),
        filter: None,
        serves: None,
    };
    // Nodes and pods reach the API there, and nothing else: etcd's ports are for the members alone.
    let control_plane = SubnetSpec {
        serves: Some(vec![API_PORT]),
        ..subnet(CONTROL_PLANE_SUBNET, profile.control_plane_range)
    };
    NetworkSpec {
        id,
        address_space: profile.space().to_vec(),
        subnets: match &profile.vnet {
            Some(vnet) => vnet
                .subnets
                .iter()
                .map(|range| subnet(&tenant_subnet(*range), *range))
                .collect(),
            None => vec![subnet(NODE_SUBNET, profile.node_range)],
        }
        .into_iter()
        .chain([control_plane])
        .collect(),
        reserved: profile
            .pod_range
            .into_iter()
            .chain([profile.service_range])
            .collect(),
        routes,
        uplink,
        balancers: Vec::new(),
        egress: None,
    }
}

/// A control plane machine has an interface in the stamp's network, for its VIP and its agent, and one in the
/// VNET, so that the API server reaches kubelets, webhooks and aggregated APIs directly. The VIP is on the
/// interface unless members move it among themselves (`roaming`).
///
/// In the stamp's network the API server only answers: tenants name the addresses that it connects to, with
/// webhooks and EndpointSlices, and there are other clusters there.
pub fn control_plane_nics(
    spec: &ClusterSpec,
    network: &NetworkId,
    at: &ControlPlaneAddresses,
    roaming: bool,
    stamp: &StampNetwork,
) -> Vec<NicSpec> {
    let profile = &spec.network;
    let via = gateway(profile.control_plane_range);
    // A tenant's subnets may change; its address space stays.
    let nodes = match &profile.vnet {
        Some(vnet) => vnet.space.clone(),
        None => vec![profile.node_range],
    };
    vec![
        NicSpec {
            name: "eth0".to_owned(),
            attach: Attach::Stamp,
            address: within(at.stamp, stamp.range),
            extra: if roaming { Vec::new() } else { vec![at.vip] },
            gateway: Some(stamp.gateway()),
            routes: Vec::new(),
            sending: Some(Sending {
                from: vec![Ipv4Net::from(at.vip)],
                serves: Some(vec![API_PORT]),
            }),
        },
        NicSpec {
            name: "eth1".to_owned(),
            attach: Attach::Subnet {
                network: network.clone(),
                subnet: CONTROL_PLANE_SUBNET.to_owned(),
            },
            address: within(at.vnet, profile.control_plane_range),
            extra: Vec::new(),
            gateway: None,
            routes: nodes
                .into_iter()
                .chain(profile.pod_range)
                .map(|to| RouteSpec { to, via })
                .collect(),
            sending: Some(Sending::default()),
        },
    ]
}

/// The addresses that a node sends from besides its own: its pods'. Where the plugin is the user's, so are
/// pods' addresses, and all are permitted that are not the VNET's.
fn pods(spec: &ClusterSpec, node: &NodePlace) -> Vec<Ipv4Net> {
    match spec.network.plugin {
        PodNetworking::None => vec![Ipv4Net::default()],
        PodNetworking::Kubenet | PodNetworking::AzureOverlay | PodNetworking::AzureFlat => {
            node.pod_range.into_iter().collect()
        }
    }
}

/// The only interface of a node.
pub fn node_nics(spec: &ClusterSpec, network: &NetworkId, node: &NodePlace) -> Vec<NicSpec> {
    let range = spec.network.subnet_of(node.address);
    vec![NicSpec {
        name: "eth0".to_owned(),
        attach: Attach::Subnet {
            network: network.clone(),
            subnet: match &spec.network.vnet {
                Some(_) => tenant_subnet(range),
                None => NODE_SUBNET.to_owned(),
            },
        },
        address: within(node.address, range),
        extra: Vec::new(),
        gateway: Some(gateway(range)),
        routes: Vec::new(),
        sending: Some(Sending::of(pods(spec, node))),
    }]
}

/// An address with the prefix length of the range it is in.
fn within(address: Ipv4Addr, range: Ipv4Net) -> Ipv4Net {
    Ipv4Net::new(address, range.prefix_len()).expect("the prefix length comes from a range that exists")
}
