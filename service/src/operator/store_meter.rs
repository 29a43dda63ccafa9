//! The store, counted.

use std::{future::Future, pin::Pin, sync::Arc};

use base_env::{Clock, Env};
use base_metrics::{Counter, Histogram, Page};
use control_store::{Changes, Revision, Store, StoreError, Txn, Versioned};

use super::families::{COMMIT_DURATION, COMMITS};

/// Upper bounds of the durations of commits, microseconds.
const BOUNDS: [u64; 7] = [500, 2_000, 10_000, 50_000, 200_000, 1_000_000, 5_000_000];

/// What is counted of a store.
#[derive(Debug)]
pub struct StoreMeter {
    ok: Counter,
    conflict: Counter,
    failed: Counter,
    duration: Histogram,
}

impl Default for StoreMeter {
    fn default() -> Self {
        Self {
            ok: Counter::new(),
            conflict: Counter::new(),
            failed: Counter::new(),
            duration: Histogram::new(&BOUNDS),
        }
    }
}

impl StoreMeter {
    /// Number and whole time of all transactions so far, whatever came of them.
    pub(super) fn so_far(&self) -> (u64, std::time::Duration) {
        (self.duration.count(), self.duration.sum())
    }

    pub(super) fn write(&self, page: &mut Page) {
        let mut commits = page.family(&COMMITS);
        for (result, counter) in [
            ("ok", &self.ok),
            ("conflict", &self.conflict),
            ("failed", &self.failed),
        ] {
            commits.put(&[result], counter.get());
        }
        page.family(&COMMIT_DURATION).histogram(&[], &self.duration);
    }
}

/// A store whose transactions are counted. Reading goes through without anything in between.
pub struct MeteredStore {
    inner: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    meter: Arc<StoreMeter>,
}

impl MeteredStore {
    /// Around another one.
    pub fn new(inner: Arc<dyn Store>, env: &Env) -> Self {
        Self {
            inner,
            clock: Arc::clone(&env.clock),
            meter: Arc::default(),
        }
    }

    /// What it counts.
    pub fn meter(&self) -> Arc<StoreMeter> {
        Arc::clone(&self.meter)
    }
}

/// What a method of the trait gives.
type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Written out, as `async_trait` writes it: what only goes through is not put into one more box.
impl Store for MeteredStore {
    fn get<'life0, 'life1, 'async_trait>(
        &'life0 self,
        key: &'life1 str,
    ) -> Answer<'async_trait, Option<Versioned>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        self.inner.get(key)
    }

    fn list<'life0, 'life1, 'async_trait>(
        &'life0 self,
        prefix: &'life1 str,
    ) -> Answer<'async_trait, (Vec<(String, Versioned)>, Revision)>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        self.inner.list(prefix)
    }

    fn txn<'life0, 'async_trait>(&'life0 self, txn: Txn) -> Answer<'async_trait, Revision>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let begun = self.clock.monotonic();
            let result = self.inner.txn(txn).await;
            self.meter
                .duration
                .observe(self.clock.monotonic().saturating_sub(begun));
            match &result {
                Ok(_) => self.meter.ok.count(),
                Err(StoreError::Conflict { .. }) => self.meter.conflict.count(),
                Err(_) => self.meter.failed.count(),
            }
            result
        })
    }

    fn watch<'life0, 'life1, 'async_trait>(
        &'life0 self,
        prefix: &'life1 str,
        from: Revision,
    ) -> Answer<'async_trait, Changes>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        self.inner.watch(prefix, from)
    }
}
