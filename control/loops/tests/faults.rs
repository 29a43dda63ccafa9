//! The controller contains its own faults: a loop that panics is restarted, and a watch that falls behind
//! does not interrupt running work.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use agent_api::{Agents, LogError, WakeUp};
use agent_protocol::{MachineConfig, Report};
use agent_sessions::{Sessions, StoreDirectory};
use async_trait::async_trait;
use base_env::{Clock, Env};
use base_sealer::Sealer;
use base_testkit::wait_for;
use cluster_spec::testkit;
use control_loops::{Activity, Controller, ControllerDeps, Settings};
use control_records::{
    ClusterRecord, FenceRecord, HostId, ObservedRecord, OperationRecord, OperationStatus, Owner, directory,
    events, key,
};
use control_store::{Changes, Revision, Store, StoreError, Txn, Versioned, get_record, put_record};
use fabric_sim::{Call, Interceptor, SimOptions, SimWorld, Verdict};
use futures::{StreamExt as _, future::BoxFuture, stream, stream::BoxStream};
use jiff::Timestamp;
use serde_json::Value;
use service::KubernetesRecipes;
use storage_redb::MemoryStore;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

const BOUND: Duration = Duration::from_secs(120);

/// Agents whose next reports cause a panic.
struct FaultyAgents {
    inner: Arc<dyn Agents>,
    panics: AtomicU32,
}

#[async_trait]
impl Agents for FaultyAgents {
    fn publish(&self, machine: &str, config: Arc<MachineConfig>) {
        self.inner.publish(machine, config);
    }
    fn forget(&self, machine: &str) {
        self.inner.forget(machine);
    }
    fn report(&self, machine: &str) -> Option<Arc<Report>> {
        let left = self
            .panics
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(left.is_err(), "a fault of the service, on purpose");
        self.inner.report(machine)
    }
    fn contact(&self, machine: &str) -> Option<Duration> {
        self.inner.contact(machine)
    }
    fn subscribe(&self) -> BoxStream<'static, WakeUp> {
        self.inner.subscribe()
    }
    async fn logs(&self, machine: &str, process: &str, lines: u32) -> Result<String, LogError> {
        self.inner.logs(machine, process, lines).await
    }
}

/// A store whose watches fall behind on request.
struct LaggingStore {
    inner: MemoryStore,
    lag: Arc<Notify>,
    /// Whether watches report no changes of machines while the test runs.
    late: Arc<AtomicBool>,
    watches: AtomicU32,
}

#[async_trait]
impl Store for LaggingStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<(Vec<(String, Versioned)>, Revision), StoreError> {
        self.inner.list(prefix).await
    }
    async fn txn(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.inner.txn(txn).await
    }
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Changes, StoreError> {
        self.watches.fetch_add(1, Ordering::SeqCst);
        let mut changes = self.inner.watch(prefix, from).await?;
        let (lag, late) = (Arc::clone(&self.lag), Arc::clone(&self.late));
        let (send, mut receive) = mpsc::channel(64);
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    biased;
                    () = lag.notified() => {
                        // The receiver is gone: the test has ended.
                        let _ = send.send(Err(StoreError::Lagged)).await;
                        return;
                    }
                    next = changes.next() => next,
                };
                let Some(change) = next else { return };
                let of_machine = change
                    .as_ref()
                    .is_ok_and(|change| change.key.contains("/machine/"));
                if of_machine && late.load(Ordering::SeqCst) {
                    continue;
                }
                if send.send(change).await.is_err() {
                    return;
                }
            }
        });
        Ok(stream::poll_fn(move |context| receive.poll_recv(context)).boxed())
    }
}

fn cluster(env: &Env) -> ClusterRecord {
    let mut cluster = ClusterRecord::of_spec("0123456789", &testkit::cluster(), env.clock.now());
    cluster.operation = "o".to_owned();
    cluster.requests.generation = 1;
    cluster
}

