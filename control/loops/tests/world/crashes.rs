//! The service is killed at every step of every kind of request; the next one finishes what it began.

use std::time::Duration;

use proptest::prelude::*;

use crate::stage::{Stage, pool};

const BOUND: Duration = Duration::from_secs(15 * 60);

/// Plays `act` on a settled stage (made by `before`) and kills the service at its `trip`-th step. Returns whether the
/// step came.
async fn killed_at<Before, Act>(trip: Option<u64>, before: Before, act: Act) -> bool
where
    Before: AsyncFnOnce(&mut Stage),
    Act: AsyncFnOnce(&mut Stage),
{
    let mut stage = Stage::new(trip.unwrap_or(0));
    stage.start();
    before(&mut stage).await;
    stage.settle(BOUND).await;
    stage.world.tripwire.set(trip);
    act(&mut stage).await;
    let world = std::sync::Arc::clone(&stage.world);
    let tripped = tokio::select! {
        () = world.tripwire.tripped() => true,
        _ = stage.settle(BOUND) => false,
    };
    world.tripwire.set(None);
    if tripped {
        stage.kill().await;
        stage.start();
        stage.settle(BOUND).await;
    }
    stage.check().await;
    tripped
}

macro_rules! killed_everywhere {
    ($name:ident, at_least $least:literal, $before:expr, $act:expr) => {
        #[tokio::test(start_paused = true)]
        async fn $name() {
            let mut trip = 1;
            while killed_at(Some(trip), $before, $act).await {
                trip += 1;
                assert!(trip < 1000, "it does not end");
            }
            assert!(trip > $least, "only {trip} steps were tried");
        }
    };
}

killed_everywhere!(
    create,
    at_least 40,
    async |_stage: &mut Stage| {},
    async |stage: &mut Stage| {
        stage.create("c1", 2).await;
    }
);

killed_everywhere!(
    scale_up,
    at_least 15,
    async |stage: &mut Stage| {
        stage.create("c1", 1).await;
    },
    async |stage: &mut Stage| {
        stage.scale("c1", "np1", 3).await;
    }
);

killed_everywhere!(
    scale_down,
    at_least 15,
    async |stage: &mut Stage| {
        stage.create("c1", 3).await;
    },
    async |stage: &mut Stage| {
        stage.scale("c1", "np1", 1).await;
    }
);

killed_everywhere!(
    replace_a_pool,
    at_least 20,
    async |stage: &mut Stage| {
        stage.create("c1", 1).await;
        stage
            .request("c1", "AgentPools_CreateOrUpdate", |cluster| {
                cluster.spec.pools.push(pool("c1", "np2", 1));
            })
            .await;
    },
    async |stage: &mut Stage| {
        stage
            .request("c1", "AgentPools_Delete", |cluster| {
                cluster.spec.pools.retain(|pool| pool.name != "np2");
                let mut again = pool("c1", "np2", 1);
                again.incarnation = "another".to_owned();
                cluster.spec.pools.push(again);
            })
            .await;
    }
);

killed_everywhere!(
    delete,
    at_least 8,
    async |stage: &mut Stage| {
        stage.create("c1", 2).await;
    },
    async |stage: &mut Stage| {
        stage.delete("c1").await;
    }
);

killed_everywhere!(
    delete_while_creating,
    at_least 20,
    async |_stage: &mut Stage| {},
    async |stage: &mut Stage| {
        stage.create("c1", 2).await;
        stage.env.clock.sleep(Duration::from_millis(600)).await;
        stage.delete("c1").await;
    }
);

