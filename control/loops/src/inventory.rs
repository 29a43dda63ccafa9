//! The inventory cache: one listing of the fabric for all loops that need no newer one.
//!
//! Always true: a caller names the point in time after which the listing must have begun, and never gets an
//! older one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base_env::Clock;
use fabric_api::{Fabric, FabricError, Inventory};
use tokio::sync::Mutex;

/// A listing is followed by a pause this many times as long, so that listing thousands of machines, which
/// takes long, takes a fifth of a core at most, with any number of loops.
const PAUSE: u32 = 4;

/// A point in the order of events, such as marks and the beginnings of listings. Not a time: several events
/// can have the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(u64);

/// Lists the fabric. A thousand loops that start together need one listing, not a thousand.
pub(crate) struct InventoryCache {
    marks: AtomicU64,
    fabric: Arc<dyn Fabric>,
    clock: Arc<dyn Clock>,
    bound: Duration,
    last: Mutex<Option<Last>>,
}

struct Last {
    begun: Mark,
    ended: Duration,
    took: Duration,
    inventory: Arc<Inventory>,
}

impl InventoryCache {
    /// A listing takes `bound` at most: one that hangs must not block all other loops for ever.
    pub(crate) fn new(fabric: Arc<dyn Fabric>, clock: Arc<dyn Clock>, bound: Duration) -> Self {
        Self {
            marks: AtomicU64::default(),
            fabric,
            clock,
            bound,
            last: Mutex::new(None),
        }
    }

    /// The present mark, to request a listing that is not older later.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.marks.fetch_add(1, Ordering::SeqCst))
    }

    /// A listing that began after `since`.
    pub(crate) async fn listed_after(&self, since: Mark) -> Result<Arc<Inventory>, FabricError> {
        let mut last = self.last.lock().await;
        if let Some(last) = &*last {
            if last.begun > since {
                return Ok(Arc::clone(&last.inventory));
            }
            // Callers during the pause share the listing after it.
            let due = last.ended + last.took * PAUSE;
            let pause = due.saturating_sub(self.clock.monotonic());
            if !pause.is_zero() {
                self.clock.sleep(pause).await;
            }
        }
        let (begun, start) = (self.mark(), self.clock.monotonic());
        let listing = self.clock.timeout(self.bound, self.fabric.list()).await;
        let inventory = Arc::new(listing.map_err(|elapsed| FabricError::failed("list machines", elapsed))??);
        let ended = self.clock.monotonic();
        *last = Some(Last {
            begun,
            ended,
            took: ended - start,
            inventory: Arc::clone(&inventory),
        });
        Ok(inventory)
    }
}
