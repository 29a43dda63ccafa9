//! The controller: hears news and starts the loop of the cluster they concern.
//!
//! News carry no data; a loop reads everything itself, so the same path runs after a request, after a restart and after
//! a missed message. A cluster that is what it is to be has no loop and no timer: only an entry here, and a listener on
//! its API. All of them are looked at again in the course of each resync period, a slice at a time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use base_env::Seed;
use control_records::{Event, EventKind, LeaseRecord, OperationStatus, events};
use control_store::{Change, StoreError, Txn, get_record, list_records};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::{self, AbortHandle, JoinSet},
};

use crate::{
    ControllerDeps,
    cluster_loop::{ClusterLoop, Exit, Resync, Shared, Wakeup},
    gap_detector::GapDetector,
    gate::Gate,
    hints::{ClusterHint, MachineHint, OperationHint},
    index::Index,
    inventory::{InventoryCache, Mark},
    pacing,
    silent_machines::SilentMachinesCache,
    state::LoopState,
    sweep::{self, Scope},
};

/// A resync period is cut into this many slices, so that a thousand clusters are not looked at in the same moment.
const SLICES: u64 = 10;
/// A store that cannot be read is tried again after this.
const STORE_PAUSE: Duration = Duration::from_secs(1);

const CLUSTERS: &str = "/clusters/";
const MACHINES: &str = "/machines/";
const OPERATIONS: &str = "/operations/";
const LEASES: &str = "/leases/";
/// Reports that are taken in at once: hundreds of machines that boot together must not make the channel overflow.
const REPORTS: usize = 1024;
/// Changes of the store that are taken in at once.
const CHANGES: usize = 1024;

/// Brings every cluster of the stamp to what it is to be. One at a time over a store.
pub struct Controller {
    shared: Arc<Shared>,
    pulse: watch::Sender<Pulse>,
}

/// How busy a controller is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Clusters it knows.
    pub clusters: usize,
    /// Those that have a loop at the moment: something is to be done, waited for or looked at.
    pub busy: usize,
    /// Loops that ended by a panic since the process began. Each was started again.
    pub panics: u64,
}

impl Controller {
    /// Does nothing yet.
    pub fn new(deps: ControllerDeps) -> Self {
        let deps = Arc::new(deps);
        Self {
            shared: Arc::new(Shared {
                inventory: Arc::new(InventoryCache::new(
                    Arc::clone(&deps.fabric),
                    Arc::clone(&deps.env.clock),
                    deps.settings.fabric_bound,
                )),
                gate: Gate::new(deps.settings.limits),
                deps,
                index: Index::default(),
                silent_machines: SilentMachinesCache::default(),
                gap_detector: GapDetector::default(),
            }),
            pulse: watch::Sender::default(),
        }
    }

    /// How busy it is, from now on.
    pub fn pulse(&self) -> watch::Receiver<Pulse> {
        self.pulse.subscribe()
    }

    /// Runs until `shutdown` says true (or its sender is gone). Effects under way are dropped then: each may be cut short
    /// at any point, and is done again after the next start. Machines and what runs in them are not touched.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut reports = self.shared.deps.agents.subscribe();
        loop {
            let mut dispatcher = Dispatcher::new(Arc::clone(&self.shared), self.pulse.clone());
            let result = tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => return,
                result = dispatcher.serve(&mut reports) => result,
            };
            // Every loop has ended with the dispatcher. Starting over reads everything anew.
            let Err(error) = result;
            tracing::error!("the control loops start over: {error}");
            tokio::select! {
                biased;
                () = self.shared.deps.env.clock.sleep(STORE_PAUSE) => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
        }
    }
}

/// A cluster as the controller knows it.
#[derive(Default)]
struct Entry {
    wakeup: Arc<Wakeup>,
    running: bool,
    /// Panics of its loop since it last settled.
    panics: u32,
    /// It is started again after a pause: see [`Dispatcher::panicked`].
    restarting: bool,
    /// What its loop knew when it settled.
    state: Option<Box<LoopState>>,
    /// Hears its API while no loop does.
    listener: Option<AbortHandle>,
}

/// Wakes the loops: one life of the controller, between its start and an error of the store.
struct Dispatcher {
    shared: Arc<Shared>,
    entries: BTreeMap<String, Entry>,
    loops: JoinSet<Exit>,
    listeners: JoinSet<String>,
    sweeps: JoinSet<()>,
    /// The sweep to run after the present one.
    next_sweep: Option<Scope>,
    /// Keeps a channel open on which nothing ever comes.
    silence: Option<broadcast::Sender<String>>,
    /// Whose loop a task is.
    tasks: HashMap<task::Id, String>,
    pulse: watch::Sender<Pulse>,
    seed: Seed,
    slice: u64,
    panics: u64,
    /// Pauses before loops that panicked are started again; each ends with the key of its cluster.
    restarts: JoinSet<String>,
}

