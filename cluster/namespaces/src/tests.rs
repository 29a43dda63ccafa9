//! What is rendered, and what becomes of a Namespace that is there.

use std::collections::{BTreeMap, BTreeSet};

use cluster_spec::{NamespaceNetwork, NamespaceSpec};

use super::*;

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn wish(adoption: AdoptionPolicy, deletion: DeletePolicy) -> NamespaceWish {
    NamespaceWish {
        name: "dev".to_owned(),
        id: "r1".to_owned(),
        generation: 1,
        spec: NamespaceSpec {
            labels: texts(&[("team", "blue")]),
            annotations: texts(&[("owner", "ada")]),
            quota: Some(NamespaceQuota {
                cpu_request: Some("1000m".to_owned()),
                cpu_limit: Some("2".to_owned()),
                memory_request: None,
                memory_limit: Some("1Gi".to_owned()),
            }),
            network: Some(NamespaceNetwork::default()),
            adoption,
            deletion,
        },
        held: false,
        released: false,
        users: BTreeSet::new(),
    }
}

fn namespace(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": "dev", "labels": texts(labels), "annotations": texts(annotations) },
        "status": { "phase": "Active" }
    })
}

fn of(namespace: &Value) -> Found<'_> {
    Found {
        namespace: Some(namespace),
        ..Found::default()
    }
}

#[test]
fn what_is_rendered_is_pinned() {
    let mut wish = wish(AdoptionPolicy::Never, DeletePolicy::Keep);
    wish.users.insert("a1".to_owned());
    let label = json!({ "kubernetes.azure.com/managedByArm": "true" });
    assert_eq!(
        objects(&wish),
        [
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {
                    "name": "dev",
                    "labels": { "kubernetes.azure.com/managedByArm": "true", "team": "blue" },
                    "annotations": { "landfall.dev/managed-namespace": "r1", "owner": "ada" }
                }
            }),
            json!({
                "apiVersion": "v1", "kind": "ResourceQuota",
                "metadata": { "namespace": "dev", "name": "defaultresourcequota", "labels": label },
                "spec": { "hard": { "requests.cpu": "1000m", "limits.cpu": "2", "limits.memory": "1Gi" } }
            }),
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": { "namespace": "dev", "name": "defaultnetworkpolicy", "labels": label },
                "spec": {
                    "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
                    "ingress": [{ "from": [{ "podSelector": {} }] }], "egress": [{}]
                }
            }),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": { "namespace": "dev", "name": "landfall:namespace-users", "labels": label },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit" },
                "subjects": [{
                    "kind": "User", "name": "landfall:credential:user:a1", "apiGroup": "rbac.authorization.k8s.io"
                }]
            }),
        ]
    );
    let all = objects(&wish);
    for part in PARTS {
        let found = all.iter().filter(|object| object["kind"] == part.kind);
        let names: Vec<&Value> = found.map(|object| &object["metadata"]["name"]).collect();
        assert_eq!(names, [part.name]);
    }
}

#[test]
fn what_is_not_asked_for_is_not_rendered() {
    let mut wish = wish(AdoptionPolicy::Never, DeletePolicy::Keep);
    wish.spec.quota = Some(NamespaceQuota::default());
    wish.spec.network = None;
    wish.spec.labels.insert(NAME_LABEL.to_owned(), "dev".to_owned());
    let all = objects(&wish);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["metadata"]["labels"].as_object().unwrap().len(), 2);
    wish.spec.network = Some(NamespaceNetwork {
        ingress: NetworkRule::DenyAll,
        egress: NetworkRule::AllowSameNamespace,
    });
    let spec = &objects(&wish)[1]["spec"];
    assert_eq!(
        (&spec["ingress"], &spec["egress"]),
        (&json!([]), &json!([{ "to": [{ "podSelector": {} }] }]))
    );
}

#[test]
fn a_namespace_of_somebody_else_is_taken_over_as_the_policy_says() {
    let plain = namespace(&[], &[]);
    for (policy, refused) in [
        (AdoptionPolicy::Never, true),
        (AdoptionPolicy::IfIdentical, true),
        (AdoptionPolicy::Always, false),
    ] {
        let mut wish = wish(policy, DeletePolicy::Keep);
        assert_eq!(next(&wish, &Found::default()), Next::Apply, "there is none");
        let decided = next(&wish, &of(&plain));
        assert_eq!(
            matches!(decided, Next::Refuse(_)),
            refused,
            "{policy:?}: {decided:?}"
        );
        // Another resource's is somebody else's.
        let other = namespace(&[], &[(OWNER, "r0")]);
        assert_eq!(matches!(next(&wish, &of(&other)), Next::Refuse(_)), refused);
        let own = namespace(&[], &[(OWNER, "r1")]);
        assert_eq!(next(&wish, &of(&own)), Next::Apply, "what it made itself");
        wish.held = true;
        assert_eq!(next(&wish, &of(&plain)), Next::Apply, "whatever was taken off it");
    }
}

