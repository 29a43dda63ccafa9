//! The service is killed at every step of every kind of request; the next one finishes what it began.

use std::time::Duration;

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
