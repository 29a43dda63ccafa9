//! Warns at admission that a NetworkPolicy is not enforced: the cluster has no network policy engine
//! (`networkPolicy: none`), and an object that is accepted and ignored looks like protection.
//!
//! Always true: no request is refused. With an engine ([`crate::policies`]) the warning goes, once that is
//! installed. A cluster whose tenant brings the network plugin (`networkPlugin: none`) gets no warning: that
//! plugin may enforce policies.

use cluster_api::ObjectRef;
use cluster_spec::PodNetworking;
use serde_json::{Value, json};

use crate::{Addon, Edits, health, policies};

pub(crate) const NETWORK_POLICY: Addon = Addon {
    name: "network-policy-warning",
    about: "A NetworkPolicy is answered with a warning that nothing enforces it (not with `networkPlugin: none`)",
    images: &[],
    built: &[],
    // After a deletion, warnings are missing until the next apply of the add-ons: not worth two more watches.
    watches: &[],
    reads: &[BINDING],
    deployments: &[],
    health: health::available,
    edits: Edits::PutBack,
    replaced_by: Some(policies::ENGINE.name),
    leaves: &[POLICY, BINDING],
    // A cluster keeps its plugin.
    wanted: |spec| spec.network.plugin != PodNetworking::None,
    objects: |_| objects(),
};

const VERSION: &str = "admissionregistration.k8s.io/v1";
const NAME: &str = "landfall-network-policy-warning";
const POLICY: ObjectRef = ObjectRef {
    version: VERSION,
    kind: "ValidatingAdmissionPolicy",
    namespace: None,
    name: NAME,
};
const BINDING: ObjectRef = ObjectRef {
    version: VERSION,
    kind: "ValidatingAdmissionPolicyBinding",
    namespace: None,
    name: NAME,
};
/// On one line: the API server refuses a message with several.
const MESSAGE: &str = "nothing enforces this NetworkPolicy: the cluster has no network policy engine (networkPolicy is none); what reaches nodes is \
    restricted with a network security group of their subnet (docs/guides/networks.md), traffic between pods by an engine: az aks update \
    --network-policy calico (docs/guides/network-policies.md)";

fn objects() -> Vec<Value> {
    vec![
        json!({
            "apiVersion": VERSION, "kind": "ValidatingAdmissionPolicy", "metadata": { "name": NAME },
            "spec": {
                // A failed warning is no reason to refuse a request.
                "failurePolicy": "Ignore",
                "matchConstraints": { "resourceRules": [{
                    "apiGroups": ["networking.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                    "resources": ["networkpolicies"]
                }] },
                "validations": [{ "expression": "false", "message": MESSAGE }]
            }
        }),
        json!({
            "apiVersion": VERSION, "kind": "ValidatingAdmissionPolicyBinding", "metadata": { "name": NAME },
            "spec": { "policyName": NAME, "validationActions": ["Warn"] }
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AddonOptions, manifests};
    use cluster_spec::{ClusterSpec, testkit};

    #[test]
    fn it_warns_and_refuses_nothing_wherever_pods_network_is_ours() {
        for plugin in [
            PodNetworking::Kubenet,
            PodNetworking::AzureFlat,
            PodNetworking::AzureOverlay,
            PodNetworking::None,
        ] {
            let spec = ClusterSpec {
                network: testkit::network(plugin),
                ..testkit::cluster()
            };
            let all = manifests(&spec, &AddonOptions::default(), &[]);
            let ours: Vec<&Value> = all
                .iter()
                .filter(|object| object["metadata"]["name"] == NAME)
                .collect();
            if plugin == PodNetworking::None {
                assert!(ours.is_empty(), "{ours:?}");
                continue;
            }
            let [policy, binding] = ours.as_slice() else {
                panic!("{plugin:?}: {ours:?}")
            };
            assert_eq!(policy["spec"]["failurePolicy"], "Ignore");
            assert_eq!(binding["spec"]["validationActions"], json!(["Warn"]));
        }
    }

    #[test]
    fn the_warning_is_one_that_the_api_server_takes() {
        assert!(!MESSAGE.contains('\n') && MESSAGE.trim() == MESSAGE);
    }
}
