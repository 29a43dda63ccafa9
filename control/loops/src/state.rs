//! The state of a loop besides the records: results of effects. Lost with the process, and observed again
//! after it.

mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use cluster_api::{Changes, ClusterApi, Ingress, NodeSeen, ServiceWish, WorkNotes};
use cluster_balancers::Wish;
use cluster_volumes::Storage;
use control_planner::{
    ApiSeen, ConfigSeen, Drain, Effect, FabricEffect, Health, Held, NetworkSeen, Presence, Reach, Subject,
    VolumeThere, WorkSeen,
};
use control_records::{Fence, balancer::BalancerRecord};
use control_store::Stored;
use futures::FutureExt as _;
use jiff::Timestamp;
use tokio::sync::OnceCell;

use crate::{inventory::Mark, recipes::Secret};

/// See the module.
pub(crate) struct LoopState {
    pub(crate) uid: String,
    /// The permission to write for the cluster, once read, until a transaction finds it to be another host's.
    pub(crate) fence: Option<Fence>,
    pub(crate) presence: BTreeMap<String, Presence>,
    pub(crate) inventory_stale: bool,
    /// The oldest listing that a look at the fabric may use: the machines were not changed since. `None`: one
    /// that begins with the look.
    pub(crate) since: Option<Mark>,
    /// Machines that were changed since the running look at the fabric began: its result for them may be
    /// outdated.
    touched: BTreeSet<String>,
    /// The cluster's volumes in the fabric; `None` before the first look.
    volumes: Option<BTreeMap<String, VolumeThere>>,
    /// Volumes with a failed effect: their known state may be wrong.
    doubted_volumes: BTreeSet<String>,
    /// Volumes that were changed since the running look at the fabric began.
    touched_volumes: BTreeSet<String>,
    pub(crate) network: NetworkSeen,
    pub(crate) configs: BTreeMap<String, ConfigSeen>,
    pub(crate) drains: BTreeMap<String, Drain>,
    pub(crate) health: Health,
    pub(crate) api: ApiSeen,
    /// When running commands are to be checked again.
    pub(crate) commands: BTreeMap<String, Timestamp>,
    pub(crate) images: BTreeSet<String>,
    pub(crate) held: BTreeMap<Subject, Held>,
    /// The cluster's CAs and keys, once read; only while the loop runs.
    pub(crate) pki: Arc<OnceCell<Secret>>,
    /// The generation of the keys of `pki` and `handle`.
    pki_generation: Option<u64>,
    pub(crate) handle: Option<Handle>,
    /// The last report of the control plane's agent about its API server.
    pub(crate) api_server_ready: Option<bool>,
}

/// The connection to the cluster's API.
pub(crate) struct Handle {
    pub(crate) api: Arc<dyn ClusterApi>,
    pub(crate) changes: Arc<dyn Changes>,
    /// The count of changes that were processed.
    pub(crate) seen: u64,
    pub(crate) made_at: Timestamp,
    /// It will report no more changes. A resync makes another one.
    pub(crate) deaf: bool,
}

impl Handle {
    /// Waits for the next change; gives whether more will be noticed.
    pub(crate) async fn changed(&mut self) -> bool {
        match self.changes.after(self.seen).await {
            Some(count) => {
                self.seen = count;
                true
            }
            None => false,
        }
    }

    pub(crate) fn expired(&self, now: Timestamp, after: Duration) -> bool {
        now.duration_since(self.made_at).unsigned_abs() >= after
    }
}

