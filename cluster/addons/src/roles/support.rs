//! What support may in a cluster under a ticket with consent: the role `aks-service`, one table, and its binding `aks-service-rolebinding`.
//!
//! Both are in the cluster only while a credential of such a ticket works. They are no part of an add-on: the control loops make them and take
//! them away, by what the store says.
//!
//! Always true: it only reads. Nothing in it reaches a secret, a program's input or output, a node's or a pod's files and logs, or anybody's
//! rights. Requests for all of it are in the API server's audit log, which leaves out leases and events of the core group.

use cluster_api::ObjectRef;
use cluster_spec::CredentialKind;
use serde_json::{Value, json};

use super::{binding, credential_user};
use crate::label;

/// The role.
const ROLE: &str = "aks-service";
/// Its binding.
pub(super) const BINDING: &str = "aks-service-rolebinding";

/// What is taken away when no credential of a ticket works: the binding first.
pub const SUPPORT_OBJECTS: [ObjectRef; 2] =
    [object("ClusterRoleBinding", BINDING), object("ClusterRole", ROLE)];

const fn object(kind: &'static str, name: &'static str) -> ObjectRef {
    ObjectRef {
        version: "rbac.authorization.k8s.io/v1",
        kind,
        namespace: None,
        name,
    }
}

/// The only verbs.
const VERBS: [&str; 3] = ["get", "list", "watch"];

/// All that may be read: groups of the API, with their resources.
const READ: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "endpoints",
            "limitranges",
            "namespaces",
            "nodes",
            "persistentvolumeclaims",
            "persistentvolumes",
            "pods",
            "replicationcontrollers",
            "resourcequotas",
            "services",
        ],
    ),
    (
        "admissionregistration.k8s.io",
        &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
    ),
    ("apiextensions.k8s.io", &["customresourcedefinitions"]),
    ("apiregistration.k8s.io", &["apiservices"]),
    (
        "apps",
        &["daemonsets", "deployments", "replicasets", "statefulsets"],
    ),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("certificates.k8s.io", &["certificatesigningrequests"]),
    ("discovery.k8s.io", &["endpointslices"]),
    // Not those of the core group: requests for them are not audited.
    ("events.k8s.io", &["events"]),
    ("metrics.k8s.io", &["nodes", "pods"]),
    (
        "networking.k8s.io",
        &["ingressclasses", "ingresses", "networkpolicies"],
    ),
    ("policy", &["poddisruptionbudgets"]),
    ("scheduling.k8s.io", &["priorityclasses"]),
    (
        "storage.k8s.io",
        &["csidrivers", "csinodes", "storageclasses", "volumeattachments"],
    ),
];

