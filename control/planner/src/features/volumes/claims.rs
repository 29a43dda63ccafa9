//! What claims ask for: which of them get a volume, like what, and what becomes of their PersistentVolumes.

use cluster_api::{ClaimRef, Note, VolumeWish};
use cluster_volumes::{Claim, Recipe, Stage, Storage, handle, id, persistent_volume, share_handle};
use control_records::volume::VolumeRecord;

use super::{objects::Objects, serves};
use crate::{ApiEffect, Draft, NewVolume, Subject, VolumeThere, Write};

/// A cluster has no more volumes: the host's room is everybody's.
pub(super) const MOST: usize = 500;
pub(super) const GIB: u64 = 1 << 30;

/// The claims that wait for a volume, and which each of them is to get, or why it gets none.
pub(super) fn assign<'s>(
    draft: &Draft<'_>,
    storage: &'s Storage,
    objects: &Objects<'_>,
) -> Vec<(&'s Claim, Result<NewVolume, String>)> {
    let seen = draft.seen;
    let mut count = seen.volumes.len();
    let mut volumes = Vec::new();
    for claim in &storage.claims {
        let Stage::Wanted(recipe) = &claim.stage else {
            continue;
        };
        let id = id(&draft.desired.uid, &claim.volume);
        let recorded = seen.volumes.iter().any(|record| record.id == id);
        let there = storage.volumes.iter().any(|volume| volume.name == claim.volume);
        if claim.deleting || recorded || there || !serves(draft, claim.shared) {
            continue;
        }
        let volume = if count < MOST {
            new(draft, objects, claim, recipe, id)
        } else {
            Err(format!(
                "The cluster has {MOST} volumes, and may have no more; delete a PersistentVolumeClaim."
            ))
        };
        count += usize::from(volume.is_ok());
        volumes.push((claim, volume));
    }
    volumes
}

fn new(
    draft: &Draft<'_>,
    objects: &Objects<'_>,
    claim: &Claim,
    recipe: &Recipe,
    id: String,
) -> Result<NewVolume, String> {
    let source = match &recipe.source {
        Some(name) => Some(source(draft, objects, claim, name)?),
        None => None,
    };
    Ok(NewVolume {
        name: claim.volume.clone(),
        claim: claim.claim.clone(),
        bytes: claim.bytes,
        sku: recipe.sku.clone(),
        shared: claim.shared,
        snapshot: false,
        source,
        disk: None,
        object: object(draft, claim, recipe, &id),
        id,
    })
}

/// The id of the volume that another one begins as a copy of, by the name of its PersistentVolume.
fn source(draft: &Draft<'_>, objects: &Objects<'_>, claim: &Claim, name: &str) -> Result<String, String> {
    let gone = || {
        format!(
            "spec.dataSource: the volume {name} is not there any more, or is about to go; name another claim, or none."
        )
    };
    let record = source_record(draft, objects, name).ok_or_else(gone)?;
    if claim.bytes < record.bytes {
        return Err(format!(
            "spec.resources.requests.storage: it is to begin as a copy of a volume of {} GiB; ask for as much at least.",
            record.bytes.div_ceil(GIB)
        ));
    }
    Ok(record.id.clone())
}

/// The record of a volume that can be copied, by the name of its PersistentVolume or VolumeSnapshotContent; `None`:
/// it is gone, or will be removed.
pub(super) fn source_record<'a>(
    draft: &Draft<'_>,
    objects: &Objects<'a>,
    name: &str,
) -> Option<&'a VolumeRecord> {
    let record = objects.record(name)?;
    let marked = Write::MarkVolume(record.id.clone());
    let there = draft.seen.volumes_there.as_ref();
    let lost = there.is_some_and(|there| !there.contains_key(&record.id));
    (!record.deleting && !lost && !draft.writes.contains(&marked)).then_some(record)
}

/// The PersistentVolume of a claim, as JSON.
fn object(draft: &Draft<'_>, claim: &Claim, recipe: &Recipe, id: &str) -> String {
    let desired = draft.desired;
    let group = &desired.spec().node_resource_group;
    let handle = if claim.shared {
        share_handle(group, &claim.volume, &claim.claim.namespace)
    } else {
        handle(&desired.subscription, group, &claim.volume)
    };
    persistent_volume(claim, recipe, &handle, id).to_string()
}

