//! Asking processes whether they are ready.

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

/// Until a process is ready, it is asked this often…
const EAGER: Duration = Duration::from_millis(50);
/// …and for a slow one, after a while, this often…
const SLOW: Duration = Duration::from_millis(500);
const EAGER_FOR: Duration = Duration::from_secs(30);
/// …and once it is, this often.
const RELAXED: Duration = Duration::from_secs(10);
const BOUND: Duration = Duration::from_secs(2);
/// Who was ready and does not answer is asked again after this.
const DOUBT: Duration = Duration::from_secs(1);
/// Who was ready is so until it did not answer this often.
const LOST_AFTER: u32 = 3;

/// Who is to be asked.
#[derive(Debug, Clone)]
pub struct Target {
    /// Which process.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// Whether it was ready the last time.
    pub ready: bool,
    /// How.
    pub probe: Option<Probe>,
}

/// The list that the loop keeps and the probe thread reads.
#[derive(Default)]
pub struct Targets {
    list: Mutex<Vec<Target>>,
    changed: Condvar,
}

impl Targets {
    /// Replaces the list. The probe thread is woken when somebody is new on it.
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

    /// Waits until somebody is on the list who is not in `known`, at most for `bound`; without one, for as long as it takes.
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

/// When somebody is asked again.
struct Turn {
    /// When it was first on the list.
    first: Duration,
    due: Duration,
    /// How often it did not answer since it last did.
    missed: u32,
    /// When it last did.
    answered: Duration,
    asker: Asker,
}

/// Asks for ever. A process without a probe is ready as soon as it runs.
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
            // A busy machine may miss one or two.
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
