//! A simulated stamp: the real provider, store and loops; fabric, agents and clusters simulated. Requests take the way
//! that they take behind the edge.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use agent_sessions::{Sessions, StoreDirectory};
use anyhow::{Context as _, Result, bail, ensure};
use arm_ids::ResourcePath;
use arm_kernel::{AccessControl, Call, Provider as _};
use arm_wire::{ArmError, Principal, PrincipalKind, Request, Trace};
use async_trait::async_trait;
use base_env::Env;
use base_sealer::Sealer;
use cluster_spec::{DirectoryAccess, TokenFormat};
use control_loops::{Activity, Controller, ControllerDeps, Settings};
use control_records::{
    ClusterRecord, GroupRecord, ObservedRecord, credential::CredentialRecord, directory, key,
};
use control_store::{Store, Txn, get_record, put_record};
use fabric_api::{StampNetwork, Uplink};
use fabric_sim::{SimOptions, SimWorld};
use providers_containerservice::{API_VERSIONS, ContainerService, Credentials, NAMESPACE, ProviderConfig};
use serde_json::{Value, json};
use service::KubernetesRecipes;
use storage_redb::{MemoryStore, RedbStore};
use tokio::{sync::watch, task::JoinHandle};

const GROUP: &str = "bench";
/// Clusters of one subscription.
const TENANT: u32 = 100;
/// How long remaining tasks of the service may hold the store.
const CLOSED_WITHIN: Duration = Duration::from_secs(30);
/// Room for half a million machines and as many VIPs.
const RANGE: &str = "100.64.0.0/12";

/// Where records are.
pub(crate) enum Disk {
    /// Nowhere: for virtual time, which must not wait for a disk.
    None,
    /// In this file.
    File(PathBuf),
}

/// A stamp whose service is stopped and started while its world stays.
pub(crate) struct SimStamp {
    pub(crate) env: Env,
    pub(crate) world: SimWorld,
    sealer: Arc<Sealer>,
    disk: Disk,
    /// The settings of the next start of the service.
    pub(crate) settings: Settings,
    /// Clusters of one subscription.
    pub(crate) tenant: u32,
    service: Option<Service>,
}

/// The service while it runs.
pub(crate) struct Service {
    client: Arc<Client>,
    activity: watch::Receiver<Activity>,
    stop: watch::Sender<bool>,
    controller: JoinHandle<()>,
}

/// A client of the service.
pub(crate) struct Client {
    store: Arc<dyn Store>,
    provider: ContainerService,
    tenant: u32,
}

impl SimStamp {
    pub(crate) fn new(env: Env, options: SimOptions, disk: Disk) -> Result<Self> {
        let network = StampNetwork {
            range: RANGE.parse()?,
            uplink: Uplink::None,
        };
        Ok(Self {
            world: SimWorld::new(env.clone(), SimOptions { network, ..options }),
            env,
            sealer: Arc::new(Sealer::from_key(&[7; 32])),
            disk,
            settings: Settings::default(),
            tenant: TENANT,
            service: None,
        })
    }

    /// Starts the service: store, provider, loops.
    pub(crate) fn start(&mut self) -> Result<()> {
        let store: Arc<dyn Store> = match &self.disk {
            Disk::None => Arc::new(MemoryStore::new()),
            Disk::File(path) => Arc::new(open(path, &self.env)?),
        };
        let provider = ContainerService::new(
            self.env.clone(),
            Arc::clone(&store),
            Arc::clone(&self.sealer),
            ProviderConfig {
                location: "local".to_owned(),
                url: "https://stamp.test:8443".to_owned(),
                tenant: "00000000-0000-0000-0000-00000000000f".to_owned(),
                domain: "bench.internal".to_owned(),
                offered: cluster_versions::Offered::pinned(),
                reserved_ranges: vec![(RANGE.parse()?, "the stamp's own network".to_owned())],
                limits: control_records::usage::Limits::default(),
                credential_lifetime: Duration::from_secs(8 * 60 * 60),
                support: Default::default(),
            },
            Arc::new(NoCredentials),
        );
        let controller = Controller::new(ControllerDeps {
            env: self.env.clone(),
            store: Arc::clone(&store),
            epoch: control_records::Epoch::default(),
            host: control_records::HostId::first(),
            sealer: Arc::clone(&self.sealer),
            fabric: self.world.fabric(),
            agents: self.world.agents(Sessions::new(
                self.env.clone(),
                Arc::new(StoreDirectory::new(Arc::clone(&store))),
            )),
            connect: self.world.clusters(),
            recipes: Arc::new(KubernetesRecipes {
                host_cores: 8,
                host_memory_mib: 32 * 1024,
                ..KubernetesRecipes::default()
            }),
            service_url: "https://100.64.0.1:7443".to_owned(),
            agent_ca: String::new(),
            settings: self.settings.clone(),
        });
        let activity = controller.activity();
        let (stop, stopped) = watch::channel(false);
        self.service = Some(Service {
            client: Arc::new(Client {
                store,
                provider,
                tenant: self.tenant,
            }),
            activity,
            stop,
            controller: tokio::spawn(async move { controller.run(stopped).await }),
        });
        Ok(())
    }

