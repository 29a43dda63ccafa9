//! The records of the store: which keys there are and what they hold.
//!
//! | key | record |
//! |---|---|
//! | `/format` | [`FormatRecord`]: the format of all records, see [`migrate`] |
//! | `/store` | [`StoreRecord`]: which store this is, and how often it was put back |
//! | `/stamp` | [`StampRecord`] |
//! | `/subscriptions/{s}` | [`SubscriptionRecord`] |
//! | `/groups/{s}/{group in lower case}` | [`GroupRecord`] |
//! | `/n/managedclusters/{s}/{group}/{name}`, lower case | [`NameRecord`]: which uid has this name |
//! | `/c/{uid}/desired` | [`ClusterRecord`]: what the cluster is to be |
//! | `/c/{uid}/observed` | [`ObservedRecord`]: what it is, written by the cluster's loop only |
//! | `/c/{uid}/fence` | [`FenceRecord`]: which host runs the cluster's loop |
//! | `/c/{uid}/pki` | [`PkiRecord`]: the cluster's CAs and keys |
//! | `/c/{uid}/machine/{id}` | [`MachineRecord`]: written before the machine is made, removed after it is gone |
//! | `/c/{uid}/machine-config/{id}` | [`SealedRecord`]: the machine's `MachineConfig` |
//! | `/c/{uid}/op/{id}`, `/g/{s}/{group}/op/{id}` | [`OperationRecord`] |
//! | `/c/{uid}/event/{when}-{number}` | [`EventRecord`]: what happened to the cluster and why |
//! | `/c/{uid}/child/{type}/{name}` | a child resource of the cluster ([`child`]) |
//! | `/c/{uid}/child/balancers/{uid of a Service}` | the address of a load balancer in the cluster ([`balancer`]) |
//! | `/c/{uid}/child/volumes/{id}` | a volume of a claim in the cluster ([`volume`]) |
//! | `/c/{uid}/child/commands/{id}` | a command that is to be run in the cluster, and what came of it ([`command`]) |
//! | `/c/{uid}/child/managednamespaces/{name}` | a managed namespace of the cluster ([`namespace`]) |
//! | `/c/{uid}/child/credentials/{id}` | a credential of the cluster that was handed out ([`credential`]) |
//! | `/c/{uid}/child/credentialcertificates/{id}` | its certificate and key, [`SealedRecord`] |
//! | `/c/{uid}/child/supporttickets/{name}` | a support ticket of the cluster: consent, and what was handed out under it ([`ticket`]) |
//! | `/owners/machine/{id}`, `/owners/operation/{id}` | [`OwnerRecord`]: whose it is |
//! | `/c/{uid}/child/plannedwork/upgrade` | what upgrades of the cluster by its channels wait for ([`planned`]) |
//! | `/c/{uid}/child/deadlines/notices` | notices of deadlines of the support policies ([`deadlines`]) |
//! | `/deadlines` | [`deadlines::PolicyRecord`]: whether these deadlines act |
//! | `/maintenance` | [`planned::HoldRecord`]: whether planned work is held up |
//! | `/deleted/{uid}` | [`DeletedRecord`]: a cluster that is gone, as long as its events are kept |
//! | `/unknown/{kind}/{id}` | [`unknown::UnknownRecord`]: what exists and is in no record |
//! | `/removed/{kind}/{id}` | [`unknown::RemovedRecord`]: what was this store's and was to go |
//! | `/activity/{s}/{done or refused}/{when}-{request id}` | [`activity::ActivityRecord`]: who asked for what, and what was answered |
//! | `/alerts/{name}` | [`alert::AlertRecord`]: what an operator has to see to, open or closed |
//! | `/metering/{s}/{day}` | [`metering::UsageDayRecord`]: what a subscription has used, by the hour |
//! | `/metered` | [`metering::ThroughRecord`]: up to when that is written |
//! | `/leases/{pool}/{address}` | [`LeaseRecord`]: addresses of the stamp's network in use |
//! | `/principals/{object id}`, `/directory/…` | who is known, in which groups, and how that is found: see [`principal`] |
//! | `/network/{type}/{s}/{group}/{name}`, lower case | [`network::NetworkRecord`]: VNETs and what belongs to them, where tenants made them |
//! | `/disks/{disks or snapshots}/{s}/{group}/{name}`, lower case | [`disk::DiskRecord`]: disks, and snapshots of disks, that tenants made |
//! | `/snapshots/{s}/{group}/{name}`, lower case | [`SnapshotRecord`]: what an agent pool was when it was taken |
//! | `/registries/{s}/{group}/{name}`, lower case | [`RegistryRecord`]: a registry of container images |
//! | `/registry-names/{name}` | [`RegistryNameRecord`]: whose a registry's name is |
//! | `/removed-registries/{uid}` | [`RemovedRegistryRecord`]: a registry that was deleted, until its images are gone |
//! | `/usage` | [`usage::UsageRecord`]: how much the clusters of each subscription ask for |
//! | `/tokens/…` | keys that sign tokens, and who is signed in: see [`sign_in`] |
//! | `/access/…` | who may do what, and locks: see [`access`] |
//!
//! Always true: desired, observed and operation are three things, written by three different writers. What belongs to an
//! owner is below its key ([`key`]); an index entry is written and removed in the transaction of what it points to
//! ([`directory`]). [`migrate()`] runs before anything else reads, so that the rest knows only the newest format.

