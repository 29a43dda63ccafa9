//! The planner: from what a cluster is to be and what is seen of it, to what to do now. Pure: no clock, no I/O, no tokio.
//!
//! A [`Plan`] has two parts. Its [`writes`](Plan::writes) are intents and conclusions; they are committed as *one* store
//! transaction. Its [`effects`](Plan::effects) touch the world; each rests on an intent that is *already* in the store, so
//! nothing is ever started that was not first written down. All effects of a plan are independent and run side by side:
//! a node's machine boots while the API server is still starting. There is no position in a sequence to remember; what
//! is next follows from what is seen, so a restart at any point needs no recovery of its own.
//!
//! | | needs |
//! |---|---|
//! | leases, PKI, machine records | nothing |
//! | network | the uplink's lease |
//! | a machine | its record, the network |
//! | a machine's configuration | its record, leases, PKI; *not* the machine |
//! | node objects, add-ons | the API server |
//! | addresses of load balancers | the API server; the network, to be told of |
//! | volumes of claims | the API server; a look at the fabric |
//! | the next step of other CAs or keys | that each machine has taken the one before |
//!
//! Always true: planning twice from the same things gives the same plan; a plan without anything in it means that the
//! generation is reached ([`Plan::settled`]); an effect whose [`Subject`] is busy or held back is never planned.

mod checks;
mod disturb;
mod draft;
mod effects;
mod feature;
mod features;
mod finish;
mod gaps;
mod history;
mod messages;
mod observation;
mod operations;
mod parts;
#[cfg(test)]
mod tests;
mod view;

use draft::Draft;
use feature::Feature;
use features::{FEATURES, backup, checks, heal, instead, namespaces, nodes};

pub use disturb::Permit;
pub use effects::{ApiEffect, ConfigEffect, CredentialsWish, Effect, FabricEffect, Subject, TrustedGrant};
pub use features::{
    addresses::public_address,
    configurations::inputs::{Frame, addons_inputs, wish_inputs},
    heal::{
        HealPolicy,
        health::Health,
        symptom::{Ailment, Symptom},
    },
    network::routes,
    nodes::placement::{NODE_OFFSET, node_name},
};
pub use gaps::Gap;
pub use observation::{
    AddonsSeen, Addresses, ApiSeen, ConfigSeen, CredentialsSeen, DiskSeen, Drain, Held, KeptPlaces, Machine,
    Maintenance, NamespaceSet, Neighbours, NetworkLayout, NetworkSeen, Observation, Presence, PublicSeen,
    Reach, RendererVersions, SilentMachines, StampRanges, UnknownMachines, VolumeThere, WorkSeen,
};
pub use operations::{OPERATION_PREEMPTED, OPERATION_TIMED_OUT, POD_DRAIN_FAILURE};
pub use view::recorded::{ControlPlane, member};

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use cluster_api::ClaimRef;
use control_records::{
    ClusterRecord, Emptying, Event, Healing, Inherited, KeyStep, Milestone, OPERATION_BOUND, ObservedRecord,
    OperationError, OperationStatus, Progress, Role, Work,
};
use jiff::Timestamp;

/// What the planner goes by besides what it sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long a request may take before its operation is called failed (the loop goes on).
    pub operation_bound: Duration,
    /// How long pods may hold up the removal of their node.
    pub drain_bound: Duration,
    /// Between two evictions of the same node's pods.
    pub drain_pause: Duration,
    /// Add-ons are compared with the cluster at most this often, however much changes in it.
    pub addons_pause: Duration,
    /// Age at which a certificate of a machine is issued anew.
    pub renew_after: Duration,
    /// How long new CAs are known everywhere before they issue: what pods have of them follows within that time, and who fetches its kubeconfig
    /// again has.
    pub trust_pause: Duration,
    /// How long certificates of former CAs are accepted after all machines have those of the new ones: a client that has fetched its kubeconfig
    /// just before gets to use it.
    pub former_certificates: Duration,
    /// How long after new CAs reached the last machine they are published in the cluster at the latest.
    pub publish_pause: Duration,
    /// How long tokens of service accounts are taken that were signed with the key before. As AKS: a day.
    pub former_tokens: Duration,
    /// How patient healing is.
    pub heal: HealPolicy,
}

