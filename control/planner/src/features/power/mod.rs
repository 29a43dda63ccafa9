//! Power: a cluster that is stopped, and that is started again.
//!
//! | machine | stopped | started |
//! |---|---|---|
//! | control plane member | stands still, its disk with etcd is kept | starts on that disk |
//! | node | gone, its record with name and addresses is kept | made anew under its own name, with a new one-time token |
//! | preserved node | stands still, its disk is kept | starts on that disk |
//! | member of an archived cluster | gone as nodes are: its data is in the backup | made anew under its own name, with a restore of the newest state |
//!
//! Nothing is drained and nothing is taken out of etcd: the node comes back under the name of its node object, and its kubelet runs
//! what is bound to it. Network, addresses, keys and configurations stay as they are. Starting is what bringing machines to be there
//! is anyway; only what etcd says of the nodes is old until their kubelets have spoken again.
//!
//! Always true: no disk that holds etcd goes, unless the cluster is archived, which it is only once its backup was verified. A node's disk goes
//! only once the machine stands still, and a machine's token is renewed only once the disk is gone; healing and everybody else has nothing to do
//! while the cluster is to be stopped.

use agent_protocol::{ProcessSeen, ProcessState};
use control_records::{Milestone, Part};

use crate::{
    Draft, FabricEffect, Machine, Presence, Reach, Subject, Write,
    checks::{Checks, Stage},
    disturb::Disturb,
    feature::{Feature, Instead},
    nodes,
    view::machines::{part_of, staying, wants_look},
};

pub(crate) const FEATURE: Feature = Feature {
    observe: started,
    checks: starting,
    instead: Some(Instead {
        applies: |desired| desired.spec().stopped,
        plan: stop,
        checks: stopping,
    }),
    ..Feature::named("power")
};

fn stop(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    if wants_look(draft) {
        draft.act_quietly(FabricEffect::Look);
    }
    for (id, machine) in &seen.machines {
        if machine.node_name().is_some() && machine.record.deleting {
            // On its way out anyway, and nobody answers who could drain it. Its node object goes after the start.
            nodes::remove_at_once(draft, id, machine);
        } else {
            turn_off(draft, id, machine);
        }
    }
    draft.observed.stopped |= !seen.machines.is_empty();
    // What runs again says itself how it fares.
    draft.observed.addons.clear();
    draft
        .observed
        .ready_nodes
        .values_mut()
        .for_each(|ready| *ready = 0);
    draft.observed.unready_since = None;
    if !seen.busy.is_empty() {
        // What began before may still make a machine run, or write.
        draft.wait_or_adopt(true, "stopping machines");
    } else if !draft.unfinished && draft.writes.is_empty() && !draft.reached_before() {
        draft.observed.generation = draft.desired.generation;
        draft.observed.came_about(Milestone::Converged, draft.now);
    }
}

/// A machine that is to stay and not to run.
fn turn_off(draft: &mut Draft<'_>, id: &str, machine: &Machine) {
    let label = machine.label();
    match machine.presence {
        // The look tells.
        Presence::Unknown => draft.wait_or_adopt(true, format!("stopping {label}")),
        Presence::Running | Presence::Partial => draft.disturb(
            Disturb::TurnOff { id },
            FabricEffect::StopMachine,
            format!("stopping {label}"),
        ),
        Presence::Stopped if keeps_its_disk(draft, machine) => {}
        Presence::Stopped => wipe(draft, id, machine),
        // One that was lost with its disk is a matter for healing, once it is to run.
        Presence::Absent | Presence::Gone if is_off(draft, machine) => {}
        // What is left of it after a removal that was cut short goes first, whoever began that.
        Presence::Absent | Presence::Gone if machine.repaired != Some(draft.desired.modified_at) => {
            wipe(draft, id, machine);
        }
        Presence::Absent | Presence::Gone => {
            draft.wait(format!("removing {label}"));
            if draft.has_room(2) {
                draft.write(Write::RenewToken(id.to_owned()));
            }
        }
    }
}

fn wipe(draft: &mut Draft<'_>, id: &str, machine: &Machine) {
    let at = draft.desired.modified_at;
    draft.disturb(
        Disturb::TurnOff { id },
        |machine| FabricEffect::WipeMachine { machine, at },
        format!("removing {}", machine.label()),
    );
}

fn keeps_its_disk(draft: &Draft<'_>, machine: &Machine) -> bool {
    let member = machine.node_name().is_none();
    member && !draft.desired.spec().archived || machine.record.healing.preserve.is_some()
}

/// Whether a machine is as it is to be in a cluster that is stopped.
fn is_off(draft: &Draft<'_>, machine: &Machine) -> bool {
    let kept = keeps_its_disk(draft, machine);
    match machine.presence {
        Presence::Unknown | Presence::Running | Presence::Partial => false,
        Presence::Stopped => kept,
        Presence::Absent | Presence::Gone => kept || machine.record.enrolled_key.is_none(),
    }
}

fn stopping(draft: &Draft<'_>, checks: &mut Checks) {
    for (id, machine) in &draft.seen.machines {
        let what = format!("stopping {}", machine.label());
        let off = is_off(draft, machine) && draft.is_quiet(&Subject::Machine(id.clone()));
        if machine.record.deleting {
            if machine.node_name().is_some() {
                checks.leaving_machine(&Part::Base, Stage::Membership, id, what);
            } else {
                checks.cluster(Stage::Membership, what, off);
            }
        } else {
            checks.machine(draft, id, machine, what, off);
        }
    }
    // Once nothing is in the way, the next look at it says so.
    checks.cluster(Stage::Service, "stopping machines", draft.seen.busy.is_empty());
}

/// Nodes of which only etcd tells so far: what it says of them is from before the cluster was stopped.
fn unheard<'a>(draft: &Draft<'a>) -> impl Iterator<Item = (&'a String, &'a Machine)> + use<'a> {
    let runs = |process: &ProcessSeen| matches!(process.state, ProcessState::Ready | ProcessState::Stopped);
    let nodes =
        staying(draft).filter(|(_, machine)| machine.node_name().is_some() && !machine.record.healing.off);
    nodes.filter(move |(_, machine)| {
        let report = machine.report.as_ref();
        report.is_none_or(|report| !report.processes.values().all(runs))
    })
}

/// After a start, nodes count from when their kubelets have spoken.
fn started(draft: &mut Draft<'_>) {
    if !draft.observed.stopped {
        return;
    }
    let left: Vec<_> = unheard(draft)
        .filter(|(id, machine)| part_of(draft, id, machine).is_some())
        .map(|(_, machine)| machine.label().to_owned())
        .collect();
    if left.is_empty() && draft.seen.api.reach == Reach::Ready {
        draft.observed.stopped = false;
    }
    for node in left {
        draft.wait(format!("waiting for node {node} to come back"));
    }
}

fn starting(draft: &Draft<'_>, checks: &mut Checks) {
    if draft.observed.stopped {
        for (id, machine) in unheard(draft) {
            let what = format!("waiting for node {} to come back", machine.label());
            checks.machine(draft, id, machine, what, false);
        }
    }
}
