//! The next actions: pure. Events and the time in, actions out.
//!
//! ```text
//! configuration ──► setup, command by command ──► all processes and tasks; those with `after` once the others are ready
//!
//! process:  Waiting ──start──► Running ──exit──► Waiting (back-off 0.1 s … 10 s; forgotten after 30 s of running)
//!                                 ├─ does not answer for too long, or what it needs has vanished ──► SIGKILL ──exit──► Waiting
//!                                 └─ removed or changed ──► Stopping (SIGTERM, after the grace SIGKILL) ──exit──► gone, or Waiting
//! task:     as a process, until it succeeds once
//! ```
//!
//! Always true: at most one process with a name; a process is stopped before its changed version is started;
//! on shut-down all processes of a higher stop order have ended before the next ones are signalled.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use agent_protocol::{Command, MachineConfig, ProcessSeen, ProcessState};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

pub use crate::event::{Action, Event, Job};
use crate::{
    change,
    unit::{FIRST_BACK_OFF, Phase, Unit},
};

/// Pause before a failed setup command is retried.
const SETUP_RETRY: Duration = Duration::from_secs(1);
/// A setup command that takes longer counts as hanging: it is killed, reported and retried.
const SETUP_BOUND: Duration = Duration::from_secs(120);
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waits for a configuration.
    Idle,
    /// Runs setup commands, one after the other.
    Setup {
        /// The time of the next start; `None` while one runs.
        next_at: Option<Duration>,
    },
    /// Setup is done; processes and tasks run.
    Up,
    /// Shutting down.
    Down,
}

/// The state of a machine.
#[derive(Debug)]
pub struct Supervisor {
    config: Option<MachineConfig>,
    stage: Stage,
    /// Setup commands that succeeded in this boot. Later configurations may add others: a standby machine
    /// gets a role.
    setup_done: Vec<Command>,
    setup_running: Option<SetupRun>,
    setup_error: Option<String>,
    units: BTreeMap<Job, Unit>,
}

/// The running setup command. A copy, because the configuration may have changed when it ends.
#[derive(Debug)]
struct SetupRun {
    command: Command,
    /// `None` until it is started.
    pid: Option<u32>,
    /// The time when it counts as hanging; `None` after it was killed for that.
    kill_at: Option<Duration>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self {
            config: None,
            stage: Stage::Idle,
            setup_done: Vec::new(),
            setup_running: None,
            setup_error: None,
            units: BTreeMap::new(),
        }
    }
}

/// The supervisor's state for a successor agent.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    setup_done: Vec<Command>,
    units: Vec<(Job, Unit)>,
}

impl Supervisor {
    /// The state for a successor; `None` while an operation is under way that a successor could not continue.
    pub fn kept(&self) -> Option<Kept> {
        let settled = |unit: &Unit| !matches!(unit.phase, Phase::Starting | Phase::Stopping { .. });
        let calm = self.stage != Stage::Down && self.setup_running.is_none();
        (calm && self.units.values().all(settled)).then(|| Kept {
            setup_done: self.setup_done.clone(),
            units: self
                .units
                .iter()
                .map(|(job, unit)| (job.clone(), unit.clone()))
                .collect(),
        })
    }

