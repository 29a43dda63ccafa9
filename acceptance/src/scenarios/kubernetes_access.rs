//! Authentication at a cluster's API server, with the commands of the guide: pods by tokens of the cluster,
//! users and programs by tokens of the stamp, with kubelogin; and their permissions by role assignments.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{bindings, guide, login::register, text};
use crate::{
    clients::{Az, attempt, run},
    journal::{Journal, wait_for},
    stamp::Stamp,
};

pub(super) const NAME: &str = "kubernetes-access";
const GUIDE: &str = include_str!("../../../docs/guides/kubernetes-access.md");
pub(super) const GROUP: &str = "landfall";
pub(super) const CLUSTER: &str = "landfall";

/// The inputs of every step.
pub(super) struct Walk<'a> {
    stamp: &'a Stamp,
    pub(super) az: &'a Az,
    kubelogin: &'a Path,
    kubectl: PathBuf,
}

impl Walk<'_> {
    pub(super) fn told(&self, pointer: &str) -> Result<&str> {
        text(&self.stamp.summary, pointer)
    }

    pub(super) fn directory(&self) -> &Path {
        self.stamp.directory.path()
    }

    /// A block of the guide, ready to run.
    pub(super) fn block(&self, block: &str) -> Result<Command> {
        let programs = [self.kubelogin, self.kubectl.as_path()];
        let mut shell = guide::shell(self.stamp, self.az, &programs, block)?;
        shell
            .env("GROUP", GROUP)
            .env("CLUSTER", CLUSTER)
            .env("ENDPOINT", self.told("/armEndpoint")?)
            .env("TENANT", self.told("/tenantId")?)
            .env("CA", self.told("/caFile")?)
            .env("HOME", self.directory());
        Ok(shell)
    }

    pub(super) fn follow(&self, block: &str) -> Result<String> {
        run(&mut self.block(block)?)
    }

    /// kubectl as the principal of these variables for kubelogin.
    pub(super) fn as_somebody(&self, variables: &[(&str, &str)], arguments: &str) -> Result<Command> {
        let mut shell = self.block(&format!("kubectl {arguments}"))?;
        shell
            .env("KUBECONFIG", "kubeconfig")
            .env("SSL_CERT_FILE", self.told("/caFile")?)
            // Tokens of one are not those of another.
            .env("KUBECACHEDIR", self.directory().join("kubelogin"))
            .envs(variables.iter().copied());
        Ok(shell)
    }

    pub(super) fn admin(&self, arguments: &str) -> Result<String> {
        run(self
            .block(&format!("kubectl {arguments}"))?
            .env("KUBECONFIG", "admin.kubeconfig"))
    }
}