pub mod access;
pub mod activity;
pub mod alert;
pub mod balancer;
pub mod child;
pub mod command;
pub mod credential;
pub mod deadlines;
mod desired;
pub mod directory;
pub mod disk;
pub mod epoch;
pub mod events;
mod fence;
pub mod key;
mod machine;
pub mod machine_config;
pub mod metering;
pub mod migrate;
pub mod namespace;
pub mod network;
mod operation;
mod part;
pub mod planned;
pub mod principal;
mod registry;
pub mod requests;
pub mod rotation;
pub mod sealed;
pub mod sign_in;
mod snapshot;
mod text;
pub mod ticket;
pub mod times;
pub mod unknown;
pub mod usage;
pub mod volume;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use cluster_autoscaler::Memory;
use cluster_spec::{ClusterSpec, Tier};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use child::{ChildRecord, SystemData};
pub use desired::{
    Archive, Decided, DecidedPool, DesiredPool, DesiredState, LastNodes, Malformed, Ranges, Soak,
    network as network_profile,
};
pub use directory::{NameRecord, OwnerRecord};
pub use epoch::{Epoch, StoreRecord};
pub use events::{DeletedRecord, Event, EventKind, EventRecord};
pub use fence::{Fence, FenceRecord, HostId};
pub use key::Owner;
pub use machine::{
    Asked, Assignment, Emptying, GivenUp, Healing, Inherited, MachineRecord, NodeOrder, RepairStep, Role,
    Work,
};
pub use migrate::{FormatRecord, MigrateError, migrate};
pub use operation::{
    MOST_OUTPUT, OPERATION_BOUND, OperationError, OperationRecord, OperationStatus, Output, OutputTooLarge,
    Progress,
};
pub use part::Part;
pub use principal::{
    ApplicationRecord, Credential, FirstPrincipalRecord, GroupNameRecord, LoginRecord, ManagedIdentityRecord,
    MemberRecord, PrincipalGroupRecord, PrincipalRecord, Proof,
};
pub use registry::{
    REGISTRY_NAME_LENGTH, RESERVED_REGISTRY_NAMES, RegistryNameRecord, RegistryRecord, RegistrySku,
    RemovedRegistryRecord, is_registry_name,
};
pub use requests::{Leaving, Reached, Requests};
pub use rotation::{KeyStep, Phase, Rotation, Turn};
pub use sign_in::{RefreshRecord, SigningKeyRecord, SigningKeysRecord};
pub use snapshot::SnapshotRecord;

