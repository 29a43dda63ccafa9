//! The agents of the world's machines.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use agent_api::{Agents, LogError};
use agent_protocol::{MachineConfig, ProcessSeen, ProcessState, Report};
use async_trait::async_trait;
use fabric_api::Power;
use tokio::sync::broadcast;

use crate::{
    Inner, SimWorld,
    faults::{Call, Verdict},
    options::{Span, draw},
    state::{Machine, State},
};

/// Resident memory that a simulated agent claims, KiB.
const RSS_KIB: u64 = 6144;

/// Lines that a log has at most.
const LINES_MAX: u32 = 10_000;

impl Inner {
    /// Does something after a while.
    pub(crate) fn later(self: &Arc<Self>, wait: Duration, act: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            inner.env.clock.sleep(wait).await;
            act(&inner);
        });
    }

    /// A delay of a machine, drawn by its name, what it is for, and which time it is.
    pub(crate) fn delay(&self, span: &Span, machine: &str, what: &str, index: u64) -> Duration {
        draw(span, self.env.seed.child(machine).child(what), index)
    }

    /// A machine was started: its agent will come up.
    pub(crate) fn boot(self: &Arc<Self>, id: &str, boot: u64) {
        let wait = self.delay(&self.options.boot, id, "boot", boot);
        let id = id.to_owned();
        self.later(wait, move |inner| {
            let mut state = inner.state();
            let Some(machine) = current(&mut state, &id, boot) else {
                return;
            };
            machine.up = true;
            let generation = machine.in_force.as_ref().map(|config| config.generation);
            inner.report(&mut state, &id);
            // It has on disk what it needs to go on alone.
            if let Some(generation) = generation {
                inner.start_processes(&mut state, &id, generation);
            }
            inner.pull(&mut state, &id);
        });
    }

    /// The service came back: the agent dials in again.
    pub(crate) fn dial_again(self: &Arc<Self>, id: &str, boot: u64) {
        let wait = self.delay(&self.options.config, id, "dial", boot);
        let id = id.to_owned();
        self.later(wait, move |inner| {
            let mut state = inner.state();
            if current(&mut state, &id, boot).is_some() {
                inner.report(&mut state, &id);
                inner.pull(&mut state, &id);
            }
        });
    }

    /// The agent takes what is published for it, if it is up.
    fn pull(self: &Arc<Self>, state: &mut State, id: &str) {
        let Some(config) = state.published.get(id).cloned() else {
            return;
        };
        let Some(machine) = state.machines.get(id).filter(|machine| machine.up) else {
            return;
        };
        let (boot, generation) = (machine.boot, config.generation);
        let wait = self.delay(&self.options.config, id, "config", generation);
        let id = id.to_owned();
        self.later(wait, move |inner| inner.take(&id, boot, &config));
    }

    fn take(self: &Arc<Self>, id: &str, boot: u64, config: &Arc<MachineConfig>) {
        let mut state = self.state();
        if state.forgotten.contains(id) {
            return;
        }
        let Some(machine) = current(&mut state, id, boot).filter(|machine| machine.up) else {
            return;
        };
        let have = machine.in_force.as_ref().map_or(0, |config| config.generation);
        if config.generation <= have {
            if config.generation < have {
                self.refuse(&mut state, id, config.generation, have);
            }
            return;
        }
        machine.in_force = Some(Arc::clone(config));
        self.start_processes(&mut state, id, config.generation);
    }

    /// A configuration is put into force: its processes start, and will be ready.
    fn start_processes(self: &Arc<Self>, state: &mut State, id: &str, generation: u64) {
        let Some(machine) = state.machines.get_mut(id) else {
            return;
        };
        let (boot, role) = (
            machine.boot,
            machine
                .in_force
                .as_ref()
                .map(|config| config.role.clone())
                .unwrap_or_default(),
        );
        machine.ready = false;
        let cluster = machine.cluster().map(str::to_owned);
        self.report(state, id);
        if let Some(cluster) = &cluster {
            state.cluster(cluster).changed();
            self.join_nodes(state, cluster);
        }
        let span = match role.as_str() {
            "control-plane" => &self.options.api_ready,
            "node" => &self.options.node_ready,
            _ => &self.options.config,
        };
        let wait = self.delay(span, id, "processes", generation ^ boot << 32);
        let id = id.to_owned();
        self.later(wait, move |inner| {
            let mut state = inner.state();
            let Some(machine) = current(&mut state, &id, boot) else {
                return;
            };
            let still = machine
                .in_force
                .as_ref()
                .is_some_and(|config| config.generation == generation);
            if !still || machine.ready {
                return;
            }
            machine.ready = true;
            inner.report(&mut state, &id);
            if let Some(cluster) = cluster {
                state.cluster(&cluster).changed();
                inner.join_nodes(&mut state, &cluster);
            }
        });
    }

    /// The agent tells the service how its machine is.
    fn report(&self, state: &mut State, id: &str) {
        if let Some(machine) = state.machines.get_mut(id) {
            machine.sequence += 1;
            let report = content(machine);
            self.deliver(state, id, report);
        }
    }

    fn refuse(&self, state: &mut State, id: &str, offered: u64, have: u64) {
        if let Some(machine) = state.machines.get_mut(id) {
            machine.sequence += 1;
            let mut report = content(machine);
            report.config_error = Some(format!(
                "generation {offered} is older than {have}, which is in force"
            ));
            self.deliver(state, id, report);
        }
    }

    fn deliver(&self, state: &mut State, id: &str, report: Report) {
        if state.forgotten.contains(id) {
            return;
        }
        if let Some(machine) = state.machines.get_mut(id) {
            machine.report = Some(Arc::new(report));
        }
        // Nobody may be listening.
        let _ = self.reports.send(id.to_owned());
    }
}

