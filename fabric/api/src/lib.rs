//! The fabric: what makes machines, networks and addresses.
//!
//! This crate is the contract between the control loops and the drivers (`fabric/container`, `fabric/sim`, later VMs and
//! Kubernetes). It knows no ARM and no Kubernetes.
//!
//! Always true of a driver:
//! * every call may happen twice, and a call that was cut short may be repeated: `ensure_*` converges, `delete_*` of
//!   something absent succeeds;
//! * everything it makes carries a name computed from the stamp and the given id, so that [`Fabric::list`] finds all of
//!   it after a crash, and nothing of another stamp;
//! * what it made goes on when the service stops.

mod balancer;
mod filter;
mod volume;

use std::{collections::BTreeMap, net::Ipv4Addr};

use async_trait::async_trait;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

pub use balancer::{BalancedPort, Balancer, Side};
pub use filter::{Filter, FilterRule, PortRange, Protocol};
pub use volume::{VolumeSeen, VolumeSpec};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The text of the identifier.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

name!(
    /// A machine's own identity, `[a-z0-9]{1,12}`, given before it exists and kept until it is deleted. A cluster refers
    /// to machines; a machine may exist before any cluster does.
    MachineId
);
name!(
    /// A network's (VNET's) identity, `[a-z0-9]{1,12}`.
    NetworkId
);
name!(
    /// A volume's identity, `[a-z0-9]{1,12}`.
    VolumeId
);

/// A VNET: an address space of its own, which may overlap any other VNET's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Its identity.
    pub id: NetworkId,
    /// The ranges that belong to it. A route of type `unreachable` covers each, and each of `reserved`.
    pub address_space: Vec<Ipv4Net>,
    /// Subnets, each a bridge; traffic between them is routed.
    pub subnets: Vec<SubnetSpec>,
    /// Further ranges that live inside it (pods, services): never sent to the outside.
    pub reserved: Vec<Ipv4Net>,
    /// The route table: pod ranges and the node that has them.
    pub routes: Vec<RouteSpec>,
    /// Its address in the stamp's network. Outbound traffic is translated to it.
    pub uplink: Ipv4Addr,
    /// Addresses of its router that lead to its machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub balancers: Vec<Balancer>,
}

/// A subnet of a VNET.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetSpec {
    /// Unique in its VNET, `[a-z0-9-]{1,40}`.
    pub name: String,
    /// Its range.
    pub range: Ipv4Net,
    /// The router's address in it (Azure: the first usable one).
    pub gateway: Ipv4Addr,
    /// What may pass to and from its machines; `None`: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
}

/// A route of a VNET's route table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteSpec {
    /// Where to.
    pub to: Ipv4Net,
    /// By way of which address of the VNET.
    pub via: Ipv4Addr,
}

/// The label that says what a machine is for.
pub const ROLE_LABEL: &str = "role";

/// The role of a machine that runs a control plane: a driver gives it more of a busy host's cores than others.
pub const CONTROL_PLANE: &str = "control-plane";

/// Something that boots a node image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// Its identity.
    pub id: MachineId,
    /// Host name inside the machine, RFC 1123 label.
    pub hostname: String,
    /// The Kubernetes version whose node image it boots, e.g. `1.36.3`.
    pub image: String,
    /// CPU limit in thousandths of a core.
    pub cpu_millis: u32,
    /// Memory limit in MiB.
    pub memory_mib: u64,
    /// Size of its disk in GiB, where the driver can limit it; `None`: as large as the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_gib: Option<u32>,
    /// Network cards, `eth0` first.
    pub nics: Vec<NicSpec>,
    /// Files put into the machine before its first start, by absolute path; mode 0600, owned by root. This is how the
    /// agent gets its bootstrap token. Kept out of `Debug` by the driver.
    pub seed_files: BTreeMap<String, String>,
    /// Free labels, found again by [`Fabric::list`].
    pub labels: BTreeMap<String, String>,
}

/// A network card of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicSpec {
    /// Name inside the machine, `eth0`…
    pub name: String,
    /// What it is plugged into.
    pub attach: Attach,
    /// Its address and prefix length.
    pub address: Ipv4Net,
    /// Further addresses (a VIP), each /32.
    pub extra: Vec<Ipv4Addr>,
    /// Default gateway, on at most one card.
    pub gateway: Option<Ipv4Addr>,
    /// Further routes by way of this card.
    pub routes: Vec<RouteSpec>,
}

