//! Roles and bindings of the users for whom Landfall issues credentials.
//!
//! A credential that is handed out is a user of its own, and what it may do hangs on one binding of its own
//! ([`credential_binding`]): taking that away takes the credential away, at once and without a restart. The bindings are no part of the
//! add-on: the control loops keep them, by what the store says. So are those of principals that are trusted with a cluster
//! ([`trusted_binding`]). Credentials of support tickets share one binding, to a role that comes and goes with it ([`support`]).

mod support;

use cluster_api::{COMMAND_NAMESPACE, Watch};
use cluster_spec::{CredentialKind, TrustedRole};
use serde_json::{Value, json};

use crate::{Addon, Edits, health, label, managed, trusted::role_name};

pub use support::{SUPPORT_OBJECTS, support_objects};

/// What the user credential may do.
const USER_ROLE: &str = "landfall:cluster-user";
/// The role of the credential of a namespace, in it.
const NAMESPACE_ROLE: &str = "edit";
/// The role of monitoring credentials.
const MONITORING_ROLE: &str = "landfall:cluster-monitoring";
/// The policy that keeps user credentials out of the cluster's own namespaces.
const USER_POLICY: &str = "landfall-cluster-users";
/// The prefix of every credential's user name and binding.
const CREDENTIALS: &str = "landfall:credential:";

/// What the binding of every trusted principal begins with.
const TRUSTED: &str = "landfall:trusted:";

/// Bindings of credentials that releases handed out which kept no record of them: they are removed.
const RETIRED: [&str; 3] = [
    "landfall:cluster-users",
    "landfall:monitoring:nodes",
    "landfall:monitoring:view",
];

/// The watch for bindings of credentials.
pub const CREDENTIAL_BINDINGS: Watch = managed("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None);

/// The cluster's own namespaces, in which a pod may be made whoever its service account is.
const OWN_NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", COMMAND_NAMESPACE];

/// Who a credential is in its cluster; also the name of its binding.
pub fn credential_user(kind: CredentialKind, id: &str) -> String {
    format!("{CREDENTIALS}{}:{id}", kind.word())
}

/// The rights of a credential that has a binding of its own; `None` for those of tickets ([`support_objects`]).
pub fn credential_binding(kind: CredentialKind, id: &str) -> Option<Value> {
    let role = match kind {
        CredentialKind::Admin => "cluster-admin",
        CredentialKind::User => USER_ROLE,
        CredentialKind::Monitoring => MONITORING_ROLE,
        CredentialKind::Support => return None,
    };
    let name = credential_user(kind, id);
    let mut binding = binding(&name, role, "User", &name);
    label(&mut binding);
    Some(binding)
}

/// A role that a trusted access role binding, by its name in lower case, gives to a principal of the stamp's directory. The API server knows
/// it by its object id, as every principal that is not a person.
pub fn trusted_binding(name: &str, role: &TrustedRole, principal: &str) -> Value {
    let name = format!("{TRUSTED}{name}:{}", role.name);
    let mut binding = binding(&name, &role_name(role), "User", principal);
    label(&mut binding);
    binding
}

/// Who works in a namespace and nowhere else: the users of these credentials, with what Kubernetes' own `edit` lets them do there. Not with
/// what a cluster's user may: a right to namespaces that is bound in one of them is a right to that Namespace itself.
pub fn namespace_binding<'a>(namespace: &str, name: &str, ids: impl Iterator<Item = &'a String>) -> Value {
    let subjects: Vec<Value> = ids
        .map(|id| {
            let user = credential_user(CredentialKind::User, id);
            json!({ "kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io" })
        })
        .collect();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "namespace": namespace, "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAMESPACE_ROLE },
        "subjects": subjects
    })
}

/// Whether a binding is a credential's, of this release or of one before, or a trusted principal's.
pub fn is_credential_binding(name: &str) -> bool {
    name.starts_with(CREDENTIALS)
        || name.starts_with(TRUSTED)
        || name == support::BINDING
        || RETIRED.contains(&name)
}

