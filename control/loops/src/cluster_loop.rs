//! The loop of one cluster: look, plan, start what is planned, commit what is concluded, wait for news.
//!
//! It runs while there is something to do and ends when the cluster is what it is to be; the controller starts it again
//! on any news. Effects run side by side as tasks of their own; each end of one is news. Dropping the loop drops them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base_env::Seed;
use control_planner::{
    Addresses, ConfigSeen, ControlPlane, Drain, Effect, Machine, NetworkSeen, Plan, Presence, Reach, Seen,
    Silence, StampRanges, plan,
};
use control_records::{
    ClusterRecord, EventKind, MachineRecord, ObservedRecord, OperationRecord, OperationStatus, Role, Rung,
    key,
};
use control_store::{StoreError, Stored};
use jiff::Timestamp;
use tokio::{
    sync::Notify,
    task::{JoinError, JoinSet},
};

use crate::{
    ControllerDeps,
    census::{Census, Mark},
    commit::{Basis, CommitError, compose},
    effects::{Job, chain, connect},
    fair::{Lane, Who},
    gate::{Gate, toll},
    index::Index,
    memory::{Failure, Handle, Memory, Outcome},
    recipes::Site,
    shelf::Shelf,
    silence::{self, Silences},
};

/// A store that cannot be read or written is tried again after this.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// The administrator's certificate in a connection is made anew after this.
const RECONNECT_AFTER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What all loops share.
pub(crate) struct Shared {
    pub(crate) deps: Arc<ControllerDeps>,
    pub(crate) census: Arc<Census>,
    pub(crate) index: Index,
    pub(crate) gate: Arc<Gate>,
    pub(crate) silences: Silences,
}

/// The order to look at everything again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resync {
    /// When it was given, if there was no loop: nothing was done to the cluster's machines since then.
    pub(crate) since: Option<Mark>,
}

/// How the controller reaches a loop. Carries no data: the loop reads everything itself.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    resync: Mutex<Option<Resync>>,
    notify: Notify,
}

impl Bell {
    /// Something may have changed.
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// What is known has grown old.
    pub(crate) fn ring_for_resync(&self, resync: Resync) {
        *self.resync() = Some(resync);
        self.ring();
    }

    fn resync(&self) -> MutexGuard<'_, Option<Resync>> {
        // One assignment cannot be cut short.
        self.resync.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it rang since the last pass began.
    pub(crate) fn rung(&self) -> bool {
        self.rung.load(Ordering::SeqCst)
    }
}

/// How a loop ended.
pub(crate) enum Exit {
    /// The cluster is what it is to be.
    Settled(Box<Memory>),
    /// There is no such cluster any more.
    Gone,
}

/// Only while the loop runs.
#[derive(Default)]
struct Shelves {
    cluster: Shelf<ClusterRecord>,
    observed: Shelf<ObservedRecord>,
    machines: Shelf<MachineRecord>,
    operations: Shelf<OperationRecord>,
}

/// See the module.
pub(crate) struct ClusterLoop {
    shared: Arc<Shared>,
    key: String,
    who: Who,
    bell: Arc<Bell>,
    memory: Box<Memory>,
    shelves: Shelves,
    flights: JoinSet<Result<Outcome, Failure>>,
    /// What is under way, by task.
    under_way: HashMap<tokio::task::Id, Effect>,
}

impl ClusterLoop {
    pub(crate) fn new(
        shared: Arc<Shared>,
        key: String,
        bell: Arc<Bell>,
        memory: Option<Box<Memory>>,
    ) -> Self {
        Self {
            shared,
            who: Who::of(&key),
            key,
            bell,
            memory: memory.unwrap_or_else(|| Box::new(Memory::new(""))),
            shelves: Shelves::default(),
            flights: JoinSet::new(),
            under_way: HashMap::new(),
        }
    }

