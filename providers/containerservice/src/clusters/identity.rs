//! Decides whose identity a cluster has: a system-assigned one, a user-assigned one, or a service principal; and which one its kubelets
//! have. Pure.
//!
//! Identifiers of a system-assigned identity are made once and stay: clients grant rights to `principalId` right after the
//! PUT, and `az aks update` needs `identityProfile.kubeletidentity` in every answer. A cluster goes from a service principal to a managed
//! identity and not back; between managed identities it goes both ways.

use arm_kernel::{quote, schema::Problems};
use arm_wire::ErrorCode;
use control_records::{ClusterRecord, ManagedIdentityRecord, principal::has_made_kubelet_identity};
use serde_json::{Map, Value, json};

use super::{
    draft::{Context, Name, SERVICE_PRINCIPAL_SECRET},
    named::{ASSIGNED, KUBELET, Named, identity_path},
};

const CLIENT_ID: &str = "properties.servicePrincipalProfile.clientId";
const IDENTITIES: &str = "identity.userAssignedIdentities";
const SYSTEM: &str = "SystemAssigned";
const USER: &str = "UserAssigned";

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

/// Whose the cluster is to be.
enum Whose<'a> {
    /// A service principal's.
    Principal(&'a str),
    /// A managed identity's: the one that it has, or a system-assigned one.
    Managed,
    /// A system-assigned identity's.
    System,
    /// This identity's, by its id.
    User(&'a str),
}

/// Fills `identity`, `servicePrincipalProfile` and `identityProfile` in.
pub(crate) fn decide(
    asked: &IdentityInput<'_>,
    draft: &mut Map<String, Value>,
    properties: &mut Map<String, Value>,
    problems: &mut Problems,
) {
    let identity = draft.remove("identity");
    let profile = properties.remove("servicePrincipalProfile");
    let client = profile.as_ref().and_then(|profile| profile["clientId"].as_str());
    let kubelet = properties.remove("identityProfile");
    let before = asked.present.map(|present| present.body());
    let old = before.and_then(|body| body.get("identity"));

    let whose = whose(asked, identity.as_ref(), client, problems);
    if let Whose::Principal(client) = whose {
        let old_kubelet = before.and_then(|body| body.pointer("/properties/identityProfile"));
        kubelets(asked, kubelet, old_kubelet, false, problems);
        properties.insert(
            "servicePrincipalProfile".to_owned(),
            json!({ "clientId": client }),
        );
        return;
    }
    properties.insert("servicePrincipalProfile".to_owned(), json!({ "clientId": "msi" }));
    let is_user = |identity: &Value| identity["type"] == json!(USER);
    let identity = match (whose, old) {
        (Whose::User(id), old) => match found(asked.context.named, id, IDENTITIES, problems) {
            Some(record) => json!({ "type": USER, ASSIGNED: { spelled(id, old): {
                "principalId": record.principal_id, "clientId": record.client_id,
            }}}),
            None => return,
        },
        (Whose::Managed, Some(old)) => old.clone(),
        (Whose::System, Some(old)) if !is_user(old) => old.clone(),
        _ => json!({
            "type": SYSTEM,
            "principalId": asked.context.ids.uuid().to_string(),
            "tenantId": asked.context.principal.tenant_id,
        }),
    };
    // One of one's own for the kubelets goes with a user-assigned identity: without that it is made again.
    let (is_user, made) = (is_user(&identity), before.is_none_or(has_made_kubelet_identity));
    let old_kubelet = before
        .and_then(|body| body.pointer("/properties/identityProfile"))
        .filter(|_| is_user || made);
    draft.insert("identity".to_owned(), identity);
    let profile = kubelets(asked, kubelet, old_kubelet, is_user, problems).unwrap_or_else(|| {
        json!({ KUBELET: {
            "resourceId": format!(
                "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{}-agentpool",
                asked.name.subscription, asked.node_group, asked.name.cluster
            ),
            "clientId": asked.context.ids.uuid().to_string(),
            "objectId": asked.context.ids.uuid().to_string(),
        }})
    });
    properties.insert("identityProfile".to_owned(), profile);
}

/// Whose identity is asked for; where something is wrong, any.
fn whose<'a>(
    asked: &IdentityInput<'a>,
    identity: Option<&'a Value>,
    client: Option<&'a str>,
    problems: &mut Problems,
) -> Whose<'a> {
    let kind = identity.and_then(|identity| identity["type"].as_str());
    let assigned = identity.and_then(|identity| identity[ASSIGNED].as_object());
    let principal = client.filter(|client| !is_managed(client));
    let before = asked.present.map(|present| present.body());
    let old_client = before
        .and_then(|body| body.pointer("/properties/servicePrincipalProfile/clientId"))
        .and_then(Value::as_str);
    let old_principal = old_client.filter(|client| !is_managed(client));
    let mut wrong = |code, target: &str, message: &str| problems.add(code, target, message);
    if kind != Some(USER) && assigned.is_some_and(|assigned| !assigned.is_empty()) {
        wrong(
            ErrorCode::INVALID_PARAMETER,
            IDENTITIES,
            "User-assigned identities go with 'identity.type' UserAssigned; set that, or leave them out.",
        );
    }
    match (asked.present.is_some(), kind, principal, old_principal) {
        // A new cluster.
        (false, Some(SYSTEM | USER), Some(_), _) => {
            wrong(
                ErrorCode::INVALID_PARAMETER,
                CLIENT_ID,
                "A cluster has either a managed identity or a service principal, not both.",
            );
            Whose::Managed
        }
        (false, Some("None"), None, _) => {
            wrong(
                ErrorCode::INVALID_PARAMETER,
                "identity.type",
                "Without an identity the cluster needs a service principal; use 'SystemAssigned' or set servicePrincipalProfile.",
            );
            Whose::Managed
        }
        (false, _, Some(principal), _) => {
            if !asked.has_secret {
                wrong(
                    ErrorCode::MISSING_PARAMETER,
                    SERVICE_PRINCIPAL_SECRET,
                    "The service principal's secret is missing.",
                );
            }
            Whose::Principal(principal)
        }
        // To a managed identity, or from one to another; but not back, and not to another principal.
        (_, Some(USER), _, _) => user(assigned, before, problems),
        (_, Some(SYSTEM), _, _) => Whose::System,
        (false, _, None, _) => Whose::Managed,
        (true, _, None, Some(_)) if client.is_some() => Whose::Managed,
        (true, Some("None"), None, None) => {
            wrong(
                ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED,
                "identity.type",
                "The cluster's managed identity cannot be taken away.",
            );
            Whose::Managed
        }
        (true, _, Some(new), old) => {
            if old != Some(new) {
                let message = format!(
                    "The cluster's client id is '{}' and cannot be changed by an update.",
                    old_client.unwrap_or("msi")
                );
                wrong(ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED, CLIENT_ID, &message);
            }
            old.map_or(Whose::Managed, Whose::Principal)
        }
        (true, _, None, old) => old.map_or(Whose::Managed, Whose::Principal),
    }
}

