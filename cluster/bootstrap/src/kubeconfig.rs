//! Kubeconfigs: for components on machines, and for people.

use std::borrow::Cow;

use base64::Engine as _;
use cluster_addons::credential_user;
use cluster_api::Endpoint;
use cluster_pki::{Certificate, ClusterPki, Subject};
use cluster_spec::{ClusterSpec, CredentialKind};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{API_PORT, BootstrapError};

/// The stamp's operator: root on its host, with access to the cluster's keys in any case.
const OPERATOR: &str = "landfall:operator";

/// The user of a kubeconfig.
#[derive(Debug, Clone, Copy)]
pub enum Bearer<'a> {
    /// A credential, by its id: a separate user, whose rights are a binding in the cluster.
    Credential(CredentialKind, &'a str),
    /// The stamp's operator, whatever the cluster's roles say.
    Operator,
}

impl Bearer<'_> {
    /// The kind that determines the names in the file.
    fn kind(self) -> CredentialKind {
        match self {
            Self::Credential(kind, _) => kind,
            Self::Operator => CredentialKind::Admin,
        }
    }

    fn subject(self) -> Subject {
        match self {
            // Not the entry's name: a common name has at most 64 characters, a resource group alone may have
            // 90.
            Self::Credential(kind, id) => Subject::client(&credential_user(kind, id)),
            Self::Operator => Subject::client(OPERATOR).group("system:masters"),
        }
    }
}

/// AKS' name of the user entry.
fn user(kind: CredentialKind, spec: &ClusterSpec) -> String {
    format!("{}_{}_{}", kind.name(), spec.resource_group, spec.name)
}

/// AKS' name of the context.
fn context(kind: CredentialKind, spec: &ClusterSpec) -> String {
    match kind {
        CredentialKind::Admin => format!("{}-admin", spec.name),
        CredentialKind::User | CredentialKind::Monitoring => spec.name.clone(),
        // Beside the tenant's own in one file, if it gets there.
        CredentialKind::Support => format!("{}-support", spec.name),
    }
}

/// A client certificate for a bearer, valid until `until`.
///
/// # Errors
/// When the certificate cannot be made.
pub fn client_certificate(
    pki: &ClusterPki,
    bearer: Bearer<'_>,
    now: Timestamp,
    until: Timestamp,
) -> Result<Certificate, BootstrapError> {
    Ok(pki.cluster.issue_until(&bearer.subject(), now, until)?)
}

/// A kubeconfig with this client certificate; in `namespace`, where there is one, under names of its own.
pub fn kubeconfig(
    spec: &ClusterSpec,
    pki: &ClusterPki,
    server: &str,
    bearer: Bearer<'_>,
    certificate: &Certificate,
    namespace: Option<&str>,
) -> String {
    let kind = bearer.kind();
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let (certificate, key) = (encode(&certificate.certificate), encode(&certificate.key));
    let credential = format!("    client-certificate-data: {certificate}\n    client-key-data: {key}\n");
    document(spec, pki, server, &Entry::of(kind, spec, namespace), &credential)
}

/// The entries of a kubeconfig: one user and one context.
pub(crate) struct Entry<'a> {
    user: String,
    context: String,
    /// Where commands work that do not say where.
    namespace: Option<&'a str>,
}

impl<'a> Entry<'a> {
    /// Those of a kind, as AKS names them. Of a namespace they have its name as well, so that one file can hold several and the cluster's.
    pub(crate) fn of(kind: CredentialKind, spec: &ClusterSpec, namespace: Option<&'a str>) -> Self {
        let (mut user, mut context) = (user(kind, spec), context(kind, spec));
        if let Some(namespace) = namespace {
            user = format!("{user}_{namespace}");
            context = format!("{context}_{namespace}");
        }
        Self {
            user,
            context,
            namespace,
        }
    }
}

/// A kubeconfig of a cluster with one user and `credential` (lines below `user:`).
pub(crate) fn document(
    spec: &ClusterSpec,
    pki: &ClusterPki,
    server: &str,
    entry: &Entry<'_>,
    credential: &str,
) -> String {
    let (user, context) = (scalar(&entry.user), scalar(&entry.context));
    let namespace = entry.namespace.map_or_else(String::new, |namespace| {
        format!("    namespace: {}\n", scalar(namespace))
    });
    // YAML written by hand, because people read this file: base64, an address, and names.
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         preferences: {{}}\n\
         clusters:\n\
         - cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n  name: {cluster}\n\
         contexts:\n\
         - context:\n    cluster: {cluster}\n{namespace}    user: {user}\n  name: {context}\n\
         current-context: {context}\n\
         users:\n\
         - name: {user}\n  user:\n{credential}",
        ca = base64::engine::general_purpose::STANDARD.encode(pki.trusted_cluster()),
        cluster = scalar(&spec.name),
    )
}

/// A name in YAML: plain, or quoted if a parser could take it for something other than text (a cluster may be
/// called `123`, `1e3` or `on`).
pub(crate) fn scalar(name: &str) -> Cow<'_, str> {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let plain = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && !WORDS.iter().any(|word| name.eq_ignore_ascii_case(word));
    if plain {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(json!(name).to_string())
    }
}

/// The service's own access to a cluster.
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
        ca: pki.trusted_cluster(),
        certificate,
        key,
    })
}

/// A kubeconfig for a component. Its credential is in separate files, `{identity}.crt` and `{identity}.key`:
/// files are reloaded when they change, so that a renewed certificate needs no restart.
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
