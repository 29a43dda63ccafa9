//! A check of this host, and its result.

use serde::Serialize;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verdict {
    /// Fine.
    Ok,
    /// Works, with a warning.
    Warning,
    /// A program that the check needs is not installed.
    NotTried,
    /// Landfall cannot run in this state.
    Failed,
}

/// A check with its result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    /// The subject.
    pub(crate) name: &'static str,
    /// The result.
    pub(crate) verdict: Verdict,
    /// The finding.
    pub(crate) found: String,
    /// The next step, unless it passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

impl Check {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            next: None,
        }
    }
    pub(super) fn warning(name: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Warning,
            found: found.into(),
            next: Some(next.into()),
        }
    }
    pub(super) fn not_tried(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::NotTried,
            found: found.into(),
            next: None,
        }
    }
    /// Whether a program for the check was missing.
    pub(crate) fn is_not_tried(&self) -> bool {
        self.verdict == Verdict::NotTried
    }
    pub(super) fn failed(name: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Failed,
            found: found.into(),
            next: Some(next.into()),
        }
    }
}
