//! How operations go on and end. They follow the cluster and never lead it: losing all of them changes nothing else.
//!
//! An operation ends well as soon as what it asked for is there, whatever else is going on; it is called failed when it
//! is out of time, or when a node that it would replace cannot be drained, and says why. While nodes are replaced, each node that begins
//! extends the deadline by the time that one node may take. That a later request takes its place is decided where requests are.

use std::time::Duration;

use cluster_spec::PoolSpec;
use control_records::{
    Event, EventKind, OperationError, OperationRecord, OperationStatus, Part, Progress, times::words,
};
use jiff::Timestamp;

use crate::{
    Draft, Write,
    checks::Checks,
    messages,
    nodes::emptying::undrained_of,
    parts,
    view::{
        complaints::undrained,
        machines::{index_in, is_current},
    },
};

/// The code of an operation that ran out of time.
pub const OPERATION_TIMED_OUT: &str = "OperationTimedOut";
/// The code of an operation that a deletion overtook.
pub const OPERATION_PREEMPTED: &str = "AKSOperationPreemptedByDelete";
/// The code of an operation with a node that could not be drained.
pub const POD_DRAIN_FAILURE: &str = "PodDrainFailure";

pub(crate) fn plan(draft: &mut Draft<'_>, checks: &Checks) {
    let seen = draft.seen;
    if seen.operations.is_empty() || draft.writes.contains(&Write::Forget) {
        // That ends them all.
        return;
    }
    for operation in &seen.operations {
        if operation.status != OperationStatus::InProgress {
            continue;
        }
        if !draft.has_room(3) {
            return;
        }
        let until = operation.progress.until.max(until(draft, operation));
        let deadline = draft.after(operation.started_at, draft.policy.operation_bound);
        let deadline = until.map_or(deadline, |until| until.max(deadline));
        let end = if draft.desired.deleting && !operation.deletes {
            Some((OperationStatus::Canceled, Some(preempted(draft))))
        } else if !draft.desired.deleting && parts::is_reached(draft, operation) {
            Some((OperationStatus::Succeeded, None))
        } else if !draft.desired.deleting
            && let Some(error) = undrainable(draft, operation, checks)
        {
            Some((OperationStatus::Failed, Some(error)))
        } else if deadline <= draft.now {
            let error = timed_out(draft, operation, checks);
            Some((OperationStatus::Failed, Some(error)))
        } else {
            None
        };
        match end {
            Some((status, error)) => {
                let subject = operation.pool().unwrap_or_default();
                tell(draft, operation, subject, status, error.as_ref());
                draft.write(Write::EndOperation {
                    id: operation.id.clone(),
                    status,
                    error,
                });
            }
            None => {
                draft.look_again_at(deadline);
                let progress = Progress {
                    until,
                    ..progress(draft, operation, checks)
                };
                if progress != operation.progress {
                    draft.write(Write::Progress {
                        id: operation.id.clone(),
                        progress,
                    });
                }
            }
        }
    }
}

/// How far an operation is: of what was missing when it was first looked at, how much is there by now.
fn progress(draft: &Draft<'_>, operation: &OperationRecord, checks: &Checks) -> Progress {
    let scope = parts::scope(draft, operation);
    let share = checks.share(&scope);
    let before = operation.progress.before.unwrap_or(share);
    let percent = match 1000_u32.checked_sub(before) {
        Some(missing) if missing > 0 => share.saturating_sub(before) * 100 / missing,
        _ => 0,
    };
    // The last hundredth is the end itself.
    Progress {
        before: Some(before),
        percent: percent.min(99).max(operation.progress.percent),
        step: step(draft, &scope, checks),
        until: operation.progress.until,
        expected: operation.progress.expected,
    }
}

/// The pools that an operation concerns.
fn pools<'a>(draft: &Draft<'a>, operation: &OperationRecord) -> Vec<&'a PoolSpec> {
    let scope = parts::scope(draft, operation);
    let pools = draft.desired.spec().pools.iter();
    pools
        .filter(|pool| scope.contains(&Part::pool(&pool.name)))
        .collect()
}

/// The extended deadline of an operation while nodes of its pools are replaced: the start of the last step, and the time that one step may
/// take.
fn until(draft: &Draft<'_>, operation: &OperationRecord) -> Option<Timestamp> {
    let pools = pools(draft, operation).into_iter();
    let ends = pools.filter_map(|pool| {
        let machines = draft.seen.machines.values();
        let own = || {
            machines
                .clone()
                .filter(move |machine| index_in(machine, pool).is_some())
        };
        if own().all(|machine| is_current(machine, pool)) {
            return None;
        }
        let minutes = |minutes: u32| Duration::from_secs(60 * u64::from(minutes));
        let steps = own().filter_map(|machine| {
            let record = &machine.record;
            let (begun, takes) = match &record.emptying {
                Some(emptying) => match emptying.empty {
                    Some(empty) => (empty, minutes(pool.soak_minutes)),
                    None => (emptying.since, minutes(pool.drain_minutes)),
                },
                // A machine that replaces one that did not become ready does not extend the deadline.
                None if is_current(machine, pool) && record.healing.replaced == 0 => {
                    (record.created_at, Duration::ZERO)
                }
                None => return None,
            };
            let takes = draft.policy.operation_bound + takes;
            (begun >= operation.started_at).then(|| draft.after(begun, takes))
        });
        steps.max()
    });
    ends.max()
}

