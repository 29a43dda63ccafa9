//! Volumes of PersistentVolumeClaims: from a claim to a disk that a node has, and back.
//!
//! | step | coming | going |
//! |---|---|---|
//! | 1 | the volume is written down, with its PersistentVolume | the PersistentVolume is released: the record is marked |
//! | 2 | the fabric makes the volume | the fabric takes it from whoever has it, and removes it |
//! | 3 | the PersistentVolume is published | the PersistentVolume is removed |
//! | 4 | it was seen in the cluster: the record says so | the record goes |
//!
//! The machine of a volume meanwhile follows from VolumeAttachments: [`attachments`]. Snapshots are volumes that are never attached:
//! [`snapshots`]. Disks that tenants made are taken and given back: [`disks`].
//!
//! Always true: a volume is removed only where its PersistentVolume was seen to be given up, or with its cluster; a record goes only once
//! neither the fabric nor the cluster has anything of it, nor may get it by what is under way; a volume that was published is never made
//! anew, and a PersistentVolume that is missing is no sign that its volume is to go: the cluster may be one of an earlier time. Claims are
//! their tenants': whether a cluster is what it is to be does not depend on them, so nothing here is a check.

mod attachments;
mod claims;
mod disks;
mod objects;
mod snapshots;

use std::{collections::BTreeMap, time::Duration};

use cluster_api::VolumeWish;
use cluster_volumes::{Storage, id};
use control_records::{EventKind, volume::VolumeRecord};

use crate::{
    ApiEffect, Draft, FabricEffect, Observation, Reach, Subject, VolumeThere, Write, feature::Feature,
};

use objects::Objects;

/// A disk that the cluster does not get is looked at again after this.
const RETRY: Duration = Duration::from_secs(10);

pub(crate) const FEATURE: Feature = Feature {
    record,
    act,
    observe,
    ..Feature::named("volumes")
};

fn record(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    let Some(storage) = known(draft) else {
        return;
    };
    let objects = Objects::of(draft, storage);
    let mut left = seen.volumes.len();
    for record in served(draft) {
        let write = if record.disk.is_some() {
            disks::conclusion(seen, &objects, record)
        } else if record.snapshot {
            snapshots::conclusion(seen, storage, record)
        } else {
            conclusion(seen, &objects, record)
        };
        let Some(write) = write else {
            continue;
        };
        if draft.has_room(2) {
            left -= usize::from(matches!(write, Write::ForgetVolume(_)));
            draft.write(write);
        }
    }
    let assigned = claims::assign(draft, storage, &objects).into_iter();
    let new = assigned.filter_map(|(_, volume)| volume.ok());
    let taken = snapshots::assign(draft, storage, &objects).into_iter();
    let taken = taken.filter_map(|(_, snapshot)| snapshot.ok());
    let given = disks::assign(draft, storage, &objects).into_iter();
    let given = given.filter_map(|(_, disk)| disk.ok());
    let again = claims::found_again(draft, &objects).into_iter();
    let again = again.chain(snapshots::found_again(draft, storage));
    for volume in new.chain(taken).chain(given).chain(again) {
        if !draft.has_room(2) {
            break;
        }
        draft.write(Write::RecordVolume(volume));
        left += 1;
    }
    draft.observed.volumes = left > 0;
}

/// The cluster's volume objects, while it answers and one of the drivers or snapshots are on.
fn known<'a>(draft: &Draft<'a>) -> Option<&'a Storage> {
    let seen = draft.seen;
    let storage = seen.api.storage.as_ref();
    let on = serves(draft, false) || serves(draft, true) || snapshots::on(draft);
    storage.filter(|_| seen.api.reach == Reach::Ready && on)
}

/// Whether the driver of shares, or of disks, is on.
fn serves(draft: &Draft<'_>, shared: bool) -> bool {
    let spec = draft.desired.spec();
    if shared { !spec.files_off } else { !spec.disks_off }
}

/// The records of volumes whose driver is on.
fn served<'a>(draft: &Draft<'a>) -> Vec<&'a VolumeRecord> {
    let seen = draft.seen;
    let records = seen.volumes.iter().map(|record| &**record);
    let on = |record: &&VolumeRecord| {
        if record.snapshot {
            snapshots::on(draft)
        } else {
            serves(draft, record.shared)
        }
    };
    records.filter(on).collect()
}

