//! Renders the desired state of a cluster into configurations of its machines: files, processes, network
//! interfaces, node objects, kubeconfigs. All Kubernetes flags and configuration files are here, and nowhere
//! else.
//!
//! Called by the control loops (configurations), by the provider's credentials, and by the bench's floor,
//! which starts the same programs with the same flags. No I/O; only the keys of certificates are random, so a
//! result is computed once, kept sealed in the store, and computed again when its inputs change. Certificates
//! of the result before that still hold are kept then ([`keep_leaves`]).
//!
//! Always true: a node's configuration holds credentials of that node only; no program listens on plain HTTP
//! beyond loopback; a machine gets nothing except its [`agent_protocol::MachineConfig`].

mod access;
mod command;
mod containerd;
mod control_plane;
mod directory;
mod exec;
mod extras;
mod guards;
mod kubeconfig;
mod kubelet;
mod leaves;
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
pub use leaves::{keep_leaves, oldest_leaf};
pub use members::{bare_etcd, member_address};
pub use network::{CONTROL_PLANE_SUBNET, NODE_SUBNET, control_plane_nics, network, node_nics};
pub use node::{NodeTemplate, node_config, node_template, node_wish};

use std::net::Ipv4Addr;

use agent_protocol::{File, programs::EtcdRestore};
use cluster_pki::{Certificate, PkiError};
use cluster_spec::Tier;
use ipnet::Ipv4Net;

/// Container images in every node image, besides those of the add-ons; no image is pulled to start a cluster.
pub mod images {
    use cluster_addons::Image;

    /// Holds a pod's namespaces.
    pub const PAUSE: Image = Image {
        name: "pause",
        reference: "landfall.dev/pause:1",
    };
    /// For tests and experiments.
    pub const BUSYBOX: Image = Image {
        name: "busybox",
        reference: "landfall.dev/busybox:1",
    };
}

/// The addresses of a control plane machine.
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

/// A member of a cluster's control plane, as configured in the others.
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

/// A control plane machine and its fellow members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlanePlace {
    /// Its machine's id.
    pub machine: String,
    /// Its cluster's uid.
    pub cluster: String,
    /// Its addresses.
    pub at: ControlPlaneAddresses,
    /// All configured members, including itself.
    pub members: Vec<Member>,
    /// Whether the cluster's etcd was formed before.
    pub formed: bool,
    /// Whether the members move the VIP among themselves. If not, the fabric has put it on the only member's
    /// interface.
    pub roaming: bool,
    /// Addresses that always reach the API server: the stamp's service, and the cluster's own network as seen
    /// from outside.
    pub always: Vec<Ipv4Addr>,
    /// The tier with the limits of the API servers.
    pub limits: Tier,
    /// The restore that its data must come from, if any.
    pub restore: Option<EtcdRestore>,
    /// The token service of the stamp's directory. Only used in clusters that accept its tokens.
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

/// The place and identity of a node.
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
    /// Cores of its host, so that those beyond its size can be reserved.
    pub host_cores: u32,
    /// Memory of its host, MiB.
    pub host_memory_mib: u64,
    /// Whether its disk is a separate filesystem of its own size, not the host's disk.
    pub own_disk: bool,
    /// The stamp's registries of images; `None`: its containerd knows none of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryAccess>,
}

/// The stamp's registries of images, as nodes reach them: under the name in references, at an address of the service, with the certificate of the
/// node's machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryAccess {
    /// Host and port in references of images, e.g. `127.0.0.1:8443`.
    pub host: String,
    /// The URL where nodes find them, without a trailing slash, e.g. `https://100.64.16.1:7443`.
    pub url: String,
    /// PEM of the CA of its certificate.
    pub ca: String,
}

/// The reason why a machine's configuration could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A certificate could not be made.
    #[error("cannot make a credential")]
    Pki(#[from] PkiError),
    /// The size is not in the catalogue (the provider refuses such sizes).
    #[error("the size {0} is not in the catalogue")]
    UnknownSize(String),
    /// A node of this plugin needs a pod range.
    #[error("the node {0} has no pod range")]
    NoPodRange(String),
}

/// The port of every API server.
pub const API_PORT: u16 = 443;

/// A file readable by root only.
fn secret(path: &str, content: impl Into<String>) -> File {
    File {
        path: path.to_owned(),
        mode: 0o600,
        content: content.into(),
    }
}

/// A world-readable file.
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

/// A JSON file. JSON is valid YAML, so every Kubernetes component reads it.
fn object(path: &str, value: &serde_json::Value) -> File {
    secret(path, value.to_string())
}

/// A configuration file of a subcommand of the agent.
fn configuration(path: &str, content: &impl serde::Serialize) -> File {
    let text = serde_json::to_string(content).expect("configurations are plain data with string keys");
    secret(path, text)
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.into_iter().map(str::to_owned).collect()
}
