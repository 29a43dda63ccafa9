//! The service's side of the private API.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use agent_api::{Agents, LogError};
use agent_protocol::{
    Report,
    programs::{BACKUP, BackupStatus},
};
use anyhow::{Context as _, Result};
use arm_edge::Edge;
use axum::{
    Json, Router,
    extract::{Path as UrlPath, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base_env::Env;
use base_errors::chain;
use base_sealer::Sealer;
use cluster_spec::PodNetworking;
use control_records::{
    ClusterRecord, MachineRecord, ObservedRecord, OperationRecord, Owner, Role, directory, key,
    planned::{self, WaitingRecord},
    unknown,
};
use control_store::{Store, get_record};
use fabric_api::{Fabric, MachineSeen, Power};
use jiff::Timestamp;
use providers_containerservice::cluster_state;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use service::{operator::Operator, operator_kubeconfig, store_copies::StoreCopies, support_access};
use tokio::net::UnixListener;

use super::status::{
    BackupLag, ClusterStatus, HandedOut, InventoryItem, MachineStatus, OperationStatus, ProcessStatus,
    ServiceStatus, StampStatus,
};
use crate::{serve::panics, stamp::Settings};

/// The sources of the responses.
pub(crate) struct Sources {
    pub(crate) name: String,
    pub(crate) settings: Settings,
    pub(crate) env: Env,
    pub(crate) started_at: Timestamp,
    pub(crate) edge: Edge,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) copies: Arc<StoreCopies>,
    pub(crate) agents: Arc<dyn Agents>,
    pub(crate) fabric: Arc<dyn Fabric>,
    pub(crate) operator: Arc<Operator>,
    /// Images being built, by version.
    pub(crate) image_builds: Box<dyn Fn() -> BTreeMap<String, String> + Send + Sync>,
}

/// Serves requests until `stop` is done.
pub(crate) async fn serve(
    socket: &Path,
    sources: Arc<Sources>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    // We hold the stamp's lock, so an existing socket is a dead service's.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", socket.display()));
        }
        _ => {}
    }
    // Made in a directory that only root may enter, so no other user can connect before the mode is set.
    let listener =
        UnixListener::bind(socket).with_context(|| format!("cannot listen at {}", socket.display()))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", socket.display()))?;
    let router = Router::new()
        .route("/status", get(status))
        .route("/calls", get(calls))
        .route("/metrics", get(metrics))
        .route("/certificates", get(certificates))
        .route("/store/copy", post(copy_store))
        .route("/kubeconfig/{uid}", post(kubeconfig))
        .route("/support/{uid}/{ticket}", post(support))
        .route("/logs/{machine}/{process}", get(logs))
        .with_state(sources);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await
        .context("the admin socket failed")
}

async fn status(State(sources): State<Arc<Sources>>) -> Response {
    match sources.status().await {
        Ok(status) => Json(status).into_response(),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the state cannot be read");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response()
        }
    }
}

async fn calls(State(sources): State<Arc<Sources>>) -> Json<Value> {
    Json(sources.calls())
}

async fn metrics(State(sources): State<Arc<Sources>>) -> Response {
    crate::serve::metrics::page(&sources.operator).await
}

