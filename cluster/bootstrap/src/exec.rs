//! Kubeconfigs for users of the stamp's directory, without a credential; a program gets a token each time. As
//! in AKS, except for the address of the token service.

use cluster_pki::ClusterPki;
use cluster_spec::{ClusterSpec, CredentialKind, TokenFormat};
use serde_json::json;

use crate::{
    directory::{CLIENT_APPLICATION, SERVER_APPLICATION},
    kubeconfig::{Entry, document},
};

/// A kubeconfig for all users with a token of the tenant; in `namespace`, where there is one. `authority`: the
/// URL for logins, with a trailing slash.
pub fn directory_kubeconfig(
    spec: &ClusterSpec,
    tenant: &str,
    pki: &ClusterPki,
    server: &str,
    authority: &str,
    format: TokenFormat,
    namespace: Option<&str>,
) -> String {
    let kind = CredentialKind::User;
    let source = match format {
        TokenFormat::Exec => exec(tenant, authority),
        TokenFormat::Azure => format!(
            "    auth-provider:\n\
             \x20     config:\n\
             \x20       apiserver-id: {SERVER_APPLICATION}\n\
             \x20       client-id: {CLIENT_APPLICATION}\n\
             \x20       config-mode: \"1\"\n\
             \x20       environment: AzurePublicCloud\n\
             \x20       tenant-id: {tenant}\n\
             \x20     name: azure\n"
        ),
    };
    document(spec, pki, server, &Entry::of(kind, spec, namespace), &source)
}

fn exec(tenant: &str, authority: &str) -> String {
    let arguments = [
        "get-token",
        "--environment",
        "AzurePublicCloud",
        "--server-id",
        SERVER_APPLICATION,
        "--client-id",
        CLIENT_APPLICATION,
        "--tenant-id",
        tenant,
        // As one word: from two, the Azure CLI makes a configuration without the token service's address.
        "--login=devicecode",
        // Not in AKS: tokens come from the stamp's own token service.
        "--authority-host",
        authority,
        "--disable-instance-discovery",
    ];
    let arguments: String = arguments
        .iter()
        .map(|argument| format!("      - {}\n", json!(argument)))
        .collect();
    format!(
        "    exec:\n\
         \x20     apiVersion: client.authentication.k8s.io/v1beta1\n\
         \x20     args:\n\
         {arguments}\
         \x20     command: kubelogin\n\
         \x20     env: null\n\
         \x20     installHint: |\n\
         \x20       kubelogin is not installed, which is needed to sign in to this cluster.\n\
         \x20       'landfall kubelogin' says how to get it.\n\
         \x20     provideClusterInfo: false\n"
    )
}
