//! The loop of one cluster: observe, plan, start the planned effects, commit the planned writes, wait for a
//! notification.
//!
//! It runs while there is work and ends when the cluster has reached its desired state; the controller starts
//! it again on any notification. Effects run concurrently as separate tasks; each end of one is a
//! notification. Dropping the loop drops them.

mod observation;

use std::{collections::HashMap, sync::Arc, time::Duration};

use base_env::Seed;
use base_errors::chain;
use control_planner::{Addresses, ControlPlane, Effect, Plan, Presence, Reach, Write, is_served, plan};
use control_records::{ClusterRecord, EventKind, Fence, ObservedRecord, key};
use control_store::StoreError;
use jiff::Timestamp;
use tokio::task::{JoinError, JoinSet};

use crate::{
    ControllerDeps,
    basis::RecordCaches,
    commit::{Basis, CommitError, compose},
    effects::{self, Failure, Job, Outcome, connect},
    fair_queue::{Flow, Lane},
    fair_semaphore::FairSemaphore,
    gap_detector::GapDetector,
    index::Index,
    inventory::InventoryCache,
    measures::Measures,
    recipes::Site,
    silent_machines::SilentMachinesCache,
    state::{Handle, LoopState},
    wakeup::{Resync, Wakeup},
};

/// The pause after a failure of the store.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Age at which a connection's administrator certificate is renewed.
const RECONNECT_AFTER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The shared parts of all loops.
pub(crate) struct Shared {
    pub(crate) deps: Arc<ControllerDeps>,
    pub(crate) inventory: Arc<InventoryCache>,
    pub(crate) index: Index,
    pub(crate) semaphore: Arc<FairSemaphore>,
    pub(crate) silent_machines: SilentMachinesCache,
    pub(crate) gap_detector: GapDetector,
    pub(crate) measures: Measures,
}

/// How a loop ended.
pub(crate) enum Exit {
    /// The cluster has reached its desired state.
    Settled(Box<LoopState>),
    /// The cluster no longer exists.
    Gone,
}

/// See the module.
pub(crate) struct ClusterLoop {
    shared: Arc<Shared>,
    uid: String,
    /// The key of its name, for the log.
    key: String,
    flow: Flow,
    wakeup: Arc<Wakeup>,
    state: Box<LoopState>,
    records: RecordCaches,
    running: JoinSet<Result<Outcome, Failure>>,
    /// Running effects, by task.
    running_effects: HashMap<tokio::task::Id, Effect>,
}

impl ClusterLoop {
    pub(crate) fn new(
        shared: Arc<Shared>,
        uid: String,
        key: String,
        wakeup: Arc<Wakeup>,
        state: Option<Box<LoopState>>,
    ) -> Self {
        Self {
            shared,
            flow: Flow::of(&key),
            state: state.unwrap_or_else(|| Box::new(LoopState::new(&uid))),
            uid,
            key,
            wakeup,
            records: RecordCaches::default(),
            running: JoinSet::new(),
            running_effects: HashMap::new(),
        }
    }

    pub(crate) async fn run(mut self) -> Exit {
        loop {
            let permit = self.shared.semaphore.acquire(Lane::Pass, &self.flow, 1).await;
            let next = self.pass().await;
            drop(permit);
            match next {
                Ok(Next::Again) => {}
                Ok(Next::Wait(until)) => self.wait(until).await,
                // The running effects end with the loop, and its state would be outdated when it is started
                // again.
                Ok(Next::Elsewhere) => return Exit::Settled(Box::new(LoopState::new(&self.uid))),
                Ok(Next::Settled) => {
                    self.state.settle();
                    return Exit::Settled(self.state);
                }
                Ok(Next::Gone) => {
                    self.shared.index.set_off(&self.uid, false);
                    return Exit::Gone;
                }
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
        self.shared.measures.pass();
        self.wakeup.begin();
        let Some(fence) = self.fence().await? else {
            tracing::info!(cluster = self.key, "another host runs the loop of this cluster");
            return Ok(Next::Elsewhere);
        };
        let store = &*self.shared.deps.store;
        let Some((basis, observed)) = self.records.read(store, &self.uid, fence).await? else {
            return Ok(Next::Gone);
        };
        let cluster = Arc::clone(&basis.cluster.value);
        self.refresh();
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
                Ok(_) => Ok(Next::Again),
                Err(CommitError::Store(StoreError::Conflict { key })) => {
                    if key == key::fence(&self.uid) {
                        self.state.fence = None;
                    }
                    if key.starts_with(key::LEASES) {
                        // The watch is about to report the owner of the lease to the index.
                        tokio::task::yield_now().await;
                    }
                    Ok(Next::Again)
                }
                Err(error) => Err(error),
            };
        }
        if plan.settled() && plan.look_again.is_none() && self.running_effects.is_empty() {
            return Ok(Next::Settled);
        }
        Ok(Next::Wait(plan.look_again))
    }

