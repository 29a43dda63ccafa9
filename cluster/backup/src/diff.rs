//! The changes that a restore would make, computed before it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Entry;

/// A state without its values: enough for a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index(BTreeMap<Vec<u8>, [u8; 16]>);

impl Index {
    /// Adds a key.
    pub fn add(&mut self, entry: &Entry) {
        let mut short = [0; 16];
        short.copy_from_slice(&Sha256::digest(&entry.value)[..16]);
        self.0.insert(entry.key.clone(), short);
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The differences after a restore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// Objects that would be reverted.
    pub change: u64,
    /// Objects that would appear again.
    pub appear: u64,
    /// Objects that would disappear.
    pub disappear: u64,
    /// Namespaces that would appear again.
    pub namespaces_appear: Vec<String>,
    /// Namespaces that would disappear.
    pub namespaces_disappear: Vec<String>,
    /// Heartbeats and events that would differ: they change by themselves and are not counted elsewhere.
    pub passing: u64,
    /// By resource and namespace, the most changed first.
    pub rows: Vec<Row>,
}

/// A part of a [`Preview`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// e.g. `deployments`, `crontabs.stable.example.com`.
    pub resource: String,
    /// Empty for resources without a namespace.
    pub namespace: String,
    /// Objects that would be reverted.
    pub change: u64,
    /// Objects that would appear again.
    pub appear: u64,
    /// Objects that would disappear.
    pub disappear: u64,
}

/// The object of a Kubernetes key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// e.g. `deployments`.
    pub resource: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Parses a key of Kubernetes, `/registry/…`.
pub fn object(key: &[u8]) -> Object {
    let text = String::from_utf8_lossy(key);
    let Some(rest) = text.strip_prefix("/registry/") else {
        return Object {
            resource: "others".to_owned(),
            namespace: String::new(),
            name: text.into_owned(),
        };
    };
    let mut parts: Vec<&str> = rest.split('/').collect();
    let first = if parts.is_empty() { "" } else { parts.remove(0) };
    let resource = match (first, parts.first().copied()) {
        ("services", Some(kind @ ("specs" | "endpoints"))) => {
            parts.remove(0);
            if kind == "specs" { "services" } else { "endpoints" }.to_owned()
        }
        ("minions", _) => "nodes".to_owned(),
        // Keys of custom resources start with the group.
        (group, Some(resource)) if group.contains('.') => {
            let full = format!("{resource}.{group}");
            parts.remove(0);
            full
        }
        (resource, _) => resource.to_owned(),
    };
    let namespace = if parts.len() > 1 { parts.remove(0) } else { "" };
    Object {
        resource,
        namespace: namespace.to_owned(),
        name: parts.join("/"),
    }
}

/// Whether objects of this resource are written all the time by the cluster itself, and expire.
fn passes(resource: &str) -> bool {
    matches!(resource, "leases" | "events" | "masterleases")
}

/// Compares the current state with an earlier one.
pub fn preview(now: &Index, then: &Index) -> Preview {
    let mut preview = Preview::default();
    let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
    let keys: BTreeSet<_> = now.0.keys().chain(then.0.keys()).collect();
    for key in keys {
        let (is, was) = (now.0.get(key), then.0.get(key));
        if is == was {
            continue;
        }
        let object = object(key);
        if passes(&object.resource) {
            preview.passing += 1;
            continue;
        }
        let row = rows
            .entry((object.resource.clone(), object.namespace.clone()))
            .or_insert_with(|| Row {
                resource: object.resource.clone(),
                namespace: object.namespace.clone(),
                ..Row::default()
            });
        let namespace = object.resource == "namespaces";
        match (is, was) {
            (None, _) => {
                preview.appear += 1;
                row.appear += 1;
                if namespace {
                    preview.namespaces_appear.push(object.name);
                }
            }
            (_, None) => {
                preview.disappear += 1;
                row.disappear += 1;
                if namespace {
                    preview.namespaces_disappear.push(object.name);
                }
            }
            _ => {
                preview.change += 1;
                row.change += 1;
            }
        }
    }
    preview.rows = rows.into_values().collect();
    preview
        .rows
        .sort_by_key(|row| std::cmp::Reverse(row.change + row.appear + row.disappear));
    preview
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(keys: &[(&str, &str)]) -> Index {
        let mut index = Index::default();
        for (key, value) in keys {
            index.add(&Entry {
                key: key.as_bytes().to_vec(),
                value: value.as_bytes().to_vec(),
                revision: 1,
                lease: 0,
            });
        }
        index
    }

    #[test]
    fn keys_tell_resource_namespace_and_name() {
        for (key, resource, namespace, name) in [
            ("/registry/configmaps/default/a", "configmaps", "default", "a"),
            ("/registry/namespaces/team", "namespaces", "", "team"),
            ("/registry/minions/n1", "nodes", "", "n1"),
            (
                "/registry/services/specs/default/web",
                "services",
                "default",
                "web",
            ),
            (
                "/registry/services/endpoints/default/web",
                "endpoints",
                "default",
                "web",
            ),
            (
                "/registry/stable.example.com/crontabs/default/c",
                "crontabs.stable.example.com",
                "default",
                "c",
            ),
            (
                "/registry/apiregistration.k8s.io/apiservices/v1.apps",
                "apiservices.apiregistration.k8s.io",
                "",
                "v1.apps",
            ),
            ("compact_rev_key", "others", "", "compact_rev_key"),
        ] {
            let found = object(key.as_bytes());
            assert_eq!(
                (
                    found.resource.as_str(),
                    found.namespace.as_str(),
                    found.name.as_str()
                ),
                (resource, namespace, name)
            );
        }
    }

    #[test]
    fn a_preview_counts_by_resource_and_namespace() {
        let now = index(&[
            ("/registry/configmaps/a/1", "new"),
            ("/registry/configmaps/a/2", "same"),
            ("/registry/configmaps/a/3", "made since"),
            ("/registry/namespaces/since", ""),
            ("/registry/leases/kube-node-lease/n", "9"),
        ]);
        let then = index(&[
            ("/registry/configmaps/a/1", "old"),
            ("/registry/configmaps/a/2", "same"),
            ("/registry/configmaps/b/4", "deleted since"),
            ("/registry/namespaces/b", ""),
            ("/registry/leases/kube-node-lease/n", "1"),
        ]);
        let preview = preview(&now, &then);
        assert_eq!(
            (preview.change, preview.appear, preview.disappear, preview.passing),
            (1, 2, 2, 1)
        );
        assert_eq!(preview.namespaces_appear, ["b"]);
        assert_eq!(preview.namespaces_disappear, ["since"]);
        assert_eq!(preview.rows.len(), 3);
        let first = &preview.rows[0];
        assert_eq!(
            (first.resource.as_str(), first.change, first.disappear),
            ("configmaps", 1, 1)
        );
    }

    #[test]
    fn nothing_changed_is_nothing_to_do() {
        let state = index(&[("/registry/configmaps/a/1", "x")]);
        assert_eq!(preview(&state, &state), Preview::default());
    }
}
