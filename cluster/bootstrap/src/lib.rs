//! From a desired cluster to what each of its machines has to be: files, processes, network cards, node objects,
//! kubeconfigs. All Kubernetes flags and configuration files are here, and nowhere else.
//!
//! Called by the control loops (configurations), by the provider's credentials, and by the bench's floor, which starts the
//! same programs with the same flags. No I/O; the only chance in it is the keys of certificates, so a result is computed
//! once, kept sealed in the store, and computed again when its inputs change.
//!
//! Always true: a node's configuration holds credentials of that node only; no program listens on plain HTTP beyond
//! loopback; whatever is written into a machine is in [`agent_protocol::MachineConfig`], and nothing else is.

mod access;
mod command;
mod containerd;
mod control_plane;
mod directory;
mod exec;
mod guards;
mod kubeconfig;
mod kubelet;
mod members;
mod network;
mod node;
mod paths;
mod pods;
mod process;
mod proxy;
pub mod renderer;
mod volumes;

pub use command::command_objects;
pub use control_plane::{ISSUER_KEYS, control_plane_config};
pub use directory::{CLIENT_APPLICATION, REVIEW_PATH, SERVER_APPLICATION, TokenAuthority};
pub use exec::directory_kubeconfig;
pub use guards::guard;
pub use kubeconfig::{Bearer, admin_endpoint, client_certificate, kubeconfig};
pub use members::{bare_etcd, member_address};
pub use network::{CONTROL_PLANE_SUBNET, NODE_SUBNET, control_plane_nics, network, node_nics};
pub use node::{NodeTemplate, node_config, node_template, node_wish};

use std::net::Ipv4Addr;

use agent_protocol::{File, programs::EtcdRestore};
use cluster_pki::{Certificate, PkiError};
use cluster_spec::Tier;
use ipnet::Ipv4Net;

/// Container images that every node image carries beside those of the add-ons; nothing is pulled to start a cluster.
pub mod images {
    use cluster_addons::Image;

    /// Holds a pod's namespaces.
    pub const PAUSE: Image = Image {
        name: "pause",
        reference: "landfall.dev/pause:1",
    };
    /// For tests and first looks.
    pub const BUSYBOX: Image = Image {
        name: "busybox",
        reference: "landfall.dev/busybox:1",
    };
}

/// Where a control plane machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneAddresses {
    /// The address clients and nodes use, in the stamp's network.
    pub vip: Ipv4Addr,
    /// The machine's own address in the stamp's network.
    pub stamp: Ipv4Addr,
    /// The machine's own address in the cluster's VNET.
    pub vnet: Ipv4Addr,
}

/// A member of a cluster's control plane, as the others have to know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its machine's id: the member's name in etcd.
    pub machine: String,
    /// Its address in the stamp's network.
    pub stamp: Ipv4Addr,
    /// Its address in the cluster's VNET.
    pub vnet: Ipv4Addr,
}

/// A control plane machine among the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlanePlace {
    /// Its machine's id.
    pub machine: String,
    /// Its cluster's uid.
    pub cluster: String,
    /// Where it is.
    pub at: ControlPlaneAddresses,
    /// All members that are to be, itself among them.
    pub members: Vec<Member>,
    /// Whether the cluster's etcd was formed before.
    pub formed: bool,
    /// Whether the members hold the VIP among themselves. If not, the fabric has put it on the only one's card.
    pub roaming: bool,
    /// Who reaches the API server however few may: the stamp's service, and the cluster's own network as it is seen outside.
    pub always: Vec<Ipv4Addr>,
    /// The tier whose limits the API servers go by.
    pub limits: Tier,
    /// The restore that its data must come from, if any.
    pub restore: Option<EtcdRestore>,
    /// Where those that the stamp's directory knows get their tokens. Only counts in clusters that take them.
    pub authority: TokenAuthority,
}

impl ControlPlanePlace {
    /// The only member of a new cluster of the free tier.
    pub fn alone(machine: &str, at: ControlPlaneAddresses) -> Self {
        Self {
            machine: machine.to_owned(),
            cluster: machine.to_owned(),
            at,
            members: vec![Member {
                machine: machine.to_owned(),
                stamp: at.stamp,
                vnet: at.vnet,
            }],
            formed: false,
            roaming: false,
            always: Vec::new(),
            limits: Tier::Free,
            restore: None,
            authority: TokenAuthority::default(),
        }
    }
}

/// Where a node is and who it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePlace {
    /// Kubernetes node name.
    pub node_name: String,
    /// Its address in the nodes' subnet.
    pub address: Ipv4Addr,
    /// Its pods' range (kubenet, overlay) or block of the subnet (flat).
    pub pod_range: Option<Ipv4Net>,
    /// Subscription, for the provider id.
    pub subscription: String,
    /// Machine id.
    pub machine: String,
    /// Cores of the host it runs on, so that what it may not use can be reserved.
    pub host_cores: u32,
    /// Memory of the host it runs on, MiB.
    pub host_memory_mib: u64,
    /// Whether its disk is a filesystem of its own size, not the host's disk.
    pub own_disk: bool,
}

/// Why a machine's configuration could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A certificate could not be made.
    #[error("cannot make a credential")]
    Pki(#[from] PkiError),
    /// The size is not in the catalogue (the provider lets none through).
    #[error("the size {0} is not in the catalogue")]
    UnknownSize(String),
    /// A node of this plugin needs a pod range.
    #[error("the node {0} has no pod range")]
    NoPodRange(String),
}

/// The port of every API server.
pub const API_PORT: u16 = 443;

/// A file that only root reads.
fn secret(path: &str, content: impl Into<String>) -> File {
    File {
        path: path.to_owned(),
        mode: 0o600,
        content: content.into(),
    }
}

/// A file that is no secret.
fn plain(path: &str, content: impl Into<String>) -> File {
    File {
        path: path.to_owned(),
        mode: 0o644,
        content: content.into(),
    }
}

/// A certificate and its key as two files, `{path}.crt` and `{path}.key`.
fn pair(path: &str, certificate: &Certificate) -> [File; 2] {
    [
        plain(&format!("{path}.crt"), certificate.certificate.as_str()),
        secret(&format!("{path}.key"), certificate.key.as_str()),
    ]
}

/// A file with an object in it. JSON is YAML, so every Kubernetes component reads it.
fn object(path: &str, value: &serde_json::Value) -> File {
    secret(path, value.to_string())
}

/// A file that one of the agent's programs reads.
fn configuration(path: &str, content: &impl serde::Serialize) -> File {
    let text = serde_json::to_string(content).expect("configurations are plain data with string keys");
    secret(path, text)
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.into_iter().map(str::to_owned).collect()
}
