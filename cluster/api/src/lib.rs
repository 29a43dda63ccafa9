//! A cluster's Kubernetes API, as far as the control loops need it. Implemented by `cluster/client` (kube) and by
//! `fabric/sim`.
//!
//! Always true: every call may be repeated; "not there" is success for deletions.

mod services;
mod volumes;
mod work;

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use async_trait::async_trait;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde_json::Value;

pub use services::{Ingress, Note, ServiceSeen, ServiceWish};
pub use volumes::{ClaimRef, VolumeObjects, VolumeWish};
pub use work::{WorkEvent, WorkNotes, WorkObjects};

/// Why a call did not work.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The API server cannot be reached or is not ready. Try again.
    #[error("the API server does not answer: {0}")]
    Unavailable(String),
    /// It refused.
    #[error("the API server refused to {act}: {why}")]
    Refused {
        /// What was being done, as an infinitive.
        act: String,
        /// What it said.
        why: String,
    },
}

/// How to reach a cluster as its administrator.
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

/// A node as Kubernetes sees it.
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
    /// Why it is not ready, in Kubernetes' own words.
    pub problem: Option<String>,
    /// The annotation [`PRESERVE`]: why it is to be left as it is.
    pub preserve: Option<String>,
}

/// Somebody wants to look at a node as it is: healing leaves it alone. The annotation's value says why.
pub const PRESERVE: &str = "landfall.dev/preserve";

/// What the service wants of a node object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeWish {
    /// Its name.
    pub name: String,
    /// `spec.podCIDR`, set once.
    pub pod_range: Option<Ipv4Net>,
    /// Labels that are ours to set; a label that we set before (recorded in an annotation) and that is no longer here is removed.
    pub labels: BTreeMap<String, String>,
    /// Taints that are ours, `key=value:Effect`, likewise.
    pub taints: Vec<String>,
    /// The node's only address: its kubelet's serving certificate is approved for this and its name, nothing else.
    pub address: Option<Ipv4Addr>,
}

/// Objects whose changes are listened to, by their kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Watch {
    /// `apiVersion`, e.g. `apps/v1`.
    pub version: &'static str,
    /// `kind`.
    pub kind: &'static str,
    /// In this namespace; `None` for kinds without namespaces.
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
    /// In this namespace; `None` for kinds without namespaces.
    pub namespace: Option<&'static str>,
    /// `metadata.name`.
    pub name: &'static str,
}

/// An add-on that does not work, by what its cluster says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddonAilment {
    /// The add-on's name.
    pub addon: String,
    /// Since when, in the cluster's words; the beginning of time where it does not say.
    pub since: Timestamp,
    /// What is wrong, for people: a sentence without a full stop, with a next step.
    pub why: String,
}

/// How far the draining of a node is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    /// Pods that are still on the node.
    pub left: u32,
    /// One of them that may not be evicted now (disruption budget, webhook), and why, in Kubernetes' words. The others were
    /// asked all the same.
    pub held: Option<String>,
}

/// Where commands run.
pub const COMMAND_NAMESPACE: &str = "aks-command";

/// The name of a command's objects.
pub fn command_name(id: &str) -> String {
    format!("command-{id}")
}

/// How far a command is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandSeen {
    /// Its pod is not running yet, and why, where the cluster says so.
    Waiting(Option<String>),
    /// It runs.
    Running,
    /// It has ended.
    Ended(CommandEnd),
}

/// How a command ended.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CommandEnd {
    /// Its exit code, where it ended by itself.
    pub exit_code: Option<i64>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What it printed, the last part of it.
    pub logs: String,
    /// Why it did not end by itself.
    pub reason: Option<String>,
}

