//! Wake-ups of loops by the controller.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

use crate::inventory::Mark;

/// A request for a full check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resync {
    /// When it was made, if there was no loop: the cluster's machines were not changed since then.
    pub(crate) since: Option<Mark>,
}

/// Carries no data but that request: the loop reads all records itself.
#[derive(Debug, Default)]
pub(crate) struct Wakeup {
    pending: AtomicBool,
    resync: Mutex<Option<Resync>>,
    notify: Notify,
}

impl Wakeup {
    /// Notifies of a possible change.
    pub(crate) fn notify(&self) {
        self.pending.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// Notifies that all observations are due for renewal.
    pub(crate) fn notify_resync(&self, resync: Resync) {
        *self.resync() = Some(resync);
        self.notify();
    }

    fn resync(&self) -> MutexGuard<'_, Option<Resync>> {
        // A single assignment cannot be interrupted by a panic.
        self.resync.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the request for a full check, if there is one.
    pub(crate) fn take_resync(&self) -> Option<Resync> {
        self.resync().take()
    }

    /// Begins a pass: later notifications are for the next one.
    pub(crate) fn begin(&self) {
        self.pending.store(false, Ordering::SeqCst);
    }

    /// Whether it was notified since the last pass began.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::SeqCst)
    }

    /// Waits until it is notified.
    pub(crate) async fn notified(&self) {
        self.notify.notified().await;
    }
}
