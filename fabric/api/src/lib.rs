//! The fabric: the source of machines, networks and addresses.
//!
//! This crate is the contract between the control loops and the drivers (`fabric/container`, `fabric/sim`,
//! later VMs and Kubernetes). It has no ARM and no Kubernetes terms.
//!
//! Always true of a driver:
//! * every call may happen twice, and an interrupted call may be repeated: `ensure_*` converges, `delete_*`
//!   of something absent succeeds;
//! * everything it creates has a name computed from the stamp and the given id, so that [`Fabric::list`]
//!   finds all of it after a crash, and nothing of another stamp;
//! * everything it created keeps running when the service stops.

mod balancer;
mod filter;
mod sending;
mod volume;

use std::{collections::BTreeMap, net::Ipv4Addr};

use async_trait::async_trait;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

pub use balancer::{BalancedPort, Balancer, Side};
pub use filter::{Filter, FilterRule, PortRange, Protocol};
pub use sending::Sending;
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
    /// A machine's identity, `[a-z0-9]{1,12}`, given before it exists and kept until it is deleted. A cluster
    /// refers to machines; a machine may exist before any cluster does.
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

/// A VNET: a separate address space, which may overlap any other VNET's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Its identity.
    pub id: NetworkId,
    /// The ranges of the VNET. An `unreachable` route covers each of them, and each of `reserved`.
    pub address_space: Vec<Ipv4Net>,
    /// Subnets, each a bridge; traffic between them is routed.
    pub subnets: Vec<SubnetSpec>,
    /// Further ranges that live inside it (pods, services): never sent to the outside.
    pub reserved: Vec<Ipv4Net>,
    /// The route table: pod ranges and the node of each.
    pub routes: Vec<RouteSpec>,
    /// Its address in the stamp's network. Outbound traffic is translated to it.
    pub uplink: Ipv4Addr,
    /// Load balancers on addresses of its router.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub balancers: Vec<Balancer>,
    /// The only addresses that connections from inside reach through the uplink, beside name servers of machines
    /// at port 53 and other networks of the same VNET; `None`: all. Answers to connections from outside leave in
    /// any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<Ipv4Addr>>,
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
    /// The filter of traffic to and from its machines; `None`: all traffic passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// The only TCP ports of its machines at which others, in the VNET and beyond, open connections to them;
    /// `None`: all. Its machines reach each other at all ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serves: Option<Vec<u16>>,
}

/// A route of a VNET's route table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteSpec {
    /// The destination.
    pub to: Ipv4Net,
    /// The next hop, an address of the VNET.
    pub via: Ipv4Addr,
}

/// The label with a machine's role.
pub const ROLE_LABEL: &str = "role";

/// The role of a control plane machine: on a busy host, a driver gives it a larger share of the cores than
/// other machines. It runs no containers, and may have fewer rights than a machine that does.
pub const CONTROL_PLANE: &str = "control-plane";

/// A machine, which boots a node image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// Its identity.
    pub id: MachineId,
    /// Host name inside the machine, RFC 1123 label.
    pub hostname: String,
    /// The node image that it boots: the one of a Kubernetes version (`1.36.3`; the newest, where there are several), or this build of it
    /// (`1.36.3@2026.11.28`).
    pub image: String,
    /// CPU limit in thousandths of a core.
    pub cpu_millis: u32,
    /// Memory limit in MiB.
    pub memory_mib: u64,
    /// Size of its disk in GiB, where the driver can limit it; `None`: limited only by the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_gib: Option<u32>,
    /// Network cards, `eth0` first.
    pub nics: Vec<NicSpec>,
    /// Files put into the machine before its first start, by absolute path; mode 0600, owned by root. The
    /// agent's bootstrap token is one of them. The driver keeps them out of `Debug`.
    pub seed_files: BTreeMap<String, String>,
    /// Free labels, returned by [`Fabric::list`].
    pub labels: BTreeMap<String, String>,
}

/// A network interface of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicSpec {
    /// Name inside the machine, `eth0`…
    pub name: String,
    /// The network it is attached to.
    pub attach: Attach,
    /// Its address and prefix length.
    pub address: Ipv4Net,
    /// Further addresses (a VIP), each /32.
    pub extra: Vec<Ipv4Addr>,
    /// Default gateway, on at most one interface.
    pub gateway: Option<Ipv4Addr>,
    /// Further routes through this interface.
    pub routes: Vec<RouteSpec>,
    /// What the machine may send through it. `None`, from releases before this: any address, but from its own
    /// hardware address only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending: Option<Sending>,
}

/// The network that an interface is attached to.
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

/// The state of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Power {
    /// Its first process runs.
    Running,
    /// It exists with its disk, and no process runs.
    Stopped,
    /// It exists partially, without data worth keeping: a creation or deletion was interrupted.
    /// `ensure_machine` or `delete_machine` completes it. A machine with damaged metadata only is not
    /// partial.
    Partial,
}

