//! The dispatcher: receives notifications and starts the loops of the clusters that they concern.
//!
//! Notifications carry no data; a loop reads all records itself, so the same path runs after a request, after
//! a restart and after a lost notification. A cluster that has reached its desired state has no loop and no
//! timer: only an entry here, and a listener on its API. All clusters are checked again in each resync
//! period, a slice at a time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use agent_api::WakeUp;
use base_env::Seed;
use control_records::{
    Event, EventKind, Fence, LeaseRecord, NameRecord, child,
    command::CommandRecord,
    credential::CredentialRecord,
    directory, disk, events, key,
    namespace::NamespaceRecord,
    network::{self, NetworkRecord},
    planned, unknown,
};
use control_store::{Change, Changes, StoreError, Txn, list_records};
use futures::{
    FutureExt as _, StreamExt as _,
    stream::{BoxStream, Fuse},
};
use serde::Deserialize;
use tokio::{
    sync::watch,
    task::{self, AbortHandle, JoinSet},
};

use crate::{
    cluster_loop::{ClusterLoop, Exit, Shared},
    index::parse,
    inventory::Mark,
    keeper::{self, KeeperWakeup},
    measures::Activity,
    pacing,
    state::LoopState,
    sweep,
    wakeup::{Resync, Wakeup},
};

/// The pause after a failure of the store.
pub(crate) const STORE_PAUSE: Duration = Duration::from_secs(1);
/// A resync period is cut into this many slices, so that a thousand clusters are not checked at the same
/// time.
const SLICES: u64 = 10;
/// The most reports that are processed at once: hundreds of machines that boot together must not make the
/// channel overflow.
const REPORTS: usize = 1024;
/// The most changes of the store that are processed at once.
const CHANGES: usize = 1024;

/// The controller's entry of a cluster.
struct Entry {
    /// The key of its name.
    name: String,
    wakeup: Arc<Wakeup>,
    running: bool,
    /// Panics of its loop since it last settled.
    panics: u32,
    /// It is restarted after a pause: see [`Dispatcher::panicked`].
    restarting: bool,
    /// The state of its loop when it settled.
    state: Option<Box<LoopState>>,
    /// Listens to its API while no loop does.
    listener: Option<AbortHandle>,
}

/// Wakes the loops, from the start of the controller until an error of the store.
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    /// By uid.
    entries: BTreeMap<String, Entry>,
    /// By the key of its name: the uid of the cluster that has it.
    uids: BTreeMap<String, String>,
    loops: JoinSet<Exit>,
    listeners: JoinSet<String>,
    sweeps: JoinSet<()>,
    /// Keeps disks and public addresses of tenants: one task.
    keeper: JoinSet<()>,
    /// Wakes it.
    keeper_wakeup: Arc<KeeperWakeup>,
    /// The clusters of the loops' tasks.
    tasks: HashMap<task::Id, String>,
    activity: watch::Sender<Activity>,
    seed: Seed,
    slice: u64,
    panics: u64,
    /// Pauses before the restart of loops that panicked; each ends with the uid of its cluster.
    restarts: JoinSet<String>,
}

/// Wake-ups of loops about machines. Ends without agents; the resync goes on.
pub(crate) type WakeUps = Fuse<BoxStream<'static, WakeUp>>;

/// It ends by an error only; the shutdown drops it.
pub(crate) type Never = std::convert::Infallible;

impl Dispatcher {
    pub(crate) fn new(shared: Arc<Shared>, activity: watch::Sender<Activity>) -> Self {
        let seed = shared.deps.env.seed.child("resync");
        Self {
            shared,
            entries: BTreeMap::new(),
            uids: BTreeMap::new(),
            loops: JoinSet::new(),
            listeners: JoinSet::new(),
            sweeps: JoinSet::new(),
            keeper: JoinSet::new(),
            keeper_wakeup: Arc::default(),
            tasks: HashMap::new(),
            activity,
            seed,
            slice: 0,
            panics: 0,
            restarts: JoinSet::new(),
        }
    }