/// Volumes of the cluster that are in the fabric and in no record, because the store is older than they are: those of them that the cluster
/// names are written down again. Nothing is made or removed by that.
pub(super) fn found_again(draft: &Draft<'_>, objects: &Objects<'_>) -> Vec<NewVolume> {
    let there = draft.seen.volumes_there.as_ref();
    let found = objects.strange_volumes.iter().filter_map(|volume| {
        let id = id(&draft.desired.uid, &volume.name);
        let own = volume.id.as_ref() == Some(&id) && serves(draft, volume.shared);
        let found = there?.get(&id).filter(|_| own)?;
        let uid = volume.claim.clone().unwrap_or_default();
        let claim = objects.claim(&uid).map(|claim| claim.claim.clone());
        Some(NewVolume {
            id,
            name: volume.name.clone(),
            claim: claim.unwrap_or_else(|| ClaimRef {
                namespace: String::new(),
                name: String::new(),
                uid,
            }),
            bytes: volume.bytes.max(found.bytes),
            sku: String::new(),
            shared: volume.shared,
            snapshot: false,
            source: None,
            disk: None,
            object: String::new(),
        })
    });
    found.collect()
}

/// The size that the claim of a volume asks for by now.
pub(super) fn asked(objects: &Objects<'_>, record: &VolumeRecord) -> u64 {
    let volumes = objects.volumes(record).iter();
    let claims = volumes.filter_map(|volume| {
        let claim = objects.claim(volume.claim.as_deref()?)?;
        (claim.stage == Stage::Bound && claim.volume == volume.name).then_some(claim.bytes)
    });
    claims.max().unwrap_or_default()
}

/// What can be had by no claim is told to it, once.
pub(super) fn tell(draft: &mut Draft<'_>, storage: &Storage, objects: &Objects<'_>) {
    let refused = storage.claims.iter().filter_map(|claim| match &claim.stage {
        Stage::Refused(why) if !claim.deleting && serves(draft, claim.shared) => Some((claim, why.clone())),
        _ => None,
    });
    let assigned = assign(draft, storage, objects).into_iter();
    let refused = refused.chain(assigned.filter_map(|(claim, volume)| Some((claim, volume.err()?))));
    for (claim, why) in refused.collect::<Vec<_>>() {
        // One that has its volume asks for a larger one.
        let reason = if objects.record(&claim.volume).is_some() {
            "VolumeResizeFailed"
        } else {
            "ProvisioningFailed"
        };
        tell_one(draft, claim, reason, why);
    }
}

pub(super) fn tell_one(draft: &mut Draft<'_>, claim: &Claim, reason: &'static str, why: String) {
    if draft.seen.api.told.get(&claim.claim.uid) != Some(&why) {
        draft.act_quietly(ApiEffect::SetVolume(VolumeWish::Tell {
            claim: claim.claim.clone(),
            note: Note {
                warning: true,
                reason,
                message: why,
            },
        }));
    }
}

/// Tells the claim of a copy why it cannot be made: a source that is used as a device, or whose copy takes too long,
/// waits until its pods have ended.
pub(super) fn tell_of_copy(draft: &mut Draft<'_>, objects: &Objects<'_>, record: &VolumeRecord) {
    let held = draft.seen.held.get(&Subject::Volume(record.id.clone()));
    let held = held.filter(|held| held.attempts > 1 && record.source.is_some() && !record.published);
    let claim = objects.claim(&record.claim);
    let waiting = claim.filter(|claim| matches!(claim.stage, Stage::Wanted(_)));
    if let (Some(held), Some(claim)) = (held, waiting) {
        tell_one(draft, claim, "ProvisioningFailed", held.why.clone());
    }
}

/// The PersistentVolume of a volume that is in the fabric: published, and told of how large it is.
pub(super) fn show(draft: &mut Draft<'_>, objects: &Objects<'_>, record: &VolumeRecord, found: &VolumeThere) {
    let seen = draft.seen;
    let volumes = objects.volumes(record);
    let whole = found.bytes >= record.bytes;
    if volumes.is_empty() && whole && !seen.api.published.contains(&record.name) {
        // One that was there and is not any more is made again where its claim asks for it: the cluster is of an earlier time.
        let object = if record.object.is_empty() {
            objects.claim(&record.claim).and_then(|claim| match &claim.stage {
                Stage::Wanted(recipe) if claim.volume == record.name && !claim.deleting => {
                    Some(object(draft, claim, recipe, &record.id))
                }
                _ => None,
            })
        } else {
            Some(record.object.clone())
        };
        if let Some(object) = object {
            let name = record.name.clone();
            draft.act_quietly(ApiEffect::SetVolume(VolumeWish::Publish { name, object }));
        }
    }
    for volume in volumes {
        if objects.goes_alone(volume) {
            draft.act_quietly(ApiEffect::SetVolume(VolumeWish::Remove {
                name: volume.name.clone(),
                uid: volume.uid.clone(),
            }));
        } else if whole && record.bytes > volume.bytes && !volume.deleting {
            let claim = volume.claim.as_deref().and_then(|uid| objects.claim(uid));
            draft.act_quietly(ApiEffect::SetVolume(VolumeWish::Grown {
                name: volume.name.clone(),
                uid: volume.uid.clone(),
                bytes: record.bytes,
                claim: claim.map(|claim| claim.claim.clone()),
            }));
        }
    }
}
