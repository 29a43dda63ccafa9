//! Decides whose identity a cluster has: a system-assigned one or a service principal. Pure.
//!
//! Identifiers of a system-assigned identity are made once and stay: clients grant rights to `principalId` right after the
//! PUT, and `az aks update` needs `identityProfile.kubeletidentity` in every answer.

use arm_kernel::schema::Problems;
use arm_wire::ErrorCode;
use control_records::ClusterRecord;
use serde_json::{Map, Value, json};

use super::draft::{Context, Name, SERVICE_PRINCIPAL_SECRET};

const CLIENT_ID: &str = "properties.servicePrincipalProfile.clientId";
const KUBELET: &str = "kubeletidentity";

/// What the decision depends on beside the body.
pub(crate) struct IdentityInput<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) name: &'a Name<'a>,
    pub(crate) node_group: &'a str,
    pub(crate) present: Option<&'a ClusterRecord>,
    pub(crate) has_secret: bool,
}

/// Whether a client id stands for the managed identity.
fn is_managed(client: &str) -> bool {
    client.eq_ignore_ascii_case("msi")
}

/// Fills `identity`, `servicePrincipalProfile` and `identityProfile` in.
pub(crate) fn decide(
    asked: &IdentityInput<'_>,
    draft: &mut Map<String, Value>,
    properties: &mut Map<String, Value>,
    problems: &mut Problems,
) {
    let kind = draft.remove("identity");
    let kind = kind.as_ref().and_then(|identity| identity["type"].as_str());
    let profile = properties.remove("servicePrincipalProfile");
    let client = profile.as_ref().and_then(|profile| profile["clientId"].as_str());
    let principal = client.filter(|client| !is_managed(client));
    let before = asked.present.map(|present| present.body());
    let old_client = before
        .and_then(|body| body.pointer("/properties/servicePrincipalProfile/clientId"))
        .and_then(Value::as_str);
    let old_principal = old_client.filter(|client| !is_managed(client));
    let old_kubelet = before.and_then(|body| body.pointer("/properties/identityProfile"));
    check_kubelet(properties.remove("identityProfile"), old_kubelet, problems);

    let kept = match (asked.present.is_some(), kind, principal, old_principal) {
        // A new cluster.
        (false, Some("SystemAssigned"), Some(_), _) => {
            problems.add(
                ErrorCode::INVALID_PARAMETER,
                CLIENT_ID,
                "A cluster has either a system-assigned identity or a service principal, not both.",
            );
            None
        }
        (false, Some("None"), None, _) => {
            problems.add(
                ErrorCode::INVALID_PARAMETER,
                "identity.type",
                "Without an identity the cluster needs a service principal; use 'SystemAssigned' or set servicePrincipalProfile.",
            );
            None
        }
        (false, _, Some(principal), _) => {
            if !asked.has_secret {
                problems.add(
                    ErrorCode::MISSING_PARAMETER,
                    SERVICE_PRINCIPAL_SECRET,
                    "The service principal's secret is missing.",
                );
            }
            Some(principal)
        }
        (false, _, None, _) => None,
        // One that is there: to a managed identity, but not back, and not to another principal.
        (true, Some("SystemAssigned"), _, _) => None,
        (true, _, None, Some(_)) if client.is_some() => None,
        (true, Some("None"), None, None) => {
            problems.add(
                ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED,
                "identity.type",
                "The cluster's system-assigned identity cannot be taken away.",
            );
            None
        }
        (true, _, Some(new), old) => {
            if old != Some(new) {
                problems.add(
                    ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED,
                    CLIENT_ID,
                    format!(
                        "The cluster's client id is '{}' and cannot be changed by an update.",
                        old_client.unwrap_or("msi")
                    ),
                );
            }
            old
        }
        (true, _, None, old) => old,
    };
    if let Some(client) = kept {
        properties.insert(
            "servicePrincipalProfile".to_owned(),
            json!({ "clientId": client }),
        );
        return;
    }
    properties.insert("servicePrincipalProfile".to_owned(), json!({ "clientId": "msi" }));
    let ids = asked.context.ids;
    let identity = before
        .and_then(|body| body.get("identity"))
        .cloned()
        .unwrap_or_else(|| {
            json!({
                "type": "SystemAssigned",
                "principalId": ids.uuid().to_string(),
                "tenantId": asked.context.principal.tenant_id,
            })
        });
    draft.insert("identity".to_owned(), identity);
    let kubelet = old_kubelet.cloned().unwrap_or_else(|| {
        json!({ KUBELET: {
            "resourceId": format!(
                "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{}-agentpool",
                asked.name.subscription, asked.node_group, asked.name.cluster
            ),
            "clientId": ids.uuid().to_string(),
            "objectId": ids.uuid().to_string(),
        }})
    });
    properties.insert("identityProfile".to_owned(), kubelet);
}

/// Clients send back what they read; an identity of one's own for the kubelets is not there yet.
fn check_kubelet(asked: Option<Value>, present: Option<&Value>, problems: &mut Problems) {
    let Some(Value::Object(asked)) = asked else { return };
    for (key, identity) in asked {
        for (field, value) in identity.as_object().into_iter().flatten() {
            let now = present
                .and_then(|present| present.get(&key))
                .and_then(|present| present.get(field));
            let same = now
                .and_then(Value::as_str)
                .zip(value.as_str())
                .is_some_and(|(now, asked)| now.eq_ignore_ascii_case(asked));
            if !same {
                problems.add(
                    ErrorCode::PROPERTY_NOT_SUPPORTED,
                    format!("properties.identityProfile.{key}.{field}"),
                    "Bringing an identity for the kubelets is not supported yet; leave identityProfile out.",
                );
            }
        }
    }
}
