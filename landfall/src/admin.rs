//! The service's private API for the commands of this binary: HTTP over a Unix socket that only root may open.
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | [`StampStatus`] |
//! | `GET /logs/{machine}/{process}?lines=N` | text; 404 where there is no such machine, 503 where its agent is away |
//!
//! | `POST /store/copy` | [`CopyStatus`], when a copy of the store has been made and read back |
//!
//! Always true: it changes nothing in the stamp. Whatever changes something goes through the ARM API, as for every other client.
//! Called by: `up`, `status`, `logs`, `down`, `doctor`, `store`.

mod server;

pub(crate) use server::{Sources, serve};

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use service::store_copies::{CopyStatus, StoreStatus};

use crate::{
    problem::Problem,
    stamp::{self, Places},
};

/// A stamp as its service sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StampStatus {
    pub(crate) name: String,
    pub(crate) service: ServiceStatus,
    pub(crate) arm_url: String,
    pub(crate) range: String,
    pub(crate) uplink: String,
    pub(crate) clusters: Vec<ClusterStatus>,
    /// Node images that are being built because a cluster asked for them, and what is going on.
    pub(crate) image_builds: BTreeMap<String, String>,
    /// The store and its newest copy.
    #[serde(default)]
    pub(crate) store: Option<StoreStatus>,
    /// What exists and is in no record of the store.
    #[serde(default)]
    pub(crate) unknown: Vec<control_records::unknown::UnknownRecord>,
    /// All machines, those of a cluster together.
    pub(crate) machines: Vec<MachineStatus>,
}

impl StampStatus {
    /// A cluster's machines.
    pub(crate) fn machines_of<'a>(
        &'a self,
        cluster: &'a ClusterStatus,
    ) -> impl Iterator<Item = &'a MachineStatus> {
        self.machines
            .iter()
            .filter(|machine| machine.cluster_uid.as_deref() == Some(cluster.uid.as_str()))
    }
}

/// The process that runs the stamp.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceStatus {
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) started_at: Timestamp,
    /// Its resident memory, KiB.
    pub(crate) rss_kib: u64,
    /// Faults of the service itself since it started: tasks that panicked.
    #[serde(default)]
    pub(crate) panics: u64,
}

/// A cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterStatus {
    pub(crate) resource_group: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// As ARM says it: Succeeded, Creating, Updating, Deleting.
    pub(crate) state: String,
    /// Whether it is to stand still: no machine of it is to run.
    #[serde(default)]
    pub(crate) stopped: bool,
    pub(crate) kubernetes_version: String,
    pub(crate) vip: Option<Ipv4Addr>,
    pub(crate) nodes_ready: u32,
    pub(crate) nodes_wanted: u32,
    /// What people have to do themselves before nodes are Ready.
    #[serde(default)]
    pub(crate) hint: Option<String>,
    /// What is going on, for people.
    pub(crate) step: String,
    /// Requests that have not ended, oldest first.
    #[serde(default)]
    pub(crate) operations: Vec<OperationStatus>,
    /// The last problem, for people.
    pub(crate) problem: Option<String>,
    /// How far the service's copy of its etcd is; `None` while no machine says that it ships.
    #[serde(default)]
    pub(crate) backup: Option<BackupLag>,
    pub(crate) created_at: Timestamp,
    pub(crate) milestones: BTreeMap<String, Timestamp>,
}

/// How far the continuous backup is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackupLag {
    /// Age of the oldest change that the service does not have.
    pub(crate) behind_seconds: u64,
    /// Why it does not get on.
    pub(crate) problem: Option<String>,
}

/// A request that has not ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OperationStatus {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) pool: Option<String>,
    pub(crate) percent: u32,
    pub(crate) step: String,
    pub(crate) started_at: Timestamp,
}

/// A machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MachineStatus {
    pub(crate) id: String,
    /// Its cluster's name; `None` while it stands by.
    pub(crate) cluster: Option<String>,
    pub(crate) cluster_uid: Option<String>,
    /// The node's name, or `control-plane-0`.
    pub(crate) name: String,
    /// `control plane` or `node`.
    pub(crate) role: String,
    pub(crate) pool: Option<String>,
    pub(crate) address: Option<Ipv4Addr>,
    /// `running`, `stopped`, `partial` or `absent`.
    pub(crate) power: String,
    pub(crate) deleting: bool,
    /// Whether an earlier disk of it, with a database, is kept.
    #[serde(default)]
    pub(crate) kept_disk: bool,
    /// Whether its agent reported since the service started.
    pub(crate) in_contact: bool,
    pub(crate) agent_rss_kib: Option<u64>,
    pub(crate) config_error: Option<String>,
    pub(crate) processes: Vec<ProcessStatus>,
}

impl MachineStatus {
    /// The first thing that is not as it should be.
    pub(crate) fn complaint(&self) -> Option<String> {
        if self.power != "running" {
            return Some(format!("is {}", self.power));
        }
        if !self.in_contact {
            return Some("its agent has not called yet".into());
        }
        if let Some(error) = &self.config_error {
            return Some(error.clone());
        }
        let kept = || {
            format!(
                "was made anew; its earlier disk is kept in fabric/kept/{} below the stamp's files until it has served for ten minutes",
                self.id
            )
        };
        let Some(bad) = self.processes.iter().find(|process| process.state != "ready") else {
            return self.kept_disk.then(kept);
        };
        let exit = bad
            .last_exit
            .as_deref()
            .map(|exit| format!(", last ended with {exit}"))
            .unwrap_or_default();
        Some(format!("{} is {}{exit}", bad.name, bad.state))
    }
}

/// A process of a machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessStatus {
    pub(crate) name: String,
    /// `starting`, `ready`, `unready`, `backOff` or `stopped`.
    pub(crate) state: String,
    pub(crate) restarts: u32,
    pub(crate) last_exit: Option<String>,
    pub(crate) last_lines: Vec<String>,
}

/// How long an answer may take; log tails come from the machine's agent.
const BOUND: Duration = Duration::from_secs(15);

/// How long a copy of the store may take to be made, kept and read back.
const COPY_BOUND: Duration = Duration::from_secs(30 * 60);

/// The commands' side.
pub(crate) struct AdminClient {
    http: reqwest::Client,
    places: Places,
}

impl AdminClient {
    pub(crate) fn new(places: &Places) -> Result<Self> {
        let http = reqwest::Client::builder()
            .unix_socket(places.socket())
            // Nothing here is encrypted; without this, a host that has no certificates of authorities is refused.
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

    /// The stamp's state. Fails with a hint where the service does not run.
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