async fn until<Fut: Future<Output = bool>>(env: &Env, what: &str, mut condition: impl FnMut() -> Fut) {
    wait_for(&env.clock, what, BOUND, || {
        let met = condition();
        async move {
            if met.await {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        }
    })
    .await;
}

/// A clock whose wall time went on while the host was suspended.
struct SuspendedClock {
    inner: Arc<dyn Clock>,
    suspended: Arc<Mutex<Duration>>,
}

impl Clock for SuspendedClock {
    fn now(&self) -> Timestamp {
        self.inner.now() + *self.suspended.lock().unwrap()
    }
    fn monotonic(&self) -> Duration {
        self.inner.monotonic()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(duration)
    }
}

struct Stand {
    env: Env,
    suspended: Arc<Mutex<Duration>>,
    world: SimWorld,
    store: Arc<LaggingStore>,
    agents: Arc<FaultyAgents>,
    activity: watch::Receiver<Activity>,
    _stop: watch::Sender<bool>,
}

/// A controller with one cluster to make. No resync for a whole day.
async fn stand() -> Stand {
    let mut env = Env::simulated(1);
    let suspended = Arc::new(Mutex::new(Duration::ZERO));
    env.clock = Arc::new(SuspendedClock {
        inner: Arc::clone(&env.clock),
        suspended: Arc::clone(&suspended),
    });
    let world = SimWorld::new(env.clone(), SimOptions::default());
    let store = Arc::new(LaggingStore {
        inner: MemoryStore::new(),
        lag: Arc::new(Notify::new()),
        late: Arc::new(AtomicBool::new(false)),
        watches: AtomicU32::new(0),
    });
    let agents = Arc::new(FaultyAgents {
        inner: world.agents(Sessions::new(
            env.clone(),
            Arc::new(StoreDirectory::new(Arc::clone(&store) as Arc<dyn Store>)),
        )),
        panics: AtomicU32::new(0),
    });
    world.fabric().ensure_stamp().await.unwrap();
    let controller = Controller::new(ControllerDeps {
        env: env.clone(),
        store: Arc::clone(&store) as Arc<dyn Store>,
        epoch: control_records::Epoch::default(),
        host: control_records::HostId::first(),
        sealer: Arc::new(Sealer::from_key(&[7; 32])),
        fabric: world.fabric(),
        agents: Arc::clone(&agents) as Arc<dyn Agents>,
        connect: world.clusters(),
        recipes: Arc::new(KubernetesRecipes {
            host_cores: 8,
            host_memory_mib: 32 * 1024,
            ..KubernetesRecipes::default()
        }),
        service_url: "https://100.64.0.1:7443".to_owned(),
        agent_ca: String::new(),
        settings: Settings {
            resync: Duration::from_secs(24 * 60 * 60),
            ..Settings::default()
        },
    });
    let activity = controller.activity();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move { controller.run(stopped).await });
    Stand {
        env,
        suspended,
        world,
        store,
        agents,
        activity,
        _stop: stop,
    }
}

impl Stand {
    async fn create(&self) {
        let txn = directory::new_cluster(Txn::default(), &cluster(&self.env));
        self.store.txn(txn).await.unwrap();
    }