    pub(crate) async fn serve(&mut self, wake_ups: &mut WakeUps) -> Result<Never, StoreError> {
        let (mut changes, clusters) = self.read_all().await?;
        let now = self.shared.inventory.mark();
        for uid in clusters {
            self.wake_for_resync(&uid, now);
        }
        self.sweep();
        self.keep(Duration::ZERO);
        self.keeper_wakeup.notify_all();
        let clock = Arc::clone(&self.shared.deps.env.clock);
        let mut tick = clock.sleep(self.pause());
        loop {
            self.publish_activity();
            // Changes of the store and reports come in large numbers. Neither may delay the other, or the
            // shutdown, for ever: some of the changes are processed in each round before the order below
            // applies, so that a controller that is busy with reports does not fall behind the store's watch.
            for _ in 0..CHANGES {
                match changes.next().now_or_never().flatten() {
                    Some(Ok(change)) => self.changed(&change),
                    Some(Err(StoreError::Lagged)) => changes = self.read_again().await?,
                    Some(Err(error)) => return Err(error),
                    None => break,
                }
            }
            tokio::select! {
                // In this order and not at random: the same seed gives the same history.
                biased;
                () = &mut tick => {
                    // Checked regularly even without work, so that the start of a gap is known.
                    self.shared.gap_detector.gaps(&*clock);
                    self.resync();
                    tick = clock.sleep(self.pause());
                }
                Some(ended) = self.loops.join_next_with_id() => self.ended(ended),
                Some(heard) = self.listeners.join_next() => {
                    // An aborted listener reports no change.
                    if let Ok(uid) = heard {
                        self.wake(&uid);
                    }
                }
                Some(swept) = self.sweeps.join_next() => {
                    if let Err(error) = swept {
                        tracing::error!("the sweep ended by a fault of the service: {error}");
                    }
                }
                Some(ended) = self.keeper.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!("the keeper of disks ended by a fault of the service: {error}");
                    }
                    self.keep(STORE_PAUSE);
                }
                Some(restarted) = self.restarts.join_next() => match restarted {
                    Ok(uid) => self.restart(&uid),
                    Err(error) => tracing::error!("the pause after a fault ended by another one: {error}"),
                },
                Some(first) = wake_ups.next() => self.reported(first, wake_ups),
                change = changes.next() => {
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

    /// Wakes the loops of this wake-up and of those queued behind it.
    fn reported(&mut self, first: WakeUp, more: &mut WakeUps) {
        let mut machines = BTreeSet::new();
        let mut next = Some(first);
        while let Some(wake_up) = next {
            match wake_up {
                WakeUp::Machine(machine) => machines.insert(machine),
                WakeUp::All => return self.wake_all(),
            };
            next = (machines.len() < REPORTS)
                .then(|| more.next().now_or_never().flatten())
                .flatten();
        }
        for machine in &machines {
            if let Some(uid) = self.shared.index.owner(machine) {
                self.wake(&uid);
            }
        }
    }

    /// Publishes the number of busy clusters, if it changed.
    fn publish_activity(&self) {
        let now = Activity {
            clusters: self.entries.len(),
            busy: self.tasks.len(),
            panics: self.panics,
        };
        self.activity
            .send_if_modified(|before| std::mem::replace(before, now) != now);
    }

    /// The watch fell behind. All records are read again and every loop is woken; running loops and their
    /// effects continue, as an overloaded controller must not lose completed work.
    async fn read_again(&mut self) -> Result<Changes, StoreError> {
        tracing::warn!("the watch of the store fell behind: reading everything again");
        let (changes, clusters) = self.read_all().await?;
        self.keeper_wakeup.notify_all();
        self.uids.retain(|_, uid| clusters.contains(uid));
        // Deleted clusters too: their loops find that out.
        self.wake_all();
        Ok(changes)
    }

    /// Reads all records. Returns the changes from then on, and the uids of the clusters.
    async fn read_all(&mut self) -> Result<(Changes, BTreeSet<String>), StoreError> {
        let store = Arc::clone(&self.shared.deps.store);
        let (names, revision) = directory::cluster_names(&*store, None, None).await?;
        // Changes between the readings are reported by the watch as well: twice does no harm.
        let changes = store.watch("/", revision).await?;
        let mut machines = Vec::new();
        for name in &names {
            let own = list_records::<MachineHint>(&*store, &key::machines(&name.uid))
                .await?
                .0;
            machines.extend(own.into_iter().map(|(_, machine)| {
                let leaves = machine.value.leaves();
                (machine.value.id, name.uid.clone(), leaves)
            }));
        }
        let (leases, _) = list_records::<LeaseRecord>(&*store, key::LEASES).await?;
        let leases = leases.into_iter().map(|(key, lease)| (key, lease.value.owner));
        self.shared.index.set(machines, leases);
        let (networks, _) = list_records::<NetworkRecord>(&*store, network::NETWORK).await?;
        let networks = networks.into_iter().map(|(key, record)| (key, record.value));
        self.shared.index.set_networks(networks);
        let mut uids = BTreeSet::new();
        for name in names {
            self.add(&name.uid, name.key);
            uids.insert(name.uid);
        }
        Ok((changes, uids))
    }

    /// Adds a cluster. An earlier one of the same name is deleted, as its loop finds out.
    fn add(&mut self, uid: &str, name: String) {
        self.uids.insert(name.clone(), uid.to_owned());
        self.entries.entry(uid.to_owned()).or_insert_with(|| Entry {
            name,
            wakeup: Arc::default(),
            running: false,
            panics: 0,
            restarting: false,
            state: None,
            listener: None,
        });
    }

    fn changed(&mut self, change: &Change) {
        let key = change.key.as_str();
        let index = &self.shared.index;
        let value = change.value.as_deref();
        if let Some((uid, rest)) = key::of_cluster(key) {
            // All other child records are written by the cluster's loop, or are read at its next pass.
            let asks = CommandRecord::is_key(rest)
                || CredentialRecord::is_key(rest)
                || NamespaceRecord::is_key(rest)
                || child::is_trusted_binding(rest)
                || planned::is_configuration(rest);
            if rest == "desired" || asks {
                self.wake(uid);
            } else if let Some(id) = rest.strip_prefix("machine/") {
                match value.map(|value| parse::<MachineHint>(key, value)) {
                    Some(Some(machine)) => index.add_machine(id, uid, machine.leaves()),
                    Some(None) => {}
                    None => index.remove_machine(id),
                }
            }
        } else if key.starts_with(&key::names(key::MANAGED_CLUSTERS)) {
            match value {
                Some(value) => {
                    if let Some(name) = parse::<NameRecord>(key, value) {
                        self.add(&name.uid, key.to_owned());
                        self.wake(&name.uid);
                    }
                }
                None => {
                    if let Some(uid) = self.uids.remove(key) {
                        self.wake(&uid);
                    }
                }
            }
        } else if key == planned::HOLD {
            self.wake_all();
        } else if key.starts_with(unknown::UNKNOWN) && value.is_none() {
            // A person has released the item for deletion, or it now has a record.
            self.sweep();
        } else if key.starts_with(disk::DISKS) {
            self.keeper_wakeup.notify();
            if value.is_none() {
                // Its volume is to go.
                self.sweep();
            }
        } else {
            if network::is_of(key, network::PUBLIC_ADDRESSES) {
                self.keeper_wakeup.notify();
            }
            for uid in index.changed(key, value) {
                self.wake(&uid);
            }
        }
    }

    fn wake_all(&mut self) {
        let uids: Vec<_> = self.entries.keys().cloned().collect();
        for uid in uids {
            self.wake(&uid);
        }
    }

    /// Wakes a cluster for a resync.
    fn wake_for_resync(&mut self, uid: &str, now: Mark) {
        if let Some(entry) = self.entries.get_mut(uid) {
            let since = (!entry.running).then_some(now);
            entry.wakeup.notify_resync(Resync { since });
            self.wake(uid);
        }
    }

    /// Wakes the cluster's loop, and starts it if there is none. No effect for a cluster without a name
    /// (yet).
    fn wake(&mut self, uid: &str) {
        let Some(entry) = self.entries.get_mut(uid) else {
            return;
        };
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
            uid.to_owned(),
            entry.name.clone(),
            Arc::clone(&entry.wakeup),
            entry.state.take(),
        );
        let task = self.loops.spawn(cluster.run());
        self.tasks.insert(task.id(), uid.to_owned());
    }

    fn ended(&mut self, ended: Result<(task::Id, Exit), task::JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some(uid) = self.tasks.remove(&id) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&uid) else {
            return;
        };
        entry.running = false;
        let exit = match ended {
            Ok((_, exit)) => exit,
            Err(error) => return self.panicked(uid, &error),
        };
        entry.panics = 0;
        match exit {
            Exit::Gone if !entry.wakeup.is_pending() => {
                self.entries.remove(&uid);
            }
            Exit::Gone => self.wake(&uid),
            Exit::Settled(state) => {
                if entry.wakeup.is_pending() {
                    entry.state = Some(state);
                    self.wake(&uid);
                    return;
                }
                if let Some(handle) = state.handle.as_ref().filter(|handle| !handle.deaf) {
                    let (changes, seen) = (Arc::clone(&handle.changes), handle.seen);
                    entry.listener = Some(self.listeners.spawn(async move {
                        // The end of a connection is a notification too: the loop finds out the cause.
                        let _ = changes.after(seen).await;
                        uid
                    }));
                }
                entry.state = Some(state);
            }
        }
    }

