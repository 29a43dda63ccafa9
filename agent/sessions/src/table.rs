//! The session with each machine's agent, in memory: its configuration, its newest report, its last contact,
//! requested logs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agent_api::SILENT_AFTER;
use agent_protocol::{LogRequest, MachineConfig, Report};
use tokio::sync::{broadcast, oneshot, watch};

/// Wake-ups that a slow listener may miss; it then reads everything.
const WAKE_UPS: usize = 1024;

/// A machine whose last contact is exactly at the limit is not silent yet.
const TICK: Duration = Duration::from_millis(1);

/// One session per machine.
pub(crate) struct Table {
    machines: Mutex<BTreeMap<String, Session>>,
    changed: broadcast::Sender<String>,
}

struct Session {
    config: watch::Sender<Option<Arc<MachineConfig>>>,
    report: Option<Arc<Report>>,
    heard: Option<Duration>,
    /// Whether listeners were woken for this machine's silence.
    silent: bool,
    /// The number of its open long polls.
    lines: u32,
    /// The time when the agent closed the last long poll, if it has not called since.
    hung_up: Option<Duration>,
    /// Whether a caller asked about that: only then are listeners woken.
    watched: bool,
    token_spent: bool,
    /// Whether an enrolment with the right token and another key was requested, with no contact under the
    /// enrolled key since.
    lost_key: bool,
    /// Log requests that the agent has not received yet.
    wishes: Vec<LogRequest>,
    /// Callers that wait for a log, by request.
    waiting: BTreeMap<String, oneshot::Sender<String>>,
    /// Counts log requests, so that a long poll ends when one is added.
    nudge: watch::Sender<u64>,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            config: watch::Sender::new(None),
            report: None,
            heard: None,
            silent: false,
            lines: 0,
            hung_up: None,
            watched: false,
            token_spent: false,
            lost_key: false,
            wishes: Vec::new(),
            waiting: BTreeMap::new(),
            nudge: watch::Sender::new(0),
        }
    }
}

