//! `provisioningState`, derived when it is read. Pure.
//!
//! Desired, observed and operation are three things: nothing here is stored, so a failure heals by itself as soon as
//! observed has caught up, and losing an operation's row changes nothing but the word for "not yet".

use control_records::{ClusterRecord, ObservedRecord, OperationRecord, OperationStatus};

/// A provisioning state as clients know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProvisioningState {
    /// Never reached yet.
    Creating,
    /// Reached once, not the last change.
    Updating,
    /// On its way out.
    Deleting,
    /// What is, is what was asked for.
    Succeeded,
    /// The last operation ran out of time; the loop keeps trying.
    Failed,
    /// The last operation was cancelled.
    Canceled,
}

impl ProvisioningState {
    /// As in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::Updating => "Updating",
            Self::Deleting => "Deleting",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
        }
    }
}

/// Whether the operation of the last change has ended without success.
fn ended(operation: Option<&OperationRecord>) -> Option<ProvisioningState> {
    match operation?.status {
        OperationStatus::Failed => Some(ProvisioningState::Failed),
        OperationStatus::Canceled => Some(ProvisioningState::Canceled),
        OperationStatus::InProgress | OperationStatus::Succeeded => None,
    }
}

/// A cluster's state. `operation` is the one of its last change, if it is still there.
pub fn cluster_state(
    record: &ClusterRecord,
    observed: Option<&ObservedRecord>,
    operation: Option<&OperationRecord>,
) -> ProvisioningState {
    let reached = observed.map_or(0, |observed| observed.generation);
    if record.deleting {
        // A deletion is not called off: it only fails, for now, or goes on.
        return match ended(operation) {
            Some(ProvisioningState::Failed) => ProvisioningState::Failed,
            _ => ProvisioningState::Deleting,
        };
    }
    if reached >= record.generation {
        return ProvisioningState::Succeeded;
    }
    ended(operation).unwrap_or(if reached == 0 {
        ProvisioningState::Creating
    } else {
        ProvisioningState::Updating
    })
}

/// A pool's state: that of its own last change.
pub fn pool_state(
    record: &ClusterRecord,
    pool: &str,
    observed: Option<&ObservedRecord>,
    operation: Option<&OperationRecord>,
) -> ProvisioningState {
    let reached = observed.map_or(0, |observed| observed.generation);
    let own = record
        .pool_generations
        .get(pool)
        .copied()
        .unwrap_or(record.generation);
    if record.deleting {
        return cluster_state(record, observed, operation);
    }
    if reached >= own {
        return ProvisioningState::Succeeded;
    }
    let known = observed.is_some_and(|observed| observed.ready_nodes.contains_key(pool));
    ended(operation).unwrap_or(if known {
        ProvisioningState::Updating
    } else {
        ProvisioningState::Creating
    })
}