/// What is to be written of a volume next.
fn conclusion(seen: &Observation, objects: &Objects<'_>, record: &VolumeRecord) -> Option<Write> {
    let id = || record.id.clone();
    let volumes = objects.volumes(record);
    if record.deleting {
        return (is_gone(seen, record) && volumes.is_empty()).then(|| Write::ForgetVolume(id()));
    }
    if !record.published {
        if volumes.is_empty() && is_in_vain(seen, objects, record) {
            return Some(Write::MarkVolume(id()));
        }
        return (!volumes.is_empty()).then(|| Write::VolumePublished(id()));
    }
    if is_given_up(seen, objects, record) {
        return Some(Write::MarkVolume(id()));
    }
    let asked = claims::asked(objects, record);
    (asked > record.bytes).then(|| Write::GrowVolume {
        volume: id(),
        bytes: asked,
    })
}

/// Whether a volume is to go: its PersistentVolume is given up, no node has it, and no other one is still to be copied from it.
fn is_given_up(seen: &Observation, objects: &Objects<'_>, record: &VolumeRecord) -> bool {
    let volumes = objects.volumes(record);
    !volumes.is_empty()
        && volumes.iter().all(|volume| objects.is_given_up(volume))
        && objects.attachments(record).is_empty()
        && !is_copied(seen, record)
}

/// Whether the creation of a copy has failed, and its claim is gone.
fn is_in_vain(seen: &Observation, objects: &Objects<'_>, record: &VolumeRecord) -> bool {
    record.source.is_some()
        && seen.held.contains_key(&Subject::Volume(record.id.clone()))
        && !is_there(seen, record)
        && objects.claim(&record.claim).is_none()
        && !is_copied(seen, record)
}

/// Whether another volume must still be copied from this one.
fn is_copied(seen: &Observation, record: &VolumeRecord) -> bool {
    seen.volumes
        .iter()
        .any(|other| other.source.as_ref() == Some(&record.id) && !other.published && !is_there(seen, other))
}

/// Whether the fabric is known to have a volume, as a whole.
fn is_there(seen: &Observation, record: &VolumeRecord) -> bool {
    let there = seen.volumes_there.as_ref();
    let found = there.and_then(|there| there.get(&record.id));
    found.is_some_and(VolumeThere::is_whole)
}

/// Whether the fabric is known not to have a volume, and nothing is under way that may make it.
fn is_gone(seen: &Observation, record: &VolumeRecord) -> bool {
    let there = seen.volumes_there.as_ref();
    there.is_some_and(|there| !there.contains_key(&record.id))
        && !seen.busy.contains(&Subject::Volume(record.id.clone()))
}

fn act(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    let Some(storage) = known(draft) else {
        return;
    };
    let objects = Objects::of(draft, storage);
    claims::tell(draft, storage, &objects);
    disks::tell(draft, storage, &objects);
    snapshots::tell(draft, storage, &objects);
    // Where volumes are written down and it is not known, machines and volumes are about to be looked for.
    let Some(there) = &seen.volumes_there else {
        return;
    };
    for record in served(draft) {
        let found = there.get(&record.id);
        if record.disk.is_some() {
            disks::keep(draft, &objects, record, found);
            continue;
        }
        match (record.snapshot, record.deleting) {
            (true, true) => snapshots::remove(draft, storage, record, found),
            (true, false) => snapshots::keep(draft, storage, record, found),
            (false, true) => remove(draft, &objects, record, found),
            (false, false) => keep(draft, &objects, record, found),
        }
    }
    strangers(draft, &objects, there);
    if snapshots::on(draft) {
        snapshots::strangers(draft, storage, |id| there.contains_key(id));
    }
}

/// A volume that is to stay; `found`: what the fabric has of it.
fn keep(draft: &mut Draft<'_>, objects: &Objects<'_>, record: &VolumeRecord, found: Option<&VolumeThere>) {
    // First: of one volume one thing is done at a time, and a volume that cannot grow serves all the same.
    attachments::serve(draft, objects, record, found);
    // One that was published and is gone is told of. An empty one in its place would be taken for what was on it.
    let to_make = match found {
        // After a reboot of the host, no machine finds a share until it is ensured again.
        Some(found) => found.bytes < record.bytes || record.shared && !found.open,
        None => !record.published,
    };
    if to_make {
        draft.act_quietly(FabricEffect::EnsureVolume {
            volume: record.id.clone(),
            bytes: record.bytes,
            source: record.source.clone(),
            shared: record.shared,
        });
        claims::tell_of_copy(draft, objects, record);
    }
    if let Some(found) = found {
        claims::show(draft, objects, record, found);
    }
}

/// A volume that is to go.
fn remove(draft: &mut Draft<'_>, objects: &Objects<'_>, record: &VolumeRecord, found: Option<&VolumeThere>) {
    let has = found.and_then(|found| found.attached.as_deref());
    attachments::let_go(draft, objects, record, has);
    match found {
        Some(found) => draft.act_quietly(removal(record, found)),
        None => {
            for volume in objects.volumes(record) {
                draft.act_quietly(ApiEffect::SetVolume(VolumeWish::Remove {
                    name: volume.name.clone(),
                    uid: volume.uid.clone(),
                }));
            }
        }
    }
}

