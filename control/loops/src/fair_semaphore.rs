//! An asynchronous semaphore over [`FairQueue`].

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base_env::Clock;
use tokio::sync::oneshot;

use crate::fair_queue::{FairQueue, Flow, Lane};

/// Limits of concurrent work on this host, for all clusters together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Clusters that are read, planned and committed. With enough of them, the store combines many commits
    /// into one.
    pub passes: u32,
    /// Machines and networks that are made or removed.
    pub host: u32,
    /// Looks, configurations, and calls to clusters' APIs. Each may wait for its response as long as its time
    /// limit.
    pub calls: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            passes: 128,
            host: 32,
            calls: 256,
        }
    }
}

/// See the module.
pub(crate) struct FairSemaphore {
    queue: Mutex<FairQueue<Told>>,
    clock: Arc<dyn Clock>,
}

/// The handle of a waiting entry.
#[derive(Debug)]
struct Told {
    tell: oneshot::Sender<()>,
    /// Since when it waits.
    since: Duration,
}

impl std::fmt::Debug for FairSemaphore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FairSemaphore").finish_non_exhaustive()
    }
}

impl FairSemaphore {
    pub(crate) fn new(limits: Limits, clock: Arc<dyn Clock>) -> Arc<Self> {
        let places = [limits.passes, limits.host, limits.calls];
        Arc::new(Self {
            queue: Mutex::new(FairQueue::new(places)),
            clock,
        })
    }

    fn fair(&self) -> MutexGuard<'_, FairQueue<Told>> {
        // No code below panics halfway through a change, so a poisoned lock still guards consistent data.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait in a lane, and how long the one does that has waited longest.
    pub(crate) fn backlog(&self, lane: Lane) -> (usize, Duration) {
        let now = self.clock.monotonic();
        let fair = self.fair();
        let oldest = fair.items(lane).map(|told| told.since).min();
        let waited = oldest.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        (fair.waiting(lane), waited)
    }

    /// Waits for a place, and holds it as long as the permit lives.
    pub(crate) async fn acquire(self: &Arc<Self>, lane: Lane, flow: &Flow, cost: u32) -> Permit {
        let (tell, told) = oneshot::channel();
        let since = self.clock.monotonic();
        let mut waiting = {
            let mut fair = self.fair();
            let ticket = fair.join(lane, flow, cost, Told { tell, since });
            give(&mut fair);
            Waiting {
                semaphore: self,
                lane,
                flow,
                ticket,
                told,
                seated: false,
            }
        };
        // The sender is in the queue as long as we are.
        let _ = (&mut waiting.told).await;
        waiting.seated = true;
        Permit {
            semaphore: Arc::clone(self),
            lane,
            tenant: Arc::clone(&flow.tenant),
        }
    }

    /// The number of waiting entries in a lane.
    #[cfg(test)]
    pub(crate) fn waiting(&self, lane: Lane) -> usize {
        self.fair().waiting(lane)
    }
}

/// Notifies all entries that have a place now. Under the lock, so that no entry is between waiting and
/// notified.
fn give(fair: &mut FairQueue<Told>) {
    while let Some(told) = fair.next() {
        // An entry whose receiver is gone returns its place itself: see `Waiting`.
        let _ = told.tell.send(());
    }
}

/// An entry in a queue. Withdrawn when it is dropped.
struct Waiting<'a> {
    semaphore: &'a Arc<FairSemaphore>,
    lane: Lane,
    flow: &'a Flow,
    ticket: u64,
    told: oneshot::Receiver<()>,
    /// It has a place now, as a [`Permit`].
    seated: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.seated {
            return;
        }
        let mut fair = self.semaphore.fair();
        if self.told.try_recv().is_ok() {
            fair.leave(self.lane, &self.flow.tenant);
            give(&mut fair);
        } else {
            fair.withdraw(self.lane, self.flow, self.ticket);
        }
    }
}

/// A place in use.
#[derive(Debug)]
pub(crate) struct Permit {
    semaphore: Arc<FairSemaphore>,
    lane: Lane,
    tenant: Arc<str>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut fair = self.semaphore.fair();
        fair.leave(self.lane, &self.tenant);
        give(&mut fair);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(tenant: &str) -> Flow {
        Flow::of(&format!("/n/managedclusters/{tenant}/g/c"))
    }

    #[tokio::test]
    async fn a_permit_that_ends_lets_the_next_in_and_one_that_gives_up_takes_no_place() {
        let limits = Limits {
            passes: 1,
            host: 1,
            calls: 1,
        };
        let semaphore = FairSemaphore::new(limits, base_env::Env::system().clock);
        let (a, b, c) = (flow("a"), flow("b"), flow("c"));
        let first = semaphore.acquire(Lane::Host, &a, 1).await;
        let mut second = Box::pin(semaphore.acquire(Lane::Host, &b, 1));
        let mut third = Box::pin(semaphore.acquire(Lane::Host, &c, 1));
        assert!(futures::poll!(&mut second).is_pending());
        assert!(futures::poll!(&mut third).is_pending());
        assert_eq!(semaphore.waiting(Lane::Host), 2);
        assert_eq!(semaphore.backlog(Lane::Host).0, 2);
        assert_eq!(semaphore.backlog(Lane::Call), (0, Duration::ZERO));
        drop(first);
        // The second has a place by now but has not noticed it: giving up passes it on.
        drop(second);
        let third = third.await;
        assert_eq!(semaphore.waiting(Lane::Host), 0);
        let mut fourth = Box::pin(semaphore.acquire(Lane::Host, &a, 1));
        assert!(futures::poll!(&mut fourth).is_pending());
        drop(fourth);
        assert_eq!(semaphore.waiting(Lane::Host), 0);
        drop(third);
        semaphore.acquire(Lane::Host, &a, 1).await;
    }
}