pub(crate) const ROLES: Addon = Addon {
    name: "roles",
    about: "Roles of the API servers, of nodes, and of the credentials that `az aks get-credentials` hands out",
    images: &[],
    built: &[],
    watches: &WATCHES,
    reads: &[],
    deployments: &[],
    health: health::available,
    edits: Edits::PutBack,
    replaced_by: None,
    leaves: &[],
    wanted: |_| true,
    objects: |_| objects(),
};

const WATCHES: [Watch; 2] = [
    managed("rbac.authorization.k8s.io/v1", "ClusterRole", None),
    managed("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None),
];

fn binding(name: &str, role: &str, kind: &str, subject: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [{ "kind": kind, "name": subject, "apiGroup": "rbac.authorization.k8s.io" }]
    })
}

fn role(name: &str, labels: &Value, rules: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": name, "labels": labels },
        "rules": rules,
    })
}

/// An aggregated role.
fn gathered(name: &str, selectors: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": name },
        "aggregationRule": { "clusterRoleSelectors": selectors },
    })
}

fn objects() -> Vec<Value> {
    vec![
        // The API server's access to kubelets: logs, exec, port-forward.
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
        gathered(
            USER_ROLE,
            &json!([
                { "matchLabels": { "landfall.dev/aggregate-to-cluster-user": "true" } },
                { "matchLabels": { "rbac.authorization.k8s.io/aggregate-to-view": "true" } },
                // Roles of charts for their own types; Kubernetes' aggregated roles would let users act as
                // any service account, cluster-wide.
                {
                    "matchLabels": { "rbac.authorization.k8s.io/aggregate-to-edit": "true" },
                    "matchExpressions": [{ "key": "kubernetes.io/bootstrapping", "operator": "DoesNotExist" }]
                }
            ]),
        ),
        role(
            "landfall:aggregate-to-cluster-user",
            &json!({ "landfall.dev/aggregate-to-cluster-user": "true" }),
            &user_rules(),
        ),
        gathered(
            MONITORING_ROLE,
            &json!([
                { "matchLabels": { "landfall.dev/aggregate-to-cluster-monitoring": "true" } },
                { "matchLabels": { "rbac.authorization.k8s.io/aggregate-to-view": "true" } }
            ]),
        ),
        role(
            "landfall:aggregate-to-cluster-monitoring",
            &json!({ "landfall.dev/aggregate-to-cluster-monitoring": "true" }),
            &json!([
                { "apiGroups": [""], "resources": ["nodes", "nodes/metrics", "nodes/stats"], "verbs": ["get", "list", "watch"] },
                { "nonResourceURLs": ["/metrics"], "verbs": ["get"] }
            ]),
        ),
        user_policy(),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": USER_POLICY },
            "spec": { "policyName": USER_POLICY, "validationActions": ["Deny"] }
        }),
    ]
}

/// Write access in namespaces, and read access to cluster-scoped objects. No access to roles and their
/// bindings, to tokens of service accounts, or to impersonation of service accounts.
fn user_rules() -> Value {
    let change = [
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    ];
    let read = ["get", "list", "watch"];
    json!([
        {
            "apiGroups": [""],
            "resources": [
                "configmaps", "endpoints", "events", "persistentvolumeclaims", "pods", "pods/attach", "pods/ephemeralcontainers",
                "pods/exec", "pods/portforward", "pods/proxy", "replicationcontrollers", "replicationcontrollers/scale", "secrets",
                "serviceaccounts", "services", "services/proxy"
            ],
            "verbs": change
        },
        { "apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"] },
        { "apiGroups": [""], "resources": ["namespaces"], "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"] },
        {
            "apiGroups": ["apps"],
            "resources": [
                "daemonsets", "deployments", "deployments/rollback", "deployments/scale", "replicasets", "replicasets/scale",
                "statefulsets", "statefulsets/scale"
            ],
            "verbs": change
        },
        { "apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": change },
        { "apiGroups": ["batch"], "resources": ["cronjobs", "jobs"], "verbs": change },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": change },
        { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": read },
        { "apiGroups": ["networking.k8s.io"], "resources": ["ingresses", "networkpolicies"], "verbs": change },
        { "apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": change },
        { "apiGroups": [""], "resources": ["nodes", "persistentvolumes"], "verbs": read },
        { "apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": read },
        { "apiGroups": ["networking.k8s.io"], "resources": ["ingressclasses"], "verbs": read },
        { "apiGroups": ["scheduling.k8s.io"], "resources": ["priorityclasses"], "verbs": read },
        { "apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": read }
    ])
}

