//! How a cluster's parts are computed: the seam between the loops and what is known about Kubernetes.

use std::{net::Ipv4Addr, sync::Arc};

use agent_protocol::MachineConfig;
use cluster_api::{AddonAilment, Endpoint, IsOwn, NodeWish, ObjectRef, Watch};
use control_records::{ClusterRecord, KeyStep, MachineRecord, command::CommandInput};
use fabric_api::{NetworkId, NetworkSpec, NicSpec, StampNetwork};
use jiff::Timestamp;
use serde_json::Value;
use zeroize::Zeroizing;

use control_planner::{Addresses, ControlPlane, CredentialsWish, NetworkLayout, RendererVersions};

/// Bytes that are wiped when dropped.
pub type Secret = Zeroizing<Vec<u8>>;

/// Something could not be computed from what was accepted: a fault of ours, told to people with its cause.
#[derive(Debug, thiserror::Error)]
#[error("cannot compute {what}")]
pub struct RecipeError {
    /// What was to be computed.
    pub what: &'static str,
    /// Why not.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl RecipeError {
    /// Names what failed.
    pub fn new(what: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            what,
            source: source.into(),
        }
    }
}

/// A cluster and where it is.
#[derive(Debug, Clone)]
pub struct Site {
    /// What it is to be.
    pub cluster: Arc<ClusterRecord>,
    /// Its addresses in the stamp.
    pub addresses: Addresses,
    /// Its members, and what each has to know of the others.
    pub control_plane: ControlPlane,
    /// The stamp.
    pub stamp: StampNetwork,
}

impl Site {
    /// The identity of the cluster's VNET: its uid.
    pub fn network_id(&self) -> NetworkId {
        network_id(&self.cluster.uid)
    }
}

/// The identity of a cluster's VNET, and the other way round: a network's id is its cluster's uid.
pub fn network_id(uid: &str) -> NetworkId {
    NetworkId::from(uid)
}

/// What credentials hang on in a cluster.
#[derive(Debug, Clone)]
pub struct CredentialObjects {
    /// Where they are found, among others.
    pub of: Watch,
    /// Which of those are credentials', by their names.
    pub own: IsOwn,
    /// Those of credentials that work.
    pub granted: Vec<Value>,
    /// Names of those of credentials that are not to work any more.
    pub withdrawn: Vec<String>,
}

/// Computes, without side effects. Certificates inside are fresh each time.
pub trait Recipes: Send + Sync + 'static {
    /// A cluster's CAs and keys, in a form that only the recipes read. `source`: those of the cluster whose state it begins with.
    fn pki(&self, source: Option<&Secret>, now: Timestamp) -> Result<Secret, RecipeError>;
    /// The same after a step of their replacement.
    fn step_pki(&self, pki: &Secret, step: &KeyStep, now: Timestamp) -> Result<Secret, RecipeError>;
    /// What a machine is to be.
    fn config(
        &self,
        site: &Site,
        machine: &MachineRecord,
        pki: &Secret,
        now: Timestamp,
        generation: u64,
    ) -> Result<MachineConfig, RecipeError>;
    /// Versions of what renders the configurations of a cluster's machines.
    fn renderers(&self, cluster: &ClusterRecord) -> Result<RendererVersions, RecipeError>;
    /// The VNET.
    fn network(&self, site: &Site, layout: &NetworkLayout) -> NetworkSpec;
    /// A machine's network cards.
    fn nics(&self, site: &Site, machine: &MachineRecord) -> Result<Vec<NicSpec>, RecipeError>;
    /// What is wanted of a machine's node object; `None` for a machine that is no node of a pool of the cluster.
    fn wish(&self, cluster: &ClusterRecord, machine: &MachineRecord) -> Option<NodeWish>;
    /// How to reach the cluster as its administrator.
    fn endpoint(&self, pki: &Secret, vip: Ipv4Addr, now: Timestamp) -> Result<Endpoint, RecipeError>;
    /// Objects in the cluster that the add-ons' objects depend on.
    fn addons_read(&self) -> Vec<ObjectRef>;
    /// The add-ons' objects; `read` are those of [`Self::addons_read`] that are there.
    fn addons(&self, cluster: &ClusterRecord, read: &[Value]) -> Result<Vec<Value>, RecipeError>;
    /// What credentials hang on in a cluster.
    fn credentials(&self, wish: &CredentialsWish) -> CredentialObjects;
    /// The objects that a command needs to run in a cluster.
    fn command(&self, id: &str, input: &CommandInput) -> Vec<Value>;
    /// The add-ons that do not work, by the same `read`.
    fn addon_ailments(&self, cluster: &ClusterRecord, read: &[Value]) -> Vec<AddonAilment>;
}
