//! A unit, and its state.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::event::Action;

pub(crate) const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
pub(crate) const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
/// After running this long, an exit is not a quick one.
pub(crate) const STABLE: Duration = Duration::from_secs(30);
/// A process that has not answered yet gets this multiple of its limit before it counts as hanging: a start
/// may be slow.
const START_FACTOR: u32 = 3;

/// Passed from one agent to the next in this format (see `handover`): a new field needs a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    pub(crate) order: u8,
    pub(crate) grace: Duration,
    /// The time without an answer after which it counts as hanging.
    pub(crate) hang: Option<Duration>,
    pub(crate) phase: Phase,
    pub(crate) ready: Option<bool>,
    /// The time of the last answer, as far as known: exact when it no longer answers.
    pub(crate) answered: Duration,
    pub(crate) restarts: u32,
    pub(crate) hangs: u32,
    /// The number of quick exits in a row, without readiness in between.
    pub(crate) quick_exits: u32,
    pub(crate) back_off: Duration,
    pub(crate) last_exit: Option<String>,
    /// The reason why it was killed, if it was.
    pub(crate) killed_because: Option<String>,
    /// Whether it was ready at any time in this boot.
    pub(crate) ever_ready: bool,
    /// Whether it is started again after it has stopped.
    pub(crate) wanted: bool,
    pub(crate) done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Starts at this time.
    Waiting(Duration),
    /// Being started by the loop.
    Starting,
    Running {
        pid: u32,
        since: Duration,
    },
    Stopping {
        pid: u32,
        kill_at: Duration,
        killed: bool,
    },
    /// Stopped for shut-down.
    Halted,
}

impl Unit {
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            order: 0,
            grace: Duration::ZERO,
            hang: None,
            phase: Phase::Waiting(now),
            ready: None,
            answered: now,
            restarts: 0,
            hangs: 0,
            quick_exits: 0,
            back_off: FIRST_BACK_OFF,
            last_exit: None,
            killed_because: None,
            ever_ready: false,
            wanted: true,
            done: false,
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        match self.phase {
            Phase::Running { pid, .. } | Phase::Stopping { pid, .. } => Some(pid),
            _ => None,
        }
    }

    /// Starts to stop it, if it runs.
    pub(crate) fn stop(&mut self, now: Duration) -> Option<Action> {
        let Phase::Running { pid, .. } = self.phase else {
            return None;
        };
        self.phase = Phase::Stopping {
            pid,
            kill_at: now + self.grace,
            killed: false,
        };
        Some(Action::Signal(pid, Signal::SIGTERM))
    }

    /// Kills it at once, if it runs: it would not react to SIGTERM, or must not write any more.
    pub(crate) fn kill(&mut self, now: Duration, because: String) -> Option<Action> {
        let Phase::Running { pid, .. } = self.phase else {
            return None;
        };
        self.hangs += 1;
        self.killed_because = Some(because);
        self.phase = Phase::Stopping {
            pid,
            kill_at: now,
            killed: true,
        };
        Some(Action::Signal(pid, Signal::SIGKILL))
    }

    /// The time when it counts as hanging, if no event comes before.
    pub(crate) fn hangs_at(&self) -> Option<Duration> {
        let (Phase::Running { since, .. }, Some(hang)) = (self.phase, self.hang) else {
            return None;
        };
        match self.ready {
            Some(true) => None,
            Some(false) => Some(self.answered + hang),
            None => Some(since + hang * START_FACTOR),
        }
    }

    /// It exited, was killed, or could not be started; it is started again.
    pub(crate) fn fell(&mut self, now: Duration, how: String) {
        let killed = self.killed_because.take();
        let ran = match self.phase {
            Phase::Running { since, .. } => now.saturating_sub(since),
            _ => Duration::ZERO,
        };
        if ran >= STABLE || killed.is_some() {
            self.back_off = FIRST_BACK_OFF;
        }
        self.quick_exits = match self.ready {
            None if ran < STABLE && killed.is_none() => self.quick_exits + 1,
            _ => 0,
        };
        self.ready = None;
        self.last_exit = Some(killed.unwrap_or(how));
        self.restarts += 1;
        self.phase = Phase::Waiting(now + self.back_off);
        self.back_off = (self.back_off * 2).min(LONGEST_BACK_OFF);
    }
}
