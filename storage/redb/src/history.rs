//! The part shared by both drivers: the current values in memory, the end of the history, and the watches
//! that read it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use control_store::{Change, Changes, Compare, LARGEST_TXN, Op, Revision, StoreError, Txn, Value, Versioned};
use futures::{StreamExt as _, stream};
use tokio::sync::{mpsc, watch};

/// Changes kept for watches that start later.
const TAIL: usize = 4096;
/// Changes kept while a watch is behind: one commit of the store may hold thousands. A slower watch must list
/// again.
const LONGEST: usize = 16 * TAIL;
/// The same limit in bytes of values, so that a stuck watch cannot hold any amount of memory.
const LARGEST: usize = 64 << 20;
/// How many changes a watch reads ahead of its receiver.
const AHEAD: usize = 64;
/// Changes that a watch takes out of the history at once, unless one transaction has more.
const HELPING: usize = 256;

/// The effects of one transaction: each key once, with its new value.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) revision: Revision,
    pub(crate) effects: BTreeMap<String, Option<Value>>,
}

#[derive(Debug, Clone)]
struct Past {
    revision: Revision,
    key: String,
    value: Option<Value>,
}

#[derive(Debug, Default)]
struct Inner {
    revision: Revision,
    current: BTreeMap<String, (Revision, Value)>,
    tail: VecDeque<Past>,
    /// Bytes of values in the tail.
    weight: usize,
    /// The revision that each watch has read.
    watches: Vec<Weak<AtomicU64>>,
    /// `tail` has all changes after this revision.
    complete_after: Revision,
}

/// The committed state. Cheap to clone; all clones share it.
#[derive(Debug, Clone)]
pub(crate) struct History {
    inner: Arc<RwLock<Inner>>,
    wake: Arc<watch::Sender<Revision>>,
}

/// Transactions checked in order against the committed state and each other, not yet committed themselves.
pub(crate) struct Batch<'a> {
    inner: RwLockReadGuard<'a, Inner>,
    revision: Revision,
    pending: BTreeMap<String, Option<Revision>>,
}

impl History {
    pub(crate) fn new(revision: Revision, values: impl IntoIterator<Item = (String, Versioned)>) -> Self {
        let current = values
            .into_iter()
            .map(|(key, Versioned { revision, value })| (key, (revision, value)))
            .collect();
        Self {
            inner: Arc::new(RwLock::new(Inner {
                revision,
                current,
                tail: VecDeque::new(),
                weight: 0,
                watches: Vec::new(),
                complete_after: revision,
            })),
            wake: Arc::new(watch::Sender::new(revision)),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // No code below panics halfway through a change, so a poisoned lock still guards consistent data.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, key: &str) -> Option<Versioned> {
        let inner = self.read();
        let (revision, value) = inner.current.get(key)?;
        Some(Versioned {
            revision: *revision,
            value: Arc::clone(value),
        })
    }

    pub(crate) fn list(&self, prefix: &str) -> (Vec<(String, Versioned)>, Revision) {
        let inner = self.read();
        let found = inner
            .current
            .range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, (revision, value))| {
                (
                    key.clone(),
                    Versioned {
                        revision: *revision,
                        value: Arc::clone(value),
                    },
                )
            })
            .collect();
        (found, inner.revision)
    }

    /// Starts a batch. Only one caller at a time may go on to [`History::publish`]: the drivers ensure it.
    pub(crate) fn batch(&self) -> Batch<'_> {
        let inner = self.read();
        Batch {
            revision: inner.revision,
            inner,
            pending: BTreeMap::new(),
        }
    }

    /// Commits checked (and by now durable) transactions to the state, and wakes the watches.
    pub(crate) fn publish(&self, commits: Vec<Commit>) {
        let mut inner = self.write();
        for commit in commits {
            debug_assert_eq!(commit.revision.0, inner.revision.0 + 1, "one writer at a time");
            inner.revision = commit.revision;
            for (key, value) in commit.effects {
                match &value {
                    Some(value) => {
                        inner
                            .current
                            .insert(key.clone(), (commit.revision, Arc::clone(value)));
                    }
                    None => {
                        inner.current.remove(&key);
                    }
                }
                inner.weight += value.as_ref().map_or(0, |value| value.len());
                inner.tail.push_back(Past {
                    revision: commit.revision,
                    key,
                    value,
                });
            }
        }
        inner.trim();
        let revision = inner.revision;
        drop(inner);
        self.wake.send_replace(revision);
    }

    /// Starts a watch. It ends when its receiver or the last [`History`] is dropped.
    pub(crate) fn watch(&self, prefix: &str, from: Revision) -> Changes {
        let (sender, mut receiver) = mpsc::channel(AHEAD);
        let position = Arc::new(AtomicU64::new(from.0));
        self.write().watches.push(Arc::downgrade(&position));
        let follower = Follower {
            inner: Arc::downgrade(&self.inner),
            prefix: prefix.to_owned(),
            seen: from,
            position,
        };
        let wake = self.wake.subscribe();
        tokio::spawn(follower.run(wake, sender));
        stream::poll_fn(move |context| receiver.poll_recv(context)).boxed()
    }
}

