//! A cluster's API for benches: polls for the three milestones, from outside, with plain HTTP.
//!
//! The same code observes the floor and the product, so that its own cost is in both.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use base_env::Clock;
use cluster_api::Endpoint;
use serde::Serialize;
use serde_json::{Value, json};

/// Interval of polls for a milestone.
pub(crate) const POLL: Duration = Duration::from_millis(25);

/// Seconds from the start of a round.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Milestones {
    /// `/readyz` answers 200.
    pub api_ready_s: f64,
    /// The first node has the condition Ready.
    pub node_ready_s: f64,
    /// A pod made as soon as the API takes it is in phase Running.
    pub pod_running_s: f64,
}

impl Milestones {
    /// Medians, field by field.
    pub(crate) fn median(rounds: &[Self]) -> Self {
        let of = |field: fn(&Self) -> f64| median(rounds.iter().map(field).collect());
        Self {
            api_ready_s: of(|round| round.api_ready_s),
            node_ready_s: of(|round| round.node_ready_s),
            pod_running_s: of(|round| round.pod_running_s),
        }
    }

    /// Field by field.
    pub(crate) fn divided_by(&self, floor: &Self) -> Self {
        Self {
            api_ready_s: self.api_ready_s / floor.api_ready_s,
            node_ready_s: self.node_ready_s / floor.node_ready_s,
            pod_running_s: self.pod_running_s / floor.pod_running_s,
        }
    }

    /// With two decimals: more would be noise.
    pub(crate) fn rounded(&self) -> Self {
        let round = |value: f64| (value * 100.0).round() / 100.0;
        Self {
            api_ready_s: round(self.api_ready_s),
            node_ready_s: round(self.node_ready_s),
            pod_running_s: round(self.pod_running_s),
        }
    }
}

/// The middle value; the mean of the two middle ones of an even number.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// A client with the administrator's certificate.
pub(crate) struct Kube {
    http: reqwest::Client,
    server: String,
}

