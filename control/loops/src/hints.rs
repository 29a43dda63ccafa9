//! The little of a record that whoever watches or walks over all of them needs: most of a record is never parsed then.
//!
//! Always true: names and meaning are those of the records in `control/records`.

use control_records::{OperationStatus, Rung};
use jiff::Timestamp;
use serde::Deserialize;

/// Of a [`control_records::ClusterRecord`].
#[derive(Debug, Deserialize)]
pub(crate) struct ClusterHint {
    pub(crate) uid: String,
}

/// Of a [`control_records::MachineRecord`].
#[derive(Debug, Deserialize)]
pub(crate) struct MachineHint {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) deleting: bool,
    assignment: Option<AssignmentHint>,
    #[serde(default)]
    repair: RepairHint,
}

#[derive(Debug, Default, Deserialize)]
struct RepairHint {
    #[serde(default)]
    rung: Rung,
}

#[derive(Debug, Deserialize)]
struct AssignmentHint {
    cluster: String,
}

impl MachineHint {
    /// The uid of the cluster that it was given to.
    pub(crate) fn cluster(&self) -> Option<&str> {
        self.assignment.as_ref().map(|given| given.cluster.as_str())
    }

    /// Whether it needs no repair and has been well for a while since the last one.
    pub(crate) fn is_well(&self) -> bool {
        self.repair.rung == Rung::None
    }
}

/// Of an [`control_records::OperationRecord`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OperationHint {
    pub(crate) id: String,
    pub(crate) cluster: String,
    pub(crate) status: OperationStatus,
    pub(crate) ended_at: Option<Timestamp>,
}
