//! The desired state of a cluster, in Kubernetes' terms: the part of an ARM managed cluster that the loops
//! act on.
//!
//! Providers compute it from the ARM body ("desired"); planners, bootstrap and add-ons read it. Records only.
//! Always true: defaults are filled in; every range is a proper network address; pool names are unique.

pub mod autoscaler;
mod images;
mod ingress;
mod namespace;
mod network;
mod node_image;
mod sizes;
#[cfg(feature = "testkit")]
pub mod testkit;
mod texts;
mod trusted;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

pub use autoscaler::{AutoscalerProfile, Expander, PoolRange};
pub use images::{ADDON_IMAGES, AddonImage, KUBE_ROUTER, TRAEFIK};
pub use ingress::{IngressReach, IngressSpec};
pub use namespace::{
    AdoptionPolicy, DeletePolicy, NamespaceNetwork, NamespaceQuota, NamespaceSpec, NetworkRule,
};
pub use network::{NetworkPolicy, TenantVnet};
pub use node_image::{build_of, image_reference, is_build, is_newer, node_image_version, split_reference};
pub use sizes::{DEFAULT_VM_SIZE, VM_FAMILIES, VM_SIZES, VmFamily, VmSize, vm_size};
pub use texts::{count_or_percent, ip_range, taint};
pub use trusted::{TRUSTED_ROLES, TRUSTED_SOURCE, TrustedRole, TrustedRule};

/// The desired cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// ARM name.
    pub name: String,
    /// ARM resource group.
    pub resource_group: String,
    /// ARM region.
    pub location: String,
    /// The resource group of its nodes, by default `MC_{group}_{cluster}_{location}`.
    pub node_resource_group: String,
    /// Fully qualified domain name of the API server.
    pub fqdn: String,
    /// Control plane version, e.g. `1.36.3`.
    pub kubernetes_version: String,
    /// Networking.
    pub network: NetworkProfile,
    /// Node pools in the order given; at least one.
    pub pools: Vec<PoolSpec>,
    /// Whether the local administrator's credential is off.
    pub disable_local_accounts: bool,
    /// The service tier.
    #[serde(default)]
    pub tier: Tier,
    /// The latest requested restore, which its state comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreSpec>,
    /// Whether it is stopped: its data, addresses and keys are kept, and none of its machines runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// Whether it is archived as well: disks of its control plane go, and its state is in its backup alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub archived: bool,
    /// The permitted clients of its API server.
    #[serde(default, skip_serializing_if = "ApiAccess::is_open")]
    pub access: ApiAccess,
    /// The public issuer of its service accounts' tokens: a URL. `None`: tokens are not valid outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Whether pods with the label get a token for the stamp's token service.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub workload_identity: bool,
    /// The access of the stamp directory's users to its API server. `None`: no access.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectoryAccess>,
    /// Whether the disk driver is off (`storageProfile.diskCSIDriver.enabled: false`): nothing is
    /// provisioned, attached or detached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disks_off: bool,
    /// Whether the driver of shares is off (`storageProfile.fileCSIDriver.enabled: false`): no share is
    /// provisioned or removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub files_off: bool,
    /// Whether snapshots are off (`storageProfile.snapshotController.enabled: false`): none is taken
    /// or removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub snapshots_off: bool,
    /// What routes requests from outside to its Services (`ingressProfile`).
    #[serde(default, skip_serializing_if = "IngressSpec::is_nothing")]
    pub ingress: IngressSpec,
    /// The settings of its autoscaler, which scales pools with a range ([`PoolSpec::autoscale`]).
    #[serde(default, skip_serializing_if = "AutoscalerProfile::is_default")]
    pub autoscaler: AutoscalerProfile,
    /// The last replacements of its CAs and keys that were asked for.
    #[serde(default, skip_serializing_if = "Rotations::are_none")]
    pub rotations: Rotations,
    /// The end of the override of upgrade checks (`overrideSettings` with `forceUpgrade`): upgrades requested before are not refused;
    /// milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced_until: Option<i64>,
    /// The minor release that its control plane emulates until an upgrade is finalised, e.g. `1.36`: programs of a newer one
    /// behave as this one does, and store what it can read. `None`: they are what they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulated: Option<String>,
}

impl ClusterSpec {
    /// Whether the autoscaler scales any of its pools.
    pub fn is_scaled(&self) -> bool {
        self.pools.iter().any(PoolSpec::is_scaled)
    }
}

