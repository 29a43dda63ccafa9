//! `stop` and `start` of a cluster. Those of one pool are a property of it ([`crate::pools`]).
//!
//! Always true: a stopped cluster, or one on its way there, is not changed; it can be started, deleted, restored as a new one, and the
//! stop can be aborted. What is so already is done; what is under way is one operation, however often it is asked for.

use arm_kernel::Decision;
use arm_wire::{ArmError, ErrorCode};
use control_records::{ClusterRecord, ObservedRecord};
use serde_json::{Value, json};

use super::{
    Command, archive,
    draft::{Context, Draft, Name, advance, refuse_deleting},
    hooks::FeatureHooks,
    requests::Current,
};

pub(crate) const HOOKS: FeatureHooks = FeatureHooks {
    change: refuse_stopped,
    under_way: |operation| match operation {
        Stop::NAME | archive::ARCHIVE => Some("Stopping"),
        Start::NAME => Some("Starting"),
        _ => None,
    },
    show: |view, properties| {
        properties["powerState"] = power_state(is_stopped(view.record, view.observed));
    },
};

/// None of its machines is to run.
pub(crate) enum Stop {}

/// It is to run again.
pub(crate) enum Start {}

impl Command for Stop {
    const ACTION: &'static str = "stop";
    const NAME: &'static str = "ManagedClusters_Stop";

    fn decide(
        context: &Context<'_>,
        name: &Name<'_>,
        before: Current<'_>,
    ) -> Result<Decision<Draft>, ArmError> {
        turn(context, name, before, true, Self::NAME)
    }
}

impl Command for Start {
    const ACTION: &'static str = "start";
    const NAME: &'static str = "ManagedClusters_Start";

    fn decide(
        context: &Context<'_>,
        name: &Name<'_>,
        before: Current<'_>,
    ) -> Result<Decision<Draft>, ArmError> {
        turn(context, name, before, false, Self::NAME)
    }
}

fn turn(
    context: &Context<'_>,
    name: &Name<'_>,
    before: Current<'_>,
    stopped: bool,
    operation: &str,
) -> Result<Decision<Draft>, ArmError> {
    let present = before.record;
    refuse_deleting(present)?;
    if present.spec().stopped == stopped {
        if is_stopped(present, before.observed) == stopped {
            return Ok(Decision::Unchanged);
        }
        let mut running = before.running.iter().rev();
        if let Some(same) = running.find(|running| running.name == operation) {
            return Ok(Decision::InProgress(same.id.clone()));
        }
    }
    let restore = archive::restore(present);
    let state = present.state.with(|body, decided| {
        if !stopped {
            decided.archive = None;
            decided.restore = restore;
        }
        if let Some(properties) = body["properties"].as_object_mut() {
            if stopped {
                properties.insert("powerState".to_owned(), power_state(true));
            } else {
                properties.remove("powerState");
            }
        }
    });
    let state = state.map_err(ArmError::internal)?;
    advance(context, name, Some(present), state, operation, None).map(Decision::Write)
}

/// Whether none of the cluster's machines runs: it was to be stopped last, and a start since then has not ended. A start ends once
/// what it is about is there, which may be before all else of the cluster is.
pub(super) fn is_stopped(record: &ClusterRecord, observed: Option<&ObservedRecord>) -> bool {
    let to_stop = record.spec().stopped;
    if observed.is_some_and(|observed| observed.generation >= record.generation) {
        return to_stop;
    }
    let last = record.requests.reached.as_deref();
    let started = !to_stop && observed.is_none_or(|observed| !observed.stopped);
    last.is_some_and(|last| last.state.spec().stopped) && !started
}

pub(crate) fn power_state(stopped: bool) -> Value {
    json!({ "code": if stopped { "Stopped" } else { "Running" } })
}

fn refuse_stopped(record: &ClusterRecord) -> Result<(), ArmError> {
    if !record.spec().stopped {
        return Ok(());
    }
    if record.spec().archived {
        let message = format!(
            "The managed cluster '{0}' is archived: its control plane is in its backup. A start, or a PUT of the cluster such as an upgrade, \
             brings it back, for example 'az aks start --resource-group {1} --name {0}'.",
            record.name, record.resource_group
        );
        return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message));
    }
    let message = format!(
        "The managed cluster '{0}' is stopped, or on its way there: no operations except start, delete and abort are allowed. Start it \
         first, for example with 'az aks start --resource-group {1} --name {0}'.",
        record.name, record.resource_group
    );
    Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message))
}
