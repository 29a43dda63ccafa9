//! How operations go on and end. They follow the cluster and never lead it: losing all of them changes nothing else.
//!
//! An operation ends well as soon as what it asked for is there, whatever else is going on; it is called failed when it
//! is out of time, and says why. That a later request takes its place is decided where requests are.

use control_records::{Event, EventKind, OperationError, OperationRecord, OperationStatus, Part, Progress};

use crate::{Draft, Write, checks::Checks, messages, parts};

/// The code of an operation that ran out of time.
pub const OPERATION_TIMED_OUT: &str = "OperationTimedOut";
/// The code of an operation that a deletion overtook.
pub const OPERATION_PREEMPTED: &str = "AKSOperationPreemptedByDelete";

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
        let deadline = draft.after(operation.started_at, draft.policy.operation_bound);
        let end = if draft.desired.deleting && !operation.deletes {
            Some((OperationStatus::Canceled, Some(preempted(draft))))
        } else if !draft.desired.deleting && parts::is_reached(draft, operation) {
            Some((OperationStatus::Succeeded, None))
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
                let progress = progress(draft, operation, checks);
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
    }
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
        None => format!("{} reached what was asked for", operation.name),
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
    OperationError {
        code: OPERATION_TIMED_OUT.to_owned(),
        message: format!(
            "{} of '{}' was not done within {minutes} minutes. It stopped at: {stopped}.{cause} Landfall goes on trying and \
             the cluster heals by itself once the cause is gone; the next request is accepted as always.",
            operation.name, draft.desired.name
        ),
    }
}
