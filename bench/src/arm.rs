//! The product as a bench uses it: a separate stamp, and the ARM API like any client.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use base_env::Clock;
use serde_json::{Value, json};

use crate::kube::{Kube, Milestones, endpoint_of};

/// The api-version of the bench's requests: the current Azure CLI's.
const API_VERSION: &str = "2026-06-01";
/// The same for resource groups.
const RESOURCES_VERSION: &str = "2024-11-01";
/// The bench's resource group.
const GROUP: &str = "bench";

/// A running stamp for this bench only.
pub(crate) struct Stamp {
    own: Own,
    http: reqwest::Client,
    endpoint: String,
    subscription: String,
    location: String,
    token: String,
}

/// The host's objects of the stamp. Removed when this is dropped, even after an incomplete `up`.
struct Own {
    landfall: PathBuf,
    name: String,
    state: PathBuf,
}

/// A client that trusts this CA only.
pub(crate) fn http(ca_pem: &[u8]) -> Result<reqwest::Client> {
    Ok(builder(ca_pem)?.build()?)
}

/// The same, to be configured further.
pub(crate) fn builder(ca_pem: &[u8]) -> Result<reqwest::ClientBuilder> {
    Ok(reqwest::Client::builder()
        .tls_certs_only(reqwest::Certificate::from_pem_bundle(ca_pem)?)
        .no_proxy()
        .timeout(Duration::from_secs(30)))
}