impl Default for Policy {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            operation_bound: OPERATION_BOUND,
            drain_bound: Duration::from_secs(2 * 60),
            drain_pause: Duration::from_secs(1),
            addons_pause: Duration::from_secs(30),
            renew_after: control_records::machine_config::RENEWED_AFTER,
            trust_pause: Duration::from_secs(2 * 60),
            former_certificates: Duration::from_secs(30),
            publish_pause: Duration::from_secs(30),
            former_tokens: Duration::from_secs(DAY),
            heal: HealPolicy::default(),
        }
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Intents and conclusions, one transaction together with `observed`.
    pub writes: Vec<Write>,
    /// The observed record as it should now be.
    pub observed: ObservedRecord,
    /// Whether `observed` differs from the one in the store.
    pub observed_changed: bool,
    /// What is told of this plan's writes and of what changes in `observed`, in the same transaction.
    pub events: Vec<Event>,
    /// What to do to the world, all at once.
    pub effects: Vec<Effect>,
    /// What is going on, most telling first. For people.
    pub waits: Vec<String>,
    /// Whether something is to be done or waited for, told to people or not.
    pub unfinished: bool,
    /// When to plan again even if nothing is heard.
    pub look_again: Option<Timestamp>,
}

impl Plan {
    /// Nothing is left to do, and nothing is waited for: the cluster is what it is to be.
    pub fn settled(&self) -> bool {
        self.writes.is_empty() && !self.unfinished && !self.observed_changed
    }
}

/// An intent or a conclusion in the store.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Take the addresses of the stamp's network that [`Plan::observed`] newly names.
    Lease(Addresses),
    /// Make the cluster's CAs and keys.
    CreatePki,
    /// Replace some of them, a step further.
    StepKeys {
        /// The generation that the step is from.
        generation: u64,
        /// The step.
        step: KeyStep,
    },
    /// Write a new machine down, with an identity and a token of its own.
    RecordMachine {
        /// What it is for.
        role: Role,
        /// The version of its image.
        image: String,
        /// The build of it; `None`: whichever there is.
        build: Option<String>,
    },
    /// A machine is to go.
    MarkMachine(Permit),
    /// A machine's disk is gone and it is to be made anew under its own name: it gets a new one-time token.
    RenewToken(String),
    /// A step of a repair begins, ends or is held back.
    Repair {
        /// Whose.
        machine: String,
        /// What is being done with it from now on.
        work: Option<Work>,
        /// What healing remembers of it from now on.
        healing: Healing,
        /// The machine is made anew: it gets a new one-time token.
        new_token: bool,
        /// It is replaced: it is to go.
        remove: bool,
    },
    /// An upgrade of a machine in its place begins or ends.
    Upgrade {
        /// Whose.
        machine: String,
        /// The version of its image from now on.
        image: String,
        /// What is being done with it from now on.
        work: Option<Work>,
    },
    /// Set the state of the draining of a node that is replaced; `None`: the node stays.
    Empty {
        /// The node's machine.
        machine: Permit,
        /// The new state.
        emptying: Option<Emptying>,
    },
    /// Copy the labels, annotations and taints that users set on a replaced node to a new one.
    Inherit {
        /// The new node's machine.
        machine: String,
        /// The copied values.
        inherited: Inherited,
    },
    /// A machine is gone: remove its record and its configuration.
    RemoveMachine(String),
    /// A credential is taken back because local accounts are off.
    RevokeCredential(String),
    /// A credential has ended and is in the cluster no more: its record goes.
    ForgetCredential(String),
    /// Write a load balancer down, and take its address.
    RecordBalancer {
        /// The Service's uid.
        uid: String,
        /// The Service's namespace.
        namespace: String,
        /// The Service's name.
        name: String,
        /// Its address.
        address: Ipv4Addr,
        /// Whether that is one of the nodes' subnet.
        internal: bool,
        /// The ARM id of the public IP address of a tenant that it is of.
        public: Option<String>,
        /// How the Service names that, where it does.
        asked: Option<String>,
    },
    /// The load balancer of the Service with this uid is gone: its record goes, and its address is free.
    ForgetBalancer(String),
    /// Write a volume down that is to be made for a claim.
    RecordVolume(NewVolume),
    /// A volume is to be larger.
    GrowVolume {
        /// Its id.
        volume: String,
        /// Its size from now on.
        bytes: u64,
    },
    /// The PersistentVolume of the volume with this id was seen in the cluster.
    VolumePublished(String),
    /// The volume of this id is to go, and all that is on it.
    MarkVolume(String),
    /// The volume of this id is gone: its record goes. Of a tenant's disk: no machine of the cluster has it any more, and others may.
    ForgetVolume(String),
    /// Set new counts of pools, by name, that the autoscaler has decided on.
    Scale(BTreeMap<String, PoolSize>),
    /// Nothing of the managed namespace of this name is the stamp's any more: its record goes, and who may what with it.
    ForgetNamespace(String),
    /// How far an operation is.
    Progress {
        /// Which.
        id: String,
        /// As it is from now on.
        progress: Progress,
    },
    /// An operation ends.
    EndOperation {
        /// Which.
        id: String,
        /// How.
        status: OperationStatus,
        /// Why not well.
        error: Option<OperationError>,
    },
    /// Everything is gone: remove all the cluster's records, end its operations.
    Forget,
}

