//! How operations on managed namespaces end: with what the loop has seen of the namespace, whatever becomes of the rest of the cluster.

use cluster_api::NamespaceSeen;
use control_records::{
    OperationError, OperationRecord, OperationStatus, Progress,
    namespace::{NamespaceRecord, NamespaceState},
};

use crate::{
    Draft, Reach, Subject, Write, messages,
    operations::{OPERATION_PREEMPTED, OPERATION_TIMED_OUT, preempted, tell},
};

/// The code of an operation whose Namespace is somebody else's.
const NOT_ADOPTED: &str = "Conflict";

/// What the end of an operation takes, with what is told of it.
const ROOM: usize = 3;

/// A record goes, and with it what was asked of it: nobody would find those operations afterwards.
pub(super) fn forget(draft: &mut Draft<'_>, record: &NamespaceRecord) {
    let seen = draft.seen;
    let of_record = seen.namespace_operations.iter();
    let open: Vec<&OperationRecord> = of_record
        .filter(|operation| record.operations.contains(&operation.id))
        .filter(|operation| operation.status == OperationStatus::InProgress)
        .collect();
    if !draft.has_room(ROOM * (1 + open.len())) {
        return;
    }
    for operation in open {
        let (status, error) = if operation.deletes {
            (OperationStatus::Succeeded, None)
        } else {
            (OperationStatus::Canceled, Some(overtaken(record)))
        };
        conclude(draft, record, operation, status, error);
    }
    draft.write(Write::ForgetNamespace(record.name.clone()));
}

/// Ends those of which the end is known, and tells how far the others are.
pub(crate) fn plan(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    if draft.writes.contains(&Write::Forget) {
        // That ends them all.
        return;
    }
    for operation in &seen.namespace_operations {
        let mut records = seen.namespaces.iter();
        let record = records.find(|record| record.operations.contains(&operation.id));
        let Some(record) = record.filter(|_| operation.status == OperationStatus::InProgress) else {
            continue;
        };
        let forgotten = Write::ForgetNamespace(record.name.clone());
        if draft.writes.contains(&forgotten) {
            // It has ended with that.
            continue;
        }
        if !draft.has_room(ROOM) {
            return;
        }
        let deadline = draft.after(operation.started_at, draft.policy.operation_bound);
        let mut end = end(draft, record, operation);
        if end.is_none() && deadline <= draft.now {
            let error = timed_out(draft, record, operation);
            give_up(draft, record, &error.message);
            end = Some((OperationStatus::Failed, Some(error)));
        }
        match end {
            Some((status, error)) => conclude(draft, record, operation, status, error),
            None => {
                draft.look_again_at(deadline);
                let step = step(draft, record);
                if step != operation.progress.step {
                    draft.write(Write::Progress {
                        id: operation.id.clone(),
                        progress: Progress {
                            step,
                            ..operation.progress.clone()
                        },
                    });
                }
            }
        }
    }
}

fn conclude(
    draft: &mut Draft<'_>,
    record: &NamespaceRecord,
    operation: &OperationRecord,
    status: OperationStatus,
    error: Option<OperationError>,
) {
    let subject = format!("namespace {}", record.name);
    tell(draft, operation, &subject, status, error.as_ref());
    draft.write(Write::EndOperation {
        id: operation.id.clone(),
        status,
        error,
    });
}

/// The deletion of the namespace overtook an operation.
fn overtaken(record: &NamespaceRecord) -> OperationError {
    OperationError {
        code: OPERATION_PREEMPTED.to_owned(),
        message: format!(
            "The namespace '{}' is being deleted, which overtook this operation.",
            record.name
        ),
    }
}

/// How an operation ends now, if it does.
fn end(
    draft: &Draft<'_>,
    record: &NamespaceRecord,
    operation: &OperationRecord,
) -> Option<(OperationStatus, Option<OperationError>)> {
    if draft.desired.deleting {
        return Some((OperationStatus::Canceled, Some(preempted(draft))));
    }
    if operation.deletes {
        // It ends with the record.
        return None;
    }
    if record.deleting {
        return Some((OperationStatus::Canceled, Some(overtaken(record))));
    }
    let state = record.state(&draft.observed.namespaces);
    match state.filter(|state| state.wished >= operation.generation) {
        Some(NamespaceState { problem: None, .. }) => Some((OperationStatus::Succeeded, None)),
        Some(NamespaceState {
            problem: Some(why), ..
        }) => {
            let error = OperationError {
                code: NOT_ADOPTED.to_owned(),
                message: why.clone(),
            };
            Some((OperationStatus::Failed, Some(error)))
        }
        // It is written down, and counts from the start on.
        None if draft.desired.spec().stopped => Some((OperationStatus::Succeeded, None)),
        None => None,
    }
}

/// It has failed as far as its state says; the loop goes on trying.
fn give_up(draft: &mut Draft<'_>, record: &NamespaceRecord, why: &str) {
    let before = record.state(&draft.observed.namespaces);
    let state = NamespaceState {
        id: record.id.clone(),
        held: before.is_some_and(|before| before.held),
        wished: record.wished,
        problem: Some(why.to_owned()),
    };
    draft.observed.namespaces.insert(record.name.clone(), state);
}

/// What is going on, or what keeps it.
fn step(draft: &Draft<'_>, record: &NamespaceRecord) -> String {
    let seen = draft.seen;
    let name = &record.name;
    if seen.api.reach != Reach::Ready {
        return "waiting for the API server to answer".to_owned();
    }
    if let Some(held) = seen.held.get(&Subject::Namespace(name.clone())) {
        return format!("trying again: {}", messages::cut(&held.why, 300));
    }
    match seen.api.namespaces.get(name).map(|set| &set.seen) {
        Some(NamespaceSeen::Going(Some(why))) => {
            let why = messages::cut(why, 300);
            format!("waiting for the namespace {name} to be gone from the cluster: {why}")
        }
        Some(NamespaceSeen::Going(None)) => {
            format!("waiting for the namespace {name} to be gone from the cluster")
        }
        _ => format!("bringing the namespace {name} to what it is to be"),
    }
}

fn timed_out(draft: &Draft<'_>, record: &NamespaceRecord, operation: &OperationRecord) -> OperationError {
    let minutes = draft.policy.operation_bound.as_secs() / 60;
    OperationError {
        code: OPERATION_TIMED_OUT.to_owned(),
        message: format!(
            "{} of the namespace '{name}' of '{}' was not done within {minutes} minutes. It stopped at: {}. Next: kubectl describe \
             namespace {name}. Landfall goes on trying.",
            operation.name,
            draft.desired.name,
            step(draft, record),
            name = record.name,
        ),
    }
}
