//! Addresses that lead to whichever of several machines is there to answer.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::Protocol;

/// An address of a VNET's router whose connections go to one of several machines of the VNET.
///
/// Always true: a connection stays with the machine that it began with, whatever becomes of the others; a machine that is taken out of
/// the list gets no new connections and keeps those that it has. Who connects is seen by the machine under its own address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Balancer {
    /// Where it is reached. No two of a stamp, or of a VNET, have the same.
    pub address: Ipv4Addr,
    /// From where.
    pub side: Side,
    /// What is let through to which port of the machines, one entry for each protocol and port.
    pub ports: Vec<BalancedPort>,
    /// Who may connect; empty: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Ipv4Net>,
}

/// From where an address is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// It is one of the stamp's VIPs: the host and all VNETs reach it.
    Stamp,
    /// It is one of a subnet's: the VNET's own machines reach it.
    Subnet,
}

/// A port of a balancer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BalancedPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// At the address, 1 to 65535.
    pub port: u16,
    /// At the machines, 1 to 65535.
    pub target: u16,
    /// Machines in rotation, by their addresses in the VNET. With none, connections are refused.
    pub machines: BTreeSet<Ipv4Addr>,
    /// Whether all connections of a client go to the same machine, as long as that is in rotation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sticky: bool,
}
