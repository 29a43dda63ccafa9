//! The small decisions about a cluster: tags, deletion, going back to an earlier state of its data. Pure.

use arm_kernel::Tags;
use arm_wire::{ArmError, ErrorCode};
use cluster_spec::RestoreSpec;
use control_records::{ClusterRecord, DesiredState};
use serde_json::json;

use super::{
    draft::{Context, Draft, Name, advance},
    hooks::refuse_change,
};

/// The operation name of a restore.
pub(crate) const RESTORE: &str = "Backups_Restore";

/// The tags that a cluster has.
pub(crate) fn tags_of(record: &ClusterRecord) -> Tags {
    let tags = record.body()["tags"].as_object().into_iter().flatten();
    let texts = tags.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    texts.collect()
}

/// Decides the replacement of a cluster's tags.
pub(crate) fn tags(
    context: &Context<'_>,
    name: &Name<'_>,
    present: &ClusterRecord,
    tags: Tags,
) -> Result<Draft, ArmError> {
    refuse_change(present)?;
    let tags = json!(tags);
    let state = present.state.with(|body, _| body["tags"] = tags);
    let state = state.map_err(ArmError::internal)?;
    advance(
        context,
        name,
        Some(present),
        state,
        "ManagedClusters_UpdateTags",
        None,
    )
}

/// Decides the deletion of an existing cluster that is not being deleted yet.
pub(crate) fn delete(
    context: &Context<'_>,
    name: &Name<'_>,
    present: &ClusterRecord,
) -> Result<Draft, ArmError> {
    let state = present.state.clone();
    let mut draft = advance(
        context,
        name,
        Some(present),
        state,
        "ManagedClusters_Delete",
        None,
    )?;
    draft
        .record
        .pool_generations
        .clone_from(&present.pool_generations);
    draft.record.deleting = true;
    draft.operation.deletes = true;
    Ok(draft)
}

/// Decides the return of a cluster's data to an earlier state, in place.
pub(crate) fn restore(
    context: &Context<'_>,
    name: &Name<'_>,
    present: &ClusterRecord,
    restore: &RestoreSpec,
) -> Result<Draft, ArmError> {
    if present.deleting {
        return Err(ArmError::new(
            ErrorCode::OPERATION_NOT_ALLOWED,
            "The cluster is being deleted; its backup can be restored as a new cluster: give its name with 'as'.",
        ));
    }
    refuse_change(present)?;
    let state = restored(&present.state, restore)?;
    advance(context, name, Some(present), state, RESTORE, None)
}

/// The state, with the data of a restore.
pub(crate) fn restored(state: &DesiredState, restore: &RestoreSpec) -> Result<DesiredState, ArmError> {
    let restored = state.with(|_, decided| decided.restore = Some(restore.clone()));
    restored.map_err(ArmError::internal)
}
