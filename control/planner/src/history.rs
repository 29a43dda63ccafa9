//! What is told of machines and problems: whatever differs from what was told before, which the observed record keeps.

use std::collections::BTreeMap;

use control_records::{EventKind, Reported, Role, times::Step};
use jiff::Timestamp;

use crate::{Draft, Machine, Presence, Reach, Write, messages};

/// Events that one look at a machine may bring, as a rule.
const TOLD_AT_ONCE: usize = 4;

pub(crate) fn plan(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    let mut reported = BTreeMap::new();
    for (id, machine) in &seen.machines {
        let before = seen.observed.reported.get(id).cloned().unwrap_or_default();
        let label = machine.label().to_owned();
        if draft.writes.contains(&Write::RemoveMachine(id.clone())) {
            left(draft, machine);
            draft.tell(EventKind::MachineRemoved, label, format!("machine {id} is gone"));
            continue;
        }
        let mut now = before.clone();
        if !draft.has_room(TOLD_AT_ONCE) {
            if before != Reported::default() {
                reported.insert(id.clone(), before);
            }
            continue;
        }
        runs(draft, id, machine, &label, &mut now);
        serves(draft, machine, &label, &mut now);
        restarts(draft, machine, &label, &mut now);
        if now != Reported::default() {
            reported.insert(id.clone(), now);
        }
    }
    draft.observed.reported = reported;
    problem(draft);
}

/// Keeps how long it took until a node that was replaced was gone, without the time that it was kept on purpose.
fn left(draft: &mut Draft<'_>, machine: &Machine) {
    let Some(emptying) = machine
        .record
        .emptying
        .as_ref()
        .filter(|emptying| emptying.given_up.is_none())
    else {
        return;
    };
    let Some(Role::Node { pool, .. }) = machine.role() else {
        return;
    };
    let mut pools = draft.desired.spec().pools.iter();
    let soak = pools
        .find(|spec| spec.name == *pool && emptying.empty.is_some())
        .map_or(0, |spec| 60 * u64::from(spec.soak_minutes));
    let took = since(draft, emptying.since).saturating_sub(soak);
    draft.observed.times.took(Step::Leave, took);
}

/// Seconds from then until now.
pub(crate) fn since(draft: &Draft<'_>, then: Timestamp) -> u64 {
    u64::try_from(draft.now.duration_since(then).as_secs()).unwrap_or_default()
}

fn going(draft: &Draft<'_>, machine: &Machine) -> bool {
    machine.record.deleting || !draft.served
}

fn runs(draft: &mut Draft<'_>, id: &str, machine: &Machine, label: &str, reported: &mut Reported) {
    match machine.presence {
        Presence::Running if !reported.runs => {
            reported.runs = true;
            draft.tell(EventKind::MachineMade, label, format!("machine {id} runs"));
        }
        Presence::Absent | Presence::Partial | Presence::Stopped | Presence::Gone if reported.runs => {
            reported.runs = false;
            reported.ready = false;
            // That something goes which is to go is told once it has gone.
            if !going(draft, machine) {
                let why = match machine.presence {
                    Presence::Partial | Presence::Stopped => "stands still",
                    _ => "is not there any more",
                };
                draft.tell(EventKind::MachineLost, label, format!("machine {id} {why}"));
            }
        }
        _ => {}
    }
}

fn serves(draft: &mut Draft<'_>, machine: &Machine, label: &str, reported: &mut Reported) {
    let api = &draft.seen.api;
    let (ready, good, bad) = match machine.node_name() {
        Some(name) if api.reach == Reach::Ready => (
            Some(api.node(name).is_some_and(|node| node.ready)),
            (EventKind::NodeJoined, "the node is ready"),
            (EventKind::NodeLost, "the node is not ready any more"),
        ),
        Some(_) => return,
        None => (
            machine.api_server_ready(),
            (EventKind::ApiReady, "the API server answers"),
            (EventKind::ApiAway, "the API server does not answer any more"),
        ),
    };
    let (Some(ready), false) = (ready, going(draft, machine)) else {
        return;
    };
    if ready != reported.ready {
        reported.ready = ready;
        // What was repaired meanwhile is no measure.
        if ready && machine.node_name().is_some() && machine.record.healing.at.is_none() {
            let took = since(draft, machine.record.created_at);
            draft.observed.times.took(Step::Start, took);
        }
        let (kind, message) = if ready { good } else { bad };
        draft.tell(kind, label, message);
    }
}

/// Told at once the first times, then each time that the number has doubled.
fn restarts(draft: &mut Draft<'_>, machine: &Machine, label: &str, reported: &mut Reported) {
    let Some(report) = &machine.report else { return };
    for (name, process) in &report.processes {
        let before = reported.restarts.get(name).copied().unwrap_or(0);
        let now = process.restarts;
        if now < before {
            // Another boot of the machine counts anew.
            reported.restarts.remove(name);
        }
        let before = reported.restarts.get(name).copied().unwrap_or(0);
        if now > before && (before < 3 || now >= before.saturating_mul(2)) {
            reported.restarts.insert(name.clone(), now);
            let last = process.last_exit.as_deref().unwrap_or("it ended");
            let times = match now {
                1 => String::new(),
                times => format!(", {times} times by now"),
            };
            let line = process.last_lines.last().map_or_else(String::new, |line| {
                format!("; its last line: {}", messages::cut(line, 160))
            });
            draft.tell(
                EventKind::ComponentRestarted,
                label,
                format!("{name} was started again{times} ({last}){line}"),
            );
        }
    }
}

/// A problem is over when nothing is left to do: between two attempts it only seems so.
fn problem(draft: &mut Draft<'_>) {
    let told = draft.seen.observed.problem_told;
    match messages::problem(draft) {
        Some(problem) if !told => {
            draft.observed.problem_told = true;
            draft.tell(EventKind::ProblemBegan, "", problem);
        }
        None if told && !draft.unfinished => {
            draft.observed.problem_told = false;
            draft.tell(EventKind::ProblemEnded, "", "nothing is left to do");
        }
        _ => {}
    }
}