/// When replacements of a cluster's CAs and keys were asked for last: milliseconds since 1970; 0: never. What is asked for later than what
/// was begun last is begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rotations {
    /// Of its CAs (cluster, etcd, front proxy) and all certificates of theirs.
    pub certificates: i64,
    /// Of the key that signs its service accounts' tokens.
    pub service_account_keys: i64,
}

impl Rotations {
    /// Whether none was ever asked for.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The access of the stamp directory's principals (users, service principals, managed identities) to a
/// cluster's API server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectoryAccess {
    /// The tenant whose tokens are accepted.
    pub tenant: String,
    /// Groups, by their object ids, whose members administer the cluster.
    #[serde(default)]
    pub admins: Vec<String>,
    /// Whether the stamp's role assignments grant rights, in addition to the cluster's own roles.
    #[serde(default)]
    pub roles: bool,
}

/// The permitted clients of a cluster's API server at its address outside the cluster's own network. The
/// cluster's own network and the stamp's service always have access.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ApiAccess {
    /// All clients.
    #[default]
    Open,
    /// These addresses.
    Ranges(Vec<Ipv4Net>),
    /// No others: a private cluster.
    Private,
}

impl ApiAccess {
    /// Whether all clients are permitted.
    pub fn is_open(&self) -> bool {
        *self == Self::Open
    }
}

/// A restore of a cluster's state from a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreSpec {
    /// Its identity: a finished restore is never repeated.
    pub id: String,
    /// The second to restore, milliseconds since 1970. `None`: the newest state.
    pub at: Option<i64>,
    /// The uid of the cluster whose backup is used.
    pub source: String,
}

/// The service tier (`sku.tier`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tier {
    /// One control plane member, small limits.
    #[default]
    Free,
    /// Three members: one may be lost.
    Standard,
    /// As `Standard`, with long-term support.
    Premium,
}

impl Tier {
    /// The number of control plane members: odd, because an even number tolerates no more failures.
    pub fn members(self) -> u32 {
        match self {
            Self::Free => 1,
            Self::Standard | Self::Premium => 3,
        }
    }
}

/// Networking of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkProfile {
    /// The source of pods' addresses.
    pub plugin: PodNetworking,
    /// The VNET created for the cluster; AKS: 10.224.0.0/12.
    pub vnet_range: Ipv4Net,
    /// The nodes' subnet; AKS: 10.224.0.0/16.
    pub node_range: Ipv4Net,
    /// A hidden subnet of the VNET for the control plane's own interface.
    pub control_plane_range: Ipv4Net,
    /// Pods' range; `None` if pods have addresses of the nodes' subnet.
    pub pod_range: Option<Ipv4Net>,
    /// Services' range.
    pub service_range: Ipv4Net,
    /// The cluster DNS's service address.
    pub dns_service_ip: Ipv4Addr,
    /// Whether pods may leave the cluster at all.
    pub outbound: bool,
    /// The tenant's VNET of its nodes; `None`: a VNET created for the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vnet: Option<TenantVnet>,
    /// What enforces NetworkPolicies.
    #[serde(default, skip_serializing_if = "NetworkPolicy::is_none")]
    pub policy: NetworkPolicy,
}

impl NetworkProfile {
    /// All ranges of the VNET.
    pub fn space(&self) -> &[Ipv4Net] {
        match &self.vnet {
            Some(vnet) => &vnet.space,
            None => std::slice::from_ref(&self.vnet_range),
        }
    }

    /// The range of the subnet of a node's address.
    pub fn subnet_of(&self, address: Ipv4Addr) -> Ipv4Net {
        let mut subnets = self.vnet.iter().flat_map(|vnet| &vnet.subnets);
        let found = subnets.find(|range| range.contains(&address));
        found.copied().unwrap_or(self.node_range)
    }
}

/// The source of pods' addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodNetworking {
    /// A /24 of the pod range for each node, behind a bridge; routed by the VNET's route table; translated to
    /// the node's address outside.
    Kubenet,
    /// `azure`: each pod has an address of the nodes' subnet, a block of `maxPods` for each node.
    AzureFlat,
    /// `azure` + `overlay`: a /24 of the pod range for each node, no bridge, routed by the fabric; translated
    /// outside the VNET.
    AzureOverlay,
    /// `none`: the user brings a CNI plugin. Nothing is installed.
    None,
}

