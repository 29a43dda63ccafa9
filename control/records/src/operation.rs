//! Long-running requests: what was asked of which part of what, how far that is, how it ended and what came of it.
//!
//! Always true: a record is written with the change that was asked for, and changed only by what follows it; it is never read
//! to decide what is done. What came of it ([`Output`]) is bounded.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Owner, Part};

/// How long a request may take before its operation ends as failed and says what it waits for. What was wished is still done.
pub const OPERATION_BOUND: Duration = Duration::from_secs(20 * 60);
/// The largest [`Output`], bytes of its JSON: it is read and written whole, in one transaction of any store.
pub const MOST_OUTPUT: usize = 512 << 10;

/// A long-running request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationRecord {
    /// Format.
    pub v: u32,
    /// GUID.
    pub id: String,
    /// What was asked, e.g. `ManagedClusters_CreateOrUpdate`.
    pub name: String,
    /// ARM id of the resource.
    pub resource_id: String,
    /// What it belongs to.
    pub owner: Owner,
    /// It ends when the observed generation is at least this (for a deletion: when the cluster is gone).
    pub generation: u64,
    /// The part of the owner that it is about, where it is about one only.
    pub part: Option<Part>,
    /// Whether it made its resource. A later change of the resource does not take its place.
    pub creates: bool,
    /// Whether it is a deletion of the whole resource.
    pub deletes: bool,
    /// How far it is.
    pub progress: Progress,
    /// Where it is.
    pub status: OperationStatus,
    /// When the request was accepted.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it failed or was cancelled.
    pub error: Option<OperationError>,
    /// Object id of who asked for it, who may follow it to its end, whatever becomes of the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<String>,
    /// What came of it, where that is more than the resource as it is by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Output>,
}

impl OperationRecord {
    /// A request that was accepted now: about all of its owner, and a change of what is there.
    pub fn accepted(
        id: impl Into<String>,
        name: impl Into<String>,
        resource_id: impl Into<String>,
        owner: Owner,
        generation: u64,
        now: Timestamp,
    ) -> Self {
        Self {
            v: 2,
            id: id.into(),
            name: name.into(),
            resource_id: resource_id.into(),
            owner,
            generation,
            part: None,
            creates: false,
            deletes: false,
            progress: Progress::default(),
            status: OperationStatus::InProgress,
            started_at: now,
            ended_at: None,
            error: None,
            asked_by: None,
            result: None,
        }
    }

    /// Its key.
    pub fn key(&self) -> String {
        self.owner.operation(&self.id)
    }

    /// The name of the pool that it is about, where it is about one only.
    pub fn pool(&self) -> Option<&str> {
        self.part.as_ref()?.pool_name()
    }
}

/// How far an operation is. Never goes back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// Thousandths of what it is about that were there when it was first looked at.
    pub before: Option<u32>,
    /// 0..=100; 100 only once it has succeeded.
    pub percent: u32,
    /// What is going on, for people; empty where nothing is known or left.
    pub step: String,
    /// The extended deadline of an operation that replaces nodes: it does not fail for lack of time before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// How long it was expected to take when it was accepted, seconds, where it replaces nodes or upgrades a control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
}

/// Where an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationStatus {
    /// Not ended.
    InProgress,
    /// Reached.
    Succeeded,
    /// Out of time. The loop keeps trying; the next PUT is accepted.
    Failed,
    /// Superseded by a deletion, or aborted.
    Canceled,
}

/// Why an operation did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationError {
    /// One of the codes of `arm/wire`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// What an operation brought, e.g. what a command printed: the answer of its `operationresults`. At most [`MOST_OUTPUT`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct Output(Value);

impl Output {
    /// The answer.
    pub fn value(&self) -> &Value {
        &self.0
    }
}

impl TryFrom<Value> for Output {
    type Error = OutputTooLarge;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        let size = value.to_string().len();
        if size > MOST_OUTPUT {
            return Err(OutputTooLarge { size });
        }
        Ok(Self(value))
    }
}

/// An output that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the operation's output has {size} bytes and at most {MOST_OUTPUT} are kept; cut it before it is written down"
)]
pub struct OutputTooLarge {
    /// Its size.
    pub size: usize,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_output_is_kept_as_it_is_and_bounded() {
        let output = Output::try_from(json!({ "exitCode": 0, "logs": "ok" })).unwrap();
        let text = serde_json::to_string(&output).unwrap();
        assert_eq!(text, r#"{"exitCode":0,"logs":"ok"}"#);
        assert_eq!(serde_json::from_str::<Output>(&text).unwrap(), output);
        // Two quotes belong to the text.
        let largest = json!("x".repeat(MOST_OUTPUT - 2));
        Output::try_from(largest).unwrap();
        let error = Output::try_from(json!("x".repeat(MOST_OUTPUT - 1))).unwrap_err();
        assert_eq!(
            error,
            OutputTooLarge {
                size: MOST_OUTPUT + 1
            }
        );
        assert!(error.to_string().contains("524289 bytes"), "{error}");
    }
}
