//! Volumes: disks with a life of their own, which one machine at a time may have, and shares, which all machines may have at once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{MachineId, VolumeId};

/// A volume: bytes that outlive the machines that have them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpec {
    /// Its identity.
    pub id: VolumeId,
    /// Its size, a multiple of 1 MiB. Room on the host is taken as it is written to.
    pub bytes: u64,
    /// The volume that it begins as a copy of, as that is while it is copied; `None`: it begins empty. Of no account once it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<VolumeId>,
    /// Whether it is a share: it is made with a filesystem, which any number of machines may use at the same time. Nobody is given it: all
    /// machines find it from the moment it was made, and again after a reboot of the host once it is ensured again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// Free labels, found again by [`Fabric::list`](crate::Fabric::list).
    pub labels: BTreeMap<String, String>,
}

/// A volume as the fabric sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSeen {
    /// Its identity.
    pub id: VolumeId,
    /// Its size, as the machine that has it sees it. 0 while it is there in part: its creation or deletion was cut short, and `ensure_volume` or
    /// `delete_volume` finishes it.
    pub bytes: u64,
    /// Its labels; empty when the driver's metadata cannot be read.
    pub labels: BTreeMap<String, String>,
    /// The machine that has it. There may be no such machine any more: the volume is to be detached before another gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<MachineId>,
    /// Whether it is a share and machines find it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
}
