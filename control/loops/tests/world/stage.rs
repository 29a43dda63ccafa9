//! A stamp to play on: requests as a provider would write them, the service started and killed, and the questions that
//! every end has to answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use base_env::Env;
use base_testkit::wait_for;
use cluster_spec::{ClusterSpec, NetworkProfile, PodNetworking, PoolMode, PoolSpec};
use control_loops::{Controller, ControllerDeps, Settings};
use control_records::{
    ClusterRecord, GroupRecord, LeaseRecord, MachineRecord, ObservedRecord, OperationRecord, OperationStatus,
    Role, SealedRecord, key,
};
use control_store::{MemoryStore, Sealer, Store, Txn, get_record, list_records, put_record};
use fabric_api::NetworkId;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    recipes::PlainRecipes,
    tripwire::WiredStore,
    world::{Driver, World},
};

pub const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000001";
pub const GROUP: &str = "rg";

pub struct Stage {
    pub env: Env,
    pub store: Arc<dyn Store>,
    pub world: Arc<World>,
    pub settings: Settings,
    service: Option<(JoinHandle<()>, watch::Sender<bool>)>,
}

impl Stage {
    pub fn new(seed: u64) -> Self {
        let env = Env::simulated(seed);
        Self {
            world: World::new(env.clone()),
            store: Arc::new(MemoryStore::new()),
            settings: Settings::default(),
            service: None,
            env,
        }
    }

    /// Starts the service.
    pub fn start(&mut self) {
        let driver = Arc::new(Driver(Arc::clone(&self.world)));
        let controller = Controller::new(ControllerDeps {
            env: self.env.clone(),
            store: Arc::new(WiredStore {
                store: Arc::clone(&self.store),
                tripwire: Arc::clone(&self.world.tripwire),
            }),
            sealer: Arc::new(Sealer::from_key(&[7; 32])),
            fabric: Arc::clone(&driver) as _,
            agents: Arc::clone(&driver) as _,
            connect: driver,
            recipes: Arc::new(PlainRecipes),
            service_url: "https://100.64.16.1:7443".to_owned(),
            agent_ca: "ca".to_owned(),
            settings: self.settings.clone(),
        });
        let (stop, shutdown) = watch::channel(false);
        self.service = Some((tokio::spawn(controller.run(shutdown)), stop));
    }

    /// Kills the service: nothing of it runs when this returns.
    pub async fn kill(&mut self) {
        if let Some((task, _stop)) = self.service.take() {
            task.abort();
            let _ = task.await;
        }
        self.world.service_stopped();
    }

    /// Stops the service as a signal would.
    pub async fn stop(&mut self) {
        if let Some((task, stop)) = self.service.take() {
            stop.send(true).unwrap();
            task.await.unwrap();
        }
        self.world.service_stopped();
    }

    pub fn cluster_key(name: &str) -> String {
        key::cluster(SUBSCRIPTION, GROUP, name)
    }

    pub async fn cluster(&self, name: &str) -> Option<ClusterRecord> {
        get_record(&*self.store, &Self::cluster_key(name))
            .await
            .unwrap()
            .map(|found| found.value)
    }

    pub async fn observed(&self, uid: &str) -> ObservedRecord {
        get_record(&*self.store, &key::observed(uid))
            .await
            .unwrap()
            .map(|found| found.value)
            .unwrap_or_default()
    }

    /// Writes a request as accepted, the way a provider does: desired and operation in one transaction.
    pub async fn request(&self, name: &str, what: &str, change: impl FnOnce(&mut ClusterRecord)) -> String {
        let key = Self::cluster_key(name);
        let present = get_record::<ClusterRecord>(&*self.store, &key).await.unwrap();
        let now = self.env.clock.now();
        let id = self.env.ids.uuid().to_string();
        let mut txn = Txn::default();
        let mut record = match present {
            Some(present) => {
                txn = txn.at(&key, present.revision);
                present.value
            }
            None => {
                txn = txn.absent(&key);
                let uid = self.env.ids.short();
                let managed_by = format!(
                    "/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.ContainerService/managedClusters/{name}"
                );
                for (group, managed_by) in [
                    (GROUP.to_owned(), None),
                    (format!("MC_{GROUP}_{name}_local"), Some(managed_by)),
                ] {
                    let key = key::group(SUBSCRIPTION, &group);
                    if self.store.get(&key).await.unwrap().is_none() {
                        txn = txn.with(put_record(key, &fresh_group(group, managed_by, now)));
                    }
                }
                fresh(name, uid, now)
            }
        };
        change(&mut record);
        record.generation += 1;
        record.modified_at = now;
        record.operation.clone_from(&id);
        let operation = OperationRecord {
            v: 1,
            id: id.clone(),
            name: what.to_owned(),
            resource_id: key.clone(),
            cluster: record.uid.clone(),
            generation: record.generation,
            pool: None,
            creates: false,
            deletes: record.deleting,
            progress: control_records::Progress::default(),
            status: OperationStatus::InProgress,
            started_at: now,
            ended_at: None,
            error: None,
        };
        txn = txn
            .with(put_record(&key, &record))
            .with(put_record(key::operation(&id), &operation));
        self.store.txn(txn).await.unwrap();
        id
    }

