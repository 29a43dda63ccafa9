//! Asking processes whether they are ready.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::net::UnixStream,
    sync::{Condvar, Mutex, PoisonError, mpsc::Sender},
    time::Duration,
};

use agent_protocol::Probe;

use crate::{Paths, contact::client, pause, run::News};

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

/// An answer longer than this is not one to a probe.
const LARGEST: u64 = 64 * 1024;

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
}

/// Asks for ever. A process without a probe is ready as soon as it runs.
pub fn run(paths: &Paths, targets: &Targets, news: &Sender<News>) {
    // By process id.
    let mut turns: BTreeMap<u32, Turn> = BTreeMap::new();
    let mut clients: BTreeMap<String, ureq::Agent> = BTreeMap::new();
    loop {
        let list = targets.get();
        turns.retain(|pid, _| list.iter().any(|target| target.pid == *pid));
        clients.retain(|name, _| list.iter().any(|target| target.name == *name));
        for target in list {
            let now = pause::monotonic();
            let turn = turns.entry(target.pid).or_insert(Turn {
                first: now,
                due: now,
                missed: 0,
            });
            if now < turn.due {
                continue;
            }
            let ready = target
                .probe
                .as_ref()
                .is_none_or(|probe| ask(paths, &target.name, probe, &mut clients));
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

fn ask(paths: &Paths, name: &str, probe: &Probe, clients: &mut BTreeMap<String, ureq::Agent>) -> bool {
    match probe {
        Probe::Unix { path } => UnixStream::connect(paths.machine(path)).is_ok(),
        Probe::Http { url, ca, identity } => {
            if !clients.contains_key(name) {
                // Files may not be there yet, or be written anew: an unready process gets a new client each time.
                let read = |path: &String| fs::read_to_string(paths.machine(path)).ok();
                let ca = ca.as_ref().and_then(read);
                let identity = identity
                    .as_ref()
                    .and_then(|(certificate, key)| Some((read(certificate)?, read(key)?)));
                let Some(client) = client(ca.as_deref(), identity.as_ref(), BOUND) else {
                    return false;
                };
                clients.insert(name.to_owned(), client);
            }
            let ready = clients[name].get(url).call().is_ok_and(|mut answer| {
                let ok = answer.status().as_u16() == 200;
                // Read to the end, the connection serves the next probe as well.
                ok && answer
                    .body_mut()
                    .with_config()
                    .limit(LARGEST)
                    .read_to_vec()
                    .is_ok()
            });
            if !ready {
                clients.remove(name);
            }
            ready
        }
    }
}
