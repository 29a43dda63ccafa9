//! A node object of a cluster.

use std::{collections::BTreeSet, net::Ipv4Addr};

use cluster_api::NodeSeen;

#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) seen: NodeSeen,
    pub(crate) machine: String,
    pub(crate) address: Option<Ipv4Addr>,
    /// Whether its kubelet waits for a serving certificate.
    pub(crate) serving_pending: bool,
    pub(crate) pods: u32,
    pub(crate) draining: bool,
    /// Whether the service has cordoned it.
    pub(crate) drained: bool,
    /// Labels and taints that the service set.
    pub(crate) our_labels: BTreeSet<String>,
    pub(crate) our_taints: BTreeSet<String>,
}