/// What a network card is plugged into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Attach {
    /// The stamp's own network, where agents find the service and clients find VIPs.
    Stamp,
    /// A subnet of a VNET.
    Subnet {
        /// The VNET.
        network: NetworkId,
        /// The subnet's name.
        subnet: String,
    },
}

/// What a machine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Power {
    /// Its first process runs.
    Running,
    /// It exists, its disk is kept, nothing runs.
    Stopped,
    /// Some of it exists and nothing of it is worth keeping: a creation or deletion was cut short. `ensure_machine` or `delete_machine`
    /// finishes it. A machine whose metadata alone is damaged is not partial.
    Partial,
}

/// A machine as the fabric sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSeen {
    /// Its identity.
    pub id: MachineId,
    /// What it is doing.
    pub power: Power,
    /// Its labels; empty when the driver's metadata cannot be read.
    pub labels: BTreeMap<String, String>,
    /// The hash of the specification it was made from. `None` when the driver's metadata cannot be read: `ensure_machine` writes it anew
    /// and leaves a machine that runs alone.
    pub spec_hash: Option<String>,
}

/// All that a stamp owns in the fabric.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Machines, in order of their ids.
    pub machines: Vec<MachineSeen>,
    /// Networks, in order of their ids.
    pub networks: Vec<NetworkId>,
    /// Machines of which an earlier disk is kept ([`Fabric::reset_machine`]), in order of their ids. There may be no machine of that id.
    pub kept_disks: Vec<MachineId>,
    /// Volumes, in order of their ids.
    #[serde(default)]
    pub volumes: Vec<VolumeSeen>,
}

/// Why the fabric could not do it. Coarse, because the answer is always one of: fix the input, wait, or tell a person.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    /// The specification can never work.
    #[error("invalid {what}: {why}")]
    Invalid {
        /// Which part.
        what: String,
        /// Why not.
        why: String,
    },
    /// There is no such machine, network or volume.
    #[error("{0} does not exist")]
    NotFound(String),
    /// A machine that was to start on its disk has none.
    #[error("machine {0} has no disk any more")]
    NoDisk(MachineId),
    /// The node image is not there (yet).
    #[error("there is no node image for Kubernetes {version} yet{}", .state.as_ref().map(|state| format!(": {state}")).unwrap_or_default())]
    NoImage {
        /// The version asked for.
        version: String,
        /// What is being done about it, as far as is known.
        state: Option<String>,
    },
    /// It did not work this time; the next try may.
    #[error("cannot {act}: {why}")]
    Failed {
        /// What was being done, as an infinitive.
        act: String,
        /// What the system said.
        why: String,
    },
}

impl FabricError {
    /// Shorthand for [`FabricError::Failed`].
    pub fn failed(act: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::Failed {
            act: act.into(),
            why: why.to_string(),
        }
    }
}

/// The stamp's own network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StampNetwork {
    /// The whole range, e.g. `100.64.16.0/20`. Lower half: the service (first address), machines and uplinks; upper half: VIPs.
    pub range: Ipv4Net,
    /// Whether its traffic may leave the host.
    pub uplink: Uplink,
}

impl StampNetwork {
    /// The service's address, where agents dial: the first of the range.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.range.network()) + 1)
    }

    /// The lower half, for machines and uplinks.
    pub fn machines(&self) -> Ipv4Net {
        Ipv4Net::new(self.range.network(), self.range.prefix_len() + 1).unwrap_or(self.range)
    }

    /// The upper half, for VIPs.
    pub fn vips(&self) -> Ipv4Net {
        let half = 1_u32 << (31 - self.range.prefix_len().min(31));
        Ipv4Net::new(
            Ipv4Addr::from(u32::from(self.range.network()) + half),
            self.range.prefix_len() + 1,
        )
        .unwrap_or(self.range)
    }
}

/// Whether a stamp's traffic may leave the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Uplink {
    /// Never: the mode of all tests and of air-gapped stamps.
    None,
    /// Through the host, translated to its address.
    Host,
}

