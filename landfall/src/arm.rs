//! A client of our own ARM API, without privileges over other clients: it reads the metadata, gets a token
//! with the service principal's secret, and polls operations as `az` does.
//!
//! Always true: it trusts only the stamp's own certificate, and connects to this host only.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use base_env::{Clock, Env};
use reqwest::{
    Certificate, Method, RequestBuilder, Response, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
};
use serde_json::Value;

use crate::{
    problem::Problem,
    stamp::{self, Places, Settings},
};

/// The api-version of `Microsoft.ContainerService` in requests: the Azure CLI's.
pub(crate) const AKS: &str = "2026-06-01";
/// The api-version of `Landfall.ContainerService`.
pub(crate) const OWN: &str = providers_containerservice::HISTORY_API_VERSIONS[0];
/// The api-version of `Microsoft.Resources`.
pub(crate) const RESOURCES: &str = "2024-11-01";

/// The api-version of roles and their assignments.
pub(crate) const ROLES: &str = "2022-04-01";
/// The api-version of `Landfall.Backup`.
pub(crate) const BACKUP: &str = "2026-11-01";

/// Name of the service principal's secret file.
pub(crate) const SECRET: &str = "service-principal";
/// Name of the administrator's password file, for logins as a person (password, device code).
pub(crate) const ADMINISTRATOR: &str = "administrator";

/// Time limit of a request.
const BOUND: Duration = Duration::from_secs(30);
/// Pauses before each further try of a request whose connection broke.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(2)];
/// How often a request is repeated that was refused because there were too many.
const BUSY: u32 = 5;

/// A client that is logged in.
pub(crate) struct ArmClient {
    http: reqwest::Client,
    base: String,
    subscription: String,
    token: String,
    clock: Arc<dyn Clock>,
}

/// A response to a request that may be long-running.
pub(crate) struct Accepted {
    /// The URL to poll; `None` if the operation is done.
    pub(crate) operation: Option<String>,
}

/// Resolves every name to this host: a stamp's names need no name service here.
struct Here(SocketAddr);

impl Resolve for Here {
    fn resolve(&self, _: Name) -> Resolving {
        let address = self.0;
        Box::pin(async move { Ok(Box::new(std::iter::once(address)) as Addrs) })
    }
}

impl ArmClient {
    /// Finds the token service as any client does, and logs in.
    pub(crate) async fn login(places: &Places, settings: &Settings, env: &Env) -> Result<Self> {
        let (client, _) = Self::session(places, settings, env, "/authentication/audiences/0").await?;
        Ok(client)
    }