impl std::fmt::Debug for CommandEnd {
    /// What it printed may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandEnd")
            .field("exit_code", &self.exit_code)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// Says by an object's name whether it is one of a set.
pub type IsOwn = fn(&str) -> bool;

/// A cluster's API.
#[async_trait]
pub trait ClusterApi: Send + Sync + 'static {
    /// `/readyz` answers ok.
    async fn ready(&self) -> Result<(), ClusterError>;
    /// All nodes.
    async fn nodes(&self) -> Result<Vec<NodeSeen>, ClusterError>;
    /// Brings labels, taints and pod range of a node to the wish. A node that does not exist (yet) is success.
    async fn set_node(&self, wish: &NodeWish) -> Result<(), ClusterError>;
    /// Approves pending kubelet serving requests that match one of these nodes exactly; others stay pending. A certificate that
    /// was issued with other names than approved is withdrawn, and is an error.
    async fn approve_serving(&self, nodes: &[NodeWish]) -> Result<u32, ClusterError>;
    /// Reads objects; those that are not there are left out.
    async fn read(&self, objects: &[ObjectRef]) -> Result<Vec<Value>, ClusterError>;
    /// Server-side applies all objects (forced, field manager `landfall`), each of them, whatever becomes of the others.
    /// Returns how many changed. Admission webhooks of others are kept away from the cluster's own namespaces first.
    async fn apply(&self, objects: &[Value]) -> Result<u32, ClusterError>;
    /// Makes the objects that a watch selects, as far as `own` says so by their names, be exactly these. Those of the names in `gone` go
    /// first, whatever else becomes of them. Returns how many changed.
    async fn replace(
        &self,
        of: &Watch,
        own: IsOwn,
        objects: &[Value],
        gone: &[String],
    ) -> Result<u32, ClusterError>;
    /// Marks unschedulable and asks each of its pods once to go.
    async fn drain(&self, node: &str) -> Result<Drained, ClusterError>;
    /// What is at a path, as text, where that is at most `most` bytes long.
    async fn text(&self, path: &str, most: usize) -> Result<String, ClusterError> {
        // A cluster that has no texts refuses each.
        Err(ClusterError::Refused {
            act: format!("read {path}"),
            why: format!("there is no text of at most {most} bytes"),
        })
    }
    /// Removes the node object.
    async fn delete_node(&self, name: &str) -> Result<(), ClusterError>;
    /// How far a command is. Where its pod is not there, these objects are applied; the pod is among them.
    async fn command(&self, id: &str, objects: &[Value]) -> Result<CommandSeen, ClusterError>;
    /// Removes what is a command's own: its pod, and what that was given.
    async fn end_command(&self, id: &str) -> Result<(), ClusterError>;
    /// All Services of type LoadBalancer.
    async fn services(&self) -> Result<Vec<ServiceSeen>, ClusterError>;
    /// Brings a Service's status and finalizer to the wish, and tells its note. A Service that does not exist (any more), or has another
    /// uid, is success.
    async fn set_service(&self, wish: &ServiceWish) -> Result<(), ClusterError>;
    /// What it holds of volumes: claims, persistent volumes, attachments, storage classes. All of them, whoever's driver they go by; no claims
    /// where neither a class nor a persistent volume is of the disk driver.
    async fn volumes(&self) -> Result<VolumeObjects, ClusterError>;
    /// Brings an object that has to do with a volume to the wish. One that does not exist (any more), or has another uid, is success.
    async fn set_volume(&self, wish: &VolumeWish) -> Result<(), ClusterError>;
    /// What pods want of nodes, and what nodes have: asked only for a cluster with an autoscaler. From then on, pods that wait for a node are
    /// listened to by [`Self::changes`].
    async fn work(&self) -> Result<WorkObjects, ClusterError>;
    /// Tells what an autoscaler does and why. An event that cannot be told stops nothing.
    async fn tell_work(&self, notes: &WorkNotes) -> Result<(), ClusterError>;
    /// Listens for changes of nodes, pending serving requests, Services of type LoadBalancer (and of endpoints, where one of these goes by
    /// them), claims (and of persistent volumes and their attachments, where [`Self::volumes`] has found some of the disk driver), and
    /// managed add-on objects. The connection lives as long as what is returned does, so that an idle cluster costs none unless somebody
    /// cares.
    fn changes(&self) -> Arc<dyn Changes>;
}

/// Counts how often something in a cluster may have changed. A wake-up only.
#[async_trait]
pub trait Changes: Send + Sync + 'static {
    /// The count now.
    fn count(&self) -> u64;
    /// Waits until the count is another than `seen`, and returns it; `None` when no change will be noticed any more.
    async fn after(&self, seen: u64) -> Option<u64>;
}

/// Connects to clusters.
pub trait Connect: Send + Sync + 'static {
    /// A handle; connects lazily and again after failures.
    fn connect(&self, cluster: &str, endpoint: &Endpoint) -> Result<Arc<dyn ClusterApi>, ClusterError>;
}
