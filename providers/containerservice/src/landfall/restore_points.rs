//! Restore points: their format, and the error for a time that cannot be restored.

use arm_wire::{ArmError, ErrorCode};
use cluster_backup::chain::NotCovered;
use jiff::Timestamp;

/// Milliseconds since 1970 as a time.
pub(crate) fn time(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds)
        .unwrap_or_default()
        .to_string()
}

/// The error for an invalid time.
pub(crate) fn refused(message: String) -> ArmError {
    ArmError::new(ErrorCode::INVALID_PARAMETER, message).target("at")
}

/// The error for a time that cannot be restored.
pub(crate) fn not_covered(why: &NotCovered) -> ArmError {
    match why {
        NotCovered::Nothing => ArmError::new(
            ErrorCode::RESOURCE_NOT_FOUND,
            "There is no backup of this cluster yet. The first is made within seconds after its control plane runs.",
        ),
        NotCovered::Outside { before, after } => {
            let name = |at: &Option<i64>| at.map_or_else(|| "none".to_owned(), time);
            refused(format!(
                "That second cannot be restored. The nearest that can are {} before and {} after it.",
                name(before),
                name(after)
            ))
        }
    }
}