    /// Ends the service as a signal does; the world stays.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        if let Some(service) = self.service.take() {
            service.stop.send_replace(true);
            service.controller.await?;
        }
        self.world.lose_service();
        // With a process its store is closed; here the last connections of agents, and the data that they
        // share, have to be dropped first.
        if let Disk::File(path) = &self.disk {
            let clock = &self.env.clock;
            let deadline = clock.monotonic() + CLOSED_WITHIN;
            while let Err(error) = open(path, &self.env) {
                if clock.monotonic() > deadline {
                    return Err(error.context(format!("{CLOSED_WITHIN:?} after the service has ended")));
                }
                clock.sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    pub(crate) fn service(&self) -> Result<&Service> {
        self.service.as_ref().context("the service does not run")
    }
}

fn open(path: &Path, env: &Env) -> Result<RedbStore> {
    RedbStore::open(path, env).with_context(|| format!("cannot open {}", path.display()))
}

fn name(number: u32) -> String {
    format!("c{number}")
}

impl Client {
    /// The subscription of a cluster.
    fn subscription(&self, number: u32) -> String {
        format!("00000000-0000-0000-0000-{:012}", number / self.tenant)
    }

    /// Transactions that the store has committed.
    pub(crate) async fn commits(&self) -> Result<u64> {
        let (_, revision) = self.store.list(key::STAMP).await?;
        Ok(revision.0)
    }

    /// Has the groups that clusters are made in.
    pub(crate) async fn groups(&self, env: &Env, clusters: u32) -> Result<()> {
        for tenant in 0..clusters.div_ceil(self.tenant) {
            let subscription = self.subscription(tenant * self.tenant);
            let group = GroupRecord {
                v: 1,
                subscription: subscription.clone(),
                name: GROUP.to_owned(),
                location: "local".to_owned(),
                tags: Default::default(),
                managed_by: None,
                deleting: false,
                created_at: env.clock.now(),
            };
            let txn = Txn::default().with(put_record(key::group(&subscription, GROUP), &group));
            self.store.txn(txn).await?;
        }
        Ok(())
    }

    /// PUT of a cluster with this many pools of one node.
    pub(crate) async fn create(&self, number: u32, pools: u32) -> Result<()> {
        let profiles: Vec<Value> = (1..=pools)
            .map(|pool| {
                json!({
                    "name": format!("np{pool}"),
                    "mode": if pool == 1 { "System" } else { "User" },
                    "count": 1,
                    "vmSize": "Standard_B2s",
                })
            })
            .collect();
        let body = json!({
            "location": "local",
            "identity": { "type": "SystemAssigned" },
            "properties": { "dnsPrefix": name(number), "agentPoolProfiles": profiles },
        });
        self.put(number, body).await
    }

    /// PUT of a cluster with the newest version that it can go to, for its control plane and all its pools.
    pub(crate) async fn upgrade(&self, number: u32, pools: u32) -> Result<()> {
        let offered = cluster_versions::Offered::pinned();
        let to = offered.upgrades(offered.default_version()).pop();
        let to = to.context("no newer version is offered")?.to_string();
        let profiles: Vec<Value> = (1..=pools)
            .map(|pool| json!({ "name": format!("np{pool}"), "orchestratorVersion": to }))
            .collect();
        let body = json!({
            "location": "local",
            "identity": { "type": "SystemAssigned" },
            "properties": { "kubernetesVersion": to, "agentPoolProfiles": profiles },
        });
        self.put(number, body).await
    }

    /// Sends the PUT of a cluster, which must be accepted.
    async fn put(&self, number: u32, body: Value) -> Result<()> {
        const ROUTE: &str = "ManagedClusters_CreateOrUpdate";
        let path = format!(
            "/subscriptions/{}/resourceGroups/{GROUP}/providers/{NAMESPACE}/managedClusters/{}",
            self.subscription(number),
            name(number)
        );
        let mut routes = self.provider.routes().into_iter();
        let route = routes.find(|found| found.name == ROUTE);
        let route = route.with_context(|| format!("the provider has no {ROUTE}"))?;
        let request = Request {
            method: http::Method::PUT,
            path: ResourcePath::parse(&path)?,
            api_version: API_VERSIONS[0].to_owned(),
            query: Vec::new(),
            body,
            if_match: None,
            if_none_match: None,
            principal: Principal {
                object_id: "bench".to_owned(),
                name: "bench".to_owned(),
                tenant_id: "bench".to_owned(),
                kind: PrincipalKind::Application,
            },
            base_url: "https://127.0.0.1:8443".to_owned(),
            trace: Trace::default(),
        };
        match self
            .provider
            .handle(&route, &Call::new(request, AccessControl::allow_all()))
            .await
        {
            Ok(answer) => {
                ensure!(
                    answer.status.is_success(),
                    "PUT {path} was answered {}",
                    answer.status
                );
                Ok(())
            }
            Err(error) => bail!("PUT {path} was refused: {:?}: {}", error.code, error.message),
        }
    }

    /// The generation that the cluster is to reach, and the one it has reached.
    async fn generations(&self, number: u32) -> Result<(u64, u64)> {
        let name = name(number);
        let cluster = directory::cluster_named(&*self.store, &self.subscription(number), GROUP, &name)
            .await?
            .with_context(|| format!("{name} is gone"))?
            .value;
        let observed = get_record::<ObservedRecord>(&*self.store, &key::observed(&cluster.uid)).await?;
        Ok((
            cluster.generation,
            observed.map_or(0, |observed| observed.value.generation),
        ))
    }

    /// Waits until each of these clusters has reached its generation.
    pub(crate) async fn reached(
        &self,
        env: &Env,
        clusters: std::ops::Range<u32>,
        bound: Duration,
    ) -> Result<()> {
        let deadline = env.clock.monotonic() + bound;
        for number in clusters {
            loop {
                let (wanted, reached) = self.generations(number).await?;
                if reached >= wanted {
                    break;
                }
                ensure!(
                    env.clock.monotonic() < deadline,
                    "cluster {number} has reached {reached} of {wanted} after {bound:?}"
                );
                env.clock.sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }
}

impl Service {
    pub(crate) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    /// Waits until no loop runs: every cluster was checked and has reached its desired state.
    pub(crate) async fn idle(&self, env: &Env, clusters: u32, bound: Duration) -> Result<()> {
        let mut activity = self.activity.clone();
        let wanted = usize::try_from(clusters)?;
        let settled = activity.wait_for(|activity| activity.clusters == wanted && activity.busy == 0);
        match env.clock.timeout(bound, settled).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_closed)) => bail!("the controller has ended"),
            Err(elapsed) => {
                bail!(
                    "not every cluster has settled: {elapsed}; {:?}",
                    *self.activity.borrow()
                )
            }
        }
    }
}

/// A bench's clusters get no requests for credentials.
struct NoCredentials;

#[async_trait]
impl Credentials for NoCredentials {
    async fn certificate(
        &self,
        _cluster: &ClusterRecord,
        _credential: &CredentialRecord,
    ) -> Result<Option<Vec<u8>>, ArmError> {
        Ok(None)
    }

    async fn kubeconfig(
        &self,
        _cluster: &ClusterRecord,
        _observed: &ObservedRecord,
        _credential: &CredentialRecord,
        _certificate: &[u8],
    ) -> Result<Option<String>, ArmError> {
        Ok(None)
    }

    async fn directory_kubeconfig(
        &self,
        _cluster: &ClusterRecord,
        _observed: &ObservedRecord,
        _directory: &DirectoryAccess,
        _format: TokenFormat,
        _namespace: Option<&str>,
    ) -> Result<Option<String>, ArmError> {
        Ok(None)
    }
}