/// A pool's size by the autoscaler.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolSize {
    /// Its new count.
    pub count: u32,
    /// Ids of all its machines to remove that still exist, earlier ones included.
    pub removed: BTreeSet<String>,
}

/// A volume that is to be made for a claim: see [`control_records::volume::VolumeRecord`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVolume {
    /// Its id.
    pub id: String,
    /// The PersistentVolume's name.
    pub name: String,
    /// Whose claim.
    pub claim: ClaimRef,
    /// Its size.
    pub bytes: u64,
    /// The SKU asked for.
    pub sku: String,
    /// Whether it is a share, or a snapshot of one.
    pub shared: bool,
    /// Whether it is a snapshot: then `claim` is a VolumeSnapshot, and `object` a VolumeSnapshotContent.
    pub snapshot: bool,
    /// The id of the volume that it begins as a copy of.
    pub source: Option<String>,
    /// The key of the disk's record, where it is one that a tenant made: the cluster takes that.
    pub disk: Option<String>,
    /// The PersistentVolume as JSON; empty where the cluster has it already.
    pub object: String,
}

/// Effects on the store that machines' records and events of one plan may have: with all else that a plan writes, they are
/// one transaction of any store. What does not fit is planned again once this is written.
const LARGEST: usize = 80;

impl Write {
    /// How many records it changes, with the event that tells of it.
    fn size(&self) -> usize {
        match self {
            Self::RecordMachine { .. } => 3,
            Self::RecordVolume(volume) if volume.disk.is_some() => 3,
            Self::RemoveMachine(_) => 5,
            Self::Lease(_)
            | Self::CreatePki
            | Self::StepKeys { .. }
            | Self::MarkMachine(_)
            | Self::RenewToken(_)
            | Self::Repair { .. }
            | Self::Upgrade { .. }
            | Self::Empty { .. }
            | Self::Inherit { .. }
            | Self::RevokeCredential(_)
            | Self::ForgetCredential(_)
            | Self::RecordBalancer { .. }
            | Self::ForgetBalancer(_)
            | Self::RecordVolume(_)
            | Self::GrowVolume { .. }
            | Self::VolumePublished(_)
            | Self::MarkVolume(_)
            | Self::ForgetVolume(_)
            | Self::Scale(_)
            | Self::ForgetNamespace(_)
            | Self::Progress { .. }
            | Self::EndOperation { .. }
            | Self::Forget => 2,
        }
    }
}

/// Whether a cluster's API is to answer: where not, its machines are gone, on their way out, or off on purpose.
pub fn is_served(desired: &ClusterRecord) -> bool {
    instead(desired).is_none()
}

/// Plans.
pub fn plan(desired: &ClusterRecord, seen: &Observation, policy: &Policy, now: Timestamp) -> Plan {
    let instead = instead(desired);
    let mut draft = Draft::new(desired, seen, policy, now, instead.is_none());
    match instead {
        Some(instead) => (instead.plan)(&mut draft),
        None => reach(&mut draft),
    }
    let checks = checks(&draft, instead);
    if draft.served {
        parts::generation(&mut draft, &checks);
    }
    parts::reached(&mut draft, &checks);
    history::plan(&mut draft);
    backup::plan(&mut draft);
    operations::plan(&mut draft, &checks);
    namespaces::plan_operations(&mut draft);
    draft.finish()
}

/// Plans a cluster that is to be there.
fn reach(draft: &mut Draft<'_>) {
    draft
        .observed
        .came_about(Milestone::Accepted, draft.desired.created_at);
    for step in [
        |feature: &Feature| feature.record,
        |feature: &Feature| feature.act,
        |feature: &Feature| feature.observe,
    ] {
        for feature in FEATURES {
            step(feature)(draft);
        }
    }
}

/// `from` and `pause` later, or the end of time.
fn after(from: Timestamp, pause: Duration) -> Timestamp {
    from.checked_add(pause).unwrap_or(Timestamp::MAX)
}

/// The `index`-th address of a range's own numbering: 0 is the network address.
fn nth(range: ipnet::Ipv4Net, index: u32) -> Option<Ipv4Addr> {
    let address = u32::from(range.network()).checked_add(index)?;
    (address <= u32::from(range.broadcast())).then(|| Ipv4Addr::from(address))
}
