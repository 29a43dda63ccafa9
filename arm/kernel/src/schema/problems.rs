//! All problems of a body, for one response.

use std::sync::LazyLock;

use arm_wire::{ArmError, Detail, ErrorCode};
use serde_json::{Map, Value};

use crate::quote;

/// Further problems are left out: such a body is junk, and the response must stay small.
const MAX_PROBLEMS: usize = 50;

static NO_MEMBERS: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

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

    /// Adds that the resource has no such property.
    pub fn unknown_property(&mut self, path: &str) {
        let short: String = path.chars().take(64).collect();
        let message = format!("{} is not a property of this resource.", quote(&short));
        self.add(ErrorCode::UNKNOWN_PROPERTY, short, message);
    }

    /// Adds that a property has another value than it has to have.
    pub fn has_to_be(&mut self, path: &str, what: &str) {
        let message = format!("'{path}' has to be {what}.");
        self.add(ErrorCode::INVALID_PARAMETER, path, message);
    }

    /// The members of an object; none where it is absent, null, or no object, which is a problem.
    pub fn members<'a>(&mut self, value: Option<&'a Value>, path: &str) -> &'a Map<String, Value> {
        match value {
            None | Some(Value::Null) => &NO_MEMBERS,
            Some(Value::Object(members)) => members,
            Some(_) => {
                self.has_to_be(path, "an object");
                &NO_MEMBERS
            }
        }
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