/// A subscription.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionRecord {
    /// Format.
    pub v: u32,
    /// GUID.
    pub id: String,
    /// For people.
    pub display_name: String,
    /// GUID of its tenant.
    pub tenant_id: String,
    /// Resource providers that releases of before wrote down as registered. All are, but for `unregistered`.
    pub registered: Vec<String>,
    /// Resource providers that the subscription does not use, lower case: what needs one is refused until it is registered again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unregistered: Vec<String>,
    /// What may be done in it. Records of before have none: nothing was ever disabled then.
    #[serde(default)]
    pub state: SubscriptionState,
    /// Since when, if it was ever another one. Releases of before did not write that down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_since: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What may be done in a subscription, in ARM's words. Azure's other states (`Warned`, `PastDue`, `Expired`) tell of bills, and nobody gets
/// one here; a subscription that is deleted has no record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubscriptionState {
    /// Everything.
    #[default]
    Enabled,
    /// It is read, and what is in it can be deleted; nothing is made or changed.
    Disabled,
}

impl SubscriptionState {
    /// As ARM names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Disabled => "Disabled",
        }
    }
}

/// Namespaces that nobody registers, lower case: what a subscription is managed with, and the stamp's own.
const NEVER_REGISTERED: [&str; 3] = [
    "microsoft.authorization",
    "microsoft.features",
    "microsoft.resources",
];
/// See [`NEVER_REGISTERED`].
const OWN_NAMESPACES: &str = "landfall.";

/// Whether a resource provider has to be registered to be used.
pub fn needs_registration(namespace: &str) -> bool {
    let lower = namespace.to_ascii_lowercase();
    !NEVER_REGISTERED.contains(&lower.as_str()) && !lower.starts_with(OWN_NAMESPACES)
}

impl SubscriptionRecord {
    /// Whether it may use a resource provider. A provider that a newer release brings can be used at once.
    pub fn uses(&self, namespace: &str) -> bool {
        let same = |other: &String| other.eq_ignore_ascii_case(namespace);
        !needs_registration(namespace) || !self.unregistered.iter().any(same)
    }
}

/// A resource group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupRecord {
    /// Format.
    pub v: u32,
    /// GUID of the subscription.
    pub subscription: String,
    /// In the casing last given.
    pub name: String,
    /// Region.
    pub location: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// The resource that owns it (a cluster's node resource group), if any.
    pub managed_by: Option<String>,
    /// Whether it is to go; then everything in it goes first.
    pub deleting: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What a cluster is to be: the last accepted request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRecord {
    /// Format.
    pub v: u32,
    /// Its identity over its life, `[0-9a-v]{10}`; a cluster made anew under the same name gets another.
    pub uid: String,
    /// GUID of the subscription.
    pub subscription: String,
    /// Group in the casing last given.
    pub resource_group: String,
    /// Name in the casing last given.
    pub name: String,
    /// Grows by one with each accepted change.
    pub generation: u64,
    /// Per pool (by name): the generation of the last accepted change to it. For pool eTags and pool states.
    pub pool_generations: BTreeMap<String, u64>,
    /// What it is to be: the body, what was decided beside it, and the spec that follows.
    pub state: DesiredState,
    /// Secrets of the body (service principal secret), sealed; by property path.
    pub sealed: BTreeMap<String, Vec<u8>>,
    /// Whether it is to go.
    pub deleting: bool,
    /// The operation that the last change belongs to.
    pub operation: String,
    /// How it relates to the requests before.
    #[serde(default)]
    #[serde(rename = "course")]
    pub requests: Requests,
    /// systemData.
    pub created_at: Timestamp,
    /// systemData.
    pub created_by: String,
    /// systemData.
    pub created_by_type: String,
    /// systemData.
    pub modified_at: Timestamp,
    /// systemData.
    pub modified_by: String,
    /// systemData.
    pub modified_by_type: String,
}

impl ClusterRecord {
    /// The key of its name.
    pub fn name_key(&self) -> String {
        key::cluster_name(&self.subscription, &self.resource_group, &self.name)
    }