    /// Continues from the state of another agent of this machine, under the same configuration.
    pub fn again(config: Option<MachineConfig>, kept: Kept, now: Duration) -> Self {
        let stage = match config {
            // Completed commands are skipped.
            Some(_) => Stage::Setup { next_at: Some(now) },
            None => Stage::Idle,
        };
        Self {
            config,
            stage,
            setup_done: kept.setup_done,
            units: kept.units.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> Option<&MachineConfig> {
        self.config.as_ref()
    }

    /// Whether a configuration may come into force: it is newer than the current one.
    pub fn accepts(&self, generation: u64) -> bool {
        self.stage != Stage::Down
            && self
                .config
                .as_ref()
                .is_none_or(|config| config.generation < generation)
    }

    /// The processes to probe: name, process id, last result.
    pub fn probed(&self) -> Vec<(String, u32, bool)> {
        self.units
            .iter()
            .filter_map(|(job, unit)| match (job, unit.phase) {
                (Job::Process(name), Phase::Running { pid, .. }) => {
                    Some((name.clone(), pid, unit.ready == Some(true)))
                }
                _ => None,
            })
            .collect()
    }

    /// The observed state of every process.
    pub fn processes(&self) -> BTreeMap<String, ProcessSeen> {
        self.units
            .iter()
            .filter_map(|(job, unit)| {
                let Job::Process(name) = job else { return None };
                let state = match (unit.phase, unit.ready) {
                    (Phase::Running { .. }, Some(true)) => ProcessState::Ready,
                    (Phase::Running { .. }, Some(false)) => ProcessState::Unready,
                    (Phase::Running { .. } | Phase::Starting, None) => ProcessState::Starting,
                    (Phase::Starting, Some(_)) => ProcessState::Starting,
                    (Phase::Waiting(_), _) if unit.last_exit.is_none() => ProcessState::Starting,
                    (Phase::Waiting(_), _) => ProcessState::BackOff,
                    (Phase::Stopping { .. } | Phase::Halted, _) => ProcessState::Stopped,
                };
                Some((
                    name.clone(),
                    ProcessSeen {
                        state,
                        pid: unit.pid(),
                        restarts: unit.restarts,
                        last_exit: unit.last_exit.clone(),
                        last_lines: Vec::new(),
                        hangs: unit.hangs,
                        status: None,
                    },
                ))
            })
            .collect()
    }

    /// The number of quick exits in a row of this process, without readiness in between.
    pub fn quick_exits(&self, name: &str) -> u32 {
        let unit = self.units.get(&Job::Process(name.to_owned()));
        unit.map_or(0, |unit| unit.quick_exits)
    }

    /// Names of the tasks that succeeded.
    pub fn tasks_done(&self) -> Vec<String> {
        self.units
            .iter()
            .filter_map(|(job, unit)| match job {
                Job::Task(name) if unit.done => Some(name.clone()),
                _ => None,
            })
            .collect()
    }

    /// The error that holds up setup, if any.
    pub fn setup_error(&self) -> Option<&str> {
        self.setup_error.as_deref()
    }

    /// The next time for [`Event::Tick`], if no event comes before.
    pub fn next_deadline(&self) -> Option<Duration> {
        let setup = match self.stage {
            Stage::Setup { next_at } => next_at,
            _ => None,
        };
        let hanging = self.setup_running.as_ref().and_then(|run| run.kill_at);
        let held = self.held();
        let units = self.units.iter().filter_map(|(job, unit)| match unit.phase {
            Phase::Waiting(_) if held.contains(job) => None,
            // In other stages units do not wait for time.
            Phase::Waiting(at) if self.stage == Stage::Up => Some(at),
            Phase::Stopping {
                kill_at,
                killed: false,
                ..
            } => Some(kill_at),
            _ => unit.hangs_at(),
        });
        units.chain(setup).chain(hanging).min()
    }

    /// Handles an event at this time; returns the actions.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Configured { config, changed } => self.configure(now, config, &changed, &mut actions),
            Event::Started { job, pid } => self.started(now, job, pid, &mut actions),
            Event::NotStarted {
                job: Job::Setup(_),
                why,
            } => self.setup_ended(now, &why, false, &mut actions),
            Event::NotStarted { job, why } => self.ended(now, &job, why, false, &mut actions),
            Event::Exited { pid, how, success } => {
                if self
                    .setup_running
                    .as_ref()
                    .is_some_and(|run| run.pid == Some(pid))
                {
                    self.setup_ended(now, &how, success, &mut actions);
                } else if let Some(job) = self
                    .units
                    .iter()
                    .find(|(_, unit)| unit.pid() == Some(pid))
                    .map(|(job, _)| job.clone())
                {
                    self.ended(now, &job, how, success, &mut actions);
                }
            }
            Event::Probed {
                name,
                pid,
                ready,
                answered,
            } => {
                if let Some(unit) = self.units.get_mut(&Job::Process(name.clone()))
                    && unit.pid() == Some(pid)
                {
                    unit.answered = answered;
                }
                self.note_probe(now, name, pid, ready, &mut actions);
            }
            Event::Vanished { name, pid, path } => {
                if let Some(unit) = self.units.get_mut(&Job::Process(name))
                    && unit.pid() == Some(pid)
                {
                    actions.extend(unit.kill(now, format!("killed, because {path} has vanished")));
                    actions.push(Action::Report);
                }
            }
            Event::Stop => {
                self.stage = Stage::Down;
                actions.push(Action::Report);
            }
            Event::Tick => {}
        }
        self.advance(now, &mut actions);
        actions
    }

