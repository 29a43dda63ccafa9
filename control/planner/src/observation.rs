//! What is seen of a cluster: records, the fabric, the agents, its API.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use agent_api::SILENT_AFTER;
use agent_protocol::{ProcessState, Report};
use cluster_api::{AddonAilment, NamespaceSeen, NamespaceWish, NodeSeen};
use cluster_autoscaler::Work;
use cluster_balancers::Wish;
use cluster_maintenance::Calendar;
use cluster_security::Rule;
use cluster_volumes::Storage;
pub use control_records::RendererVersions;
use control_records::{
    ChildRecord, MachineRecord, ObservedRecord, OperationRecord, Role, Rotation, balancer::BalancerRecord,
    credential::CredentialRecord, namespace::NamespaceRecord, planned::Paused, volume::VolumeRecord,
};
use fabric_api::{Balancer, RouteSpec};
use ipnet::Ipv4Net;
use jiff::Timestamp;

use crate::{CredentialsWish, Gap, Subject, Symptom};

/// The process whose readiness says that a control plane answers; the name that `cluster/bootstrap` gives it.
const API_SERVER: &str = "kube-apiserver";

/// Everything that a plan may depend on besides the desired record.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// The observed record; the default before the first was written.
    pub observed: ObservedRecord,
    /// What would render the configurations of its machines now.
    pub renderers: RendererVersions,
    /// What planned work goes by. Only looked at while there is some.
    pub maintenance: Maintenance,
    /// The generation of the cluster's CAs and keys; `None`: there are none yet.
    pub pki: Option<u64>,
    /// How far their replacement is.
    pub rotation: Rotation,
    /// The stamp's ranges.
    pub stamp: StampRanges,
    /// Addresses of the stamp that are leased, by anybody. Only looked at while this cluster, or a Service in it, lacks one.
    pub taken: BTreeSet<Ipv4Addr>,
    /// The cluster's machines by id.
    pub machines: BTreeMap<String, Machine>,
    /// Whether what is said of the machines' presence is due to be looked at again.
    pub inventory_stale: bool,
    /// Whether there are machines of this cluster that are in no record.
    pub unknown_machines: UnknownMachines,
    /// What these have in its VNET.
    pub kept: KeptPlaces,
    /// What others have in its VNET, where that is a tenant's.
    pub neighbours: Neighbours,
    /// The rules of subnets that go by a security group, by their ranges, in a tenant's VNET.
    pub guards: BTreeMap<Ipv4Net, Arc<[Rule]>>,
    /// How many of the stamp's machines are silent. Only looked at while one of this cluster's is.
    pub silent_machines: SilentMachines,
    /// Its VNET.
    pub network: NetworkSeen,
    /// Its API.
    pub api: ApiSeen,
    /// Its operations that have not ended.
    pub operations: Vec<OperationRecord>,
    /// Those of its managed namespaces.
    pub namespace_operations: Vec<OperationRecord>,
    /// Credentials that were handed out and are known, in the order of their ids.
    pub credentials: Vec<Arc<CredentialRecord>>,
    /// Its trusted access role bindings, in the order of their names.
    pub trusted: Vec<Arc<ChildRecord>>,
    /// Its managed namespaces, in the order of their names.
    pub namespaces: Vec<Arc<NamespaceRecord>>,
    /// The load balancers that are written down, in the order of their Services' uids.
    pub balancers: Vec<Arc<BalancerRecord>>,
    /// The volumes that are written down, in the order of their ids.
    pub volumes: Vec<Arc<VolumeRecord>>,
    /// The cluster's volumes that there are in the fabric, by their ids, written down or not; `None`: this process has not looked yet, or
    /// what it saw is in doubt.
    pub volumes_there: Option<BTreeMap<String, VolumeThere>>,
    /// Disks that PersistentVolumes of the cluster name, that a node is to have and that the cluster does not have yet, by the ids that name
    /// them: what is known of each, or why the cluster does not get it.
    pub disks: BTreeMap<String, Result<DiskSeen, String>>,
    /// Public IP addresses of tenants that Services name and that they do not have yet, by the uids of the Services: what is known of each, or
    /// why the cluster does not get it.
    pub publics: BTreeMap<String, Result<PublicSeen, String>>,
    /// Commands that something is still to be done for, by id: when they are to be looked at again, where they were looked at already.
    pub commands: BTreeMap<String, Option<Timestamp>>,
    /// When the service did not run though the clock went on, in order.
    pub gaps: Arc<[Gap]>,
    /// Images of add-ons that the fabric is known to have. They are not removed while it runs.
    pub images: BTreeSet<String>,
    /// What effects are under way for.
    pub busy: BTreeSet<Subject>,
    /// What failed lately.
    pub held: BTreeMap<Subject, Held>,
}