    /// The canonical ARM body.
    pub fn body(&self) -> &Value {
        self.state.body()
    }

    /// What the loops act on.
    pub fn spec(&self) -> &ClusterSpec {
        self.state.spec()
    }
}

/// What a cluster is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedRecord {
    /// Format.
    pub v: u32,
    /// The generation that was reached last; 0 before the first.
    pub generation: u64,
    /// The control plane's VIP, once leased.
    pub vip: Option<Ipv4Addr>,
    /// The VNET's address in the stamp's network, once leased.
    pub uplink: Option<Ipv4Addr>,
    /// Before members had leases of their own: the only member's address in the stamp's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane_address: Option<Ipv4Addr>,
    /// Whether control plane members hold the VIP among themselves: since there was more than one of them, and for ever.
    #[serde(default)]
    pub roaming: bool,
    /// The tier whose limits the API servers go by. It follows the desired one when there are members enough to take the
    /// restarts. `None`: the desired one's.
    #[serde(default)]
    pub limits: Option<Tier>,
    /// Whether etcd held something: since an API server first answered, whatever happens to it later.
    pub formed: bool,
    /// That so many members lost their data that etcd never has a majority again, the last time that it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd_lost: Option<EtcdLost>,
    /// The restore that the state comes from, once that was seen to serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    /// Since when it is told that the backup is behind the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_behind: Option<Timestamp>,
    /// By add-on: why it does not work, as long as that is told.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub addons: BTreeMap<String, String>,
    /// The credentials that work in the cluster, by their ids: what was granted there last ([`credential`]).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub credentials: BTreeSet<String>,
    /// The trusted access role bindings that work in the cluster, by their names in lower case, each with the time of the change that was
    /// granted there last ([`child::TRUSTED_BINDINGS`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub trusted: BTreeMap<String, Timestamp>,
    /// By name: what was seen of managed namespaces ([`namespace`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, namespace::NamespaceState>,
    /// Whether Services of the cluster have load balancers ([`balancer`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub balanced: bool,
    /// Whether there are volumes of claims of the cluster ([`volume`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub volumes: bool,
    /// By the id of a volume that is not in the fabric any more although it is to be there: what is told of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lost_volumes: BTreeMap<String, String>,
    /// The memory of the cluster autoscaler; empty if no pool is scaled by it.
    #[serde(default, skip_serializing_if = "Memory::is_empty")]
    pub autoscaler: Memory,
    /// Whether machines of it were stopped on purpose and are not all known to be back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// Version the API server runs, once ready.
    pub kubernetes_version: Option<String>,
    /// The generation that a part has reached, where that was before all of the cluster did.
    #[serde(default)]
    pub reached: BTreeMap<Part, u64>,
    /// The versions of what rendered the configurations of its machines, when all had been taken: of an older release, a newer one brings them
    /// up to date as planned work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renderers: Option<RendererVersions>,
    /// What configurations of a newer release wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_waits: Option<planned::Waiting>,
    /// The version that the control plane has begun to go on to, until it serves: no wish takes it back to an older one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrading_to: Option<String>,
    /// How long steps of upgrades took.
    #[serde(default, skip_serializing_if = "times::StepTimes::is_empty")]
    pub times: times::StepTimes,
    /// What was last told of each machine, by id, so that it is told once.
    #[serde(default, rename = "told")]
    pub reported: BTreeMap<String, Reported>,
    /// Whether a problem was told that is not known to be over.
    #[serde(default)]
    pub problem_told: bool,
    /// By pool name: nodes that are Ready.
    pub ready_nodes: BTreeMap<String, u32>,
    /// Since when none of its nodes is Ready, of those that are to be there and once were; nothing while one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unready_since: Option<Timestamp>,
    /// What the loop is doing, for people; empty when nothing is to do.
    pub step: String,
    /// The last problem, for people, with a next step; cleared when it is over.
    pub problem: Option<String>,
    /// When something first came about, by [`Milestone`]; stores of before may have others. For people and for the bench: nothing is decided
    /// by them.
    pub milestones: BTreeMap<String, Timestamp>,
}

