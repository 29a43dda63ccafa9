//! The service's private API for the commands of this binary: HTTP over a Unix socket that only root may open.
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | [`StampStatus`] |
//! | `GET /calls` | which operations were called by which clients since the service began, see [`server`]; for acceptance |
//! | `GET /metrics` | the page of metrics, text; see [`service::operator`] |
//! | `GET /certificates` | certificates and keys of the stamp and its clusters, a list of [`InventoryItem`] |
//! | `GET /logs/{machine}/{process}?lines=N` | text; 404 where there is no such machine, 503 where its agent is away |
//! | `POST /kubeconfig/{uid}` | the operator's kubeconfig of a cluster, text; 404 where there is none |
//! | `POST /support/{uid}/{ticket}?engineer=NAME` | [`HandedOut`]: a credential under a support ticket; 409 where the ticket has no consent, with the reason |
//! | `POST /store/copy` | [`CopyStatus`], when a copy of the store has been made and read back |
//!
//! Always true: it changes no state of the stamp but for what it hands out under tickets. Changes go through the ARM API, as for every other
//! client.
//! The operator's kubeconfig gives its caller no new rights: root, which alone may open the socket, can read
//! the clusters' keys. Called by: `up`, `status`, `logs`, `down`, `doctor`, `store`, `kubectl`, `kubeconfig`,
//! `metrics`, `certificate`, `support`.

mod server;
mod status;

pub(crate) use server::{Sources, serve};
pub(crate) use status::{BackupLag, ClusterStatus, HandedOut, InventoryItem, MachineStatus, StampStatus};

use std::time::Duration;

use anyhow::{Context as _, Result};

use service::store_copies::CopyStatus;

use crate::{
    arm::encode,
    problem::Problem,
    stamp::{self, Places},
};

/// Time limit of a response; log tails come from the machine's agent.
const BOUND: Duration = Duration::from_secs(15);

/// Time limit for making a copy of the store, storing it and reading it back.
const COPY_BOUND: Duration = Duration::from_secs(30 * 60);

/// Time limit for access of support: it is answered once the cluster takes it, or after half a minute.
const ACCESS_BOUND: Duration = Duration::from_secs(60);

/// Time limit for an inventory: each cluster costs some milliseconds.
const INVENTORY_BOUND: Duration = Duration::from_secs(120);

/// The commands' side.
pub(crate) struct AdminClient {
    http: reqwest::Client,
    places: Places,
}

impl AdminClient {
    pub(crate) fn new(places: &Places) -> Result<Self> {
        let http = reqwest::Client::builder()
            .unix_socket(places.socket())
            // Nothing here is encrypted; without this setting, the client fails on a host without root
            // certificates.
            .tls_certs_only([])
            .no_proxy()
            .timeout(BOUND)
            .build()
            .context("cannot prepare the connection to the service")?;
        Ok(Self {
            http,
            places: places.clone(),
        })
    }

    /// The stamp's state. Fails with a hint if the service does not run.
    pub(crate) async fn status(&self) -> Result<StampStatus> {
        let answer = self.get("/status").await?;
        answer.json().await.context("the service's answer cannot be read")
    }

    /// Has a copy of the store made, and waits for it.
    pub(crate) async fn copy_store(&self) -> Result<CopyStatus> {
        let request = self.http.post("http://landfall/store/copy").timeout(COPY_BOUND);
        let answer = self.answer(request).await?;
        answer.json().await.context("the service's answer cannot be read")
    }

    /// The page of metrics.
    pub(crate) async fn metrics(&self) -> Result<String> {
        let answer = self.get("/metrics").await?;
        answer.text().await.context("the service's answer cannot be read")
    }

    /// Certificates and keys of the stamp and of all clusters.
    pub(crate) async fn certificates(&self) -> Result<Vec<InventoryItem>> {
        let request = self
            .http
            .get("http://landfall/certificates")
            .timeout(INVENTORY_BOUND);
        let answer = self.answer(request).await?;
        answer.json().await.context("the service's answer cannot be read")
    }

    /// The operator's kubeconfig of a cluster, for an hour.
    pub(crate) async fn kubeconfig(&self, uid: &str) -> Result<String> {
        let request = self.http.post(format!("http://landfall/kubeconfig/{uid}"));
        let answer = self.answer(request).await?;
        answer.text().await.context("the service's answer cannot be read")
    }

    /// A credential under a support ticket of a cluster.
    pub(crate) async fn support_access(&self, uid: &str, ticket: &str, engineer: &str) -> Result<HandedOut> {
        let url = format!(
            "http://landfall/support/{uid}/{}?engineer={}",
            encode(ticket),
            encode(engineer)
        );
        let request = self.http.post(url).timeout(ACCESS_BOUND);
        let answer = self.answer(request).await?;
        answer.json().await.context("the service's answer cannot be read")
    }

    /// The end of a log.
    pub(crate) async fn logs(&self, machine: &str, process: &str, lines: u32) -> Result<String> {
        let answer = self
            .get(&format!("/logs/{machine}/{process}?lines={lines}"))
            .await?;
        answer.text().await.context("the service's answer cannot be read")
    }

    async fn get(&self, path: &str) -> Result<reqwest::Response> {
        self.answer(self.http.get(format!("http://landfall{path}"))).await
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
        let answer = request.send().await;
        let answer = answer.map_err(|error| {
            tracing::debug!(%error, "the admin socket does not answer");
            self.unreachable()
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.text().await.unwrap_or_default();
        Err(Problem::new(
            if text.is_empty() {
                format!("the service answered {status}")
            } else {
                text
            },
            format!("landfall status --name {}", self.places.name),
        )
        .into())
    }

    fn unreachable(&self) -> Problem {
        let name = &self.places.name;
        if !self.places.settings().exists() {
            return stamp::no_stamp(&self.places);
        }
        if !nix::unistd::geteuid().is_root() {
            return Problem::new(
                format!("only root may talk to the service of stamp {name}"),
                "repeat with sudo",
            );
        }
        Problem::new(
            format!("the service of stamp {name} does not run"),
            format!("start it: landfall up --name {name}"),
        )
    }
}