#[test]
fn identical_is_what_a_namespace_is_that_was_managed_before() {
    let wish = wish(AdoptionPolicy::IfIdentical, DeletePolicy::Keep);
    let made = objects(&wish);
    // As the server shows them: its own label, quantities in its own form, empty lists left out.
    let left = namespace(&[("team", "blue"), (NAME_LABEL, "dev")], &[("owner", "ada")]);
    let mut quota = made[1].clone();
    quota["spec"]["hard"]["requests.cpu"] = json!("1");
    let mut policy = made[2].clone();
    policy["spec"]["policyTypes"] = json!(["Egress", "Ingress"]);
    assert!(compares(&wish, Some(&left)) && !compares(&wish, None));
    let found = Found {
        namespace: Some(&left),
        quota: Some(&quota),
        policy: Some(&policy),
    };
    assert_eq!(next(&wish, &found), Next::Apply);
    let refuses = |found: &Found<'_>, why: &str| match next(&wish, found) {
        Next::Refuse(said) => assert!(said.contains(why) && said.contains("Always"), "{said}"),
        other => panic!("{why}: {other:?}"),
    };
    refuses(&Found { quota: None, ..found }, "ResourceQuota");
    refuses(
        &Found {
            policy: None,
            ..found
        },
        "NetworkPolicy",
    );
    let mut less = quota.clone();
    less["spec"]["hard"]["requests.cpu"] = json!("2");
    refuses(
        &Found {
            quota: Some(&less),
            ..found
        },
        "ResourceQuota",
    );
    let mut open = policy.clone();
    open["spec"]["ingress"] = json!([{}]);
    refuses(
        &Found {
            policy: Some(&open),
            ..found
        },
        "NetworkPolicy",
    );
    let more = namespace(&[("team", "blue"), ("a", "b")], &[("owner", "ada")]);
    refuses(
        &Found {
            namespace: Some(&more),
            ..found
        },
        "labels",
    );
    let other = namespace(&[("team", "blue")], &[("owner", "bob")]);
    refuses(
        &Found {
            namespace: Some(&other),
            ..found
        },
        "annotations",
    );
}

#[test]
fn what_is_given_up_stays_or_goes_and_never_somebody_elses() {
    let (own, other) = (namespace(&[], &[(OWNER, "r1")]), namespace(&[], &[]));
    for (policy, expected) in [
        (DeletePolicy::Keep, Next::LetGo),
        (DeletePolicy::Delete, Next::Remove),
    ] {
        let wish = NamespaceWish {
            released: true,
            ..wish(AdoptionPolicy::Always, policy)
        };
        assert_eq!(next(&wish, &of(&own)), expected);
        assert_eq!(next(&wish, &of(&other)), Next::Nothing);
        assert_eq!(next(&wish, &Found::default()), Next::Nothing);
        let held = NamespaceWish { held: true, ..wish };
        assert_eq!(next(&held, &of(&other)), expected);
    }
}

#[test]
fn one_that_is_being_deleted_is_waited_for() {
    let mut going = namespace(&[], &[(OWNER, "r1")]);
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    going["status"]["conditions"] = json!([
        { "type": "NamespaceDeletionDiscoveryFailure", "status": "False", "message": "fine" },
        { "type": "NamespaceFinalizersRemaining", "status": "True", "message": "a.b/c in 1 resource instances" },
    ]);
    let kept = Next::Wait(Some("a.b/c in 1 resource instances".to_owned()));
    let mut wish = wish(AdoptionPolicy::Always, DeletePolicy::Delete);
    assert_eq!(next(&wish, &of(&going)), kept);
    wish.released = true;
    assert_eq!(next(&wish, &of(&going)), kept);
    wish.spec.deletion = DeletePolicy::Keep;
    assert_eq!(next(&wish, &of(&going)), Next::Nothing);
}

#[test]
fn as_json_a_spec_has_arms_names() {
    let spec = wish(AdoptionPolicy::Always, DeletePolicy::Delete).spec;
    let body = json!({
        "labels": { "team": "blue" },
        "annotations": { "owner": "ada" },
        "defaultResourceQuota": { "cpuRequest": "1000m", "cpuLimit": "2", "memoryLimit": "1Gi" },
        "defaultNetworkPolicy": { "ingress": "AllowSameNamespace", "egress": "AllowAll" },
        "adoptionPolicy": "Always",
        "deletePolicy": "Delete",
    });
    assert_eq!(serde_json::to_value(&spec).unwrap(), body);
    assert_eq!(serde_json::from_value::<NamespaceSpec>(body).unwrap(), spec);
    // What is said of one direction says nothing of the other.
    let half = json!({ "defaultNetworkPolicy": { "ingress": "DenyAll" } });
    let half: NamespaceSpec = serde_json::from_value(half).unwrap();
    let network = half.network.unwrap();
    assert_eq!(
        (network.ingress, network.egress, half.adoption, half.deletion),
        (
            NetworkRule::DenyAll,
            NetworkRule::AllowAll,
            AdoptionPolicy::Never,
            DeletePolicy::Keep
        )
    );
}

#[test]
fn the_systems_namespaces_are_known() {
    for name in [
        "kube-system",
        "default",
        "gatekeeper-system",
        "aks-istio-ingress",
        "aks-command",
    ] {
        assert!(is_system(name), "{name}");
    }
    for name in ["dev", "kube", "defaults", "system"] {
        assert!(!is_system(name), "{name}");
    }
}