/// The role, and its binding to the users of these credentials; nothing without one.
pub fn support_objects<'a>(ids: impl Iterator<Item = &'a String>) -> Vec<Value> {
    let subjects: Vec<Value> = ids
        .map(|id| {
            let user = credential_user(CredentialKind::Support, id);
            json!({ "kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io" })
        })
        .collect();
    if subjects.is_empty() {
        return Vec::new();
    }
    let rules: Vec<Value> = READ
        .iter()
        .map(|(group, resources)| json!({ "apiGroups": [group], "resources": resources, "verbs": VERBS }))
        .collect();
    let mut role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": ROLE }, "rules": rules,
    });
    let mut bound = binding(BINDING, ROLE, "User", "");
    bound["subjects"] = json!(subjects);
    label(&mut role);
    label(&mut bound);
    vec![role, bound]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::is_credential_binding;

    /// Every verb that Kubernetes authorises: those of requests, and those of its own checks.
    const ALL_VERBS: &[&str] = &[
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
        "impersonate",
        "bind",
        "escalate",
        "use",
        "approve",
        "sign",
        "attest",
        "proxy",
        "*",
    ];

    /// What Kubernetes serves beside what may be read, and a group that a tenant has made.
    const REFUSED: &[(&str, &[&str])] = &[
        (
            "",
            &[
                "bindings",
                "componentstatuses",
                "configmaps",
                "events",
                "namespaces/finalize",
                "namespaces/status",
                "nodes/configz",
                "nodes/healthz",
                "nodes/log",
                "nodes/metrics",
                "nodes/pods",
                "nodes/proxy",
                "nodes/spec",
                "nodes/stats",
                "nodes/status",
                "persistentvolumeclaims/status",
                "persistentvolumes/status",
                "pods/attach",
                "pods/binding",
                "pods/ephemeralcontainers",
                "pods/eviction",
                "pods/exec",
                "pods/log",
                "pods/portforward",
                "pods/proxy",
                "pods/resize",
                "pods/status",
                "podtemplates",
                "replicationcontrollers/scale",
                "replicationcontrollers/status",
                "resourcequotas/status",
                "secrets",
                "serviceaccounts",
                "serviceaccounts/token",
                "services/proxy",
                "services/status",
                "users",
                "groups",
                "uids",
                "*",
                "*/*",
                "pods/*",
            ],
        ),
        (
            "admissionregistration.k8s.io",
            &[
                "mutatingadmissionpolicies",
                "mutatingadmissionpolicybindings",
                "validatingadmissionpolicies",
                "validatingadmissionpolicybindings",
                "*",
            ],
        ),
        ("apiextensions.k8s.io", &["customresourcedefinitions/status", "*"]),
        ("apiregistration.k8s.io", &["apiservices/status", "*"]),
        (
            "apps",
            &[
                "controllerrevisions",
                "daemonsets/status",
                "deployments/scale",
                "deployments/status",
                "replicasets/scale",
                "statefulsets/scale",
                "*",
            ],
        ),
        (
            "authentication.k8s.io",
            &["tokenreviews", "selfsubjectreviews", "userextras/scopes", "*"],
        ),
        (
            "authorization.k8s.io",
            &[
                "localsubjectaccessreviews",
                "selfsubjectaccessreviews",
                "selfsubjectrulesreviews",
                "subjectaccessreviews",
                "*",
            ],
        ),
        ("autoscaling", &["horizontalpodautoscalers/status", "*"]),
        ("batch", &["cronjobs/status", "jobs/status", "*"]),
        (
            "certificates.k8s.io",
            &[
                "certificatesigningrequests/approval",
                "certificatesigningrequests/status",
                "clustertrustbundles",
                "podcertificaterequests",
                "signers",
                "*",
            ],
        ),
        ("coordination.k8s.io", &["leases", "leasecandidates", "*"]),
        ("discovery.k8s.io", &["*"]),
        ("events.k8s.io", &["*"]),
        ("example.com", &["secrets", "widgets", "*"]),
        (
            "flowcontrol.apiserver.k8s.io",
            &["flowschemas", "prioritylevelconfigurations", "*"],
        ),
        ("metrics.k8s.io", &["*"]),
        (
            "networking.k8s.io",
            &["ingresses/status", "ipaddresses", "servicecidrs", "*"],
        ),
        ("node.k8s.io", &["runtimeclasses", "*"]),
        ("policy", &["poddisruptionbudgets/status", "*"]),
        (
            "rbac.authorization.k8s.io",
            &[
                "clusterrolebindings",
                "clusterroles",
                "rolebindings",
                "roles",
                "*",
            ],
        ),
        (
            "resource.k8s.io",
            &[
                "deviceclasses",
                "resourceclaims",
                "resourceclaimtemplates",
                "resourceslices",
                "*",
            ],
        ),
        ("scheduling.k8s.io", &["*"]),
        (
            "snapshot.storage.k8s.io",
            &[
                "volumesnapshotclasses",
                "volumesnapshotcontents",
                "volumesnapshots",
                "*",
            ],
        ),
        (
            "storage.k8s.io",
            &["csistoragecapacities", "volumeattributesclasses", "*"],
        ),
        ("*", &["*", "secrets", "pods"]),
    ];

    /// Kubernetes' own reading of a rule: `*` stands for all, `*/sub` for a subresource of all.
    fn allows(role: &Value, verb: &str, group: &str, resource: &str) -> bool {
        let has = |rule: &Value, field: &str, wanted: &str| {
            let listed = rule[field].as_array().into_iter().flatten();
            listed
                .filter_map(Value::as_str)
                .any(|own| own == "*" || own == wanted)
        };
        let whole = resource.split_once('/').map(|(_, below)| format!("*/{below}"));
        role["rules"].as_array().unwrap().iter().any(|rule| {
            has(rule, "verbs", verb)
                && has(rule, "apiGroups", group)
                && (has(rule, "resources", resource)
                    || whole
                        .as_deref()
                        .is_some_and(|whole| has(rule, "resources", whole)))
        })
    }

    fn objects(ids: &[&str]) -> [Value; 2] {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        support_objects(ids.iter()).try_into().unwrap()
    }

    #[test]
    fn a2_every_verb_and_resource_outside_of_the_table_is_refused() {
        let [role, _] = objects(&["a1"]);
        let (mut tried, mut allowed) = (0, 0);
        for verb in ALL_VERBS {
            for (group, resource) in each(READ).chain(each(REFUSED)) {
                let wanted = VERBS.contains(verb) && each(READ).any(|one| one == (group, resource));
                assert_eq!(
                    allows(&role, verb, group, resource),
                    wanted,
                    "{verb} {resource} of '{group}'"
                );
                tried += 1;
                allowed += usize::from(wanted);
            }
        }
        assert_eq!(allowed, 3 * each(READ).count());
        assert!(tried > 2_000, "{tried}");
        for rule in role["rules"].as_array().unwrap() {
            assert!(
                rule.get("nonResourceURLs").is_none() && rule.get("resourceNames").is_none(),
                "{rule}"
            );
        }
        assert!(
            role.get("aggregationRule").is_none(),
            "nobody adds to it by a label"
        );
    }

    fn each(
        table: &'static [(&'static str, &'static [&'static str])],
    ) -> impl Iterator<Item = (&'static str, &'static str)> {
        table
            .iter()
            .flat_map(|(group, resources)| resources.iter().map(move |resource| (*group, *resource)))
    }

    #[test]
    fn nothing_is_both_read_and_refused() {
        for one in each(REFUSED) {
            assert!(each(READ).all(|read| read != one), "{one:?}");
        }
    }

    #[test]
    fn a1_one_binding_has_the_users_of_all_credentials_and_both_go_by_their_names() {
        let [role, binding] = objects(&["a1", "b2"]);
        assert!(support_objects([].iter()).is_empty(), "nobody, nothing");
        assert_eq!(role["metadata"]["name"], "aks-service");
        assert_eq!(binding["metadata"]["name"], "aks-service-rolebinding");
        assert_eq!(binding["roleRef"]["name"], "aks-service");
        assert_eq!(binding["roleRef"]["kind"], "ClusterRole");
        let names: Vec<&str> = binding["subjects"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|subject| subject["name"].as_str())
            .collect();
        assert_eq!(
            names,
            ["landfall:credential:support:a1", "landfall:credential:support:b2"]
        );
        assert!(is_credential_binding(BINDING));
        for (object, name) in SUPPORT_OBJECTS.iter().zip([BINDING, ROLE]) {
            assert_eq!(object.name, name);
        }
        for object in [role, binding] {
            let managed = &object["metadata"]["labels"]["kubernetes.azure.com/managedby"];
            assert_eq!(*managed, "aks", "changes of it are watched");
        }
    }
}