    /// The loop of a cluster panicked. Other loops are not affected; this one is restarted after a pause that
    /// grows with each panic, as the cause is most likely still there. Notifications meanwhile are not lost:
    /// the next loop reads all records.
    fn panicked(&mut self, uid: String, error: &task::JoinError) {
        let Some(entry) = self.entries.get_mut(&uid) else {
            return;
        };
        self.panics += 1;
        let name = entry.name.clone();
        entry.panics += 1;
        entry.restarting = true;
        let pause = pacing::pause(self.seed.child(&uid), entry.panics);
        tracing::error!(
            cluster = name,
            panics = entry.panics,
            ?pause,
            "the loop ended by a fault of the service and is started again: {error}"
        );
        // The first time, and each time that the number has doubled.
        let tell = entry.panics.is_power_of_two().then_some(entry.panics);
        let shared = Arc::clone(&self.shared);
        self.restarts.spawn(async move {
            if let Some(panics) = tell
                && let Err(error) = tell_of_panic(&shared, &uid, panics).await
            {
                tracing::warn!(
                    cluster = name,
                    "the fault is not in the cluster's history: {error}"
                );
            }
            shared.deps.env.clock.sleep(pause).await;
            uid
        });
    }

    /// The pause before the restart of a loop is over.
    fn restart(&mut self, uid: &str) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.restarting = false;
            self.wake(uid);
        }
    }

    /// The pause to the next slice, give or take a tenth.
    fn pause(&self) -> Duration {
        let slice = self.shared.deps.settings.resync / u32::try_from(SLICES).unwrap_or(1);
        slice.mul_f64(0.9 + 0.2 * self.seed.fraction(self.slice))
    }

    /// Wakes a slice of the clusters for a resync; sweeps once a period.
    fn resync(&mut self) {
        let turn = self.slice % SLICES;
        self.slice += 1;
        let due: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| self.slice_of(&entry.name) == turn)
            .map(|(uid, _)| uid.clone())
            .collect();
        let now = self.shared.inventory.mark();
        for uid in due {
            self.wake_for_resync(&uid, now);
        }
        if turn == 0 {
            self.sweep();
            self.keeper_wakeup.notify_all();
        }
    }

    /// The slice of a cluster: it follows from its name.
    fn slice_of(&self, name: &str) -> u64 {
        let path = name.trim_start_matches(&key::names(key::MANAGED_CLUSTERS));
        self.seed.child(&format!("/clusters/{path}")).value() % SLICES
    }

    /// Starts the keeper after a pause.
    fn keep(&mut self, pause: Duration) {
        let (shared, wakeup) = (Arc::clone(&self.shared), Arc::clone(&self.keeper_wakeup));
        self.keeper.spawn(async move {
            if !pause.is_zero() {
                shared.deps.env.clock.sleep(pause).await;
            }
            keeper::keep(shared, wakeup).await;
        });
    }

    /// Starts a sweep, unless one is running.
    fn sweep(&mut self) {
        if self.sweeps.is_empty() {
            let shared = Arc::clone(&self.shared);
            self.sweeps.spawn(async move { sweep::sweep(&shared).await });
        }
    }
}

/// The needed members of a machine's record: most of it is not parsed.
#[derive(Deserialize)]
struct MachineHint {
    id: String,
    deleting: bool,
    #[serde(default)]
    healing: HealingHint,
}

#[derive(Default, Deserialize)]
struct HealingHint {
    #[serde(default)]
    off: bool,
}

impl MachineHint {
    /// Whether it is expected to be silent.
    fn leaves(&self) -> bool {
        self.deleting || self.healing.off
    }
}

/// Adds the panic of its loop to a cluster's history.
async fn tell_of_panic(shared: &Shared, uid: &str, panics: u32) -> Result<(), StoreError> {
    let store = &*shared.deps.store;
    if store.get(&key::desired(uid)).await?.is_none() {
        return Ok(());
    }
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
    let Some(fence) = Fence::read(store, uid, &shared.deps.host).await? else {
        return Ok(());
    };
    let txn = fence.guard(Txn::default(), uid);
    let txn = events::append(store, txn, uid, &[event], now).await?;
    match store.txn(txn).await {
        // There is another event of the same time; the log has the fault all the same.
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
