//! What a cluster is to be, in Kubernetes' words: the part of an ARM managed cluster that the loops act on.
//!
//! Providers compute it from the ARM body ("desired"); planners, bootstrap and add-ons read it. Records only.
//! Always true: defaults are filled in; every range is a proper network address; pool names are unique.

#[cfg(feature = "testkit")]
pub mod testkit;
mod texts;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

pub use texts::{count_or_percent, ip_range, taint};

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
    /// The resource group of its nodes, `MC_{group}_{cluster}_{location}` unless given.
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
    /// The restore that its state comes from: the last one that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreSpec>,
    /// Whether it is to stand still: its data, its addresses and its keys are kept, and none of its machines runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// Who reaches its API server.
    #[serde(default, skip_serializing_if = "ApiAccess::is_open")]
    pub access: ApiAccess,
    /// The issuer of its service accounts' tokens under which others know it: a URL. `None`: nobody outside is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Whether pods that ask for it get a token to show to the stamp's token service.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub workload_identity: bool,
    /// How those that the stamp's directory knows are known to its API server. `None`: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectoryAccess>,
    /// Whether the driver of disks is off (`storageProfile.diskCSIDriver.enabled: false`): nothing is provisioned, attached or detached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disks_off: bool,
    /// Whether the driver of shares is off (`storageProfile.fileCSIDriver.enabled: false`): none is provisioned or removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub files_off: bool,
    /// Whether no snapshots of disks are taken and removed (`storageProfile.snapshotController.enabled: false`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub snapshots_off: bool,
}

/// How those that the stamp's directory knows (users, service principals, managed identities) are known to a cluster's API server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectoryAccess {
    /// The tenant whose tokens are taken.
    pub tenant: String,
    /// Groups, by their object ids, whose members administer the cluster.
    #[serde(default)]
    pub admins: Vec<String>,
    /// Whether the stamp's role assignments say what they may do, beside the cluster's own roles.
    #[serde(default)]
    pub roles: bool,
}

/// Who reaches a cluster's API server at its address outside the cluster's own network. From within, and the stamp's service, always.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ApiAccess {
    /// Everybody.
    #[default]
    Open,
    /// These addresses.
    Ranges(Vec<Ipv4Net>),
    /// Nobody else: a private cluster.
    Private,
}

impl ApiAccess {
    /// Whether everybody does.
    pub fn is_open(&self) -> bool {
        *self == Self::Open
    }
}

/// A restore of a cluster's state from a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreSpec {
    /// Its identity: one that was done is never done again.
    pub id: String,
    /// The second to go back to, milliseconds since 1970. `None`: the newest.
    pub at: Option<i64>,
    /// Whose backup: a cluster's uid.
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
    /// How many control plane members it has: an odd number, so that each further one makes up for a lost one.
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
    /// How pods get addresses.
    pub plugin: PodNetworking,
    /// The VNET made for the cluster; AKS: 10.224.0.0/12.
    pub vnet_range: Ipv4Net,
    /// The nodes' subnet; AKS: 10.224.0.0/16.
    pub node_range: Ipv4Net,
    /// A hidden subnet of the VNET for the control plane's own card.
    pub control_plane_range: Ipv4Net,
    /// Pods' range; `None` where pods live in the nodes' subnet.
    pub pod_range: Option<Ipv4Net>,
    /// Services' range.
    pub service_range: Ipv4Net,
    /// The cluster DNS's service address.
    pub dns_service_ip: Ipv4Addr,
    /// Whether pods may leave the cluster at all.
    pub outbound: bool,
    /// The tenant's VNET that its nodes are in; `None`: in one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vnet: Option<TenantVnet>,
}

/// What a cluster knows of a tenant's VNET that its nodes are in. As long as they are, none of it changes but that subnets come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantVnet {
    /// Its identity.
    pub uid: String,
    /// Its address space.
    pub space: Vec<Ipv4Net>,
    /// Ranges of the subnets that pools of the cluster are in or were in, in order.
    pub subnets: BTreeSet<Ipv4Net>,
}

