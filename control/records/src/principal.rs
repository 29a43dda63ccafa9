//! Who can be known to a stamp: people, service principals and managed identities, the applications behind them, the groups they are in,
//! and what they prove themselves with.
//!
//! | key | record |
//! |---|---|
//! | `/principals/{object id}` | [`PrincipalRecord`] |
//! | `/directory/login/{login}` | [`LoginRecord`]: who logs in with this |
//! | `/directory/first/{login}` | [`FirstPrincipalRecord`]: that one of the stamp's own was made once |
//! | `/directory/application/{object id}` | [`ApplicationRecord`] |
//! | `/directory/group/{object id}` | [`PrincipalGroupRecord`] |
//! | `/directory/group-name/{name}` | [`GroupNameRecord`]: which group has this name |
//! | `/managed-identity/{s}/{group}/{name}` | [`ManagedIdentityRecord`]: a resource, and which principal it is |
//! | `/directory/member/{group}/{member}`, `/directory/member-of/{member}/{group}` | [`MemberRecord`]: who is in which group |
//!
//! Always true: of a secret only a hash is kept; an object id, once given, is never given to another; an index is written and removed with
//! what it points to, and both records of a membership are there or neither is.

use std::collections::BTreeMap;

use arm_ids::ResourcePath;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::child::SystemData;

/// Somebody who can log in, at `/principals/{object id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrincipalRecord {
    /// Format.
    pub v: u32,
    /// GUID.
    pub object_id: String,
    /// GUID of the application (service principals, managed identities) or the user principal name (users).
    pub login: String,
    /// `Application`, `ManagedIdentity` or `User`.
    pub kind: String,
    /// For people.
    pub display_name: String,
    /// Salted hash of the first secret or of the password: `pbkdf2-sha256${iterations}${salt hex}${hash hex}`, or as argon2id writes
    /// it; empty when there is none.
    pub secret_hash: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Gets no token, and tokens that it has are good for nothing.
    #[serde(default)]
    pub disabled: bool,
    /// What it can prove itself with beside `secret_hash`.
    #[serde(default)]
    pub credentials: Vec<Credential>,
    /// Tokens and refresh tokens issued before are good for nothing: set when everything that somebody holds is revoked.
    #[serde(default)]
    pub valid_from: Option<Timestamp>,
    /// Where an application's sign-ins in a browser may end, beside the host of whoever signs in: exactly these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirect_uris: Vec<String>,
    /// A person's alias, before the `@`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nickname: Option<String>,
    /// Object id of a service principal's application; the stamp's own first one has none. The application's credentials are among its
    /// own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// Id of the ARM resource whose identity this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

impl PrincipalRecord {
    /// One without a name, that cannot prove itself with anything yet.
    #[must_use]
    pub fn new(object_id: &str, now: Timestamp) -> Self {
        Self {
            v: 1,
            object_id: object_id.to_owned(),
            login: String::new(),
            kind: String::new(),
            display_name: String::new(),
            secret_hash: String::new(),
            created_at: now,
            disabled: false,
            credentials: Vec::new(),
            valid_from: None,
            redirect_uris: Vec::new(),
            nickname: None,
            application: None,
            resource: None,
        }
    }
}

/// Something that a principal can prove itself with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// GUID: the `keyId` of Graph.
    pub id: String,
    /// For people.
    pub display_name: String,
    /// When it was added.
    pub created_at: Timestamp,
    /// Until when it is good; `None`: until it is removed.
    pub expires_at: Option<Timestamp>,
    /// What it is.
    pub proof: Proof,
}

/// What a credential is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Proof {
    /// A secret.
    #[serde(rename_all = "camelCase")]
    Secret {
        /// As [`PrincipalRecord::secret_hash`].
        hash: String,
        /// Its first three characters: the `hint` of Graph.
        hint: String,
    },
    /// Whoever has the private key of this certificate.
    #[serde(rename_all = "camelCase")]
    Certificate {
        /// The certificate, DER in base64.
        der: String,
    },
    /// Whoever has a token of another issuer: a service account of a cluster, a job of a CI system.
    #[serde(rename_all = "camelCase")]
    Federated {
        /// Unique among those of its principal.
        name: String,
        /// The `iss` of the token, exactly.
        issuer: String,
        /// The `sub` of the token, exactly.
        subject: String,
        /// One of them has to be the token's `aud`: `api://AzureADTokenExchange`.
        audiences: Vec<String>,
    },
}

/// A principal that stands for a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterIdentity {
    /// Object id.
    pub object_id: String,
    /// Client id. Of the cluster's own it follows from the object id: a decision that is made again makes the same.
    pub client_id: String,
    /// What it is beside the cluster itself: nothing, or its kubelets.
    pub of_kubelets: bool,
}

/// The principals that stand for a cluster, as its body has them: made with it, and gone with it. Identities that are resources of their own
/// and were only assigned to it are not among them.
pub fn of_cluster(body: &Value) -> Vec<ClusterIdentity> {
    let text = |pointer: &str| body.pointer(pointer)?.as_str().map(str::to_owned);
    let own = text("/identity/principalId").map(|object_id| ClusterIdentity {
        client_id: client_id_of(&object_id),
        object_id,
        of_kubelets: false,
    });
    let kubelets_at = "/properties/identityProfile/kubeletidentity";
    let made = has_made_kubelet_identity(body);
    let kubelets = text(&format!("{kubelets_at}/objectId")).filter(|_| made);
    let kubelets = kubelets.map(|object_id| ClusterIdentity {
        client_id: text(&format!("{kubelets_at}/clientId")).unwrap_or_else(|| client_id_of(&object_id)),
        object_id,
        of_kubelets: true,
    });
    own.into_iter().chain(kubelets).collect()
}

