//! Kubeconfigs of those that the stamp's directory knows: there is no credential in them; a program gets a token each time. As AKS writes them, but
//! for where the token service is.

use cluster_pki::ClusterPki;
use cluster_spec::{ClusterSpec, CredentialKind, TokenFormat};
use serde_json::json;

use crate::{
    directory::{CLIENT_APPLICATION, SERVER_APPLICATION},
    kubeconfig::{Entry, document},
};

/// A kubeconfig with which whoever has a token of the tenant reaches the cluster; in `namespace`, where there is one. `authority`: where people sign in, with a trailing slash.
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
        // As one word: of two, the Azure CLI makes a configuration that forgets where the token service is.
        "--login=devicecode",
        // Not in AKS: the token service is the stamp's, and nobody else is asked about it.
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
