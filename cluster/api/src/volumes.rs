//! What a cluster holds of volumes, as it is seen and as it is to be.

use serde_json::Value;

use crate::Note;

/// The objects that have to do with volumes.
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
    /// Whether the cluster was asked for VolumeSnapshots, and knows of them: else that there are none says nothing.
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
    /// Its uid: another one of the same name is left alone.
    pub uid: String,
}

/// What is to be written to an object that has to do with a volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum VolumeWish {
    /// A PersistentVolume is to be there. One of this name that is there already is left as it is.
    Publish {
        /// Its name.
        name: String,
        /// The object, as JSON.
        object: String,
    },
    /// A PersistentVolume has grown: its capacity is told, and its claim is told that the node has to follow (the condition
    /// `FileSystemResizePending`, and `NodeResizePending` in `allocatedResourceStatuses`).
    Grown {
        /// The PersistentVolume's name.
        name: String,
        /// Its uid.
        uid: String,
        /// Its capacity from now on.
        bytes: u64,
        /// Its claim, where it has one.
        claim: Option<ClaimRef>,
    },
    /// What a PersistentVolume stood for is gone: it is deleted and loses our finalizer.
    Remove {
        /// The PersistentVolume's name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// A VolumeAttachment gets our finalizer: nothing is attached before.
    Hold {
        /// The VolumeAttachment's name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// A VolumeAttachment's status tells that the node has the volume, and of no error.
    Attached {
        /// The VolumeAttachment's name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// A VolumeAttachment's status tells that the node does not have the volume, then it loses our finalizer.
    Detached {
        /// The VolumeAttachment's name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// A VolumeAttachment is deleted: the node that it is for is gone. It goes when it has lost our finalizer.
    Withdraw {
        /// The VolumeAttachment's name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// An event of a claim.
    Tell {
        /// Whose.
        claim: ClaimRef,
        /// What.
        note: Note,
    },
    /// A VolumeSnapshotContent is to be there, with its status. One of this name that is there already is left as it is, but for a status
    /// that does not tell yet that it may be used.
    PublishContent {
        /// Its name.
        name: String,
        /// The object with its status, as JSON.
        object: String,
    },
    /// What a VolumeSnapshotContent stood for is gone, or goes on without it: it is deleted and loses our finalizer.
    RemoveContent {
        /// The VolumeSnapshotContent's name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// A VolumeSnapshot's status tells that it may be used, and of no error.
    Taken {
        /// Which.
        snapshot: ClaimRef,
        /// The VolumeSnapshotContent that it is bound to.
        content: String,
        /// The least that a claim has to ask for that begins with it.
        bytes: u64,
        /// When it was taken (RFC 3339), where that is known.
        at: Option<String>,
    },
    /// An event of a VolumeSnapshot, and the error in its status.
    TellSnapshot {
        /// Whose.
        snapshot: ClaimRef,
        /// What.
        note: Note,
    },
}

impl VolumeWish {
    /// What it concerns: writes to one object never run side by side.
    pub fn object(&self) -> String {
        match self {
            Self::Publish { name, .. } | Self::Grown { name, .. } | Self::Remove { name, .. } => {
                format!("volume {name}")
            }
            Self::Hold { name, .. }
            | Self::Attached { name, .. }
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