impl Kube {
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self> {
        let identity = format!("{}\n{}", endpoint.certificate, endpoint.key);
        let http = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(endpoint.ca.as_bytes())?])
            .identity(reqwest::Identity::from_pem(identity.as_bytes())?)
            .no_proxy()
            .connect_timeout(Duration::from_millis(500))
            .timeout(Duration::from_secs(5))
            .build()?;
        Ok(Self {
            http,
            server: endpoint.server.clone(),
        })
    }

    /// The object at a path, and the status of the response; `None` without a response.
    pub(crate) async fn get(&self, path: &str) -> Option<(u16, Value)> {
        let answer = self
            .http
            .get(format!("{}{path}", self.server))
            .send()
            .await
            .ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.json().await.unwrap_or(Value::Null)))
    }

    async fn post(&self, path: &str, body: &Value) -> Option<u16> {
        let answer = self
            .http
            .post(format!("{}{path}", self.server))
            .json(body)
            .send()
            .await
            .ok()?;
        Some(answer.status().as_u16())
    }

    /// Makes an object at the path of its kind.
    pub(crate) async fn create(&self, path: &str, object: &Value) -> Result<()> {
        let url = format!("{}{path}", self.server);
        let answer = self.http.post(url).json(object).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "POST {path} answered {status}: {text}");
        Ok(())
    }

    /// Has an object deleted, and waits until it is gone.
    pub(crate) async fn delete(&self, clock: &Arc<dyn Clock>, path: &str, bound: Duration) -> Result<()> {
        let answer = self.http.delete(format!("{}{path}", self.server)).send().await?;
        let status = answer.status().as_u16();
        ensure!(
            (200..300).contains(&status) || status == 404,
            "DELETE {path} answered {status}"
        );
        self.gone(clock, path, bound).await
    }

    /// Waits until there is no object at a path.
    pub(crate) async fn gone(&self, clock: &Arc<dyn Clock>, path: &str, bound: Duration) -> Result<()> {
        self.until(clock, path, bound, |status, _| (status == 404).then_some(()))
            .await
    }

    /// Polls the object at a path until its status and contents fulfil the condition.
    pub(crate) async fn until<T>(
        &self,
        clock: &Arc<dyn Clock>,
        path: &str,
        bound: Duration,
        found: impl Fn(u16, &Value) -> Option<T>,
    ) -> Result<T> {
        let deadline = clock.monotonic() + bound;
        loop {
            let seen = self.get(path).await;
            if let Some(found) = seen.as_ref().and_then(|(status, object)| found(*status, object)) {
                return Ok(found);
            }
            ensure!(
                clock.monotonic() < deadline,
                "{path} is not as it should be after {bound:?}: {}",
                seen.map_or_else(
                    || "nothing answers".to_owned(),
                    |(status, object)| format!("{status}, {object}")
                )
            );
            clock.sleep(POLL).await;
        }
    }

    /// Follows a cluster from its creation to a running pod. `since_start` is the round's own clock.
    pub(crate) async fn follow(
        &self,
        clock: &Arc<dyn Clock>,
        start: Duration,
        bound: Duration,
    ) -> Result<Milestones> {
        let mut reached = Milestones::default();
        let mut created = false;
        let mut last = String::from("nothing answered");
        loop {
            let elapsed = clock.monotonic().saturating_sub(start);
            if elapsed > bound {
                bail!("no running pod within {bound:?}; reached {reached:?}; {last}");
            }
            let seconds = |clock: &Arc<dyn Clock>| clock.monotonic().saturating_sub(start).as_secs_f64();
            if reached.api_ready_s == 0.0 {
                if let Some((200, _)) = self.get("/readyz").await {
                    reached.api_ready_s = seconds(clock);
                    continue;
                }
            } else {
                if !created {
                    let status = self.post("/api/v1/namespaces/default/pods", &pod()).await;
                    created = matches!(status, Some(201 | 409));
                    last = format!("creating a pod answers {status:?}");
                }
                if reached.node_ready_s == 0.0
                    && let Some((200, nodes)) = self.get("/api/v1/nodes").await
                    && nodes["items"]
                        .as_array()
                        .is_some_and(|nodes| nodes.iter().any(is_ready))
                {
                    reached.node_ready_s = seconds(clock);
                }
                if created && let Some((200, pod)) = self.get("/api/v1/namespaces/default/pods/bench").await {
                    last = format!("the pod is {}", pod["status"]);
                    if pod["status"]["phase"] == "Running" {
                        reached.pod_running_s = seconds(clock);
                        if reached.node_ready_s == 0.0 {
                            reached.node_ready_s = reached.pod_running_s;
                        }
                        return Ok(reached);
                    }
                }
            }
            clock.sleep(POLL).await;
        }
    }
}

/// Whether a node has the condition Ready.
pub(crate) fn is_ready(node: &Value) -> bool {
    node["status"]["conditions"].as_array().is_some_and(|conditions| {
        conditions
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    })
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "bench", "namespace": "default" },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "bench", "image": "landfall.dev/pause:1", "imagePullPolicy": "Never"
            }]
        }
    })
}

/// Reads server, CA and client certificate out of a kubeconfig with embedded data.
pub(crate) fn endpoint_of(kubeconfig: &str) -> Result<Endpoint> {
    use base64::Engine as _;
    let field = |name: &str| {
        kubeconfig
            .lines()
            .find_map(|line| {
                line.trim()
                    .trim_start_matches("- ")
                    .strip_prefix(name)?
                    .strip_prefix(':')
            })
            .map(|value| value.trim().trim_matches('"').to_owned())
            .with_context(|| format!("the kubeconfig has no {name}"))
    };
    let pem = |name: &str| -> Result<String> {
        Ok(String::from_utf8(
            base64::engine::general_purpose::STANDARD.decode(field(name)?)?,
        )?)
    };
    Ok(Endpoint {
        server: field("server")?,
        ca: pem("certificate-authority-data")?,
        certificate: pem("client-certificate-data")?,
        key: pem("client-key-data")?,
    })
}
