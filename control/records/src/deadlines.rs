//! What the support policies' deadlines rest on: whether they act in the stamp, and which notices of a cluster's deadlines were given.

use control_store::{Store, StoreError, get_record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::child;

/// The key of [`PolicyRecord`].
pub const POLICY: &str = "/deadlines";

/// What is done when a deadline has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AtDeadline {
    /// It is told, and nothing else.
    #[default]
    Tell,
    /// What the rule says.
    Act,
}

impl AtDeadline {
    /// As in requests and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tell => "tell",
            Self::Act => "act",
        }
    }
}

/// What a stamp does at the deadlines of its support policies, `/deadlines`. Where there is no record, it only tells of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRecord {
    /// Format.
    pub v: u32,
    /// What it does.
    pub deadlines: AtDeadline,
    /// Since when.
    pub at: Timestamp,
    /// Who said so.
    pub by: String,
}

/// What a stamp does at deadlines, as somebody has said; `None`: nobody has.
///
/// # Errors
/// What the store says.
pub async fn policy(store: &dyn Store) -> Result<Option<PolicyRecord>, StoreError> {
    let found = get_record::<PolicyRecord>(store, POLICY).await?;
    Ok(found.map(|found| found.value))
}

/// The notices of a cluster's deadlines, `/c/{uid}/child/deadlines/notices`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NoticesRecord {
    /// Format.
    pub v: u32,
    /// What was to be done at the deadlines when they were given: notices of a stamp that only told of them are none of what is done.
    pub of: AtDeadline,
    /// They.
    pub notices: Vec<Notice>,
    /// What was told last of a deadline that has come and waits, for people; empty: none does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waits: String,
}

/// The notices of one deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// The rule's id, e.g. `L1`.
    pub rule: String,
    /// What is done.
    pub deed: String,
    /// When its time began.
    pub begun: Timestamp,
    /// When the first notice was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    /// How many are behind.
    #[serde(default)]
    pub count: u32,
    /// Whether it was told that the time has come, and nothing is left to be told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

/// The key of a cluster's [`NoticesRecord`].
pub fn notices_key(uid: &str) -> String {
    child::key(uid, "deadlines", "notices")
}
