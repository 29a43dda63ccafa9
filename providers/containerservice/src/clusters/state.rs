//! `provisioningState`, derived when it is read. Pure.
//!
//! Desired, observed and operation are three things: nothing here is stored, so a failure heals by itself as soon as
//! observed has caught up, and losing an operation's row changes nothing but the word for "not yet".

use control_records::{ClusterRecord, ObservedRecord, OperationRecord, OperationStatus, Part};

use super::hooks::under_way;

/// A provisioning state as clients know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProvisioningState {
    /// Never reached yet.
    Creating,
    /// Reached once, not the last change.
    Updating,
    /// The same, where a feature has a word of its own for the change.
    UnderWay(&'static str),
    /// On its way out.
    Deleting,
    /// What is, is what was asked for.
    Succeeded,
    /// The last operation ran out of time; the loop keeps trying.
    Failed,
    /// The last operation was aborted; what it did is being undone.
    Canceling,
    /// The last operation was aborted, and nothing was asked for since.
    Canceled,
}

impl ProvisioningState {
    /// As in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::Updating => "Updating",
            Self::UnderWay(word) => word,
            Self::Deleting => "Deleting",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Canceling => "Canceling",
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
    if let Some(state) = aborted(record, &Part::Base, reached >= record.generation, operation) {
        return state;
    }
    // What an operation asked for is there part by part, a moment before all of the cluster is said to be: who has waited for the operation is not
    // told then that it goes on.
    let is_whole = |operation: &OperationRecord| {
        operation.status == OperationStatus::Succeeded
            && operation.part.is_none()
            && operation.generation >= record.generation
    };
    if reached >= record.generation || operation.is_some_and(is_whole) {
        return ProvisioningState::Succeeded;
    }
    // What a stopped creation leaves behind is not a cluster that could be updated.
    let never = reached == 0 || (record.requests.reached.is_none() && record.requests.generation > 0);
    ended(operation).unwrap_or(if never {
        ProvisioningState::Creating
    } else {
        let word = operation.and_then(|operation| under_way(&operation.name));
        word.map_or(ProvisioningState::Updating, ProvisioningState::UnderWay)
    })
}

/// What an abort makes of a part: it stays `Canceled` until the next request about it.
fn aborted(
    record: &ClusterRecord,
    part: &Part,
    reached: bool,
    operation: Option<&OperationRecord>,
) -> Option<ProvisioningState> {
    let own = match part {
        // A request about any part of it is one about the cluster.
        Part::Base => record.generation,
        part => record.part_generation(part)?,
    };
    if record.requests.aborted.get(part) != Some(&own) {
        return None;
    }
    Some(match ended(operation) {
        Some(ProvisioningState::Failed) if !reached => ProvisioningState::Failed,
        _ if reached => ProvisioningState::Canceled,
        _ => ProvisioningState::Canceling,
    })
}

/// The state of a deleted pool whose machines are not gone yet.
pub(crate) fn leaving_state(operation: Option<&OperationRecord>) -> ProvisioningState {
    match ended(operation) {
        Some(ProvisioningState::Failed) => ProvisioningState::Failed,
        _ => ProvisioningState::Deleting,
    }
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
    let part = Part::pool(pool);
    let early = observed.and_then(|observed| observed.reached.get(&part));
    let reached = reached >= own || early.is_some_and(|early| *early >= own);
    if let Some(state) = aborted(record, &part, reached, operation) {
        return state;
    }
    if reached {
        return ProvisioningState::Succeeded;
    }
    let known = observed.is_some_and(|observed| observed.ready_nodes.contains_key(pool));
    ended(operation).unwrap_or(if known {
        power(record, pool).map_or(ProvisioningState::Updating, ProvisioningState::UnderWay)
    } else {
        ProvisioningState::Creating
    })
}

/// What a change of a pool is called that makes its nodes go for a while, or come back.
fn power(record: &ClusterRecord, pool: &str) -> Option<&'static str> {
    let now = record.spec().pools.iter().find(|spec| spec.name == pool)?;
    let reached = record.requests.reached.as_deref()?;
    let mut pools = reached.state.spec().pools.iter();
    let before = pools.find(|spec| spec.incarnation == now.incarnation)?;
    match (before.stopped, now.stopped) {
        (false, true) => Some("Stopping"),
        (true, false) => Some("Starting"),
        _ => None,
    }
}
