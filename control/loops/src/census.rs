//! One look at the fabric for all who ask at the same time.

use std::{sync::Arc, time::Duration};

use base_env::Clock;
use fabric_api::{Fabric, FabricError, Inventory};
use tokio::sync::Mutex;

/// Lists the fabric. A thousand loops that start together need one listing, not a thousand.
pub(crate) struct Census {
    fabric: Arc<dyn Fabric>,
    clock: Arc<dyn Clock>,
    last: Mutex<Option<(Duration, Arc<Inventory>)>>,
}

impl Census {
    pub(crate) fn new(fabric: Arc<dyn Fabric>, clock: Arc<dyn Clock>) -> Self {
        Self {
            fabric,
            clock,
            last: Mutex::new(None),
        }
    }

    /// A listing that was begun now or later.
    pub(crate) async fn take(&self) -> Result<Arc<Inventory>, FabricError> {
        let asked = self.clock.monotonic();
        let mut last = self.last.lock().await;
        if let Some((begun, inventory)) = &*last
            && *begun > asked
        {
            return Ok(Arc::clone(inventory));
        }
        let begun = self.clock.monotonic();
        let inventory = Arc::new(self.fabric.list().await?);
        *last = Some((begun, Arc::clone(&inventory)));
        Ok(inventory)
    }
}