/// The one identity that is named.
fn user<'a>(
    assigned: Option<&'a Map<String, Value>>,
    before: Option<&Value>,
    problems: &mut Problems,
) -> Whose<'a> {
    let mut ids = assigned.into_iter().flat_map(Map::keys);
    match (ids.next(), ids.next()) {
        (Some(id), None) => return Whose::User(id),
        // Said again without a name, it is the one that it has.
        (None, _) if before.is_some_and(|body| body["identity"]["type"] == json!(USER)) => {}
        (None, _) => problems.add(
            ErrorCode::MISSING_PARAMETER,
            IDENTITIES,
            "A user-assigned identity is named here: its id, with an empty object.",
        ),
        (Some(_), Some(_)) => problems.add(
            ErrorCode::INVALID_PARAMETER,
            IDENTITIES,
            "A cluster has one user-assigned identity; name only one.",
        ),
    }
    Whose::Managed
}

/// An identity that a body names.
fn found<'a>(
    named: &'a Named,
    id: &str,
    target: &str,
    problems: &mut Problems,
) -> Option<&'a ManagedIdentityRecord> {
    let Some(path) = identity_path(id) else {
        let message = format!(
            "{} is not the id of a user-assigned identity: /subscriptions/…/resourceGroups/…/providers/Microsoft.ManagedIdentity/\
             userAssignedIdentities/….",
            quote(id)
        );
        problems.add(ErrorCode::INVALID_PARAMETER, target, message);
        return None;
    };
    let record = named.get(&path);
    if record.is_none() {
        let message = format!("The user-assigned identity {} was not found.", quote(id));
        problems.add(ErrorCode::FAILED_IDENTITY_OPERATION, target, message);
    }
    record
}

/// An id as it was spelled before, where it is the same: repeating a request in other letters changes nothing.
fn spelled<'a>(id: &'a str, old: Option<&'a Value>) -> &'a str {
    let mut old = old
        .and_then(|old| old[ASSIGNED].as_object())
        .into_iter()
        .flat_map(Map::keys);
    old.find(|old| old.eq_ignore_ascii_case(id))
        .map_or(id, String::as_str)
}

/// What the kubelets have: what is asked for, or what they had. `may`: whether they may have an identity of one's own.
fn kubelets(
    asked: &IdentityInput<'_>,
    profile: Option<Value>,
    present: Option<&Value>,
    may: bool,
    problems: &mut Problems,
) -> Option<Value> {
    let mut wanted = present.cloned();
    let profile = match profile {
        Some(Value::Object(profile)) => profile,
        _ => Map::new(),
    };
    for (key, identity) in profile {
        let text = |identity: Option<&Value>, field: &str| Some(identity?.get(field)?.as_str()?.to_owned());
        let same = |now: Option<String>, asked: &str| now.is_some_and(|now| now.eq_ignore_ascii_case(asked));
        let target = |field: &str| format!("properties.identityProfile.{key}.{field}");
        let id = text(Some(&identity), "resourceId");
        let now = present.and_then(|present| present.get(&key));
        let mut known = now.cloned();
        if let Some(id) = id.filter(|id| !same(text(now, "resourceId"), id)) {
            if key != KUBELET {
                let message = format!("The only identity here is '{KUBELET}'.");
                problems.add(ErrorCode::INVALID_PARAMETER, target("resourceId"), message);
                continue;
            }
            if !may {
                problems.add(
                    ErrorCode::INVALID_PARAMETER,
                    target("resourceId"),
                    "Kubelets can have an identity of your own where the cluster has a user-assigned one; name that in \
                     'identity.userAssignedIdentities', or leave identityProfile out.",
                );
                continue;
            }
            let Some(record) = found(asked.context.named, &id, &target("resourceId"), problems) else {
                continue;
            };
            let own = json!({
                "resourceId": id, "clientId": record.client_id, "objectId": record.principal_id,
            });
            wanted = Some(json!({ KUBELET: own }));
            known = Some(own);
        }
        // Clients send these along; they follow from the identity.
        for field in ["clientId", "objectId"] {
            if let Some(value) = text(Some(&identity), field)
                && !same(text(known.as_ref(), field), &value)
            {
                let message = "It is not that of the identity in 'resourceId'; leave it out.";
                problems.add(ErrorCode::INVALID_PARAMETER, target(field), message);
            }
        }
    }
    wanted
}
