//! What a loop knows of its cluster's volumes: those in the fabric, and the objects about them in the cluster.

use std::collections::BTreeMap;

use cluster_api::VolumeWish;
use cluster_volumes::SnapshotStage;
use control_planner::VolumeThere;

use super::LoopState;

impl LoopState {
    /// The result of a look at the fabric: all volumes of the cluster.
    pub(crate) fn found_volumes(&mut self, mut found: BTreeMap<String, VolumeThere>) {
        let before = self.volumes.take();
        for volume in &self.touched_volumes {
            // The effect on it reports its state.
            let known = before.as_ref().map(|before| before.get(volume).cloned());
            match known {
                Some(Some(known)) => drop(found.insert(volume.clone(), known)),
                Some(None) => drop(found.remove(volume)),
                None => drop(self.doubted_volumes.insert(volume.clone())),
            }
        }
        let touched = &self.touched_volumes;
        self.doubted_volumes.retain(|volume| touched.contains(volume));
        self.volumes = Some(found);
    }

    /// An effect on a volume failed: its state has to be read from the fabric.
    pub(crate) fn doubt_volume(&mut self, volume: &str) {
        self.doubted_volumes.insert(volume.to_owned());
    }

    /// A volume exists, and has at least this size; a share is open to all machines.
    pub(crate) fn volume_made(&mut self, volume: String, bytes: u64, shared: bool) {
        if let Some(volumes) = &mut self.volumes {
            let there = volumes.entry(volume).or_insert(VolumeThere {
                bytes,
                attached: None,
                open: shared,
            });
            there.bytes = there.bytes.max(bytes);
            there.open = shared;
        }
    }

    /// A volume was attached to a machine, or is attached to none.
    pub(crate) fn volume_given(&mut self, volume: &str, machine: Option<String>) {
        let known = self.volumes.as_mut().and_then(|volumes| volumes.get_mut(volume));
        match known {
            Some(there) => there.attached = machine,
            None => self.doubt_volume(volume),
        }
    }

    /// A volume was removed.
    pub(crate) fn volume_gone(&mut self, volume: &str) {
        if let Some(volumes) = &mut self.volumes {
            volumes.remove(volume);
        }
    }

    /// The fabric's volumes, if none is uncertain. They are moved out: see [`Self::take_volumes_back`].
    pub(crate) fn lend_volumes(&mut self) -> Option<BTreeMap<String, VolumeThere>> {
        self.volumes.take_if(|_| self.doubted_volumes.is_empty())
    }

    /// Moves them back in.
    pub(crate) fn take_volumes_back(&mut self, lent: Option<BTreeMap<String, VolumeThere>>) {
        if lent.is_some() {
            self.volumes = lent;
        }
    }