/// A token of an application's.
pub(crate) async fn token(
    http: &reqwest::Client,
    endpoint: &str,
    application: &str,
    secret: &str,
    audience: &str,
) -> Result<String> {
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", application),
        ("client_secret", secret),
        ("scope", &format!("{audience}/.default")),
    ]
    .map(|(name, value)| format!("{name}={}", encode(value)))
    .join("&");
    let answer: Value = http
        .post(format!("{endpoint}/adfs/oauth2/token"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await?
        .json()
        .await?;
    let token = answer["access_token"].as_str();
    Ok(token
        .with_context(|| format!("no token: {}", answer["error"]))?
        .to_owned())
}

impl Stamp {
    /// `landfall up`, its first cluster deleted again, a token, a resource group.
    pub(crate) async fn start(clock: &Arc<dyn Clock>, landfall: &Path, scratch: &Path) -> Result<Self> {
        let port = base_testkit::port();
        let own = Own {
            landfall: landfall.to_owned(),
            name: format!("bench{port}"),
            state: scratch.join("state"),
        };
        let listen = format!("127.0.0.1:{port}");
        let output = own
            .command(&["up", "--uplink", "none", "--listen", &listen, "--output", "json"])
            .output()
            .context("cannot start landfall")?;
        if !output.status.success() {
            bail!(
                "landfall up ended with {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let text = String::from_utf8(output.stdout)?;
        let last = text
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .context("landfall up printed nothing")?;
        let summary: Value = serde_json::from_str(last)?;
        let field = |pointer: &str| -> Result<String> {
            Ok(summary
                .pointer(pointer)
                .and_then(Value::as_str)
                .with_context(|| format!("no {pointer} in {summary}"))?
                .to_owned())
        };
        let ca = std::fs::read(field("/caFile")?)?;
        let http = http(&ca)?;
        let secret = std::fs::read_to_string(field("/servicePrincipal/secretFile")?)?;
        let endpoint = format!("https://{listen}");
        let audience = field("/audience").unwrap_or_else(|_| endpoint.clone());
        let application = field("/servicePrincipal/clientId")?;
        let token = token(&http, &endpoint, &application, secret.trim(), &audience).await?;
        let stamp = Self {
            own,
            http,
            endpoint,
            subscription: field("/subscriptionId")?,
            location: field("/location")?,
            token,
        };
        let clusters = format!(
            "/subscriptions/{}/providers/Microsoft.ContainerService/managedClusters",
            stamp.subscription
        );
        let (_, list) = stamp.call("GET", &clusters, API_VERSION, None).await?;
        for cluster in list["value"].as_array().map(Vec::as_slice).unwrap_or_default() {
            stamp
                .delete(clock, cluster["id"].as_str().context("a cluster without id")?)
                .await?;
        }
        let group = format!("/subscriptions/{}/resourcegroups/{GROUP}", stamp.subscription);
        stamp
            .call(
                "PUT",
                &group,
                RESOURCES_VERSION,
                Some(json!({ "location": stamp.location })),
            )
            .await?;
        Ok(stamp)
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        version: &str,
        body: Option<Value>,
    ) -> Result<(u16, Value)> {
        let mut request = self
            .http
            .request(
                method.parse()?,
                format!("{}{path}?api-version={version}", self.endpoint),
            )
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    fn cluster_id(&self, name: &str) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{GROUP}/providers/Microsoft.ContainerService/managedClusters/{name}",
            self.subscription
        )
    }

    /// Creates a cluster and follows it from the moment its PUT was accepted to a running pod.
    pub(crate) async fn create(
        &self,
        clock: &Arc<dyn Clock>,
        name: &str,
        version: &str,
        bound: Duration,
    ) -> Result<Milestones> {
        let (_, milestones) = self.cluster(clock, name, version, 1, bound).await?;
        Ok(milestones)
    }

    /// The same with this many nodes, of which the first one is waited for, and a client for its API.
    pub(crate) async fn cluster(
        &self,
        clock: &Arc<dyn Clock>,
        name: &str,
        version: &str,
        nodes: u32,
        bound: Duration,
    ) -> Result<(Kube, Milestones)> {
        let id = self.cluster_id(name);
        let body = json!({
            "location": self.location,
            "properties": {
                "dnsPrefix": name,
                "kubernetesVersion": version,
                "networkProfile": { "networkPlugin": "kubenet" },
                "agentPoolProfiles": [{ "name": "nodepool1", "count": nodes, "mode": "System", "vmSize": "Standard_DS2_v2" }]
            }
        });
        let (status, answer) = self.call("PUT", &id, API_VERSION, Some(body)).await?;
        ensure!(status == 201, "PUT answered {status}: {answer}");
        let start = clock.monotonic();
        let kubeconfig = loop {
            let (status, answer) = self
                .call(
                    "POST",
                    &format!("{id}/listClusterAdminCredential"),
                    API_VERSION,
                    None,
                )
                .await?;
            if status == 200 {
                break answer["kubeconfigs"][0]["value"]
                    .as_str()
                    .context("no kubeconfig")?
                    .to_owned();
            }
            ensure!(
                clock.monotonic() - start < bound,
                "no credential within {bound:?}: {answer}"
            );
            clock.sleep(Duration::from_millis(25)).await;
        };
        use base64::Engine as _;
        let kubeconfig = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(kubeconfig)?)?;
        let kube = Kube::new(&endpoint_of(&kubeconfig)?)?;
        let milestones = kube.follow(clock, start, bound).await?;
        Ok((kube, milestones))
    }

    /// Deletes a cluster and waits until it is gone.
    pub(crate) async fn delete(&self, clock: &Arc<dyn Clock>, id: &str) -> Result<()> {
        let (status, answer) = self.call("DELETE", id, API_VERSION, None).await?;
        ensure!(
            status == 202 || status == 204,
            "DELETE answered {status}: {answer}"
        );
        let start = clock.monotonic();
        loop {
            let (status, _) = self.call("GET", id, API_VERSION, None).await?;
            if status == 404 {
                return Ok(());
            }
            ensure!(
                clock.monotonic() - start < Duration::from_secs(120),
                "{id} is still there after 120 s"
            );
            clock.sleep(Duration::from_millis(100)).await;
        }
    }

    /// Deletes a cluster by its name.
    pub(crate) async fn delete_named(&self, clock: &Arc<dyn Clock>, name: &str) -> Result<()> {
        self.delete(clock, &self.cluster_id(name)).await
    }

    /// The output of `landfall status`.
    pub(crate) fn status(&self) -> Result<Value> {
        let output = self.own.command(&["status", "--output", "json"]).output()?;
        serde_json::from_slice(&output.stdout).context("landfall status did not print JSON")
    }
}

impl Own {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.landfall);
        command
            .args(arguments)
            .args(["--name", &self.name])
            .env("LANDFALL_STATE_DIR", &self.state)
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let status = self
            .command(&["down", "--purge"])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .status();
        if !status.is_ok_and(|status| status.success()) {
            warn_left(&self.name);
        }
    }
}

/// A failed clean-up must be reported, and in `drop` there is only standard error.
#[expect(clippy::print_stderr, reason = "the only place left to say it")]
fn warn_left(name: &str) {
    eprintln!("the stamp {name} could not be taken down; run `landfall down --purge --name {name}`");
}

/// Percent-encoding of a form value.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
