//! A stamp in one process: the whole control plane over a simulated world, in virtual time.
//!
//! The service ([`Stamp::start`], [`Stamp::kill`]) is started and stopped; the disk and the world stay.
//! Requests go through the real edge with a real token, only without sockets.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use agent_api::Agents;
use agent_protocol::MachineConfig;
use agent_sessions::{Sessions, StoreDirectory};
use anyhow::{Context as _, Result, ensure};
use arm_edge::{Budgets, Edge};
use arm_kernel::Route;
use axum::body::{Body, to_bytes};
use base_env::Env;
use base_sealer::Sealer;
use control_loops::Settings;
use control_records::{
    ClusterRecord, Epoch, FormatRecord, MachineRecord, OperationRecord, SealedRecord, StoreRecord,
    SubscriptionRecord, SubscriptionState, key, machine_config::StoredConfig, migrate::FORMAT,
};
use control_store::{Store, Txn, put_record};
use fabric_api::Fabric as _;
use fabric_sim::{SimOptions, SimWorld};
use providers_containerservice::{BACKUP_API_VERSIONS, BuiltIn};
use serde_json::Value;
use service::{Config, Drivers, KubernetesRecipes, Records};
use tokio::{sync::watch, task::JoinHandle};
use tower::ServiceExt as _;

use crate::{
    backups::SimBackups,
    config::{TENANT, config},
    images::SimImages,
    instant, login,
    steps::{LifeInterceptor, Steps},
    store::{Disk, LifeStore},
    trace::Trace,
};

/// The only subscription.
pub const SUBSCRIPTION: &str = "5a0e2b6c-93d1-4b6f-8d0a-1c2d3e4f5a6b";

/// A response to a request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status; 0 without a response: the service did not run, or died meanwhile.
    pub status: u16,
    /// JSON, or null.
    pub body: Value,
}

impl Answer {
    /// Whether the request was accepted.
    pub fn accepted(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether it was refused, so that it has no effect.
    pub fn refused(&self) -> bool {
        (400..500).contains(&self.status)
    }

    /// The error's code and message, for people.
    pub fn error(&self) -> String {
        let error = &self.body["error"];
        format!(
            "{}: {}",
            error["code"].as_str().unwrap_or_default(),
            error["message"].as_str().unwrap_or_default()
        )
    }
}

/// The service while it runs.
struct Running {
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    edge: Edge,
    routes: Vec<(&'static str, Route)>,
    agents: Arc<dyn Agents>,
}

/// See the module.
pub struct Stamp {
    /// Clock, random numbers and ids of all parts.
    pub env: Env,
    /// Machines, agents and clusters.
    pub world: SimWorld,
    /// The store, and the file that it is in.
    pub disk: Arc<Disk>,
    /// The sealing keys, persistent like the disk.
    sealer: Arc<Sealer>,
    /// The service's steps, and their faults.
    pub steps: Arc<Steps>,
    /// The trace of events.
    pub trace: Arc<Trace>,
    /// For the next start.
    pub settings: Settings,
    /// The budgets of requests, for the next start.
    pub budgets: Budgets,
    service: Option<Running>,
    /// The node images that there are.
    pub(crate) images: Arc<SimImages>,
    /// How long the store could not be written, all in all: operations may take so much longer.
    pub outage: Duration,
}

/// Runs a play in a separate runtime, in virtual time. It fails when the service, or the simulated world,
/// does too much in one instant: a loop that never waits would stop virtual time for ever.
pub fn run<T>(play: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    instant::begin();
    runtime.block_on(async {
        tokio::select! {
            biased;
            verdict = instant::exceeded() => Err(anyhow::anyhow!(verdict)),
            ended = play() => ended,
        }
    })
}

impl Stamp {
    /// A stamp with a subscription and its application, without a running service.
    pub async fn new(seed: u64, options: SimOptions) -> Result<Self> {
        let mut env = Env::simulated(seed);
        env.clock = Arc::new(instant::Counted(env.clock));
        let trace = Arc::new(Trace::new(Arc::clone(&env.clock)));
        let disk = Arc::new(Disk::new(env.clone(), Arc::clone(&trace))?);
        let subscription = SubscriptionRecord {
            v: 1,
            id: SUBSCRIPTION.to_owned(),
            display_name: "simulated".to_owned(),
            tenant_id: TENANT.to_owned(),
            registered: Vec::new(),
            unregistered: Vec::new(),
            state: SubscriptionState::Enabled,
            state_since: None,
            created_at: env.clock.now(),
        };
        let txn = Txn::default()
            .with(put_record(key::FORMAT, &FormatRecord { format: FORMAT }))
            .with(put_record(
                key::STORE,
                &StoreRecord {
                    v: 1,
                    id: "simulated0".to_owned(),
                    epoch: Epoch::default(),
                },
            ))
            .with(put_record(key::subscription(SUBSCRIPTION), &subscription));
        let first = login::principal()?.ops.into_iter().chain(login::owner()?.ops);
        let txn = first.fold(txn, Txn::with);
        disk.write(txn).await?;
        let world = SimWorld::new(env.clone(), options);
        world.ensure_stamp().await?;
        Ok(Self {
            steps: Arc::new(Steps::new(
                Arc::clone(&env.clock),
                env.seed.child("steps"),
                Arc::clone(&trace),
            )),
            settings: Settings::default(),
            budgets: Budgets::OFF,
            sealer: Arc::new(Sealer::from_key(&[7; 32])),
            service: None,
            images: Arc::default(),
            outage: Duration::ZERO,
            env,
            world,
            disk,
            trace,
        })
    }