/// The machine, if it still runs from the start that is meant.
fn current<'a>(state: &'a mut State, id: &str, boot: u64) -> Option<&'a mut Machine> {
    state
        .machines
        .get_mut(id)
        .filter(|machine| machine.boot == boot && machine.power == Power::Running)
}

fn content(machine: &Machine) -> Report {
    let config = machine.in_force.as_deref();
    let processes: BTreeMap<String, ProcessSeen> = config
        .map_or(&[][..], |config| &config.processes)
        .iter()
        .enumerate()
        .map(|(number, process)| {
            let seen = ProcessSeen {
                state: if machine.ready {
                    ProcessState::Ready
                } else {
                    ProcessState::Starting
                },
                pid: u32::try_from(number).ok().map(|number| number + 100),
                restarts: 0,
                last_exit: None,
                last_lines: Vec::new(),
                hangs: 0,
                status: None,
            };
            (process.name.clone(), seen)
        })
        .collect();
    let tasks = config.map_or(&[][..], |config| &config.tasks);
    Report {
        sequence: machine.sequence,
        boot: format!("{}-{}", machine.spec.id, machine.boot),
        agent_version: "simulated".into(),
        generation: config.map_or(0, |config| config.generation),
        config_error: None,
        processes,
        tasks_done: if machine.ready {
            tasks.iter().map(|task| task.name.clone()).collect()
        } else {
            Vec::new()
        },
        agent_rss_kib: RSS_KIB,
        disks: Vec::new(),
    }
}

#[async_trait]
impl Agents for SimWorld {
    fn publish(&self, machine: &str, config: Arc<MachineConfig>) {
        let mut state = self.inner.state();
        state.forgotten.remove(machine);
        state.published.insert(machine.to_owned(), config);
        self.inner.pull(&mut state, machine);
    }

    fn forget(&self, machine: &str) {
        let mut state = self.inner.state();
        state.published.remove(machine);
        state.forgotten.insert(machine.to_owned());
        if let Some(machine) = state.machines.get_mut(machine) {
            machine.report = None;
        }
    }

    fn report(&self, machine: &str) -> Option<Arc<Report>> {
        self.inner.state().machines.get(machine)?.report.clone()
    }

    fn contact(&self, machine: &str) -> Option<Duration> {
        // A machine that is up asks all the time.
        self.inner
            .state()
            .machines
            .get(machine)?
            .up
            .then_some(Duration::ZERO)
    }

    fn subscribe(&self) -> broadcast::Receiver<String> {
        self.inner.reports.subscribe()
    }

    async fn logs(&self, machine: &str, process: &str, lines: u32) -> Result<String, LogError> {
        let mut state = self.inner.state();
        let verdict = state
            .faults
            .judge(Call::Logs, self.inner.env.seed, self.inner.options.failure_rate);
        if verdict != Verdict::Works {
            return Err(LogError::Timeout(machine.to_owned()));
        }
        if !state.machines.get(machine).is_some_and(|machine| machine.up) {
            return Err(LogError::Away(machine.to_owned()));
        }
        Ok((1..=lines.min(LINES_MAX))
            .map(|line| format!("{process} on {machine}: simulated line {line}\n"))
            .collect())
    }
}
