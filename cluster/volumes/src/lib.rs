//! Volumes: the requests of PersistentVolumeClaims to the drivers of disks and shares, the state of
//! PersistentVolumes and VolumeAttachments, and the requests of VolumeSnapshots.
//!
//! Owns the parsing of these objects with the parameters of their StorageClasses, and the rendering of a
//! PersistentVolume; storage and attachment of volumes are elsewhere.
//!
//! Always true: pure; an unsupported request is refused with a sentence that names the field or the
//! parameter, and never replaced by something else.
//!
//! Called by: the loops (for observed objects), the planner (for decisions), add-ons and the node's driver
//! (names).

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
    content_status, share_snapshot_handle, snapshot_content, snapshot_handle,
};

/// The name of the disk driver in StorageClasses, PersistentVolumes and VolumeAttachments: that of Azure's
/// driver, which existing manifests use.
pub const DRIVER: &str = "disk.csi.azure.com";
/// The name of the driver of shares, likewise. Its volumes have no VolumeAttachments: every node finds an
/// existing share.
pub const FILES: &str = "file.csi.azure.com";
/// The finalizer of a PersistentVolume until its volume is gone; upstream's name.
pub const VOLUME_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
/// The finalizer of a VolumeAttachment until the volume is detached; upstream's name, derived from the
/// driver's.
pub const ATTACHMENT_FINALIZER: &str = "external-attacher/disk-csi-azure-com";
/// The attribute of a PersistentVolume with the volume's id in the fabric, for the node's driver.
pub const VOLUME_ATTRIBUTE: &str = "landfall.dev/volume";

/// The name of the driver of shares, or of disks.
pub const fn driver(shared: bool) -> &'static str {
    if shared { FILES } else { DRIVER }
}

/// Whether a driver's name is that of shares or of disks; `None`: it is not one of our drivers.
pub fn is_shared(driver: &str) -> Option<bool> {
    match driver {
        DRIVER => Some(false),
        FILES => Some(true),
        _ => None,
    }
}

/// The volume objects of our drivers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Storage {
    /// Claims that need an action, or have a volume of ours, in the order of their uids.
    pub claims: Vec<Claim>,
    /// PersistentVolumes of [`DRIVER`] and [`FILES`], in the order of their names.
    pub volumes: Vec<Volume>,
    /// VolumeAttachments of [`DRIVER`], in the order of their names.
    pub attachments: Vec<Attachment>,
    /// Whether VolumeSnapshots were listed.
    pub knows_snapshots: bool,
    /// VolumeSnapshots of our drivers, and refused ones, in the order of their uids.
    pub snapshots: Vec<Snapshot>,
    /// VolumeSnapshotContents of our drivers, in the order of their names.
    pub contents: Vec<SnapshotContent>,
}

/// A claim for our driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The claim.
    pub claim: ClaimRef,
    /// The name of its PersistentVolume, existing or planned: `pvc-{uid}`.
    pub volume: String,
    /// The requested size, rounded up to whole GiB; `None` if it is refused for its size.
    pub bytes: u64,
    /// Whether it is for a share, of [`FILES`].
    pub shared: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its stage.
    pub stage: Stage,
}

/// The stage of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// It waits: for the node of a pod that uses it (`WaitForFirstConsumer`), for Kubernetes to request a
    /// volume, or for its source claim.
    Waiting,
    /// A volume must be provisioned, with these properties.
    Wanted(Box<Recipe>),
    /// The request cannot be satisfied: a sentence with a next step. A bound claim may request more than the
    /// largest disk.
    Refused(String),
    /// It is bound to a PersistentVolume of ours.
    Bound,
}

/// The properties of a claim's volume and PersistentVolume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The StorageClass's name.
    pub class: String,
    /// The SKU of the class: shown, without effect.
    pub sku: String,
    /// Whether volume and PersistentVolume are deleted with the claim (`reclaimPolicy: Delete`).
    pub deletes: bool,
    /// `accessModes` of the claim.
    pub access_modes: Vec<String>,
    /// `volumeMode: Block`.
    pub block: bool,
    /// The filesystem.
    pub fs_type: String,
    /// `mountOptions` of the class.
    pub mount_options: Vec<String>,
    /// The PersistentVolume, or the VolumeSnapshotContent, that it is a copy of (`dataSource`: another claim,
    /// or a VolumeSnapshot).
    pub source: Option<String>,
}

/// A PersistentVolume of [`DRIVER`] or [`FILES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The id of its volume in the fabric, from its attribute; `None`: it was not provisioned here.
    pub id: Option<String>,
    /// The ARM id of the disk that it stands for (`volumeHandle`), where it was not provisioned here.
    pub disk: Option<String>,
    /// `spec.capacity`, limited to the capacity that its claim was told: if it has grown and the claim was
    /// not told yet, this is the claim's smaller capacity, so that the interrupted expansion is repeated.
    pub bytes: u64,
    /// Whether it is for a share, of [`FILES`].
    pub shared: bool,
    /// The uid of the claim that it is or was bound to.
    pub claim: Option<String>,
    /// Whether its claim is gone (`phase: Released`), or its reclamation failed (`Failed`).
    pub released: bool,
    /// `reclaimPolicy: Delete`, of one that was provisioned.
    pub deletes: bool,
    /// Whether it is being deleted.
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
    /// Whether its status is attached.
    pub attached: bool,
    /// Why it is not attached, as its status tells (`attachError`).
    pub failure: Option<String>,
    /// Whether it has the [`ATTACHMENT_FINALIZER`].
    pub held: bool,
    /// Whether it is being deleted: the volume must be detached from the node.
    pub deleting: bool,
}

#[cfg(test)]
mod tests;
