//! All problems of a body, for one response.

use arm_wire::{ArmError, Detail, ErrorCode};

/// Further problems are left out: such a body is junk, and the response must stay small.
const MAX_PROBLEMS: usize = 50;

/// Collects problems; at most one per field.
#[derive(Debug, Default)]
pub struct Problems {
    details: Vec<Detail>,
}

impl Problems {
    /// Adds a problem, unless the field has one already (later ones follow from the first).
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

    /// Whether further problems are left out.
    pub fn is_full(&self) -> bool {
        self.details.len() >= MAX_PROBLEMS
    }

    /// Whether this field has a problem.
    pub fn has(&self, target: &str) -> bool {
        self.details
            .iter()
            .any(|detail| detail.target.as_deref() == Some(target))
    }

    /// Whether this field, or one within it, has a problem.
    pub fn has_within(&self, target: &str) -> bool {
        let within = |own: &str| {
            own.strip_prefix(target)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.details
            .iter()
            .any(|detail| detail.target.as_deref().is_some_and(within))
    }

    /// `Ok` without problems.
    ///
    /// # Errors
    /// When there are problems: all of them.
    pub fn into_result(self) -> Result<(), ArmError> {
        ArmError::from_details(self.details).map_or(Ok(()), Err)
    }
}
