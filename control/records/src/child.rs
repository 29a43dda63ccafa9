//! Child resources of clusters that are documents, at `/c/{uid}/child/{type}/{name}` in lower case.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Who made and last changed a resource, and when: ARM's `systemData`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemData {
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// `User` or `Application`.
    pub created_by_type: String,
    /// When it was last changed.
    pub modified_at: Timestamp,
    /// By whom.
    pub modified_by: String,
    /// `User` or `Application`.
    pub modified_by_type: String,
}

/// A child resource of a cluster that is a document: nothing is made for it, and it goes with its cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChildRecord {
    /// Format.
    pub v: u32,
    /// In the casing last given.
    pub name: String,
    /// Grows by one with each accepted change.
    pub generation: u64,
    /// Its canonical properties, newest api-version, defaults filled in.
    pub properties: Value,
    /// Who made and last changed it.
    pub system_data: SystemData,
}

/// The prefix of a cluster's children.
pub fn all(uid: &str) -> String {
    format!("/c/{uid}/child/")
}

/// A child's key. With an empty name, the prefix of those of a type.
pub fn key(uid: &str, kind: &str, name: &str) -> String {
    format!(
        "/c/{uid}/child/{}/{}",
        kind.to_ascii_lowercase(),
        name.to_ascii_lowercase()
    )
}