/// A machine as the fabric sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSeen {
    /// Its identity.
    pub id: MachineId,
    /// Its state.
    pub power: Power,
    /// Its labels; empty when the driver's metadata cannot be read.
    pub labels: BTreeMap<String, String>,
    /// The hash of the specification it was created from. `None` when the driver's metadata cannot be read:
    /// `ensure_machine` writes it again and leaves a running machine alone.
    pub spec_hash: Option<String>,
}

/// So many disks with a database are kept of a machine: the next one stays where it is, and its machine with it, until somebody makes room.
pub const MOST_KEPT_DISKS: usize = 8;

/// A disk with a database that was set aside when its machine was made anew ([`Fabric::reset_machine`]). Its name is the machine's for the
/// first one, followed by `.2` for the second.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeptDisk {
    /// Whose disk it was. There may be no such machine any more.
    pub machine: MachineId,
    /// Counts the machine's kept disks, from 1, the oldest first.
    pub number: u32,
}

impl KeptDisk {
    /// The place of the next disk that is set aside, beside those that are kept; of other machines there may be some among them.
    ///
    /// # Errors
    /// [`FabricError::Failed`] when there are [`MOST_KEPT_DISKS`] of the machine.
    pub fn next<'a>(
        machine: &MachineId,
        kept: impl IntoIterator<Item = &'a Self>,
    ) -> Result<Self, FabricError> {
        let of_machine = kept.into_iter().filter(|disk| disk.machine == *machine);
        let (count, last) = of_machine.fold((0, 0), |(count, last), disk| (count + 1, disk.number.max(last)));
        if count < MOST_KEPT_DISKS {
            return Ok(Self {
                machine: machine.clone(),
                number: last + 1,
            });
        }
        Err(FabricError::failed(
            format!("make machine {machine} anew"),
            format!(
                "{count} earlier disks of it, each with a database, are kept already, and no more of them are: look for what the machine \
                 is lost by, and remove the disks that nobody needs"
            ),
        ))
    }
}

impl std::fmt::Display for KeptDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.number {
            1 => write!(f, "{}", self.machine),
            number => write!(f, "{}.{number}", self.machine),
        }
    }
}

impl From<&str> for KeptDisk {
    fn from(name: &str) -> Self {
        let numbered = name.rsplit_once('.').and_then(|(machine, number)| {
            Some((machine, number.parse::<u32>().ok().filter(|number| *number > 1)?))
        });
        let (machine, number) = numbered.unwrap_or((name, 1));
        Self {
            machine: machine.into(),
            number,
        }
    }
}

/// All that a stamp owns in the fabric.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Machines, in order of their ids.
    pub machines: Vec<MachineSeen>,
    /// Networks, in order of their ids.
    pub networks: Vec<NetworkId>,
    /// Disks that are kept of machines that were made anew, in order of their machines and their numbers.
    pub kept_disks: Vec<KeptDisk>,
    /// Volumes, in order of their ids.
    #[serde(default)]
    pub volumes: Vec<VolumeSeen>,
}

