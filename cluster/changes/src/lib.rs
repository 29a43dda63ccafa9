//! Wake-ups by a counter: [`Changes`] over a channel with a number. Shared by the real and the simulated
//! clusters; the contract itself is pure, and a channel needs a runtime.
//!
//! Called by: `cluster/client`, `fabric/sim`.

use async_trait::async_trait;
use cluster_api::Changes;
use tokio::sync::watch;

/// The changes counted by a channel.
#[derive(Debug)]
pub struct ChangeCount(watch::Receiver<u64>);

impl ChangeCount {
    /// Ends when the channel's sender is dropped.
    pub fn new(counts: watch::Receiver<u64>) -> Self {
        Self(counts)
    }
}

#[async_trait]
impl Changes for ChangeCount {
    fn count(&self) -> u64 {
        *self.0.borrow()
    }

    async fn after(&self, seen: u64) -> Option<u64> {
        let mut counts = self.0.clone();
        // The error means that the sender was dropped.
        counts
            .wait_for(|count| *count != seen)
            .await
            .ok()
            .map(|count| *count)
    }
}
