//! Volumes in a world where what is planned happens at once.

use cluster_api::{VolumeObjects, VolumeWish};
use cluster_volumes::{SnapshotStage, Stage, Storage};
use control_records::volume::VolumeRecord;
use serde_json::{Value, json};

use super::*;

impl Ideal {
    pub(super) fn write_volume(&mut self, write: &Write) {
        match write {
            Write::RecordVolume(new) => {
                let records = &mut self.seen.volumes;
                assert!(records.iter().all(|record| record.id != new.id), "{new:?}");
                records.push(Arc::new(VolumeRecord {
                    v: 1,
                    id: new.id.clone(),
                    name: new.name.clone(),
                    claim: new.claim.uid.clone(),
                    claim_namespace: new.claim.namespace.clone(),
                    claim_name: new.claim.name.clone(),
                    bytes: new.bytes,
                    sku: new.sku.clone(),
                    shared: new.shared,
                    snapshot: new.snapshot,
                    source: new.source.clone(),
                    disk: new.disk.clone(),
                    object: new.object.clone(),
                    published: false,
                    deleting: false,
                    created_at: self.now,
                }));
                records.sort_by(|one, other| one.id.cmp(&other.id));
            }
            Write::GrowVolume { volume, bytes } => {
                let record = self.volume(volume);
                assert!(record.bytes < *bytes && !record.deleting, "{record:?}");
                record.bytes = *bytes;
            }
            Write::VolumePublished(id) => {
                let record = self.volume(id);
                record.object.clear();
                record.published = true;
            }
            Write::MarkVolume(id) => self.volume(id).deleting = true,
            Write::ForgetVolume(id) if self.volume(id).disk.is_some() => {
                let there = self.disks.get(id);
                assert!(
                    there.is_none_or(|there| there.attached.is_none()),
                    "it is given back last"
                );
                self.seen.volumes.retain(|record| record.id != *id);
            }
            Write::ForgetVolume(id) => {
                assert!(!self.disks.contains_key(id), "a record goes last");
                let mut volumes = self.seen.api.storage.iter().flat_map(|storage| &storage.volumes);
                assert!(
                    volumes.all(|volume| volume.id.as_ref() != Some(id)),
                    "a record goes last"
                );
                let mut contents = self.seen.api.storage.iter().flat_map(|storage| &storage.contents);
                assert!(
                    contents.all(|content| content.id.as_ref() != Some(id)),
                    "a record goes last"
                );
                self.seen.volumes.retain(|record| record.id != *id);
            }
            _ => unreachable!("{write:?} is none of a volume's"),
        }
    }

    fn volume(&mut self, id: &str) -> &mut VolumeRecord {
        let mut records = self.seen.volumes.iter_mut();
        Arc::make_mut(
            records
                .find(|record| record.id == id)
                .expect("it is written down"),
        )
    }

    pub(super) fn do_to_volume(&mut self, effect: &FabricEffect) {
        match effect {
            FabricEffect::EnsureVolume {
                volume,
                bytes,
                source,
                shared,
            } => {
                let there = self.disks.contains_key(volume);
                assert!(
                    there || !self.volume(volume).published,
                    "an empty one would be taken for what was there"
                );
                let copied = source.as_ref().filter(|_| !there);
                assert!(copied.is_none_or(|source| self.disks.contains_key(source)));
                let there = self.disks.entry(volume.clone()).or_insert(VolumeThere {
                    bytes: *bytes,
                    attached: None,
                    open: *shared,
                });
                there.open = *shared;
                there.bytes = there.bytes.max(*bytes);
            }
            FabricEffect::AttachVolume { volume, machine } => {
                assert_eq!(self.seen.machines[machine].presence, Presence::Running);
                let there = self.disks.get_mut(volume).unwrap();
                assert_eq!(there.attached, None, "one machine at a time");
                there.attached = Some(machine.clone());
            }
            FabricEffect::DetachVolume(volume) => self.disks.get_mut(volume).unwrap().attached = None,
            FabricEffect::DeleteVolume(volume) => {
                assert!(
                    self.desired.deleting || self.volume(volume).deleting,
                    "written down before"
                );
                let gone = self.disks.remove(volume).unwrap();
                assert_eq!(gone.attached, None);
            }
            _ => unreachable!("{effect:?} is none on a volume"),
        }
        self.seen.volumes_there = Some(self.disks.clone());
    }

