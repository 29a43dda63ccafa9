//! Whether a machine may be disturbed now: asked before anything is done that stops, restarts, empties or removes a machine, takes pods from
//! it, or gives it a configuration for which it may have to start programs again; and before it is marked as to go.
//!
//! Always true: of several control plane members the planner disturbs one at a time, and none that etcd's quorum or the API needs;
//! what looks like one cause for many machines is not answered by treating them all; a preserved machine is left alone. What disturbs a
//! machine is not planned without a [`Permit`], which only [`Draft::may`] gives.
//!
//! The answer is yes for what was let through when it was written down ([`Disturb::Proceed`]), and for what a person asks for: a cluster that is
//! deleted or stopped, a smaller pool. How many nodes of a pool leave at a time is counted by `features::nodes`, which knows what takes
//! their place. What nobody has asked for ([`Disturb::Release`]) waits for its maintenance window, and while an operator holds planned work up.

mod members;
mod nodes;
mod permit;
mod repairs;
mod windows;

pub use permit::Permit;
pub(crate) use repairs::{Kind, preserved};

use control_records::{RepairStep, Role, planned::Waiting};

use crate::{Draft, Effect, Machine, Symptom, Write};

/// What is about to be done to a machine.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Disturb<'d> {
    /// A control plane member is stopped, to be started with another image.
    Upgrade { id: &'d str, member: &'d Machine },
    /// A machine takes the configuration with these inputs, and may have to start programs again for it.
    Configure {
        id: &'d str,
        machine: &'d Machine,
        inputs: &'d str,
    },
    /// The same, where nothing but a newer release of the service asks for it.
    Release {
        id: &'d str,
        machine: &'d Machine,
        inputs: &'d str,
    },
    /// A control plane member is marked as to go: there are too many.
    Shrink { id: &'d str },
    /// A node is marked as to go, or begins to be drained for that: its pool is smaller, is gone, or is to have other machines.
    Retire { id: &'d str },
    /// A machine is marked as to go, or is removed, as it is: nothing of its cluster is to run.
    End { id: &'d str },
    /// The pods of a node that is to go, is replaced, or is made anew, are evicted.
    Drain { id: &'d str },
    /// A machine that is marked is removed.
    Remove { id: &'d str, machine: &'d Machine },
    /// A machine is to stand still, because its cluster is stopped or somebody has turned it off; of a node of a cluster that is stopped,
    /// the disk goes too.
    TurnOff { id: &'d str },
    /// A step of a repair is decided on.
    Repair {
        id: &'d str,
        machine: &'d Machine,
        symptom: &'d Symptom,
        kind: Kind,
        step: RepairStep,
    },
    /// A step of a repair is decided on because somebody has asked for it.
    Order { id: &'d str, machine: &'d Machine },
    /// A repair, an upgrade or a draining that is written down is carried out.
    Proceed { id: &'d str },
}

impl<'d> Disturb<'d> {
    /// Which machine.
    fn machine(&self) -> &'d str {
        match *self {
            Self::Upgrade { id, .. }
            | Self::Configure { id, .. }
            | Self::Release { id, .. }
            | Self::Shrink { id }
            | Self::Retire { id }
            | Self::End { id }
            | Self::Drain { id }
            | Self::Remove { id, .. }
            | Self::TurnOff { id }
            | Self::Repair { id, .. }
            | Self::Order { id, .. }
            | Self::Proceed { id } => id,
        }
    }
}

impl Draft<'_> {
    /// Whether this may be done now; if not, why not, for people.
    pub(crate) fn may(&self, disturb: Disturb<'_>) -> Result<Permit, String> {
        match disturb {
            Disturb::Upgrade { id, member } => members::upgrade(self, id, member)?,
            Disturb::Configure { id, machine, inputs } => self.may_configure(id, machine, inputs)?,
            Disturb::Release { id, machine, inputs } => {
                if let Some(waiting) = windows::release(self) {
                    return Err(waiting.obstacle);
                }
                self.may_configure(id, machine, inputs)?;
            }
            Disturb::Shrink { .. } => members::shrink(self)?,
            Disturb::Remove { id, machine } => {
                if machine.node_name().is_none() && !members::may_leave(self, id, machine) {
                    return Err("etcd has not let it go".to_owned());
                }
            }
            Disturb::Repair {
                id,
                machine,
                symptom,
                kind,
                step,
            } => repairs::repair(self, id, machine, symptom, kind, step)?,
            Disturb::Order { machine, .. } => {
                let healing = &machine.record.healing;
                if healing.preserve.is_some() {
                    return Err(preserved(healing));
                }
            }
            Disturb::Retire { .. }
            | Disturb::End { .. }
            | Disturb::Drain { .. }
            | Disturb::TurnOff { .. }
            | Disturb::Proceed { .. } => {}
        }
        Ok(Permit::granted(disturb.machine()))
    }

    fn may_configure(&self, id: &str, machine: &Machine, inputs: &str) -> Result<(), String> {
        if !matches!(machine.role(), Some(Role::ControlPlane { .. })) {
            return nodes::configure(self, id, machine);
        }
        if !members::may_configure(self, id, machine, inputs) {
            return Err("the other control plane members come first".to_owned());
        }
        Ok(())
    }

    /// What a newer release of the service waits for, until when; `None` where machines may take it.
    pub(crate) fn release_waits(&self) -> Option<Waiting> {
        windows::release(self)
    }

    /// Plans an effect that disturbs a machine, if it may be disturbed now; if not, people are told what it waits for.
    pub(crate) fn disturb<E: Into<Effect>>(
        &mut self,
        disturb: Disturb<'_>,
        effect: impl FnOnce(Permit) -> E,
        why: impl Into<String>,
    ) {
        match self.may(disturb) {
            Ok(permit) => self.act(effect(permit), why),
            Err(obstacle) => self.wait(format!("{}: {obstacle}", why.into())),
        }
    }

    /// Marks a machine as to go, if it may be disturbed now; if not, people are told what that waits for.
    pub(crate) fn mark(&mut self, disturb: Disturb<'_>) {
        match self.may(disturb) {
            Ok(permit) => self.write(Write::MarkMachine(permit)),
            Err(obstacle) => {
                let id = disturb.machine();
                let label = self.seen.machines.get(id).map_or(id, Machine::label);
                self.wait(format!("removing {label}: {obstacle}"));
            }
        }
    }
}
