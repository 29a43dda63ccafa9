//! A world in virtual time: a fabric, the agents of its machines and the APIs of its clusters, behind the same traits as
//! the real ones. What it made goes on when the controller is dropped; what the service kept in memory does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use agent_api::{Agents, LogError};
use agent_protocol::{MachineConfig, ProcessSeen, ProcessState, Report};
use async_trait::async_trait;
use base_env::Env;
use cluster_api::{ClusterApi, ClusterError, Connect, Endpoint, NodeSeen, NodeWish};
use fabric_api::{
    Fabric, FabricError, Inventory, MachineId, MachineSeen, MachineSpec, NetworkId, NetworkSpec, Power,
    StampNetwork, Uplink,
};
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use crate::tripwire::Tripwire;

/// How long things take: the proportions of real ones.
const MACHINE: Duration = Duration::from_millis(200);
const NETWORK: Duration = Duration::from_millis(150);
const BOOT: Duration = Duration::from_millis(300);
const API_SERVER: Duration = Duration::from_millis(3000);
const KUBELET: Duration = Duration::from_millis(900);
const NODE_READY: Duration = Duration::from_millis(300);
const CALL: Duration = Duration::from_millis(5);

pub struct World {
    env: Env,
    stamp: StampNetwork,
    pub tripwire: Arc<Tripwire>,
    inner: Mutex<Inner>,
    reports: broadcast::Sender<String>,
    /// Counts up whenever an agent may have something to do.
    tick: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    machines: BTreeMap<String, Machine>,
    networks: BTreeMap<NetworkId, NetworkSpec>,
    /// What the service has published in its present life.
    published: BTreeMap<String, Arc<MachineConfig>>,
    /// What agents have reported to the service in its present life.
    reported: BTreeMap<String, Arc<Report>>,
    apis: BTreeMap<String, Api>,
    /// How often calls of a kind are to fail yet.
    failures: BTreeMap<String, u32>,
    trace: Vec<String>,
    /// Pods on each node that do not leave.
    stubborn: BTreeMap<String, u32>,
    boots: u64,
}

struct Machine {
    spec: MachineSpec,
    power: Power,
    /// The agent's own: survives the service.
    generation: u64,
    report: Report,
}

#[derive(Default)]
struct Api {
    ready: bool,
    nodes: BTreeMap<String, NodeSeen>,
    pending_serving: BTreeSet<String>,
    addons: u64,
    changes: Option<watch::Sender<u64>>,
}

impl Api {
    fn changed(&self) {
        if let Some(changes) = &self.changes {
            changes.send_modify(|count| *count += 1);
        }
    }
}

