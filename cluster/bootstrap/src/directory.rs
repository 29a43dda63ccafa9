//! Who is known to an API server beside its own certificates and service accounts: those that the stamp's directory knows, by tokens of the
//! stamp's token service. And what role assignments of the stamp give them: the API server asks the stamp's service about each request that the
//! cluster's own roles do not permit.
//!
//! Always true: nobody gets a name of Kubernetes' own (`system:`) from a token; only those who came with such a token are asked about; keys, and
//! decisions, are kept by the API server for as long as it runs, so that the stamp's service may be away.

use agent_protocol::File;
use cluster_spec::{ClusterSpec, DirectoryAccess};
use serde::Serialize;
use serde_json::{Value, json};

use crate::object;

/// The application that stands for the API servers of all clusters: whom tokens for them are for. As in AKS.
pub const SERVER_APPLICATION: &str = "6dae42f8-4368-4678-94ff-3960e28e3630";
/// The application that people sign in with. As in AKS.
pub const CLIENT_APPLICATION: &str = "80faf920-1908-4b52-b5ef-a8e7bedfc67a";

/// Where the API server finds out whom it asks about what is permitted.
pub(crate) const AUTHORIZATION: &str = "/etc/kubernetes/authorization.json";
const WEBHOOK: &str = "/etc/kubernetes/role-assignments.kubeconfig";
/// What the machine's agent shows to the stamp's service: what is asked here is asked in its name.
const AGENT: &str = "/var/lib/landfall-agent";
/// The path at which the stamp's service decides.
pub const REVIEW_PATH: &str = "/agent/v1/access-review";

/// The stamp's token service, as machines and pods reach it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TokenAuthority {
    /// Its URL without a trailing slash, e.g. `https://100.64.16.1:7443`.
    pub url: String,
    /// PEM of the CA of its certificate.
    pub ca: String,
    /// GUID of its tenant.
    pub tenant: String,
    /// Who it says in its tokens that it is, each with the path below [`Self::url`] that its discovery is at.
    pub issuers: Vec<(String, String)>,
}

/// The configuration of who is known. `None`: the directory is not.
pub(crate) fn authenticators(directory: &DirectoryAccess, authority: &TokenAuthority) -> Vec<Value> {
    let each = authority.issuers.iter();
    each.map(|(issuer, path)| {
        json!({
            "issuer": {
                "url": issuer,
                // The issuer's own address is the host's, which no machine reaches.
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
                // A person is called by the name that it signs in with, everybody else by its object id.
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

/// Whether role assignments of the stamp count in a cluster.
pub(crate) fn asks(spec: &ClusterSpec) -> bool {
    spec.directory.as_ref().is_some_and(|directory| directory.roles)
}

/// The files with which the API server asks about role assignments.
pub(crate) fn authorization(authority: &TokenAuthority) -> [File; 2] {
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration",
        "authorizers": [
            { "type": "Node", "name": "node" },
            { "type": "RBAC", "name": "rbac" },
            { "type": "Webhook", "name": "role-assignments", "webhook": {
                "timeout": "3s",
                // A right that is taken away is gone after so long; what was permitted goes on that long while the service is away.
                "authorizedTTL": "5m",
                "unauthorizedTTL": "10s",
                "cacheAuthorizedRequests": true,
                "cacheUnauthorizedRequests": true,
                // The cluster's own roles count alone then.
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
