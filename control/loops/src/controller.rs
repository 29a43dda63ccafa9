//! The controller: the parts that all loops share, and the run of a dispatcher over them, again and again.

use std::sync::Arc;

use futures::StreamExt as _;
use tokio::sync::watch;

use crate::{
    ControllerDeps,
    cluster_loop::Shared,
    dispatcher::{Dispatcher, STORE_PAUSE},
    fair_semaphore::FairSemaphore,
    gap_detector::GapDetector,
    index::Index,
    inventory::InventoryCache,
    measures::{Activity, LoopMeter, Measures},
    silent_machines::SilentMachinesCache,
};

/// Brings every cluster of the stamp to its desired state. One at a time over a store.
pub struct Controller {
    shared: Arc<Shared>,
    activity: watch::Sender<Activity>,
}

impl Controller {
    /// A controller that does not run yet.
    pub fn new(deps: ControllerDeps) -> Self {
        let deps = Arc::new(deps);
        Self {
            shared: Arc::new(Shared {
                inventory: Arc::new(InventoryCache::new(
                    Arc::clone(&deps.fabric),
                    Arc::clone(&deps.env.clock),
                    deps.settings.fabric_bound,
                )),
                semaphore: FairSemaphore::new(deps.settings.limits, Arc::clone(&deps.env.clock)),
                deps,
                index: Index::default(),
                silent_machines: SilentMachinesCache::default(),
                gap_detector: GapDetector::default(),
                measures: Measures::default(),
            }),
            activity: watch::Sender::default(),
        }
    }

    /// Its activity, from now on.
    pub fn activity(&self) -> watch::Receiver<Activity> {
        self.activity.subscribe()
    }

    /// What its loops count.
    pub fn meter(&self) -> LoopMeter {
        LoopMeter {
            shared: Arc::clone(&self.shared),
            activity: self.activity(),
        }
    }

    /// Runs until `shutdown` is true (or its sender is gone). Running effects are dropped then: each may be
    /// interrupted at any point, and is repeated after the next start. Machines and their processes are not
    /// touched.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        let mut wake_ups = self.shared.deps.agents.subscribe().fuse();
        loop {
            let mut dispatcher = Dispatcher::new(Arc::clone(&self.shared), self.activity.clone());
            let result = tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => return,
                result = dispatcher.serve(&mut wake_ups) => result,
            };
            // Every loop has ended with the dispatcher. A restart reads all records again.
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
