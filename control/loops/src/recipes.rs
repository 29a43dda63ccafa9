//! How a cluster's parts are computed: the interface between the loops and the knowledge of Kubernetes.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

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

/// A part could not be computed from an accepted request: a bug, shown with its cause.
#[derive(Debug, thiserror::Error)]
#[error("cannot compute {what}")]
pub struct RecipeError {
    /// The part.
    pub what: &'static str,
    /// Why not.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl RecipeError {
    /// The error of a part.
    pub fn new(what: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            what,
            source: source.into(),
        }
    }
}

/// A cluster with its addresses.
#[derive(Debug, Clone)]
pub struct Site {
    /// The desired state.
    pub cluster: Arc<ClusterRecord>,
    /// Its addresses in the stamp.
    pub addresses: Addresses,
    /// Its members, with their mutual addresses.
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

/// The id of a cluster's VNET. A network's id is its cluster's uid.
pub fn network_id(uid: &str) -> NetworkId {
    NetworkId::from(uid)
}

/// The objects of credentials in a cluster.
#[derive(Debug, Clone)]
pub struct CredentialObjects {
    /// The objects to be searched for them.
    pub of: Watch,
    /// Which of those belong to credentials, by their names.
    pub own: IsOwn,
    /// Objects of valid credentials.
    pub granted: Vec<Value>,
    /// Names of objects of revoked credentials.
    pub withdrawn: Vec<String>,
    /// Objects of other kinds that are to be gone, in this order: what the credentials of tickets shared.
    pub over: Vec<ObjectRef>,
}

/// What a machine is configured with so far.
#[derive(Debug, Clone, Copy)]
pub struct Former<'a> {
    /// Its configuration.
    pub config: &'a MachineConfig,
    /// Those of its certificates that were issued at this time, or earlier, are renewed.
    pub due: Timestamp,
}

/// What a machine is to be configured with.
#[derive(Debug)]
pub struct Configured {
    /// Its configuration.
    pub config: MachineConfig,
    /// When the oldest of the certificates in it was issued.
    pub issued_at: Timestamp,
}

/// Computes, without side effects. Certificates in the results are new each time, but for those of a machine that still hold.
pub trait Recipes: Send + Sync + 'static {
    /// A cluster's CAs and keys, in a form that only the recipes read. `source`: those of the cluster whose
    /// state it starts from.
    fn pki(&self, source: Option<&Secret>, now: Timestamp) -> Result<Secret, RecipeError>;
    /// The same after a step of their replacement.
    fn step_pki(&self, pki: &Secret, step: &KeyStep, now: Timestamp) -> Result<Secret, RecipeError>;
    /// The configuration of a machine. Certificates of the former one are kept where they still hold: from the same of everything else comes the same.
    fn config(
        &self,
        site: &Site,
        machine: &MachineRecord,
        pki: &Secret,
        former: Option<Former<'_>>,
        now: Timestamp,
        generation: u64,
    ) -> Result<Configured, RecipeError>;
    /// Versions of the renderers of configurations for a cluster's machines.
    fn renderers(&self, cluster: &ClusterRecord) -> Result<RendererVersions, RecipeError>;
    /// The VNET.
    fn network(&self, site: &Site, layout: &NetworkLayout) -> NetworkSpec;
    /// A machine's network cards.
    fn nics(&self, site: &Site, machine: &MachineRecord) -> Result<Vec<NicSpec>, RecipeError>;
    /// The desired node object of a machine; `None` for a machine that is no node of a pool of the cluster.
    fn wish(&self, cluster: &ClusterRecord, machine: &MachineRecord) -> Option<NodeWish>;
    /// The administrator's access to the cluster.
    fn endpoint(&self, pki: &Secret, vip: Ipv4Addr, now: Timestamp) -> Result<Endpoint, RecipeError>;
    /// Objects in the cluster that the add-ons' objects depend on.
    fn addons_read(&self) -> Vec<ObjectRef>;
    /// The add-ons' objects; `images` are those of add-ons that nodes can have, `read` the existing objects of [`Self::addons_read`].
    fn addons(
        &self,
        cluster: &ClusterRecord,
        images: &BTreeSet<String>,
        read: &[Value],
    ) -> Result<Vec<Value>, RecipeError>;
    /// The objects of add-ons to be removed, in this order, by the same `images` and `read`.
    fn addons_leaving(
        &self,
        cluster: &ClusterRecord,
        images: &BTreeSet<String>,
        read: &[Value],
    ) -> Vec<ObjectRef>;
    /// The objects of credentials in a cluster.
    fn credentials(&self, wish: &CredentialsWish) -> CredentialObjects;
    /// The objects that a command needs to run in a cluster.
    fn command(&self, id: &str, input: &CommandInput) -> Vec<Value>;
    /// The failing add-ons, by the same `read`.
    fn addon_ailments(&self, cluster: &ClusterRecord, read: &[Value]) -> Vec<AddonAilment>;
}
