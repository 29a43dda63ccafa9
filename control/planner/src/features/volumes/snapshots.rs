//! Snapshots: from a VolumeSnapshot to a copy of its claim's disk or share at one moment, and back.
//!
//! | step | coming | going |
//! |---|---|---|
//! | 1 | the snapshot is recorded as a volume, with its VolumeSnapshotContent | the VolumeSnapshot is gone: the record is marked |
//! | 2 | the fabric makes the copy | the fabric removes it |
//! | 3 | the VolumeSnapshotContent is published | the VolumeSnapshotContent is removed |
//! | 4 | it was seen in the cluster: this is recorded, and the VolumeSnapshot's status is set | the record is removed |
//!
//! Always true: as for volumes. A snapshot is never attached; other volumes are made as copies of it.

use cluster_api::{ClaimRef, Note, VolumeWish};
use cluster_volumes::{
    Snapshot, SnapshotContent, SnapshotRecipe, SnapshotStage, Storage, content_status, id,
    share_snapshot_handle, snapshot_content, snapshot_handle,
};
use control_records::volume::VolumeRecord;
use jiff::Timestamp;

use super::{claims, is_copied, is_gone, objects::Objects, removal};
use crate::{ApiEffect, Draft, FabricEffect, NewVolume, Observation, Subject, VolumeThere, Write};

/// Nanoseconds per second.
const NANOSECONDS: i64 = 1_000_000_000;

/// Whether snapshots are taken and removed.
pub(super) fn on(draft: &Draft<'_>) -> bool {
    !draft.desired.spec().snapshots_off
}

/// The VolumeSnapshotContent of a record.
fn content<'s>(storage: &'s Storage, record: &VolumeRecord) -> Option<&'s SnapshotContent> {
    let mut contents = storage.contents.iter();
    contents.find(|content| content.id.as_ref() == Some(&record.id))
}

/// The next write about a snapshot.
pub(super) fn conclusion(seen: &Observation, storage: &Storage, record: &VolumeRecord) -> Option<Write> {
    let id = || record.id.clone();
    let content = content(storage, record);
    if record.deleting {
        return (is_gone(seen, record) && content.is_none()).then(|| Write::ForgetVolume(id()));
    }
    let Some(content) = content else {
        // Its VolumeSnapshot is gone before the copy was published, which may never succeed.
        let mut snapshots = storage.snapshots.iter();
        let wanted = snapshots.any(|snapshot| snapshot.snapshot.uid == record.claim && !snapshot.deleting);
        let unknown = record.published || !storage.knows_snapshots;
        let given_up = !unknown && !wanted && !is_copied(seen, record);
        return given_up.then(|| Write::MarkVolume(id()));
    };
    if !record.published {
        return content.ready.then(|| Write::VolumePublished(id()));
    }
    (content.deletes && content.orphaned && !is_copied(seen, record)).then(|| Write::MarkVolume(id()))
}

/// The waiting VolumeSnapshots, each with the snapshot to take, or the reason that none is taken.
pub(super) fn assign<'s>(
    draft: &Draft<'_>,
    storage: &'s Storage,
    objects: &Objects<'_>,
) -> Vec<(&'s Snapshot, Result<NewVolume, String>)> {
    let seen = draft.seen;
    let mut count = seen.volumes.len();
    let mut assigned = Vec::new();
    for snapshot in storage.snapshots.iter().filter(|_| on(draft)) {
        let SnapshotStage::Wanted(recipe) = &snapshot.stage else {
            continue;
        };
        let id = id(&draft.desired.uid, &snapshot.content);
        let recorded = seen.volumes.iter().any(|record| record.id == id);
        let mut contents = storage.contents.iter();
        let there = contents.any(|content| content.name == snapshot.content);
        if snapshot.deleting || recorded || there {
            continue;
        }
        let new = if count < claims::MOST {
            new(draft, objects, snapshot, recipe, id)
        } else {
            Err(format!(
                "The cluster has {} volumes and snapshots, and may have no more; delete one.",
                claims::MOST
            ))
        };
        count += usize::from(new.is_ok());
        assigned.push((snapshot, new));
    }
    assigned
}

