//! VolumeAttachments: which machine is to have a volume, and what the cluster is told of it.
//!
//! | step | coming | going |
//! |---|---|---|
//! | 1 | the VolumeAttachment gets the finalizer | the fabric takes the volume from the machine |
//! | 2 | the fabric gives the volume to the machine | the status tells so, and the finalizer goes |
//! | 3 | the status tells so | |
//!
//! Always true: a volume is taken from a machine only where the cluster says that its node is to lose it, or where no VolumeAttachment names
//! that node; a VolumeAttachment is let go only once its node does not have the volume, nor may get it by what is under way.

use cluster_api::VolumeWish;
use cluster_volumes::Attachment;
use control_records::volume::VolumeRecord;

use super::objects::Objects;
use crate::{ApiEffect, Draft, FabricEffect, Observation, Presence, Subject, VolumeThere};

/// Brings a volume that is to stay to where it is wanted; `found`: the volume in the fabric.
pub(super) fn serve(
    draft: &mut Draft<'_>,
    objects: &Objects<'_>,
    record: &VolumeRecord,
    found: Option<&VolumeThere>,
) {
    let seen = draft.seen;
    let attachments = objects.attachments(record);
    let has = found.and_then(|found| found.attached.as_deref());
    if has.is_some_and(|machine| is_to_lose(seen, attachments, machine)) {
        draft.act_quietly(FabricEffect::DetachVolume(record.id.clone()));
    }
    let_go(draft, objects, record, has);
    for attachment in attachments.iter().filter(|attachment| !attachment.deleting) {
        let Some((id, machine)) = objects.machine(&attachment.node) else {
            if seen.api.node(&attachment.node).is_none() {
                // The cluster would wait for minutes until it believes that the node is gone.
                set(draft, attachment, |name, uid| VolumeWish::Withdraw { name, uid });
            }
            continue;
        };
        if machine.record.deleting {
            continue;
        }
        if !attachment.held {
            set(draft, attachment, |name, uid| VolumeWish::Hold { name, uid });
            continue;
        }
        if machine.presence != Presence::Running {
            continue;
        }
        match has {
            // Also where the status tells that it has it: machines lose their volumes when the host is started again.
            None if found.is_some_and(VolumeThere::is_whole) => {
                draft.act_quietly(FabricEffect::AttachVolume {
                    volume: record.id.clone(),
                    machine: id.to_owned(),
                })
            }
            Some(has) if has == id && !attachment.attached => {
                set(draft, attachment, |name, uid| VolumeWish::Attached {
                    name,
                    uid,
                    volume: record.id.clone(),
                });
            }
            // It has it, or waits for another one to lose it.
            _ => {}
        }
    }
}

/// Lets go the VolumeAttachments of nodes that are to lose a volume and do not have it any more; `has`: the machine that has it.
pub(super) fn let_go(draft: &mut Draft<'_>, objects: &Objects<'_>, record: &VolumeRecord, has: Option<&str>) {
    let seen = draft.seen;
    if seen.busy.contains(&Subject::Volume(record.id.clone())) {
        // It may be about to get it.
        return;
    }
    let attachments = objects.attachments(record);
    for attachment in attachments.iter().filter(|attachment| attachment.deleting) {
        let node = attachment.node.as_str();
        let still = has.is_some_and(|machine| match seen.machines.get(machine) {
            Some(machine) => machine.node_name() == Some(node) && !is_wanted(attachments, node),
            // It may have been this node's.
            None => true,
        });
        if !still {
            detached(draft, attachment);
        }
    }
}

/// Tells that a node does not have a volume, unless that is told.
pub(super) fn detached(draft: &mut Draft<'_>, attachment: &Attachment) {
    if attachment.held || attachment.attached {
        set(draft, attachment, |name, uid| VolumeWish::Detached { name, uid });
    }
}

/// Whether the machine that has a volume is to lose it.
fn is_to_lose(seen: &Observation, attachments: &[&Attachment], machine: &str) -> bool {
    let Some(machine) = seen.machines.get(machine) else {
        // It comes back to nobody. The fabric refuses where something uses it all the same.
        return !attachments.is_empty();
    };
    let Some(node) = machine.node_name() else {
        return !attachments.is_empty();
    };
    let named = attachments.iter().any(|attachment| attachment.node == node);
    let wanted_elsewhere = attachments.iter().any(|attachment| !attachment.deleting);
    !is_wanted(attachments, node) && (named || wanted_elsewhere)
}

/// Whether a node is to have a volume.
fn is_wanted(attachments: &[&Attachment], node: &str) -> bool {
    let mut staying = attachments.iter().filter(|attachment| !attachment.deleting);
    staying.any(|attachment| attachment.node == node)
}

pub(super) fn set(
    draft: &mut Draft<'_>,
    attachment: &Attachment,
    wish: impl FnOnce(String, String) -> VolumeWish,
) {
    let wish = wish(attachment.name.clone(), attachment.uid.clone());
    draft.act_quietly(ApiEffect::SetVolume(wish));
}