impl Inner {
    /// Drops old changes: those that every watch has read, and more if a watch is too far behind.
    fn trim(&mut self) {
        if self.tail.len() <= TAIL {
            return;
        }
        self.watches.retain(|watch| watch.strong_count() > 0);
        let positions = self.watches.iter().filter_map(Weak::upgrade);
        let read = positions
            .map(|position| Revision(position.load(Ordering::Relaxed)))
            .min()
            .unwrap_or(self.revision);
        while self.tail.len() > TAIL {
            let needed = self.tail.front().is_some_and(|oldest| oldest.revision > read);
            if needed && self.tail.len() <= LONGEST && self.weight <= LARGEST {
                return;
            }
            if let Some(oldest) = self.tail.pop_front() {
                self.weight -= oldest.value.map_or(0, |value| value.len());
                self.complete_after = oldest.revision;
            }
        }
    }
}

impl Batch<'_> {
    /// Checks a transaction as if all earlier ones of this batch were committed.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] with the first condition that does not hold, [`StoreError::TooLarge`]; the
    /// batch is unchanged then.
    pub(crate) fn judge(&mut self, txn: Txn) -> Result<Commit, StoreError> {
        if txn.compare.len().max(txn.ops.len()) > LARGEST_TXN {
            return Err(StoreError::TooLarge {
                conditions: txn.compare.len(),
                effects: txn.ops.len(),
            });
        }
        for condition in &txn.compare {
            let (key, wanted) = match condition {
                Compare::Absent(key) => (key, None),
                Compare::At(key, revision) => (key, Some(*revision)),
            };
            if self.revision_of(key) != wanted {
                return Err(StoreError::Conflict { key: key.clone() });
            }
        }
        self.revision = Revision(self.revision.0 + 1);
        let mut wanted = BTreeMap::new();
        for op in txn.ops {
            match op {
                Op::Put(key, value) => wanted.insert(key, Some(Value::from(value))),
                Op::Delete(key) => wanted.insert(key, None),
            };
        }
        // Removing a missing key changes nothing and is not published.
        wanted.retain(|key, value| value.is_some() || self.revision_of(key).is_some());
        for (key, value) in &wanted {
            self.pending
                .insert(key.clone(), value.as_ref().map(|_| self.revision));
        }
        Ok(Commit {
            revision: self.revision,
            effects: wanted,
        })
    }

    fn revision_of(&self, key: &str) -> Option<Revision> {
        match self.pending.get(key) {
            Some(pending) => *pending,
            None => self.inner.current.get(key).map(|(revision, _)| *revision),
        }
    }
}

/// A watch: reads the history at its receiver's pace.
struct Follower {
    inner: std::sync::Weak<RwLock<Inner>>,
    prefix: String,
    seen: Revision,
    /// Shares `seen` with the history, which keeps later changes.
    position: Arc<AtomicU64>,
}

impl Follower {
    async fn run(
        mut self,
        mut wake: watch::Receiver<Revision>,
        sender: mpsc::Sender<Result<Change, StoreError>>,
    ) {
        loop {
            let news = self.news();
            let Some(news) = news else { return };
            let Ok(News { changes, more }) = news else {
                // The receiver may be gone.
                let _ = sender.send(Err(StoreError::Lagged)).await;
                return;
            };
            for change in changes {
                if sender.send(Ok(change)).await.is_err() {
                    return;
                }
            }
            if more {
                continue;
            }
            tokio::select! {
                changed = wake.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
        }
    }

    /// The changes since the last call, up to a limit; `None` when the store is gone.
    fn news(&mut self) -> Option<Result<News, StoreError>> {
        let inner = self.inner.upgrade()?;
        let inner = inner.read().unwrap_or_else(PoisonError::into_inner);
        if self.seen < inner.complete_after {
            return Some(Err(StoreError::Lagged));
        }
        let first = inner.tail.partition_point(|past| past.revision <= self.seen);
        let mut changes = Vec::new();
        // A watch may start at a future revision.
        let mut seen = self.seen.max(inner.revision);
        let mut more = false;
        let mut last = self.seen;
        for past in inner.tail.range(first..) {
            // Transactions are taken whole.
            if changes.len() >= HELPING && past.revision > last {
                (seen, more) = (last, true);
                break;
            }
            last = past.revision;
            if past.key.starts_with(&self.prefix) {
                changes.push(Change {
                    revision: past.revision,
                    key: past.key.clone(),
                    value: past.value.clone(),
                });
            }
        }
        self.seen = seen;
        self.position.store(seen.0, Ordering::Relaxed);
        Some(Ok(News { changes, more }))
    }
}

/// Changes that a watch takes out of the history at once.
struct News {
    changes: Vec<Change>,
    /// Whether more changes are available already.
    more: bool,
}
