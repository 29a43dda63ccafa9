//! Volume objects of a cluster, observed and desired.

use serde_json::Value;

use crate::Note;

/// The volume objects.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VolumeObjects {
    /// PersistentVolumeClaims of all namespaces.
    pub claims: Vec<Value>,
    /// PersistentVolumes.
    pub volumes: Vec<Value>,
    /// VolumeAttachments.
    pub attachments: Vec<Value>,
    /// StorageClasses.
    pub classes: Vec<Value>,
    /// Whether VolumeSnapshots were listed; otherwise an empty list of them means nothing.
    pub knows_snapshots: bool,
    /// VolumeSnapshots of all namespaces.
    pub snapshots: Vec<Value>,
    /// VolumeSnapshotContents.
    pub contents: Vec<Value>,
    /// VolumeSnapshotClasses.
    pub snapshot_classes: Vec<Value>,
}

/// A PersistentVolumeClaim, or a VolumeSnapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: another object of the same name is left alone.
    pub uid: String,
}

/// A change to a volume object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum VolumeWish {
    /// Creates a PersistentVolume. An existing one of this name is left alone.
    Publish {
        /// Its name.
        name: String,
        /// The object, as JSON.
        object: String,
    },
    /// A PersistentVolume has grown: sets its capacity, and tells its claim that the node must expand it (the
    /// condition `FileSystemResizePending`, and `NodeResizePending` in `allocatedResourceStatuses`).
    Grown {
        /// The PersistentVolume's name.
        name: String,
        /// Its uid.
        uid: String,
        /// Its new capacity.
        bytes: u64,
        /// Its claim, if it has one.
        claim: Option<ClaimRef>,
    },
    /// The volume of a PersistentVolume is deleted: deletes the object and removes our finalizer.
    Remove {
        /// The PersistentVolume's name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Adds our finalizer to a VolumeAttachment, before the volume is attached.
    Hold {
        /// The VolumeAttachment's name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Sets a VolumeAttachment's status to attached, without an error; the node's driver is told which volume it is.
    Attached {
        /// The VolumeAttachment's name.
        name: String,
        /// Its uid.
        uid: String,
        /// The id of the volume in the fabric.
        volume: String,
    },
    /// Sets the reason in a VolumeAttachment's status why its volume is not attached: an event of the pod tells it.
    AttachFailed {
        /// The VolumeAttachment's name.
        name: String,
        /// Its uid.
        uid: String,
        /// A sentence with a next step.
        why: String,
    },
    /// Sets a VolumeAttachment's status to detached, then removes our finalizer.
    Detached {
        /// The VolumeAttachment's name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Deletes a VolumeAttachment whose node is gone. It stays until our finalizer is removed.
    Withdraw {
        /// The VolumeAttachment's name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Writes an event of a claim.
    Tell {
        /// The claim.
        claim: ClaimRef,
        /// The event.
        note: Note,
    },
    /// Creates a VolumeSnapshotContent with its status. An existing one of this name is left as it is, except for
    /// a status that is not ready yet.
    PublishContent {
        /// Its name.
        name: String,
        /// The object with its status, as JSON.
        object: String,
    },
    /// The copy of a VolumeSnapshotContent is gone, or stays without it: it is deleted, and our finalizer is
    /// removed.
    RemoveContent {
        /// The VolumeSnapshotContent's name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Sets a VolumeSnapshot's status to ready, without an error.
    Taken {
        /// The VolumeSnapshot.
        snapshot: ClaimRef,
        /// The VolumeSnapshotContent that it is bound to.
        content: String,
        /// The least size of a claim that is restored from it.
        bytes: u64,
        /// The time of the snapshot (RFC 3339), if known.
        at: Option<String>,
    },
    /// Writes an event of a VolumeSnapshot, and the error in its status.
    TellSnapshot {
        /// The VolumeSnapshot.
        snapshot: ClaimRef,
        /// The event.
        note: Note,
    },
}

impl VolumeWish {
    /// The key of the object: writes to one object never run concurrently.
    pub fn object(&self) -> String {
        match self {
            Self::Publish { name, .. } | Self::Grown { name, .. } | Self::Remove { name, .. } => {
                format!("volume {name}")
            }
            Self::Hold { name, .. }
            | Self::Attached { name, .. }
            | Self::AttachFailed { name, .. }
            | Self::Detached { name, .. }
            | Self::Withdraw { name, .. } => format!("attachment {name}"),
            Self::Tell { claim, .. } => format!("claim {}", claim.uid),
            Self::PublishContent { name, .. } | Self::RemoveContent { name, .. } => {
                format!("content {name}")
            }
            Self::Taken { snapshot, .. } | Self::TellSnapshot { snapshot, .. } => {
                format!("snapshot {}", snapshot.uid)
            }
        }
    }
}