/// The reason of a failure. Coarse, because the reaction is always one of: fix the input, wait, or ask a
/// person.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    /// The specification can never work.
    #[error("invalid {what}: {why}")]
    Invalid {
        /// The part of the specification.
        what: String,
        /// The reason.
        why: String,
    },
    /// There is no such machine, network or volume.
    #[error("{0} does not exist")]
    NotFound(String),
    /// A machine that was to start on its existing disk has none.
    #[error("machine {0} has no disk any more")]
    NoDisk(MachineId),
    /// The node image does not exist (yet).
    #[error("there is no node image for Kubernetes {version} yet{}", .state.as_ref().map(|state| format!(": {state}")).unwrap_or_default())]
    NoImage {
        /// The requested version.
        version: String,
        /// The state of its build or import, if known.
        state: Option<String>,
    },
    /// The image of an add-on does not exist (yet).
    #[error("the image {name} is not there yet{}", .state.as_ref().map(|state| format!(": {state}")).unwrap_or_default())]
    NoAddonImage {
        /// Its name.
        name: String,
        /// The state of its build or import, if known.
        state: Option<String>,
    },
    /// The call failed; a retry may succeed.
    #[error("cannot {act}: {why}")]
    Failed {
        /// The action, as an infinitive.
        act: String,
        /// The system's error message.
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
    /// The service's address, which agents connect to: the first of the range.
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

    /// Creates the stamp's own network, if needed (a reboot removes it).
    async fn ensure_stamp(&self) -> Result<(), FabricError>;

    /// Stops everything this stamp runs, as a shut-down of the host would: machines in order, then everything
    /// that is not on disk (mounts, namespaces, links, routes, rules, control groups). Disks stay; `ensure_*`
    /// restores the rest.
    async fn stop_stamp(&self) -> Result<(), FabricError> {
        for machine in self.list().await?.machines {
            self.stop_machine(&machine.id).await?;
        }
        Ok(())
    }

    /// Removes everything this stamp owns: machines, networks, volumes, the stamp's network, files.
    async fn delete_stamp(&self) -> Result<(), FabricError>;

    /// Makes a VNET match its specification: creates it, adds and removes subnets and routes, replaces
    /// filters. Machines in it are left alone.
    async fn ensure_network(&self, spec: &NetworkSpec) -> Result<(), FabricError>;

    /// Removes a VNET. Its machines must be gone.
    async fn delete_network(&self, id: &NetworkId) -> Result<(), FabricError>;

    /// Whether machines can boot this node image, named as in [`MachineSpec::image`]; starts its build where possible.
    ///
    /// # Errors
    /// [`FabricError::NoImage`].
    async fn ensure_image(&self, version: &str) -> Result<(), FabricError>;

    /// Whether machines can get the container image of this add-on; starts its build where possible.
    ///
    /// # Errors
    /// [`FabricError::NoAddonImage`].
    async fn ensure_addon_image(&self, name: &str) -> Result<(), FabricError>;

    /// Creates and starts a machine. A running machine is left alone, whatever its specification says; a
    /// stopped one starts with the image of the specification, on its existing disk.
    async fn ensure_machine(&self, spec: &MachineSpec) -> Result<(), FabricError>;

    /// As [`Self::ensure_machine`], for a machine that has run before: it starts on its own disk or not at
    /// all.
    ///
    /// # Errors
    /// [`FabricError::NoDisk`] when it has no disk; then nothing is created.
    async fn start_machine(&self, spec: &MachineSpec) -> Result<(), FabricError>;

    /// Stops a machine in order (the agent gets SIGTERM and its grace period), keeping its disk.
    async fn stop_machine(&self, id: &MachineId) -> Result<(), FabricError>;

    /// Removes a machine and its disk, running or not, and all kept disks of it: it is not wanted any more.
    async fn delete_machine(&self, id: &MachineId) -> Result<(), FabricError>;

    /// Takes a machine's disk away from it, running or not: the next `ensure_machine` makes a new one. A disk that holds a database is set
    /// aside and kept, beside those that were before it.
    ///
    /// # Errors
    /// [`FabricError::Failed`] when [`MOST_KEPT_DISKS`] of the machine are kept; then its disk stays where it is.
    async fn reset_machine(&self, id: &MachineId) -> Result<(), FabricError>;

    /// Deletes a disk that was kept, if it is there, and no other one: its machine serves again.
    async fn delete_kept_disk(&self, disk: &KeptDisk) -> Result<(), FabricError>;

    /// Creates a volume with at least the specified size: a smaller one grows, also while it is attached.
    /// Data on it is never lost. Afterwards, a share can be mounted by all machines.
    ///
    /// # Errors
    /// [`FabricError::NotFound`] when its source volume does not exist; [`FabricError::Failed`] when the
    /// volume existed and the driver has lost its data: no empty volume takes its place.
    async fn ensure_volume(&self, spec: &VolumeSpec) -> Result<(), FabricError>;

    /// Removes a volume and all its data.
    ///
    /// # Errors
    /// [`FabricError::Failed`] while it is attached to a machine, or, if it is a share, in use in one.
    async fn delete_volume(&self, id: &VolumeId) -> Result<(), FabricError>;

    /// Attaches a volume to a running machine, as a block device. It stays attached when the machine stops
    /// and starts; after a reboot of the host it must be attached again.
    ///
    /// # Errors
    /// [`FabricError::NotFound`] for a missing volume or a machine that does not run; [`FabricError::Failed`]
    /// while it is attached to another machine, and for a share, which is never attached.
    async fn attach_volume(&self, id: &VolumeId, machine: &MachineId) -> Result<(), FabricError>;

    /// Detaches a volume from its machine, whichever that is.
    ///
    /// # Errors
    /// [`FabricError::Failed`] while the volume is in use in that machine; it stays attached then, and may be
    /// detached as soon as the use ends.
    async fn detach_volume(&self, id: &VolumeId) -> Result<(), FabricError>;

    /// The latest specification of a machine, without its seed files; `None` if the machine does not exist or
    /// its metadata cannot be read.
    async fn machine(&self, id: &MachineId) -> Result<Option<MachineSpec>, FabricError>;
    /// The latest specification of a VNET; `None` as for a machine.
    async fn network(&self, id: &NetworkId) -> Result<Option<NetworkSpec>, FabricError>;
    /// Everything that this stamp owns.
    async fn list(&self) -> Result<Inventory, FabricError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_disks_have_names_of_their_own_and_are_bounded() {
        let machine = MachineId::from("m");
        let mut kept: Vec<KeptDisk> = ["a", "m", "m.3"].map(KeptDisk::from).into();
        let names: Vec<String> = kept.iter().map(KeptDisk::to_string).collect();
        assert_eq!(names, ["a", "m", "m.3"]);
        assert_eq!((kept[1].number, kept[2].number), (1, 3));
        // No number comes again while a later one is kept.
        for number in 4..=9 {
            let next = KeptDisk::next(&machine, &kept).unwrap();
            assert_eq!(next.number, number);
            kept.push(next);
        }
        let full = KeptDisk::next(&machine, &kept).unwrap_err().to_string();
        assert!(
            full.starts_with("cannot make machine m anew: 8 earlier disks of it"),
            "{full}"
        );
        assert_eq!(KeptDisk::next(&"a".into(), &kept).unwrap().number, 2);
    }
}
