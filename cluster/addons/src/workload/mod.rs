//! Workload identity: a pod with the label gets a token of its service account for the stamp's token service,
//! and environment variables with the service's address and its identity there. Names are those of
//! azure-workload-identity's webhook, because SDKs read them.
//!
//! Implemented by an admission policy in the API server: no pod must run for others to start. The policy's
//! parameters are service accounts: it is evaluated for each one of the namespace, and its condition selects
//! the pod's own.
//!
//! Always true: what a pod has already is kept; a pod without the label is not looked at; where workload identity is switched off again, the
//! policy is still there and matches nothing.
//!
//! A pod that says that it uses an identity binding gets a token for that instead ([`crate::identity_bindings`]).

use serde_json::{Value, json};

use crate::{Addon, Edits, Place, health, identity_bindings::AUDIENCE as OF_BINDING};

pub(crate) const WORKLOAD_IDENTITY: Addon = Addon {
    name: "workload-identity",
    about: "Pods labelled `azure.workload.identity/use` get a token for the stamp's token service (with `securityProfile.workloadIdentity`)",
    images: &[],
    built: &[],
    watches: &[],
    reads: &[],
    deployments: &[],
    health: health::available,
    edits: Edits::PutBack,
    replaced_by: None,
    leaves: &[],
    // An issuer stays, so the objects are applied once more when it is switched off.
    wanted: |spec| spec.issuer.is_some(),
    objects,
};

const VERSION: &str = "admissionregistration.k8s.io/v1";
const NAME: &str = "landfall-workload-identity";
const LABEL: &str = "azure.workload.identity/use";
/// The audience of the tokens.
const AUDIENCE: &str = "api://AzureADTokenExchange";
const VOLUME: &str = "azure-identity-token";
const FILE: &str = "azure-identity-token";
const DIRECTORY: &str = "/var/run/secrets/azure/tokens";

fn objects(place: &Place<'_>) -> Vec<Value> {
    vec![
        json!({
            "apiVersion": VERSION, "kind": "MutatingAdmissionPolicy", "metadata": { "name": NAME },
            "spec": {
                "failurePolicy": "Fail",
                // Containers added by another policy or webhook get it as well.
                "reinvocationPolicy": "IfNeeded",
                "paramKind": { "apiVersion": "v1", "kind": "ServiceAccount" },
                "matchConstraints": {
                    "objectSelector": { "matchLabels": { LABEL: "true" } },
                    "resourceRules": [{
                        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]
                    }]
                },
                "matchConditions": [
                    { "name": "switched-on", "expression": place.spec.workload_identity.to_string() },
                    {
                        "name": "the-pods-own-service-account",
                        "expression": "params.metadata.name == object.spec.?serviceAccountName.orValue('default')"
                    }
                ],
                "variables": variables(place),
                "mutations": [
                    { "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": containers() } },
                    { "patchType": "JSONPatch", "jsonPatch": { "expression": volume() } }
                ]
            }
        }),
        json!({
            "apiVersion": VERSION, "kind": "MutatingAdmissionPolicyBinding", "metadata": { "name": NAME },
            "spec": {
                "policyName": NAME,
                // All service accounts of the pod's namespace.
                "paramRef": { "selector": {}, "parameterNotFoundAction": "Allow" }
            }
        }),
        // For people: pods of other namespaces cannot mount it.
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "landfall-token-service", "namespace": "kube-public" },
            "data": {
                "authority": place.options.authority, "tenant": place.options.tenant, "ca.crt": place.options.authority_ca
            }
        }),
    ]
}