impl World {
    pub fn new(env: Env) -> Arc<Self> {
        Arc::new(Self {
            tripwire: Arc::new(Tripwire::default()),
            stamp: StampNetwork {
                range: "100.64.16.0/20".parse().unwrap(),
                uplink: Uplink::None,
            },
            inner: Mutex::default(),
            reports: broadcast::channel(1024).0,
            tick: watch::Sender::new(0),
            env,
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn tick(&self) {
        self.tick.send_modify(|count| *count += 1);
    }

    /// The service stops: what it held in memory is gone.
    pub fn service_stopped(&self) {
        let mut inner = self.inner();
        inner.published.clear();
        inner.reported.clear();
    }

    /// The next `times` calls of this kind fail.
    pub fn fail(&self, call: &str, times: u32) {
        self.inner().failures.insert(call.to_owned(), times);
    }

    /// This many pods of a node never leave by themselves.
    pub fn stubborn(&self, node: &str, pods: u32) {
        self.inner().stubborn.insert(node.to_owned(), pods);
    }

    /// A machine's first process ends.
    pub fn crash_machine(&self, id: &str) {
        let mut inner = self.inner();
        let Some(machine) = inner.machines.get_mut(id) else {
            return;
        };
        machine.power = Power::Stopped;
        machine.generation = 0;
        let cluster = machine.spec.labels["cluster"].clone();
        let hostname = machine.spec.hostname.clone();
        let control_plane = machine.spec.labels["role"] == "control-plane";
        if let Some(api) = inner.apis.get_mut(&cluster) {
            if control_plane {
                api.ready = false;
            }
            if let Some(node) = api.nodes.get_mut(&hostname) {
                node.ready = false;
            }
            api.changed();
        }
    }

    /// Something is there that no record knows of.
    pub fn plant_orphans(self: &Arc<Self>) {
        let spec = MachineSpec {
            id: MachineId::from("orphan"),
            hostname: "orphan".to_owned(),
            image: "1.36.3".to_owned(),
            cpu_millis: 1,
            memory_mib: 1,
            nics: Vec::new(),
            seed_files: BTreeMap::new(),
            labels: BTreeMap::from([
                ("cluster".to_owned(), "none".to_owned()),
                ("role".to_owned(), "node".to_owned()),
            ]),
        };
        let mut inner = self.inner();
        inner.machines.insert(
            "orphan".to_owned(),
            Machine {
                spec,
                power: Power::Running,
                generation: 0,
                report: Report::default(),
            },
        );
        let id = NetworkId::from("orphannet");
        inner.networks.insert(
            id.clone(),
            NetworkSpec {
                id,
                address_space: Vec::new(),
                subnets: Vec::new(),
                reserved: Vec::new(),
                routes: Vec::new(),
                uplink: Ipv4Addr::UNSPECIFIED,
            },
        );
    }

    /// What was done since the last call, with the time of each.
    pub fn take_trace(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().trace)
    }

    pub fn machines(&self) -> BTreeMap<String, MachineSpec> {
        self.inner()
            .machines
            .iter()
            .map(|(id, machine)| (id.clone(), machine.spec.clone()))
            .collect()
    }

    pub fn networks(&self) -> BTreeMap<NetworkId, NetworkSpec> {
        self.inner().networks.clone()
    }

    pub fn nodes(&self, uid: &str) -> Vec<NodeSeen> {
        self.inner()
            .apis
            .get(uid)
            .map(|api| api.nodes.values().cloned().collect())
            .unwrap_or_default()
    }

    pub fn pending_serving(&self, uid: &str) -> usize {
        // A request of a node that has left is nobody's any more; Kubernetes removes it some day.
        self.inner().apis.get(uid).map_or(0, |api| {
            let of_nodes = api
                .pending_serving
                .iter()
                .filter(|name| api.nodes.contains_key(*name));
            of_nodes.count()
        })
    }

    /// One call of the service: takes its time, may fail, may be the service's last.
    async fn call(&self, kind: &str, what: &str, took: Duration) -> Result<(), String> {
        self.tripwire.step().await;
        self.env.clock.sleep(took).await;
        {
            let mut inner = self.inner();
            let at = self.env.clock.monotonic();
            if let Some(left) = inner.failures.get_mut(kind).filter(|left| **left > 0) {
                *left -= 1;
                inner.trace.push(format!(
                    "{:>8.3}s {kind} {what}: failed as told",
                    at.as_secs_f64()
                ));
                return Err("failed as told".to_owned());
            }
            let text = format!("{:>8.3}s {kind} {what}", at.as_secs_f64());
            inner.trace.push(text.trim_end().to_owned());
        }
        Ok(())
    }

    fn report(&self, id: &str, change: impl FnOnce(&mut Report)) {
        let mut inner = self.inner();
        let Some(machine) = inner.machines.get_mut(id) else {
            return;
        };
        machine.report.sequence += 1;
        change(&mut machine.report);
        let report = Arc::new(machine.report.clone());
        inner.reported.insert(id.to_owned(), report);
        drop(inner);
        let _ = self.reports.send(id.to_owned());
        self.tick();
    }

    /// The life of a machine from one boot to its end.
    async fn live(self: Arc<Self>, id: String, boot: u64) {
        let clock = Arc::clone(&self.env.clock);
        let mut tick = self.tick.subscribe();
        clock.sleep(BOOT).await;
        let mut started = false;
        loop {
            let step = {
                let mut inner = self.inner();
                let Some(machine) = inner.machines.get(&id) else {
                    return;
                };
                if machine.power != Power::Running || machine.report.boot != boot.to_string() {
                    return;
                }
                let (generation, role) = (machine.generation, machine.spec.labels["role"].clone());
                let published = inner.published.get(&id).map(|config| config.generation);
                let cluster = inner.machines[&id].spec.labels["cluster"].clone();
                match published {
                    Some(newer) if newer > generation => {
                        if let Some(machine) = inner.machines.get_mut(&id) {
                            machine.generation = newer;
                        }
                        Step::Configured(newer)
                    }
                    _ if generation == 0 || started => Step::Wait,
                    _ if role == "control-plane" => Step::ApiServer(cluster),
                    _ if inner.apis.get(&cluster).is_some_and(|api| api.ready) => Step::Node(cluster),
                    _ => Step::Wait,
                }
            };
            match step {
                Step::Wait => {
                    let _ = tick.changed().await;
                }
                Step::Configured(generation) => self.report(&id, |report| report.generation = generation),
                Step::ApiServer(cluster) => {
                    started = true;
                    self.process(&id, ProcessState::Starting);
                    clock.sleep(API_SERVER).await;
                    if !self.lives(&id, boot) {
                        return;
                    }
                    {
                        let mut inner = self.inner();
                        let api = inner.apis.entry(cluster).or_default();
                        api.ready = true;
                        api.changed();
                    }
                    self.process(&id, ProcessState::Ready);
                }
                Step::Node(cluster) => {
                    started = true;
                    let name = self.inner().machines[&id].spec.hostname.clone();
                    clock.sleep(KUBELET).await;
                    if !self.lives(&id, boot) {
                        return;
                    }
                    self.node(&cluster, &name, |api, name| {
                        api.nodes.entry(name.to_owned()).or_default().name = name.to_owned();
                        api.pending_serving.insert(name.to_owned());
                    });
                    clock.sleep(NODE_READY).await;
                    if !self.lives(&id, boot) {
                        return;
                    }
                    self.node(&cluster, &name, |api, name| {
                        if let Some(node) = api.nodes.get_mut(name) {
                            node.ready = true;
                        }
                    });
                }
            }
        }
    }

    fn lives(&self, id: &str, boot: u64) -> bool {
        self.inner()
            .machines
            .get(id)
            .is_some_and(|machine| machine.power == Power::Running && machine.report.boot == boot.to_string())
    }

    fn process(&self, id: &str, state: ProcessState) {
        self.report(id, |report| {
            report.processes.insert(
                "kube-apiserver".to_owned(),
                ProcessSeen {
                    state,
                    pid: Some(1),
                    restarts: 0,
                    last_exit: None,
                    last_lines: Vec::new(),
                    hangs: 0,
                    status: None,
                },
            );
        });
    }

    fn node(&self, cluster: &str, name: &str, change: impl FnOnce(&mut Api, &str)) {
        let mut inner = self.inner();
        let api = inner.apis.entry(cluster.to_owned()).or_default();
        change(api, name);
        api.changed();
    }
}

enum Step {
    Wait,
    Configured(u64),
    ApiServer(String),
    Node(String),
}

/// The service's view of a world: the traits are implemented for this, so that a world can start tasks of its own.
pub struct Driver(pub Arc<World>);

fn failed(act: &str) -> impl Fn(String) -> FabricError + '_ {
    move |why| FabricError::failed(act, why)
}

#[async_trait]
impl Fabric for Driver {
    fn stamp_network(&self) -> &StampNetwork {
        &self.0.stamp
    }