/// What comes about in a cluster's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Milestone {
    /// Its creation was accepted.
    Accepted,
    /// An API server answered.
    ApiReady,
    /// A node was ready.
    NodeReady,
    /// It was what it was to be. Each time, the last one counts.
    Converged,
}

impl Milestone {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::ApiReady => "api_ready",
            Self::NodeReady => "node_ready",
            Self::Converged => "converged",
        }
    }
}

impl ObservedRecord {
    /// Notes when something came about.
    pub fn came_about(&mut self, milestone: Milestone, at: Timestamp) {
        let name = milestone.as_str().to_owned();
        match milestone {
            Milestone::Converged => {
                self.milestones.insert(name, at);
            }
            Milestone::Accepted | Milestone::ApiReady | Milestone::NodeReady => {
                self.milestones.entry(name).or_insert(at);
            }
        }
    }

    /// Whether the state comes from this restore.
    pub fn has_restored(&self, id: &str) -> bool {
        self.restored.as_ref().is_some_and(|restored| restored.id == id)
    }

    /// Whether a part was what it is to be from this generation on, with all of the cluster or before it.
    pub fn has_reached(&self, part: &Part, generation: u64) -> bool {
        self.generation >= generation
            || self
                .reached
                .get(part)
                .is_some_and(|reached| *reached >= generation)
    }
}

/// Versions of what renders the configurations of a cluster's machines: they follow from what is rendered, so that a release
/// that renders something else reaches machines that there are, and no other does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RendererVersions {
    /// Of control plane members.
    pub members: String,
    /// Of nodes.
    pub nodes: String,
}

/// That members have lost so much of etcd's data that the newest state of the backup takes its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdLost {
    /// When that was found.
    pub at: Timestamp,
    /// The restore (its id) that was wished for last by then; a later wish takes the place of what follows from the loss.
    pub after: Option<String>,
}

/// A restore that was seen to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The restore's id.
    pub id: String,
    /// When it was seen.
    pub at: Timestamp,
}

/// What the events have told of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reported {
    /// That it runs.
    pub runs: bool,
    /// That its node is ready.
    pub ready: bool,
    /// How often each of its components was started again, of those that ever were.
    pub restarts: BTreeMap<String, u32>,
}

/// Something encrypted with the stamp's key (AES-256-GCM; a name from [`key::sealed`] is the associated data).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealedRecord {
    /// Format.
    pub v: u32,
    /// Nonce and ciphertext.
    #[serde(with = "text")]
    pub sealed: Vec<u8>,
}

/// A cluster's CAs and keys, `/c/{uid}/pki`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PkiRecord {
    /// Format.
    pub v: u32,
    /// Grows by one with each change of them, from 1 on: what is computed from an older one is computed anew.
    #[serde(default = "first_generation")]
    pub generation: u64,
    /// How far their replacement is.
    #[serde(default, skip_serializing_if = "Rotation::is_none")]
    pub rotation: Rotation,
    /// Nonce and ciphertext, as in [`SealedRecord`].
    #[serde(with = "text")]
    pub sealed: Vec<u8>,
}

fn first_generation() -> u64 {
    1
}

/// An address of the stamp's network in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRecord {
    /// Format.
    pub v: u32,
    /// What holds it: `cluster/{uid}/vip`, `cluster/{uid}/uplink`, `cluster/{uid}/machine/{id}`, `cluster/{uid}/balancer/{uid of a
    /// Service}`.
    pub owner: String,
}

/// The stamp itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StampRecord {
    /// Format.
    pub v: u32,
    /// Its name.
    pub name: String,
    /// Its region's name, e.g. `local`.
    pub location: String,
    /// GUID of its tenant.
    pub tenant_id: String,
    /// When it was made.
    pub created_at: Timestamp,
}
