//! Administrators of a cluster among the users of the stamp's directory: the members of
//! `aadProfile.adminGroupObjectIDs`. Their tokens contain their groups, and Kubernetes' own role does the
//! rest.

use cluster_api::Watch;
use serde_json::{Value, json};

use crate::{Addon, Edits, Place, health, managed};

pub(crate) const ADMINS: Addon = Addon {
    name: "directory-admins",
    about: "Groups of the stamp's directory that administer the cluster (`aadProfile.adminGroupObjectIDs`)",
    images: &[],
    built: &[],
    watches: &WATCHES,
    reads: &[],
    deployments: &[],
    health: health::available,
    edits: Edits::PutBack,
    replaced_by: None,
    leaves: &[],
    // Also without a group: earlier bindings must be removed.
    wanted: |spec| spec.directory.is_some(),
    objects,
};

const WATCHES: [Watch; 1] = [managed(
    "rbac.authorization.k8s.io/v1",
    "ClusterRoleBinding",
    None,
)];
/// The name in AKS.
const NAME: &str = "aks-cluster-admin-binding-aad";

fn objects(place: &Place<'_>) -> Vec<Value> {
    let directory = place.spec.directory.as_ref();
    let groups = directory.into_iter().flat_map(|directory| &directory.admins);
    let subjects: Vec<Value> = groups
        .map(|group| json!({ "kind": "Group", "name": group, "apiGroup": "rbac.authorization.k8s.io" }))
        .collect();
    vec![json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": NAME },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": subjects
    })]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AddonOptions, manifests};
    use cluster_spec::{ClusterSpec, DirectoryAccess, testkit};

    #[test]
    fn the_groups_are_bound_and_those_of_before_go() {
        let binding = |admins: &[&str]| {
            let spec = ClusterSpec {
                directory: Some(DirectoryAccess {
                    tenant: "t".to_owned(),
                    admins: admins.iter().map(|admin| (*admin).to_owned()).collect(),
                    roles: false,
                }),
                ..testkit::cluster()
            };
            let all = manifests(&spec, &AddonOptions::default(), &[]);
            let found = all.into_iter().find(|object| object["metadata"]["name"] == NAME);
            found.unwrap()["subjects"].clone()
        };
        assert_eq!(binding(&["one", "two"])[1]["name"], "two");
        assert_eq!(binding(&[]), json!([]));
        let plain = manifests(&testkit::cluster(), &AddonOptions::default(), &[]);
        assert!(!plain.iter().any(|object| object["metadata"]["name"] == NAME));
    }
}
