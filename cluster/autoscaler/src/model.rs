//! What the decision goes by: pods, nodes, pools, and what is remembered from one decision to the next.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    quantity::Resources,
    rules::{Requirement, Rules, Taint},
};

/// What of a cluster's objects matters, as one look found it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Work {
    /// Pods that have not ended.
    pub pods: Vec<Pod>,
    /// Nodes, in the order of their names.
    pub nodes: Vec<Node>,
    /// Disruption budgets.
    pub budgets: Vec<Budget>,
    /// What the ConfigMap of the expander `priority` says, highest first: a priority, and parts of pools' names.
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
    /// When it was made.
    pub created_at: Timestamp,
    /// The node that it was given.
    pub node: Option<String>,
    /// Whether the scheduler has said that no node takes it.
    pub unschedulable: bool,
    /// `spec.priority`.
    pub priority: i64,
    /// Where it may run, and what it takes.
    pub rules: Rules,
    /// Why no node would help it, as far as that is known: it names a claim that is not there, say.
    pub blocked: Option<String>,
    /// The uid of its controller.
    pub owner: Option<String>,
    /// What becomes of it when its node goes.
    pub stays: Stays,
    /// Somebody has deleted it.
    pub leaving: bool,
}

/// What a pod has to do with its node's going.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stays {
    /// It is a file of its node.
    pub mirror: bool,
    /// A DaemonSet has it on each node.
    pub daemon: bool,
    /// A controller that is known makes another in its place.
    pub replicated: bool,
    /// It keeps something on the node's disk.
    pub local_storage: bool,
    /// `cluster-autoscaler.kubernetes.io/safe-to-evict`, where it says.
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
    /// What it has for pods.
    pub room: Resources,
    /// Whether it is ready.
    pub ready: bool,
    /// Since when it is as ready as it is.
    pub since: Option<Timestamp>,
    /// Marked unschedulable.
    pub cordoned: bool,
    /// `cluster-autoscaler.kubernetes.io/scale-down-disabled: "true"`.
    pub kept: bool,
}

/// A disruption budget.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    /// Its namespace.
    pub namespace: String,
    /// Which pods.
    pub selector: Vec<Requirement>,
    /// How many of them may go now.
    pub allowed: u32,
}

/// A pool that the autoscaler gives its count.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// At least so many nodes.
    pub min: u32,
    /// At most.
    pub max: u32,
    /// How many it is to have.
    pub count: u32,
    /// The names of its nodes that stay, whether they have joined or not, with when their machines were written down.
    pub nodes: BTreeMap<String, Timestamp>,
    /// What a new node would be like. Where a node of it is there, that one's room counts.
    pub template: Node,
}

/// What is decided about.
#[derive(Debug, Clone, Copy)]
pub struct State<'a> {
    /// What was seen.
    pub work: &'a Work,
    /// Pools with a range that are there and not stopped.
    pub pools: &'a [Pool],
    /// Nodes that are on their way out.
    pub leaving: &'a BTreeSet<String>,
    /// Nodes that are not to be taken away, whatever runs on them.
    pub kept: &'a BTreeSet<String>,
    /// What is remembered.
    pub memory: &'a Memory,
}

/// What is remembered from one decision to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// By node: since when nobody needs it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unneeded: BTreeMap<String, Timestamp>,
    /// By pool: how it grows at present.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub growing: BTreeMap<String, Growth>,
    /// By pool: until when it is not grown, because nodes of it did not come.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub backoff: BTreeMap<String, Backoff>,
    /// When a pool grew last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added_at: Option<Timestamp>,
    /// When a node was last told to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// When a node was last given up because it did not come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
}

impl Memory {
    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// That a pool grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Growth {
    /// How many nodes it was to have before.
    pub from: u32,
    /// How many it is to have.
    pub to: u32,
    /// Since when.
    pub since: Timestamp,
}

/// That a pool is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// Until then.
    pub until: Timestamp,
    /// How often nodes did not come, in a row.
    pub times: u32,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// Pools that are to have another count than they have, by name. Nodes of [`Self::remove`] are counted out of it.
    pub sizes: BTreeMap<String, u32>,
    /// Nodes that are to go, by name.
    pub remove: BTreeSet<String>,
    /// What is remembered from now on.
    pub memory: Memory,
    /// What becomes of pods that no node takes, in the order of [`Work::pods`].
    pub verdicts: Vec<Verdict>,
    /// When to decide again even if nothing changes.
    pub again: Option<Timestamp>,
    /// Whether too many nodes are not ready for anything to be done.
    pub unhealthy: bool,
    /// By node: why it stays although little runs on it.
    pub kept: BTreeMap<String, String>,
    /// How often it was asked whether a node takes a pod: the measure of the work.
    pub checks: u64,
}

/// What becomes of a pod that no node takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Its index in [`Work::pods`].
    pub pod: usize,
    /// What.
    pub outcome: Outcome,
}

/// See [`Verdict`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A node of this pool comes for it.
    Comes(String),
    /// There is room for it; the scheduler has not seen it yet.
    Fits,
    /// No pool has a node for it: why not, as upstream says it, with how many pools each reason holds for.
    Nowhere(BTreeMap<String, u32>),
    /// It is not old enough, or not important enough, to be looked at.
    NotYet,
}