/// Whether the identity of a cluster's kubelets was made for it: its id is in the group of the nodes.
pub fn has_made_kubelet_identity(body: &Value) -> bool {
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
    let group = text("/properties/nodeResourceGroup").unwrap_or_default();
    let id = text("/properties/identityProfile/kubeletidentity/resourceId");
    // One without an id is of a cluster of before, when there were no others.
    id.is_none_or(|id| {
        let path = ResourcePath::parse(id).ok();
        let own = path.and_then(|path| path.resource_group);
        own.is_some_and(|own| own.eq_ignore_ascii_case(group))
    })
}

/// The client id of an identity, which follows from its object id: another GUID.
fn client_id_of(id: &str) -> String {
    match id.parse::<uuid::Uuid>() {
        Ok(id) => uuid::Uuid::from_u128(id.as_u128() ^ 1).to_string(),
        Err(_) => format!("{id}-client"),
    }
}

/// Who logs in with this, at `/directory/login/{login, lower case}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginRecord {
    /// Format.
    pub v: u32,
    /// Object id of the principal.
    pub principal: String,
}

/// That one of the stamp's own principals was made: whoever removes it does not find it again after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FirstPrincipalRecord {
    /// Format.
    pub v: u32,
    /// When that was written down.
    pub at: Timestamp,
}

/// What a service principal stands for, at `/directory/application/{object id}`. It can log in once it has a service principal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationRecord {
    /// Format.
    pub v: u32,
    /// GUID.
    pub object_id: String,
    /// GUID: the client id, and the login of its service principal.
    pub app_id: String,
    /// For people.
    pub display_name: String,
    /// By which it is known as well.
    pub identifier_uris: Vec<String>,
    /// Where sign-ins in a browser may end, of a program on a server; exactly these. Its service principal has them as well.
    #[serde(default)]
    pub web_redirect_uris: Vec<String>,
    /// The same of a program on somebody's own machine.
    #[serde(default)]
    pub public_redirect_uris: Vec<String>,
    /// What it can prove itself with. Its service principal has the same.
    pub credentials: Vec<Credential>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl ApplicationRecord {
    /// Where sign-ins may end.
    #[must_use]
    pub fn redirect_uris(&self) -> Vec<String> {
        let mut all = self.web_redirect_uris.clone();
        let more = self.public_redirect_uris.iter();
        all.extend(more.filter(|uri| !self.web_redirect_uris.contains(uri)).cloned());
        all
    }
}

/// A group of principals, at `/directory/group/{object id}`. What is assigned to it, its members have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrincipalGroupRecord {
    /// Format.
    pub v: u32,
    /// GUID.
    pub object_id: String,
    /// For people; unique in the stamp, ignoring case.
    pub display_name: String,
    /// For people.
    pub description: String,
    /// Its alias.
    pub nickname: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Which group has this name, at `/directory/group-name/{name, lower case}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupNameRecord {
    /// Format.
    pub v: u32,
    /// Object id of the group.
    pub group: String,
}

/// That somebody, or another group, is in a group: all of it is in the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberRecord {
    /// Format.
    pub v: u32,
    /// Since when.
    pub since: Timestamp,
}

/// An identity that is a resource, at `/managed-identity/{s}/{group}/{name}` in lower case. What it logs in with is its principal's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedIdentityRecord {
    /// Format.
    pub v: u32,
    /// GUID of the subscription.
    pub subscription: String,
    /// Group, as in the request that made it.
    pub resource_group: String,
    /// Name, as in the request that made it.
    pub name: String,
    /// Region.
    pub location: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// GUID of the tenant.
    pub tenant_id: String,
    /// Object id of its principal.
    pub principal_id: String,
    /// Login of its principal.
    pub client_id: String,
    /// Who made and last changed it.
    pub system_data: SystemData,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_identity_that_was_only_assigned_does_not_go_with_the_cluster() {
        let body = |identity: Value, kubelet_group: &str| {
            json!({
                "identity": identity,
                "properties": {
                    "nodeResourceGroup": "MC_g_c_local",
                    "identityProfile": { "kubeletidentity": {
                        "resourceId": format!(
                            "/subscriptions/s/resourceGroups/{kubelet_group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/k"
                        ),
                        "objectId": "kubelets", "clientId": "client",
                    }},
                },
            })
        };
        let ids =
            |body: &Value| -> Vec<String> { of_cluster(body).into_iter().map(|one| one.object_id).collect() };
        let system = json!({ "type": "SystemAssigned", "principalId": "own" });
        let user =
            json!({ "type": "UserAssigned", "userAssignedIdentities": { "id": { "principalId": "other" } } });
        assert_eq!(ids(&body(system.clone(), "mc_G_c_local")), ["own", "kubelets"]);
        assert_eq!(ids(&body(user.clone(), "MC_g_c_local")), ["kubelets"]);
        assert_eq!(ids(&body(user, "g")), [""; 0]);
        assert_eq!(ids(&body(system, "g")), ["own"]);
    }
}
