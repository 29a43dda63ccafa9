//! Identity bindings: which service accounts may be a managed identity that the cluster is bound to. As in AKS, the cluster's own roles say so: the
//! verb `use-managed-identity` on the identity's client id, in the API group `cid.wi.aks.azure.com`.
//!
//! A service account shows a token for `api://AKSIdentityBinding/{client id}` to the stamp's token service, which takes it as long as the cluster
//! is bound to that identity. The API server makes such tokens; a validating policy lets it make them only for service accounts that may.
//!
//! Always true: tokens for other audiences are not looked at; without the policy's answer no such token is made.

use serde_json::{Value, json};

use crate::{Addon, Edits, Place, health};

pub(crate) const IDENTITY_BINDINGS: Addon = Addon {
    name: "identity-bindings",
    about: "Only service accounts that may `use-managed-identity` get tokens for identity bindings (with `oidcIssuerProfile`)",
    images: &[],
    built: &[],
    watches: &[],
    reads: &[],
    deployments: &[],
    health: health::available,
    edits: Edits::PutBack,
    replaced_by: None,
    leaves: &[],
    wanted: |spec| spec.issuer.is_some(),
    objects,
};

/// What tokens are for, before the client id.
pub(crate) const AUDIENCE: &str = "api://AKSIdentityBinding/";
/// The API group of the right to be a managed identity. Its resources are client ids.
const GROUP: &str = "cid.wi.aks.azure.com";
const VERB: &str = "use-managed-identity";

const VERSION: &str = "admissionregistration.k8s.io/v1";
const NAME: &str = "landfall-identity-bindings";

fn objects(_: &Place<'_>) -> Vec<Value> {
    let is_one = format!("audience.startsWith('{AUDIENCE}')");
    let may = format!(
        "authorizer.serviceAccount(request.namespace, request.name).group('{GROUP}').resource(audience.substring({})).check('{VERB}')\
         .allowed()",
        AUDIENCE.len()
    );
    vec![
        json!({
            "apiVersion": VERSION, "kind": "ValidatingAdmissionPolicy", "metadata": { "name": NAME },
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": { "resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["serviceaccounts/token"]
                }] },
                "matchConditions": [{
                    "name": "for-an-identity-binding",
                    // Who asks for no audience may be seen with null.
                    "expression": format!(
                        "has(object.spec.audiences) && object.spec.audiences != null && object.spec.audiences.exists(audience, {is_one})"
                    )
                }],
                "validations": [{
                    "expression": format!("object.spec.audiences.all(audience, !{is_one} || {may})"),
                    "message": format!(
                        "the service account may not use this managed identity: bind it to a ClusterRole with the verb '{VERB}' on the \
                         resource named by the identity's client id, in the API group '{GROUP}'"
                    ),
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