    async fn ensure_stamp(&self) -> Result<(), FabricError> {
        Ok(())
    }

    async fn delete_stamp(&self) -> Result<(), FabricError> {
        Ok(())
    }

    async fn ensure_network(&self, spec: &NetworkSpec) -> Result<(), FabricError> {
        let act = format!("with {} routes", spec.routes.len());
        self.0
            .call("ensure-network", &act, NETWORK)
            .await
            .map_err(failed("make the network"))?;
        self.0.inner().networks.insert(spec.id.clone(), spec.clone());
        self.0.tripwire.step().await;
        Ok(())
    }

    async fn delete_network(&self, id: &NetworkId) -> Result<(), FabricError> {
        self.0
            .call("delete-network", "", NETWORK)
            .await
            .map_err(failed("remove the network"))?;
        {
            let mut inner = self.0.inner();
            let used = inner
                .machines
                .values()
                .any(|machine| machine.spec.labels["cluster"] == id.0);
            if used {
                return Err(FabricError::failed("remove the network", "machines are in it"));
            }
            inner.networks.remove(id);
            inner.apis.remove(&id.0);
        }
        self.0.tripwire.step().await;
        Ok(())
    }

    async fn ensure_machine(&self, spec: &MachineSpec) -> Result<(), FabricError> {
        let world = &self.0;
        let network = NetworkId(spec.labels["cluster"].clone());
        world
            .call("ensure-machine", &spec.hostname, MACHINE)
            .await
            .map_err(failed("start the machine"))?;
        let boot = {
            let mut inner = world.inner();
            if !inner.networks.contains_key(&network) {
                return Err(FabricError::NotFound(format!("network {network}")));
            }
            inner.boots += 1;
            let boot = inner.boots;
            let machine = inner
                .machines
                .entry(spec.id.0.clone())
                .or_insert_with(|| Machine {
                    spec: spec.clone(),
                    power: Power::Stopped,
                    generation: 0,
                    report: Report::default(),
                });
            if machine.power == Power::Running {
                None
            } else {
                machine.power = Power::Running;
                machine.report = Report {
                    boot: boot.to_string(),
                    ..Report::default()
                };
                Some(boot)
            }
        };
        if let Some(boot) = boot {
            tokio::spawn(Arc::clone(world).live(spec.id.0.clone(), boot));
        }
        world.tripwire.step().await;
        Ok(())
    }

