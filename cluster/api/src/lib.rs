//! The part of a cluster's Kubernetes API that the control loops use. Implemented by `cluster/client` (kube)
//! and by `fabric/sim`.
//!
//! Always true: every call may be repeated; "not there" is success for deletions.

mod namespaces;
pub mod quantity;
mod services;
mod volumes;
mod work;

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use async_trait::async_trait;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde_json::Value;

pub use namespaces::{NamespaceSeen, NamespaceWish};
pub use services::{Ingress, Note, ServiceSeen, ServiceWish};
pub use volumes::{ClaimRef, VolumeObjects, VolumeWish};
pub use work::{WorkEvent, WorkNotes, WorkObjects};

/// The reason why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The API server cannot be reached or is not ready. Try again.
    #[error("the API server does not answer: {0}")]
    Unavailable(String),
    /// The API server refused.
    #[error("the API server refused to {act}: {why}")]
    Refused {
        /// The action, as an infinitive.
        act: String,
        /// The server's message.
        why: String,
    },
}

/// The administrator's access to a cluster.
#[derive(Clone)]
pub struct Endpoint {
    /// `https://{vip}:443`
    pub server: String,
    /// PEM of the cluster CA.
    pub ca: String,
    /// PEM of the administrator's client certificate.
    pub certificate: String,
    /// PEM of its key.
    pub key: String,
}

/// An observed node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSeen {
    /// Its name.
    pub name: String,
    /// Condition Ready is True.
    pub ready: bool,
    /// Marked unschedulable.
    pub cordoned: bool,
    /// e.g. `v1.36.3`.
    pub kubelet_version: String,
    /// `spec.podCIDR`.
    pub pod_range: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints, `key=value:Effect`.
    pub taints: Vec<String>,
    /// The reason why it is not ready, in Kubernetes' own words.
    pub problem: Option<String>,
    /// The annotation [`PRESERVE`]: the reason to leave the node as it is.
    pub preserve: Option<String>,
    /// Labels, annotations and taints that users set with kubectl.
    pub marks: NodeMarks,
}

/// Labels, annotations and taints of a node that users set with kubectl; not those of the service, of Kubernetes or of the node itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeMarks {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Taints, `key=value:Effect`.
    pub taints: Vec<String>,
}

impl NodeMarks {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty() && self.taints.is_empty()
    }
}

/// Keeps healing off a node, so that a person can examine it. The annotation's value is the reason.
pub const PRESERVE: &str = "landfall.dev/preserve";

/// The label of a node that could not be drained and is quarantined, and its value, as in AKS.
pub const QUARANTINED: (&str, &str) = ("kubernetes.azure.com/upgrade-status", "Quarantined");

/// The desired state of a node object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeWish {
    /// Its name.
    pub name: String,
    /// `spec.podCIDR`, set once.
    pub pod_range: Option<Ipv4Net>,
    /// Labels set by the service; a label that it set before (recorded in an annotation) and that is missing
    /// here is removed.
    pub labels: BTreeMap<String, String>,
    /// Taints set by the service, `key=value:Effect`, likewise.
    pub taints: Vec<String>,
    /// Labels, annotations and taints of the node with this name, which this node replaces: they are copied once, and only
    /// where the node has no value of its own. A later removal is not undone.
    pub inherited: Option<(String, NodeMarks)>,
    /// Whether the node is schedulable: a cordon set by [`ClusterApi::drain`] is removed, any other is kept.
    pub takes_pods: bool,
    /// The node's only address: its kubelet's serving certificate is approved only for this and its name.
    pub address: Option<Ipv4Addr>,
}

/// Watched objects of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Watch {
    /// `apiVersion`, e.g. `apps/v1`.
    pub version: &'static str,
    /// `kind`.
    pub kind: &'static str,
    /// The namespace; `None` for kinds without namespaces.
    pub namespace: Option<&'static str>,
    /// Label selector.
    pub labels: Option<&'static str>,
    /// Only the object of this name.
    pub name: Option<&'static str>,
}

/// An object by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// `apiVersion`, e.g. `apps/v1`.
    pub version: &'static str,
    /// `kind`.
    pub kind: &'static str,
    /// The namespace; `None` for kinds without namespaces.
    pub namespace: Option<&'static str>,
    /// `metadata.name`.
    pub name: &'static str,
}

/// An add-on that does not work, from the state of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddonAilment {
    /// The add-on's name.
    pub addon: String,
    /// The start of the problem, as reported by the cluster; the beginning of time if unknown.
    pub since: Timestamp,
    /// The problem, for people: a sentence without a full stop, with a next step.
    pub why: String,
}

/// The progress of a node's drain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    /// Pods that are still on the node.
    pub left: u32,
    /// One of them that may not be evicted now (disruption budget, webhook), with Kubernetes' reason.
    /// Eviction of the others was requested all the same.
    pub held: Option<String>,
}

/// The namespace of commands' pods.
pub const COMMAND_NAMESPACE: &str = "aks-command";

/// The name of a command's objects.
pub fn command_name(id: &str) -> String {
    format!("command-{id}")
}

/// The state of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandSeen {
    /// Its pod is not running yet, with the reason if the cluster reports one.
    Waiting(Option<String>),
    /// It runs.
    Running,
    /// It has ended.
    Ended(CommandEnd),
}

/// The end of a command.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CommandEnd {
    /// Its exit code, if it exited by itself.
    pub exit_code: Option<i64>,
    /// The time of its start.
    pub started_at: Option<Timestamp>,
    /// The time of its end.
    pub finished_at: Option<Timestamp>,
    /// Its output, up to a size limit.
    pub logs: String,
    /// The reason why it did not exit by itself.
    pub reason: Option<String>,
}