fn new(
    draft: &Draft<'_>,
    objects: &Objects<'_>,
    snapshot: &Snapshot,
    recipe: &SnapshotRecipe,
    id: String,
) -> Result<NewVolume, String> {
    let source = claims::source_record(draft, objects, &recipe.volume).ok_or_else(|| {
        format!(
            "spec.source: the volume {} is not there any more, or is about to go; name another claim.",
            recipe.volume
        )
    })?;
    let there = draft.seen.volumes_there.as_ref();
    let found = there.and_then(|there| there.get(&source.id));
    Ok(NewVolume {
        name: snapshot.content.clone(),
        claim: snapshot.snapshot.clone(),
        // The disk may be larger than recorded.
        bytes: found.map_or(source.bytes, |found| found.bytes.max(source.bytes)),
        sku: source.sku.clone(),
        shared: recipe.shared,
        snapshot: true,
        source: Some(source.id.clone()),
        disk: None,
        object: snapshot_content(snapshot, recipe, &id).to_string(),
        id,
    })
}

/// Snapshots of the cluster in the fabric without a record, as for volumes.
pub(super) fn found_again(draft: &Draft<'_>, storage: &Storage) -> Vec<NewVolume> {
    let there = draft.seen.volumes_there.as_ref();
    let contents = storage.contents.iter().filter(|_| on(draft));
    let found = contents.filter_map(|content| {
        let id = id(&draft.desired.uid, &content.name);
        let own = content.id.as_ref() == Some(&id);
        let recorded = draft.seen.volumes.iter().any(|record| record.id == id);
        let found = there?.get(&id).filter(|_| own && !recorded)?;
        let uid = content.snapshot.clone().unwrap_or_default();
        let mut snapshots = storage.snapshots.iter();
        let snapshot = snapshots.find(|snapshot| snapshot.snapshot.uid == uid);
        Some(NewVolume {
            id,
            name: content.name.clone(),
            claim: snapshot.map_or_else(
                || ClaimRef {
                    namespace: String::new(),
                    name: String::new(),
                    uid,
                },
                |snapshot| snapshot.snapshot.clone(),
            ),
            bytes: found.bytes,
            sku: String::new(),
            shared: content.shared,
            snapshot: true,
            source: None,
            disk: None,
            object: String::new(),
        })
    });
    found.collect()
}

/// Tells VolumeSnapshots why they are refused, once each.
pub(super) fn tell(draft: &mut Draft<'_>, storage: &Storage, objects: &Objects<'_>) {
    if !on(draft) {
        return;
    }
    let refused = storage
        .snapshots
        .iter()
        .filter_map(|snapshot| match &snapshot.stage {
            SnapshotStage::Refused(why) if !snapshot.deleting => Some((snapshot, why.clone())),
            _ => None,
        });
    let assigned = assign(draft, storage, objects).into_iter();
    let refused = refused.chain(assigned.filter_map(|(snapshot, new)| Some((snapshot, new.err()?))));
    for (snapshot, why) in refused.collect::<Vec<_>>() {
        tell_one(draft, &snapshot.snapshot, why);
    }
}

fn tell_one(draft: &mut Draft<'_>, snapshot: &ClaimRef, why: String) {
    if draft.seen.api.told.get(&snapshot.uid) != Some(&why) {
        draft.act_quietly(ApiEffect::SetVolume(VolumeWish::TellSnapshot {
            snapshot: snapshot.clone(),
            note: Note {
                warning: true,
                reason: "SnapshotContentCreationFailed",
                message: why,
            },
        }));
    }
}

