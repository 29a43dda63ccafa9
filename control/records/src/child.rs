//! Child resources of clusters that are documents, at `/c/{uid}/child/{type}/{name}` in lower case.
//!
//! Some bind a principal: one that is trusted with the cluster ([`TRUSTED_BINDINGS`]: its loop grants in the cluster what they say), or one that
//! the cluster's workloads may be ([`IDENTITY_BINDINGS`]: the token service goes by them). Both hold as long as their record is there.

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

/// The type of trusted access role bindings.
pub const TRUSTED_BINDINGS: &str = "trustedAccessRoleBindings";
/// The type of identity bindings.
pub const IDENTITY_BINDINGS: &str = "identityBindings";

/// A child resource of a cluster that is a document: no machine is made for it, and it goes with its cluster.
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
    /// Object id of the principal that it binds, as it was when it was written: an identity that is made anew under the same name is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Who made and last changed it.
    pub system_data: SystemData,
}

/// Whether a key, without the cluster's prefix, is that of a trusted access role binding.
pub fn is_trusted_binding(rest: &str) -> bool {
    let kind = rest
        .strip_prefix("child/")
        .and_then(|rest| rest.split('/').next());
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(TRUSTED_BINDINGS))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_are_known_by_their_keys() {
        let rest = |kind: &str| key("u", kind, "One").replacen("/c/u/", "", 1);
        assert!(is_trusted_binding(&rest(TRUSTED_BINDINGS)));
        assert!(!is_trusted_binding(&rest(IDENTITY_BINDINGS)));
        assert!(!is_trusted_binding("desired"));
    }

    #[test]
    fn a_child_of_an_earlier_release_binds_nobody() {
        let text = r#"{ "v": 1, "name": "default", "generation": 1, "properties": {}, "systemData": {
            "createdAt": "2026-01-01T00:00:00Z", "createdBy": "a", "createdByType": "User",
            "modifiedAt": "2026-01-01T00:00:00Z", "modifiedBy": "a", "modifiedByType": "User" } }"#;
        let record: ChildRecord = serde_json::from_str(text).unwrap();
        assert_eq!(record.principal, None);
        assert!(!serde_json::to_string(&record).unwrap().contains("principal"));
    }
}