pub(super) fn walk(journal: &Journal, stamp: &Stamp, az: &Az, kubelogin: &Path) -> Result<()> {
    let [issuer, pods, bound, sign_in, program, trusted, roles] = guide::exactly::<7>(GUIDE)?;
    let walk = Walk {
        stamp,
        az,
        kubelogin,
        kubectl: stamp.kubectl_program()?,
    };
    journal.step(
        NAME,
        "a cluster that runs becomes an issuer that anybody can read",
        || {
            let said = walk.follow(&issuer)?;
            let mut documents = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
            let (discovery, keys) = (
                documents.next().context("no document")??,
                documents.next().context("no keys")??,
            );
            let url = text(&discovery, "/issuer")?;
            ensure!(
                url.starts_with(walk.told("/armEndpoint")?),
                "{url} is not where the stamp is"
            );
            ensure!(text(&discovery, "/jwks_uri")? == format!("{url}openid/v1/jwks"));
            // The API server's own discovery document is the same.
            let kubectl = stamp.kubectl(az, GROUP, CLUSTER)?;
            wait_for("the API server to issue for it", Duration::from_secs(180), || {
                let own = kubectl.text(&["get", "--raw", "/.well-known/openid-configuration"])?;
                let own: Value = serde_json::from_str(&own)?;
                ensure!(
                    own["issuer"] == discovery["issuer"] && own["jwks_uri"] == discovery["jwks_uri"],
                    "{own}"
                );
                Ok(())
            })?;
            let own: Value = serde_json::from_str(&kubectl.text(&["get", "--raw", "/openid/v1/jwks"])?)?;
            ensure!(own["keys"][0] == keys["keys"][0], "{own} is not {keys}");
            ensure!(!kubectl.ready_nodes()?.is_empty());
            Ok(())
        },
    )?;
    let shop = journal.step(NAME, "a pod is given a token and told where to show it", || {
        // The policy comes with the add-ons.
        let kubectl = stamp.kubectl(az, GROUP, CLUSTER)?;
        wait_for("the policy", Duration::from_secs(180), || {
            kubectl.text(&["get", "mutatingadmissionpolicybinding", "landfall-workload-identity"])
        })?;
        let said = walk.follow(&pods)?;
        let identity = az.json(&["identity", "show", "--resource-group", GROUP, "--name", "shop"])?;
        let client = text(&identity, "/clientId")?.to_owned();
        let tenant = walk.told("/tenantId")?;
        ensure!(said.contains(&format!("{client} {tenant} https://")), "{said}");
        let token = walk.admin("exec shop -- cat /var/run/secrets/azure/tokens/azure-identity-token")?;
        std::fs::write(walk.directory().join("token"), token.trim())?;
        // The service account of another pod, and a pod without the label, are left alone.
        let plain = walk.admin(
            "run plain --image landfall.dev/busybox:1 --image-pull-policy Never --dry-run=server --output json --command -- true",
        )?;
        ensure!(!plain.contains("azure-identity-token"), "{plain}");
        Ok(client)
    })?;
    journal.step(NAME, "pods reach the token service", || {
        let said = walk.admin(
            "exec shop -- sh -c 'wget -q -T 5 --no-check-certificate -O - ${AZURE_AUTHORITY_HOST}common/discovery/instance || nc -w 3 $(echo $AZURE_AUTHORITY_HOST | tr -c 0-9. \" \" | tr -s \" \") </dev/null && echo reached'",
        )?;
        ensure!(said.contains("reached") || said.contains("tenant_discovery_endpoint"), "{said}");
        Ok(())
    })?;
    let till = journal.step(
        NAME,
        "a service account that may is given a token for an identity binding, and no other is",
        || bindings::bind(&walk, &bound),
    )?;
    journal.step(
        NAME,
        "a program of an administrators' group signs in with its secret",
        || {
            walk.follow(&sign_in)?;
            // The API server reads the service's keys a moment after the change.
            let said = wait_for(
                "the API server to take its tokens",
                Duration::from_secs(180),
                || walk.follow(&program),
            )?;
            let deployer = az.json(&["ad", "sp", "list", "--display-name", "deployer"])?;
            ensure!(said.contains(text(&deployer, "/0/id")?), "{said}");
            ensure!(said.contains("Ready"), "{said}");
            let written = std::fs::read_to_string(walk.directory().join("kubeconfig"))?;
            ensure!(
                !written.contains("client-key-data") && written.contains("kubelogin"),
                "{written}"
            );
            Ok(())
        },
    )?;
    let endpoint = format!("{}/", walk.told("/armEndpoint")?);
    let token = walk.directory().join("token").to_string_lossy().into_owned();
    let tenant = walk.told("/tenantId")?.to_owned();
    let as_shop = [
        ("AAD_LOGIN_METHOD", "workloadidentity"),
        ("AZURE_CLIENT_ID", shop.as_str()),
        ("AZURE_FEDERATED_TOKEN_FILE", token.as_str()),
        ("AZURE_AUTHORITY_HOST", endpoint.as_str()),
        ("AZURE_TENANT_ID", tenant.as_str()),
    ];
    let may = |what: &str| -> Result<bool> {
        let output = attempt(&mut walk.as_somebody(&as_shop, &format!("auth can-i {what}"))?)?;
        match String::from_utf8_lossy(&output.stdout).trim() {
            "yes" => Ok(true),
            // With the authorizer's reason, if it has given one.
            no if no == "no" || no.starts_with("no - ") => Ok(false),
            other => bail!("{other} {}", String::from_utf8_lossy(&output.stderr)),
        }
    };
    journal.step(
        NAME,
        "a pod's token is exchanged, and is known without any right",
        || {
            ensure!(!may("get pods --namespace dev")?);
            let said = run(&mut walk.as_somebody(&as_shop, "auth whoami")?)?;
            let identity = az.json(&["identity", "show", "--resource-group", GROUP, "--name", "shop"])?;
            ensure!(said.contains(text(&identity, "/principalId")?), "{said}");
            Ok(())
        },
    )?;
    journal.step(
        NAME,
        "an identity that is trusted may what its role says, as long as it is",
        || bindings::trust(&walk, &trusted, &till),
    )?;
    journal.step(
        NAME,
        "without the identity binding its token is good for nothing",
        || bindings::unbind(&walk, &till),
    )?;
    journal.step(
        NAME,
        "a role assignment at a namespace counts there and nowhere else",
        || {
            walk.admin("create namespace dev")?;
            let scope = walk.follow(&roles)?;
            ensure!(scope.trim().ends_with("/namespaces/dev"), "{scope}");
            wait_for("the API server to ask", Duration::from_secs(180), || {
                ensure!(may("create deployments.apps --namespace dev")?);
                Ok(())
            })?;
            for (what, permitted) in [
                ("get secrets --namespace dev", true),
                ("create pods/exec --namespace dev", true),
                (
                    "create rolebindings.rbac.authorization.k8s.io --namespace dev",
                    false,
                ),
                ("update resourcequotas --namespace dev", false),
                ("get pods --namespace default", false),
                ("get nodes", false),
            ] {
                ensure!(may(what)? == permitted, "{what}: {}", !permitted);
            }
            run(&mut walk.as_somebody(&as_shop, "create configmap made --namespace dev")?).map(drop)
        },
    )?;
    journal.step(NAME, "the principal that is logged in with az", || {
        let config = az.config.to_string_lossy().into_owned();
        // The stamp's own application: authenticated, but no administrator of the cluster.
        let variables = [
            ("AAD_LOGIN_METHOD", "azurecli"),
            ("AZURE_CONFIG_DIR", config.as_str()),
        ];
        let said = run(&mut walk.as_somebody(&variables, "auth whoami")?)?;
        let client = walk.told("/servicePrincipal/clientId")?;
        let own = az.json(&["ad", "sp", "show", "--id", client])?;
        ensure!(said.contains(text(&own, "/id")?), "{said}");
        Ok(())
    })?;
    journal.step(NAME, "a person signs in by a code in a browser", || person(&walk))?;
    journal.step(
        NAME,
        "while the service is down, tokens and permissions still work",
        || away(&walk, &as_shop),
    )?;
    journal.step(NAME, "a kubeconfig for old versions of kubectl", || {
        old_format(&walk)
    })?;
    // The last: it ends the administrator's kubeconfig that the steps before go by.
    journal.step(
        NAME,
        "without local accounts no certificate counts, whenever it was handed out",
        || local_accounts(&walk),
    )
}