    async fn stop_machine(&self, _id: &MachineId) -> Result<(), FabricError> {
        Ok(())
    }

    async fn delete_machine(&self, id: &MachineId) -> Result<(), FabricError> {
        let name = self
            .0
            .inner()
            .machines
            .get(&id.0)
            .map(|machine| machine.spec.hostname.clone());
        self.0
            .call("delete-machine", name.as_deref().unwrap_or("(absent)"), MACHINE)
            .await
            .map_err(failed("remove the machine"))?;
        let removed = self.0.inner().machines.remove(&id.0);
        if let Some(machine) = removed {
            let (cluster, role) = (&machine.spec.labels["cluster"], &machine.spec.labels["role"]);
            self.0.node(cluster, &machine.spec.hostname, |api, name| {
                if role == "control-plane" {
                    api.ready = false;
                }
                if let Some(node) = api.nodes.get_mut(name) {
                    node.ready = false;
                }
            });
        }
        self.0.tick();
        self.0.tripwire.step().await;
        Ok(())
    }

    async fn list(&self) -> Result<Inventory, FabricError> {
        self.0.env.clock.sleep(CALL).await;
        let inner = self.0.inner();
        Ok(Inventory {
            machines: inner
                .machines
                .iter()
                .map(|(id, machine)| MachineSeen {
                    id: MachineId(id.clone()),
                    power: machine.power,
                    labels: machine.spec.labels.clone(),
                    spec_hash: None,
                })
                .collect(),
            networks: inner.networks.keys().cloned().collect(),
        })
    }
}

#[async_trait]
impl Agents for Driver {
    fn publish(&self, machine: &str, config: Arc<MachineConfig>) {
        {
            let mut inner = self.0.inner();
            if let Some(agent) = inner.machines.get(machine) {
                assert!(config.generation >= agent.generation, "a configuration went back");
            }
            inner.published.insert(machine.to_owned(), config);
        }
        self.0.tick();
    }

    fn forget(&self, machine: &str) {
        let mut inner = self.0.inner();
        inner.published.remove(machine);
        inner.reported.remove(machine);
    }

    fn report(&self, machine: &str) -> Option<Arc<Report>> {
        self.0.inner().reported.get(machine).cloned()
    }

