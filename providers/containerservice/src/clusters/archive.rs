//! An archived control plane: a stopped cluster whose state is in its backup alone. Pure.
//!
//! | | |
//! |---|---|
//! | [`ask`] | it is stopped, as `stop` does it; that it is to be archived is written down with it |
//! | [`verified`] | it is stopped and its backup was verified: disks of the control plane may go (`control/planner`, feature `power`) |
//! | [`restore`] | what a start or a PUT asks for with it: the newest state of the backup |
//!
//! Always true: no disk goes before the backup that takes its place was verified, with the cluster stopped; whoever starts it before that takes
//! the archive back, and nothing is lost.

use arm_kernel::Decision;
use arm_wire::{ArmError, ErrorCode};
use cluster_spec::RestoreSpec;
use control_records::{Archive, ClusterRecord};
use jiff::Timestamp;

use super::{
    draft::{Context, Draft, Name, advance, refuse_deleting},
    hooks::refuse_change,
    power,
    requests::Current,
};

pub(crate) const ARCHIVE: &str = "ManagedClusters_Archive";
/// What restores of archived clusters are called.
const RESTORE: &str = "archive-";

/// Refuses a PUT where the cluster may not be changed. One that is archived may be: that brings it back.
pub(crate) fn refuse_put(present: &ClusterRecord) -> Result<(), ArmError> {
    if present.spec().archived {
        return refuse_deleting(present);
    }
    refuse_change(present)
}

/// The restore that a cluster's state is to come from once it runs: of one that is archived, the newest state of its backup.
pub(crate) fn restore(present: &ClusterRecord) -> Option<RestoreSpec> {
    let decided = present.state.decided();
    let verified = decided.archive.as_ref().and_then(|archive| archive.verified);
    match verified.filter(|_| present.spec().archived) {
        Some(verified) => Some(RestoreSpec {
            id: format!("{RESTORE}{verified}"),
            at: None,
            source: present.uid.clone(),
        }),
        None => decided.restore.clone(),
    }
}

/// Whether a restore, by its id, brought a cluster back from its archive.
pub(crate) fn brings_back(restore: &str) -> bool {
    restore.starts_with(RESTORE)
}

/// Since when a cluster is stopped. What is written about it meanwhile, to archive it, does not count.
pub(crate) fn stopped(record: &ClusterRecord) -> Option<Timestamp> {
    if !record.spec().stopped {
        return None;
    }
    match &record.state.decided().archive {
        Some(archive) => archive.stopped,
        // Nothing of a stopped cluster is changed: its last change is the stop.
        None => Some(record.modified_at),
    }
}

/// Since when a cluster is archived.
pub(crate) fn archived(record: &ClusterRecord) -> Option<Timestamp> {
    let archive = record.state.decided().archive.as_ref();
    let verified = archive.filter(|_| record.spec().archived)?.verified?;
    Timestamp::from_millisecond(verified).ok()
}

/// The archive that a cluster is asked for and that its backup was not verified for yet.
pub(crate) fn pending(record: &ClusterRecord) -> Option<&Archive> {
    let archive = record.state.decided().archive.as_ref()?;
    (record.spec().stopped && archive.verified.is_none()).then_some(archive)
}

/// Decides that a cluster is to be archived, by a rule or by whoever asks: it is stopped first.
pub(crate) fn ask(
    context: &Context<'_>,
    name: &Name<'_>,
    before: Current<'_>,
    rule: &str,
) -> Result<Decision<Draft>, ArmError> {
    let present = before.record;
    refuse_deleting(present)?;
    if present.requests.halted {
        let message = format!(
            "The creation of the cluster '{}' was aborted: there is nothing to archive. Delete it, or make it with another PUT.",
            present.name
        );
        return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message));
    }
    if present.spec().stopped && present.state.decided().archive.is_some() {
        let mut running = before.running.iter().rev();
        let same = running.find(|running| running.name == ARCHIVE);
        return Ok(same.map_or(Decision::Unchanged, |same| Decision::InProgress(same.id.clone())));
    }
    let archive = Archive {
        rule: rule.to_owned(),
        since: context.now.as_millisecond(),
        stopped: stopped(present),
        verified: None,
    };
    let state = present.state.with(|body, decided| {
        decided.archive = Some(archive);
        if let Some(properties) = body["properties"].as_object_mut() {
            properties.insert("powerState".to_owned(), power::power_state(true));
        }
    });
    let state = state.map_err(ArmError::internal)?;
    advance(context, name, Some(present), state, ARCHIVE, None).map(Decision::Write)
}

/// Decides that disks of the control plane of a cluster may go, for its backup was just verified.
pub(crate) fn verified(
    context: &Context<'_>,
    name: &Name<'_>,
    before: Current<'_>,
) -> Result<Decision<Draft>, ArmError> {
    let present = before.record;
    refuse_deleting(present)?;
    let reached = before
        .observed
        .is_some_and(|observed| observed.generation >= present.generation);
    // Somebody has started it meanwhile, or it is done.
    if pending(present).is_none() || !reached {
        return Ok(Decision::Unchanged);
    }
    let at = context.now.as_millisecond();
    let state = present.state.with(|_, decided| {
        if let Some(archive) = &mut decided.archive {
            archive.verified = Some(at);
        }
    });
    let state = state.map_err(ArmError::internal)?;
    advance(context, name, Some(present), state, ARCHIVE, None).map(Decision::Write)
}
