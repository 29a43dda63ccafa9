//! Reads the metrics of clusters: from metrics-server, the API server, and the machines' agents.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agent_api::Agents;
use async_trait::async_trait;
use base_env::Env;
use base_sealer::Sealer;
use cluster_api::{ClusterApi, Connect};
use cluster_bootstrap::admin_endpoint;
use cluster_pki::ClusterPki;
use cluster_spec::vm_size;
use control_records::{ClusterRecord, ObservedRecord, PkiRecord, Role, directory, key};
use control_store::{Store, get_record};
use providers_containerservice::ClusterReader;
use providers_insights::{NodeReading, Reading, Readings};

/// Time limit of a response.
const BOUND: Duration = Duration::from_secs(10);
/// The largest response: a larger one is a gap.
const MOST: usize = 16 << 20;
/// A connection is renewed after this: its certificate expires.
const CONNECTED: Duration = Duration::from_secs(30 * 60);

/// A connection, its address, and the time when it was made.
type Handle = (Arc<dyn ClusterApi>, Ipv4Addr, Duration);

/// See the module.
pub(crate) struct ClusterReadings {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) agents: Arc<dyn Agents>,
    pub(crate) connect: Arc<dyn Connect>,
    pub(crate) handles: Mutex<HashMap<String, Handle>>,
}

#[async_trait]
impl Readings for ClusterReadings {
    async fn read(&self, uid: &str) -> Reading {
        match self.try_read(uid).await {
            Ok(reading) => reading,
            Err(why) => {
                // What it shows, or trusts, may be of CAs that were replaced since.
                self.forget(uid);
                tracing::warn!(
                    cluster = uid,
                    why,
                    "the metrics of a cluster cannot be read; there is a gap"
                );
                Reading::default()
            }
        }
    }
}

#[async_trait]
impl ClusterReader for ClusterReadings {
    async fn text(&self, uid: &str, path: &str) -> Result<String, String> {
        let observed = get_record::<ObservedRecord>(&*self.store, &key::observed(uid)).await;
        let observed = observed.map_err(|error| error.to_string())?;
        let vip = observed.and_then(|found| found.value.vip.filter(|_| found.value.formed));
        let vip = vip.ok_or_else(|| "the cluster does not serve yet".to_owned())?;
        let api = self.api(uid, vip).await?;
        match self.env.clock.timeout(BOUND, api.text(path, MOST)).await {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(error)) => {
                self.forget(uid);
                Err(error.to_string())
            }
            Err(elapsed) => Err(elapsed.to_string()),
        }
    }
}

impl ClusterReadings {
    async fn try_read(&self, uid: &str) -> Result<Reading, String> {
        let text = |error: control_store::StoreError| error.to_string();
        let Some(cluster) = directory::cluster(&*self.store, uid).await.map_err(text)? else {
            self.forget(uid);
            return Ok(Reading::default());
        };
        let cluster = cluster.value;
        let observed = get_record::<ObservedRecord>(&*self.store, &key::observed(uid)).await;
        let observed = observed
            .map_err(text)?
            .map(|found| found.value)
            .unwrap_or_default();
        let mut reading = Reading {
            nodes: self.nodes(&cluster, &observed).await.map_err(text)?,
            ..Reading::default()
        };
        let Some(vip) = observed
            .vip
            .filter(|_| observed.formed && !cluster.spec().stopped)
        else {
            return Ok(reading);
        };
        let api = self.api(uid, vip).await?;
        let read = async |path: &str| match self.env.clock.timeout(BOUND, api.text(path, MOST)).await {
            Ok(Ok(text)) => Some(text),
            Ok(Err(error)) => {
                tracing::debug!(cluster = uid, path, %error, "not read; there is a gap");
                None
            }
            Err(elapsed) => {
                tracing::debug!(cluster = uid, path, %elapsed, "not read; there is a gap");
                None
            }
        };
        reading.usage = read("/apis/metrics.k8s.io/v1beta1/nodes").await;
        // From the API server's cache, without etcd.
        reading.pods = read("/api/v1/pods?resourceVersion=0").await;
        reading.api_server = read("/metrics").await;
        Ok(reading)
    }

    async fn nodes(
        &self,
        cluster: &ClusterRecord,
        observed: &ObservedRecord,
    ) -> Result<Vec<NodeReading>, control_store::StoreError> {
        let machines = directory::machines(&*self.store, &cluster.uid).await?;
        let nodes = machines
            .into_iter()
            .filter(|machine| !machine.deleting)
            .filter_map(|machine| {
                let Role::Node { pool, node_name, .. } = machine.assignment?.role else {
                    return None;
                };
                let spec = cluster.spec().pools.iter().find(|spec| spec.name == pool)?;
                let size = vm_size(&spec.vm_size)?;
                // A report from before the agent fell silent does not describe the present.
                let heard = self.agents.heard(&machine.id);
                let report = self.agents.report(&machine.id).filter(|_| heard);
                let disks = report.iter().flat_map(|report| &report.disks);
                let disk = disks.max_by_key(|disk| disk.total_mib);
                Some(NodeReading {
                    name: node_name,
                    pool,
                    cores: size.cores,
                    memory_mib: size.memory_mib,
                    disk_mib: disk.map(|disk| (disk.total_mib, disk.free_mib)),
                    ready: observed.reported.get(&machine.id).map(|seen| seen.ready && heard),
                })
            });
        Ok(nodes.collect())
    }

    /// The cluster's API, connected to with its administrator's certificate.
    async fn api(&self, uid: &str, vip: Ipv4Addr) -> Result<Arc<dyn ClusterApi>, String> {
        let now = self.env.clock.monotonic();
        if let Some((api, to, since)) = self.handles().get(uid)
            && *to == vip
            && now.saturating_sub(*since) < CONNECTED
        {
            return Ok(Arc::clone(api));
        }
        let sealed = get_record::<PkiRecord>(&*self.store, &key::pki(uid)).await;
        let sealed = sealed.map_err(|error| error.to_string())?;
        let sealed = sealed.ok_or_else(|| "it has no keys yet".to_owned())?;
        let bytes = self.sealer.unseal(&key::sealed::pki(uid), &sealed.value.sealed);
        let bytes = bytes.map_err(|error| error.to_string())?;
        let pki: ClusterPki = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        let endpoint = admin_endpoint(&pki, vip, self.env.clock.now()).map_err(|error| error.to_string())?;
        let api = self
            .connect
            .connect(uid, &endpoint)
            .map_err(|error| error.to_string())?;
        self.handles()
            .insert(uid.to_owned(), (Arc::clone(&api), vip, now));
        Ok(api)
    }

    fn forget(&self, uid: &str) {
        self.handles().remove(uid);
    }

    fn handles(&self) -> std::sync::MutexGuard<'_, HashMap<String, Handle>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