/// `az aks` of the cluster.
fn aks<'a>(verb: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [
        &["aks", verb, "--resource-group", GROUP, "--name", CLUSTER][..],
        more,
    ]
    .concat()
}

/// The kubeconfig format of kubectl's own plug-in, which existed until 1.26.
fn old_format(walk: &Walk<'_>) -> Result<()> {
    let file = walk.directory().join("azure.kubeconfig");
    let name = file.to_string_lossy().into_owned();
    let more = [
        "--format",
        "azure",
        "--overwrite-existing",
        "--file",
        name.as_str(),
    ];
    run(&mut walk.az.command(&aks("get-credentials", &more)))?;
    let written = std::fs::read_to_string(&file)?;
    let tenant = walk.told("/tenantId")?;
    for word in [
        "auth-provider",
        "name: azure",
        "apiserver-id: 6dae42f8-4368-4678-94ff-3960e28e3630",
        tenant,
    ] {
        ensure!(written.contains(word), "{word} is not in {written}");
    }
    for word in ["client-key-data", "token:", "exec:"] {
        ensure!(!written.contains(word), "{word} is in {written}");
    }
    Ok(())
}

/// Gets an administrator's kubeconfig.
fn get_admin(file: &str) -> Vec<&str> {
    aks(
        "get-credentials",
        &["--admin", "--overwrite-existing", "--file", file],
    )
}

/// Local accounts are disabled and enabled again.
fn local_accounts(walk: &Walk<'_>) -> Result<()> {
    let file = |name: &str| walk.directory().join(name).to_string_lossy().into_owned();
    let (old, new) = (file("old.kubeconfig"), file("admin.kubeconfig"));
    let nodes = |kubeconfig: &str| -> Result<std::process::Output> {
        attempt(
            walk.block("kubectl get nodes --output name")?
                .env("KUBECONFIG", kubeconfig),
        )
    };
    let refused = |kubeconfig: &str| -> Result<()> {
        let output = nodes(kubeconfig)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            !output.status.success() && said.contains("Forbidden"),
            "{}: {said}",
            output.status
        );
        Ok(())
    };
    run(&mut walk.az.command(&get_admin(&old)))?;
    let before = nodes(&old)?;
    ensure!(before.status.success() && !before.stdout.is_empty(), "{before:?}");

    let cluster = walk.az.json(&aks("update", &["--disable-local-accounts"]))?;
    ensure!(cluster["disableLocalAccounts"] == true, "{cluster}");
    wait_for(
        "the old kubeconfig to be refused",
        Duration::from_secs(180),
        || refused(&old),
    )?;
    let said = walk.az.fails(&get_admin(&new))?;
    ensure!(
        said.contains(
            "Getting static credential is not allowed because this cluster is set to disable local accounts"
        ),
        "{said}"
    );

    let cluster = walk.az.json(&aks("update", &["--enable-local-accounts"]))?;
    ensure!(cluster["disableLocalAccounts"] == false, "{cluster}");
    // A new one replaces the one of the steps before. It is granted before it is handed out.
    run(&mut walk.az.command(&get_admin(&new)))?;
    let after = nodes(&new)?;
    ensure!(
        after.status.success() && after.stdout == before.stdout,
        "{after:?}"
    );
    // For good.
    refused(&old)
}