/// A node pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolSpec {
    /// `[a-z][a-z0-9]{0,11}`.
    pub name: String,
    /// How many nodes it has when it is not stopped; see [`Self::wanted`].
    pub count: u32,
    /// ARM size name; see [`VmSize`].
    pub vm_size: String,
    /// Its mode.
    pub mode: PoolMode,
    /// Kubelet version.
    pub kubernetes_version: String,
    /// The build of its nodes' image ([`node_image_version`]); `None`: whichever there is of the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Pods a node may run.
    pub max_pods: u32,
    /// Labels on each node.
    pub labels: BTreeMap<String, String>,
    /// Taints on each node, `key=value:Effect`.
    pub taints: Vec<String>,
    /// OS disk, GiB, for the label only.
    pub os_disk_gib: u32,
    /// Changes when the pool is deleted and created again under the same name, so that its nodes get new
    /// names.
    pub incarnation: String,
    /// During an upgrade: the number of nodes permitted beyond [`Self::count`].
    #[serde(default = "one")]
    pub surge: u32,
    /// During an upgrade: the number of nodes below [`Self::count`] that may be not ready.
    #[serde(default)]
    pub unavailable: u32,
    /// During an upgrade: the time that pods may delay the removal of their node, minutes, 1 to 1440.
    #[serde(default = "drain_minutes", skip_serializing_if = "is_drain_default")]
    pub drain_minutes: u32,
    /// During an upgrade: the time that a drained node is kept before it is removed and the next one begins, minutes,
    /// 0 to 30.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub soak_minutes: u32,
    /// During an upgrade: the treatment of a node that is not drained in this time.
    #[serde(default, skip_serializing_if = "Undrainable::is_default")]
    pub undrainable: Undrainable,
    /// Ids of machines that must be removed, whatever the count: ids are never reused.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed: BTreeSet<String>,
    /// Nodes with machines created before this time are to be replaced, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed: Option<i64>,
    /// The subnet of its nodes in a tenant's VNET; `None`: [`NetworkProfile::node_range`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Ipv4Net>,
    /// Whether it has no nodes for now (`az aks nodepool stop`); [`Self::count`] says how many come with its start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// The range in which the autoscaler chooses [`Self::count`]; `None`: it has no autoscaler, and users set
    /// the count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<PoolRange>,
}

impl PoolSpec {
    /// How many nodes are to be there: none while it is stopped.
    pub fn wanted(&self) -> u32 {
        if self.stopped { 0 } else { self.count }
    }

    /// Whether the autoscaler scales it: it has a range, and is not stopped.
    pub fn is_scaled(&self) -> bool {
        self.autoscale.is_some() && !self.stopped
    }

    /// The largest number of nodes that it may have without another request: quotas and addresses are
    /// reserved for it.
    pub fn most(&self) -> u32 {
        self.autoscale
            .map_or(self.count, |range| range.max.max(self.count))
    }
}

/// The default of [`PoolSpec::drain_minutes`], as in AKS.
pub const DRAIN_MINUTES: u32 = 30;

fn one() -> u32 {
    1
}

fn drain_minutes() -> u32 {
    DRAIN_MINUTES
}

fn is_drain_default(minutes: &u32) -> bool {
    *minutes == DRAIN_MINUTES
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The treatment of a node that is to be replaced and is not drained in time (`undrainableNodeBehavior`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Undrainable {
    /// It is uncordoned and keeps its version; the upgrade of its pool ends.
    #[default]
    Schedule,
    /// It stays cordoned and is quarantined; another node is added in its place, and the upgrade goes on.
    Cordon,
}

impl Undrainable {
    /// Whether it is the default.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The mode of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolMode {
    /// Runs the cluster's own components.
    System,
    /// Runs the user's workloads.
    User,
}

impl PoolMode {
    /// As in labels: `system` or `user`.
    pub fn label(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
        }
    }
}

/// The kind of an AKS credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CredentialKind {
    /// `listClusterAdminCredential`: all rights.
    Admin,
    /// `listClusterUserCredential`: works with objects in namespaces, except the cluster's own.
    User,
    /// `listClusterMonitoringUserCredential`: read access, without secrets.
    Monitoring,
    /// Of a support ticket, for the stamp's operator: what the role `aks-service` may. No client of the ARM API gets it.
    Support,
}

impl CredentialKind {
    /// Its name in answers, e.g. `clusterAdmin`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "clusterAdmin",
            Self::User => "clusterUser",
            Self::Monitoring => "clusterMonitoringUser",
            Self::Support => "aksService",
        }
    }

    /// In one word: `admin`, `user`, `monitoring` or `support`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Monitoring => "monitoring",
            Self::Support => "support",
        }
    }
}

/// The token source in a kubeconfig.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFormat {
    /// A separate program, kubelogin.
    Exec,
    /// The format built into kubectl until 1.26; kubelogin converts it.
    Azure,
}
