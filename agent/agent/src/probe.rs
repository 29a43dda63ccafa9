//! Asking processes whether they are ready.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
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
pub type Targets = Arc<Mutex<Vec<Target>>>;

/// Asks for ever. A process without a probe is ready as soon as it runs.
pub fn run(paths: &Paths, targets: &Targets, news: &Sender<News>) {
    // By process id: when it was first seen, and when it is to be asked again.
    let mut seen: BTreeMap<u32, (Duration, Duration)> = BTreeMap::new();
    let mut clients: BTreeMap<String, ureq::Agent> = BTreeMap::new();
    loop {
        let list = targets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.retain(|pid, _| list.iter().any(|target| target.pid == *pid));
        for target in list {
            let now = pause::monotonic();
            let (first, due) = *seen.entry(target.pid).or_insert((now, now));
            if now < due {
                continue;
            }
            let ready = target
                .probe
                .as_ref()
                .is_none_or(|probe| ask(paths, &target.name, probe, &mut clients));
            let pause = match ready {
                true => RELAXED,
                false if now.saturating_sub(first) < EAGER_FOR => EAGER,
                false => SLOW,
            };
            seen.insert(target.pid, (first, pause::monotonic() + pause));
            if ready != target.ready
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
        let next = seen
            .values()
            .map(|(_, due)| due.saturating_sub(pause::monotonic()))
            .min();
        pause::sleep(next.unwrap_or(EAGER).clamp(Duration::from_millis(10), EAGER));
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
            let ready = clients[name]
                .get(url)
                .call()
                .is_ok_and(|answer| answer.status().as_u16() == 200);
            if !ready {
                clients.remove(name);
            }
            ready
        }
    }
}
