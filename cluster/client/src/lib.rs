//! The control loops' connection to a cluster's Kubernetes API: `cluster_api` over kube.
//!
//! Always true: a handle connects when it is used and again after failures, and has no connection while it is
//! neither used nor watched ([`ClusterApi::changes`]); every call has a time-out; nothing is cached that the
//! cluster could contradict, except the marks of our applies, which show whether the next one changes
//! anything; lists are read in pages; an answer or a list that is too large for a working cluster is refused
//! before it is held in memory.

mod apply;
mod command;
mod csr;
mod drain;
mod enforcer;
mod events;
#[cfg(test)]
mod fake;
mod finalizers;
mod namespaces;
mod nodes;
mod replace;
mod services;
mod serving;
mod volumes;
mod watches;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use base_env::Env;
use base_errors::chain;
use cluster_api::{
    Changes, ClusterApi, ClusterError, CommandSeen, Connect, Drained, Endpoint, IsOwn, NamespaceSeen,
    NamespaceWish, NodeSeen, NodeWish, ObjectRef, ServiceSeen, ServiceWish, VolumeObjects, VolumeWish, Watch,
    WorkNotes, WorkObjects,
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kube::{Client, Config, client::Body, config::AuthInfo};
use serde_json::Value;
use tokio::sync::watch;

/// Longer than any call takes on a healthy cluster.
const CALL: Duration = Duration::from_secs(15);
/// Objects in one answer: large lists are read in pages.
const PAGE: u32 = 500;
/// The limit of objects in a list; a longer one is refused instead of held in memory.
const MOST: usize = 20_000;

/// Bytes of one answer; a page of objects is a hundredth of it.
const ANSWER: usize = 64 * 1024 * 1024;
/// Bytes of all pages of a list.
const LIST: usize = 2 * ANSWER;

/// Connects to real clusters.
pub struct KubeConnect {
    env: Env,
    watches: Arc<[Watch]>,
}

impl KubeConnect {
    /// Handles use this clock, and watch these objects besides nodes and certificate requests.
    pub fn new(env: Env, watches: &[Watch]) -> Self {
        Self {
            env,
            watches: watches.into(),
        }
    }
}

impl Connect for KubeConnect {
    fn connect(&self, cluster: &str, endpoint: &Endpoint) -> Result<Arc<dyn ClusterApi>, ClusterError> {
        let client = client(endpoint).map_err(|why| ClusterError::Refused {
            act: format!("prepare a connection to cluster {cluster}"),
            why,
        })?;
        let watches = Arc::clone(&self.watches);
        Ok(Arc::new(Cluster::new(self.env.clone(), client, watches)))
    }
}

/// A cluster's API.
struct Cluster {
    env: Env,
    client: Client,
    watches: Arc<[Watch]>,
    /// By path: the mark of our last apply of the object.
    applied: Mutex<BTreeMap<String, Value>>,
    /// Uids of existing serving certificates that were compared with their requests.
    checked: Mutex<BTreeSet<String>>,
    /// Names of Services of type LoadBalancer that depend on their endpoints, as last read.
    local_services: watch::Sender<BTreeSet<String>>,
    /// Whether there were PersistentVolumes or VolumeAttachments of our drivers, as seen last.
    has_volumes: watch::Sender<bool>,
    /// Whether the cluster knows the kinds of snapshots, and may have some, as seen last.
    has_snapshots: watch::Sender<bool>,
    /// Whether pods without a node are watched: set by the first look at the cluster's pods.
    scales: watch::Sender<bool>,
    /// Names of the managed namespaces that were set.
    managed: watch::Sender<BTreeSet<String>>,
}

fn client(endpoint: &Endpoint) -> Result<Client, String> {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let mut config = Config::new(
        endpoint
            .server
            .parse()
            .map_err(|error| format!("{}: {error}", endpoint.server))?,
    );
    let ca = kube_ca(&endpoint.ca)?;
    config.root_cert = Some(ca);
    config.auth_info = AuthInfo {
        client_certificate_data: Some(encode(&endpoint.certificate)),
        client_key_data: Some(encode(&endpoint.key).into()),
        ..AuthInfo::default()
    };
    config.connect_timeout = Some(Duration::from_secs(2));
    // The loops retry by themselves, and need failures at once.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| error.to_string())
}

/// Converts PEM to the DER blocks that kube expects.
fn kube_ca(pem: &str) -> Result<Vec<Vec<u8>>, String> {
    x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes())
        .map(|block| {
            block
                .map(|block| block.contents)
                .map_err(|error| error.to_string())
        })
        .collect()
}

