//! Stops the service at a chosen step, before or after the step's effect, as `kill -9` would.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use std::sync::Arc;

use async_trait::async_trait;
use control_store::{Change, Revision, Store, StoreError, Txn, Versioned};
use tokio::sync::{Notify, mpsc};

#[derive(Default)]
pub struct Tripwire {
    steps: AtomicU64,
    trip_at: Mutex<Option<u64>>,
    tripped: Notify,
    has_tripped: AtomicBool,
}

impl Tripwire {
    /// Counts a step; never returns from the one that was chosen.
    pub async fn step(&self) {
        let step = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
        let trip_at = *self.trip_at.lock().unwrap();
        if trip_at.is_some_and(|trip_at| step >= trip_at) {
            self.has_tripped.store(true, Ordering::SeqCst);
            self.tripped.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::SeqCst)
    }

    /// Chooses the step, counted from now; `None`: none.
    pub fn set(&self, steps_from_now: Option<u64>) {
        self.has_tripped.store(false, Ordering::SeqCst);
        *self.trip_at.lock().unwrap() = steps_from_now.map(|steps| self.steps() + steps);
    }

    /// Whether a step is chosen.
    pub fn is_set(&self) -> bool {
        self.trip_at.lock().unwrap().is_some()
    }

    /// Whether the chosen step came.
    pub fn has_tripped(&self) -> bool {
        self.has_tripped.load(Ordering::SeqCst)
    }

    /// Waits for the chosen step.
    pub async fn tripped(&self) {
        self.tripped.notified().await;
    }
}

/// A store whose transactions are steps.
pub struct WiredStore {
    pub store: Arc<dyn Store>,
    pub tripwire: Arc<Tripwire>,
}

#[async_trait]
impl Store for WiredStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<(Vec<(String, Versioned)>, Revision), StoreError> {
        self.store.list(prefix).await
    }

    async fn txn(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.tripwire.step().await;
        let result = self.store.txn(txn).await;
        self.tripwire.step().await;
        result
    }

    async fn watch(
        &self,
        prefix: &str,
        from: Revision,
    ) -> Result<mpsc::Receiver<Result<Change, StoreError>>, StoreError> {
        self.store.watch(prefix, from).await
    }
}
