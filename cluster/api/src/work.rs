//! Input and output of the autoscaler in a cluster.

use serde_json::Value;

use crate::Note;

/// The objects that decide which nodes the pods need.
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
    /// CSINodes: limits of volumes by node.
    pub drivers: Vec<Value>,
    /// The ConfigMap `kube-system/cluster-autoscaler-priority-expander`, if it exists.
    pub priorities: Option<Value>,
}

/// Status and events of the autoscaler for users.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkNotes {
    /// The new status in the ConfigMap `kube-system/cluster-autoscaler-status`; `None`: unchanged.
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
    /// Its `metadata.resourceVersion` at the look.
    pub version: String,
    /// Its content.
    pub note: Note,
}