    async fn reached(&self) -> bool {
        let observed = get_record::<ObservedRecord>(&*self.store, &key::observed("0123456789")).await;
        observed
            .unwrap()
            .is_some_and(|observed| observed.value.generation >= 1)
    }
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_panics_is_started_again_counted_and_told() {
    let stand = stand().await;
    // In the first passes with a machine: no later notification wakes the cluster.
    stand.agents.panics.store(3, Ordering::SeqCst);
    stand.create().await;
    until(
        &stand.env,
        "the cluster is made in spite of three panics",
        || async { stand.reached().await },
    )
    .await;
    assert_eq!(stand.activity.borrow().panics, 3);
    let told = events::history(&*stand.store, "0123456789", stand.env.clock.now())
        .await
        .unwrap();
    let told: Vec<_> = told
        .iter()
        .filter(|(_, event)| event.event.message.contains("fault of the service"))
        .collect();
    // The first and the second in a row; not the third, so that a lasting fault does not fill the history.
    assert_eq!(told.len(), 2, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn agents_are_heard_before_the_watch_tells_of_their_machines() {
    let mut took = Vec::new();
    for late in [false, true] {
        let stand = stand().await;
        stand.store.late.store(late, Ordering::SeqCst);
        let begun = stand.env.clock.monotonic();
        stand.create().await;
        until(&stand.env, "the cluster is made", || async {
            stand.reached().await
        })
        .await;
        took.push(stand.env.clock.monotonic() - begun);
    }
    assert_eq!(took[0], took[1], "nothing was waited for");
}

/// Blocks the making of machines, and counts cancelled calls.
struct HeldMachines {
    held: AtomicU32,
    abandoned: AtomicU32,
    released: Semaphore,
}

#[async_trait]
impl Interceptor for HeldMachines {
    async fn before(&self, call: Call, _what: &str) -> Verdict {
        struct Waiting<'a>(Option<&'a AtomicU32>);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                if let Some(abandoned) = self.0 {
                    abandoned.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
        if call == Call::EnsureMachine {
            self.held.fetch_add(1, Ordering::SeqCst);
            let mut waiting = Waiting(Some(&self.abandoned));
            self.released.acquire().await.unwrap().forget();
            waiting.0 = None;
        }
        Verdict::Works
    }

    async fn after(&self, _call: Call, _what: &str, _failure: Option<&str>) {}
}

impl HeldMachines {
    /// From now on, making machines of this stand blocks until they are released.
    fn of(stand: &Stand) -> Arc<Self> {
        let machines = Arc::new(Self {
            held: AtomicU32::new(0),
            abandoned: AtomicU32::new(0),
            released: Semaphore::new(0),
        });
        stand
            .world
            .set_interceptor(Arc::clone(&machines) as Arc<dyn Interceptor>);
        machines
    }

    /// A cluster is created; making its two machines blocks until they are released.
    async fn two(stand: &Stand) -> Arc<Self> {
        let machines = Self::of(stand);
        stand.create().await;
        until(&stand.env, "two machines are being made", || async {
            machines.held.load(Ordering::SeqCst) == 2
        })
        .await;
        machines
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_behind_costs_no_work_that_is_under_way() {
    let stand = stand().await;
    let machines = HeldMachines::two(&stand).await;
    stand.store.lag.notify_one();
    until(&stand.env, "everything is read again", || async {
        stand.store.watches.load(Ordering::SeqCst) > 1
    })
    .await;
    assert_eq!(
        machines.abandoned.load(Ordering::SeqCst),
        0,
        "what was begun goes on"
    );
    machines.released.add_permits(2);
    until(&stand.env, "the cluster is made", || async {
        stand.reached().await
    })
    .await;
    assert_eq!(
        machines.held.load(Ordering::SeqCst),
        2,
        "no machine was made a second time"
    );
}

#[tokio::test(start_paused = true)]
async fn an_operation_does_not_run_out_of_time_while_the_host_is_suspended() {
    let stand = stand().await;
    let machines = HeldMachines::of(&stand);
    let operation = OperationRecord {
        creates: true,
        ..OperationRecord::accepted(
            "o",
            "ManagedClusters_CreateOrUpdate",
            "",
            Owner::cluster("0123456789"),
            1,
            stand.env.clock.now(),
        )
    };
    let txn = directory::new_operation(Txn::default(), &operation);
    stand.store.txn(txn).await.unwrap();
    stand.create().await;
    until(&stand.env, "two machines are being made", || async {
        machines.held.load(Ordering::SeqCst) == 2
    })
    .await;
    // The host is suspended for a night.
    *stand.suspended.lock().unwrap() = Duration::from_secs(8 * 60 * 60);
    machines.released.add_permits(2);
    until(&stand.env, "the cluster is made", || async {
        stand.reached().await
    })
    .await;
    let ended = directory::operation(&*stand.store, "o")
        .await
        .unwrap()
        .unwrap()
        .value;
    assert_eq!(ended.status, OperationStatus::Succeeded, "{:?}", ended.error);
}

impl Stand {
    async fn own(&self, host: HostId, epoch: u64) {
        let fence = FenceRecord { v: 1, host, epoch };
        let put = put_record(key::fence("0123456789"), &fence);
        self.store.txn(Txn::default().with(put)).await.unwrap();
    }

    /// The cluster's records and their revisions, without those that agents change: agents enrol wherever
    /// their cluster's loop runs.
    async fn records(&self) -> Vec<(String, Option<Revision>, Value)> {
        let (records, _) = self.store.list("/c/0123456789/").await.unwrap();
        let own = records.into_iter().map(|(key, found)| {
            let mut value: Value = serde_json::from_slice(&found.value).unwrap();
            if !key.starts_with(&key::machines("0123456789")) {
                return (key, Some(found.revision), value);
            }
            for field in ["enrolledKey", "tokenUsed"] {
                value.as_object_mut().unwrap().remove(field);
            }
            (key, None, value)
        });
        own.collect()
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_for_a_cluster_that_another_host_has_taken_over() {
    let stand = stand().await;
    let machines = HeldMachines::two(&stand).await;
    // The first transaction made the cluster this host's, and its machines are written down as being here.
    let fence = get_record::<FenceRecord>(&*stand.store, &key::fence("0123456789"))
        .await
        .unwrap()
        .unwrap()
        .value;
    assert_eq!((fence.host, fence.epoch), (HostId::first(), 1));
    let placed = directory::machines(&*stand.store, "0123456789").await.unwrap();
    assert!(placed.len() == 2 && placed.iter().all(|machine| machine.host == HostId::first()));

    stand.own(HostId("host-2".to_owned()), 2).await;
    let before = stand.records().await;
    machines.released.add_permits(2);
    stand.env.clock.sleep(Duration::from_secs(600)).await;
    assert_eq!(stand.records().await, before);
    assert!(!stand.reached().await);

    // After the cluster is returned, the loop continues with the next notification.
    stand.own(HostId::first(), 3).await;
    let desired = put_record(key::desired("0123456789"), &cluster(&stand.env));
    machines.released.add_permits(100);
    stand.store.txn(Txn::default().with(desired)).await.unwrap();
    until(&stand.env, "the cluster is made", || async {
        stand.reached().await
    })
    .await;
}
