//! A cluster's VNET and the network cards of its machines.

use std::net::Ipv4Addr;

use cluster_spec::ClusterSpec;
use fabric_api::{Attach, NetworkId, NetworkSpec, NicSpec, RouteSpec, StampNetwork, SubnetSpec};
use ipnet::Ipv4Net;

use crate::{ControlPlaneAddresses, NodePlace};

/// The nodes' subnet.
pub const NODE_SUBNET: &str = "nodes";
/// The hidden subnet of the control plane's own card.
pub const CONTROL_PLANE_SUBNET: &str = "control-plane";

/// The router's address in a subnet: the first usable one, as in Azure.
fn gateway(range: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(range.network()) + 1)
}

/// The VNET with its route table.
pub fn network(spec: &ClusterSpec, id: NetworkId, uplink: Ipv4Addr, routes: Vec<RouteSpec>) -> NetworkSpec {
    let profile = &spec.network;
    let subnet = |name: &str, range: Ipv4Net| SubnetSpec {
        name: name.to_owned(),
        range,
        gateway: gateway(range),
    };
    NetworkSpec {
        id,
        address_space: vec![profile.vnet_range],
        subnets: vec![
            subnet(NODE_SUBNET, profile.node_range),
            subnet(CONTROL_PLANE_SUBNET, profile.control_plane_range),
        ],
        reserved: profile
            .pod_range
            .into_iter()
            .chain([profile.service_range])
            .collect(),
        routes,
        uplink,
    }
}

/// A control plane machine has a card in the stamp's network, for its VIP and its agent, and one in the VNET, so that the
/// API server reaches kubelets, webhooks and aggregated APIs directly. The VIP is on the card unless members hold it among
/// themselves (`roaming`).
pub fn control_plane_nics(
    spec: &ClusterSpec,
    network: &NetworkId,
    at: &ControlPlaneAddresses,
    roaming: bool,
    stamp: &StampNetwork,
) -> Vec<NicSpec> {
    let profile = &spec.network;
    let via = gateway(profile.control_plane_range);
    let inside = [Some(profile.node_range), profile.pod_range];
    vec![
        NicSpec {
            name: "eth0".to_owned(),
            attach: Attach::Stamp,
            address: within(at.stamp, stamp.range),
            extra: if roaming { Vec::new() } else { vec![at.vip] },
            gateway: Some(stamp.gateway()),
            routes: Vec::new(),
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
            routes: inside
                .into_iter()
                .flatten()
                .map(|to| RouteSpec { to, via })
                .collect(),
        },
    ]
}

/// A node has one card.
pub fn node_nics(spec: &ClusterSpec, network: &NetworkId, node: &NodePlace) -> Vec<NicSpec> {
    let range = spec.network.node_range;
    vec![NicSpec {
        name: "eth0".to_owned(),
        attach: Attach::Subnet {
            network: network.clone(),
            subnet: NODE_SUBNET.to_owned(),
        },
        address: within(node.address, range),
        extra: Vec::new(),
        gateway: Some(gateway(range)),
        routes: Vec::new(),
    }]
}

/// An address with the prefix length of the range it is in.
fn within(address: Ipv4Addr, range: Ipv4Net) -> Ipv4Net {
    Ipv4Net::new(address, range.prefix_len()).expect("the prefix length comes from a range that exists")
}