    /// Starts the service.
    pub fn start(&mut self) -> Result<()> {
        self.start_with(true)
    }

    /// Starts the service, with or without background work: without, only requests cause writes.
    pub(crate) fn start_with(&mut self, acts: bool) -> Result<()> {
        ensure!(self.service.is_none(), "the service runs already");
        self.trace.note("life the service starts");
        let env = self.env.clone();
        let life = self.steps.begin();
        let epoch = self.disk.epoch();
        let store: Arc<dyn Store> = Arc::new(LifeStore {
            disk: Arc::clone(&self.disk),
            steps: Arc::clone(&self.steps),
            life,
        });
        self.world.set_interceptor(Arc::new(LifeInterceptor {
            steps: Arc::clone(&self.steps),
            life,
        }));
        let sessions = Sessions::new(env.clone(), Arc::new(StoreDirectory::new(Arc::clone(&store))));
        let agents = self.world.agents(sessions);
        let service = service::Service::new(
            &env,
            Config {
                budgets: self.budgets,
                ..config()
            },
            Records {
                store,
                epoch,
                sealer: Arc::clone(&self.sealer),
            },
            Drivers {
                fabric: self.world.fabric(),
                agents: Arc::clone(&agents),
                agents_url: "https://100.64.0.1:7443".to_owned(),
                agents_ca: String::new(),
                connect: self.world.clusters(),
                backups: Arc::new(SimBackups {
                    env: env.clone(),
                    world: self.world.clone(),
                }),
                issuers: None,
                sealed: Vec::new(),
                images: Arc::<SimImages>::clone(&self.images),
                registries: None,
                support: Arc::new(BuiltIn),
            },
            login::signing_key()?,
            Arc::new(KubernetesRecipes {
                host_cores: 8,
                host_memory_mib: 32 * 1024,
                ..KubernetesRecipes::default()
            }),
            self.settings.clone(),
        );
        let (stop, stopped) = watch::channel(false);
        let edge = service.edge();
        let routes = service.routes().to_vec();
        let parts = service.parts(&stopped);
        let tasks = parts
            .into_iter()
            .filter(|_| acts)
            .map(|part| tokio::spawn(part.work))
            .collect();
        self.service = Some(Running {
            tasks,
            stop,
            edge,
            routes,
            agents,
        });
        Ok(())
    }

