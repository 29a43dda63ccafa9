//! Protects the annotation that keeps healing off a node from the node itself.
//!
//! A kubelet may write annotations of its own Node object, and no admission plugin of Kubernetes restricts
//! that, as NodeRestriction does for labels. So an admission policy in the API server does: an attacker on a
//! node cannot keep the node from being healed.

use cluster_api::PRESERVE;
use serde_json::{Value, json};

use crate::{Addon, Edits, health};

pub(crate) const NODE_PRESERVE: Addon = Addon {
    name: "node-preserve",
    about: "Only people, not nodes, keep a node from being repaired (`landfall.dev/preserve`)",
    images: &[],
    built: &[],
    // A deleted policy is restored at the next apply of the add-ons: not worth two more watches.
    watches: &[],
    reads: &[],
    deployments: &[],
    health: health::available,
    edits: Edits::PutBack,
    replaced_by: None,
    leaves: &[],
    wanted: |_| true,
    objects: |_| objects(),
};

const VERSION: &str = "admissionregistration.k8s.io/v1";
const NAME: &str = "landfall-node-preserve";

fn objects() -> Vec<Value> {
    let annotation = |object: &str| format!("{object}.metadata.?annotations[?'{PRESERVE}'].orValue('')");
    vec![
        json!({
            "apiVersion": VERSION, "kind": "ValidatingAdmissionPolicy", "metadata": { "name": NAME },
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": { "resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                    "resources": ["nodes", "nodes/status"]
                }] },
                "matchConditions": [{ "name": "by-a-node", "expression": "'system:nodes' in request.userInfo.groups" }],
                "validations": [{
                    "expression": format!(
                        "{} == (oldObject == null ? '' : {})",
                        annotation("object"),
                        annotation("oldObject")
                    ),
                    "message": format!("a node may not set the annotation {PRESERVE} of a Node"),
                    "reason": "Forbidden"
                }]
            }
        }),
        json!({
            "apiVersion": VERSION, "kind": "ValidatingAdmissionPolicyBinding", "metadata": { "name": NAME },
            "spec": { "policyName": NAME, "validationActions": ["Deny"] }
        }),
    ]
}