    /// What the cluster makes of what is written to it.
    pub(super) fn set_volume(&mut self, wish: &VolumeWish) {
        let api = &mut self.seen.api;
        let storage = api.storage.as_mut().unwrap();
        let attachments = &mut storage.attachments;
        match wish {
            VolumeWish::Publish { name, object } => {
                let mut object: Value = serde_json::from_str(object).unwrap();
                assert_eq!(object["metadata"]["name"], json!(name));
                object["metadata"]["uid"] = json!(format!("uid of {name}"));
                let read = Storage::read(&VolumeObjects {
                    volumes: vec![object],
                    ..VolumeObjects::default()
                });
                let mut volume = read.volumes.into_iter().next().unwrap();
                volume.released = true;
                for claim in storage.claims.iter_mut().filter(|claim| claim.volume == *name) {
                    claim.stage = Stage::Bound;
                    volume.released = false;
                }
                storage.volumes.push(volume);
                storage.volumes.sort_by(|one, other| one.name.cmp(&other.name));
            }
            VolumeWish::Grown { uid, bytes, .. } => {
                let mut volumes = storage.volumes.iter_mut();
                let volume = volumes.find(|volume| volume.uid == *uid).unwrap();
                assert!(volume.bytes < *bytes);
                volume.bytes = *bytes;
            }
            VolumeWish::Remove { uid, .. } => storage.volumes.retain(|volume| volume.uid != *uid),
            VolumeWish::Hold { uid, .. } => {
                let mut all = attachments.iter_mut();
                all.find(|attachment| attachment.uid == *uid).unwrap().held = true;
            }
            VolumeWish::Attached { uid, .. } => {
                let mut all = attachments.iter_mut();
                all.find(|attachment| attachment.uid == *uid).unwrap().attached = true;
            }
            VolumeWish::AttachFailed { uid, why, .. } => {
                let mut all = attachments.iter_mut();
                let found = all.find(|attachment| attachment.uid == *uid).unwrap();
                assert_ne!(found.failure.as_ref(), Some(why), "once");
                found.failure = Some(why.clone());
            }
            VolumeWish::Detached { uid, .. } => attachments.retain(|attachment| attachment.uid != *uid),
            VolumeWish::Withdraw { uid, .. } => {
                let mut all = attachments.iter_mut();
                all.find(|attachment| attachment.uid == *uid).unwrap().deleting = true;
                attachments.retain(|attachment| !attachment.deleting || attachment.held);
            }
            VolumeWish::Tell { claim, note } => {
                api.told.insert(claim.uid.clone(), note.message.clone());
            }
            VolumeWish::PublishContent { name, object } => {
                let mut object: Value = serde_json::from_str(object).unwrap();
                assert_eq!(object["metadata"]["name"], json!(name));
                object["metadata"]["uid"] = json!(format!("uid of {name}"));
                let read = Storage::read(&VolumeObjects {
                    contents: vec![object],
                    ..VolumeObjects::default()
                });
                let mut content = read.contents.into_iter().next().unwrap();
                let uid = content.snapshot.clone().unwrap();
                content.orphaned = !storage.snapshots.iter().any(|one| one.snapshot.uid == uid);
                storage.contents.retain(|there| there.name != *name);
                storage.contents.push(content);
            }
            VolumeWish::RemoveContent { uid, .. } => storage.contents.retain(|content| content.uid != *uid),
            VolumeWish::Taken { snapshot, .. } => {
                let mut all = storage.snapshots.iter_mut();
                let found = all.find(|one| one.snapshot.uid == snapshot.uid).unwrap();
                assert!(!found.ready);
                found.ready = true;
                found.stage = SnapshotStage::Waiting;
            }
            VolumeWish::TellSnapshot { snapshot, note } => {
                api.told.insert(snapshot.uid.clone(), note.message.clone());
            }
        }
    }
}