impl NetworkProfile {
    /// All ranges of the VNET.
    pub fn space(&self) -> &[Ipv4Net] {
        match &self.vnet {
            Some(vnet) => &vnet.space,
            None => std::slice::from_ref(&self.vnet_range),
        }
    }

    /// The range of the subnet that a node's address is in.
    pub fn subnet_of(&self, address: Ipv4Addr) -> Ipv4Net {
        let mut subnets = self.vnet.iter().flat_map(|vnet| &vnet.subnets);
        let found = subnets.find(|range| range.contains(&address));
        found.copied().unwrap_or(self.node_range)
    }
}

/// How pods get addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodNetworking {
    /// A /24 a node from the pod range behind a bridge; the VNET's route table leads to it; translated to the node's address outside.
    Kubenet,
    /// `azure`: each pod has an address of the nodes' subnet, a block of `maxPods` a node.
    AzureFlat,
    /// `azure` + `overlay`: a /24 a node from the pod range, no bridge, routed by the fabric; translated outside the VNET.
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
    /// How many nodes.
    pub count: u32,
    /// ARM size name; see [`VmSize`].
    pub vm_size: String,
    /// What it is for.
    pub mode: PoolMode,
    /// Kubelet version.
    pub kubernetes_version: String,
    /// Pods a node may run.
    pub max_pods: u32,
    /// Labels on each node.
    pub labels: BTreeMap<String, String>,
    /// Taints on each node, `key=value:Effect`.
    pub taints: Vec<String>,
    /// OS disk, GiB, for the label only.
    pub os_disk_gib: u32,
    /// Changes each time the pool is deleted and made anew under the same name, so that its nodes get new names.
    pub incarnation: String,
    /// While it is upgraded: so many nodes may be there beyond [`Self::count`].
    #[serde(default = "one")]
    pub surge: u32,
    /// While it is upgraded: so many nodes fewer than [`Self::count`] may be ready.
    #[serde(default)]
    pub unavailable: u32,
    /// Machines that are to go, whatever their number, by their ids: an id never comes again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed: BTreeSet<String>,
    /// Nodes whose machines were made before are to be replaced by new ones, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed: Option<i64>,
    /// The subnet of a tenant's VNET that its nodes are in; `None`: [`NetworkProfile::node_range`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Ipv4Net>,
}

fn one() -> u32 {
    1
}

/// What a pool is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolMode {
    /// Runs what the cluster itself needs.
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

/// A machine size of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmSize {
    /// ARM name.
    pub name: &'static str,
    /// Cores.
    pub cores: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Temporary disk, GiB.
    pub disk_gib: u32,
}

impl VmSize {
    /// Its family, as Azure names it where cores are counted, e.g. `standardDSv2Family`.
    pub fn family(&self) -> &'static str {
        VM_FAMILIES
            .iter()
            .find(|family| family.sizes.contains(&self.name))
            .map_or("standardFamily", |family| family.name)
    }
}

/// A family of sizes, of which the cores are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmFamily {
    /// E.g. `standardDSv2Family`.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// Its sizes of the catalogue.
    pub sizes: &'static [&'static str],
}

/// The families of [`VM_SIZES`].
pub const VM_FAMILIES: &[VmFamily] = &[
    VmFamily {
        name: "standardBSFamily",
        title: "Standard BS Family vCPUs",
        sizes: &["Standard_B2s", "Standard_B2ms", "Standard_B4ms"],
    },
    VmFamily {
        name: "standardDSv3Family",
        title: "Standard DSv3 Family vCPUs",
        sizes: &["Standard_D2s_v3", "Standard_D4s_v3", "Standard_D8s_v3"],
    },
    VmFamily {
        name: "standardDSv5Family",
        title: "Standard DSv5 Family vCPUs",
        sizes: &["Standard_D2s_v5", "Standard_D4s_v5", "Standard_D8s_v5"],
    },
    VmFamily {
        name: "standardDSv2Family",
        title: "Standard DSv2 Family vCPUs",
        sizes: &["Standard_DS2_v2", "Standard_DS3_v2", "Standard_DS4_v2"],
    },
];