/// The failure of one call.
#[derive(Debug)]
struct Failure {
    /// The action.
    act: String,
    /// The status the server answered with, if it answered.
    code: Option<u16>,
    why: String,
}

impl Failure {
    fn is_absent(&self) -> bool {
        self.code == Some(404)
    }

    /// Another client changed the object meanwhile.
    fn is_conflict(&self) -> bool {
        self.code == Some(409)
    }

    /// An admission webhook refused, or could not be called. Its name is in the message.
    fn is_of_webhook(&self) -> bool {
        self.code.is_some() && self.why.contains("webhook")
    }
}

impl From<Failure> for ClusterError {
    fn from(failure: Failure) -> Self {
        match failure.code {
            Some(code) if failure.is_of_webhook() => Self::Refused {
                act: failure.act,
                why: format!("{} ({code})", failure.why),
            },
            // Answers of a server that is starting, stopping or busy. 403 is one of them for a moment: until
            // the server's own roles exist.
            None | Some(403 | 429 | 500 | 502 | 503 | 504) => Self::Unavailable(failure.why),
            Some(code) => Self::Refused {
                act: failure.act,
                why: format!("{} ({code})", failure.why),
            },
        }
    }
}

impl Cluster {
    fn new(env: Env, client: Client, watches: Arc<[Watch]>) -> Self {
        Self {
            env,
            client,
            watches,
            applied: Mutex::default(),
            checked: Mutex::default(),
            local_services: watch::Sender::default(),
            has_volumes: watch::Sender::default(),
            has_snapshots: watch::Sender::default(),
            scales: watch::Sender::default(),
            managed: watch::Sender::default(),
        }
    }

