//! Load balancers: addresses whose connections go to one of several machines.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::Protocol;

/// An address of a VNET's router whose connections go to one of several machines of the VNET.
///
/// Always true: a connection stays with its machine, whatever happens to the others; a machine that is
/// removed from the list gets no new connections and keeps existing ones. The machine sees the client's own
/// address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Balancer {
    /// Its address: of one network in the stamp, or of one subnet in the VNET. Several balancers of a network may share it, if
    /// each protocol and port is one's.
    pub address: Ipv4Addr,
    /// The side from which it is reached.
    pub side: Side,
    /// Forwarded ports, one entry for each protocol and port.
    pub ports: Vec<BalancedPort>,
    /// Ranges of permitted clients; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Ipv4Net>,
}

/// The side from which a balancer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// Its address is one of the stamp's VIPs: the host and all VNETs reach it.
    Stamp,
    /// Its address is one of a subnet's: the VNET's own machines reach it.
    Subnet,
}

/// A port of a balancer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BalancedPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Port at the balancer's address, 1 to 65535.
    pub port: u16,
    /// Port at the machines, 1 to 65535.
    pub target: u16,
    /// Machines in rotation, by their addresses in the VNET. With none, connections are refused.
    pub machines: BTreeSet<Ipv4Addr>,
    /// Whether all connections of a client go to the same machine, as long as it is in rotation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sticky: bool,
}
