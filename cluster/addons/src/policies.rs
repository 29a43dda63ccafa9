//! The engine of network policies: kube-router with nothing but its controller of NetworkPolicies, on each node.
//!
//! It writes rules of the node's own packet filter: what has been written stays in force while the program is away. For a pod that
//! a policy selects, the rules are there within moments of its start.
//!
//! Always true: it may read in the cluster what it decides by, and change nothing; its health is answered on the node alone
//! (`cluster/bootstrap` closes [`HEALTH_PORT`] to others); it goes to nodes that have its image and to no others.

use cluster_api::ObjectRef;
use cluster_spec::{AddonImage, KUBE_ROUTER};
use serde_json::{Value, json};

use crate::{Addon, Ailment, Edits, KUBE_SYSTEM, Place};

/// Where the engine answers for its health, on the node itself.
pub const HEALTH_PORT: u16 = 20244;

pub(crate) const ENGINE: Addon = Addon {
    name: "network-policies",
    about: "The engine that enforces NetworkPolicies (with `networkPolicy: azure` or `calico`)",
    images: &[],
    built: &[KUBE_ROUTER],
    // A deleted object comes back with the next comparison: not worth a watch in every cluster.
    watches: &[],
    reads: &[DAEMON_SET],
    deployments: &[],
    health: ailment,
    edits: Edits::Compared,
    replaced_by: None,
    leaves: &[BINDING, ROLE, ACCOUNT, DAEMON_SET],
    wanted: |spec| spec.network.policy.is_enforced(),
    objects,
};

const NAME: &str = "network-policies";
const ROLE_NAME: &str = "system:network-policies";
const RBAC: &str = "rbac.authorization.k8s.io/v1";

const DAEMON_SET: ObjectRef = ObjectRef {
    version: "apps/v1",
    kind: "DaemonSet",
    namespace: KUBE_SYSTEM,
    name: NAME,
};
const ACCOUNT: ObjectRef = ObjectRef {
    version: "v1",
    kind: "ServiceAccount",
    namespace: KUBE_SYSTEM,
    name: NAME,
};
const ROLE: ObjectRef = ObjectRef {
    version: RBAC,
    kind: "ClusterRole",
    namespace: None,
    name: ROLE_NAME,
};
const BINDING: ObjectRef = ObjectRef {
    version: RBAC,
    kind: "ClusterRoleBinding",
    namespace: None,
    name: ROLE_NAME,
};

fn objects(place: &Place<'_>) -> Vec<Value> {
    let Some(image) = AddonImage::named(KUBE_ROUTER) else {
        return Vec::new();
    };
    let labels = json!({ "k8s-app": NAME });
    vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": NAME, "namespace": "kube-system" } }),
        json!({
            "apiVersion": RBAC, "kind": "ClusterRole", "metadata": { "name": ROLE_NAME },
            "rules": [
                // Services and endpoints belong to parts of the program that are off; it reads them all the same before it begins.
                { "apiGroups": [""], "resources": ["endpoints", "namespaces", "pods", "services"], "verbs": ["list", "watch"] },
                { "apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"] },
                { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
                { "apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["list", "watch"] }
            ]
        }),
        json!({
            "apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": { "name": ROLE_NAME },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE_NAME },
            "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": "kube-system" }]
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": NAME, "namespace": "kube-system" },
            "spec": {
                "selector": { "matchLabels": labels },
                "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "10%" } },
                "template": { "metadata": { "labels": labels }, "spec": pod(place, image) }
            }
        }),
    ]
}

fn pod(place: &Place<'_>, image: &AddonImage) -> Value {
    let probe = json!({ "path": "/healthz", "port": HEALTH_PORT });
    json!({
        "serviceAccountName": NAME,
        "priorityClassName": "system-node-critical",
        "hostNetwork": true,
        // As AKS' engines: on each node, whatever taints it has.
        "tolerations": [{ "operator": "Exists" }],
        "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [{
            "matchExpressions": [
                { "key": "kubernetes.io/os", "operator": "In", "values": ["linux"] },
                { "key": image.label(), "operator": "Exists" }
            ]
        }] } } },
        "containers": [{
            "name": "engine", "image": image.reference,
            // It is on the node, or cannot be had: with another policy it would be asked for elsewhere, at growing intervals.
            "imagePullPolicy": "Never",
            "args": [
                "--run-firewall=true",
                "--run-router=false",
                "--run-service-proxy=false",
                "--run-loadbalancer=false",
                "--enable-cni=false",
                format!("--service-cluster-ip-range={}", place.spec.network.service_range),
                "--iptables-sync-period=1m",
                format!("--health-port={HEALTH_PORT}"),
                "--metrics-port=0"
            ],
            "env": [{ "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }],
            "resources": { "requests": { "cpu": "25m", "memory": "64Mi" }, "limits": { "memory": "512Mi" } },
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsUser": 0,
                "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"] }
            },
            // It answers from its start, and ends by itself where it cannot read the cluster for a minute.
            "readinessProbe": { "httpGet": probe, "periodSeconds": 10 },
            "livenessProbe": { "httpGet": probe, "periodSeconds": 10, "failureThreshold": 6 }
        }]
    })
}