    fn contact(&self, machine: &str) -> Option<std::time::Duration> {
        // A machine that runs asks all the time, also after a restart of the service.
        self.0
            .inner()
            .machines
            .get(machine)
            .is_some_and(|machine| machine.power == Power::Running)
            .then_some(std::time::Duration::ZERO)
    }

    fn subscribe(&self) -> broadcast::Receiver<String> {
        self.0.reports.subscribe()
    }

    async fn logs(&self, machine: &str, _process: &str, _lines: u32) -> Result<String, LogError> {
        Err(LogError::Away(machine.to_owned()))
    }
}

impl Connect for Driver {
    fn connect(&self, cluster: &str, _endpoint: &Endpoint) -> Result<Arc<dyn ClusterApi>, ClusterError> {
        Ok(Arc::new(Client {
            world: Arc::clone(&self.0),
            cluster: cluster.to_owned(),
        }))
    }
}

struct Client {
    world: Arc<World>,
    cluster: String,
}

impl Client {
    async fn call<T>(
        &self,
        kind: &str,
        what: &str,
        act: impl FnOnce(&mut Api) -> T + Send,
    ) -> Result<T, ClusterError> {
        self.world
            .call(kind, what, CALL)
            .await
            .map_err(ClusterError::Unavailable)?;
        let result = {
            let mut inner = self.world.inner();
            let api = inner.apis.entry(self.cluster.clone()).or_default();
            if !api.ready {
                return Err(ClusterError::Unavailable("connection refused".to_owned()));
            }
            act(api)
        };
        self.world.tripwire.step().await;
        Ok(result)
    }
}

#[async_trait]
impl ClusterApi for Client {
    async fn ready(&self) -> Result<(), ClusterError> {
        self.call("readyz", "", |_| ()).await
    }

    async fn nodes(&self) -> Result<Vec<NodeSeen>, ClusterError> {
        self.call("list-nodes", "", |api| api.nodes.values().cloned().collect())
            .await
    }

    async fn set_node(&self, wish: &NodeWish) -> Result<(), ClusterError> {
        self.call("set-node", &wish.name, |api| {
            let changed = api.nodes.get_mut(&wish.name).is_some_and(|node| {
                let before = node.clone();
                node.labels.clone_from(&wish.labels);
                node.taints.clone_from(&wish.taints);
                if node.pod_range.is_none() {
                    node.pod_range = wish.pod_range.map(|range| range.to_string());
                }
                before != *node
            });
            if changed {
                api.changed();
            }
        })
        .await
    }

    async fn approve_serving(&self, nodes: &[NodeWish]) -> Result<u32, ClusterError> {
        self.call("approve-serving", "", |api| {
            let mut approved = 0;
            for node in nodes {
                approved += u32::from(api.pending_serving.remove(&node.name));
            }
            if approved > 0 {
                api.changed();
            }
            approved
        })
        .await
    }

    async fn apply(&self, objects: &[Value]) -> Result<u32, ClusterError> {
        self.call("apply", "", |api| {
            let wanted = objects.len() as u64;
            let changed = api.addons != wanted;
            api.addons = wanted;
            if changed {
                api.changed();
            }
            u32::from(changed)
        })
        .await
    }

    async fn drain(&self, node: &str) -> Result<u32, ClusterError> {
        let stubborn = self.world.inner().stubborn.get(node).copied().unwrap_or(0);
        self.call("drain", node, |api| {
            if let Some(node) = api.nodes.get_mut(node).filter(|node| !node.cordoned) {
                node.cordoned = true;
                api.changed();
            }
            stubborn
        })
        .await
    }

    async fn delete_node(&self, name: &str) -> Result<(), ClusterError> {
        self.call("delete-node", name, |api| {
            if api.nodes.remove(name).is_some() {
                api.changed();
            }
        })
        .await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        let mut inner = self.world.inner();
        let api = inner.apis.entry(self.cluster.clone()).or_default();
        api.changes
            .get_or_insert_with(|| watch::Sender::new(0))
            .subscribe()
    }
}