    /// The machines' agents as the service has them, while it runs.
    pub(crate) fn agents(&self) -> Option<&Arc<dyn Agents>> {
        self.service.as_ref().map(|service| &service.agents)
    }

    /// The routes of the ARM API, by namespace, while the service runs.
    pub fn routes(&self) -> &[(&'static str, Route)] {
        self.service.as_ref().map_or(&[], |service| &service.routes)
    }

    /// Sends a request as it is. `None` where no service runs.
    pub async fn send(&self, request: http::Request<Body>) -> Result<Option<http::Response<Body>>> {
        let Some(service) = &self.service else {
            return Ok(None);
        };
        Ok(Some(service.edge.router().oneshot(request).await?))
    }

    /// Continues without background work: only requests cause writes then.
    pub async fn hold(&mut self) -> Result<()> {
        self.stop().await?;
        self.start_with(false)
    }

    /// A token of the stamp's application for a resource, from the service that runs.
    pub async fn token(&self, resource: &str) -> Result<String> {
        let request = http::Request::post(format!("/{TENANT}/oauth2/v2.0/token"))
            .header("host", "arm.sim.test")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(login::form(resource)))?;
        let answer = self.send(request).await?.context("no service runs")?;
        let body = to_bytes(answer.into_body(), usize::MAX).await?;
        let body: Value = serde_json::from_slice(&body)?;
        let token = body["access_token"].as_str();
        Ok(token
            .with_context(|| format!("no token was given: {body}"))?
            .to_owned())
    }

    /// Whether a service was started and not ended; it may have died since.
    pub fn started(&self) -> bool {
        self.service.is_some()
    }

    /// Kills the service: no part of it runs when this returns.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(service) = self.service.take() {
            self.trace.note("life the service is killed");
            self.steps.end();
            self.world.lose_service();
            drop(service.edge);
            for task in service.tasks {
                task.abort();
                // Cancelled, or ended just before.
                let _ = task.await;
            }
            self.disk.crash()?;
        }
        Ok(())
    }