/// A disk of the subscription that the cluster may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSeen {
    /// The key of its record.
    pub key: String,
    /// The id of its volume in the fabric.
    pub volume: String,
    /// Its size.
    pub bytes: u64,
    /// Its SKU.
    pub sku: String,
}

/// A public IP address of the subscription that the cluster may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicSeen {
    /// Its ARM id.
    pub id: String,
    /// The address.
    pub address: Ipv4Addr,
}

/// What planned work of a cluster goes by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Since when and why an operator holds it up in the whole stamp.
    pub paused: Option<Paused>,
    /// The windows for releases of the service (the configuration `default`); `None`: it may be done at any time.
    pub releases: Option<Calendar>,
}

/// Whether there are machines of a cluster that are in no record: then the store is older than the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownMachines {
    /// The fabric was not looked through for them since the service was started.
    NotLooked,
    /// There are none.
    None,
    /// There are some.
    Some,
}

impl UnknownMachines {
    /// After a start, the fabric is looked through within about this.
    pub(crate) const PAUSE: Duration = Duration::from_secs(1);
}

/// What machines of a cluster that are in no record have in its VNET. They are kept, and so is what they have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptPlaces {
    /// Their addresses.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// The routes to their pods.
    pub routes: Vec<RouteSpec>,
}

/// What other clusters have in a tenant's VNET.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// Addresses of their nodes.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// The way to each of these: by its cluster's uplink.
    pub routes: Vec<RouteSpec>,
}

/// What a VNET is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetworkLayout {
    /// Ranges of a tenant's subnets that nodes are in; none in a VNET of the cluster's own, whose subnets are always the same.
    pub subnets: Vec<Ipv4Net>,
    /// The route table.
    pub routes: Vec<RouteSpec>,
    /// The rules of those of the subnets that go by a security group.
    pub guards: BTreeMap<Ipv4Net, Arc<[Rule]>>,
    /// The addresses of load balancers, and where they lead to, in order.
    pub balancers: Vec<Balancer>,
    /// Addresses of load balancers that lead to wherever they lead: since this process began, nothing has been seen of what they are for.
    pub kept_balancers: BTreeSet<Ipv4Addr>,
}

impl NetworkLayout {
    /// Whether an address is one of a load balancer.
    pub(crate) fn balances(&self, address: Ipv4Addr) -> bool {
        self.kept_balancers.contains(&address)
            || self.balancers.iter().any(|balancer| balancer.address == address)
    }

    /// Whether new connections may go to a machine at this address, as far as is known.
    pub(crate) fn leads_to(&self, machine: Ipv4Addr) -> bool {
        let mut ports = self.balancers.iter().flat_map(|balancer| &balancer.ports);
        ports.any(|port| port.machines.contains(&machine))
    }
}

/// Where leases come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StampRanges {
    /// For machines and uplinks. The network address and the first address (the service) are never leased.
    pub machines: Ipv4Net,
    /// For control planes' VIPs.
    pub vips: Ipv4Net,
}

/// The two addresses that a cluster leases of its stamp. Its control plane members have one more each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Where its API is served.
    pub vip: Ipv4Addr,
    /// Its VNET's.
    pub uplink: Ipv4Addr,
}

impl Addresses {
    /// Both, once leased.
    pub fn of(observed: &ObservedRecord) -> Option<Self> {
        Some(Self {
            vip: observed.vip?,
            uplink: observed.uplink?,
        })
    }
}

/// How many of the stamp's machines are silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SilentMachines {
    /// Those that are not heard of, or not yet.
    pub silent: usize,
    /// All that there are to be.
    pub all: usize,
}