/// A list of [`InventoryItem`].
async fn certificates(State(sources): State<Arc<Sources>>) -> Response {
    match sources.operator.inventory().await {
        Ok(items) => {
            let items = items
                .into_iter()
                .map(|(resource_group, cluster, item)| InventoryItem {
                    resource_group,
                    cluster,
                    item: json!(item),
                });
            Json(items.collect::<Vec<_>>()).into_response()
        }
        Err(why) => {
            tracing::error!(why, "the certificates cannot be listed");
            (StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
        }
    }
}

async fn copy_store(State(sources): State<Arc<Sources>>) -> Response {
    match sources.copies.take().await {
        Ok(copy) => Json(copy).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn kubeconfig(State(sources): State<Arc<Sources>>, UrlPath(uid): UrlPath<String>) -> Response {
    let Sources {
        env, store, sealer, ..
    } = &*sources;
    match operator_kubeconfig(env, &**store, sealer, &uid).await {
        Ok(Some(text)) => {
            tracing::info!(target: "activity", cluster = uid, "the operator's kubeconfig was handed out");
            text.into_response()
        }
        Ok(None) => {
            let why = "the cluster is still being created and has no endpoint yet, or it is gone";
            (StatusCode::NOT_FOUND, why).into_response()
        }
        Err(error) => {
            let why = chain(&error);
            tracing::error!(cluster = uid, "the operator's kubeconfig cannot be made: {why}");
            (StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
        }
    }
}

#[derive(Deserialize)]
struct SupportQuery {
    engineer: String,
}

/// A [`HandedOut`].
async fn support(
    State(sources): State<Arc<Sources>>,
    UrlPath((uid, ticket)): UrlPath<(String, String)>,
    Query(query): Query<SupportQuery>,
) -> Response {
    let Sources {
        env, store, sealer, ..
    } = &*sources;
    match support_access(env, &**store, sealer, &uid, &ticket, &query.engineer).await {
        Ok(access) => {
            let credential = &access.credential;
            tracing::info!(target: "activity", cluster = uid, ticket, credential, "support was given access");
            Json(HandedOut {
                credential: access.credential,
                expires_at: access.expires_at,
                granted: access.granted,
                kubeconfig: access.kubeconfig,
            })
            .into_response()
        }
        Err(error) if error.is_refusal() => (StatusCode::CONFLICT, error.to_string()).into_response(),
        Err(error) => {
            let why = chain(&error);
            tracing::error!(cluster = uid, ticket, "support cannot be given access: {why}");
            (StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
        }
    }
}

#[derive(Deserialize)]
struct LogQuery {
    lines: Option<u32>,
}

async fn logs(
    State(sources): State<Arc<Sources>>,
    UrlPath((machine, process)): UrlPath<(String, String)>,
    Query(query): Query<LogQuery>,
) -> Response {
    let known = directory::machine(&*sources.store, &machine).await;
    match known {
        Ok(Some(_)) => {}
        Ok(None) => return (StatusCode::NOT_FOUND, format!("there is no machine {machine}")).into_response(),
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
    match sources
        .agents
        .logs(&machine, &process, query.lines.unwrap_or(100).clamp(1, 10_000))
        .await
    {
        Ok(text) => text.into_response(),
        Err(error @ (LogError::Away(_) | LogError::Timeout(_))) => {
            (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response()
        }
    }
}

impl Sources {
    /// `process`: the id of this process, as the counters begin at zero with each; `operations`: for each
    /// operation, whether it is implemented and how often which client has called it.
    fn calls(&self) -> Value {
        let operations = self.edge.calls().into_iter().map(|calls| {
            let clients = calls.called.into_iter().map(|called| {
                let counts = json!({ "done": called.done, "missing": called.missing });
                (called.client.as_str().to_owned(), counts)
            });
            json!({
                "namespace": calls.namespace,
                "operation": calls.operation,
                "works": calls.works,
                "clients": clients.collect::<Map<String, Value>>(),
            })
        });
        json!({
            "process": { "pid": std::process::id(), "startedAt": self.started_at },
            "operations": operations.collect::<Vec<Value>>(),
        })
    }

    async fn status(&self) -> Result<StampStatus> {
        let store = &*self.store;
        let clusters = directory::clusters(store, None, None).await?;
        let mut machines = Vec::new();
        for cluster in &clusters {
            machines.extend(directory::machines(store, &cluster.value.uid).await?);
        }
        let inventory = self.fabric.list().await?;
        let mut kept: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for disk in inventory.kept_disks {
            let name = disk.to_string();
            kept.entry(disk.machine.0).or_default().push(name);
        }
        let seen: BTreeMap<String, MachineSeen> = inventory
            .machines
            .into_iter()
            .map(|machine| (machine.id.0.clone(), machine))
            .collect();
        let names: BTreeMap<&str, &str> = clusters
            .iter()
            .map(|cluster| (cluster.value.uid.as_str(), cluster.value.name.as_str()))
            .collect();
        let mut machines: Vec<MachineStatus> = machines
            .iter()
            .map(|record| {
                let report = self.agents.report(&record.id);
                MachineStatus {
                    kept_disks: kept.remove(&record.id).unwrap_or_default(),
                    ..machine_status(record, &names, seen.get(&record.id), report.as_deref())
                }
            })
            .collect();
        machines.sort_by(|a, b| {
            (&a.cluster, &a.cluster_uid, &a.role, &a.name).cmp(&(
                &b.cluster,
                &b.cluster_uid,
                &b.role,
                &b.name,
            ))
        });
        let mut answers = Vec::with_capacity(clusters.len());
        let mut backups: BTreeMap<String, BackupLag> = machines
            .iter()
            .filter_map(|machine| Some((machine.cluster_uid.clone()?, self.backup(&machine.id)?)))
            .collect();
        for cluster in clusters {
            let cluster = cluster.value;
            let owner = Owner::cluster(cluster.uid.as_str());
            let observed = get_record::<ObservedRecord>(store, &key::observed(&cluster.uid)).await?;
            let observed = observed.map(|stored| stored.value);
            let operation =
                get_record::<OperationRecord>(store, &owner.operation(&cluster.operation)).await?;
            let operation = operation.map(|stored| stored.value);
            let state = cluster_state(&cluster, observed.as_ref(), operation.as_ref());
            let observed = observed.unwrap_or_default();
            let mut running = Vec::new();
            for id in &cluster.requests.running {
                let found = get_record::<OperationRecord>(store, &owner.operation(id)).await?;
                running.extend(
                    found
                        .map(|stored| stored.value)
                        .filter(|operation| operation.ended_at.is_none())
                        .map(operation_status),
                );
            }
            let upgrade = get_record::<WaitingRecord>(store, &planned::waiting_key(&cluster.uid)).await?;
            let waits = upgrade.map(|stored| stored.value.waiting).into_iter();
            let waits = waits.chain(observed.release_waits.clone()).collect();
            let mut status = cluster_status(cluster, observed, state.as_str());
            status.operations = running;
            status.waits = waits;
            status.backup = backups.remove(&status.uid);
            answers.push(status);
        }
        Ok(StampStatus {
            name: self.name.clone(),
            service: ServiceStatus {
                panics: panics::counted(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                started_at: self.started_at,
                rss_kib: own_rss_kib(),
            },
            arm_url: self.settings.arm_url(),
            identity: self.settings.identity.as_str().to_owned(),
            tenant: self.settings.tenant.clone(),
            range: self.settings.range.to_string(),
            uplink: format!("{:?}", self.settings.uplink).to_lowercase(),
            clusters: answers,
            image_builds: (self.image_builds)(),
            store: Some(self.copies.status().await?),
            unknown: unknown::list(store).await?,
            paused: planned::paused(store).await?,
            machines,
        })
    }
}

impl Sources {
    /// The shipping of a backup as the machine reports it; `None` for a machine that is silent or does not
    /// ship.
    fn backup(&self, machine: &str) -> Option<BackupLag> {
        if !self.agents.heard(machine) {
            return None;
        }
        let status: BackupStatus = self.agents.report(machine)?.status(BACKUP)?;
        status.ships.then_some(BackupLag {
            behind_seconds: status.lag_ms / 1000,
            problem: status.problem,
        })
    }
}

fn operation_status(operation: OperationRecord) -> OperationStatus {
    let pool = operation.pool().map(str::to_owned);
    OperationStatus {
        id: operation.id,
        pool,
        name: operation.name,
        percent: operation.progress.percent,
        step: operation.progress.step,
        started_at: operation.started_at,
    }
}

fn cluster_status(cluster: ClusterRecord, observed: ObservedRecord, state: &str) -> ClusterStatus {
    let stopped = cluster.spec().stopped;
    let pools = cluster.spec().pools.iter().filter(|_| !stopped);
    let nodes_wanted = pools.map(|pool| pool.wanted()).sum();
    let nodes_ready = observed.ready_nodes.values().sum();
    let bare = cluster.spec().network.plugin == PodNetworking::None && nodes_ready < nodes_wanted;
    let wished = cluster.spec().kubernetes_version.clone();
    ClusterStatus {
        state: state.to_owned(),
        stopped,
        local_accounts_disabled: cluster.spec().disable_local_accounts,
        nodes_wanted,
        nodes_ready,
        hint: bare.then(|| {
            "nodes are Ready once a network plugin is installed: the cluster was made with the network plugin 'none'"
                .to_owned()
        }),
        resource_group: cluster.resource_group,
        name: cluster.name,
        uid: cluster.uid,
        kubernetes_version: observed.kubernetes_version.unwrap_or(wished),
        vip: observed.vip,
        step: observed.step,
        operations: Vec::new(),
        problem: observed.problem,
        waits: Vec::new(),
        backup: None,
        created_at: cluster.created_at,
        milestones: observed.milestones,
    }
}

fn machine_status(
    record: &MachineRecord,
    clusters: &BTreeMap<&str, &str>,
    seen: Option<&MachineSeen>,
    report: Option<&Report>,
) -> MachineStatus {
    let (name, role, pool, address) = match record.assignment.as_ref().map(|assignment| &assignment.role) {
        Some(Role::Node {
            pool,
            node_name,
            address,
            ..
        }) => (node_name.clone(), "node", Some(pool.clone()), Some(*address)),
        Some(Role::ControlPlane { index, .. }) => {
            (format!("control-plane-{index}"), "control plane", None, None)
        }
        None => (record.id.clone(), "spare", None, None),
    };
    MachineStatus {
        id: record.id.clone(),
        // A machine of a cluster whose record is gone is being deleted; its assignment still names the
        // cluster.
        cluster: record.assignment.as_ref().map(|assignment| {
            clusters
                .get(assignment.cluster.as_str())
                .map_or_else(|| assignment.cluster.clone(), ToString::to_string)
        }),
        cluster_uid: record
            .assignment
            .as_ref()
            .map(|assignment| assignment.cluster.clone()),
        name,
        role: role.to_owned(),
        pool,
        address,
        power: match seen.map(|seen| seen.power) {
            Some(Power::Running) => "running",
            Some(Power::Stopped) => "stopped",
            Some(Power::Partial) => "partial",
            None => "absent",
        }
        .to_owned(),
        deleting: record.deleting,
        kept_disks: Vec::new(),
        in_contact: report.is_some(),
        boot: report.map(|report| report.boot.clone()),
        agent_rss_kib: report.map(|report| report.agent_rss_kib),
        config_error: report.and_then(|report| report.config_error.clone()),
        processes: report
            .into_iter()
            .flat_map(|report| &report.processes)
            .map(|(name, process)| ProcessStatus {
                name: name.clone(),
                state: serde_json::to_value(process.state)
                    .ok()
                    .and_then(|value| value.as_str().map(str::to_owned))
                    .unwrap_or_default(),
                restarts: process.restarts,
                last_exit: process.last_exit.clone(),
                last_lines: process.last_lines.clone(),
            })
            .collect(),
    }
}

/// Resident memory of this process; 0 where /proc cannot be read.
fn own_rss_kib() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        })
        .unwrap_or(0)
}