    /// Stops the service as a signal would.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(service) = self.service.take() {
            self.trace.note("life the service is stopped");
            service.stop.send_replace(true);
            for task in service.tasks {
                // A fault of the service shows in `panics`.
                let _ = task.await;
            }
            self.steps.end();
            self.world.lose_service();
            self.disk.reopen()?;
        }
        Ok(())
    }

    /// Starts the service again if it died at a step.
    pub async fn revive(&mut self) -> Result<()> {
        if self.service.is_some() && !self.steps.alive() {
            self.kill().await?;
            self.start()?;
        }
        Ok(())
    }

    /// Lets time pass. A service that dies meanwhile is started again.
    pub async fn wait(&mut self, time: Duration) -> Result<()> {
        let until = self.env.clock.monotonic() + time;
        loop {
            let left = until.saturating_sub(self.env.clock.monotonic());
            if left.is_zero() {
                return Ok(());
            }
            if self.service.is_some() {
                let steps = Arc::clone(&self.steps);
                let clock = Arc::clone(&self.env.clock);
                // A dead service is noticed at once; starting another one takes a moment.
                let _ = clock.timeout(left, steps.died()).await;
                self.revive().await?;
            } else {
                self.env.clock.sleep(left).await;
            }
        }
    }

    /// Sends a request to the service. `path` begins behind the subscription.
    pub async fn arm(&mut self, method: &str, path: &str, body: Option<Value>) -> Result<Answer> {
        self.revive().await?;
        let nobody = Answer {
            status: 0,
            body: Value::Null,
        };
        let Some(service) = &self.service else {
            self.trace.note(&format!("answer {method} {path} 0"));
            return Ok(nobody);
        };
        let version = if path.contains("providers/Landfall.") {
            BACKUP_API_VERSIONS[0]
        } else if path.contains("Microsoft.Authorization/locks") {
            "2020-05-01"
        } else if path.contains("Microsoft.Authorization/") {
            "2022-04-01"
        } else if path.contains("providers/Microsoft.Compute/") {
            "2024-11-01"
        } else if path.contains("providers/Microsoft.Network/") {
            "2025-07-01"
        } else if path.contains("managedClusters") && !path.contains("providers/Microsoft.Resources/") {
            "2026-06-01"
        } else {
            "2024-11-01"
        };
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!(
                "/subscriptions/{SUBSCRIPTION}/{path}{separator}api-version={version}"
            ))
            .header("host", "arm.sim.test")
            .header("authorization", login::bearer(self.env.clock.now())?);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let call = service.edge.router().oneshot(request.body(body)?);
        let steps = Arc::clone(&self.steps);
        let response = tokio::select! {
            biased;
            () = steps.died() => None,
            response = call => Some(response?),
        };
        let answer = match response {
            None => nobody,
            Some(response) => {
                let status = response.status().as_u16();
                let bytes = to_bytes(response.into_body(), usize::MAX).await?;
                let body = if bytes.is_empty() {
                    Value::Null
                } else {
                    serde_json::from_slice(&bytes).context("the answer is no JSON")?
                };
                Answer { status, body }
            }
        };
        self.trace
            .note(&format!("answer {method} {path} {}", answer.status));
        self.revive().await?;
        Ok(answer)
    }

    /// The records with a prefix, as they are on disk.
    pub async fn records<T: serde::de::DeserializeOwned>(&self, prefix: &str) -> Result<BTreeMap<String, T>> {
        let (found, _) = control_store::list_records::<T>(&*self.disk, prefix).await?;
        Ok(found
            .into_iter()
            .map(|(key, stored)| (key, stored.value))
            .collect())
    }

    /// Records of one kind below clusters (`desired`, `machine`), as they are on disk: by the cluster's uid, or by their own
    /// id where a cluster has several.
    pub async fn of_clusters<T: serde::de::DeserializeOwned>(
        &self,
        kind: &str,
    ) -> Result<BTreeMap<String, T>> {
        let (found, _) = self.disk.list(key::CLUSTERS).await?;
        let mut all = BTreeMap::new();
        for (key, found) in found {
            let Some((uid, rest)) = key::of_cluster(&key) else {
                continue;
            };
            let name = match rest.strip_prefix(kind) {
                Some("") => uid,
                Some(id) if id.starts_with('/') => &id[1..],
                _ => continue,
            };
            let record = control_store::parse_record(&key, &found)?;
            all.insert(name.to_owned(), record.value);
        }
        Ok(all)
    }

    /// All clusters, by uid.
    pub async fn clusters(&self) -> Result<BTreeMap<String, ClusterRecord>> {
        self.of_clusters("desired").await
    }

    /// All machines, by id.
    pub async fn machines(&self) -> Result<BTreeMap<String, MachineRecord>> {
        self.of_clusters("machine").await
    }

    /// What the machines of a cluster are configured with, by their ids.
    pub async fn configurations(&self, uid: &str) -> Result<BTreeMap<String, StoredConfig<MachineConfig>>> {
        let prefix = key::machine_configs(uid);
        let mut all = BTreeMap::new();
        for (name, record) in self.records::<SealedRecord>(&prefix).await? {
            let id = name.strip_prefix(&prefix).context("a key without its prefix")?;
            let bytes = self
                .sealer
                .unseal(&key::sealed::machine_config(id), &record.sealed)?;
            all.insert(id.to_owned(), serde_json::from_slice(&bytes)?);
        }
        Ok(all)
    }

    /// All operations, by id.
    pub async fn operations(&self) -> Result<BTreeMap<String, OperationRecord>> {
        let mut all = self.of_clusters::<OperationRecord>("op").await?;
        let of_groups = self.records::<OperationRecord>(key::OF_GROUPS).await?;
        all.extend(
            of_groups
                .into_values()
                .map(|operation| (operation.id.clone(), operation)),
        );
        Ok(all)
    }

    /// A record, as it is on disk.
    pub async fn record<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let found = control_store::get_record::<T>(&*self.disk, key).await?;
        Ok(found.map(|stored| stored.value))
    }
}