    pub async fn create(&self, name: &str, count: u32) -> String {
        self.request(name, "ManagedClusters_CreateOrUpdate", |cluster| {
            cluster.spec.pools = vec![pool(name, "np1", count)];
        })
        .await
    }

    pub async fn scale(&self, name: &str, pool: &str, count: u32) -> String {
        self.request(name, "AgentPools_CreateOrUpdate", |cluster| {
            let pool = cluster
                .spec
                .pools
                .iter_mut()
                .find(|spec| spec.name == pool)
                .unwrap();
            pool.count = count;
        })
        .await
    }

    pub async fn delete(&self, name: &str) -> String {
        self.request(name, "ManagedClusters_Delete", |cluster| cluster.deleting = true)
            .await
    }

    /// Waits until nothing is left to do for anybody; how long that took.
    pub async fn settle(&self, bound: Duration) -> Duration {
        let begun = self.env.clock.monotonic();
        wait_for(
            &self.env.clock,
            "all clusters to be what they are to be",
            bound,
            || async { self.unsettled().await.map_or(Ok(()), Err) },
        )
        .await;
        self.env.clock.monotonic() - begun
    }

    /// What is not settled.
    async fn unsettled(&self) -> Option<String> {
        let (clusters, _) = list_records::<ClusterRecord>(&*self.store, "/clusters/")
            .await
            .unwrap();
        for (key, cluster) in clusters {
            let observed = self.observed(&cluster.value.uid).await;
            if cluster.value.deleting
                || observed.generation < cluster.value.generation
                || !observed.step.is_empty()
            {
                return Some(format!("{key}: {} ({:?})", observed.step, observed.problem));
            }
            if self.world.pending_serving(&cluster.value.uid) > 0 {
                return Some(format!("{key}: serving certificates are pending"));
            }
        }
        let (operations, _) = list_records::<OperationRecord>(&*self.store, "/operations/")
            .await
            .unwrap();
        operations
            .iter()
            .find(|(_, operation)| operation.value.status == OperationStatus::InProgress)
            .map(|(key, operation)| format!("{key}: {} is in progress", operation.value.name))
    }

