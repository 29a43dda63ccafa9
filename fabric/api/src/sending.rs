//! What a machine may send through a network interface.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// What a machine may send through a network interface. Whatever else it sends is dropped where the interface
/// is attached: frames with another hardware address, packets and ARP messages with another sender, and
/// everything besides IPv4 and ARP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    /// Senders besides the interface's own addresses: pods behind the machine, a VIP that may move to it.
    /// With `0.0.0.0/0`: every address that is not in a range of the network itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Ipv4Net>,
    /// If set, the machine opens no connections to others in the network except its gateway: others reach it
    /// at these TCP ports, and it answers. `None`: it may open connections to all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serves: Option<Vec<u16>>,
}

impl Sending {
    /// The senders behind the interface, and connections to all.
    pub fn of(from: Vec<Ipv4Net>) -> Self {
        Self { from, serves: None }
    }
}