/// The watch of the store.
type Changes = mpsc::Receiver<Result<Change, StoreError>>;

/// It ends by an error only; the shutdown drops it.
type Never = std::convert::Infallible;

impl Dispatcher {
    fn new(shared: Arc<Shared>, pulse: watch::Sender<Pulse>) -> Self {
        let seed = shared.deps.env.seed.child("resync");
        Self {
            shared,
            entries: BTreeMap::new(),
            loops: JoinSet::new(),
            listeners: JoinSet::new(),
            sweeps: JoinSet::new(),
            next_sweep: None,
            silence: None,
            tasks: HashMap::new(),
            pulse,
            seed,
            slice: 0,
            panics: 0,
            restarts: JoinSet::new(),
        }
    }

    async fn serve(&mut self, reports: &mut broadcast::Receiver<String>) -> Result<Never, StoreError> {
        let (mut changes, clusters) = self.read_all().await?;
        let now = self.shared.inventory.mark();
        for key in clusters {
            self.wake_for_resync(&key, now);
        }
        self.sweep(Scope::All);
        let clock = Arc::clone(&self.shared.deps.env.clock);
        let mut tick = clock.sleep(self.pause());
        loop {
            self.beat();
            // Changes of the store and reports come in masses. Neither may keep the other, or an end, waiting for ever: some of
            // the changes are taken in each round before the order below counts, so that a controller that is busy with
            // reports does not fall behind the store's watch.
            for _ in 0..CHANGES {
                match changes.try_recv() {
                    Ok(Ok(change)) => self.changed(&change),
                    Ok(Err(StoreError::Lagged)) => changes = self.read_again().await?,
                    Ok(Err(error)) => return Err(error),
                    Err(_nothing_or_closed) => break,
                }
            }
            tokio::select! {
                // In this order and not by lot: the same seed gives the same history.
                biased;
                () = &mut tick => {
                    // Looked at now and then also where nothing is to be done, so that gaps are known for where they began.
                    self.shared.gap_detector.gaps(&*clock);
                    self.resync();
                    tick = clock.sleep(self.pause());
                }
                Some(ended) = self.loops.join_next_with_id() => self.ended(ended),
                Some(heard) = self.listeners.join_next() => {
                    // An aborted listener says nothing.
                    if let Ok(key) = heard {
                        self.wake(&key);
                    }
                }
                Some(swept) = self.sweeps.join_next() => {
                    if let Err(error) = swept {
                        tracing::error!("the sweep ended by a fault of the service: {error}");
                    }
                    if let Some(scope) = self.next_sweep.take() {
                        self.sweep(scope);
                    }
                }
                Some(restarted) = self.restarts.join_next() => match restarted {
                    Ok(key) => self.restart(&key),
                    Err(error) => tracing::error!("the pause after a fault ended by another one: {error}"),
                },
                report = reports.recv() => match report {
                    Ok(machine) => {
                        let mut due = BTreeSet::from([machine]);
                        while due.len() < REPORTS
                            && let Ok(machine) = reports.try_recv()
                        {
                            due.insert(machine);
                        }
                        for machine in &due {
                            if let Some(key) = self.shared.index.cluster_of(machine) {
                                self.wake(&key);
                            }
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => self.wake_all(),
                    // No agent will ever report again: a simulation without agents, or the end. The resync goes on.
                    Err(broadcast::error::RecvError::Closed) => {
                        let (sender, receiver) = broadcast::channel(1);
                        self.silence = Some(sender);
                        *reports = receiver;
                    }
                },
                change = changes.recv() => {
                    let next = match change {
                        Some(Ok(change)) => Some(change),
                        Some(Err(StoreError::Lagged)) | None => None,
                        Some(Err(error)) => return Err(error),
                    };
                    match next {
                        Some(change) => self.changed(&change),
                        None => changes = self.read_again().await?,
                    }
                }
            }
        }
    }

    /// Tells how busy it is, where that changed.
    fn beat(&self) {
        let now = Pulse {
            clusters: self.entries.len(),
            busy: self.tasks.len(),
            panics: self.panics,
        };
        self.pulse
            .send_if_modified(|before| std::mem::replace(before, now) != now);
    }

    /// The watch fell behind. Everything is read anew and every loop looks at its records again; those that run go on, and so does
    /// what they are doing: a controller with too much to do must not throw away what it has done.
    async fn read_again(&mut self) -> Result<Changes, StoreError> {
        tracing::warn!("the watch of the store fell behind: reading everything again");
        let (changes, clusters) = self.read_all().await?;
        let gone: Vec<_> = self
            .entries
            .keys()
            .filter(|key| !clusters.contains(*key))
            .cloned()
            .collect();
        for key in &gone {
            self.shared.index.remove_cluster(key);
        }
        for key in clusters.iter().chain(&gone) {
            self.wake(key);
        }
        Ok(changes)
    }

    /// Reads what there is. Returns all changes since, and the keys of the clusters.
    async fn read_all(&mut self) -> Result<(Changes, BTreeSet<String>), StoreError> {
        let store = Arc::clone(&self.shared.deps.store);
        let (clusters, revision) = list_records::<ClusterHint>(&*store, CLUSTERS).await?;
        // What changes between the readings is told by the watch as well: saying it twice does no harm.
        let changes = store.watch("/", revision).await?;
        let (machines, _) = list_records::<MachineHint>(&*store, MACHINES).await?;
        let (operations, _) = list_records::<OperationHint>(&*store, OPERATIONS).await?;
        for (_, machine) in machines {
            self.machine_seen(&machine.value);
        }
        for (_, operation) in operations {
            self.operation_seen(&operation.value);
        }
        let (leases, _) = list_records::<LeaseRecord>(&*store, LEASES).await?;
        let leases = leases
            .iter()
            .map(|(key, lease)| (key.as_str(), lease.value.owner.as_str()));
        self.shared.index.set_leases(leases);
        for (key, cluster) in &clusters {
            self.shared.index.add_cluster(&cluster.value.uid, key);
        }
        Ok((changes, clusters.into_iter().map(|(key, _)| key).collect()))
    }

    fn changed(&mut self, change: &Change) {
        let key = change.key.as_str();
        let Some(value) = &change.value else {
            if key.starts_with(CLUSTERS) {
                self.shared.index.remove_cluster(key);
                // Its loop, if any, sees for itself.
                self.wake(key);
            } else if let Some(machine) = key.strip_prefix(MACHINES) {
                self.shared.index.remove_machine(machine);
            } else if key.starts_with(LEASES) {
                self.shared.index.remove_lease(key);
            }
            return;
        };
        if key.starts_with(CLUSTERS) {
            if let Some(cluster) = parse::<ClusterHint>(key, value) {
                self.shared.index.add_cluster(&cluster.uid, key);
                self.wake(key);
            }
        } else if key.starts_with(MACHINES) {
            if let Some(machine) = parse::<MachineHint>(key, value) {
                self.machine_seen(&machine);
            }
        } else if key.starts_with(LEASES) {
            if let Some(lease) = parse::<LeaseRecord>(key, value) {
                self.shared.index.add_lease(key, &lease.owner);
            }
        } else if key.starts_with(OPERATIONS)
            && let Some(operation) = parse::<OperationHint>(key, value)
        {
            let uid = self.operation_seen(&operation);
            match uid.and_then(|uid| self.shared.index.cluster_key(&uid)) {
                Some(key) => self.wake(&key),
                // An operation that came too late for its cluster.
                None if operation.status == OperationStatus::InProgress && !operation.cluster.is_empty() => {
                    self.sweep(Scope::Records);
                }
                None => {}
            }
        }
    }

    fn machine_seen(&self, machine: &MachineHint) {
        if let Some(cluster) = machine.cluster() {
            self.shared.index.add_machine(cluster, &machine.id);
            self.shared.index.set_leaving(&machine.id, machine.deleting);
        }
    }

    /// Returns the cluster to wake.
    fn operation_seen(&self, operation: &OperationHint) -> Option<String> {
        if operation.cluster.is_empty() {
            return None;
        }
        if operation.status == OperationStatus::InProgress {
            self.shared.index.add_operation(&operation.cluster, &operation.id);
            Some(operation.cluster.clone())
        } else {
            self.shared
                .index
                .remove_operation(&operation.cluster, &operation.id);
            None
        }
    }

    fn wake_all(&mut self) {
        let keys: Vec<_> = self.entries.keys().cloned().collect();
        for key in keys {
            self.wake(&key);
        }
    }

    /// Wakes a cluster with the order to look at everything.
    fn wake_for_resync(&mut self, key: &str, now: Mark) {
        let entry = self.entries.entry(key.to_owned()).or_default();
        let since = (!entry.running).then_some(now);
        entry.wakeup.notify_resync(Resync { since });
        self.wake(key);
    }

    /// Wakes the cluster's loop, and starts it if there is none.
    fn wake(&mut self, key: &str) {
        let entry = self.entries.entry(key.to_owned()).or_default();
        entry.wakeup.notify();
        if entry.running || entry.restarting {
            return;
        }
        entry.running = true;
        if let Some(listener) = entry.listener.take() {
            listener.abort();
        }
        let cluster = ClusterLoop::new(
            Arc::clone(&self.shared),
            key.to_owned(),
            Arc::clone(&entry.wakeup),
            entry.state.take(),
        );
        let task = self.loops.spawn(cluster.run());
        self.tasks.insert(task.id(), key.to_owned());
    }

    fn ended(&mut self, ended: Result<(task::Id, Exit), task::JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some(key) = self.tasks.remove(&id) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.running = false;
        let exit = match ended {
            Ok((_, exit)) => exit,
            Err(error) => return self.panicked(key, &error),
        };
        entry.panics = 0;
        match exit {
            Exit::Gone if !entry.wakeup.is_pending() => {
                self.entries.remove(&key);
            }
            Exit::Gone => self.wake(&key),
            Exit::Settled(state) => {
                if entry.wakeup.is_pending() {
                    entry.state = Some(state);
                    self.wake(&key);
                    return;
                }
                if let Some(handle) = state.handle.as_ref().filter(|handle| !handle.deaf) {
                    let mut changes = handle.changes.clone();
                    entry.listener = Some(self.listeners.spawn(async move {
                        // An end is news too: the loop finds out what it means.
                        let _ = changes.changed().await;
                        key
                    }));
                }
                entry.state = Some(state);
            }
        }
    }

    /// The loop of a cluster panicked. The others go on; this one is started again after a pause that grows with each time, for
    /// the cause is most likely still there. Notifications that came meanwhile are not lost: the next loop reads everything.
    fn panicked(&mut self, key: String, error: &task::JoinError) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        self.panics += 1;
        entry.panics += 1;
        entry.restarting = true;
        let pause = pacing::pause(self.seed.child(&key), entry.panics);
        tracing::error!(
            cluster = key,
            panics = entry.panics,
            ?pause,
            "the loop ended by a fault of the service and is started again: {error}"
        );
        // The first time, and each time that the number has doubled.
        let tell = entry.panics.is_power_of_two().then_some(entry.panics);
        let shared = Arc::clone(&self.shared);
        self.restarts.spawn(async move {
            if let Some(panics) = tell
                && let Err(error) = tell_of_panic(&shared, &key, panics).await
            {
                tracing::warn!(
                    cluster = key,
                    "the fault is not in the cluster's history: {error}"
                );
            }
            shared.deps.env.clock.sleep(pause).await;
            key
        });
    }

    /// The pause before a loop is started again is over.
    fn restart(&mut self, key: &str) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.restarting = false;
            self.wake(key);
        }
    }

    /// The pause to the next slice, give or take a tenth.
    fn pause(&self) -> Duration {
        let slice = self.shared.deps.settings.resync / u32::try_from(SLICES).unwrap_or(1);
        slice.mul_f64(0.9 + 0.2 * self.seed.fraction(self.slice))
    }

    /// Wakes a slice of the clusters with the order to look at everything; sweeps once a period.
    fn resync(&mut self) {
        let turn = self.slice % SLICES;
        self.slice += 1;
        let due: Vec<_> = self
            .entries
            .keys()
            .filter(|key| self.seed.child(key).value() % SLICES == turn)
            .cloned()
            .collect();
        let now = self.shared.inventory.mark();
        for key in due {
            self.wake_for_resync(&key, now);
        }
        if turn == 0 {
            self.sweep(Scope::All);
        }
    }

    /// Starts a sweep now, or after the present one: that one may have read what has changed since.
    fn sweep(&mut self, scope: Scope) {
        if self.sweeps.is_empty() {
            let shared = Arc::clone(&self.shared);
            self.sweeps
                .spawn(async move { sweep::sweep(&shared, scope).await });
        } else {
            self.next_sweep = self.next_sweep.max(Some(scope));
        }
    }
}

/// Puts into a cluster's history that its loop panicked.
async fn tell_of_panic(shared: &Shared, key: &str, panics: u32) -> Result<(), StoreError> {
    let store = &*shared.deps.store;
    let Some(cluster) = get_record::<ClusterHint>(store, key).await? else {
        return Ok(());
    };
    let times = match panics {
        1 => String::new(),
        times => format!(" {times} times in a row"),
    };
    let event = Event::new(
        EventKind::ComponentRestarted,
        "the service",
        format!(
            "the control loop of the cluster ended{times} by a fault of the service and is started again; 'landfall logs' has its \
             trace"
        ),
    );
    let now = shared.deps.env.clock.now();
    let txn = events::append(store, Txn::default(), &cluster.value.uid, &[event], now).await?;
    match store.txn(txn).await {
        // Another event of the same moment: the log tells of the fault all the same.
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn parse<T: DeserializeOwned>(key: &str, value: &[u8]) -> Option<T> {
    match serde_json::from_slice(value) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::error!(key, %error, "the record cannot be read and is left out");
            None
        }
    }
}
