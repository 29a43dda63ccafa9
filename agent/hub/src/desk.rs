//! What is said to and heard from each machine, in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agent_protocol::{LogRequest, MachineConfig, Report};
use tokio::sync::{broadcast, oneshot, watch};

/// Wake-ups that a slow listener may miss; it then looks at everything.
const WAKE_UPS: usize = 1024;

/// One entry a machine.
pub(crate) struct Desk {
    machines: Mutex<BTreeMap<String, Entry>>,
    changed: broadcast::Sender<String>,
}

struct Entry {
    config: watch::Sender<Option<Arc<MachineConfig>>>,
    report: Option<Arc<Report>>,
    heard: Option<Duration>,
    token_spent: bool,
    /// Wishes not yet told to the agent.
    wishes: Vec<LogRequest>,
    /// Those who wait, by request.
    waiting: BTreeMap<String, oneshot::Sender<String>>,
    /// Counts wishes, so that a long poll ends when there is one.
    nudge: watch::Sender<u64>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            config: watch::Sender::new(None),
            report: None,
            heard: None,
            token_spent: false,
            wishes: Vec::new(),
            waiting: BTreeMap::new(),
            nudge: watch::Sender::new(0),
        }
    }
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            machines: Mutex::default(),
            changed: broadcast::Sender::new(WAKE_UPS),
        }
    }
}

impl Desk {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn publish(&self, machine: &str, config: Arc<MachineConfig>) {
        let mut entries = self.entries();
        let entry = entries.entry(machine.to_owned()).or_default();
        entry.config.send_if_modified(|present| {
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
        self.entries().remove(machine);
    }

    pub(crate) fn report(&self, machine: &str) -> Option<Arc<Report>> {
        self.entries().get(machine)?.report.clone()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<String> {
        self.changed.subscribe()
    }

    /// When the machine was heard of last.
    pub(crate) fn heard(&self, machine: &str) -> Option<Duration> {
        self.entries().get(machine)?.heard
    }

    /// The machine asked for something. `true` the first time, when its token has to be spent.
    pub(crate) fn hear(&self, machine: &str, now: Duration) -> bool {
        let mut entries = self.entries();
        let entry = entries.entry(machine.to_owned()).or_default();
        entry.heard = Some(now);
        !std::mem::replace(&mut entry.token_spent, true)
    }

    /// The machine's configuration as it changes, and a nudge when a log is wished for.
    pub(crate) fn listen(
        &self,
        machine: &str,
    ) -> (watch::Receiver<Option<Arc<MachineConfig>>>, watch::Receiver<u64>) {
        let mut entries = self.entries();
        let entry = entries.entry(machine.to_owned()).or_default();
        (entry.config.subscribe(), entry.nudge.subscribe())
    }

    /// Keeps a report; the loops are woken if its content is new.
    pub(crate) fn accept(&self, machine: &str, report: Report) -> Vec<LogRequest> {
        let mut entries = self.entries();
        let entry = entries.entry(machine.to_owned()).or_default();
        let news = entry
            .report
            .as_ref()
            .is_none_or(|before| differs(before, &report));
        // A report that was overtaken by a newer one of the same boot is not kept.
        let stale = entry
            .report
            .as_ref()
            .is_some_and(|before| before.boot == report.boot && before.sequence > report.sequence);
        if !stale {
            entry.report = Some(Arc::new(report));
        }
        let wishes = std::mem::take(&mut entry.wishes);
        drop(entries);
        if news && !stale {
            // Nobody listening is fine.
            let _listeners = self.changed.send(machine.to_owned());
        }
        wishes
    }

    /// Puts a wish for a log on the machine's list.
    pub(crate) fn ask_log(
        &self,
        machine: &str,
        request: &str,
        process: &str,
        lines: u32,
    ) -> oneshot::Receiver<String> {
        let (sender, receiver) = oneshot::channel();
        let mut entries = self.entries();
        let entry = entries.entry(machine.to_owned()).or_default();
        entry.wishes.push(LogRequest {
            request: request.to_owned(),
            process: process.to_owned(),
            lines,
        });
        // Whoever gave up waiting is gone.
        entry.waiting.retain(|_, waiting| !waiting.is_closed());
        entry.waiting.insert(request.to_owned(), sender);
        entry.nudge.send_modify(|count| *count += 1);
        receiver
    }

    /// Whether there are wishes that the agent was not told of.
    pub(crate) fn has_wishes(&self, machine: &str) -> bool {
        self.entries()
            .get(machine)
            .is_some_and(|entry| !entry.wishes.is_empty())
    }

    /// A log arrived.
    pub(crate) fn answer_log(&self, machine: &str, request: &str, text: String) {
        if let Some(waiting) = self
            .entries()
            .get_mut(machine)
            .and_then(|entry| entry.waiting.remove(request))
        {
            // Whoever asked may have given up.
            let _gone = waiting.send(text);
        }
    }
}

/// Whether a report tells something new, beyond counters.
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
        let desk = Desk::default();
        desk.publish("m", config(2));
        desk.publish("m", config(1));
        let (config, _) = desk.listen("m");
        assert_eq!(config.borrow().as_ref().unwrap().generation, 2);
    }

    #[test]
    fn only_news_wakes() {
        let desk = Desk::default();
        let mut wakes = desk.subscribe();
        desk.accept(
            "m",
            Report {
                sequence: 1,
                generation: 1,
                ..Report::default()
            },
        );
        desk.accept(
            "m",
            Report {
                sequence: 2,
                generation: 1,
                agent_rss_kib: 9,
                ..Report::default()
            },
        );
        desk.accept(
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
        assert_eq!(desk.report("m").unwrap().sequence, 3);
    }

    #[test]
    fn an_overtaken_report_is_not_kept() {
        let desk = Desk::default();
        desk.accept(
            "m",
            Report {
                sequence: 5,
                ..Report::default()
            },
        );
        desk.accept(
            "m",
            Report {
                sequence: 4,
                generation: 9,
                ..Report::default()
            },
        );
        assert_eq!(desk.report("m").unwrap().sequence, 5);
        desk.accept(
            "m",
            Report {
                sequence: 1,
                boot: "next".into(),
                ..Report::default()
            },
        );
        assert_eq!(desk.report("m").unwrap().boot, "next");
    }
}