/// A machine of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Its record.
    pub record: MachineRecord,
    /// What the fabric has of it.
    pub presence: Presence,
    /// Its configuration.
    pub config: ConfigSeen,
    /// What its agent said last, since the service started.
    pub report: Option<Arc<Report>>,
    /// How far its node is drained, once it is to go.
    pub drain: Option<Drain>,
    /// How long ago it was heard of, since the service started.
    pub contact: Option<Duration>,
    /// How long ago its agent hung up, where it has not called since. Only looked at where there are load balancers.
    pub hung_up: Option<Duration>,
    /// Since when this process has known it to run.
    pub running_since: Option<Timestamp>,
    /// What is wrong with it.
    pub symptom: Option<Symptom>,
    /// Since when nothing is.
    pub well_since: Option<Timestamp>,
    /// When the work ([`control_records::Work`]) was decided whose effect this process has carried out last.
    pub repaired: Option<Timestamp>,
    /// The boot ([`Report::boot`]) that this ended, as far as it was heard of.
    pub ended_boot: Option<String>,
}

impl Machine {
    /// Its role in this cluster.
    pub fn role(&self) -> Option<&Role> {
        self.record.assignment.as_ref().map(|assignment| &assignment.role)
    }

    /// What its agent tells, and has told since it was started last.
    pub(crate) fn current_report(&self) -> Option<&Report> {
        let report = self.report.as_deref()?;
        (self.ended_boot.as_ref() != Some(&report.boot)).then_some(report)
    }

    /// The name of its node, if it is one.
    pub fn node_name(&self) -> Option<&str> {
        match self.role()? {
            Role::Node { node_name, .. } => Some(node_name),
            Role::ControlPlane { .. } => None,
        }
    }

    /// What people call it.
    pub fn label(&self) -> &str {
        match self.role() {
            Some(Role::Node { node_name, .. }) => node_name,
            Some(Role::ControlPlane { index, .. }) => match index {
                0 => "the control plane",
                1 => "the second control plane member",
                2 => "the third control plane member",
                _ => "a further control plane member",
            },
            None => "a machine",
        }
    }

    /// Whether its agent is in contact.
    pub fn heard(&self) -> bool {
        self.contact.is_some_and(|contact| contact < SILENT_AFTER)
    }

    /// Whether its agent says that the API server answers; `None` if it has not said anything yet.
    pub fn api_server_ready(&self) -> Option<bool> {
        let report = self.report.as_ref()?;
        Some(
            report
                .processes
                .get(API_SERVER)
                .is_some_and(|process| process.state == ProcessState::Ready),
        )
    }
}

/// What the fabric has of a machine, as far as known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Not looked yet.
    Unknown,
    /// Nothing.
    Absent,
    /// Some of it is there, or what is there is in doubt.
    Partial,
    /// It is whole and stands still.
    Stopped,
    /// It runs.
    Running,
    /// It was there and has been removed.
    Gone,
}

/// What is known of a machine's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigSeen {
    /// Not looked yet.
    Unknown,
    /// There is none.
    Absent,
    /// Stored and published.
    Published {
        /// Its generation.
        generation: u64,
        /// What it was computed from.
        inputs: String,
        /// When.
        made_at: Timestamp,
        /// When the oldest of its certificates was issued.
        issued_at: Timestamp,
    },
}

/// How far a node is drained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// When its removal was first seen to be wanted.
    pub since: Timestamp,
    /// The time of the first eviction of its pods by this process.
    pub asked: Option<Timestamp>,
    /// Pods left at the last eviction, and when that was.
    pub left: Option<(u32, Timestamp)>,
    /// One of them that might not be evicted then, and why.
    pub held: Option<String>,
}

/// What the fabric has of the VNET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkSeen {
    /// Not made in the life of this process; it may be there all the same.
    Unknown,
    /// There, with these subnets, routes and rules.
    Made(NetworkLayout),
    /// Removed.
    Gone,
}

/// A volume in the fabric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeThere {
    /// Its size; 0 while it is there in part.
    pub bytes: u64,
    /// The machine that has it; it may be none of the cluster's any more.
    pub attached: Option<String>,
    /// Whether it is a share that machines can mount.
    pub open: bool,
}