/// A random life: requests, kills, restarts, failures and broken machines in any order; then peace.
#[derive(Debug, Clone)]
enum Event {
    Create(u8, u32),
    Scale(u8, u32),
    AddPool(u8, u32),
    DropPool(u8),
    Delete(u8),
    Wait(u64),
    Kill,
    /// Killed at the step so many from now.
    KillAt(u64),
    Fail(&'static str, u32),
    CrashMachine(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let name = 0..2_u8;
    let calls = prop::sample::select(vec![
        "ensure-network",
        "ensure-machine",
        "delete-machine",
        "delete-network",
        "readyz",
        "list-nodes",
        "set-node",
        "apply",
        "drain",
        "delete-node",
        "approve-serving",
    ]);
    prop_oneof![
        3 => (name.clone(), 0..3_u32).prop_map(|(name, count)| Event::Create(name, count)),
        3 => (name.clone(), 0..4_u32).prop_map(|(name, count)| Event::Scale(name, count)),
        1 => (name.clone(), 0..3_u32).prop_map(|(name, count)| Event::AddPool(name, count)),
        1 => name.clone().prop_map(Event::DropPool),
        1 => name.prop_map(Event::Delete),
        5 => (0..6000_u64).prop_map(Event::Wait),
        1 => Just(Event::Kill),
        2 => (1..20_u64).prop_map(Event::KillAt),
        2 => (calls, 1..4_u32).prop_map(|(call, times)| Event::Fail(call, times)),
        1 => (0..8_usize).prop_map(Event::CrashMachine),
    ]
}

async fn live(events: &[Event]) {
    let mut stage = Stage::new(7);
    stage.start();
    for event in events {
        happen(&mut stage, event).await;
        if stage.world.tripwire.has_tripped() {
            restart(&mut stage).await;
        }
    }
    if stage.world.tripwire.is_set() {
        restart(&mut stage).await;
    }
    stage.settle(BOUND).await;
    stage.check().await;
}

async fn restart(stage: &mut Stage) {
    stage.world.tripwire.set(None);
    stage.kill().await;
    stage.start();
}

async fn happen(stage: &mut Stage, event: &Event) {
    let of = |name: &u8| format!("c{name}");
    let alive = async |stage: &Stage, name: &u8| {
        stage
            .cluster(&of(name))
            .await
            .is_some_and(|cluster| !cluster.deleting)
    };
    match event {
        Event::Create(name, count) if stage.cluster(&of(name)).await.is_none() => {
            stage.create(&of(name), *count).await;
        }
        Event::Scale(name, count) if alive(stage, name).await => {
            stage.scale(&of(name), "np1", *count).await;
        }
        Event::AddPool(name, count) if alive(stage, name).await => {
            let cluster = of(name);
            let incarnation = stage.env.ids.short();
            stage
                .request(&cluster.clone(), "AgentPools_CreateOrUpdate", |record| {
                    if !record.spec.pools.iter().any(|spec| spec.name == "np2") {
                        let mut made = pool(&cluster, "np2", *count);
                        made.incarnation = incarnation;
                        record.spec.pools.push(made);
                    }
                })
                .await;
        }
        Event::DropPool(name) if alive(stage, name).await => {
            stage
                .request(&of(name), "AgentPools_Delete", |record| {
                    record.spec.pools.retain(|spec| spec.name != "np2");
                })
                .await;
        }
        Event::Delete(name) if alive(stage, name).await => {
            stage.delete(&of(name)).await;
        }
        Event::Wait(millis) => stage.env.clock.sleep(Duration::from_millis(*millis)).await,
        Event::Kill => restart(stage).await,
        Event::KillAt(steps) => stage.world.tripwire.set(Some(*steps)),
        Event::Fail(call, times) => stage.world.fail(call, *times),
        Event::CrashMachine(index) => {
            let machine = stage.world.machines().into_keys().nth(*index);
            if let Some(machine) = machine {
                stage.world.crash_machine(&machine);
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_ends_as_it_should(events in prop::collection::vec(event(), 1..25)) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(live(&events));
    }
}

/// Clusters cost nothing while they are what they are to be, however many there are.
#[tokio::test(start_paused = true)]
async fn three_hundred_idle_clusters_ask_for_nothing() {
    let mut stage = Stage::new(3);
    stage.start();
    for index in 0..300 {
        stage.create(&format!("c{index}"), 1).await;
    }
    stage.settle(BOUND).await;
    stage.check().await;
    // Everything is compared once after the last change; then it is quiet until the resync.
    stage.settings.resync = Duration::from_secs(24 * 60 * 60);
    stage.stop().await;
    stage.start();
    stage.env.clock.sleep(Duration::from_secs(300)).await;
    let before = stage.world.tripwire.steps();
    stage.env.clock.sleep(Duration::from_secs(3600)).await;
    assert_eq!(
        stage.world.tripwire.steps(),
        before,
        "{:#?}",
        stage.world.take_trace()
    );
}
