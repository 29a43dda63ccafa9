//! All problems of a body, for one answer.

use arm_wire::{ArmError, Detail, ErrorCode};

/// More than this many are not told: the body is junk then, and the answer must stay small.
const MAX_PROBLEMS: usize = 50;

/// Collects problems; at most one per field.
#[derive(Debug, Default)]
pub struct Problems {
    details: Vec<Detail>,
}

impl Problems {
    /// Notes a problem, unless the field has one already (what follows from a first problem is noise).
    pub fn add(&mut self, code: ErrorCode, target: impl Into<String>, message: impl Into<String>) {
        let target = target.into();
        if self.is_full() || self.has(&target) {
            return;
        }
        self.details.push(Detail {
            code,
            message: message.into(),
            target: Some(target),
        });
    }

    /// Whether no more are taken.
    pub fn is_full(&self) -> bool {
        self.details.len() >= MAX_PROBLEMS
    }

    /// Whether this field has a problem.
    pub fn has(&self, target: &str) -> bool {
        self.details
            .iter()
            .any(|detail| detail.target.as_deref() == Some(target))
    }

    /// Nothing, or the answer.
    ///
    /// # Errors
    /// When there are problems: all of them.
    pub fn into_result(self) -> Result<(), ArmError> {
        ArmError::from_details(self.details).map_or(Ok(()), Err)
    }
}
