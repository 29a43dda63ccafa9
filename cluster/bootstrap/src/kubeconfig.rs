//! Kubeconfigs: for components on machines, and for people.

use std::borrow::Cow;

use base64::Engine as _;
use cluster_addons::{MONITORING_USER, USERS_GROUP};
use cluster_api::Endpoint;
use cluster_pki::{Certificate, ClusterPki, Subject};
use cluster_spec::{ClusterSpec, CredentialKind};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{API_PORT, BootstrapError};

/// Who the user credential is.
const USER: &str = "landfall:cluster-user";

/// The name AKS gives the user entry.
fn user(kind: CredentialKind, spec: &ClusterSpec) -> String {
    format!("{}_{}_{}", kind.name(), spec.resource_group, spec.name)
}

/// The name AKS gives the context.
fn context(kind: CredentialKind, spec: &ClusterSpec) -> String {
    match kind {
        CredentialKind::Admin => format!("{}-admin", spec.name),
        CredentialKind::User | CredentialKind::Monitoring => spec.name.clone(),
    }
}

fn subject(kind: CredentialKind) -> Subject {
    match kind {
        CredentialKind::Admin => Subject::client("masterclient").group("system:masters"),
        // Not the entry's name: a common name has at most 64 characters, a resource group alone may have 90.
        CredentialKind::User => Subject::client(USER).group(USERS_GROUP),
        CredentialKind::Monitoring => Subject::client(MONITORING_USER),
    }
}

/// A kubeconfig for a person, with a certificate made for this call.
///
/// # Errors
/// When the certificate cannot be made.
pub fn kubeconfig(
    spec: &ClusterSpec,
    pki: &ClusterPki,
    server: &str,
    kind: CredentialKind,
    now: Timestamp,
) -> Result<String, BootstrapError> {
    let certificate = pki.cluster.issue(&subject(kind), now)?;
    let (user, context) = (user(kind, spec), context(kind, spec));
    let (user, context) = (scalar(&user), scalar(&context));
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    // YAML by hand, as people open this file: base64, an address, and names.
    Ok(format!(
        "apiVersion: v1\n\
         kind: Config\n\
         preferences: {{}}\n\
         clusters:\n\
         - cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n  name: {cluster}\n\
         contexts:\n\
         - context:\n    cluster: {cluster}\n    user: {user}\n  name: {context}\n\
         current-context: {context}\n\
         users:\n\
         - name: {user}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n",
        ca = encode(&pki.cluster.certificate),
        cluster = scalar(&spec.name),
        certificate = encode(&certificate.certificate),
        key = encode(&certificate.key),
    ))
}

/// A name in YAML: as it is, or quoted where a reader could take it for something else than text (a cluster may be called
/// `123`, `1e3` or `on`).
fn scalar(name: &str) -> Cow<'_, str> {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let plain = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && !WORDS.iter().any(|word| name.eq_ignore_ascii_case(word));
    if plain {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(json!(name).to_string())
    }
}

/// How the service itself reaches a cluster.
///
/// # Errors
/// When the certificate cannot be made.
pub fn admin_endpoint(
    pki: &ClusterPki,
    vip: std::net::Ipv4Addr,
    now: Timestamp,
) -> Result<Endpoint, BootstrapError> {
    let subject = Subject::client("landfall").group("system:masters");
    let Certificate { certificate, key } = pki.cluster.issue(&subject, now)?;
    Ok(Endpoint {
        server: format!("https://{vip}:{API_PORT}"),
        ca: pki.cluster.certificate.clone(),
        certificate,
        key,
    })
}

/// A kubeconfig for a component. Its credential lies beside it, as `{identity}.crt` and `{identity}.key`: what is in files
/// of its own is read again when it changes, so that a renewed certificate needs no restart.
pub(crate) fn component(server: &str, ca_file: &str, user: &str, identity: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "default",
        "clusters": [{ "name": "default", "cluster": { "server": server, "certificate-authority": ca_file } }],
        "contexts": [{ "name": "default", "context": { "cluster": "default", "user": user } }],
        "users": [{ "name": user, "user": {
            "client-certificate": format!("{identity}.crt"),
            "client-key": format!("{identity}.key"),
        } }],
    })
}

#[cfg(test)]
mod tests {
    use super::scalar;

    #[test]
    fn names_that_look_like_something_else_are_quoted() {
        for (name, written) in [
            ("shop", "shop"),
            ("e5", "e5"),
            ("123", "\"123\""),
            ("1e3", "\"1e3\""),
            ("On", "\"On\""),
            ("null", "\"null\""),
        ] {
            assert_eq!(scalar(name), written);
        }
    }
}