    pub(crate) async fn run(mut self) -> Exit {
        loop {
            let turn = self.shared.gate.enter(Lane::Pass, &self.who, 1).await;
            let next = self.pass().await;
            drop(turn);
            match next {
                Ok(Next::Again) => {}
                Ok(Next::Wait(until)) => self.wait(until).await,
                Ok(Next::Settled) => {
                    self.memory.settle();
                    return Exit::Settled(self.memory);
                }
                Ok(Next::Gone) => return Exit::Gone,
                Err(error) => {
                    tracing::error!(cluster = self.key, "the loop cannot go on: {}", chain(&error));
                    let until = self.now().checked_add(STORE_PAUSE).unwrap_or(Timestamp::MAX);
                    self.wait(Some(until)).await;
                }
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.shared.deps.env.clock.now()
    }

    async fn pass(&mut self) -> Result<Next, CommitError> {
        self.bell.rung.store(false, Ordering::SeqCst);
        let Some((basis, observed)) = self.read().await? else {
            return Ok(Next::Gone);
        };
        let cluster = Arc::clone(&basis.cluster.value);
        self.refresh(&cluster);
        self.connect(&basis, &cluster, &observed).await;
        let now = self.now();
        let seen = self.seen(&basis, observed, now).await?;
        let plan = plan(&cluster, &seen, &self.shared.deps.settings.policy, now);
        tracing::trace!(cluster = self.key, step = plan.observed.step, effects = ?plan.effects, "planned");
        let observed = self.take_back(seen);
        self.start(&cluster, &observed, &basis, &plan);
        if !plan.writes.is_empty() || plan.observed_changed {
            return match self.commit(&basis, &plan, now).await {
                Ok(forgotten) if forgotten => Ok(Next::Gone),
                Ok(_) | Err(CommitError::Store(StoreError::Conflict { .. })) => Ok(Next::Again),
                Err(error) => Err(error),
            };
        }
        if plan.settled() && plan.look_again.is_none() && self.under_way.is_empty() {
            return Ok(Next::Settled);
        }
        Ok(Next::Wait(plan.look_again))
    }

    /// The records; `None` when the cluster is gone.
    async fn read(&mut self) -> Result<Option<(Basis, ObservedRecord)>, StoreError> {
        let store = &*self.shared.deps.store;
        let shelves = &mut self.shelves;
        let Some(cluster) = shelves.cluster.read(store, &self.key).await? else {
            return Ok(None);
        };
        let uid = &cluster.value.uid;
        let observed = shelves.observed.read(store, &key::observed(uid)).await?;
        let mut machines = Vec::new();
        for id in self.shared.index.machines(uid) {
            match shelves.machines.read(store, &key::machine(&id)).await? {
                Some(machine) => machines.push(machine),
                // Expected of a commit that did not happen.
                None => self.shared.index.remove_machine(&id),
            }
        }
        let mut operations = Vec::new();
        for id in self.shared.index.operations(uid) {
            let operation = shelves.operations.read(store, &key::operation(&id)).await?;
            operations
                .extend(operation.filter(|operation| operation.value.status == OperationStatus::InProgress));
        }
        let basis = Basis {
            key: self.key.clone(),
            leases: self.shared.index.leases(&cluster.value.uid),
            observed: observed.as_ref().map(|observed| observed.revision),
            cluster,
            machines,
            operations,
        };
        let observed = observed.map(|observed| ObservedRecord::clone(&observed.value));
        let observed = observed.unwrap_or_default();
        Ok(Some((basis, observed)))
    }

    /// Brings the memory up to date with what is not told by effects.
    fn refresh(&mut self, cluster: &ClusterRecord) {
        if self.memory.uid != cluster.uid {
            // Another cluster under the same name. Nothing of the old one can be under way: it was forgotten last.
            *self.memory = Memory::new(&cluster.uid);
        }
        if let Some(Resync { since }) = self.bell.resync().take() {
            self.memory.grow_stale(since);
        }
    }

    /// Has a connection to the API server as soon as there can be one; it costs nothing until it is used.
    async fn connect(&mut self, basis: &Basis, cluster: &Arc<ClusterRecord>, observed: &ObservedRecord) {
        if cluster.deleting {
            self.memory.handle = None;
            return;
        }
        let now = self.now();
        if let Some(handle) = &self.memory.handle
            && !handle.expired(now, RECONNECT_AFTER)
        {
            return;
        }
        // Nobody needs one before the control plane runs.
        let Some(site) = self.site(basis, cluster, observed).filter(|_| {
            self.memory
                .presence
                .values()
                .any(|presence| *presence == Presence::Running)
        }) else {
            return;
        };
        match connect(&self.shared.deps, &site, &self.memory.pki).await {
            Ok(api) => {
                self.memory.handle = Some(Handle {
                    changes: api.changes(),
                    api,
                    made_at: now,
                    deaf: false,
                });
            }
            Err(Failure { why }) => tracing::warn!(cluster = self.key, "{why}"),
        }
    }

    fn site(&self, basis: &Basis, cluster: &Arc<ClusterRecord>, observed: &ObservedRecord) -> Option<Site> {
        let machines = basis.machines.iter().map(|machine| &*machine.value);
        Some(Site {
            control_plane: ControlPlane::of(&cluster.spec, observed, machines),
            cluster: Arc::clone(cluster),
            addresses: Addresses::of(observed)?,
            stamp: self.shared.deps.fabric.stamp_network().clone(),
        })
    }

    /// What the plan goes by. Some of it is the memory's own and only lent, for it is large: see [`Self::take_back`].
    async fn seen(
        &mut self,
        basis: &Basis,
        observed: ObservedRecord,
        now: Timestamp,
    ) -> Result<Seen, StoreError> {
        let deps = &self.shared.deps;
        let uid = &basis.cluster.value.uid;
        let stamp = deps.fabric.stamp_network();
        // The last thing to wait for: what is lent must not be lost.
        let pki = deps.store.get(&key::pki(uid)).await?.is_some();
        let mut machines = BTreeMap::new();
        for Stored { value: record, .. } in &basis.machines {
            let id = record.id.clone();
            let wiped = record.repair.pending && record.repair.rung == Rung::Reimage;
            if record.deleting || wiped {
                self.memory.drains.entry(id.clone()).or_insert(Drain {
                    since: now,
                    left: None,
                });
            }
            let mut machine = Machine {
                presence: self
                    .memory
                    .presence
                    .get(&id)
                    .copied()
                    .unwrap_or(Presence::Unknown),
                config: self
                    .memory
                    .configs
                    .get(&id)
                    .cloned()
                    .unwrap_or(ConfigSeen::Unknown),
                report: deps.agents.report(&id),
                drain: self.memory.drains.get(&id).copied(),
                contact: deps.agents.contact(&id),
                running_since: None,
                symptom: None,
                well_since: None,
                repaired: None,
                ended_boot: None,
                record: MachineRecord::clone(record),
            };
            let fell_silent = self.memory.health.examine(
                &mut machine,
                &self.memory.api,
                basis.cluster.value.spec.network.plugin,
                &deps.settings.policy.heal,
                now,
            );
            if fell_silent {
                self.memory.doubt_machines();
            }
            machines.insert(id, machine);
        }
        // Any of them is enough.
        let api_server_ready = machines
            .values()
            .filter(|machine| matches!(machine.role(), Some(Role::ControlPlane { .. })))
            .filter_map(Machine::api_server_ready)
            .reduce(|one, other| one || other);
        self.memory.listen(api_server_ready);
        let wanted = usize::try_from(basis.cluster.value.spec.tier.members()).unwrap_or(usize::MAX);
        let members = machines
            .values()
            .filter(|machine| !machine.record.deleting && machine.node_name().is_none())
            .count();
        let symptoms = machines.values().filter_map(|machine| machine.symptom.as_ref());
        let matters = silence::matters(symptoms, &deps.settings.policy.heal, now);
        Ok(Seen {
            pki,
            stamp: StampRanges {
                machines: stamp.machines(),
                vips: stamp.vips(),
            },
            silence: if matters {
                let now = deps.env.clock.monotonic();
                self.shared.silences.count(&self.shared.index, &*deps.agents, now)
            } else {
                Silence::default()
            },
            taken: if Addresses::of(&observed).is_none() || members < wanted {
                self.shared.index.taken()
            } else {
                BTreeSet::new()
            },
            observed,
            machines,
            inventory_stale: self.memory.inventory_stale,
            network: std::mem::replace(&mut self.memory.network, NetworkSeen::Unknown),
            api: std::mem::take(&mut self.memory.api),
            operations: basis
                .operations
                .iter()
                .map(|operation| OperationRecord::clone(&operation.value))
                .collect(),
            busy: self.under_way.values().map(Effect::subject).collect(),
            held: std::mem::take(&mut self.memory.held),
        })
    }

    /// The memory gets back what it lent, before anything else happens.
    fn take_back(&mut self, seen: Seen) -> ObservedRecord {
        self.memory.network = seen.network;
        self.memory.api = seen.api;
        self.memory.held = seen.held;
        seen.observed
    }

    /// Starts a plan's effects, each as a task.
    fn start(&mut self, cluster: &Arc<ClusterRecord>, observed: &ObservedRecord, basis: &Basis, plan: &Plan) {
        if plan.effects.is_empty() {
            return;
        }
        let job = Job {
            deps: Arc::clone(&self.shared.deps),
            census: Arc::clone(&self.shared.census),
            since: self.memory.since.unwrap_or_else(|| self.shared.census.mark()),
            uid: cluster.uid.clone(),
            site: self.site(basis, cluster, observed),
            machines: Arc::new(
                basis
                    .machines
                    .iter()
                    .map(|machine| (machine.value.id.clone(), Arc::clone(&machine.value)))
                    .collect(),
            ),
            pki: Arc::clone(&self.memory.pki),
            api: self.memory.handle.as_ref().map(|handle| Arc::clone(&handle.api)),
            api_ready: self.memory.api.reach == Reach::Ready,
            change: self.memory.api.change,
        };
        for effect in &plan.effects {
            let job = job.clone();
            let task = {
                let (effect, who) = (effect.clone(), self.who.clone());
                let gate = Arc::clone(&self.shared.gate);
                self.flights.spawn(async move {
                    let (lane, cost) = toll(&effect);
                    // Its bound begins when it does: how long others take is not its fault.
                    let _turn = gate.enter(lane, &who, cost).await;
                    job.run(&effect).await
                })
            };
            self.memory.begins(effect, self.under_way.values());
            self.under_way.insert(task.id(), effect.clone());
        }
    }

    /// Commits a plan's writes. Returns whether the cluster is forgotten now.
    async fn commit(&mut self, basis: &Basis, plan: &Plan, now: Timestamp) -> Result<bool, CommitError> {
        let (txn, done) = compose(&self.shared.deps, basis, plan, now).await?;
        let uid = &basis.cluster.value.uid;
        // Before, not after: a commit whose answer is lost may have made them, and who does not know of them makes others
        // in their places.
        for id in &done.recorded {
            self.shared.index.add_machine(uid, id);
        }
        if let Err(error) = self.shared.deps.store.txn(txn).await {
            if matches!(error, StoreError::Conflict { .. }) {
                for id in &done.recorded {
                    self.shared.index.remove_machine(id);
                }
            }
            return Err(error.into());
        }
        for event in &plan.events {
            if matches!(
                event.kind,
                EventKind::Repair | EventKind::Member | EventKind::Upgrade
            ) {
                tracing::warn!(cluster = self.key, machine = event.subject, "{}", event.message);
            }
        }
        for id in &done.recorded {
            self.memory.recorded(id);
        }
        for (key, owner) in &done.leased {
            self.shared.index.add_lease(key, owner);
        }
        for id in &done.removed {
            self.shared.index.remove_machine(id);
            self.memory.removed(id);
        }
        for id in &done.ended {
            self.shared.index.remove_operation(uid, id);
        }
        Ok(done.forgotten)
    }

    /// Waits for news: an effect that ended, a bell, the API, or the time to look again.
    async fn wait(&mut self, until: Option<Timestamp>) {
        let clock = Arc::clone(&self.shared.deps.env.clock);
        let pause = until
            .map(|until| Duration::try_from(until.duration_since(clock.now())).unwrap_or(Duration::ZERO));
        let timer = async {
            match pause {
                Some(pause) => clock.sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        let api = async {
            match self.memory.handle.as_mut().filter(|handle| !handle.deaf) {
                Some(handle) => handle.changes.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        let news = tokio::select! {
            // Not by lot: the same seed gives the same history.
            biased;
            Some(ended) = self.flights.join_next_with_id() => News::Landed(ended),
            hears = api => News::Api { hears },
            () = self.bell.notify.notified() => News::Bell,
            () = timer => News::Time,
        };
        match news {
            News::Landed(ended) => self.land(ended),
            News::Api { hears } => self.memory.api_changed(hears),
            News::Bell | News::Time => {}
        }
        while let Some(ended) = self.flights.try_join_next_with_id() {
            self.land(ended);
        }
    }

    fn land(&mut self, ended: Landing) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (
                error.id(),
                Err(Failure {
                    why: "an effect ended by a fault of the service; the log has its trace".to_owned(),
                }),
            ),
        };
        if let Some(effect) = self.under_way.remove(&id) {
            let (seed, now) = (self.seed(), self.now());
            self.memory.learn(&effect, result, seed, now);
        }
    }

    fn seed(&self) -> Seed {
        self.shared.deps.env.seed.child("loops").child(&self.memory.uid)
    }
}

/// How the task of an effect ended.
type Landing = Result<(tokio::task::Id, Result<Outcome, Failure>), JoinError>;

/// Why a loop woke.
enum News {
    Landed(Landing),
    Api { hears: bool },
    Bell,
    Time,
}

/// What follows a pass.
enum Next {
    /// Plan again at once: records changed.
    Again,
    /// Wait for news, at most until then.
    Wait(Option<Timestamp>),
    /// Nothing is left to do.
    Settled,
    /// There is no such cluster any more.
    Gone,
}