/// Keeps a snapshot; `found`: its state in the fabric.
pub(super) fn keep(
    draft: &mut Draft<'_>,
    storage: &Storage,
    record: &VolumeRecord,
    found: Option<&VolumeThere>,
) {
    let seen = draft.seen;
    let whole = found.is_some_and(|found| found.bytes >= record.bytes);
    if !whole {
        if !record.published {
            draft.act_quietly(FabricEffect::EnsureVolume {
                volume: record.id.clone(),
                bytes: record.bytes,
                source: record.source.clone(),
                shared: false,
            });
            // A disk that is used as a device, or whose copy takes too long, waits until its pods have ended.
            let held = seen.held.get(&Subject::Volume(record.id.clone()));
            let mut snapshots = storage.snapshots.iter();
            let waiting = snapshots.find(|snapshot| {
                let wanted = matches!(snapshot.stage, SnapshotStage::Wanted(_));
                wanted && snapshot.snapshot.uid == record.claim
            });
            if let (Some(held), Some(waiting)) = (held.filter(|held| held.attempts > 1), waiting) {
                tell_one(draft, &waiting.snapshot, held.why.clone());
            }
        }
        return;
    }
    let Some(content) = content(storage, record) else {
        publish(draft, record);
        return;
    };
    if !content.deletes && content.deleting && content.orphaned {
        remove_content(draft, content);
        return;
    }
    if !content.ready {
        publish(draft, record);
        return;
    }
    let mut snapshots = storage.snapshots.iter();
    let snapshot = snapshots.find(|snapshot| content.snapshot.as_ref() == Some(&snapshot.snapshot.uid));
    if let Some(snapshot) = snapshot.filter(|snapshot| !snapshot.ready && !snapshot.deleting) {
        let at = content.created.and_then(|created| {
            let seconds = created.div_euclid(NANOSECONDS);
            Timestamp::from_second(seconds).ok()
        });
        draft.act_quietly(ApiEffect::SetVolume(VolumeWish::Taken {
            snapshot: snapshot.snapshot.clone(),
            content: content.name.clone(),
            bytes: record.bytes,
            at: at.map(|at| at.to_string()),
        }));
    }
}

/// Publishes the VolumeSnapshotContent of an existing snapshot, with its status.
fn publish(draft: &mut Draft<'_>, record: &VolumeRecord) {
    if draft.seen.api.published.contains(&record.name) {
        return;
    }
    let Ok(mut object) = serde_json::from_str::<serde_json::Value>(&record.object) else {
        // It was recorded again after its VolumeSnapshotContent was found.
        return;
    };
    let desired = draft.desired;
    let group = &desired.spec().node_resource_group;
    let handle = if record.shared {
        share_snapshot_handle(group, &record.claim)
    } else {
        snapshot_handle(&desired.subscription, group, &record.claim)
    };
    let now = i64::try_from(draft.now.as_nanosecond()).unwrap_or(i64::MAX);
    object["status"] = content_status(&handle, record.bytes, now);
    draft.act_quietly(ApiEffect::SetVolume(VolumeWish::PublishContent {
        name: record.name.clone(),
        object: object.to_string(),
    }));
}

fn remove_content(draft: &mut Draft<'_>, content: &SnapshotContent) {
    draft.act_quietly(ApiEffect::SetVolume(VolumeWish::RemoveContent {
        name: content.name.clone(),
        uid: content.uid.clone(),
    }));
}

/// Removes a snapshot.
pub(super) fn remove(
    draft: &mut Draft<'_>,
    storage: &Storage,
    record: &VolumeRecord,
    found: Option<&VolumeThere>,
) {
    match (found, content(storage, record)) {
        (Some(found), _) => draft.act_quietly(removal(record, found)),
        (None, Some(content)) => remove_content(draft, content),
        (None, None) => {}
    }
}

/// Removes orphaned VolumeSnapshotContents of snapshots that do not exist here, as for volumes: no other controller
/// would remove their finalizer.
pub(super) fn strangers(draft: &mut Draft<'_>, storage: &Storage, found: impl Fn(&str) -> bool) {
    let seen = draft.seen;
    let uid = draft.desired.uid.clone();
    let contents = storage.contents.iter().filter(|content| {
        let known = |name: &String| seen.volumes.iter().any(|record| record.id == *name);
        let strange = content.id.as_ref().is_some_and(|id| !known(id));
        strange
            && !found(&id(&uid, &content.name))
            && content.orphaned
            && (content.deletes || content.deleting)
    });
    for content in contents {
        remove_content(draft, content);
    }
}
