//! What an autoscaler goes by, and what it tells.

use serde_json::Value;

use crate::Note;

/// The objects that say which pods want which nodes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkObjects {
    /// Pods of all namespaces that have not ended.
    pub pods: Vec<Value>,
    /// Nodes.
    pub nodes: Vec<Value>,
    /// PodDisruptionBudgets.
    pub budgets: Vec<Value>,
    /// PersistentVolumeClaims of all namespaces.
    pub claims: Vec<Value>,
    /// PersistentVolumes.
    pub volumes: Vec<Value>,
    /// CSINodes: how many volumes a node takes.
    pub drivers: Vec<Value>,
    /// The ConfigMap `kube-system/cluster-autoscaler-priority-expander`, where there is one.
    pub priorities: Option<Value>,
}

/// What people read of an autoscaler.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkNotes {
    /// What the ConfigMap `kube-system/cluster-autoscaler-status` says from now on; `None`: as it is.
    pub status: Option<String>,
    /// Events.
    pub events: Vec<WorkEvent>,
}

/// An event of a pod or a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkEvent {
    /// `Pod` or `Node`.
    pub kind: &'static str,
    /// Its namespace; empty for a node.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its `metadata.resourceVersion` when it was seen.
    pub version: String,
    /// What.
    pub note: Note,
}
