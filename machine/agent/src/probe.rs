//! The thread that probes processes for readiness.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Condvar, Mutex, PoisonError, mpsc::Sender},
    time::Duration,
};

use agent_protocol::Probe;
use machine_program::{
    pause,
    probe::{Asker, is_stopped},
};

use crate::news::News;

/// Probe interval until a process is ready…
const EAGER: Duration = Duration::from_millis(50);
/// …later, if the process starts slowly…
const SLOW: Duration = Duration::from_millis(500);
const EAGER_FOR: Duration = Duration::from_secs(30);
/// …and once it is ready.
const RELAXED: Duration = Duration::from_secs(10);
const BOUND: Duration = Duration::from_secs(2);
/// Interval after a ready process has failed a probe.
const DOUBT: Duration = Duration::from_secs(1);
/// Number of failed probes in a row after which a ready process counts as not ready.
const LOST_AFTER: u32 = 3;

/// A process to probe.
#[derive(Debug, Clone)]
pub struct Target {
    /// The name of the process.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// The last result.
    pub ready: bool,
    /// The probe.
    pub probe: Option<Probe>,
}

/// The list of processes, kept by the loop and read by the probe thread.
#[derive(Default)]
pub struct Targets {
    list: Mutex<Vec<Target>>,
    changed: Condvar,
}

impl Targets {
    /// Replaces the list. Wakes the probe thread if a process was added.
    pub fn set(&self, list: Vec<Target>) {
        let mut held = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let new = |target: &Target| !held.iter().any(|held| held.pid == target.pid);
        let wake = list.iter().any(new);
        *held = list;
        drop(held);
        if wake {
            self.changed.notify_one();
        }
    }

    fn get(&self) -> Vec<Target> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the list has a process that is not in `known`, at most for `bound`; without a bound, for
    /// ever.
    fn wait<T>(&self, known: &BTreeMap<u32, T>, bound: Option<Duration>) {
        let all_known = |list: &mut Vec<Target>| list.iter().all(|target| known.contains_key(&target.pid));
        let held = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        match bound {
            Some(bound) => drop(
                self.changed
                    .wait_timeout_while(held, bound, all_known)
                    .unwrap_or_else(PoisonError::into_inner),
            ),
            None => drop(
                self.changed
                    .wait_while(held, all_known)
                    .unwrap_or_else(PoisonError::into_inner),
            ),
        }
    }
}

/// The probe state of a process.
struct Turn {
    /// The time when it was added to the list.
    first: Duration,
    due: Duration,
    /// Failed probes in a row.
    missed: u32,
    /// The time of the last successful probe.
    answered: Duration,
    asker: Asker,
}

/// Probes for ever. A process without a probe is ready as soon as it runs.
pub fn run(root: &Path, targets: &Targets, news: &Sender<News>) {
    // By process id.
    let mut turns: BTreeMap<u32, Turn> = BTreeMap::new();
    loop {
        let list = targets.get();
        turns.retain(|pid, _| list.iter().any(|target| target.pid == *pid));
        for target in list {
            let now = pause::monotonic();
            let turn = turns.entry(target.pid).or_insert(Turn {
                first: now,
                due: now,
                missed: 0,
                answered: now,
                asker: Asker::default(),
            });
            if now < turn.due {
                continue;
            }
            let probe = target.probe.as_ref();
            let ready =
                !is_stopped(target.pid) && probe.is_none_or(|probe| turn.asker.ask(root, probe, BOUND));
            if ready {
                turn.answered = now;
            }
            turn.missed = if ready { 0 } else { turn.missed.saturating_add(1) };
            let pause = match ready {
                true => RELAXED,
                false if target.ready => DOUBT,
                false if now.saturating_sub(turn.first) < EAGER_FOR => EAGER,
                false => SLOW,
            };
            turn.due = pause::monotonic() + pause;
            // A busy process may fail one or two probes.
            let doubt = target.ready && !ready && turn.missed < LOST_AFTER;
            if ready != target.ready
                && !doubt
                && news
                    .send(News::Probed {
                        name: target.name,
                        pid: target.pid,
                        ready,
                        answered: turn.answered,
                    })
                    .is_err()
            {
                return;
            }
        }
        let now = pause::monotonic();
        let next = turns.values().map(|turn| turn.due.saturating_sub(now)).min();
        targets.wait(&turns, next);
    }
}