    /// The permission to write for the cluster, read once; `None` when it is another host's.
    async fn fence(&mut self) -> Result<Option<Fence>, StoreError> {
        if self.state.fence.is_none() {
            let deps = &self.shared.deps;
            self.state.fence = Fence::read(&*deps.store, &self.uid, &deps.host).await?;
        }
        Ok(self.state.fence)
    }

    /// Updates the parts of the state that no effect reports.
    fn refresh(&mut self) {
        if let Some(Resync { since }) = self.wakeup.take_resync() {
            self.state.grow_stale(since);
        }
    }

    /// Makes a connection to the API server as soon as possible; it costs nothing until it is used.
    async fn connect(&mut self, basis: &Basis, cluster: &Arc<ClusterRecord>, observed: &ObservedRecord) {
        let served = is_served(cluster);
        self.shared.index.set_off(&self.uid, !served);
        if !served {
            self.state.unserved();
            return;
        }
        if !cluster.spec().is_scaled() {
            self.state.forget_work();
        }
        let now = self.now();
        if let Some(handle) = &self.state.handle
            && !handle.expired(now, RECONNECT_AFTER)
        {
            return;
        }
        // It is not needed before the control plane runs.
        let Some(site) = self.site(basis, cluster, observed).filter(|_| {
            self.state
                .presence
                .values()
                .any(|presence| *presence == Presence::Running)
        }) else {
            return;
        };
        match connect(&self.shared.deps, &site, &self.state.pki).await {
            Ok(api) => {
                let changes = api.changes();
                self.state.handle = Some(Handle {
                    seen: changes.count(),
                    changes,
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
            control_plane: ControlPlane::of(cluster.spec(), observed, machines),
            cluster: Arc::clone(cluster),
            addresses: Addresses::of(observed)?,
            stamp: self.shared.deps.fabric.stamp_network().clone(),
        })
    }

    /// Starts a plan's effects, each as a task.
    fn start(&mut self, cluster: &Arc<ClusterRecord>, observed: &ObservedRecord, basis: &Basis, plan: &Plan) {
        if plan.effects.is_empty() {
            return;
        }
        let job = Job {
            deps: Arc::clone(&self.shared.deps),
            inventory: Arc::clone(&self.shared.inventory),
            since: self.state.since.unwrap_or_else(|| self.shared.inventory.mark()),
            uid: cluster.uid.clone(),
            fence: basis.fence,
            site: self.site(basis, cluster, observed),
            machines: Arc::new(
                basis
                    .machines
                    .iter()
                    .map(|machine| (machine.value.id.clone(), Arc::clone(&machine.value)))
                    .collect(),
            ),
            volumes: Arc::new(
                basis
                    .volumes
                    .iter()
                    .map(|volume| (volume.value.id.clone(), Arc::clone(&volume.value)))
                    .collect(),
            ),
            pki: Arc::clone(&self.state.pki),
            api: self.state.handle.as_ref().map(|handle| Arc::clone(&handle.api)),
            api_ready: self.state.api.reach == Reach::Ready,
            change: self.state.api.change,
        };
        for effect in &plan.effects {
            let job = job.clone();
            let task = {
                let (effect, flow) = (effect.clone(), self.flow.clone());
                let shared = Arc::clone(&self.shared);
                self.running.spawn(async move {
                    let (lane, cost) = effects::cost(&effect);
                    // Its time limit begins here: waiting for other effects does not count.
                    let _permit = shared.semaphore.acquire(lane, &flow, cost).await;
                    let (result, ended) = job.run(&effect).await;
                    shared.measures.effect(&effect, ended);
                    result
                })
            };
            self.state.begins(effect, self.running_effects.values());
            self.running_effects.insert(task.id(), effect.clone());
        }
    }

    /// Commits a plan's writes. Returns whether the cluster's records are removed now.
    async fn commit(&mut self, basis: &Basis, plan: &Plan, now: Timestamp) -> Result<bool, CommitError> {
        let (txn, done) = compose(&self.shared.deps, basis, plan, now).await?;
        let revision = self.shared.deps.store.txn(txn).await?;
        if basis.fence == Fence::Unclaimed {
            self.state.fence = Some(Fence::Held(revision));
        }
        for event in &plan.events {
            if matches!(
                event.kind,
                EventKind::Repair
                    | EventKind::Member
                    | EventKind::Upgrade
                    | EventKind::Rotation
                    | EventKind::Planned
            ) {
                tracing::warn!(cluster = self.key, machine = event.subject, "{}", event.message);
            }
        }
        for id in &done.recorded {
            self.state.recorded(id);
            // Added here and not only by the watch of the store, which may be behind: the agent may connect
            // as soon as the machine is made.
            self.shared.index.add_machine(id, &self.uid, false);
        }
        for (key, holder) in &done.leased {
            self.shared.index.add_lease(key, holder);
        }
        for id in &done.removed {
            self.state.removed(id);
        }
        for id in &done.taken {
            // The last look at the fabric was not for it.
            self.state.doubt_volume(id);
        }
        for write in &plan.writes {
            match write {
                Write::MarkMachine(machine) => self.state.drains_anew(machine.machine(), false),
                Write::Empty { machine, emptying } => {
                    self.state.drains_anew(machine.machine(), emptying.is_none());
                }
                _ => {}
            }
        }
        Ok(done.forgotten)
    }

    /// Waits for a notification: an effect that ended, a wake-up, a change of the API, or the time of the
    /// next check.
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
            match self.state.handle.as_mut().filter(|handle| !handle.deaf) {
                Some(handle) => handle.changed().await,
                None => std::future::pending().await,
            }
        };
        let news = tokio::select! {
            // Not at random: the same seed gives the same history.
            biased;
            Some(ended) = self.running.join_next_with_id() => News::EffectEnded(Box::new(ended)),
            hears = api => News::Api { hears },
            () = self.wakeup.notified() => News::Wakeup,
            () = timer => News::Time,
        };
        match news {
            News::EffectEnded(ended) => self.effect_ended(*ended),
            News::Api { hears } => self.state.api_changed(hears),
            News::Wakeup | News::Time => {}
        }
        while let Some(ended) = self.running.try_join_next_with_id() {
            self.effect_ended(ended);
        }
    }

    fn effect_ended(&mut self, ended: EffectEnd) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (
                error.id(),
                Err(Failure {
                    why: "an effect ended by a fault of the service; the log has its trace".to_owned(),
                }),
            ),
        };
        if let Some(effect) = self.running_effects.remove(&id) {
            let (seed, now) = (self.seed(), self.now());
            effects::ended(&mut self.state, &effect, result, seed, now);
        }
    }

    fn seed(&self) -> Seed {
        self.shared.deps.env.seed.child("loops").child(&self.state.uid)
    }
}

/// How the task of an effect ended.
type EffectEnd = Result<(tokio::task::Id, Result<Outcome, Failure>), JoinError>;

/// Why a loop woke.
enum News {
    EffectEnded(Box<EffectEnd>),
    Api { hears: bool },
    Wakeup,
    Time,
}

/// The step after a pass.
enum Next {
    /// The cluster's loop runs on another host: no action here. The next resync checks again.
    Elsewhere,
    /// Plan again at once: records changed.
    Again,
    /// Wait for a notification, at most until then.
    Wait(Option<Timestamp>),
    /// No work is left.
    Settled,
    /// The cluster no longer exists.
    Gone,
}
