//! Thread pools for blocking work: passwords, backups and disks do not wait for each other.
//!
//! The runtime has one set of threads for blocking work. This crate lists the kinds of such work, the number
//! of threads for each, and the length of its queue; [`THREADS`] is the sum, which the runtime needs at
//! least.
//!
//! Always true: a kind never uses more threads than its limit, so that a full one leaves every other its own;
//! work that does not fit into a kind's queue is refused at once; a thread is counted until its work has
//! ended, also when the caller no longer waits.
//!
//! Called by: all parts of the service that read or write files, hash, or use an object store.
//! `landfall serve` sizes its runtime by it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Semaphore;

/// A kind of blocking work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The name, for people.
    pub name: &'static str,
    /// The number of threads.
    pub threads: usize,
    /// The length of the queue.
    pub queue: usize,
}

/// Hashing of secrets: 64 MiB and a core each, so one at a time.
pub const HASHING: Kind = Kind {
    name: "checking of secrets",
    threads: 1,
    queue: 256,
};
/// Hashing of new passwords: as costly, and separate from login attempts of unknown callers.
pub const PASSWORDS: Kind = Kind {
    name: "setting of passwords",
    threads: 1,
    queue: 64,
};
/// Uploads of backups, each as long as its machine sends.
pub const UPLOADS: Kind = Kind {
    name: "uploads of backups",
    threads: 16,
    queue: 256,
};
/// Downloads and lists of backups by machines, a piece at a time.
pub const RESTORES: Kind = Kind {
    name: "reading of backups",
    threads: 16,
    queue: 1024,
};
/// Images of add-ons, read for machines a piece at a time.
pub const IMAGES: Kind = Kind {
    name: "reading of images",
    threads: 4,
    queue: 1024,
};
/// API requests about backups; a preview or a verification restores one into memory.
pub const QUESTIONS: Kind = Kind {
    name: "questions about backups",
    threads: 8,
    queue: 64,
};
/// Upkeep of backups, their copy, the store's copies: one each.
pub const UPKEEP: Kind = Kind {
    name: "upkeep of backups",
    threads: 3,
    queue: 16,
};
/// Sealing anew of what other keys have sealed outside the store, and the file of the keys.
pub const SEALING: Kind = Kind {
    name: "sealing with another key",
    threads: 1,
    queue: 16,
};
/// Reading of the version catalogue and of bills of materials, for answers about support.
pub const SUPPORT: Kind = Kind {
    name: "reading of bills of materials",
    threads: 2,
    queue: 64,
};
/// Machines' disks: as many as the loops work on at a time, and listings.
pub const DISKS: Kind = Kind {
    name: "work on disks",
    threads: 36,
    queue: 1024,
};

/// Images of registries: a piece of a blob at a time, and the digest of a whole one.
pub const REGISTRIES: Kind = Kind {
    name: "images of registries",
    threads: 16,
    queue: 1024,
};

/// All kinds.
pub const KINDS: &[Kind] = &[
    HASHING, PASSWORDS, UPLOADS, RESTORES, IMAGES, QUESTIONS, UPKEEP, SEALING, SUPPORT, DISKS, REGISTRIES,
];
/// For what is of no kind: names that are looked up, a build of an image, the service's own few files.
const OTHERS: usize = 16;
/// The number of threads for blocking work that a runtime needs.
pub const THREADS: usize = {
    let mut sum = OTHERS;
    let mut at = 0;
    while at < KINDS.len() {
        sum += KINDS[at].threads;
        at += 1;
    }
    sum
};

