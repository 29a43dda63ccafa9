//! Steps of `kubernetes-access`: a cluster that is bound to an identity, and an identity that is trusted with the cluster.

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::{
    kubernetes_access::{CLUSTER, GROUP, Walk},
    text,
};
use crate::clients::{attempt, run};

/// The application that represents the API servers of all clusters.
const SERVER: &str = "6dae42f8-4368-4678-94ff-3960e28e3630";

/// A pod that uses an identity by the cluster's binding; gives the client id. Its token is kept in a file.
pub(super) fn bind(walk: &Walk<'_>, block: &str) -> Result<String> {
    walk.follow(block)?;
    let identity = walk
        .az
        .json(&["identity", "show", "--resource-group", GROUP, "--name", "till"])?;
    let client = text(&identity, "/clientId")?.to_owned();
    let binding = walk.az.json(&of_binding("show"))?;
    // Wherever the Azure CLI shows the properties.
    let principal = text(&identity, "/principalId")?;
    ensure!(binding.to_string().contains(principal), "{binding}");
    let token = walk.admin("exec till -- cat /var/run/secrets/azure/tokens/azure-identity-token")?;
    std::fs::write(walk.directory().join("till-token"), token.trim())?;
    let audience = format!("api://AKSIdentityBinding/{client}");
    // The administrator gets none, either, for a service account without permission.
    let output = attempt(
        walk.block(&format!("kubectl create token shop --audience {audience}"))?
            .env("KUBECONFIG", "admin.kubeconfig"),
    )?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && said.contains("may not use this managed identity"),
        "{}: {said}",
        output.status
    );
    // Tokens for other audiences are issued as before.
    walk.admin("create token shop --audience api://AzureADTokenExchange")?;
    walk.admin(&format!("create token till --audience {audience}"))?;
    Ok(client)
}

/// `az aks identity-binding` of the binding.
fn of_binding(verb: &str) -> [&str; 9] {
    [
        "aks",
        "identity-binding",
        verb,
        "--resource-group",
        GROUP,
        "--cluster-name",
        CLUSTER,
        "--name",
        "till",
    ]
}

/// The environment variables by which kubelogin finds the identity.
fn variables<'v>(
    client: &'v str,
    token: &'v str,
    endpoint: &'v str,
    tenant: &'v str,
) -> [(&'v str, &'v str); 5] {
    [
        ("AAD_LOGIN_METHOD", "workloadidentity"),
        ("AZURE_CLIENT_ID", client),
        ("AZURE_FEDERATED_TOKEN_FILE", token),
        ("AZURE_AUTHORITY_HOST", endpoint),
        ("AZURE_TENANT_ID", tenant),
    ]
}

/// The identity is given a role in the cluster, and loses it.
pub(super) fn trust(walk: &Walk<'_>, block: &str, client: &str) -> Result<()> {
    let endpoint = format!("{}/", walk.told("/armEndpoint")?);
    let token = walk.directory().join("till-token").to_string_lossy().into_owned();
    let as_till = variables(client, &token, &endpoint, walk.told("/tenantId")?);
    let may = |what: &str| -> Result<bool> {
        let output = attempt(&mut walk.as_somebody(&as_till, &format!("auth can-i {what}"))?)?;
        match String::from_utf8_lossy(&output.stdout).trim() {
            "yes" => Ok(true),
            no if no == "no" || no.starts_with("no - ") => Ok(false),
            other => bail!("{other} {}", String::from_utf8_lossy(&output.stderr)),
        }
    };
    ensure!(!may("list pods --all-namespaces")?, "before it is trusted");
    let roles = walk.follow(block)?;
    ensure!(
        roles.contains("Microsoft.ManagedIdentity/userAssignedIdentities/scaler"),
        "{roles}"
    );
    // The command ends when the cluster permits it.
    for (what, permitted) in [
        ("list pods --all-namespaces", true),
        ("get nodes", true),
        ("get secrets --all-namespaces", false),
        ("delete pods", false),
        ("update deployments.apps --subresource scale", false),
    ] {
        ensure!(may(what)? == permitted, "{what}: {}", !permitted);
    }
    run(&mut walk.as_somebody(&as_till, "get nodes")?)?;
    let of_role = |verb| {
        [
            "aks",
            "trustedaccess",
            "rolebinding",
            verb,
            "--resource-group",
            GROUP,
            "--cluster-name",
            CLUSTER,
            "--name",
            "till",
        ]
    };
    let scaler = "Microsoft.ManagedIdentity/userAssignedIdentities/scaler";
    let updated = walk
        .az
        .json(&[&of_role("update")[..], &["--roles", scaler][..]].concat())?;
    // The Azure CLI flattens the properties of some models and not of others.
    ensure!(updated.to_string().contains("Succeeded"), "{updated}");
    ensure!(may("update deployments.apps --subresource scale")? && !may("get nodes")?);
    walk.az.json(&[&of_role("delete")[..], &["--yes"][..]].concat())?;
    ensure!(!may("update deployments.apps --subresource scale")?);
    let left = walk.az.json(&[
        "aks",
        "trustedaccess",
        "rolebinding",
        "list",
        "--resource-group",
        GROUP,
        "--cluster-name",
        CLUSTER,
    ])?;
    ensure!(left == Value::Array(Vec::new()), "{left}");
    Ok(())
}

/// The identity binding is deleted: the token is exchanged before, and not any more afterwards.
pub(super) fn unbind(walk: &Walk<'_>, client: &str) -> Result<()> {
    let endpoint = format!("{}/", walk.told("/armEndpoint")?);
    let token = walk.directory().join("till-token").to_string_lossy().into_owned();
    let as_till = variables(client, &token, &endpoint, walk.told("/tenantId")?);
    let exchange = |cache: &str| -> Result<std::process::Output> {
        let mut get = walk.block(&format!(
            "kubelogin get-token --login workloadidentity --server-id {SERVER} --authority-host {endpoint} --disable-instance-discovery"
        ))?;
        get.env("SSL_CERT_FILE", walk.told("/caFile")?)
            // kubelogin keeps tokens in the cache directory of its user.
            .env("XDG_CACHE_HOME", walk.directory().join(cache))
            .envs(as_till);
        attempt(&mut get)
    };
    let before = exchange("bound")?;
    ensure!(before.status.success(), "{before:?}");
    walk.az
        .json(&[&of_binding("delete")[..], &["--yes"][..]].concat())?;
    let after = exchange("unbound")?;
    let said = String::from_utf8_lossy(&after.stderr);
    ensure!(
        !after.status.success() && said.contains("700211"),
        "{}: {said}",
        after.status
    );
    Ok(())
}
