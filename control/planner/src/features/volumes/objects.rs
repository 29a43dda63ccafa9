//! What the cluster holds of volumes, by the records that it has to do with.

use std::{collections::BTreeMap, sync::Arc};

use cluster_volumes::{Attachment, Claim, Storage, Volume};
use control_records::{ClusterRecord, disk::DiskId, volume::VolumeRecord};

use crate::{Draft, Machine};

/// See the module. Built once a plan, because clusters may have hundreds of volumes.
pub(super) struct Objects<'a> {
    /// Records by the names of the PersistentVolumes that stand for their volumes.
    records: BTreeMap<&'a str, &'a VolumeRecord>,
    /// PersistentVolumes by the ids of these records.
    volumes: BTreeMap<&'a str, Vec<&'a Volume>>,
    /// VolumeAttachments by the same.
    attachments: BTreeMap<&'a str, Vec<&'a Attachment>>,
    /// Claims by their uids.
    claims: BTreeMap<&'a str, &'a Claim>,
    /// Machines of nodes, with their ids, by the nodes' names.
    nodes: BTreeMap<&'a str, (&'a str, &'a Machine)>,
    /// PersistentVolumes that name a volume which is in no record.
    pub(super) strange_volumes: Vec<&'a Volume>,
    /// VolumeAttachments of volumes that are in no record.
    pub(super) strange_attachments: Vec<&'a Attachment>,
}

impl<'a> Objects<'a> {
    pub(super) fn of(draft: &Draft<'a>, storage: &'a Storage) -> Self {
        let seen = draft.seen;
        let by_id: BTreeMap<&str, &VolumeRecord> = seen
            .volumes
            .iter()
            .map(|record| (record.id.as_str(), &**record))
            .collect();
        // A PersistentVolume that is not there (any more) had its record's name, as far as anybody knows.
        let mut records: BTreeMap<&str, &VolumeRecord> = seen
            .volumes
            .iter()
            .map(|record| (record.name.as_str(), &**record))
            .collect();
        let mut volumes: BTreeMap<&str, Vec<&Volume>> = BTreeMap::new();
        let mut strange_volumes: Vec<&Volume> = Vec::new();
        for volume in &storage.volumes {
            let id = volume.id.as_deref();
            let named = || named(draft.desired, &seen.volumes, volume);
            match id.and_then(|id| by_id.get(id).copied()).or_else(named) {
                Some(record) => {
                    records.insert(volume.name.as_str(), record);
                    volumes.entry(record.id.as_str()).or_default().push(volume);
                }
                None => {
                    records.remove(volume.name.as_str());
                    strange_volumes.extend(id.map(|_| volume));
                }
            }
        }
        let mut attachments: BTreeMap<&str, Vec<&Attachment>> = BTreeMap::new();
        let mut strange_attachments: Vec<&Attachment> = Vec::new();
        for attachment in &storage.attachments {
            match records.get(attachment.volume.as_str()).copied() {
                Some(record) => {
                    let own = attachments.entry(record.id.as_str());
                    own.or_default().push(attachment);
                }
                None => strange_attachments.push(attachment),
            }
        }
        let claims = storage.claims.iter();
        let nodes = seen.machines.iter();
        Self {
            records,
            volumes,
            attachments,
            claims: claims.map(|claim| (claim.claim.uid.as_str(), claim)).collect(),
            nodes: nodes
                .filter_map(|(id, machine)| Some((machine.node_name()?, (id.as_str(), machine))))
                .collect(),
            strange_volumes,
            strange_attachments,
        }
    }

    /// The record of the volume that a PersistentVolume stands for, by its name.
    pub(super) fn record(&self, name: &str) -> Option<&'a VolumeRecord> {
        self.records.get(name).copied()
    }

    /// The PersistentVolumes that stand for a volume: one, as a rule.
    pub(super) fn volumes(&self, record: &VolumeRecord) -> &[&'a Volume] {
        let own = self.volumes.get(record.id.as_str());
        own.map(Vec::as_slice).unwrap_or_default()
    }

    /// The VolumeAttachments of a volume.
    pub(super) fn attachments(&self, record: &VolumeRecord) -> &[&'a Attachment] {
        let own = self.attachments.get(record.id.as_str());
        own.map(Vec::as_slice).unwrap_or_default()
    }

    /// The claim with this uid.
    pub(super) fn claim(&self, uid: &str) -> Option<&'a Claim> {
        self.claims.get(uid).copied()
    }

    /// The machine of a node, and its id.
    pub(super) fn machine(&self, node: &str) -> Option<(&'a str, &'a Machine)> {
        self.nodes.get(node).copied()
    }

    /// Whether the claim of a PersistentVolume is there.
    pub(super) fn is_claimed(&self, volume: &Volume) -> bool {
        let uid = volume.claim.as_deref();
        uid.is_some_and(|uid| self.claims.contains_key(uid))
    }

    /// Whether what a PersistentVolume stands for is to go with it, and nobody is in its way but us.
    pub(super) fn is_given_up(&self, volume: &Volume) -> bool {
        volume.deletes && (volume.released || volume.deleting && !self.is_claimed(volume))
    }

    /// Whether a PersistentVolume is to go and what it stands for is to stay.
    pub(super) fn goes_alone(&self, volume: &Volume) -> bool {
        !volume.deletes && volume.deleting && !self.is_claimed(volume)
    }
}

/// The record of the disk that a PersistentVolume names by its ARM id: of one that a tenant made, or of a claim that is gone.
fn named<'a>(
    desired: &ClusterRecord,
    records: &'a [Arc<VolumeRecord>],
    volume: &Volume,
) -> Option<&'a VolumeRecord> {
    let id = DiskId::parse(volume.disk.as_deref()?).filter(|id| !id.snapshot)?;
    let (key, own) = (id.key(), is_own(desired, &id));
    let mut records = records.iter().map(|record| &**record);
    records.find(|record| match &record.disk {
        Some(disk) => *disk == key,
        None => own && !record.shared && !record.snapshot && record.name.eq_ignore_ascii_case(&id.name),
    })
}

/// Whether a disk is in the group of the cluster's nodes.
fn is_own(desired: &ClusterRecord, id: &DiskId) -> bool {
    let group = &desired.spec().node_resource_group;
    id.subscription.eq_ignore_ascii_case(&desired.subscription)
        && id.resource_group.eq_ignore_ascii_case(group)
}
