//! The canonical body of a cluster's record: the place of its pools.

use arm_kernel::schema::Problems;
use arm_wire::{ArmError, ErrorCode};
use control_records::ClusterRecord;
use serde_json::Value;

/// Pools a cluster may have.
pub(crate) const MAX_POOLS: usize = 100;
/// The place of the pools in a cluster's body.
pub(crate) const POOLS: &str = "properties.agentPoolProfiles";

/// A pool's canonical properties.
pub(crate) fn pool_body<'a>(record: &'a ClusterRecord, name: &str) -> &'a Value {
    static NOTHING: Value = Value::Null;
    record
        .body()
        .pointer("/properties/agentPoolProfiles")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|pool| pool.get("name").and_then(Value::as_str) == Some(name))
        .unwrap_or(&NOTHING)
}

pub(crate) fn check_count(pools: usize, problems: &mut Problems) {
    if pools > MAX_POOLS {
        problems.add(
            ErrorCode::QUOTA_EXCEEDED,
            POOLS,
            format!("The cluster would have {pools} pools; at most {MAX_POOLS} are allowed."),
        );
    }
}

/// A body that is not an object.
pub(crate) fn not_an_object() -> ArmError {
    ArmError::new(
        ErrorCode::INVALID_REQUEST_CONTENT,
        "The request needs a body that is a JSON object.",
    )
}