/// A driver.
#[async_trait]
pub trait Fabric: Send + Sync + 'static {
    /// The stamp's network as configured.
    fn stamp_network(&self) -> &StampNetwork;

    /// Makes the stamp's own network be there (after a reboot it is not).
    async fn ensure_stamp(&self) -> Result<(), FabricError>;

    /// Stops everything this stamp runs, as a shut-down of the host would: machines in order, then whatever is not on
    /// disk (mounts, namespaces, links, routes, rules, control groups). Disks stay; `ensure_*` brings all of it back.
    async fn stop_stamp(&self) -> Result<(), FabricError> {
        for machine in self.list().await?.machines {
            self.stop_machine(&machine.id).await?;
        }
        Ok(())
    }

    /// Removes everything this stamp owns: machines, networks, volumes, the stamp's network, files.
    async fn delete_stamp(&self) -> Result<(), FabricError>;

    /// Makes a VNET be as specified: creates it, adds and removes subnets and routes, replaces filters. Machines in it are left alone.
    async fn ensure_network(&self, spec: &NetworkSpec) -> Result<(), FabricError>;

    /// Removes a VNET. Its machines must be gone.
    async fn delete_network(&self, id: &NetworkId) -> Result<(), FabricError>;

    /// Whether machines can boot the node image of this Kubernetes version; where it can be made, that begins.
    ///
    /// # Errors
    /// [`FabricError::NoImage`].
    async fn ensure_image(&self, version: &str) -> Result<(), FabricError>;

    /// Makes a machine exist and run. A machine that runs already is left alone, whatever its specification says; one that
    /// stands still starts with the image of the specification, on the disk that it has.
    async fn ensure_machine(&self, spec: &MachineSpec) -> Result<(), FabricError>;

    /// As [`Self::ensure_machine`], for a machine that has run before: it comes back as itself or not at all.
    ///
    /// # Errors
    /// [`FabricError::NoDisk`] when it has no disk; then nothing is made.
    async fn start_machine(&self, spec: &MachineSpec) -> Result<(), FabricError>;

    /// Stops a machine in order (the agent gets SIGTERM and its grace period), keeping its disk.
    async fn stop_machine(&self, id: &MachineId) -> Result<(), FabricError>;

    /// Removes a machine and its disk, running or not, and a kept disk of it: it is not wanted any more.
    async fn delete_machine(&self, id: &MachineId) -> Result<(), FabricError>;

    /// Takes a machine's disk away from it, running or not: the next `ensure_machine` makes a new one. A disk that holds a database is set
    /// aside and kept. One disk is kept for each machine, the first one: what comes after it was made anew already.
    async fn reset_machine(&self, id: &MachineId) -> Result<(), FabricError>;

    /// Deletes the disk that was kept of a machine, if there is one: the machine serves again.
    async fn delete_kept_disk(&self, id: &MachineId) -> Result<(), FabricError>;

    /// Makes a volume exist and be at least as large as specified: one that is smaller grows, while a machine has it, too. Nothing that is
    /// written on it is lost. A share is found by all machines afterwards.
    ///
    /// # Errors
    /// [`FabricError::NotFound`] when it is to begin as a copy of a volume that is not there; [`FabricError::Failed`] when it was there once and
    /// the driver has lost what was on it: no empty volume takes its place.
    async fn ensure_volume(&self, spec: &VolumeSpec) -> Result<(), FabricError>;

    /// Removes a volume and all that is on it.
    ///
    /// # Errors
    /// [`FabricError::Failed`] while a machine has it, or uses it where it is a share.
    async fn delete_volume(&self, id: &VolumeId) -> Result<(), FabricError>;

    /// Gives a volume to a machine that runs, as a block device. It keeps it when it stops and starts; after a reboot of the host it has to
    /// be given again.
    ///
    /// # Errors
    /// [`FabricError::NotFound`] for a volume or a running machine that is not there; [`FabricError::Failed`] while another machine has it, and for
    /// a share, which nobody is given.
    async fn attach_volume(&self, id: &VolumeId, machine: &MachineId) -> Result<(), FabricError>;

    /// Takes a volume from the machine that has it, whichever that is.
    ///
    /// # Errors
    /// [`FabricError::Failed`] while something in that machine uses it; then the machine still has it, and may lose it as soon as that ends.
    async fn detach_volume(&self, id: &VolumeId) -> Result<(), FabricError>;

    /// The specification that a machine was made from last, without what was put into it; `None` where there is no such machine, or
    /// what is written down about it cannot be read.
    async fn machine(&self, id: &MachineId) -> Result<Option<MachineSpec>, FabricError>;
    /// The specification that a VNET was made from last; `None` as for a machine.
    async fn network(&self, id: &NetworkId) -> Result<Option<NetworkSpec>, FabricError>;
    /// All that this stamp owns.
    async fn list(&self) -> Result<Inventory, FabricError>;
}