impl Default for Table {
    fn default() -> Self {
        Self {
            machines: Mutex::default(),
            changed: broadcast::Sender::new(WAKE_UPS),
        }
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Session>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn publish(&self, machine: &str, config: Arc<MachineConfig>) {
        let mut sessions = self.lock();
        let session = sessions.entry(machine.to_owned()).or_default();
        session.config.send_if_modified(|present| {
            let newer = present
                .as_ref()
                .is_none_or(|present| present.generation < config.generation);
            if newer {
                *present = Some(config);
            }
            newer
        });
    }

    pub(crate) fn forget(&self, machine: &str) {
        self.lock().remove(machine);
    }

    pub(crate) fn report(&self, machine: &str) -> Option<Arc<Report>> {
        self.lock().get(machine)?.report.clone()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<String> {
        self.changed.subscribe()
    }

    /// The time of the machine's last contact.
    pub(crate) fn heard(&self, machine: &str) -> Option<Duration> {
        self.lock().get(machine)?.heard
    }

    /// Notes a request of the machine. Returns `true` until the use of its token is recorded.
    pub(crate) fn hear(&self, machine: &str, now: Duration) -> bool {
        let mut sessions = self.lock();
        let session = sessions.entry(machine.to_owned()).or_default();
        session.heard = Some(now);
        session.lost_key = false;
        let called_again = session.hung_up.take().is_some() && session.watched;
        let back = std::mem::replace(&mut session.silent, false) || called_again;
        let unspent = !session.token_spent;
        drop(sessions);
        if back {
            self.wake(machine);
        }
        unspent
    }

    /// Notes the start of a long poll.
    pub(crate) fn line_begins(&self, machine: &str) {
        self.lock().entry(machine.to_owned()).or_default().lines += 1;
    }

    /// Notes the end of a long poll; `unanswered`: the time, if it was closed without an answer.
    pub(crate) fn line_ends(&self, machine: &str, unanswered: Option<Duration>) {
        let mut sessions = self.lock();
        // The session may have been removed meanwhile.
        let Some(session) = sessions.get_mut(machine) else {
            return;
        };
        session.lines = session.lines.saturating_sub(1);
        if unanswered.is_none() || session.lines > 0 {
            return;
        }
        session.hung_up = unanswered;
        let watched = session.watched;
        drop(sessions);
        if watched {
            self.wake(machine);
        }
    }

    /// The time when the machine hung up, if it has not called since. Later changes of it wake listeners.
    pub(crate) fn hung_up(&self, machine: &str) -> Option<Duration> {
        let mut sessions = self.lock();
        let session = sessions.get_mut(machine)?;
        session.watched = true;
        session.hung_up
    }

    /// Notes an enrolment request with another key. Returns whether this is new.
    pub(crate) fn lose_key(&self, machine: &str) -> bool {
        let mut sessions = self.lock();
        let session = sessions.entry(machine.to_owned()).or_default();
        let news = !std::mem::replace(&mut session.lost_key, true);
        drop(sessions);
        if news {
            self.wake(machine);
        }
        news
    }

    /// Whether [`Self::lose_key`] was noted and the machine has not called since.
    pub(crate) fn has_lost_key(&self, machine: &str) -> bool {
        self.lock().get(machine).is_some_and(|session| session.lost_key)
    }

    /// Notes that the use of this machine's token is recorded.
    pub(crate) fn token_spent(&self, machine: &str) {
        if let Some(session) = self.lock().get_mut(machine) {
            session.token_spent = true;
        }
    }

    /// Wakes the listeners for each machine that fell silent; returns the time of the next check.
    pub(crate) fn note_silence(&self, now: Duration) -> Duration {
        let (mut fell, mut next) = (Vec::new(), now + SILENT_AFTER);
        for (machine, session) in self.lock().iter_mut().filter(|(_, session)| !session.silent) {
            let Some(heard) = session.heard else { continue };
            // A machine is silent when its last contact is older than that.
            let due = heard + SILENT_AFTER + TICK;
            if due <= now {
                session.silent = true;
                fell.push(machine.clone());
            } else {
                next = next.min(due);
            }
        }
        for machine in &fell {
            self.wake(machine);
        }
        next
    }

    fn wake(&self, machine: &str) {
        // There may be no listener.
        let _listeners = self.changed.send(machine.to_owned());
    }

    /// The machine's configuration as it changes, and a nudge for log requests.
    pub(crate) fn listen(
        &self,
        machine: &str,
    ) -> (watch::Receiver<Option<Arc<MachineConfig>>>, watch::Receiver<u64>) {
        let mut sessions = self.lock();
        let session = sessions.entry(machine.to_owned()).or_default();
        (session.config.subscribe(), session.nudge.subscribe())
    }

    /// Stores a report; listeners are woken if its content is new.
    pub(crate) fn accept(&self, machine: &str, report: Report) -> Vec<LogRequest> {
        let mut sessions = self.lock();
        let session = sessions.entry(machine.to_owned()).or_default();
        let news = session
            .report
            .as_ref()
            .is_none_or(|before| differs(before, &report));
        // A report that was overtaken by a newer one of the same boot is dropped.
        let stale = session
            .report
            .as_ref()
            .is_some_and(|before| before.boot == report.boot && before.sequence > report.sequence);
        if !stale {
            session.report = Some(Arc::new(report));
        }
        let wishes = std::mem::take(&mut session.wishes);
        drop(sessions);
        if news && !stale {
            self.wake(machine);
        }
        wishes
    }

    /// Requests a log from the machine.
    pub(crate) fn ask_log(
        &self,
        machine: &str,
        request: &str,
        process: &str,
        lines: u32,
        containing: Option<&str>,
    ) -> oneshot::Receiver<String> {
        let (sender, receiver) = oneshot::channel();
        let mut sessions = self.lock();
        let session = sessions.entry(machine.to_owned()).or_default();
        session.wishes.push(LogRequest {
            request: request.to_owned(),
            process: process.to_owned(),
            lines,
            containing: containing.map(str::to_owned),
        });
        // Drop callers that gave up.
        session.waiting.retain(|_, waiting| !waiting.is_closed());
        session.waiting.insert(request.to_owned(), sender);
        session.nudge.send_modify(|count| *count += 1);
        receiver
    }

    /// Whether there are log requests that the agent has not received.
    pub(crate) fn has_wishes(&self, machine: &str) -> bool {
        self.lock()
            .get(machine)
            .is_some_and(|session| !session.wishes.is_empty())
    }

    /// Whether a report is requested: none is known, or log requests wait for its answer.
    pub(crate) fn wants_report(&self, machine: &str) -> bool {
        let sessions = self.lock();
        let session = sessions.get(machine);
        session.is_some_and(|session| session.report.is_none() || !session.wishes.is_empty())
    }

    /// The caller that waits for this log, if any: returned once.
    pub(crate) fn take_log_request(&self, machine: &str, request: &str) -> Option<oneshot::Sender<String>> {
        let asker = self.lock().get_mut(machine)?.waiting.remove(request)?;
        (!asker.is_closed()).then_some(asker)
    }
}

/// Whether a report differs from the earlier one in more than counters.
fn differs(before: &Report, now: &Report) -> bool {
    let essence = |report: &Report| Report {
        sequence: 0,
        agent_rss_kib: 0,
        ..report.clone()
    };
    essence(before) != essence(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(generation: u64) -> Arc<MachineConfig> {
        Arc::new(MachineConfig {
            generation,
            ..MachineConfig::default()
        })
    }

    #[test]
    fn an_older_configuration_never_replaces_a_newer_one() {
        let table = Table::default();
        table.publish("m", config(2));
        table.publish("m", config(1));
        let (config, _) = table.listen("m");
        assert_eq!(config.borrow().as_ref().unwrap().generation, 2);
    }

    #[test]
    fn a_machine_that_enrols_with_another_key_has_lost_its_own() {
        let table = Table::default();
        let mut wakes = table.subscribe();
        assert!(!table.has_lost_key("m"));
        assert!(table.lose_key("m"));
        assert_eq!(wakes.try_recv().ok().as_deref(), Some("m"));
        assert!(!table.lose_key("m"), "it asks again and again");
        assert!(wakes.try_recv().is_err());
        assert!(table.has_lost_key("m"));
        // The other request was not from the machine itself, which still has its key.
        table.hear("m", Duration::ZERO);
        assert!(!table.has_lost_key("m"));
        table.lose_key("m");
        // A new machine under the old name.
        table.forget("m");
        assert!(!table.has_lost_key("m"));
    }

    #[test]
    fn a_line_that_ends_unanswered_is_told_to_who_asks() {
        let table = Table::default();
        let mut wakes = table.subscribe();
        let at = Duration::from_secs;
        table.line_begins("m");
        table.line_ends("m", Some(at(1)));
        assert!(wakes.try_recv().is_err(), "nobody has asked");
        assert_eq!(table.hung_up("m"), Some(at(1)));
        table.hear("m", at(2));
        assert_eq!(wakes.try_recv().ok().as_deref(), Some("m"), "it calls again");
        assert_eq!(table.hung_up("m"), None);
        // One agent is replaced by another.
        table.line_begins("m");
        table.line_begins("m");
        table.line_ends("m", Some(at(3)));
        assert_eq!(table.hung_up("m"), None);
        table.line_ends("m", None);
        assert_eq!(table.hung_up("m"), None, "it was answered");
        table.line_begins("m");
        table.line_ends("m", Some(at(4)));
        assert_eq!(wakes.try_recv().ok().as_deref(), Some("m"));
        assert_eq!(table.hung_up("m"), Some(at(4)));
        table.forget("m");
        table.line_ends("m", Some(at(5)));
        assert_eq!(table.hung_up("m"), None);
    }

    #[test]
    fn only_news_wakes() {
        let table = Table::default();
        let mut wakes = table.subscribe();
        table.accept(
            "m",
            Report {
                sequence: 1,
                generation: 1,
                ..Report::default()
            },
        );
        table.accept(
            "m",
            Report {
                sequence: 2,
                generation: 1,
                agent_rss_kib: 9,
                ..Report::default()
            },
        );
        table.accept(
            "m",
            Report {
                sequence: 3,
                generation: 2,
                ..Report::default()
            },
        );
        assert!(wakes.try_recv().is_ok());
        assert!(wakes.try_recv().is_ok());
        assert!(wakes.try_recv().is_err());
        assert_eq!(table.report("m").unwrap().sequence, 3);
    }

    #[test]
    fn silence_wakes_once_and_so_does_coming_back() {
        let table = Table::default();
        let mut wakes = table.subscribe();
        let at = Duration::from_secs;
        // Without any contact there is only the default interval to wait for.
        table.publish("never-heard", config(1));
        assert_eq!(table.note_silence(at(0)), SILENT_AFTER);
        table.hear("a", at(10));
        table.hear("b", at(30));
        assert_eq!(table.note_silence(at(40)), at(10) + SILENT_AFTER + TICK);
        assert_eq!(
            table.note_silence(at(10) + SILENT_AFTER),
            at(10) + SILENT_AFTER + TICK
        );
        assert!(wakes.try_recv().is_err());
        let next = table.note_silence(at(10) + SILENT_AFTER + TICK);
        assert_eq!(next, at(30) + SILENT_AFTER + TICK);
        assert_eq!(wakes.try_recv().unwrap(), "a");
        table.note_silence(at(70));
        assert!(wakes.try_recv().is_err());
        table.hear("a", at(71));
        assert_eq!(wakes.try_recv().unwrap(), "a");
        table.hear("a", at(72));
        assert!(wakes.try_recv().is_err());
    }

    #[test]
    fn a_token_is_spent_when_that_is_written_down() {
        let table = Table::default();
        assert!(table.hear("m", Duration::ZERO));
        assert!(table.hear("m", Duration::ZERO));
        table.token_spent("m");
        assert!(!table.hear("m", Duration::ZERO));
    }

    #[test]
    fn an_overtaken_report_is_not_kept() {
        let table = Table::default();
        table.accept(
            "m",
            Report {
                sequence: 5,
                ..Report::default()
            },
        );
        table.accept(
            "m",
            Report {
                sequence: 4,
                generation: 9,
                ..Report::default()
            },
        );
        assert_eq!(table.report("m").unwrap().sequence, 5);
        table.accept(
            "m",
            Report {
                sequence: 1,
                boot: "next".into(),
                ..Report::default()
            },
        );
        assert_eq!(table.report("m").unwrap().boot, "next");
    }

    #[tokio::test]
    async fn a_log_is_taken_once_and_only_when_somebody_waits_for_it() {
        let table = Table::default();
        let answer = table.ask_log("m", "r1", "kubelet", 10, None);
        assert!(table.take_log_request("m", "r2").is_none());
        assert!(table.take_log_request("n", "r1").is_none());
        let asker = table.take_log_request("m", "r1").unwrap();
        assert!(table.take_log_request("m", "r1").is_none());
        asker.send("text".to_owned()).unwrap();
        assert_eq!(answer.await.unwrap(), "text");
        drop(table.ask_log("m", "r3", "kubelet", 10, None));
        assert!(table.take_log_request("m", "r3").is_none());
    }
}