/// The reason why work was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The queue of this kind is full. May be retried.
    #[error("{0}: too much waits already; try again")]
    Full(&'static str),
    /// It panicked (the log says where), or the runtime is ending.
    #[error("{0}: it was cut short")]
    CutShort(&'static str),
}

#[derive(Debug)]
struct Inner {
    kind: Kind,
    threads: Arc<Semaphore>,
    /// Waiting and running jobs.
    present: AtomicUsize,
}

/// The threads of a kind. Cheap to clone: all clones are one pool.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Inner>);

/// A waiting or running job.
struct Place(Arc<Inner>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.present.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Pool {
    /// A pool of this kind.
    pub fn new(kind: Kind) -> Self {
        Self(Arc::new(Inner {
            kind,
            threads: Arc::new(Semaphore::new(kind.threads)),
            present: AtomicUsize::new(0),
        }))
    }

    /// Runs work on a thread of the pool, when one is free. Must be called inside a tokio runtime. If the
    /// future is dropped while it waits, nothing runs; dropped later, the work continues without it.
    ///
    /// # Errors
    /// When the queue is full, or the work panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let Inner { kind, threads, .. } = &*self.0;
        let room = kind.threads + kind.queue;
        let entered = self
            .0
            .present
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |present| {
                (present < room).then_some(present + 1)
            });
        entered.map_err(|_full| PoolError::Full(kind.name))?;
        let place = Place(Arc::clone(&self.0));
        let cut_short = PoolError::CutShort(kind.name);
        let Ok(thread) = Arc::clone(threads).acquire_owned().await else {
            return Err(cut_short);
        };
        let work = move || {
            // Returned by the thread, in this order: no other job enters before the thread is free.
            let _place = place;
            let _thread = thread;
            work()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_ended| cut_short)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const NARROW: Kind = Kind {
        name: "narrow",
        threads: 2,
        queue: 1,
    };
    const OTHER: Kind = Kind {
        name: "other",
        threads: 1,
        queue: 0,
    };

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(NARROW.threads + OTHER.threads)
            .build()
            .unwrap()
    }

    #[test]
    fn a_full_pool_refuses_what_is_more_and_holds_up_no_other() {
        runtime().block_on(async {
            let (pool, other) = (Pool::new(NARROW), Pool::new(OTHER));
            let (release, held) = mpsc::channel::<()>();
            let held = Arc::new(std::sync::Mutex::new(held));
            let block = || {
                let (pool, held) = (pool.clone(), Arc::clone(&held));
                let run = async move { pool.run(move || held.lock().unwrap().recv().is_ok()).await };
                Box::pin(run)
            };
            let (mut first, mut second, mut waits) = (block(), block(), block());
            for run in [&mut first, &mut second, &mut waits] {
                assert!(futures::poll!(run).is_pending());
            }
            assert_eq!(pool.run(|| ()).await, Err(PoolError::Full("narrow")));
            // All threads of one pool are busy and its queue is full: the other pool has its own.
            assert_eq!(other.run(|| 7).await, Ok(7));
            // A caller that gives up while waiting frees its place.
            drop(waits);
            let mut waits = block();
            assert!(futures::poll!(&mut waits).is_pending());
            for _ in 0..3 {
                release.send(()).unwrap();
            }
            assert_eq!(tokio::join!(first, second, waits), (Ok(true), Ok(true), Ok(true)));
            assert_eq!(pool.run(|| 8).await, Ok(8));
        });
    }

    #[test]
    fn work_that_panics_or_is_not_waited_for_gives_its_thread_back() {
        runtime().block_on(async {
            let pool = Pool::new(OTHER);
            let panicked = pool.run(|| panic!("as a test")).await;
            assert_eq!(panicked, Err(PoolError::CutShort("other")));
            let (release, held) = mpsc::channel::<()>();
            let mut left = Box::pin(pool.run(move || held.recv().is_ok()));
            assert!(futures::poll!(&mut left).is_pending());
            drop(left);
            // The thread still works, so it is not free.
            assert_eq!(pool.run(|| ()).await, Err(PoolError::Full("other")));
            release.send(()).unwrap();
            while pool.run(|| ()).await.is_err() {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn a_runtime_has_threads_for_all_kinds_at_once() {
        let needed: usize = KINDS.iter().map(|kind| kind.threads).sum();
        assert!(THREADS > needed);
        let names: std::collections::BTreeSet<_> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), KINDS.len());
    }
}