    /// The same for another API, whose audience the metadata has at `pointer`; and that audience.
    pub(crate) async fn session(
        places: &Places,
        settings: &Settings,
        env: &Env,
        pointer: &str,
    ) -> Result<(Self, String)> {
        let ca =
            std::fs::read(places.ca()).with_context(|| format!("cannot read {}", places.ca().display()))?;
        let http = reqwest::Client::builder()
            .tls_certs_only(Certificate::from_pem_bundle(&ca).context("ca.pem is not a certificate")?)
            .dns_resolver(Arc::new(Here(settings.local_address())))
            .no_proxy()
            .timeout(BOUND)
            .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("cannot prepare the connection")?;
        let mut client = Self {
            http,
            base: settings.arm_url(),
            subscription: settings.subscription.clone(),
            token: String::new(),
            clock: Arc::clone(&env.clock),
        };
        let metadata = client
            .document(&format!(
                "{}/metadata/endpoints?api-version=2022-09-01",
                client.base
            ))
            .await?;
        let login = text(&metadata, "/authentication/loginEndpoint")?;
        let audience = text(&metadata, pointer)?.to_owned();
        let openid = client
            .document(&discovery(&metadata, login, &settings.tenant))
            .await?;
        let secret = stamp::secret(places, SECRET)?;
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &settings.client),
            ("client_secret", &secret),
            ("scope", &format!("{audience}/.default")),
        ];
        let body: Vec<String> = form
            .iter()
            .map(|(key, value)| format!("{key}={}", encode(value)))
            .collect();
        let answer = client
            .http
            .post(text(&openid, "/token_endpoint")?)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.join("&"))
            .send()
            .await
            .map_err(|error| client.unreachable(error))?;
        let token: Value = client
            .checked(answer, "get a token")
            .await?
            .json()
            .await
            .context("the token answer")?;
        client.token = text(&token, "/access_token")?.to_owned();
        Ok((client, audience))
    }

    /// The HTTP client, which trusts the stamp's certificate only and connects to this host only.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The URL of the ARM API, without a trailing slash.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// The path of the stamp's first subscription.
    pub(crate) fn subscription(&self) -> String {
        format!("/subscriptions/{}", self.subscription)
    }

    /// A resource, or `None` if it does not exist.
    pub(crate) async fn get(&self, path: &str, version: &str) -> Result<Option<Value>> {
        let answer = self.send(Method::GET, &self.url(path, version), None).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = self.checked(answer, &format!("read {path}")).await?;
        Ok(Some(answer.json().await.context("the answer is not JSON")?))
    }

    /// Deletes a resource.
    pub(crate) async fn delete(&self, path: &str, version: &str) -> Result<()> {
        let answer = self.send(Method::DELETE, &self.url(path, version), None).await?;
        self.checked(answer, "delete").await?;
        Ok(())
    }

    /// All items of a list, page by page.
    pub(crate) async fn list(
        &self,
        path: &str,
        version: &str,
        query: &[(&str, String)],
    ) -> Result<Vec<Value>> {
        let mut url = self.url(path, version);
        for (key, value) in query {
            url.push_str(&format!("&{key}={}", encode(value)));
        }
        let mut items = Vec::new();
        loop {
            let answer = self.send(Method::GET, &url, None).await?;
            let answer = self.checked(answer, "read").await?;
            let mut page: Value = answer.json().await.context("the answer is not JSON")?;
            if let Value::Array(more) = page["value"].take() {
                items.extend(more);
            }
            let Value::String(next) = page["nextLink"].take() else {
                return Ok(items);
            };
            // The token goes to the stamp only.
            ensure!(
                next.starts_with(&format!("{}/", self.base)),
                "the next page of {path} is said to be at {next}, which is not the stamp"
            );
            url = next;
        }
    }

    /// A long-running action.
    pub(crate) async fn act(&self, path: &str, version: &str) -> Result<Accepted> {
        let answer = self.send(Method::POST, &self.url(path, version), None).await?;
        let answer = self.checked(answer, "abort").await?;
        Ok(Accepted {
            operation: operation(&answer),
        })
    }

    /// Creates or changes a resource.
    pub(crate) async fn put(&self, path: &str, version: &str, body: &Value) -> Result<Accepted> {
        let answer = self
            .send(Method::PUT, &self.url(path, version), Some(body))
            .await?;
        let answer = self.checked(answer, &format!("create {path}")).await?;
        Ok(Accepted {
            operation: operation(&answer),
        })
    }

    /// An action.
    pub(crate) async fn post(&self, path: &str, version: &str) -> Result<Value> {
        let answer = self.send(Method::POST, &self.url(path, version), None).await?;
        let answer = self.checked(answer, &format!("ask for {path}")).await?;
        answer.json().await.context("the answer is not JSON")
    }

    /// An action with a body: its response, and the URL to poll if it is long-running.
    pub(crate) async fn post_body(
        &self,
        path: &str,
        version: &str,
        body: &Value,
    ) -> Result<(Value, Option<String>)> {
        let answer = self
            .send(Method::POST, &self.url(path, version), Some(body))
            .await?;
        let act = path.rsplit('/').next().unwrap_or_default();
        let answer = self.checked(answer, act).await?;
        let operation = operation(&answer);
        Ok((answer.json().await.context("the answer is not JSON")?, operation))
    }

    /// Waits for an operation to end, as `az` does. `look` is called between two polls.
    pub(crate) async fn wait<F: AsyncFnMut()>(
        &self,
        operation: &str,
        bound: Duration,
        mut look: F,
    ) -> Result<()> {
        let deadline = self.clock.monotonic() + bound;
        loop {
            let answer = self.send(Method::GET, operation, None).await?;
            let answer = self.checked(answer, "read an operation").await?;
            let pause = retry_after(&answer);
            let body: Value = answer.json().await.context("the answer is not JSON")?;
            match body["status"]
                .as_str()
                .unwrap_or_default()
                .to_ascii_lowercase()
                .as_str()
            {
                "succeeded" => return Ok(()),
                "failed" | "canceled" => return Err(refused("finish", &body)),
                _ => {}
            }
            if self.clock.monotonic() > deadline {
                bail!(Problem::new(
                    format!(
                        "it is not done after {} minutes, and goes on in the background",
                        bound.as_secs() / 60
                    ),
                    "landfall status shows what it waits for",
                ));
            }
            look().await;
            self.clock.sleep(pause).await;
        }
    }

    /// The URL of a path; a query can be added to it with `&`.
    pub(crate) fn url(&self, path: &str, version: &str) -> String {
        format!("{}{path}?api-version={version}", self.base)
    }

    pub(crate) async fn send(&self, method: Method, url: &str, body: Option<&Value>) -> Result<Response> {
        let mut left = BUSY;
        loop {
            let mut request = self.http.request(method.clone(), url).bearer_auth(&self.token);
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = if method == Method::POST {
                request.send().await.map_err(|error| self.unreachable(error))?
            } else {
                self.persist(request).await?
            };
            // Nothing was done, so that a POST is repeated as well.
            if answer.status() != StatusCode::TOO_MANY_REQUESTS || left == 0 {
                return Ok(answer);
            }
            left -= 1;
            self.clock.sleep(retry_after(&answer)).await;
        }
    }

    /// Sends a request that is idempotent, again if its connection breaks, as happens on a busy host.
    async fn persist(&self, request: RequestBuilder) -> Result<Response> {
        for pause in PAUSES {
            let Some(again) = request.try_clone() else {
                break;
            };
            match again.send().await {
                Err(error) if !error.is_timeout() => self.clock.sleep(pause).await,
                answered => return answered.map_err(|error| self.unreachable(error)),
            }
        }
        request.send().await.map_err(|error| self.unreachable(error))
    }

    async fn document(&self, url: &str) -> Result<Value> {
        let answer = self.persist(self.http.get(url)).await?;
        let answer = self.checked(answer, &format!("read {url}")).await?;
        answer.json().await.with_context(|| format!("{url} is not JSON"))
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        Problem::new(
            format!("the ARM API at {} does not answer", self.base),
            "landfall up starts it; landfall logs shows its log",
        )
        .because(error)
        .into()
    }

    pub(crate) async fn checked(&self, answer: Response, act: &str) -> Result<Response> {
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = answer.text().await.unwrap_or_default();
        match serde_json::from_str::<Value>(&body) {
            Ok(body) => Err(refused(act, &body)),
            Err(_) => bail!("the ARM API answered {status} when asked to {act}"),
        }
    }
}

