//! Who may do what, of those that Landfall itself makes credentials for.

use cluster_api::Watch;
use serde_json::{Value, json};

use crate::{Addon, Edits, health, managed};

/// The group that AKS's user credential stands for here, bound to `cluster-admin`. A group of its own, not `system:masters`,
/// so that an administrator can take it away.
pub const USERS_GROUP: &str = "landfall:cluster-users";
/// Who the monitoring credential is, bound to a read-only role.
pub const MONITORING_USER: &str = "landfall:monitoring";

pub(crate) const ROLES: Addon = Addon {
    name: "roles",
    about: "Roles of the API servers, of nodes, and of the credentials that `az aks get-credentials` hands out",
    images: &[],
    watches: &WATCHES,
    reads: &[],
    deployments: &[],
    health: health::available,
    edits: Edits::PutBack,
    wanted: |_| true,
    objects: |_| objects(),
};

const WATCHES: [Watch; 2] = [
    managed("rbac.authorization.k8s.io/v1", "ClusterRole", None),
    managed("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None),
];

fn objects() -> Vec<Value> {
    let binding = |name: &str, role: &str, kind: &str, subject: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": kind, "name": subject, "apiGroup": "rbac.authorization.k8s.io" }]
        })
    };
    vec![
        // The API server towards kubelets: logs, exec, port-forward.
        binding(
            "landfall:kubelet-clients",
            "system:kubelet-api-admin",
            "Group",
            "landfall:kubelet-clients",
        ),
        // A node may renew its own client certificate; the controller manager approves exactly that.
        binding(
            "landfall:node-client-renewal",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            "Group",
            "system:nodes",
        ),
        // AKS without Entra ID: the user credential may do everything.
        binding(USERS_GROUP, "cluster-admin", "Group", USERS_GROUP),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": MONITORING_USER },
            "rules": [
                { "apiGroups": [""], "resources": ["nodes", "nodes/metrics", "nodes/stats"], "verbs": ["get", "list", "watch"] },
                { "nonResourceURLs": ["/metrics"], "verbs": ["get"] }
            ]
        }),
        binding(
            "landfall:monitoring:nodes",
            MONITORING_USER,
            "User",
            MONITORING_USER,
        ),
        binding("landfall:monitoring:view", "view", "User", MONITORING_USER),
    ]
}
