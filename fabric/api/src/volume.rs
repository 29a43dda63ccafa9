//! Volumes: disks with their own lifetime, attached to one machine at a time, and shares, used by all machines
//! at once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{MachineId, VolumeId};

/// A volume: data that outlives the machines it is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpec {
    /// Its identity.
    pub id: VolumeId,
    /// Its size, a multiple of 1 MiB. Space on the host is used as data is written.
    pub bytes: u64,
    /// The volume that is copied, in its state at that time, into the new one; `None`: it starts empty.
    /// Ignored once the volume exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<VolumeId>,
    /// Whether it is a share: it is created with a filesystem, which any number of machines may mount at the
    /// same time. It is never attached: all machines find it after its creation, and after a reboot of the
    /// host once it is ensured again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// Free labels, returned by [`Fabric::list`](crate::Fabric::list).
    pub labels: BTreeMap<String, String>,
}

/// A volume as the fabric sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSeen {
    /// Its identity.
    pub id: VolumeId,
    /// Its size, as its machine sees it. 0 while it is partial: its creation or deletion was interrupted, and
    /// `ensure_volume` or `delete_volume` completes it.
    pub bytes: u64,
    /// Its labels; empty when the driver's metadata cannot be read.
    pub labels: BTreeMap<String, String>,
    /// The machine it is attached to. That machine may no longer exist: the volume must be detached before it
    /// is attached to another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<MachineId>,
    /// Whether it is a share that machines can mount.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
}
