//! Disks that tenants made, for PersistentVolumes that name them: from a VolumeAttachment to the node, and back.
//!
//! | step | coming | going |
//! |---|---|---|
//! | 1 | the disk is taken: its record names the cluster, which gets a record of it among its volumes | the fabric takes it from the machine |
//! | 2 | the fabric gives it to the machine | the VolumeAttachment is let go |
//! | 3 | the VolumeAttachment tells so | once none is left, the disk is given back: its record names nobody, and the cluster's goes |
//!
//! Always true: nothing of a tenant's disk is made, grown or removed for a cluster; a disk is given back only once no machine has it, nor may
//! get it by what is under way, so that two clusters never have it at the same time.

use cluster_api::{ClaimRef, VolumeWish};
use cluster_volumes::{Attachment, Stage, Storage};
use control_records::volume::VolumeRecord;

use super::{
    attachments,
    claims::{self, GIB, MOST},
    objects::Objects,
    serves,
};
use crate::{ApiEffect, Draft, FabricEffect, NewVolume, Observation, Subject, VolumeThere, Write};

/// The VolumeAttachments that wait for a disk which the cluster does not have yet, each with the disk to take, or why the cluster does not get
/// it.
pub(super) fn assign<'s>(
    draft: &Draft<'_>,
    storage: &'s Storage,
    objects: &Objects<'_>,
) -> Vec<(&'s Attachment, Result<NewVolume, String>)> {
    let seen = draft.seen;
    if !serves(draft, false) {
        return Vec::new();
    }
    let mut count = seen.volumes.len();
    let mut assigned: Vec<(&Attachment, Result<NewVolume, String>)> = Vec::new();
    let waiting = storage.attachments.iter();
    for attachment in waiting.filter(|attachment| !attachment.deleting) {
        if objects.record(&attachment.volume).is_some() {
            continue;
        }
        let mut volumes = storage.volumes.iter();
        let volume = volumes.find(|volume| volume.name == attachment.volume && !volume.deleting);
        let Some(disk) = volume.and_then(|volume| volume.disk.as_ref()) else {
            continue;
        };
        // Where nothing is known of it, it is about to be looked for.
        let Some(found) = seen.disks.get(disk) else {
            continue;
        };
        let new = match found {
            Ok(_) if count >= MOST => Err(format!(
                "The cluster has {MOST} volumes, and may have no more; delete a PersistentVolumeClaim."
            )),
            Ok(found) => Ok(NewVolume {
                id: found.volume.clone(),
                name: attachment.volume.clone(),
                claim: ClaimRef {
                    namespace: String::new(),
                    name: String::new(),
                    uid: String::new(),
                },
                bytes: found.bytes,
                sku: found.sku.clone(),
                shared: false,
                snapshot: false,
                source: None,
                disk: Some(found.key.clone()),
                object: String::new(),
            }),
            Err(why) => Err(why.clone()),
        };
        // Two PersistentVolumes may name one disk.
        let same = |other: &NewVolume| new.as_ref().is_ok_and(|new| new.id == other.id);
        let mut others = assigned.iter();
        if others.any(|(_, other)| other.as_ref().is_ok_and(same)) {
            continue;
        }
        count += usize::from(new.is_ok());
        assigned.push((attachment, new));
    }
    assigned
}

/// Tells, once each, why a disk is not attached: the pods that wait for it show it.
pub(super) fn tell(draft: &mut Draft<'_>, storage: &Storage, objects: &Objects<'_>) {
    for (attachment, new) in assign(draft, storage, objects) {
        let Err(why) = new else { continue };
        if attachment.failure.as_ref() != Some(&why) {
            attachments::set(draft, attachment, |name, uid| VolumeWish::AttachFailed {
                name,
                uid,
                why,
            });
        }
        // Whoever changes the disk, or the roles, knows nothing of who waits for it.
        draft.look_again_at(draft.after(draft.now, super::RETRY));
    }
}

/// Whether a disk is to be given back.
pub(super) fn conclusion(seen: &Observation, objects: &Objects<'_>, record: &VolumeRecord) -> Option<Write> {
    let left = objects.attachments(record).is_empty() && is_free(seen, record);
    left.then(|| Write::ForgetVolume(record.id.clone()))
}

/// Whether no machine has a disk, and nothing is under way that may give it to one.
fn is_free(seen: &Observation, record: &VolumeRecord) -> bool {
    let there = seen.volumes_there.as_ref();
    let free = there.is_some_and(|there| {
        let found = there.get(&record.id);
        found.is_none_or(|found| found.attached.is_none())
    });
    free && !seen.busy.contains(&Subject::Volume(record.id.clone()))
}

/// A disk that the cluster has; `found`: what the fabric has of it.
pub(super) fn keep(
    draft: &mut Draft<'_>,
    objects: &Objects<'_>,
    record: &VolumeRecord,
    found: Option<&VolumeThere>,
) {
    attachments::serve(draft, objects, record, found);
    let has = found.and_then(|found| found.attached.as_ref());
    // Their owners may want it elsewhere, so that it does not stay with a machine as volumes of claims do.
    if has.is_some() && objects.attachments(record).is_empty() {
        draft.act_quietly(FabricEffect::DetachVolume(record.id.clone()));
    }
    let bytes = found.map_or(0, |found| found.bytes);
    for volume in objects.volumes(record).iter().filter(|volume| !volume.deleting) {
        let claim = volume.claim.as_deref().and_then(|uid| objects.claim(uid));
        let claim = claim.filter(|claim| claim.stage == Stage::Bound && claim.volume == volume.name);
        let Some(claim) = claim.filter(|claim| claim.bytes > volume.bytes) else {
            continue;
        };
        if claim.bytes <= bytes {
            draft.act_quietly(ApiEffect::SetVolume(VolumeWish::Grown {
                name: volume.name.clone(),
                uid: volume.uid.clone(),
                bytes: claim.bytes,
                claim: Some(claim.claim.clone()),
            }));
        } else {
            let why = format!(
                "spec.resources.requests.storage: the disk of {} has {} GiB and is not the cluster's to change; make it larger first: az disk \
                 update --size-gb {}",
                volume.name,
                bytes / GIB,
                claim.bytes.div_ceil(GIB)
            );
            claims::tell_one(draft, claim, "VolumeResizeFailed", why);
        }
    }
}

/// Gives a disk back whose cluster goes. `None`: it still has it.
pub(super) fn give_back(
    draft: &mut Draft<'_>,
    record: &VolumeRecord,
    found: Option<&VolumeThere>,
) -> Option<Write> {
    if found.is_some_and(|found| found.attached.is_some()) {
        draft.act_quietly(FabricEffect::DetachVolume(record.id.clone()));
        return None;
    }
    is_free(draft.seen, record).then(|| Write::ForgetVolume(record.id.clone()))
}