fn removal(record: &VolumeRecord, found: &VolumeThere) -> FabricEffect {
    match found.attached {
        Some(_) => FabricEffect::DetachVolume(record.id.clone()),
        None => FabricEffect::DeleteVolume(record.id.clone()),
    }
}

/// Objects that name volumes which are not the cluster's: they came with another cluster's backup, or what they stood for went after the
/// cluster's own. Nobody else would ever let go of them.
fn strangers(draft: &mut Draft<'_>, objects: &Objects<'_>, there: &BTreeMap<String, VolumeThere>) {
    let uid = &draft.desired.uid;
    // These are about to be written down again.
    let strange = |name: &str| !there.contains_key(&id(uid, name));
    let volumes = objects.strange_volumes.iter().copied();
    let volumes: Vec<_> = volumes
        .filter(|volume| strange(&volume.name) && serves(draft, volume.shared))
        .collect();
    let attachments = objects.strange_attachments.iter().copied();
    let attachments: Vec<_> = attachments
        .filter(|attachment| strange(&attachment.volume))
        .collect();
    let serves_disks = serves(draft, false);
    let going = attachments.iter().filter(|attachment| attachment.deleting);
    for attachment in going.filter(|_| serves_disks) {
        attachments::detached(draft, attachment);
    }
    for volume in volumes {
        let attached = attachments
            .iter()
            .any(|attachment| attachment.volume == volume.name);
        if !attached && (objects.is_given_up(volume) || objects.goes_alone(volume)) {
            draft.act_quietly(ApiEffect::SetVolume(VolumeWish::Remove {
                name: volume.name.clone(),
                uid: volume.uid.clone(),
            }));
        }
    }
}

/// Tells, once each, that a volume is lost, and that this is over.
fn observe(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    let known = |id: &String| seen.volumes.iter().any(|record| record.id == *id);
    draft.observed.lost_volumes.retain(|id, _| known(id));
    if seen.volumes_there.is_none() {
        return;
    }
    for record in &seen.volumes {
        // Whether a tenant's disk is there is told by itself.
        let lost = record.published && !record.deleting && is_gone(seen, record);
        let told = draft.observed.lost_volumes.contains_key(&record.id);
        if lost == told || !draft.has_room(1) {
            continue;
        }
        let subject = format!("the volume {}", record.name);
        if lost {
            let kind = if record.snapshot {
                "VolumeSnapshot"
            } else {
                "claim"
            };
            let why = format!(
                "it is not there any more, and what was on it is lost: delete the {kind} {}/{}, and make another one from what was saved \
                 elsewhere",
                record.claim_namespace, record.claim_name
            );
            draft
                .observed
                .lost_volumes
                .insert(record.id.clone(), format!("{subject}: {why}"));
            draft.tell(EventKind::ProblemBegan, subject, why);
        } else {
            draft.observed.lost_volumes.remove(&record.id);
            let why = if record.deleting {
                "it is to go"
            } else {
                "it is there again"
            };
            draft.tell(EventKind::ProblemEnded, subject, why);
        }
    }
}

/// Removes the volumes of a cluster of which nothing is left. Whether there were any.
pub(crate) fn remove_all(draft: &mut Draft<'_>) -> bool {
    let seen = draft.seen;
    draft.observed.lost_volumes.clear();
    draft.observed.volumes = !seen.volumes.is_empty();
    if seen.volumes.is_empty() {
        return false;
    }
    draft.wait("removing volumes");
    let Some(there) = &seen.volumes_there else {
        draft.act_quietly(FabricEffect::Look);
        return true;
    };
    let mut left = seen.volumes.len();
    for record in &seen.volumes {
        if record.disk.is_some() {
            let write = disks::give_back(draft, record, there.get(&record.id));
            if let Some(write) = write.filter(|_| draft.has_room(3)) {
                draft.write(write);
                left -= 1;
            }
            continue;
        }
        if !record.deleting && !draft.desired.deleting {
            // Written down first: the next request may come while some of them are gone.
            if draft.has_room(2) {
                draft.write(Write::MarkVolume(record.id.clone()));
            }
            continue;
        }
        match there.get(&record.id) {
            Some(found) => draft.act_quietly(removal(record, found)),
            None if is_gone(seen, record) && draft.has_room(2) => {
                draft.write(Write::ForgetVolume(record.id.clone()));
                left -= 1;
            }
            None => {}
        }
    }
    draft.observed.volumes = left > 0;
    true
}