    fn configure(
        &mut self,
        now: Duration,
        config: MachineConfig,
        changed: &BTreeSet<String>,
        actions: &mut Vec<Action>,
    ) {
        if self.stage == Stage::Down {
            return;
        }
        let others = change::others(self.config.as_ref(), &config, changed);
        let wanted = change::wanted(&config);

        for (job, unit) in &mut self.units {
            let stays = wanted.contains_key(job);
            let again = others.contains(job);
            unit.wanted = stays;
            if !stays || again {
                actions.extend(unit.stop(now));
            }
            if again {
                unit.done = false;
                unit.back_off = FIRST_BACK_OFF;
                // A failed unit may work with the new configuration.
                if matches!(unit.phase, Phase::Waiting(_) | Phase::Halted) {
                    unit.phase = Phase::Waiting(now);
                }
            }
        }
        self.units.retain(|job, unit| {
            wanted.contains_key(job) || unit.pid().is_some() || unit.phase == Phase::Starting
        });
        for (job, limits) in wanted {
            let unit = self.units.entry(job).or_insert_with(|| Unit::new(now));
            (unit.order, unit.grace, unit.hang) = (limits.order, limits.grace, limits.hang);
        }
        self.config = Some(config);
        // A running command belongs to the previous configuration; the next one is chosen when it ends.
        self.setup_error = None;
        self.stage = Stage::Setup {
            next_at: self.setup_running.is_none().then_some(now),
        };
        actions.push(Action::Report);
    }

    /// The first setup command of the configuration that has not succeeded in this boot.
    fn next_setup(&self) -> Option<(usize, &Command)> {
        let commands = &self.config.as_ref()?.setup;
        commands
            .iter()
            .enumerate()
            .find(|(_, command)| !self.setup_done.contains(command))
    }

    fn setup_ended(&mut self, now: Duration, how: &str, success: bool, actions: &mut Vec<Action>) {
        let Some(run) = self.setup_running.take() else {
            return;
        };
        let mut next_at = now;
        if success {
            self.setup_error = None;
            self.setup_done.push(run.command);
        } else {
            // Only the program: arguments may be confidential.
            let program = run.command.argv.first().map_or("", String::as_str);
            let hung = match run.kill_at {
                Some(_) => "",
                None => ", because it did not end by itself",
            };
            self.setup_error = Some(format!("the setup command {program} ended with {how}{hung}"));
            next_at += SETUP_RETRY;
        }
        if let Stage::Setup { .. } = self.stage {
            self.stage = Stage::Setup {
                next_at: Some(next_at),
            };
        }
        actions.push(Action::Report);
    }

    fn started(&mut self, now: Duration, job: Job, pid: u32, actions: &mut Vec<Action>) {
        if matches!(job, Job::Setup(_)) {
            if let Some(run) = &mut self.setup_running {
                run.pid = Some(pid);
            }
            return;
        }
        let down = self.stage == Stage::Down;
        if let Some(unit) = self.units.get_mut(&job) {
            unit.phase = Phase::Running { pid, since: now };
            unit.ready = None;
            if !unit.wanted && !down {
                actions.extend(unit.stop(now));
            }
        }
        if matches!(job, Job::Process(_)) {
            actions.push(Action::Report);
        }
    }

    /// A job ended, or could not be started.
    fn ended(&mut self, now: Duration, job: &Job, how: String, success: bool, actions: &mut Vec<Action>) {
        let down = self.stage == Stage::Down;
        let Some(unit) = self.units.get_mut(job) else {
            return;
        };
        let was_stopping = matches!(unit.phase, Phase::Stopping { .. }) && unit.killed_because.is_none();
        if down {
            unit.phase = Phase::Halted;
        } else if !unit.wanted {
            self.units.remove(job);
        } else if was_stopping {
            // Stopped for a restart.
            unit.ready = None;
            unit.phase = Phase::Waiting(now);
        } else if matches!(job, Job::Task(_)) && success {
            unit.done = true;
            unit.phase = Phase::Halted;
        } else {
            unit.fell(now, how);
        }
        actions.push(Action::Report);
    }

