//! The input of a decision: pods, nodes, pools, and the memory from one decision to the next.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    quantity::Resources,
    rules::{Requirement, Rules, Taint},
};

/// The relevant part of a cluster's objects, as one look found them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Work {
    /// Pods that have not ended.
    pub pods: Vec<Pod>,
    /// Nodes, in the order of their names.
    pub nodes: Vec<Node>,
    /// Disruption budgets.
    pub budgets: Vec<Budget>,
    /// The ConfigMap of the expander `priority`, highest first: a priority, and patterns of pools' names.
    pub priorities: Vec<(u64, Vec<String>)>,
}

/// A pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// `metadata.resourceVersion`, for its events.
    pub version: String,
    /// The time of its creation.
    pub created_at: Timestamp,
    /// Its node, if the scheduler has chosen one.
    pub node: Option<String>,
    /// Whether the scheduler reports that no node takes it.
    pub unschedulable: bool,
    /// `spec.priority`.
    pub priority: i64,
    /// The nodes that it may run on, and its requests.
    pub rules: Rules,
    /// The known reason why no new node would help it, e.g. a missing claim.
    pub blocked: Option<String>,
    /// The uid of its controller.
    pub owner: Option<String>,
    /// The consequences for it when its node is removed.
    pub stays: Stays,
    /// Whether it is being deleted.
    pub leaving: bool,
}

/// The properties of a pod that decide whether its node may be removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stays {
    /// It is a static pod of its node.
    pub mirror: bool,
    /// A DaemonSet runs it on each node.
    pub daemon: bool,
    /// A known controller replaces it.
    pub replicated: bool,
    /// It keeps data on the node's disk.
    pub local_storage: bool,
    /// The annotation `cluster-autoscaler.kubernetes.io/safe-to-evict`, if it is set.
    pub safe: Option<bool>,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// `metadata.resourceVersion`, for its events.
    pub version: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Its resources for pods.
    pub room: Resources,
    /// Whether it is ready.
    pub ready: bool,
    /// The last change of its readiness.
    pub since: Option<Timestamp>,
    /// Whether it is marked unschedulable.
    pub cordoned: bool,
    /// `cluster-autoscaler.kubernetes.io/scale-down-disabled: "true"`.
    pub kept: bool,
}

/// A disruption budget.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    /// Its namespace.
    pub namespace: String,
    /// Its pods.
    pub selector: Vec<Requirement>,
    /// The number of them that may be evicted now.
    pub allowed: u32,
}

/// A pool with a count that the autoscaler sets.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its minimum of nodes.
    pub min: u32,
    /// Its maximum.
    pub max: u32,
    /// Its desired count.
    pub count: u32,
    /// The names of its nodes that stay, joined or not, with the times when their machines were recorded.
    pub nodes: BTreeMap<String, Timestamp>,
    /// A new node of it. If the pool has a ready node, that node's resources are used instead.
    pub template: Node,
}

/// The input of a decision.
#[derive(Debug, Clone, Copy)]
pub struct State<'a> {
    /// The observed objects.
    pub work: &'a Work,
    /// Pools with a range that exist, are not stopped, and have no other change in progress.
    pub pools: &'a [Pool],
    /// Nodes that are being removed.
    pub leaving: &'a BTreeSet<String>,
    /// Nodes that must not be removed, independent of their pods.
    pub kept: &'a BTreeSet<String>,
    /// The memory of the previous decision.
    pub memory: &'a Memory,
}

/// The memory from one decision to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// By node: the time since which it is not needed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unneeded: BTreeMap<String, Timestamp>,
    /// By pool: its current growth.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub growing: BTreeMap<String, Growth>,
    /// By pool: the pause of its growth after its nodes failed to become ready.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub backoff: BTreeMap<String, Backoff>,
    /// The last growth of a pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added_at: Option<Timestamp>,
    /// The last removal of an unneeded node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// The last time that growth failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
}

impl Memory {
    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The growth of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Growth {
    /// Its desired count before.
    pub from: u32,
    /// Its desired count.
    pub to: u32,
    /// The time of its last increase.
    pub since: Timestamp,
}

/// The pause of a pool's growth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// Its end.
    pub until: Timestamp,
    /// The number of consecutive failures.
    pub times: u32,
}

/// A decision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// New counts of pools, by name, where they change. Nodes of [`Self::remove`] are already subtracted.
    pub sizes: BTreeMap<String, u32>,
    /// Nodes to remove, by name.
    pub remove: BTreeSet<String>,
    /// The new memory.
    pub memory: Memory,
    /// The results for unschedulable pods, in the order of [`Work::pods`].
    pub verdicts: Vec<Verdict>,
    /// The latest time of the next decision, without any change before.
    pub again: Option<Timestamp>,
    /// Whether too many nodes are not ready, so that nothing is changed.
    pub unhealthy: bool,
    /// By node: the reason why it stays although its utilization is low.
    pub kept: BTreeMap<String, String>,
    /// The number of checks whether a node takes a pod: the measure of the work.
    pub checks: u64,
}

/// The result for an unschedulable pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Its index in [`Work::pods`].
    pub pod: usize,
    /// The result.
    pub outcome: Outcome,
}

/// See [`Verdict`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It gets a new node of this pool.
    Comes(String),
    /// An existing node has room for it; the scheduler has not placed it yet.
    Fits,
    /// No pool can provide a node for it: the reasons in upstream's words, with the number of pools for each.
    Nowhere(BTreeMap<String, u32>),
    /// It is not considered yet: it is too young, or of too low a priority, or another pool grows first.
    NotYet,
}