/// The sizes offered: names and figures of Azure's public catalogue.
pub const VM_SIZES: &[VmSize] = &[
    VmSize {
        name: "Standard_B2s",
        cores: 2,
        memory_mib: 4096,
        disk_gib: 8,
    },
    VmSize {
        name: "Standard_B2ms",
        cores: 2,
        memory_mib: 8192,
        disk_gib: 16,
    },
    VmSize {
        name: "Standard_B4ms",
        cores: 4,
        memory_mib: 16384,
        disk_gib: 32,
    },
    VmSize {
        name: "Standard_D2s_v3",
        cores: 2,
        memory_mib: 8192,
        disk_gib: 16,
    },
    VmSize {
        name: "Standard_D4s_v3",
        cores: 4,
        memory_mib: 16384,
        disk_gib: 32,
    },
    VmSize {
        name: "Standard_D8s_v3",
        cores: 8,
        memory_mib: 32768,
        disk_gib: 64,
    },
    VmSize {
        name: "Standard_D2s_v5",
        cores: 2,
        memory_mib: 8192,
        disk_gib: 0,
    },
    VmSize {
        name: "Standard_D4s_v5",
        cores: 4,
        memory_mib: 16384,
        disk_gib: 0,
    },
    VmSize {
        name: "Standard_D8s_v5",
        cores: 8,
        memory_mib: 32768,
        disk_gib: 0,
    },
    VmSize {
        name: "Standard_DS2_v2",
        cores: 2,
        memory_mib: 7168,
        disk_gib: 14,
    },
    VmSize {
        name: "Standard_DS3_v2",
        cores: 4,
        memory_mib: 14336,
        disk_gib: 28,
    },
    VmSize {
        name: "Standard_DS4_v2",
        cores: 8,
        memory_mib: 28672,
        disk_gib: 56,
    },
];

/// Which of AKS's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CredentialKind {
    /// `listClusterAdminCredential`: may do everything.
    Admin,
    /// `listClusterUserCredential`: works with what is in namespaces, but for the cluster's own.
    User,
    /// `listClusterMonitoringUserCredential`: reads, and no secrets.
    Monitoring,
}

impl CredentialKind {
    /// Its name in answers, e.g. `clusterAdmin`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "clusterAdmin",
            Self::User => "clusterUser",
            Self::Monitoring => "clusterMonitoringUser",
        }
    }

    /// In a word: `admin`, `user` or `monitoring`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Monitoring => "monitoring",
        }
    }
}

/// How a kubeconfig says where tokens come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFormat {
    /// A program of its own, kubelogin.
    Exec,
    /// What kubectl itself could do until 1.26; kubelogin makes the other of it.
    Azure,
}

/// The name of the node image of a Kubernetes version, as AKS writes such names: `nodeImageVersion` in answers and the label
/// `kubernetes.azure.com/node-image-version` of nodes.
pub fn node_image_version(kubernetes: &str) -> String {
    format!("Landfall-Debian-12-{kubernetes}")
}

/// The size a request without one gets.
pub const DEFAULT_VM_SIZE: &str = "Standard_DS2_v2";

/// Looks a size up, ignoring case as ARM does.
pub fn vm_size(name: &str) -> Option<&'static VmSize> {
    VM_SIZES.iter().find(|size| size.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_of_one_family() {
        for size in VM_SIZES {
            let families = VM_FAMILIES
                .iter()
                .filter(|family| family.sizes.contains(&size.name));
            assert_eq!(families.count(), 1, "{}", size.name);
        }
        let listed: usize = VM_FAMILIES.iter().map(|family| family.sizes.len()).sum();
        assert_eq!(listed, VM_SIZES.len());
    }
}
