//! Whether a machine may be disturbed now: asked before a control plane member is upgraded, configured or removed, before a node is
//! configured, and before a machine of any role is repaired.
//!
//! Always true: of several control plane members the planner disturbs one at a time, and none that etcd's quorum or the API needs;
//! what looks like one cause for many machines is not answered by treating them all; a preserved machine is left alone.
//!
//! Not asked: when nodes leave for a smaller pool, an upgrade or a deletion (`features::nodes` has bounds of its own), and when a cluster is
//! halted. Maintenance windows are kept, and nothing goes by them.

mod members;
mod nodes;
mod repairs;

pub use repairs::SilentMachines;
pub(crate) use repairs::{Kind, preserved};

use control_records::RepairStep;

use crate::{Draft, Machine, Symptom};

/// What is about to be done to a machine.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Disturb<'d> {
    /// A control plane member is stopped, to be started with another image.
    Upgrade { id: &'d str, member: &'d Machine },
    /// A control plane member takes the configuration with these inputs, and may have to start programs again for it.
    Configure {
        id: &'d str,
        member: &'d Machine,
        inputs: &'d str,
    },
    /// A node takes another configuration, and may have to start programs again for it.
    ConfigureNode { id: &'d str, node: &'d Machine },
    /// Control plane members that are too many are to go.
    Shrink,
    /// A control plane member that is to go is removed.
    Remove { id: &'d str, member: &'d Machine },
    /// A step of a repair.
    Repair {
        id: &'d str,
        machine: &'d Machine,
        symptom: &'d Symptom,
        kind: Kind,
        step: RepairStep,
    },
}

impl Draft<'_> {
    /// Whether this may be done now; if not, why not, for people.
    pub(crate) fn may(&self, disturb: Disturb<'_>) -> Result<(), String> {
        match disturb {
            Disturb::Upgrade { id, member } => members::upgrade(self, id, member),
            Disturb::Configure { id, member, inputs } => {
                if members::may_configure(self, id, member, inputs) {
                    Ok(())
                } else {
                    Err("the other control plane members come first".to_owned())
                }
            }
            Disturb::ConfigureNode { id, node } => nodes::configure(self, id, node),
            Disturb::Shrink => members::shrink(self),
            Disturb::Remove { id, member } => {
                if members::may_leave(self, id, member) {
                    Ok(())
                } else {
                    Err("etcd has not let it go".to_owned())
                }
            }
            Disturb::Repair {
                id,
                machine,
                symptom,
                kind,
                step,
            } => repairs::repair(self, id, machine, symptom, kind, step),
        }
    }
}
