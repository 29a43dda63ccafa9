//! Wake-ups by a counter: what [`Changes`] is to whoever has a channel with a number in it. One place for the real clusters and the
//! simulated ones; the contract itself is pure, and a channel needs a runtime.
//!
//! Called by: `cluster/client`, `fabric/sim`.

use async_trait::async_trait;
use cluster_api::Changes;
use tokio::sync::watch;

/// The changes that a channel counts.
#[derive(Debug)]
pub struct ChangeCount(watch::Receiver<u64>);

impl ChangeCount {
    /// Ends when the channel's sender goes.
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
        // The error says that the sender is gone.
        counts
            .wait_for(|count| *count != seen)
            .await
            .ok()
            .map(|count| *count)
    }
}