    /// Everything that must be true whenever nothing is left to do: all there once, nothing left over.
    pub async fn check(&self) {
        let store = &*self.store;
        let (clusters, _) = list_records::<ClusterRecord>(store, "/clusters/").await.unwrap();
        let (machines, _) = list_records::<MachineRecord>(store, "/machines/").await.unwrap();
        let (configs, _) = list_records::<SealedRecord>(store, "/machine-configs/")
            .await
            .unwrap();
        let (leases, _) = list_records::<LeaseRecord>(store, "/leases/").await.unwrap();
        let (pkis, _) = list_records::<SealedRecord>(store, "/pki/").await.unwrap();
        let (observed, _) = list_records::<ObservedRecord>(store, "/observed/").await.unwrap();
        let (groups, _) = list_records::<GroupRecord>(store, "/groups/").await.unwrap();
        let in_fabric = self.world.machines();

        let ids: BTreeSet<_> = machines
            .iter()
            .map(|(_, machine)| machine.value.id.clone())
            .collect();
        assert_eq!(
            in_fabric.keys().cloned().collect::<BTreeSet<_>>(),
            ids,
            "machines and their records"
        );
        let configured: BTreeSet<_> = configs
            .iter()
            .map(|(key, _)| key.trim_start_matches("/machine-configs/").to_owned())
            .collect();
        assert_eq!(configured, ids, "configurations and machines");
        assert_eq!(leases.len(), 3 * clusters.len(), "leases: {leases:?}");
        assert_eq!(pkis.len(), clusters.len());
        assert_eq!(observed.len(), clusters.len());
        let managed = groups
            .iter()
            .filter(|(_, group)| group.value.managed_by.is_some());
        assert_eq!(managed.count(), clusters.len(), "groups of nodes");
        let networks: BTreeSet<_> = self.world.networks().into_keys().collect();
        let uids: BTreeSet<_> = clusters
            .iter()
            .map(|(_, cluster)| NetworkId(cluster.value.uid.clone()))
            .collect();
        assert_eq!(networks, uids, "networks and clusters");

        for (_, cluster) in &clusters {
            let cluster = &cluster.value;
            let own: Vec<_> = machines
                .iter()
                .filter_map(|(_, machine)| machine.value.assignment.as_ref())
                .filter(|assignment| assignment.cluster == cluster.uid)
                .map(|assignment| &assignment.role)
                .collect();
            let wanted: u32 = cluster.spec.pools.iter().map(|pool| pool.count).sum();
            assert_eq!(own.len() as u32, 1 + wanted, "machines of {}", cluster.name);
            let mut names = BTreeSet::new();
            let mut addresses = BTreeSet::new();
            let mut ranges = BTreeSet::new();
            for role in own {
                if let Role::Node {
                    node_name,
                    address,
                    pod_range,
                    pool,
                    ..
                } = role
                {
                    assert!(cluster.spec.pools.iter().any(|spec| spec.name == *pool));
                    assert!(names.insert(node_name.clone()), "two nodes called {node_name}");
                    assert!(addresses.insert(*address), "two nodes at {address}");
                    assert!(
                        pod_range.is_none_or(|range| ranges.insert(range)),
                        "one pod range twice"
                    );
                }
            }
            for pool in &cluster.spec.pools {
                let seen = self.observed(&cluster.uid).await;
                assert_eq!(
                    seen.ready_nodes.get(&pool.name),
                    Some(&pool.count),
                    "ready nodes of {}",
                    pool.name
                );
            }
            let nodes: BTreeSet<_> = self
                .world
                .nodes(&cluster.uid)
                .into_iter()
                .map(|node| node.name)
                .collect();
            assert_eq!(nodes, names, "node objects of {}", cluster.name);
            let routes = self.world.networks()[&NetworkId(cluster.uid.clone())]
                .routes
                .len();
            let routed = match cluster.spec.network.plugin {
                PodNetworking::Kubenet | PodNetworking::AzureOverlay => ranges.len(),
                PodNetworking::AzureFlat | PodNetworking::None => 0,
            };
            assert_eq!(routes, routed, "routes of {}", cluster.name);
        }
    }
}

pub fn pool(cluster: &str, name: &str, count: u32) -> PoolSpec {
    PoolSpec {
        name: name.to_owned(),
        count,
        vm_size: "Standard_B2s".to_owned(),
        mode: PoolMode::System,
        kubernetes_version: "1.36.3".to_owned(),
        max_pods: 110,
        labels: BTreeMap::new(),
        taints: Vec::new(),
        os_disk_gib: 128,
        incarnation: format!("{cluster}-{name}"),
    }
}

fn fresh_group(name: String, managed_by: Option<String>, now: jiff::Timestamp) -> GroupRecord {
    GroupRecord {
        v: 1,
        subscription: SUBSCRIPTION.to_owned(),
        name,
        location: "local".to_owned(),
        tags: BTreeMap::new(),
        managed_by,
        deleting: false,
        created_at: now,
    }
}

fn fresh(name: &str, uid: String, now: jiff::Timestamp) -> ClusterRecord {
    ClusterRecord {
        v: 1,
        uid,
        subscription: SUBSCRIPTION.to_owned(),
        resource_group: GROUP.to_owned(),
        name: name.to_owned(),
        generation: 0,
        pool_generations: BTreeMap::new(),
        body: serde_json::Value::Null,
        spec: ClusterSpec {
            name: name.to_owned(),
            resource_group: GROUP.to_owned(),
            location: "local".to_owned(),
            node_resource_group: format!("MC_{GROUP}_{name}_local"),
            fqdn: format!("{name}.hcp.local"),
            kubernetes_version: "1.36.3".to_owned(),
            network: NetworkProfile {
                plugin: PodNetworking::Kubenet,
                vnet_range: "10.224.0.0/12".parse().unwrap(),
                node_range: "10.224.0.0/16".parse().unwrap(),
                control_plane_range: "10.239.255.240/28".parse().unwrap(),
                pod_range: Some("10.244.0.0/16".parse().unwrap()),
                service_range: "10.0.0.0/16".parse().unwrap(),
                dns_service_ip: "10.0.0.10".parse().unwrap(),
                outbound: true,
            },
            pools: Vec::new(),
            disable_local_accounts: false,
            tier: cluster_spec::Tier::Free,
            restore: None,
        },
        sealed: BTreeMap::new(),
        deleting: false,
        operation: String::new(),
        course: control_records::Course::default(),
        created_at: now,
        created_by: "tester".to_owned(),
        created_by_type: "Application".to_owned(),
        modified_at: now,
        modified_by: "tester".to_owned(),
        modified_by_type: "Application".to_owned(),
    }
}
