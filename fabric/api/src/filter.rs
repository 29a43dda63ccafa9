//! Packet filters of subnets.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The rules of a subnet. The first rule that matches the first packet of a connection decides; a connection
/// that matches no rule is dropped. Packets of a permitted connection pass, both ways.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// For connections to machines of the subnet, also from machines of the same one.
    pub inbound: Vec<FilterRule>,
    /// For connections from machines of the subnet.
    pub outbound: Vec<FilterRule>,
}

/// A rule of a [`Filter`]. It matches when all of its parts do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterRule {
    /// Whether matching connections are permitted.
    pub allow: bool,
    /// The protocol.
    pub protocol: Protocol,
    /// Source ranges, any of them; an empty list matches nothing.
    pub from: Vec<Ipv4Net>,
    /// Source ports, any of them. Only for protocols that have ports.
    pub from_ports: Vec<PortRange>,
    /// Destination ranges, any of them.
    pub to: Vec<Ipv4Net>,
    /// Destination ports, any of them. Only for protocols that have ports.
    pub to_ports: Vec<PortRange>,
}

impl FilterRule {
    /// Permits all connections between these ranges.
    pub fn allow(from: Vec<Ipv4Net>, to: Vec<Ipv4Net>) -> Self {
        Self {
            allow: true,
            protocol: Protocol::Any,
            from,
            from_ports: vec![PortRange::ALL],
            to,
            to_ports: vec![PortRange::ALL],
        }
    }
}

/// Protocols above IP. Those with ports are TCP and UDP; a rule for any protocol that names ports applies to these two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// All.
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
    /// ESP, of IPsec.
    Esp,
    /// AH, of IPsec.
    Ah,
}

/// Ports from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last; not below the first.
    pub last: u16,
}

impl PortRange {
    /// All ports.
    pub const ALL: Self = Self {
        first: 0,
        last: u16::MAX,
    };
}
