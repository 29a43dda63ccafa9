//! A step of healing that is written down, carried out: reboots, and machines made anew, drained first where somebody hears.

use control_records::{Healing, RepairStep, Work};
use jiff::Timestamp;

use crate::{
    Ailment, ApiEffect, Draft, FabricEffect, Machine, Reach, Write,
    disturb::Disturb,
    view::{recorded::formed, rotation},
};

/// Does the step that was written down at that time, and writes down that it is done.
pub(crate) fn carry_out(
    draft: &mut Draft<'_>,
    id: &str,
    machine: &Machine,
    (step, at): (RepairStep, Timestamp),
) {
    let healing = &machine.record.healing;
    let label = machine.label();
    let done = machine.repaired == Some(at);
    match (step, done) {
        (RepairStep::Reboot, false) => draft.disturb(
            Disturb::Proceed { id },
            |machine| FabricEffect::RestartMachine { machine, at },
            format!("restarting {label}: {}", healing.reason),
        ),
        (RepairStep::Reimage, false) => {
            let why = format!("making {label} anew: {}", healing.reason);
            match drained(draft, &draft.seen.machines[id]) {
                Drained::Ask(node) => {
                    draft.disturb(
                        Disturb::Drain { id },
                        |machine| ApiEffect::Drain { machine, node },
                        format!("draining node {label}"),
                    );
                }
                Drained::Wait => draft.wait(format!("draining node {label}")),
                Drained::Enough => draft.disturb(
                    Disturb::Proceed { id },
                    |machine| FabricEffect::WipeMachine { machine, at },
                    why,
                ),
            }
        }
        // The kubelet registers anew, and not as a node that was drained.
        (RepairStep::Reimage, true) if registered(draft, machine) => {
            let node = label.to_owned();
            draft.act(ApiEffect::DeleteNode(node), format!("making {label} anew"));
        }
        // Whether it is registered cannot be seen now. It starts when it can, or it would be the drained node of before.
        (RepairStep::Reimage, true) if served(draft) && machine.node_name().is_some() => {
            draft.wait(format!("waiting for the API server, to remove node {label}"));
        }
        _ => {
            let finished = Healing {
                at: Some(draft.now),
                ..healing.clone()
            };
            draft.wait(format!("repairing {label}"));
            draft.write(Write::Repair {
                machine: id.to_owned(),
                work: Work::of(None, machine.record.upgrading()),
                healing: finished,
                new_token: false,
                remove: false,
            });
        }
    }
}

/// Whether the API server answered at some time and does not now.
fn served(draft: &Draft<'_>) -> bool {
    draft.seen.api.reach != Reach::Ready && formed(&draft.seen.observed)
}

fn registered(draft: &Draft<'_>, machine: &Machine) -> bool {
    let api = &draft.seen.api;
    api.reach == Reach::Ready && machine.node_name().is_some_and(|name| api.node(name).is_some())
}

/// How far the pods of a node that is made anew are gone.
enum Drained {
    Ask(String),
    Wait,
    Enough,
}

/// Pods are asked to go first, while they may. From a machine that cannot answer, they are asked once: what follows does
/// not wait for somebody who does not hear.
fn drained(draft: &mut Draft<'_>, machine: &Machine) -> Drained {
    let (Some(drain), true) = (&machine.drain, registered(draft, machine)) else {
        return Drained::Enough;
    };
    let deadline = draft.after(drain.since, draft.policy.drain_bound);
    if draft.now >= deadline {
        return Drained::Enough;
    }
    draft.look_again_at(deadline);
    let hears = !matches!(
        machine.symptom.as_ref().map(|symptom| &symptom.ailment),
        Some(Ailment::Vanished | Ailment::Silent | Ailment::NotReady | Ailment::Stuck(_))
    );
    match drain.left {
        None if rotation::gets_connections(draft, machine) => Drained::Wait,
        None => Drained::Ask(machine.label().to_owned()),
        Some((left, _)) if left == 0 || !hears => Drained::Enough,
        Some((_, at)) => {
            let next = draft.after(at, draft.policy.drain_pause);
            if next > draft.now {
                draft.look_again_at(next);
                Drained::Wait
            } else {
                Drained::Ask(machine.label().to_owned())
            }
        }
    }
}
