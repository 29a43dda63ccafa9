//! State shared by the threads of the backup.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agent_protocol::programs::BackupStatus;
use cluster_backup::ObjectName;
use jiff::Timestamp;

/// Above this number of frames, the age of the oldest one is only approximate.
const PENDING: usize = 4096;

/// The progress of recording and shipping.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Whether this member's machine writes and ships.
    pub(crate) leads: bool,
    /// The newest finished base.
    pub(crate) base: Option<ObjectName>,
    /// The last revision on this machine's disk.
    pub(crate) written: i64,
    /// The last revision that the service acknowledged.
    pub(crate) acknowledged: i64,
    /// The time of the newest base at the service, milliseconds since 1970.
    pub(crate) base_shipped: i64,
    /// Frames that are written and not acknowledged: last revision and first time of each.
    pending: VecDeque<(i64, i64)>,
    /// Counts histories: the shipper's knowledge of one is not valid for the next.
    pub(crate) history: u64,
    /// A base is being made, or is scheduled.
    pub(crate) base_coming: bool,
    /// A base is requested at once.
    pub(crate) base_wished: bool,
    /// The number of objects that could not be shipped, and the reason for the last one.
    given_up: (u32, Option<String>),
    /// The error that stops writing.
    pub(crate) writing: Option<String>,
    /// The error that stops shipping.
    pub(crate) shipping: Option<String>,
}

impl State {
    /// Notes a frame that was written to the disk.
    pub(crate) fn wrote(&mut self, last: i64, first_seen: i64) {
        self.written = last;
        if self.pending.len() < PENDING {
            self.pending.push_back((last, first_seen));
        }
    }

    /// Notes that the service has everything up to a revision.
    pub(crate) fn acknowledge(&mut self, last: i64) {
        self.acknowledged = last;
        while self.pending.front().is_some_and(|(pending, _)| *pending <= last) {
            self.pending.pop_front();
        }
    }

    /// Starts another history: pending frames have no meaning any more.
    pub(crate) fn begin(&mut self, revision: i64) {
        self.written = revision;
        self.history += 1;
        self.pending.clear();
    }

    /// Notes an object that can never be shipped: a new base makes it unnecessary.
    pub(crate) fn give_up(&mut self, why: String) {
        self.given_up.0 += 1;
        self.given_up.1 = Some(why);
        self.base_wished = true;
        self.base_coming = true;
    }

    /// The status for people and the service. Coarse on purpose: each change of it is sent to the service at
    /// once.
    pub(crate) fn status(&self, now: i64) -> BackupStatus {
        let lag = self.pending.front().map_or(0, |(_, seen)| (now - seen).max(0));
        BackupStatus {
            ships: self.leads,
            base_at: self
                .base
                .and_then(|base| Timestamp::from_millisecond(base.until()).ok()),
            written: self.written,
            acknowledged: self.acknowledged,
            lag_ms: match u64::try_from(lag).unwrap_or(0) {
                below if below < 2000 => 0,
                lag => lag / 1000 * 1000,
            },
            problem: self.writing.clone().or_else(|| self.shipping.clone()),
            given_up: self.given_up.0,
            gave_up: self.given_up.1.clone(),
        }
    }
}

/// The state, and a condition variable.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ring(&self) {
        self.changed.notify_all();
    }

    /// Waits until there is something to ship.
    pub(crate) fn wait_for_work(&self, bound: Duration, work: impl Fn(&State) -> bool) {
        let _ = self
            .changed
            .wait_timeout_while(self.state(), bound, |state| !work(state))
            .unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_age_of_the_oldest_that_is_not_acknowledged() {
        let mut state = State::default();
        state.wrote(5, 1_000);
        state.wrote(9, 4_000);
        assert_eq!(state.status(10_000).lag_ms, 9_000);
        state.acknowledge(5);
        assert_eq!(state.status(10_900).lag_ms, 6_000);
        assert_eq!(state.status(4_900).lag_ms, 0);
        state.acknowledge(9);
        assert_eq!(state.status(99_000).lag_ms, 0);
    }
}