    fn note_probe(&mut self, now: Duration, name: String, pid: u32, ready: bool, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(&Job::Process(name)) else {
            return;
        };
        if unit.pid() != Some(pid) || !matches!(unit.phase, Phase::Running { .. }) {
            return;
        }
        let next = match (unit.ready, ready) {
            // Not ready yet differs from no longer ready.
            (None, false) => None,
            (_, ready) => Some(ready),
        };
        if next == unit.ready {
            return;
        }
        unit.ready = next;
        actions.push(Action::Report);
        if ready && !std::mem::replace(&mut unit.ever_ready, true) {
            // A failed unit may have waited for this process (an import for containerd). Once for each
            // process: otherwise two that keep ending would wake each other for ever.
            for unit in self.units.values_mut() {
                if matches!(unit.phase, Phase::Waiting(at) if at > now) {
                    unit.phase = Phase::Waiting(now);
                }
            }
        }
    }

    /// Performs all transitions that time and state allow.
    fn advance(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for unit in self.units.values_mut() {
            if unit.hangs_at().is_some_and(|at| now >= at) {
                let hang = unit.hang.unwrap_or_default().as_secs();
                let why = match unit.ready {
                    Some(_) => format!("killed, because it did not answer for {hang} s"),
                    None => "killed, because it never answered".to_owned(),
                };
                actions.extend(unit.kill(now, why));
                actions.push(Action::Report);
            }
            if let Phase::Stopping {
                pid,
                kill_at,
                killed: false,
            } = unit.phase
                && now >= kill_at
            {
                unit.phase = Phase::Stopping {
                    pid,
                    kill_at,
                    killed: true,
                };
                actions.push(Action::Signal(pid, Signal::SIGKILL));
            }
        }
        if let Some(run) = &mut self.setup_running
            && let (Some(pid), Some(_)) = (run.pid, run.kill_at.filter(|at| now >= *at))
        {
            run.kill_at = None;
            actions.push(Action::Signal(pid, Signal::SIGKILL));
        }
        match self.stage {
            Stage::Idle => {}
            Stage::Setup { next_at: Some(at) } if now >= at => {
                let next = self.next_setup().map(|(index, command)| (index, command.clone()));
                if let Some((index, command)) = next {
                    self.stage = Stage::Setup { next_at: None };
                    self.setup_running = Some(SetupRun {
                        command,
                        pid: None,
                        kill_at: Some(now + SETUP_BOUND),
                    });
                    actions.push(Action::Start(Job::Setup(index)));
                } else {
                    self.stage = Stage::Up;
                    self.start_due(now, actions);
                }
            }
            Stage::Setup { .. } => {}
            Stage::Up => self.start_due(now, actions),
            Stage::Down => self.stop_next(now, actions),
        }
    }

    /// Processes that are not started yet because a process they come after is not ready. They wait for its
    /// probe or for another configuration.
    fn held(&self) -> BTreeSet<Job> {
        let is_there = |name: &String| {
            let unit = self.units.get(&Job::Process(name.clone()));
            unit.is_none_or(|unit| matches!(unit.phase, Phase::Running { .. }) && unit.ready == Some(true))
        };
        let processes = self.config.iter().flat_map(|config| &config.processes);
        processes
            .filter(|process| !process.after.iter().all(is_there))
            .map(|process| Job::Process(process.name.clone()))
            .collect()
    }

    fn start_due(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let held = self.held();
        for (job, unit) in &mut self.units {
            if matches!(unit.phase, Phase::Waiting(at) if now >= at) && !held.contains(job) {
                unit.phase = Phase::Starting;
                actions.push(Action::Start(job.clone()));
            }
        }
    }

    /// Stops the running units of the highest stop order; ends when none is left.
    fn stop_next(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for unit in self.units.values_mut() {
            if matches!(unit.phase, Phase::Waiting(_)) {
                unit.phase = Phase::Halted;
            }
        }
        let running = self
            .units
            .values()
            .filter(|unit| unit.phase != Phase::Halted)
            .map(|unit| unit.order)
            .max();
        match running {
            None => actions.push(Action::End),
            Some(order) => {
                for unit in self.units.values_mut().filter(|unit| unit.order == order) {
                    actions.extend(unit.stop(now));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
