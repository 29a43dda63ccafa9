//! When clusters are to be looked at by a part of the service: at once, at an instant, or when they are what they are to be.
//!
//! Always true: a cluster that was looked at is looked at again for what [`Next`] says alone, or for a change that the part knows to matter.
//!
//! Called by: channels and deadlines, which say themselves what a change of the store means.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use providers_containerservice::Next;

/// Clocks jump: nothing is slept through for longer than this.
pub(crate) const LONGEST: Duration = Duration::from_secs(60 * 60);

/// Which clusters are to be looked at, by uid. `K`: all that there are, with what a part has to know of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Agenda<K> {
    pub(crate) now: BTreeSet<String>,
    /// When each is, where it is not at once.
    pub(crate) later: BTreeMap<String, Timestamp>,
    /// Those that are when they are what they are to be.
    pub(crate) reached: BTreeSet<String>,
    pub(crate) known: K,
}

impl<K> Agenda<K> {
    /// A cluster is gone.
    pub(crate) fn forget(&mut self, uid: &str) {
        self.now.remove(uid);
        self.later.remove(uid);
        self.reached.remove(uid);
    }

    /// A cluster was looked at.
    pub(crate) fn looked(&mut self, uid: String, next: Next) {
        self.later.remove(&uid);
        self.reached.remove(&uid);
        match next {
            Next::Changed => {}
            Next::Reached => {
                self.reached.insert(uid);
            }
            Next::At(at) => {
                self.later.insert(uid, at);
            }
        }
    }

    /// Those whose time has come are to be looked at.
    pub(crate) fn come(&mut self, now: Timestamp) {
        let due = self.later.iter().filter(|(_, at)| **at <= now);
        let due: Vec<String> = due.map(|(uid, _)| uid.clone()).collect();
        for uid in due {
            self.later.remove(&uid);
            self.now.insert(uid);
        }
    }

    /// How long nothing is to be looked at, unless something changes.
    pub(crate) fn pause(&self, now: Timestamp) -> Duration {
        let first = self.later.values().min();
        first.map_or(LONGEST, |at| {
            let left = at.duration_since(now);
            if left.is_positive() {
                left.unsigned_abs().min(LONGEST)
            } else {
                Duration::ZERO
            }
        })
    }
}
