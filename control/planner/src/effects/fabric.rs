//! Effects on machines and networks.

use jiff::Timestamp;

use super::subject::Subject;
use crate::NetworkLayout;

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
    StopMachine(String),
    /// Stop a machine and start it again, its disk as it is.
    RestartMachine {
        /// Which.
        machine: String,
        /// When the repair or the upgrade was written down that it belongs to.
        at: Timestamp,
    },
    /// Remove a machine and its disk, to be made anew under the same name.
    WipeMachine {
        /// Which.
        machine: String,
        /// When the repair was written down that it belongs to.
        at: Timestamp,
    },
    /// Remove a machine and its disk.
    DeleteMachine(String),
}

impl FabricEffect {
    /// What it concerns.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Look => Subject::Fabric,
            Self::EnsureNetwork(_) | Self::DeleteNetwork => Subject::Network,
            Self::EnsureMachine(machine)
            | Self::StopMachine(machine)
            | Self::RestartMachine { machine, .. }
            | Self::WipeMachine { machine, .. }
            | Self::DeleteMachine(machine) => Subject::Machine(machine.clone()),
        }
    }
}