impl VolumeThere {
    /// Whether it is there as a whole: neither its creation nor its deletion was cut short.
    pub(crate) fn is_whole(&self) -> bool {
        self.bytes > 0
    }
}

/// What is known of the API server.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiSeen {
    /// Whether it answers.
    pub reach: Reach,
    /// Whether it told of a change while it was not known to answer: a sign that it does.
    pub heard: bool,
    /// Counts up when something in it may have changed.
    pub change: u64,
    /// The count at the last look.
    pub looked: u64,
    /// When the last look began.
    pub looked_at: Option<Timestamp>,
    /// Its nodes at the last look.
    pub nodes: Vec<NodeSeen>,
    /// What its Services of type LoadBalancer ask for, at the last look; `None`: this process has not looked yet.
    pub services: Option<Vec<Wish>>,
    /// What it holds of volumes, at the last look; `None`: this process has not looked yet.
    pub storage: Option<Storage>,
    /// Names of PersistentVolumes and VolumeSnapshotContents that were published since the last look.
    pub published: BTreeSet<String>,
    /// The last event, by the uid of its Service, claim or VolumeSnapshot.
    pub told: BTreeMap<String, String>,
    /// Uids of Services that are no more of type LoadBalancer, or gone, and were let go since the last look.
    pub released: BTreeSet<String>,
    /// The count at which serving certificates were approved last; `None`: not yet.
    pub approved: Option<u64>,
    /// The add-ons as applied last.
    pub addons: Option<AddonsSeen>,
    /// The credentials as set last.
    pub credentials: Option<CredentialsSeen>,
    /// By name: managed namespaces as they were tried last.
    pub namespaces: BTreeMap<String, NamespaceSet>,
    /// By machine: the [`crate::wish_inputs`] its node object was last set to.
    pub set: BTreeMap<String, String>,
    /// The last look at pods and nodes for the autoscaler; `None`: this process has not looked yet, or no
    /// pool is scaled.
    pub work: Option<WorkSeen>,
    /// By the uid of a pod or a node: the message of the autoscaler's last event for it.
    pub work_told: BTreeMap<String, String>,
    /// The autoscaler's status as last written.
    pub work_status: Option<String>,
}

impl Default for ApiSeen {
    fn default() -> Self {
        Self {
            reach: Reach::Unknown,
            heard: false,
            change: 0,
            looked: 0,
            looked_at: None,
            nodes: Vec::new(),
            services: None,
            storage: None,
            published: BTreeSet::new(),
            told: BTreeMap::new(),
            released: BTreeSet::new(),
            approved: None,
            addons: None,
            credentials: None,
            namespaces: BTreeMap::new(),
            set: BTreeMap::new(),
            work: None,
            work_told: BTreeMap::new(),
            work_status: None,
        }
    }
}

impl ApiSeen {
    /// The node with this name.
    pub fn node(&self, name: &str) -> Option<&NodeSeen> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

/// A look at pods and nodes for the autoscaler.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkSeen {
    /// When the look began.
    pub at: Timestamp,
    /// The count of changes at that time.
    pub change: u64,
    /// Its result.
    pub work: Arc<Work>,
}

/// The add-ons as applied last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddonsSeen {
    /// What they were computed from.
    pub inputs: String,
    /// When.
    pub at: Timestamp,
    /// The count of changes then.
    pub change: u64,
    /// Those of them that did not work then.
    pub ailments: Vec<AddonAilment>,
}

/// The credentials as set last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialsSeen {
    /// What each of them may.
    pub wish: CredentialsWish,
    /// When.
    pub at: Timestamp,
    /// The count of changes when that began.
    pub change: u64,
}

/// A managed namespace as it was tried last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceSet {
    /// What was to be of it.
    pub wish: NamespaceWish,
    /// What became of it.
    pub seen: NamespaceSeen,
    /// When.
    pub at: Timestamp,
    /// The count of changes when that began.
    pub change: u64,
}

/// Whether the API server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Not tried yet.
    Unknown,
    /// It did not answer.
    Away,
    /// It answers.
    Ready,
}

/// A subject whose effect failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// How often in a row.
    pub attempts: u32,
    /// Not to be tried before.
    pub until: Timestamp,
    /// What went wrong the last time, for people.
    pub why: String,
}