    /// An object of a volume was brought to its desired state: this holds until the next look.
    pub(crate) fn volume_set(&mut self, wish: VolumeWish) {
        let api = &mut self.api;
        let Some(storage) = &mut api.storage else { return };
        let (volumes, attachments) = (&mut storage.volumes, &mut storage.attachments);
        match wish {
            VolumeWish::Publish { name, .. } => {
                api.published.insert(name);
            }
            VolumeWish::Grown { uid, bytes, .. } => {
                let mut known = volumes.iter_mut();
                if let Some(volume) = known.find(|volume| volume.uid == uid) {
                    volume.bytes = volume.bytes.max(bytes);
                }
            }
            VolumeWish::Remove { uid, .. } => volumes.retain(|volume| volume.uid != uid),
            VolumeWish::Hold { uid, .. } => {
                let mut known = attachments.iter_mut();
                if let Some(attachment) = known.find(|attachment| attachment.uid == uid) {
                    attachment.held = true;
                }
            }
            VolumeWish::Attached { uid, .. } => {
                let mut known = attachments.iter_mut();
                if let Some(attachment) = known.find(|attachment| attachment.uid == uid) {
                    attachment.attached = true;
                    attachment.failure = None;
                }
            }
            VolumeWish::AttachFailed { uid, why, .. } => {
                let mut known = attachments.iter_mut();
                if let Some(attachment) = known.find(|attachment| attachment.uid == uid) {
                    attachment.failure = Some(why);
                }
            }
            VolumeWish::Detached { uid, .. } => attachments.retain(|attachment| attachment.uid != uid),
            VolumeWish::Withdraw { uid, .. } => {
                let mut known = attachments.iter_mut();
                if let Some(attachment) = known.find(|attachment| attachment.uid == uid) {
                    attachment.deleting = true;
                }
                // Without a finalizer it is gone.
                attachments.retain(|attachment| attachment.uid != uid || attachment.held);
            }
            VolumeWish::Tell { claim, note } => {
                api.told.insert(claim.uid, note.message);
            }
            VolumeWish::PublishContent { name, .. } => {
                api.published.insert(name);
            }
            VolumeWish::RemoveContent { uid, .. } => storage.contents.retain(|content| content.uid != uid),
            VolumeWish::Taken { snapshot, .. } => {
                let mut known = storage.snapshots.iter_mut();
                if let Some(found) = known.find(|found| found.snapshot.uid == snapshot.uid) {
                    found.ready = true;
                    found.stage = SnapshotStage::Waiting;
                }
            }
            VolumeWish::TellSnapshot { snapshot, note } => {
                api.told.insert(snapshot.uid, note.message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cluster_api::{ClaimRef, Note};
    use cluster_volumes::{Attachment, Claim, Stage, Storage};

    use super::*;

    fn attachment(name: &str, held: bool) -> Attachment {
        Attachment {
            name: name.to_owned(),
            uid: name.to_owned(),
            volume: "pvc-u1".to_owned(),
            node: "n".to_owned(),
            attached: false,
            failure: None,
            held,
            deleting: false,
        }
    }

    fn claim() -> ClaimRef {
        ClaimRef {
            namespace: "shop".to_owned(),
            name: "data".to_owned(),
            uid: "u1".to_owned(),
        }
    }

    fn seen() -> Storage {
        Storage {
            claims: vec![Claim {
                claim: claim(),
                volume: "pvc-u1".to_owned(),
                bytes: 1,
                shared: false,
                deleting: false,
                stage: Stage::Refused("no".to_owned()),
            }],
            volumes: Vec::new(),
            attachments: vec![attachment("a", false), attachment("b", true)],
            ..Storage::default()
        }
    }

    #[test]
    fn what_is_written_of_volumes_is_so_until_the_next_look() {
        let mut state = LoopState::new("c");
        state.api_told(Some(Vec::new()), Some(seen()));
        let of = |name: &str| (name.to_owned(), name.to_owned());
        let (name, uid) = of("a");
        state.volume_set(VolumeWish::Hold { name, uid });
        let (name, uid) = of("a");
        let volume = "v1".to_owned();
        state.volume_set(VolumeWish::Attached { name, uid, volume });
        let (name, uid) = of("b");
        state.volume_set(VolumeWish::Withdraw { name, uid });
        let known = state.api.storage.as_ref().unwrap();
        assert!(known.attachments[0].held && known.attachments[0].attached);
        assert!(known.attachments[1].deleting, "its finalizer keeps it");
        let (name, uid) = of("b");
        state.volume_set(VolumeWish::Detached { name, uid });
        assert_eq!(state.api.storage.as_ref().unwrap().attachments.len(), 1);
        state.volume_set(VolumeWish::Publish {
            name: "pvc-u1".to_owned(),
            object: "{}".to_owned(),
        });
        assert!(state.api.published.contains("pvc-u1"));
        // A refused listing has no result.
        state.api_told(Some(Vec::new()), None);
        assert_eq!(state.api.storage.as_ref().unwrap().attachments.len(), 1);
        assert!(!state.api.published.is_empty());
        state.api_told(Some(Vec::new()), Some(seen()));
        assert_eq!(state.api.storage, Some(seen()));
        assert!(state.api.published.is_empty());
    }

    #[test]
    fn what_was_told_of_a_claim_is_known_as_long_as_it_is_there() {
        let mut state = LoopState::new("c");
        state.api_told(Some(Vec::new()), Some(seen()));
        state.volume_set(VolumeWish::Tell {
            claim: claim(),
            note: Note {
                warning: true,
                reason: "ProvisioningFailed",
                message: "no".to_owned(),
            },
        });
        state.api_told(Some(Vec::new()), Some(seen()));
        assert_eq!(state.api.told["u1"], "no");
        state.api_told(Some(Vec::new()), Some(Storage::default()));
        assert!(state.api.told.is_empty());
    }
}