/// A node without its engine. A DaemonSet without a status is no ailment yet.
fn ailment(place: &Place<'_>, _addon: &Addon) -> Option<Ailment> {
    let found = place.find(&DAEMON_SET)?;
    let count = |name: &str| found["status"][name].as_u64().unwrap_or(0);
    let (wanted, ready) = (count("desiredNumberScheduled"), count("numberReady"));
    (ready < wanted).then(|| Ailment {
        since: changed(found),
        why: format!(
            "{ready} of {wanted} nodes have their engine of network policies; kubectl --namespace kube-system describe \
             daemonset {NAME} says more"
        ),
    })
}

/// When the status was last written: a DaemonSet has no conditions with times.
fn changed(found: &Value) -> Option<jiff::Timestamp> {
    let fields = found["metadata"]["managedFields"].as_array()?;
    let status = fields.iter().filter(|entry| entry["subresource"] == "status");
    status
        .filter_map(|entry| entry["time"].as_str()?.parse().ok())
        .max()
}

#[cfg(test)]
mod tests {
    use cluster_spec::{ClusterSpec, NetworkPolicy};

    use super::*;
    use crate::{AddonOptions, MANAGED_LABEL, ailments, leaving, manifests, tests::spec};

    fn there() -> AddonOptions {
        AddonOptions {
            images: [KUBE_ROUTER.to_owned()].into(),
            ..AddonOptions::default()
        }
    }

    fn of(policy: NetworkPolicy) -> ClusterSpec {
        let mut spec = spec(2);
        spec.network.policy = policy;
        spec
    }

    fn daemon_set(ready: u64) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": { "name": NAME, "namespace": "kube-system", "labels": { MANAGED_LABEL.0: MANAGED_LABEL.1 }, "managedFields": [
                { "manager": "landfall", "operation": "Apply", "time": "2026-01-01T00:00:00Z" },
                { "manager": "kube-controller-manager", "subresource": "status", "time": "2026-01-01T00:05:00Z" }
            ] },
            "status": { "desiredNumberScheduled": 2, "numberReady": ready }
        })
    }

    fn names(objects: &[Value]) -> Vec<&str> {
        let each = objects.iter();
        each.filter_map(|object| object["metadata"]["name"].as_str())
            .collect()
    }

    #[test]
    fn an_engine_takes_the_place_of_the_warning_once_its_image_is_there() {
        const WARNING: &str = "landfall-network-policy-warning";
        for policy in [NetworkPolicy::None, NetworkPolicy::Azure, NetworkPolicy::Calico] {
            let spec = of(policy);
            let enforced = policy.is_enforced();
            let waiting = manifests(&spec, &AddonOptions::default(), &[]);
            assert!(names(&waiting).contains(&WARNING) && !names(&waiting).contains(&NAME));
            let installed = manifests(&spec, &there(), &[]);
            assert_eq!(names(&installed).contains(&NAME), enforced, "{policy:?}");
            assert_eq!(names(&installed).contains(&WARNING), !enforced, "{policy:?}");
            // A service that has just started does not know of the image yet.
            let known = manifests(&spec, &AddonOptions::default(), &[daemon_set(2)]);
            assert_eq!(names(&known).contains(&WARNING), !enforced, "{policy:?}");
        }
    }

    #[test]
    fn what_is_not_wanted_any_more_is_removed_where_it_is_there() {
        let read = [daemon_set(2)];
        let kinds = |spec: &ClusterSpec, read: &[Value]| -> Vec<&'static str> {
            let gone = leaving(spec, &there(), read);
            gone.iter().map(|object| object.kind).collect()
        };
        let (none, calico) = (of(NetworkPolicy::None), of(NetworkPolicy::Calico));
        assert_eq!(kinds(&none, &[]), [""; 0]);
        assert_eq!(
            kinds(&none, &read),
            ["ClusterRoleBinding", "ClusterRole", "ServiceAccount", "DaemonSet"]
        );
        assert_eq!(kinds(&calico, &read), [""; 0]);
        let warning = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": "landfall-network-policy-warning", "labels": { MANAGED_LABEL.0: MANAGED_LABEL.1 } }
        });
        assert_eq!(
            kinds(&calico, std::slice::from_ref(&warning)),
            ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"]
        );
        assert_eq!(kinds(&none, &[warning]), [""; 0]);
        // What a tenant made under the same name is theirs.
        let mut own = daemon_set(2);
        own["metadata"]["labels"] = json!({});
        assert_eq!(kinds(&none, &[own]), [""; 0]);
    }

    #[test]
    fn a_node_without_its_engine_is_told_of_since_the_status_says_so() {
        let (options, spec) = (AddonOptions::default(), of(NetworkPolicy::Calico));
        assert_eq!(ailments(&spec, &options, &[daemon_set(2)]), []);
        let found = ailments(&spec, &options, &[daemon_set(1)]);
        let [ailment] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(ailment.since, "2026-01-01T00:05:00Z".parse().unwrap());
        assert!(ailment.why.starts_with("1 of 2 nodes"), "{}", ailment.why);
    }

    #[test]
    fn the_engine_reads_and_changes_nothing_in_the_cluster() {
        let spec = of(NetworkPolicy::Calico);
        let objects = manifests(&spec, &there(), &[]);
        let role = objects
            .iter()
            .find(|object| object["metadata"]["name"] == ROLE_NAME);
        let rules = role.unwrap()["rules"].as_array().unwrap().iter();
        for verb in rules.flat_map(|rule| rule["verbs"].as_array().unwrap()) {
            assert!(
                ["get", "list", "watch"].contains(&verb.as_str().unwrap()),
                "{verb}"
            );
        }
    }
}
