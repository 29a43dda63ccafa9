//! How the controller wakes a loop.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

use crate::inventory::Mark;

/// The order to look at everything again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resync {
    /// When it was given, if there was no loop: nothing was done to the cluster's machines since then.
    pub(crate) since: Option<Mark>,
}

/// Carries no data but that order: the loop reads everything itself.
#[derive(Debug, Default)]
pub(crate) struct Wakeup {
    pending: AtomicBool,
    resync: Mutex<Option<Resync>>,
    notify: Notify,
}

impl Wakeup {
    /// Something may have changed.
    pub(crate) fn notify(&self) {
        self.pending.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// All that is known is due to be looked at again.
    pub(crate) fn notify_resync(&self, resync: Resync) {
        *self.resync() = Some(resync);
        self.notify();
    }

    fn resync(&self) -> MutexGuard<'_, Option<Resync>> {
        // One assignment cannot be cut short.
        self.resync.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The order to look at everything, if there is one. It is given once.
    pub(crate) fn take_resync(&self) -> Option<Resync> {
        self.resync().take()
    }

    /// A pass begins: what is notified from now on is for the next one.
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