/// The error of an operation with nodes that could not be drained: at once if such a node takes pods again, because the replacement of its pool
/// has ended; if all are quarantined, when everything else is complete.
fn undrainable(draft: &Draft<'_>, operation: &OperationRecord, checks: &Checks) -> Option<OperationError> {
    let pools = pools(draft, operation).into_iter();
    let found = pools.flat_map(|pool| undrained_of(draft, pool).map(move |(node, why)| (pool, node, why)));
    let found: Vec<_> = found.collect();
    let (pool, node, given_up) = *found
        .iter()
        .find(|(_, _, given_up)| !given_up.quarantined)
        .or_else(|| found.first())?;
    if given_up.quarantined {
        let scope = parts::scope(draft, operation);
        let told: Vec<String> = found
            .iter()
            .map(|(_, node, given_up)| undrained(node, given_up))
            .collect();
        if checks.open(&scope).any(|check| !told.contains(&check.what)) {
            return None;
        }
    }
    let name = node.label();
    let others = match found.len() {
        1 => String::new(),
        all => format!(" (and {} more)", all - 1),
    };
    let fate = if given_up.quarantined {
        "It is cordoned and has the label kubernetes.azure.com/upgrade-status=Quarantined; another node does its work."
            .to_owned()
    } else {
        format!(
            "It takes pods again and stays as it is, and no other node of pool {} is replaced.",
            pool.name
        )
    };
    Some(OperationError {
        code: POD_DRAIN_FAILURE.to_owned(),
        message: format!(
            "Drain node {name}{others} failed when evicting its pods, for they had not left within {} minutes: {}. {fate} Next: kubectl \
             get pods -A --field-selector spec.nodeName={name}, and kubectl get pdb -A for disruption budgets that allow nothing; then ask again.",
            pool.drain_minutes, given_up.why
        ),
    })
}

/// What is going on for these parts.
fn step(draft: &Draft<'_>, scope: &[Part], checks: &Checks) -> String {
    let mut open = Vec::new();
    for check in checks.open(scope) {
        if !open.contains(&&check.what) {
            open.push(&check.what);
        }
    }
    match open.as_slice() {
        [] => messages::step(draft),
        [only] => (*only).clone(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

/// How long an upgrade took, beside what it was expected to take when it was accepted.
fn beside_the_estimate(draft: &Draft<'_>, operation: &OperationRecord) -> String {
    let Some(expected) = operation.progress.expected else {
        return String::new();
    };
    let took = draft.now.duration_since(operation.started_at).unsigned_abs();
    format!(" in {}; {} were expected", words(took.as_secs()), words(expected))
}

/// Tells how an operation ended.
pub(crate) fn tell(
    draft: &mut Draft<'_>,
    operation: &OperationRecord,
    subject: &str,
    status: OperationStatus,
    error: Option<&OperationError>,
) {
    let kind = match status {
        OperationStatus::Failed => EventKind::Failed,
        OperationStatus::Canceled => EventKind::Superseded,
        OperationStatus::Succeeded | OperationStatus::InProgress => EventKind::Succeeded,
    };
    let message = match error {
        Some(error) => format!("{}: {}", operation.name, error.message),
        None => format!(
            "{} reached what was asked for{}",
            operation.name,
            beside_the_estimate(draft, operation)
        ),
    };
    draft
        .events
        .push(Event::new(kind, subject, message).of(operation.id.clone()));
}

/// The deletion of the cluster overtook an operation.
pub(crate) fn preempted(draft: &Draft<'_>) -> OperationError {
    OperationError {
        code: OPERATION_PREEMPTED.to_owned(),
        message: format!(
            "The cluster '{}' is being deleted, which overtook this operation.",
            draft.desired.name
        ),
    }
}

fn timed_out(draft: &Draft<'_>, operation: &OperationRecord, checks: &Checks) -> OperationError {
    let minutes = draft.policy.operation_bound.as_secs() / 60;
    let scope = parts::scope(draft, operation);
    let step = step(draft, &scope, checks);
    let stopped = if step.is_empty() { "finishing" } else { &step };
    let cause = messages::cause(draft, &scope, checks).map_or_else(String::new, |cause| format!(" {cause}"));
    let within = match operation.progress.until {
        None => format!("was not done within {minutes} minutes"),
        Some(_) => "has replaced nodes and does not get on".to_owned(),
    };
    OperationError {
        code: OPERATION_TIMED_OUT.to_owned(),
        message: format!(
            "{} of '{}' {within}. It stopped at: {stopped}.{cause} Landfall goes on trying and \
             the cluster heals by itself once the cause is gone; the next request is accepted as always.",
            operation.name, draft.desired.name
        ),
    }
}