    /// One call, bounded in time and size; returns the answer and its length.
    async fn measured(
        &self,
        act: &str,
        method: http::Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<(Value, usize), Failure> {
        let failed = |code: Option<u16>, why: String| Failure {
            act: act.to_owned(),
            code,
            why,
        };
        let bytes = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| failed(Some(400), error.to_string()))?;
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, content_type)
            .body(bytes.unwrap_or_default().into())
            .map_err(|error| failed(Some(400), error.to_string()))?;
        let answer = self.env.clock.timeout(CALL, self.answer(request, ANSWER)).await;
        let (status, bytes) = match answer {
            Err(elapsed) => return Err(failed(None, elapsed.to_string())),
            Ok(Err((code, why))) => return Err(failed(code, why)),
            Ok(Ok(answer)) => answer,
        };
        if status.is_success() {
            let value = serde_json::from_slice(&bytes).map_err(|error| failed(None, error.to_string()))?;
            return Ok((value, bytes.len()));
        }
        // Kubernetes' status has the reason; the text before it does not.
        let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let why = match said["message"].as_str() {
            Some(message) => message.to_owned(),
            None => format!("the API server answers {status}"),
        };
        Err(failed(Some(status.as_u16()), why))
    }

    /// Reads a text.
    async fn told(&self, act: &str, path: &str, most: usize) -> Result<String, Failure> {
        let failed = |code: Option<u16>, why: String| Failure {
            act: act.to_owned(),
            code,
            why,
        };
        let request = http::Request::get(path)
            .body(Vec::new().into())
            .map_err(|error| failed(Some(400), error.to_string()))?;
        match self.env.clock.timeout(CALL, self.answer(request, most)).await {
            Err(elapsed) => Err(failed(None, elapsed.to_string())),
            Ok(Err((code, why))) => Err(failed(code, why)),
            Ok(Ok((status, bytes))) if status.is_success() => {
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Ok(Ok((status, _))) => Err(failed(
                Some(status.as_u16()),
                format!("the API server answers {status}"),
            )),
        }
    }

    /// The server's answer, if it is not too long; else a status and the reason.
    async fn answer(
        &self,
        request: http::Request<Body>,
        most: usize,
    ) -> Result<(http::StatusCode, Vec<u8>), (Option<u16>, String)> {
        let answer = self.client.send(request).await;
        let (parts, body) = answer.map_err(|error| (None, chain(&error)))?.into_parts();
        match Limited::new(body, most).collect().await {
            Ok(body) => Ok((parts.status, body.to_bytes().to_vec())),
            Err(error) if error.is::<LengthLimitError>() => {
                let why = format!("the answer has more than {} MiB", most >> 20);
                Err((Some(413), why))
            }
            Err(error) => Err((None, chain(&*error))),
        }
    }

    async fn call(
        &self,
        act: &str,
        method: http::Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let answer = self.measured(act, method, path, content_type, body).await?;
        Ok(answer.0)
    }

    async fn get(&self, act: &str, path: &str) -> Result<Value, Failure> {
        self.call(act, http::Method::GET, path, "application/json", None)
            .await
    }

    /// All objects of a list, page by page.
    async fn list(&self, act: &str, path: &str) -> Result<Vec<Value>, Failure> {
        let mut items: Vec<Value> = Vec::new();
        let (mut next, mut bytes) = (String::new(), 0);
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let piece = format!("{path}{separator}limit={PAGE}{next}");
            let (mut page, length) = self
                .measured(act, http::Method::GET, &piece, "application/json", None)
                .await?;
            bytes += length;
            if let Value::Array(found) = page["items"].take() {
                items.extend(found);
            }
            let Some(token) = page["metadata"]["continue"]
                .as_str()
                .filter(|token| !token.is_empty())
            else {
                return Ok(items);
            };
            let why = if items.len() > MOST {
                format!("there are more than {MOST} objects at {path}; remove unused ones")
            } else if bytes > LIST {
                format!(
                    "the objects at {path} have more than {} MiB; remove unused or large ones",
                    LIST >> 20
                )
            } else {
                // Tokens are URL-safe base64.
                next = format!("&continue={token}");
                continue;
            };
            return Err(Failure {
                act: act.to_owned(),
                code: Some(413),
                why,
            });
        }
    }

    async fn delete(&self, act: &str, path: &str) -> Result<Value, Failure> {
        self.call(act, http::Method::DELETE, path, "application/json", None)
            .await
    }

    async fn merge(&self, act: &str, path: &str, patch: &Value) -> Result<Value, Failure> {
        self.call(
            act,
            http::Method::PATCH,
            path,
            "application/merge-patch+json",
            Some(patch),
        )
        .await
    }
}