impl LoopState {
    pub(crate) fn new(uid: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            fence: None,
            presence: BTreeMap::new(),
            inventory_stale: false,
            since: None,
            touched: BTreeSet::new(),
            volumes: None,
            doubted_volumes: BTreeSet::new(),
            touched_volumes: BTreeSet::new(),
            network: NetworkSeen::Unknown,
            configs: BTreeMap::new(),
            drains: BTreeMap::new(),
            health: Health::default(),
            api: ApiSeen::default(),
            commands: BTreeMap::new(),
            images: BTreeSet::new(),
            held: BTreeMap::new(),
            pki: Arc::new(OnceCell::new()),
            pki_generation: None,
            handle: None,
            api_server_ready: None,
        }
    }

    /// Marks all observations as due for renewal; none is dropped meanwhile. `since`: see
    /// [`LoopState::since`].
    pub(crate) fn grow_stale(&mut self, since: Option<Mark>) {
        self.inventory_stale = true;
        self.since = since;
        self.network = match self.network {
            NetworkSeen::Gone => NetworkSeen::Gone,
            NetworkSeen::Unknown | NetworkSeen::Made(_) => NetworkSeen::Unknown,
        };
        self.api.change += 1;
        self.api.set.clear();
        self.held.clear();
        self.handle = self.handle.take().filter(|handle| !handle.deaf);
    }

    /// The fabric has to be listed anew: a machine may be gone.
    pub(crate) fn doubt_machines(&mut self) {
        self.inventory_stale = true;
        self.since = None;
    }

    /// A machine was recorded just now: it cannot be in the fabric yet.
    pub(crate) fn recorded(&mut self, machine: &str) {
        self.presence.insert(machine.to_owned(), Presence::Absent);
        self.configs.insert(machine.to_owned(), ConfigSeen::Absent);
    }

    /// A machine's record was removed.
    pub(crate) fn removed(&mut self, machine: &str) {
        self.presence.remove(machine);
        self.configs.remove(machine);
        self.drains.remove(machine);
        self.health.forget(machine);
        self.api.set.remove(machine);
    }

    /// Resets the drain of a machine's node: it begins again, or ends. `stays`: the node takes pods again, and
    /// its object is set for that.
    pub(crate) fn drains_anew(&mut self, machine: &str, stays: bool) {
        self.drains.remove(machine);
        if stays {
            self.api.set.remove(machine);
        }
    }

    /// Drops keys of another generation, and the connection that was made with them.
    pub(crate) fn keys_are(&mut self, generation: Option<u64>) {
        if self.pki_generation != generation {
            self.pki_generation = generation;
            self.pki = Arc::new(OnceCell::new());
            self.handle = None;
        }
    }

    /// Drops secrets and data that is cheap to read again, while the cluster is idle.
    pub(crate) fn settle(&mut self) {
        self.pki = Arc::new(OnceCell::new());
        self.held.clear();
    }

    /// Notices changes that no effect reports: of the API, and in the agent's reports about it.
    pub(crate) fn listen(&mut self, api_server_ready: Option<bool>) {
        let handle = self.handle.as_mut().filter(|handle| !handle.deaf);
        if let Some(hears) = handle.and_then(|handle| handle.changed().now_or_never()) {
            self.api_changed(hears);
        }
        if api_server_ready.is_some() && self.api_server_ready != api_server_ready {
            self.api_server_ready = api_server_ready;
            self.api.change += 1;
            // Effects on the API that are held back after a failure need not wait any longer.
            self.held.remove(&Subject::Api);
        }
    }

    /// The API reported a change, or that it will report no more.
    pub(crate) fn api_changed(&mut self, hears: bool) {
        self.api.change += 1;
        if let Some(handle) = &mut self.handle {
            handle.deaf |= !hears;
        }
        if hears && self.api.reach != Reach::Ready {
            self.api.heard = true;
            self.held.remove(&Subject::Api);
        }
    }

    /// An effect begins; these are under way.
    pub(crate) fn begins<'e>(&mut self, effect: &Effect, under_way: impl Iterator<Item = &'e Effect>) {
        if *effect == Effect::Fabric(FabricEffect::DeleteNetwork) {
            // An effect that runs at the same time cannot rely on the network.
            self.network = NetworkSeen::Unknown;
        }
        match effect.subject() {
            Subject::Machine(machine) => drop(self.touched.insert(machine)),
            Subject::Volume(volume) => {
                // An earlier listing does not show the effect.
                self.since = None;
                self.touched_volumes.insert(volume);
            }
            Subject::Fabric => {
                self.since = None;
                self.touched.clear();
                self.touched_volumes.clear();
                for effect in under_way {
                    match effect.subject() {
                        Subject::Machine(machine) => drop(self.touched.insert(machine)),
                        Subject::Volume(volume) => drop(self.touched_volumes.insert(volume)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    /// The result of a look at the fabric for the cluster's machines.
    pub(crate) fn found(&mut self, found: BTreeMap<String, Presence>) {
        self.inventory_stale = false;
        for (machine, presence) in found {
            // The effect on it reports its state.
            if self.touched.contains(&machine) {
                continue;
            }
            let known = self.presence.entry(machine).or_insert(presence);
            // The listing may be older than the removal.
            if *known != Presence::Gone {
                *known = presence;
            }
        }
    }

    /// A machine and its disk were removed, to be made anew.
    pub(crate) fn wiped(&mut self, machine: String, at: Timestamp) {
        self.health.started_anew(&machine, at, None);
        self.drains.remove(&machine);
        // The hub has dropped it too: published again when it is read again.
        self.configs.insert(machine.clone(), ConfigSeen::Unknown);
        self.presence.insert(machine, Presence::Absent);
    }

    /// A machine was stopped; or there was none.
    pub(crate) fn stopped(&mut self, machine: String, there: bool) {
        // The hub has dropped it: published again when it is read again.
        self.configs.insert(machine.clone(), ConfigSeen::Unknown);
        let presence = if there {
            Presence::Stopped
        } else {
            Presence::Absent
        };
        self.presence.insert(machine, presence);
    }

    /// The cluster has no API server: earlier observations of it are dropped.
    pub(crate) fn unserved(&mut self) {
        self.handle = None;
        self.api_server_ready = None;
        self.api = ApiSeen {
            change: self.api.change,
            ..ApiSeen::default()
        };
    }

    /// The API server responded to a look that began at `at`.
    pub(crate) fn api_answered(&mut self, change: u64, at: Timestamp, nodes: Vec<NodeSeen>) {
        let ready = |nodes: &[NodeSeen]| -> BTreeSet<String> {
            nodes
                .iter()
                .filter(|node| node.ready)
                .map(|node| node.name.clone())
                .collect()
        };
        if !ready(&self.api.nodes).is_subset(&ready(&nodes)) {
            // A node that is no longer ready may have lost its machine.
            self.doubt_machines();
        }
        let lost = |before: &NodeSeen| !nodes.iter().any(|node| node.name == before.name);
        if self.api.nodes.iter().any(lost) {
            // A node object that is made anew lacks the earlier settings.
            self.api.set.clear();
        }
        self.api.reach = Reach::Ready;
        self.api.heard = false;
        self.api.looked = change;
        self.api.looked_at = Some(at);
        self.api.nodes = nodes;
    }

    /// A look found the wishes of Services of type LoadBalancer, and the objects about volumes; `None`: not
    /// read.
    pub(crate) fn api_told(&mut self, services: Option<Vec<Wish>>, storage: Option<Storage>) {
        let api = &mut self.api;
        if services.is_some() {
            // Releasing a Service twice does no harm.
            api.released.clear();
            api.services = services;
        }
        if storage.is_some() {
            // Publishing a volume twice changes nothing.
            api.published.clear();
            api.storage = storage;
        }
        let services: BTreeSet<&str> = api
            .services
            .iter()
            .flatten()
            .map(|wish| wish.uid.as_str())
            .collect();
        let claims = api.storage.iter().flat_map(|storage| &storage.claims);
        let mut claims: BTreeSet<&str> = claims.map(|claim| claim.claim.uid.as_str()).collect();
        let snapshots = api.storage.iter().flat_map(|storage| &storage.snapshots);
        claims.extend(snapshots.map(|snapshot| snapshot.snapshot.uid.as_str()));
        api.told
            .retain(|uid, _| services.contains(uid.as_str()) || claims.contains(uid.as_str()));
    }

    /// The result of a look at the cluster's pods and nodes for the autoscaler.
    pub(crate) fn work_found(&mut self, found: WorkSeen) {
        let pods = found.work.pods.iter().map(|pod| pod.uid.as_str());
        let nodes = found.work.nodes.iter().map(|node| node.uid.as_str());
        let there: BTreeSet<&str> = pods.chain(nodes).collect();
        self.api.work_told.retain(|uid, _| there.contains(uid.as_str()));
        self.api.work = Some(found);
    }

    /// The autoscaler's status and events were written.
    pub(crate) fn work_told(&mut self, notes: WorkNotes) {
        let told = notes
            .events
            .into_iter()
            .map(|event| (event.uid, event.note.message));
        self.api.work_told.extend(told);
        if notes.status.is_some() {
            self.api.work_status = notes.status;
        }
    }

    /// No pool is scaled by the autoscaler any more: pods are neither read nor watched.
    pub(crate) fn forget_work(&mut self) {
        if self.api.work.take().is_some() {
            self.api.work_told.clear();
            self.api.work_status = None;
            self.handle = None;
        }
    }

    /// Whether a Service needs a load balancer that is not among these.
    pub(crate) fn lacks_one(&self, balancers: &[Stored<Arc<BalancerRecord>>]) -> bool {
        let known = |uid: &str| balancers.iter().any(|balancer| balancer.value.uid == uid);
        let mut services = self.api.services.iter().flatten();
        services.any(|service| !known(&service.uid))
    }

    /// A Service was brought to its desired state: this holds until the next look.
    pub(crate) fn service_set(&mut self, wish: &ServiceWish) {
        let api = &mut self.api;
        if let Some(note) = &wish.note {
            api.told.insert(wish.uid.clone(), note.message.clone());
        }
        let mut services = api.services.iter_mut().flatten();
        let Some(service) = services.find(|service| service.uid == wish.uid) else {
            api.released.insert(wish.uid.clone());
            return;
        };
        service.finalizer = wish.finalizer.unwrap_or(service.finalizer);
        service.shown = match wish.ingress {
            Ingress::AsItIs => service.shown,
            Ingress::Nothing => None,
            Ingress::At(address) => Some(address),
        };
    }
}
