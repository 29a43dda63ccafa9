//! How machines leave a cluster that stays: drained within bounds, the node object removed, the machine removed, forgotten.

use crate::{
    ApiEffect, Draft, FabricEffect, Machine, NetworkSeen, Presence, Reach, Subject, Write,
    disturb::Disturb,
    view::{autoscaled, rotation, volumes},
};

/// Nodes on their way out of a cluster that stays: drain within bounds, remove the object, remove the machine, forget it.
pub(super) fn removals(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    for (id, machine) in &seen.machines {
        if !machine.record.deleting {
            continue;
        }
        if machine.presence == Presence::Gone {
            forget_machine(draft, id, machine);
            continue;
        }
        match leave(draft, id, machine) {
            Leave::Ready => draft.disturb(
                Disturb::Remove { id, machine },
                FabricEffect::DeleteMachine,
                format!("removing {}", machine.label()),
            ),
            Leave::DeleteNode(node) => {
                let why = format!("removing node {node}");
                draft.act(ApiEffect::DeleteNode(node), why);
            }
            Leave::Drain(node) => {
                let why = format!("draining node {node}");
                draft.disturb(
                    Disturb::Drain { id },
                    |machine| ApiEffect::Drain { machine, node },
                    why,
                );
            }
            Leave::Start if matches!(seen.network, NetworkSeen::Made(_)) => draft.act(
                FabricEffect::EnsureMachine(id.clone()),
                format!("starting {}, for etcd to let it go", machine.label()),
            ),
            Leave::Start => draft.wait(format!("removing {}", machine.label())),
            Leave::Wait(why) => draft.wait(why),
        }
    }
}

/// Removes a machine and then its record, without draining it and without asking etcd: for a cluster of which nothing is to run.
pub(crate) fn remove_at_once(draft: &mut Draft<'_>, id: &str, machine: &Machine) {
    if machine.presence == Presence::Gone {
        forget_machine(draft, id, machine);
    } else {
        draft.disturb(
            Disturb::End { id },
            FabricEffect::DeleteMachine,
            format!("removing {}", machine.label()),
        );
    }
}

/// Removes the record of a machine that is gone. Not before an effect that may still write its configuration has ended.
fn forget_machine(draft: &mut Draft<'_>, id: &str, machine: &Machine) {
    draft.wait(format!("removing {}", machine.label()));
    if !draft.seen.busy.contains(&Subject::Config(id.to_owned())) && draft.has_room(5) {
        draft.write(Write::RemoveMachine(id.to_owned()));
    }
}

/// What is next for a node that is to go.
enum Leave {
    Wait(String),
    /// A member that stands still is missing to the others, who have to agree that it goes.
    Start,
    Drain(String),
    DeleteNode(String),
    Ready,
}

fn leave(draft: &mut Draft<'_>, id: &str, machine: &Machine) -> Leave {
    let api = &draft.seen.api;
    let Some(name) = machine.node_name() else {
        return if draft.may(Disturb::Remove { id, machine }).is_ok() {
            Leave::Ready
        } else if matches!(machine.presence, Presence::Stopped | Presence::Partial) {
            Leave::Start
        } else {
            Leave::Wait(format!("waiting for etcd to let {} go", machine.label()))
        };
    };
    // A machine that never ran, or whose cluster never answered, has no pods to care for.
    let never_worked = !draft.seen.observed.formed && api.reach != Reach::Ready;
    // Of one that is off nobody hears, and it has stood still since somebody said so.
    let off = machine.record.healing.off && machine.presence == Presence::Stopped;
    if never_worked || off || machine.presence == Presence::Absent {
        return match api.node(name) {
            Some(_) if api.reach == Reach::Ready => Leave::DeleteNode(name.to_owned()),
            _ => Leave::Ready,
        };
    }
    let since = machine.drain.as_ref().map_or(draft.now, |drain| drain.since);
    let bound = autoscaled::drain_bound(draft, id, machine);
    let deadline = draft.after(since, bound);
    let out_of_time = draft.now >= deadline;
    if !out_of_time {
        draft.look_again_at(deadline);
    }
    if api.reach != Reach::Ready {
        // The sweep of stray node objects removes what stays behind.
        return if out_of_time {
            Leave::Ready
        } else {
            Leave::Wait(format!("waiting for the API server, to drain node {name}"))
        };
    }
    if api.node(name).is_none() {
        return Leave::Ready;
    }
    let held = machine.drain.as_ref().and_then(|drain| drain.held.as_deref());
    match machine.drain.as_ref().and_then(|drain| drain.left) {
        // Its pods were asked, and nobody is there to hear it. It goes before its node object does: nothing that ran on it
        // starts elsewhere while it may still run here.
        Some(_) if machine.record.healing.given_up() && !machine.heard() => Leave::Ready,
        // Volumes are detached right after the pods have ended. If the node were gone before, the cluster would wait for minutes
        // until it gives them to another one.
        Some((0, _)) if !out_of_time && volumes::has_some(draft, name) => {
            Leave::Wait(format!("waiting for the volumes of node {name} to be detached"))
        }
        Some((0, _)) if !out_of_time => Leave::DeleteNode(name.to_owned()),
        // Twice the bound: the API refuses to remove the node, for whatever reason. The machine goes all the same.
        _ if draft.now >= draft.after(deadline, draft.policy.drain_bound) => Leave::Ready,
        _ if out_of_time => Leave::DeleteNode(name.to_owned()),
        Some((left, at)) => {
            let next = draft.after(at, draft.policy.drain_pause);
            if next <= draft.now {
                Leave::Drain(name.to_owned())
            } else {
                draft.look_again_at(next);
                let why = held.map(|why| format!("; {why}")).unwrap_or_default();
                Leave::Wait(format!("draining node {name}: {left} pods to go{why}"))
            }
        }
        None if rotation::gets_connections(draft, machine) => {
            Leave::Wait(format!("taking node {name} out of load balancing"))
        }
        None => Leave::Drain(name.to_owned()),
    }
}