/// Users change nothing in the cluster's own namespaces: a pod created there could use any service account
/// there, and some of those may do everything.
fn user_policy() -> Value {
    let user = format!("{CREDENTIALS}{}:", CredentialKind::User.word());
    let own: Vec<String> = OWN_NAMESPACES
        .iter()
        .map(|namespace| format!("'{namespace}'"))
        .collect();
    let own = own.join(", ");
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": USER_POLICY },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": [{
                "apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE", "DELETE", "CONNECT"], "resources": ["*/*"]
            }] },
            "matchConditions": [
                { "name": "cluster-user", "expression": format!("request.userInfo.username.startsWith('{user}')") },
                { "name": "own-namespace", "expression": format!("has(request.namespace) && request.namespace in [{own}]") }
            ],
            "validations": [{
                "expression": "false",
                "message": "a cluster user changes nothing in the cluster's own namespaces; an administrator may (az aks get-credentials --admin)"
            }]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_spec::TRUSTED_ROLES;

    #[test]
    fn a_trusted_principal_is_a_user_with_a_binding_for_each_role() {
        for role in TRUSTED_ROLES {
            let binding = trusted_binding("backup", role, "8e1");
            let name = format!("landfall:trusted:backup:{}", role.name);
            assert!(is_credential_binding(&name));
            assert_eq!(binding["metadata"]["name"], name);
            assert_eq!(binding["roleRef"]["name"], role_name(role));
            assert!(!is_credential_binding(&role_name(role)));
            assert_eq!(
                binding["subjects"],
                json!([{ "kind": "User", "name": "8e1", "apiGroup": "rbac.authorization.k8s.io" }])
            );
        }
    }

    #[test]
    fn a_credential_is_a_user_with_one_binding_and_in_no_group() {
        for (kind, role) in [
            (CredentialKind::Admin, "cluster-admin"),
            (CredentialKind::User, USER_ROLE),
            (CredentialKind::Monitoring, MONITORING_ROLE),
        ] {
            let binding = credential_binding(kind, "a1").unwrap();
            let user = credential_user(kind, "a1");
            assert_eq!(binding["metadata"]["name"], user);
            assert!(is_credential_binding(&user) && user.len() <= 64, "{user}");
            assert_eq!(binding["roleRef"]["name"], role);
            assert_eq!(
                binding["subjects"],
                json!([{ "kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io" }])
            );
        }
        for own in objects() {
            let name = own["metadata"]["name"].as_str().unwrap();
            assert!(!is_credential_binding(name), "{name} is the add-on's");
        }
    }

    #[test]
    fn users_are_nobody_else_and_change_nobodys_rights() {
        let rules = user_rules();
        for rule in rules.as_array().unwrap() {
            let verbs = rule["verbs"].as_array().unwrap();
            assert!(
                ["*", "impersonate", "bind", "escalate"]
                    .iter()
                    .all(|verb| !verbs.contains(&json!(verb))),
                "{rule}"
            );
            assert_ne!(rule["apiGroups"], json!(["rbac.authorization.k8s.io"]));
            let resources = rule["resources"].as_array().unwrap();
            assert!(!resources.contains(&json!("serviceaccounts/token")) && !resources.contains(&json!("*")));
        }
    }
}