/// The discovery document's URL for a login endpoint, in the shape that the running service announces: its
/// settings may differ from the ones just written.
fn discovery(metadata: &Value, login: &str, tenant: &str) -> String {
    let login = login.trim_end_matches('/');
    if metadata["authentication"]["identityProvider"] == "AAD" {
        format!("{login}/{tenant}/v2.0/.well-known/openid-configuration")
    } else {
        format!("{login}/.well-known/openid-configuration")
    }
}

/// How long a response asks to wait, within bounds.
fn retry_after(answer: &Response) -> Duration {
    let seconds = answer
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(1_u64);
    Duration::from_secs(seconds.clamp(1, 30))
}

fn operation(answer: &Response) -> Option<String> {
    Some(
        answer
            .headers()
            .get("azure-asyncoperation")?
            .to_str()
            .ok()?
            .to_owned(),
    )
}

/// The message of an ARM (or OAuth) error, with a next step for its code.
fn refused(act: &str, body: &Value) -> anyhow::Error {
    let error = if body["error"].is_object() {
        &body["error"]
    } else {
        body
    };
    let code = error["code"]
        .as_str()
        .or_else(|| body["error"].as_str())
        .unwrap_or("Failed");
    let message = error["message"]
        .as_str()
        .or_else(|| body["error_description"].as_str())
        .unwrap_or("no reason given");
    let remedy = arm_wire::ERROR_CODES
        .iter()
        .find(|known| known.code == code)
        .map_or(
            "landfall status shows the clusters; landfall logs the service's log",
            |known| known.remedy,
        );
    Problem::new(
        format!("cannot {act}: {} ({code})", message.trim_end_matches('.')),
        remedy,
    )
    .into()
}

fn text<'a>(document: &'a Value, pointer: &str) -> Result<&'a str> {
    document
        .pointer(pointer)
        .and_then(Value::as_str)
        .with_context(|| format!("the answer has no {pointer}"))
}

/// Percent-encodes for a form.
pub(crate) fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_arm_error_comes_with_its_remedy() {
        let error = refused(
            "create x",
            &json!({"error": {"code": "QuotaExceeded", "message": "No more cores."}}),
        );
        let told = crate::problem::told(&error);
        assert_eq!(told.sentence, "cannot create x: No more cores (QuotaExceeded)");
        assert!(told.next.unwrap().contains("higher limit"));
    }

    #[test]
    fn the_token_service_is_found_in_both_shapes() {
        let of = |provider: &str, login: &str| {
            discovery(
                &json!({ "authentication": { "identityProvider": provider } }),
                login,
                "t",
            )
        };
        assert_eq!(
            of("AAD", "https://h/"),
            "https://h/t/v2.0/.well-known/openid-configuration"
        );
        assert_eq!(
            of("ADFS", "https://h/adfs"),
            "https://h/adfs/.well-known/openid-configuration"
        );
    }

    #[test]
    fn an_oauth_error_is_understood() {
        let error = refused(
            "get a token",
            &json!({"error": "invalid_client", "error_description": "AADSTS7000215: no"}),
        );
        assert_eq!(
            error.to_string(),
            "cannot get a token: AADSTS7000215: no (invalid_client)"
        );
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(encode("https://a/.default b"), "https%3A%2F%2Fa%2F.default%20b");
    }
}
