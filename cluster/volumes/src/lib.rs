//! Volumes: what PersistentVolumeClaims ask of the drivers of disks and of shares, and what PersistentVolumes and VolumeAttachments say about it;
//! what VolumeSnapshots ask for.
//!
//! Owns the reading of these objects with the parameters of their StorageClasses, and the rendering of a PersistentVolume; nothing of how
//! bytes are kept or given to machines.
//!
//! Always true: pure; what cannot be done as it was asked for is refused with a sentence that names the field or the parameter, and is never
//! done otherwise.
//!
//! Called by: the loops (what a look at the cluster found), the planner (what follows from it), add-ons and the node's driver (names).

mod parameters;
pub mod quantity;
mod read;
mod render;
mod share_parameters;
mod snapshots;

use cluster_api::ClaimRef;

pub use parameters::{Class, PARAMETERS, Parameter};
pub use render::{handle, id, persistent_volume, share_handle};
pub use share_parameters::SHARE_PARAMETERS;
pub use snapshots::{
    CONTENT_FINALIZER, SNAPSHOT_CLASS, SNAPSHOTS, Snapshot, SnapshotContent, SnapshotRecipe, SnapshotStage,
    content_status, snapshot_content, snapshot_handle,
};

/// The driver of disks, as StorageClasses, PersistentVolumes and VolumeAttachments name it: people's manifests do so already.
pub const DRIVER: &str = "disk.csi.azure.com";
/// The driver of shares, likewise. Nothing is attached for it: all nodes find a share that is there.
pub const FILES: &str = "file.csi.azure.com";
/// What keeps a PersistentVolume until its volume is gone; upstream's name for it.
pub const VOLUME_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
/// What keeps a VolumeAttachment until the volume is detached; upstream's name for it, made of the driver's.
pub const ATTACHMENT_FINALIZER: &str = "external-attacher/disk-csi-azure-com";
/// The attribute of a PersistentVolume that tells the node's driver the volume's id in the fabric.
pub const VOLUME_ATTRIBUTE: &str = "landfall.dev/volume";

/// The driver of shares, or of disks.
pub const fn driver(shared: bool) -> &'static str {
    if shared { FILES } else { DRIVER }
}

/// Whether a driver of this name is of shares or of disks; `None`: it is somebody else's.
pub fn is_shared(driver: &str) -> Option<bool> {
    match driver {
        DRIVER => Some(false),
        FILES => Some(true),
        _ => None,
    }
}

/// What a cluster holds of volumes of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Storage {
    /// Claims that something is to be done for, or that have a volume of ours, in the order of their uids.
    pub claims: Vec<Claim>,
    /// PersistentVolumes of [`DRIVER`] and [`FILES`], in the order of their names.
    pub volumes: Vec<Volume>,
    /// VolumeAttachments of [`DRIVER`], in the order of their names.
    pub attachments: Vec<Attachment>,
    /// Whether it is known which VolumeSnapshots there are.
    pub knows_snapshots: bool,
    /// VolumeSnapshots of disks of ours, in the order of their uids.
    pub snapshots: Vec<Snapshot>,
    /// VolumeSnapshotContents of [`DRIVER`], in the order of their names.
    pub contents: Vec<SnapshotContent>,
}

/// A claim for a volume of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which.
    pub claim: ClaimRef,
    /// The name of the PersistentVolume that it has, or is to get: `pvc-{uid}`.
    pub volume: String,
    /// The size that it asks for, rounded up to whole GiB; none where that is what it is refused for.
    pub bytes: u64,
    /// Whether it is for a share: of [`FILES`].
    pub shared: bool,
    /// Somebody has deleted it.
    pub deleting: bool,
    /// How far it is.
    pub stage: Stage,
}

/// How far a claim is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// It waits: for a pod that uses it to be given a node (`WaitForFirstConsumer`), for Kubernetes to ask for a volume, or for the claim
    /// that it is to be a copy of.
    Waiting,
    /// A volume is to be provisioned for it, like this.
    Wanted(Box<Recipe>),
    /// What it asks for cannot be had: a sentence with a next step. One that is bound may ask for more than any disk has.
    Refused(String),
    /// It is bound to a PersistentVolume of ours.
    Bound,
}

/// What the volume of a claim is to be like, and its PersistentVolume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The StorageClass's name.
    pub class: String,
    /// The SKU that the class asks for: shown, of no effect.
    pub sku: String,
    /// Whether volume and PersistentVolume go with the claim (`reclaimPolicy: Delete`).
    pub deletes: bool,
    /// `accessModes` of the claim.
    pub access_modes: Vec<String>,
    /// `volumeMode: Block`.
    pub block: bool,
    /// The filesystem.
    pub fs_type: String,
    /// `mountOptions` of the class.
    pub mount_options: Vec<String>,
    /// The PersistentVolume, or the VolumeSnapshotContent, that it begins as a copy of (`dataSource`: another claim, or a VolumeSnapshot).
    pub source: Option<String>,
}

/// A PersistentVolume of [`DRIVER`] or [`FILES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The id of its volume in the fabric, as its attribute says; `None`: it was not provisioned here.
    pub id: Option<String>,
    /// `spec.capacity`, as far as its claim was told of it: one that has grown without its claim having been told is as large as the claim
    /// has it, so that what was begun is done again.
    pub bytes: u64,
    /// Whether it stands for a share: it is of [`FILES`].
    pub shared: bool,
    /// The uid of the claim that it is bound to, or was.
    pub claim: Option<String>,
    /// Whether its claim is gone (`phase: Released`), or it failed to be reclaimed (`Failed`).
    pub released: bool,
    /// `reclaimPolicy: Delete`.
    pub deletes: bool,
    /// Somebody has deleted it.
    pub deleting: bool,
}

/// A VolumeAttachment of [`DRIVER`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The PersistentVolume's name.
    pub volume: String,
    /// The node's name.
    pub node: String,
    /// Whether its status tells that the node has the volume.
    pub attached: bool,
    /// Whether it has the [`ATTACHMENT_FINALIZER`].
    pub held: bool,
    /// Somebody has deleted it: the node is to lose the volume.
    pub deleting: bool,
}

#[cfg(test)]
mod tests;