/// kubelogin waits while a person enters its code.
fn person(walk: &Walk<'_>) -> Result<()> {
    let mut shell = walk.as_somebody(&[("AAD_LOGIN_METHOD", "devicecode")], "auth whoami")?;
    let mut child = shell
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let told = child.stderr.take().context("no standard error")?;
    let mut lines = BufReader::new(told).lines();
    let message = loop {
        let line = lines.next().context("kubelogin told no code")??;
        if line.contains("enter the code") {
            break line;
        }
    };
    let code = message
        .trim_end()
        .rsplit(' ')
        .next()
        .context("no code")?
        .to_owned();
    let page = message
        .split_whitespace()
        .find(|word| word.starts_with("https://"))
        .context("no page")?
        .to_owned();
    let cookies = walk.directory().join("cookies");
    let password = std::fs::read_to_string(walk.told("/administrator/passwordFile")?)?;
    let ca = walk.told("/caFile")?;
    let browse = |fields: &[(&str, &str)]| -> Result<String> {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--fail",
            "--noproxy",
            "*",
            "--cacert",
            ca,
            "--cookie",
        ])
        .arg(&cookies)
        .arg("--cookie-jar")
        .arg(&cookies);
        for (name, value) in fields {
            curl.args(["--data-urlencode", &format!("{name}={value}")]);
        }
        run(curl.arg(&page))
    };
    let shown = browse(&[("user_code", &code)])?;
    let sealed = shown
        .split("name=\"request\" value=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .context("the page has no form")?;
    let login = walk.told("/administrator/login")?;
    browse(&[
        ("request", sealed),
        ("username", login),
        ("password", password.trim()),
    ])?;
    let mut said = String::new();
    child
        .stdout
        .take()
        .context("no standard output")?
        .read_to_string(&mut said)?;
    let status = child.wait()?;
    ensure!(status.success() && said.contains(login), "{status}: {said}");
    Ok(())
}

/// The keys of tokens, and decisions, are kept by the API server.
fn away(walk: &Walk<'_>, as_shop: &[(&str, &str)]) -> Result<()> {
    let server_id = "6dae42f8-4368-4678-94ff-3960e28e3630";
    let authority = format!("{}/", walk.told("/armEndpoint")?);
    let mut get = walk.block(&format!(
        "kubelogin get-token --login workloadidentity --server-id {server_id} --authority-host {authority} --disable-instance-discovery"
    ))?;
    get.env("SSL_CERT_FILE", walk.told("/caFile")?)
        .env("KUBECACHEDIR", walk.directory().join("kubelogin"))
        .envs(as_shop.iter().copied());
    let credential: Value = serde_json::from_str(&run(&mut get)?)?;
    let token = text(&credential, "/status/token")?;
    let server = walk.admin("config view --minify --output jsonpath={.clusters[0].cluster.server}")?;
    let ask = || -> Result<String> {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--insecure",
            "--noproxy",
            "*",
            "--max-time",
            "10",
            "--header",
        ])
        .arg(format!("Authorization: Bearer {token}"))
        .args(["--output", "/dev/null", "--write-out", "%{http_code}"])
        .arg(format!("{}/api/v1/namespaces/dev/configmaps/made", server.trim()));
        run(&mut curl)
    };
    ensure!(ask()?.trim() == "200", "before: {}", ask()?);
    walk.stamp.kill_service()?;
    let during = ask()?;
    run(&mut walk.stamp.landfall(&["up", "--output", "json"]))?;
    walk.stamp.wait_for_service(Duration::from_secs(180))?;
    ensure!(during.trim() == "200", "while the service was away: {during}");
    // And role assignments apply again.
    register(walk.stamp, &walk.stamp.other_az("azure-after")?)?;
    ensure!(ask()?.trim() == "200", "afterwards: {}", ask()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_blocks_that_are_followed() {
        let blocks = guide::exactly::<7>(GUIDE).unwrap();
        for (at, word) in [
            "--enable-oidc-issuer",
            "azure.workload.identity/use=true",
            "az aks identity-binding create",
            "--enable-aad",
            "AAD_LOGIN_METHOD=spn",
            "az aks trustedaccess rolebinding create",
            "--enable-azure-rbac",
        ]
        .iter()
        .enumerate()
        {
            assert!(blocks[at].contains(word), "{word}");
        }
    }
}
