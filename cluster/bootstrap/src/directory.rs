//! Users of an API server besides its own certificates and service accounts: the principals of the stamp's
//! directory, with tokens of the stamp's token service. And their rights from role assignments of the stamp:
//! the API server asks the stamp's service about each request that the cluster's own roles do not permit.
//!
//! Always true: no token gives a name with Kubernetes' prefix `system:`; only requests with such a token are
//! sent for review; keys and decisions are cached by the API server while it runs, so that the stamp's
//! service may be away.

use agent_protocol::File;
use cluster_spec::{ClusterSpec, DirectoryAccess};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{object, paths::AGENT};

/// The application of the API servers of all clusters: the audience of their tokens. As in AKS.
pub const SERVER_APPLICATION: &str = "6dae42f8-4368-4678-94ff-3960e28e3630";
/// The application of interactive logins. As in AKS.
pub const CLIENT_APPLICATION: &str = "80faf920-1908-4b52-b5ef-a8e7bedfc67a";

/// The API server's authorization configuration.
pub(crate) const AUTHORIZATION: &str = "/etc/kubernetes/authorization.json";
const WEBHOOK: &str = "/etc/kubernetes/role-assignments.kubeconfig";
/// The path of access reviews at the stamp's service.
pub const REVIEW_PATH: &str = "/agent/v1/access-review";

/// The stamp's token service, as seen from machines and pods.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TokenAuthority {
    /// Its URL without a trailing slash, e.g. `https://100.64.16.1:7443`.
    pub url: String,
    /// PEM of the CA of its certificate.
    pub ca: String,
    /// GUID of its tenant.
    pub tenant: String,
    /// The issuers of its tokens, each with the path of its discovery document below [`Self::url`].
    pub issuers: Vec<(String, String)>,
}

/// The JWT authenticators of the stamp's directory.
pub(crate) fn authenticators(directory: &DirectoryAccess, authority: &TokenAuthority) -> Vec<Value> {
    let each = authority.issuers.iter();
    each.map(|(issuer, path)| {
        json!({
            "issuer": {
                "url": issuer,
                // The issuer's own address is the host's, which machines cannot reach.
                "discoveryURL": format!("{}{path}/.well-known/openid-configuration", authority.url),
                "certificateAuthority": authority.ca,
                "audiences": [SERVER_APPLICATION],
                "audienceMatchPolicy": "MatchAny",
            },
            "claimValidationRules": [{
                "expression": format!("claims.tid == {}", json!(directory.tenant)),
                "message": "the token is of another tenant",
            }],
            "claimMappings": {
                // A person's user name is the login name, that of other principals the object id.
                "username": { "expression": "claims.?upn.orValue(claims.oid)" },
                "groups": { "claim": "groups", "prefix": "" },
                "uid": { "claim": "oid" },
            },
            "userValidationRules": [
                {
                    "expression": "!user.username.startsWith('system:')",
                    "message": "names that begin with system: are Kubernetes' own",
                },
                {
                    "expression": "user.groups.all(group, !group.startsWith('system:'))",
                    "message": "groups that begin with system: are Kubernetes' own",
                },
            ],
        })
    })
    .collect()
}

/// Whether role assignments of the stamp apply in a cluster.
pub(crate) fn asks(spec: &ClusterSpec) -> bool {
    spec.directory.as_ref().is_some_and(|directory| directory.roles)
}

/// The files with which the API server sends access reviews.
pub(crate) fn authorization(authority: &TokenAuthority) -> [File; 2] {
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration",
        "authorizers": [
            { "type": "Node", "name": "node" },
            { "type": "RBAC", "name": "rbac" },
            { "type": "Webhook", "name": "role-assignments", "webhook": {
                "timeout": "3s",
                // A revoked right stays valid for this time; cached permissions also bridge an absence of the
                // service.
                "authorizedTTL": "5m",
                "unauthorizedTTL": "10s",
                "cacheAuthorizedRequests": true,
                "cacheUnauthorizedRequests": true,
                // Then only the cluster's own roles count.
                "failurePolicy": "NoOpinion",
                "subjectAccessReviewVersion": "v1",
                "matchConditionSubjectAccessReviewVersion": "v1",
                "connectionInfo": { "type": "KubeConfigFile", "kubeConfigFile": WEBHOOK },
                "matchConditions": [
                    { "expression": "has(request.uid) && request.uid != ''" },
                    { "expression": "!request.user.startsWith('system:')" },
                ],
            } },
        ],
    });
    let user = "role-assignments";
    let webhook = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": user,
        "clusters": [{ "name": user, "cluster": {
            "server": format!("{}{REVIEW_PATH}", authority.url),
            "certificate-authority-data": base64::Engine::encode(
                &base64::engine::general_purpose::STANDARD,
                &authority.ca,
            ),
        } }],
        "contexts": [{ "name": user, "context": { "cluster": user, "user": user } }],
        "users": [{ "name": user, "user": {
            "client-certificate": format!("{AGENT}/client.crt"),
            "client-key": format!("{AGENT}/client.key"),
        } }],
    });
    [object(AUTHORIZATION, &configuration), object(WEBHOOK, &webhook)]
}
