//! Managed namespaces of clusters, among their children: `/c/{uid}/child/managednamespaces/{name}`.
//!
//! Always true: a record is written by requests and removed by the cluster's loop, once nothing of what it stands for is the stamp's any more;
//! what the loop has seen of it is in [`ObservedRecord::namespaces`](crate::ObservedRecord::namespaces), by the record's id, so that a resource
//! that is made anew under the same name begins with nothing.

use std::collections::BTreeMap;

use cluster_spec::NamespaceSpec;
use serde::{Deserialize, Serialize};

use crate::{SystemData, child};

/// What namespaces are called among children.
const KIND: &str = "managedNamespaces";

/// A managed namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceRecord {
    /// Format.
    pub v: u32,
    /// Its name, which is the Namespace's.
    pub name: String,
    /// Its identity: one that is made anew under the same name gets another.
    pub id: String,
    /// Grows by one with each accepted change.
    pub generation: u64,
    /// The same for changes of what is to be in the cluster: tags are not.
    pub wished: u64,
    /// What is to be in the cluster.
    pub spec: NamespaceSpec,
    /// Tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Whether it is to go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// Ids of its operations that may not have ended, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<String>,
    /// Who made and last changed it.
    pub system_data: SystemData,
}

/// What the loop has seen of a managed namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceState {
    /// Of which record: [`NamespaceRecord::id`].
    pub id: String,
    /// Whether the Namespace was made for it or taken over.
    pub held: bool,
    /// The [`NamespaceRecord::wished`] that this is about; 0: of none yet.
    pub wished: u64,
    /// Why that could not be reached, with a next step; `None`: it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl NamespaceRecord {
    /// The prefix of a cluster's namespaces.
    pub fn all(uid: &str) -> String {
        child::key(uid, KIND, "")
    }

    /// Its key; case is ignored.
    pub fn key(uid: &str, name: &str) -> String {
        child::key(uid, KIND, name)
    }

    /// Whether a key, without the cluster's prefix, is a namespace's.
    pub fn is_key(rest: &str) -> bool {
        rest.starts_with("child/managednamespaces/")
    }

    /// What was seen of this one, of all that was seen.
    pub fn state<'s>(&self, seen: &'s BTreeMap<String, NamespaceState>) -> Option<&'s NamespaceState> {
        seen.get(&self.name).filter(|state| state.id == self.id)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::key;

    fn record() -> NamespaceRecord {
        NamespaceRecord {
            v: 1,
            name: "dev".to_owned(),
            id: "r1".to_owned(),
            generation: 2,
            wished: 1,
            spec: NamespaceSpec::default(),
            tags: BTreeMap::new(),
            deleting: false,
            operations: vec!["o".to_owned()],
            system_data: SystemData {
                created_at: Timestamp::UNIX_EPOCH,
                created_by: "ada".to_owned(),
                created_by_type: "User".to_owned(),
                modified_at: Timestamp::UNIX_EPOCH,
                modified_by: "ada".to_owned(),
                modified_by_type: "User".to_owned(),
            },
        }
    }

    #[test]
    fn a_namespace_is_a_child_of_its_cluster() {
        let name = NamespaceRecord::key("u", "Dev");
        assert_eq!(name, NamespaceRecord::key("u", "dev"));
        assert!(name.starts_with(&NamespaceRecord::all("u")) && name.starts_with(&child::all("u")));
        let (uid, rest) = key::of_cluster(&name).unwrap();
        assert!(uid == "u" && NamespaceRecord::is_key(rest));
        assert!(!NamespaceRecord::is_key("child/credentials/a1"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = serde_json::to_string(&record()).unwrap();
        assert!(
            text.contains(r#""spec":{"adoptionPolicy":"Never","deletePolicy":"Keep"}"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<NamespaceRecord>(&text).unwrap(), record());
    }

    #[test]
    fn what_was_seen_of_another_of_the_name_is_nothing() {
        let of = |id: &str| NamespaceState {
            id: id.to_owned(),
            ..NamespaceState::default()
        };
        let seen = |id: &str| BTreeMap::from([("dev".to_owned(), of(id))]);
        assert_eq!(record().state(&seen("r1")), Some(&of("r1")));
        assert_eq!(record().state(&seen("r0")), None);
    }
}