/// Variables used by several expressions.
fn variables(place: &Place<'_>) -> Value {
    let account =
        |name: &str| format!("params.metadata.?annotations[?'azure.workload.identity/{name}'].orValue('')");
    let pod =
        |name: &str| format!("object.metadata.?annotations[?'azure.workload.identity/{name}'].orValue('')");
    let quoted = |text: &str| json!(text).to_string();
    let lifetime = "service-account-token-expiration";
    json!([
        { "name": "client", "expression": account("client-id") },
        { "name": "ownTenant", "expression": account("tenant-id") },
        {
            "name": "tenant",
            "expression": format!("variables.ownTenant == '' ? {} : variables.ownTenant", quoted(&place.options.tenant))
        },
        { "name": "authority", "expression": quoted(&place.options.authority) },
        { "name": "file", "expression": quoted(&format!("{DIRECTORY}/{FILE}")) },
        {
            "name": "skipped",
            "expression": format!("{}.split(';').map(name, name.trim())", pod("skip-containers"))
        },
        {
            "name": "lifetime",
            "expression": format!(
                "int({own} != '' ? {own} : ({account} != '' ? {account} : '3600'))",
                own = pod(lifetime),
                account = account(lifetime)
            )
        },
        {
            "name": "audience",
            "expression": format!(
                "{} == 'true' ? '{OF_BINDING}' + variables.client : '{AUDIENCE}'",
                pod("use-identity-binding")
            )
        }
    ])
}

/// Environment and mount of each container that is not skipped; existing settings stay.
fn containers() -> String {
    let list = |field: &str| {
        let kind = format!("Object.spec.{field}");
        let env: Vec<String> = [
            ("AZURE_CLIENT_ID", "client"),
            ("AZURE_TENANT_ID", "tenant"),
            ("AZURE_FEDERATED_TOKEN_FILE", "file"),
            ("AZURE_AUTHORITY_HOST", "authority"),
        ]
        .iter()
        .map(|(name, variable)| format!("{kind}.env{{name: '{name}', value: variables.{variable}}}"))
        .collect();
        format!(
            "{field}: object.spec.?{field}.orValue([]).filter(one, !(one.name in variables.skipped)).map(one, {kind}{{\
             name: one.name, \
             env: [{env}].filter(entry, !one.?env.orValue([]).exists(own, own.name == entry.name)), \
             volumeMounts: one.?volumeMounts.orValue([]).exists(own, own.mountPath == '{DIRECTORY}') ? [] : \
             [{kind}.volumeMounts{{name: '{VOLUME}', mountPath: '{DIRECTORY}', readOnly: true}}]}})",
            env = env.join(", ")
        )
    };
    format!(
        "Object{{spec: Object.spec{{{}, {}}}}}",
        list("containers"),
        list("initContainers")
    )
}

/// The volume with the token. The sources of a projected volume are atomic, so an apply configuration cannot
/// set them.
fn volume() -> String {
    let kind = "Object.spec.volumes";
    let token = format!(
        "{kind}.projected.sources.serviceAccountToken{{path: '{FILE}', audience: variables.audience, \
         expirationSeconds: variables.lifetime}}"
    );
    let volume = format!(
        "{kind}{{name: '{VOLUME}', projected: {kind}.projected{{defaultMode: 420, sources: \
         [{kind}.projected.sources{{serviceAccountToken: {token}}}]}}}}"
    );
    // The API server of 1.36 rejects a list of objects as one value: first the list, then its items.
    format!(
        "object.spec.?volumes.orValue([]).exists(own, own.name == '{VOLUME}') ? [] : ((has(object.spec.volumes) ? [] : \
         [JSONPatch{{op: 'add', path: '/spec/volumes', value: []}}]) + \
         [JSONPatch{{op: 'add', path: '/spec/volumes/-', value: {volume}}}])"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AddonOptions;
    use cluster_spec::{ClusterSpec, testkit};

    fn policy(workload_identity: bool) -> Value {
        let spec = ClusterSpec {
            issuer: Some("https://h/oidc/u/".to_owned()),
            workload_identity,
            ..testkit::cluster()
        };
        let options = AddonOptions::default();
        objects(&Place {
            spec: &spec,
            options: &options,
            read: &[],
        })
        .remove(0)
    }

    #[test]
    fn switched_off_it_matches_nothing_and_is_otherwise_the_same() {
        let (on, mut off) = (policy(true), policy(false));
        let condition = &mut off["spec"]["matchConditions"][0]["expression"];
        assert_eq!(*condition, "false");
        *condition = json!("true");
        assert_eq!(on, off);
    }
}
