//! How operations end. They follow the cluster and never lead it: losing all of them changes nothing else.

use control_records::{Event, EventKind, OperationError, OperationRecord, OperationStatus};

use super::{Draft, Write, after, words};

/// The code of an operation that ran out of time.
pub const OPERATION_TIMED_OUT: &str = "OperationTimedOut";
/// The code of an operation that a deletion overtook.
pub const OPERATION_PREEMPTED: &str = "AKSOperationPreemptedByDelete";

pub(super) fn plan(draft: &mut Draft<'_>) {
    if draft.writes.contains(&Write::Forget) {
        // Whoever executes that ends them all.
        return;
    }
    for operation in &draft.seen.operations {
        if operation.status != OperationStatus::InProgress {
            continue;
        }
        let deadline = after(operation.started_at, draft.policy.operation_bound);
        let end = if draft.desired.deleting && !operation.deletes {
            Some((OperationStatus::Canceled, Some(preempted(draft))))
        } else if !draft.desired.deleting && draft.observed.generation >= operation.generation {
            Some((OperationStatus::Succeeded, None))
        } else if deadline <= draft.now {
            Some((OperationStatus::Failed, Some(timed_out(draft, operation))))
        } else {
            None
        };
        match end {
            Some((status, error)) => {
                tell(draft, operation, status, error.as_ref());
                draft.writes.push(Write::EndOperation {
                    id: operation.id.clone(),
                    status,
                    error,
                });
            }
            None => draft.look_again_at(deadline),
        }
    }
}

fn tell(
    draft: &mut Draft<'_>,
    operation: &OperationRecord,
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
        .push(Event::new(kind, "", message).of(operation.id.clone()));
}

fn preempted(draft: &Draft<'_>) -> OperationError {
    OperationError {
        code: OPERATION_PREEMPTED.to_owned(),
        message: format!(
            "The cluster '{}' is being deleted, which overtook this operation.",
            draft.desired.name
        ),
    }
}

fn timed_out(draft: &Draft<'_>, operation: &OperationRecord) -> OperationError {
    let minutes = draft.policy.operation_bound.as_secs() / 60;
    let step = draft.waits.first().map_or("finishing", String::as_str);
    let problem =
        words::problem(draft).map_or_else(String::new, |problem| format!(" The last problem: {problem}."));
    let rest = draft.waits.len().saturating_sub(1);
    let others = match rest {
        0 => String::new(),
        1 => " and one more step".to_owned(),
        rest => format!(" and {rest} more steps"),
    };
    OperationError {
        code: OPERATION_TIMED_OUT.to_owned(),
        message: format!(
            "{} of '{}' was not done within {minutes} minutes. It stopped at: {step}{others}.{problem} Landfall goes on trying \
             and the cluster heals by itself once the cause is gone; 'landfall status' shows how far it is.",
            operation.name, draft.desired.name
        ),
    }
}
