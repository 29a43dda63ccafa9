//! Effects on machines, networks and volumes.

use jiff::Timestamp;

use super::subject::Subject;
use crate::{NetworkLayout, Permit};

/// An effect on the fabric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FabricEffect {
    /// See which of the cluster's machines there are.
    Look,
    /// Make the VNET be there with these subnets, routes and rules.
    EnsureNetwork(NetworkLayout),
    /// Remove the VNET.
    DeleteNetwork,
    /// Make a machine be there and run.
    EnsureMachine(String),
    /// Stop a machine in order, its disk as it is.
    StopMachine(Permit),
    /// Stop a machine and start it again, its disk as it is.
    RestartMachine {
        /// Which.
        machine: Permit,
        /// When the repair or the upgrade was written down that it belongs to.
        at: Timestamp,
    },
    /// Remove a machine and its disk, to be made anew under the same name.
    WipeMachine {
        /// Which.
        machine: Permit,
        /// When the repair was written down that it belongs to.
        at: Timestamp,
    },
    /// Remove a machine and its disk.
    DeleteMachine(Permit),
    /// Make a volume be there and be at least so large.
    EnsureVolume {
        /// Its id.
        volume: String,
        /// Its size.
        bytes: u64,
        /// The volume that it begins as a copy of.
        source: Option<String>,
        /// Whether it is a share, which all machines can mount.
        shared: bool,
    },
    /// Give a volume to a machine.
    AttachVolume {
        /// Its id.
        volume: String,
        /// Which machine.
        machine: String,
    },
    /// Take a volume from the machine that has it.
    DetachVolume(String),
    /// Remove a volume and what is on it.
    DeleteVolume(String),
    /// Make the image of an add-on be there, for nodes to ask for.
    EnsureAddonImage(String),
}

impl FabricEffect {
    /// The names of all of them, as [`Self::name`] gives them.
    pub(super) const NAMES: [&'static str; 13] = [
        "fabric_look",
        "fabric_ensure_network",
        "fabric_delete_network",
        "fabric_ensure_machine",
        "fabric_stop_machine",
        "fabric_restart_machine",
        "fabric_wipe_machine",
        "fabric_delete_machine",
        "fabric_ensure_volume",
        "fabric_attach_volume",
        "fabric_detach_volume",
        "fabric_delete_volume",
        "fabric_ensure_addon_image",
    ];

    /// Its name where effects are counted.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Look => "fabric_look",
            Self::EnsureNetwork(_) => "fabric_ensure_network",
            Self::DeleteNetwork => "fabric_delete_network",
            Self::EnsureMachine(_) => "fabric_ensure_machine",
            Self::StopMachine(_) => "fabric_stop_machine",
            Self::RestartMachine { .. } => "fabric_restart_machine",
            Self::WipeMachine { .. } => "fabric_wipe_machine",
            Self::DeleteMachine(_) => "fabric_delete_machine",
            Self::EnsureVolume { .. } => "fabric_ensure_volume",
            Self::AttachVolume { .. } => "fabric_attach_volume",
            Self::DetachVolume(_) => "fabric_detach_volume",
            Self::DeleteVolume(_) => "fabric_delete_volume",
            Self::EnsureAddonImage(_) => "fabric_ensure_addon_image",
        }
    }

    /// What it concerns.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Look => Subject::Fabric,
            Self::EnsureNetwork(_) | Self::DeleteNetwork => Subject::Network,
            Self::EnsureMachine(machine) => Subject::Machine(machine.clone()),
            Self::StopMachine(permit)
            | Self::RestartMachine { machine: permit, .. }
            | Self::WipeMachine { machine: permit, .. }
            | Self::DeleteMachine(permit) => Subject::Machine(permit.machine().to_owned()),
            Self::EnsureVolume { volume, .. }
            | Self::AttachVolume { volume, .. }
            | Self::DetachVolume(volume)
            | Self::DeleteVolume(volume) => Subject::Volume(volume.clone()),
            Self::EnsureAddonImage(name) => Subject::Image(name.clone()),
        }
    }
}
