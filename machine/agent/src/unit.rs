//! One thing that is run, and where it is in its life.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::event::Action;

pub(crate) const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
pub(crate) const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
/// After running so long, an end is a new story.
pub(crate) const STABLE: Duration = Duration::from_secs(30);
/// One that never answered yet gets this many times as long before it counts as hanging: a start may be slow.
const START_FACTOR: u32 = 3;

/// Handed from one agent to the next as it is (see `handover`): a field that is added needs a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    pub(crate) order: u8,
    pub(crate) grace: Duration,
    /// How long it may not answer before it counts as hanging.
    pub(crate) hang: Option<Duration>,
    pub(crate) phase: Phase,
    pub(crate) ready: Option<bool>,
    /// When it last answered, as far as is known: exact when it does not answer any more.
    pub(crate) answered: Duration,
    pub(crate) restarts: u32,
    pub(crate) hangs: u32,
    /// How often it ended soon, one time after the other, without having been ready.
    pub(crate) quick_exits: u32,
    pub(crate) back_off: Duration,
    pub(crate) last_exit: Option<String>,
    /// Why it was killed, if it was.
    pub(crate) killed_because: Option<String>,
    /// Whether it was ready at any time in this boot.
    pub(crate) ever_ready: bool,
    /// Whether it is still wanted after it has stopped.
    pub(crate) wanted: bool,
    pub(crate) done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// To be started then.
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
    /// Told to be still during shut-down.
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

    /// Begins to stop it, if it runs.
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

    /// Kills it at once, if it runs: it would not hear anything else, or must not write any more.
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

    /// When it counts as hanging, if nothing happens before.
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

    /// It ended by itself, was killed, or could not be started; it is to be started again.
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
