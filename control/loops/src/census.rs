//! One look at the fabric for all who ask at the same time.

use std::{sync::Arc, time::Duration};

use base_env::Clock;
use fabric_api::{Fabric, FabricError, Inventory};
use tokio::sync::Mutex;

/// A listing is followed by a pause this many times as long, so that looking at thousands of machines, which takes long,
/// takes a fifth of a core at most, however many loops ask one after the other.
const PAUSE: u32 = 4;

/// Lists the fabric. A thousand loops that start together need one listing, not a thousand.
pub(crate) struct Census {
    fabric: Arc<dyn Fabric>,
    clock: Arc<dyn Clock>,
    bound: Duration,
    last: Mutex<Option<Last>>,
}

struct Last {
    begun: Duration,
    ended: Duration,
    inventory: Arc<Inventory>,
}

impl Census {
    /// A listing takes `bound` at most: one that hangs must not keep all others waiting for ever, whoever asked for it.
    pub(crate) fn new(fabric: Arc<dyn Fabric>, clock: Arc<dyn Clock>, bound: Duration) -> Self {
        Self {
            fabric,
            clock,
            bound,
            last: Mutex::new(None),
        }
    }

    /// A listing that was begun now or later.
    pub(crate) async fn take(&self) -> Result<Arc<Inventory>, FabricError> {
        let asked = self.clock.monotonic();
        let mut last = self.last.lock().await;
        if let Some(last) = &*last {
            if last.begun > asked {
                return Ok(Arc::clone(&last.inventory));
            }
            // Whoever asks meanwhile is given the listing that follows.
            let due = last.ended + (last.ended - last.begun) * PAUSE;
            let pause = due.saturating_sub(self.clock.monotonic());
            if !pause.is_zero() {
                self.clock.sleep(pause).await;
            }
        }
        let begun = self.clock.monotonic();
        let listing = self.clock.timeout(self.bound, self.fabric.list()).await;
        let inventory = Arc::new(listing.map_err(|elapsed| FabricError::failed("list machines", elapsed))??);
        *last = Some(Last {
            begun,
            ended: self.clock.monotonic(),
            inventory: Arc::clone(&inventory),
        });
        Ok(inventory)
    }
}
