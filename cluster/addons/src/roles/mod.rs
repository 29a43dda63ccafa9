//! Who may do what, of those that Landfall itself makes credentials for.

use cluster_bootstrap::{MONITORING_USER, USERS_GROUP};
use serde_json::{Value, json};

pub(crate) fn objects() -> Vec<Value> {
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
