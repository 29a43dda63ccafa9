//! The roles of trusted access ([`TRUSTED_ROLES`]), where the directory is known: who has them is said by bindings that the control loops keep.

use cluster_api::Watch;
use cluster_spec::{TRUSTED_ROLES, TrustedRole, TrustedRule};
use serde_json::{Value, json};

use crate::{Addon, Edits, health, managed};

pub(crate) const TRUSTED_ACCESS: Addon = Addon {
    name: "trusted-access",
    about: "Roles that `az aks trustedaccess rolebinding` gives to identities of the stamp (with `aadProfile`)",
    images: &[],
    built: &[],
    watches: &WATCHES,
    reads: &[],
    deployments: &[],
    health: health::available,
    edits: Edits::PutBack,
    replaced_by: None,
    leaves: &[],
    wanted: |spec| spec.directory.is_some(),
    objects: |_| TRUSTED_ROLES.iter().map(object).collect(),
};

const WATCHES: [Watch; 1] = [managed("rbac.authorization.k8s.io/v1", "ClusterRole", None)];

/// What a role is called in a cluster.
pub(crate) fn role_name(role: &TrustedRole) -> String {
    format!("landfall:trusted-role:{}", role.name)
}

fn object(role: &TrustedRole) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": role_name(role) },
        "rules": role.rules.iter().map(rule).collect::<Vec<_>>(),
    })
}

fn rule(rule: &TrustedRule) -> Value {
    if rule.paths.is_empty() {
        json!({ "apiGroups": rule.groups, "resources": rule.resources, "verbs": rule.verbs })
    } else {
        json!({ "nonResourceURLs": rule.paths, "verbs": rule.verbs })
    }
}