#[async_trait]
impl ClusterApi for Cluster {
    async fn ready(&self) -> Result<(), ClusterError> {
        let request = http::Request::get("/readyz")
            .body(Vec::new())
            .expect("a constant request");
        match self
            .env
            .clock
            .timeout(CALL, self.client.request_text(request))
            .await
        {
            Err(elapsed) => Err(ClusterError::Unavailable(elapsed.to_string())),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ClusterError::Unavailable(chain(&error))),
        }
    }

    async fn nodes(&self) -> Result<Vec<NodeSeen>, ClusterError> {
        self.list_nodes().await
    }

    async fn text(&self, path: &str, most: usize) -> Result<String, ClusterError> {
        let act = format!("read {path}");
        Ok(self.told(&act, path, most).await?)
    }

    async fn set_node(&self, wish: &NodeWish) -> Result<(), ClusterError> {
        self.bring_node(wish).await
    }

    async fn approve_serving(&self, nodes: &[NodeWish]) -> Result<u32, ClusterError> {
        self.approve(nodes).await
    }

    async fn read(&self, objects: &[ObjectRef]) -> Result<Vec<Value>, ClusterError> {
        self.read_all(objects).await
    }

    async fn apply(&self, objects: &[Value]) -> Result<u32, ClusterError> {
        self.apply_all(objects).await
    }

    async fn delete_objects(&self, objects: &[ObjectRef]) -> Result<u32, ClusterError> {
        self.delete_all(objects).await
    }

    async fn replace(
        &self,
        of: &Watch,
        own: IsOwn,
        objects: &[Value],
        gone: &[String],
    ) -> Result<u32, ClusterError> {
        self.replace_all(of, own, objects, gone).await
    }

    async fn drain(&self, node: &str) -> Result<Drained, ClusterError> {
        self.drain_once(node).await
    }

    async fn delete_node(&self, name: &str) -> Result<(), ClusterError> {
        let path = format!("/api/v1/nodes/{name}");
        match self.delete("delete a node", &path).await {
            Err(failure) if !failure.is_absent() => Err(failure.into()),
            _ => Ok(()),
        }
    }

    async fn command(&self, id: &str, objects: &[Value]) -> Result<CommandSeen, ClusterError> {
        self.follow_command(id, objects).await
    }

    async fn end_command(&self, id: &str) -> Result<(), ClusterError> {
        self.remove_command(id).await
    }

    async fn services(&self) -> Result<Vec<ServiceSeen>, ClusterError> {
        self.list_services().await
    }

    async fn set_service(&self, wish: &ServiceWish) -> Result<(), ClusterError> {
        self.bring_service(wish).await
    }

    async fn volumes(&self) -> Result<VolumeObjects, ClusterError> {
        self.list_volumes().await
    }

    async fn set_volume(&self, wish: &VolumeWish) -> Result<(), ClusterError> {
        self.bring_volume(wish).await
    }

    async fn work(&self) -> Result<WorkObjects, ClusterError> {
        self.list_work().await
    }

    async fn tell_work(&self, notes: &WorkNotes) -> Result<(), ClusterError> {
        self.bring_notes(notes).await
    }

    async fn set_namespace(&self, wish: &NamespaceWish) -> Result<NamespaceSeen, ClusterError> {
        self.bring_namespace(wish).await
    }

    fn changes(&self) -> Arc<dyn Changes> {
        let there = watches::There {
            local_services: self.local_services.subscribe(),
            volumes: self.has_volumes.subscribe(),
            snapshots: self.has_snapshots.subscribe(),
            scales: self.scales.subscribe(),
            managed: self.managed.subscribe(),
        };
        Arc::new(watches::start(&self.env, &self.client, &self.watches, there))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake;

    /// A server with answers of this length, each with a next page.
    fn endless(bytes: usize) -> (Cluster, fake::Log) {
        fake::cluster(move |_| {
            let text = "x".repeat(bytes);
            (
                200,
                json!({ "items": [text], "metadata": { "continue": "more" } }),
            )
        })
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_is_refused_and_not_held_in_memory() {
        let (cluster, _) = endless(ANSWER + 1);
        let failure = cluster.get("look", "/api/v1/nodes").await.unwrap_err();
        assert_eq!(failure.code, Some(413));
        assert!(failure.why.contains("64 MiB"), "{}", failure.why);
    }

    #[tokio::test]
    async fn pages_that_are_too_long_together_are_refused() {
        let (cluster, log) = endless(ANSWER / 4);
        let failure = cluster.list("look", "/api/v1/nodes").await.unwrap_err();
        assert!(
            failure.code == Some(413) && failure.why.contains("/api/v1/nodes"),
            "{failure:?}"
        );
        assert_eq!(fake::paths(&log, &http::Method::GET).len(), 8);
    }

    #[tokio::test]
    async fn what_the_server_says_of_a_refusal_is_handed_on() {
        let (cluster, _) = fake::cluster(|_| fake::refusal(409, "somebody else was first"));
        let failure = cluster.get("look", "/x").await.unwrap_err();
        assert!(failure.is_conflict() && failure.why == "somebody else was first");
        let (cluster, _) = fake::cluster(|_| (503, json!("busy")));
        let failure = cluster.get("look", "/x").await.unwrap_err();
        assert!(matches!(ClusterError::from(failure), ClusterError::Unavailable(why) if why.contains("503")));
    }
}