impl std::fmt::Debug for CommandEnd {
    /// Its output may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandEnd")
            .field("exit_code", &self.exit_code)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// Decides by an object's name whether it belongs to a set.
pub type IsOwn = fn(&str) -> bool;

/// A cluster's API.
#[async_trait]
pub trait ClusterApi: Send + Sync + 'static {
    /// Whether `/readyz` answers ok.
    async fn ready(&self) -> Result<(), ClusterError>;
    /// All nodes.
    async fn nodes(&self) -> Result<Vec<NodeSeen>, ClusterError>;
    /// Sets labels, taints and pod range of a node. Succeeds for a node that does not exist (yet).
    async fn set_node(&self, wish: &NodeWish) -> Result<(), ClusterError>;
    /// Approves pending kubelet serving requests that match one of these nodes exactly; others stay pending.
    /// A certificate that was issued with other names than approved is withdrawn, and an error is returned.
    async fn approve_serving(&self, nodes: &[NodeWish]) -> Result<u32, ClusterError>;
    /// Reads objects; missing ones are left out.
    async fn read(&self, objects: &[ObjectRef]) -> Result<Vec<Value>, ClusterError>;
    /// Server-side applies all objects (forced, field manager `landfall`); a failure of one does not stop the
    /// others. Returns the number of changes. Foreign admission webhooks are excluded from the cluster's own
    /// namespaces first.
    async fn apply(&self, objects: &[Value]) -> Result<u32, ClusterError>;
    /// Removes objects, in this order. Returns how many of them were there.
    async fn delete_objects(&self, objects: &[ObjectRef]) -> Result<u32, ClusterError>;
    /// Makes the objects that a watch selects, and for whose names `own` is true, exactly these. Those named
    /// in `gone` are deleted first, whatever else fails. Returns the number of changes.
    async fn replace(
        &self,
        of: &Watch,
        own: IsOwn,
        objects: &[Value],
        gone: &[String],
    ) -> Result<u32, ClusterError>;
    /// Marks the node unschedulable and requests the eviction of each of its pods once.
    async fn drain(&self, node: &str) -> Result<Drained, ClusterError>;
    /// The text at a path, if it has at most `most` bytes.
    async fn text(&self, path: &str, most: usize) -> Result<String, ClusterError> {
        // By default there is no text.
        Err(ClusterError::Refused {
            act: format!("read {path}"),
            why: format!("there is no text of at most {most} bytes"),
        })
    }
    /// Removes the node object.
    async fn delete_node(&self, name: &str) -> Result<(), ClusterError>;
    /// The state of a command. If its pod does not exist, these objects are applied; the pod is one of them.
    async fn command(&self, id: &str, objects: &[Value]) -> Result<CommandSeen, ClusterError>;
    /// Removes a command's objects: its pod and the pod's inputs.
    async fn end_command(&self, id: &str) -> Result<(), ClusterError>;
    /// All Services of type LoadBalancer.
    async fn services(&self) -> Result<Vec<ServiceSeen>, ClusterError>;
    /// Sets a Service's status and finalizer, and writes its note as an event. Succeeds for a Service that
    /// does not exist (any more), or has another uid.
    async fn set_service(&self, wish: &ServiceWish) -> Result<(), ClusterError>;
    /// The volume objects: claims, persistent volumes, attachments, storage classes, of all drivers; no
    /// claims if neither a class nor a persistent volume is of the disk driver.
    async fn volumes(&self) -> Result<VolumeObjects, ClusterError>;
    /// Brings an object that has to do with a volume to the wish. One that does not exist (any more), or has another uid, is success.
    async fn set_volume(&self, wish: &VolumeWish) -> Result<(), ClusterError>;
    /// Pods, nodes and the related objects for the autoscaler; used only for a cluster with an autoscaler.
    /// After the first call, [`Self::changes`] includes pods without a node.
    async fn work(&self) -> Result<WorkObjects, ClusterError>;
    /// Writes the autoscaler's status and events. An event that cannot be written is not an error.
    async fn tell_work(&self, notes: &WorkNotes) -> Result<(), ClusterError>;
    /// Brings a managed namespace to the wish: the Namespace, its quota, its network policy, and who may work in it.
    async fn set_namespace(&self, wish: &NamespaceWish) -> Result<NamespaceSeen, ClusterError>;
    /// Listens for changes of nodes, pending serving requests, Services of type LoadBalancer (and of endpoints, where one of these goes by
    /// them), claims (and of persistent volumes and their attachments, where [`Self::volumes`] has found some of the disk driver), managed
    /// namespaces and their network policies (where [`Self::set_namespace`] has set some), and managed add-on objects. The connection lives as long as what is returned does, so that an idle cluster costs none unless somebody
    /// cares.
    fn changes(&self) -> Arc<dyn Changes>;
}

/// Counts possible changes in a cluster. A wake-up only.
#[async_trait]
pub trait Changes: Send + Sync + 'static {
    /// The current count.
    fn count(&self) -> u64;
    /// Waits until the count differs from `seen`, and returns it; `None` when no further changes can be
    /// noticed.
    async fn after(&self, seen: u64) -> Option<u64>;
}

/// Connects to clusters.
pub trait Connect: Send + Sync + 'static {
    /// A handle; connects lazily and again after failures.
    fn connect(&self, cluster: &str, endpoint: &Endpoint) -> Result<Arc<dyn ClusterApi>, ClusterError>;
}
