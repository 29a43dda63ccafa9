//! The loop: the only place where the agent acts.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    time::Duration,
};

use agent_protocol::{DiskSeen, LEVEL, MachineConfig, ProcessState, Report};
use machine_etcd::prepare::QUICK_EXITS;
use machine_program::pause;
use nix::{
    sys::{
        prctl,
        signal::{Signal, kill, killpg},
    },
    unistd::{Pid, getpid},
};
use rustix::process::WaitOptions;

use crate::{
    Paths,
    console::{self, say, thread},
    contact::{Contact, Outbox},
    disk,
    news::News,
    probe::{self, Target, Targets},
    process,
    seen::{self, Statuses},
    signals,
    successor::{Answer, Handover, Successors},
    supervisor::{Action, Event, Job, Supervisor},
};

/// Interval of the log size check.
const LOG_CARE: Duration = Duration::from_secs(15);
/// Pause before the files of a configuration are written again after a failure.
const WRITE_RETRY: Duration = Duration::from_secs(2);
/// The grace for processes that are left after an orderly stop (mostly containers).
const LAST_GRACE: Duration = Duration::from_secs(3);
/// Interval of the check of processes' required paths and status files.
const LOOK: Duration = Duration::from_secs(1);
/// Lines of a log in a report, for a failing process.
const LINES: usize = 20;

/// Runs the machine below `root` until it is stopped; continues from the state that an earlier agent handed
/// over in a file, if any.
pub fn run(root: &Path, adopt: Option<&Path>) -> ExitCode {
    let paths = Paths::below(root);
    let signals = signals::waited_for();
    console::log_to(&paths.log("agent"));
    let config = disk::config(&paths);
    let generation = config.as_ref().map_or(0, |config| config.generation);
    let adopted = adopt.and_then(|file| adopt_from(file, generation));
    say(&format!(
        "version {} {} as process {}",
        env!("CARGO_PKG_VERSION"),
        if adopted.is_some() { "goes on" } else { "starts" },
        getpid()
    ));
    // Before any thread starts, so that all inherit the mask. Children get an empty mask: see
    // `process::start`.
    if let Err(error) = signals.thread_block() {
        say(&format!("cannot block signals: {error}"));
        return ExitCode::FAILURE;
    }
    if getpid().as_raw() != 1 {
        // Under test: orphaned descendants are re-parented to the agent as they would be to PID 1.
        if let Err(error) = prctl::set_child_subreaper(true) {
            say(&format!("cannot become the reaper: {error}"));
        }
    }
    let seed = match (disk::seed(&paths), &config) {
        (Ok(seed), _) => Some(seed),
        (Err(error), Some(_)) => {
            say(&format!("{error}; the machine runs on without the service"));
            None
        }
        (Err(error), None) => {
            say(&format!(
                "{error}; a machine without a seed cannot become anything"
            ));
            return ExitCode::FAILURE;
        }
    };

    let (news, inbox) = mpsc::channel();
    let outbox = Arc::new(Outbox::default());
    let targets = Arc::new(Targets::default());
    {
        let news = news.clone();
        thread("signals", move || {
            while news.send(News::Signal(signals::next(&signals))).is_ok() {}
        });
    }
    {
        let (paths, targets, news) = (paths.clone(), Arc::clone(&targets), news.clone());
        thread("probes", move || probe::run(&paths.machine("/"), &targets, &news));
    }
    let (boot, sequence, kept) = match adopted {
        Some(adopted) => (adopted.boot, adopted.sequence, Some(adopted.kept)),
        None => (boot_id(), 0, None),
    };
    let mut machine = Machine {
        boot,
        root: root.to_owned(),
        paths: paths.clone(),
        successors: Successors::default(),
        supervisor: Supervisor::default(),
        outbox: Arc::clone(&outbox),
        targets,
        sequence,
        config_error: None,
        pending: None,
        changed: BTreeSet::new(),
        statuses: Statuses::default(),
        disks: seen::disks(&paths),
        ended: false,
    };
    match (kept, config) {
        (Some(kept), config) => {
            machine.supervisor = Supervisor::again(config, kept, pause::monotonic());
            machine.feed(Event::Tick);
            // Signals of children that ended during the handover may be lost.
            machine.reap();
        }
        // The configuration in force is restored, whether the service is reachable or not.
        (None, Some(config)) => machine.configure(config),
        (None, None) => {}
    }
    let after = machine.supervisor.config().map_or(0, |config| config.generation);
    machine.report();
    if let Some(seed) = seed {
        start_contact(Contact::new(paths, seed), after, outbox, news.clone());
    }
    let ended = machine.run(&inbox);
    // Kept until here: without contact, this sender keeps the channel of signals and probes open.
    drop(news);
    ended
}

fn start_contact(contact: Contact, after: u64, outbox: Arc<Outbox>, news: Sender<News>) {
    thread("contact", move || contact.run(after, &outbox, &news));
}

/// The state left by the previous agent. If it is unusable, the running processes are unknown: all of them
/// are killed and started again, as at a start of the machine.
fn adopt_from(file: &Path, generation: u64) -> Option<Handover> {
    let read = Handover::read(file).and_then(|handover| {
        if handover.generation == generation {
            Ok(handover)
        } else {
            Err(format!("the configuration on disk is of generation {generation}"))
        }
    });
    match read {
        Ok(handover) => {
            pause::goes_on_from(handover.now);
            // Not needed any more; the next handover writes it again.
            let _gone = std::fs::remove_file(file);
            Some(handover)
        }
        Err(why) => {
            say(&format!("cannot continue from the previous agent: {why}"));
            if getpid().as_raw() == 1 {
                // No process left is the expected end.
                let _nobody = kill(Pid::from_raw(-1), Signal::SIGKILL);
            }
            None
        }
    }
}

/// A new random value for each start of the machine.
fn boot_id() -> String {
    // The kernel's generator needs neither a seed nor a clock.
    std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_or_else(|_| getpid().to_string(), |id| id.trim().to_owned())
}

struct Machine {
    boot: String,
    root: PathBuf,
    paths: Paths,
    successors: Successors,
    supervisor: Supervisor,
    outbox: Arc<Outbox>,
    targets: Arc<Targets>,
    sequence: u64,
    config_error: Option<String>,
    /// A configuration whose files could not be written, and the time of the next try.
    pending: Option<(MachineConfig, Duration)>,
    /// Files that were written while their processes have not been restarted yet.
    changed: BTreeSet<String>,
    statuses: Statuses,
    disks: Vec<DiskSeen>,
    ended: bool,
}

impl Machine {
    fn run(&mut self, inbox: &mpsc::Receiver<News>) -> ExitCode {
        let mut care_at = pause::monotonic() + LOG_CARE;
        let mut look_at = pause::monotonic() + LOOK;
        while !self.ended {
            let now = pause::monotonic();
            let retry_at = self.pending.as_ref().map(|(_, at)| *at);
            let look = self.has_to_look().then_some(look_at);
            let deadline = [self.supervisor.next_deadline(), retry_at, look]
                .into_iter()
                .flatten()
                .fold(care_at, Duration::min);
            match inbox.recv_timeout(deadline.saturating_sub(now)) {
                Ok(News::Config(config)) => self.take(config),
                Ok(News::Probed {
                    name,
                    pid,
                    ready,
                    answered,
                }) => self.feed(Event::Probed {
                    name,
                    pid,
                    ready,
                    answered,
                }),
                Ok(News::Agent(sha256)) => self.successors.expect(sha256),
                Ok(News::Signal(Signal::SIGCHLD)) => self.reap(),
                Ok(News::Signal(Signal::SIGTERM | Signal::SIGINT | Signal::SIGPWR)) => self.feed(Event::Stop),
                // Not passed on: these signals would end most programs.
                Ok(News::Signal(signal)) => say(&format!("{signal} is ignored")),
                Err(RecvTimeoutError::Timeout) => self.feed(Event::Tick),
                Err(RecvTimeoutError::Disconnected) => return ExitCode::FAILURE,
            }
            if let Some((config, _)) = self.pending.take_if(|(_, at)| *at <= pause::monotonic()) {
                self.configure(config);
            }
            if pause::monotonic() >= look_at {
                look_at = pause::monotonic() + LOOK;
                self.look();
            }
            if pause::monotonic() >= care_at {
                care_at = pause::monotonic() + LOG_CARE;
                for name in self.supervisor.processes().keys() {
                    process::bound(&self.paths.log(name));
                }
                let disks = seen::disks(&self.paths);
                if seen::is_news(&self.disks, &disks) {
                    self.disks = disks;
                    self.report();
                }
                self.look_for_successor();
            }
        }
        self.finish();
        ExitCode::SUCCESS
    }

    /// The state for a successor; `None` while a handover is not possible.
    fn handover(&self) -> Option<Handover> {
        if self.pending.is_some() || !self.changed.is_empty() {
            return None;
        }
        let generation = self.supervisor.config().map_or(0, |config| config.generation);
        let kept = self.supervisor.kept()?;
        Some(Handover::new(
            pause::monotonic(),
            &self.boot,
            self.sequence,
            generation,
            kept,
        ))
    }

    fn look_for_successor(&mut self) {
        if let Some(pid) = self.successors.hangs(pause::monotonic()) {
            signal_group(pid, Signal::SIGKILL);
        }
        let asked = match self.successors.waiting(&self.paths) {
            Ok(None) => return,
            Ok(Some(candidate)) => match self.handover() {
                Some(handover) => self
                    .successors
                    .ask(&self.paths, candidate, &handover, pause::monotonic()),
                None => return,
            },
            Err(why) => Err(why),
        };
        if let Err(why) = asked {
            say(&format!("another agent is available and not started: {why}"));
        }
    }

    /// The successor's check has ended.
    fn successor_answered(&mut self, answer: Answer) {
        let Answer::Can(candidate) = answer else {
            say("another agent is available and cannot take over: this one stays");
            return;
        };
        // A handover that is not possible now is tried again later.
        let Some(handover) = self.handover() else { return };
        say("another agent takes over");
        let why = self
            .successors
            .become_it(&self.paths, &candidate, &self.root, &handover);
        let Err(why) = why;
        say(&format!("the other agent cannot take over: {why}"));
    }

    /// Whether any process has required paths or a status file.
    fn has_to_look(&self) -> bool {
        let config = self.supervisor.config();
        config.is_some_and(|config| {
            let mut processes = config.processes.iter();
            processes.any(|process| process.status.is_some() || !process.needs.is_empty())
        })
    }

    fn look(&mut self) {
        let Some(config) = self.supervisor.config() else {
            return;
        };
        let said = self.statuses.look(&self.paths, &config.processes);
        let ready = self
            .supervisor
            .probed()
            .into_iter()
            .filter(|(_, _, ready)| *ready);
        let vanished: Vec<Event> = ready
            .filter_map(|(name, pid, _)| {
                let process = config.processes.iter().find(|process| process.name == name)?;
                let path = seen::vanished(&self.paths, process)?;
                Some(Event::Vanished { name, pid, path })
            })
            .collect();
        if said {
            self.report();
        }
        for event in vanished {
            self.feed(event);
        }
    }

    /// Handles a new configuration. One that waits for a retry counts as received.
    fn take(&mut self, config: MachineConfig) {
        let known = self.pending.as_ref().map(|(config, _)| config.generation);
        if known.is_none_or(|known| known < config.generation) {
            self.pending = None;
            self.configure(config);
        }
    }

    fn configure(&mut self, config: MachineConfig) {
        if !self.supervisor.accepts(config.generation) {
            return;
        }
        let before = self.supervisor.config().map_or(&[][..], |config| &config.files);
        let written = disk::write_files(&self.paths, &config.files, &mut self.changed)
            .and_then(|()| disk::remove_files(&self.paths, before, &config.files, &mut self.changed))
            .and_then(|()| disk::keep_config(&self.paths, &config));
        match written {
            Ok(()) => {
                let changed = std::mem::take(&mut self.changed);
                self.config_error = None;
                self.feed(Event::Configured { config, changed });
            }
            Err(error) => {
                use std::error::Error as _;
                let cause = error
                    .source()
                    .map(|source| format!(": {source}"))
                    .unwrap_or_default();
                let why = Some(format!("{error}{cause}"));
                if self.config_error != why {
                    let generation = config.generation;
                    say(&format!(
                        "generation {generation} does not come into force: {error}{cause}"
                    ));
                    self.config_error = why;
                    self.report();
                }
                self.pending = Some((config, pause::monotonic() + WRITE_RETRY));
            }
        }
    }

    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        let mut report = false;
        while let Some(event) = events.pop() {
            for action in self.supervisor.handle(pause::monotonic(), event) {
                match action {
                    Action::Start(job) => events.push(self.start(job)),
                    Action::Signal(pid, signal) => signal_group(pid, signal),
                    Action::Report => report = true,
                    Action::End => self.ended = true,
                }
            }
        }
        self.retarget();
        if report {
            self.report();
        }
    }

    fn start(&self, job: Job) -> Event {
        let config = self.supervisor.config();
        let none = BTreeMap::new();
        let mut counted = BTreeMap::new();
        let found = config.and_then(|config| match &job {
            Job::Setup(index) => Some(("setup".to_owned(), &config.setup.get(*index)?.argv, &none)),
            Job::Task(name) => {
                let task = config.tasks.iter().find(|task| task.name == *name)?;
                Some((name.clone(), &task.argv, &none))
            }
            Job::Process(name) => {
                let process = config.processes.iter().find(|process| process.name == *name)?;
                counted.clone_from(&process.env);
                // For programs that handle quick exits, such as `landfall-agent etcd`.
                let quick_exits = self.supervisor.quick_exits(name);
                if quick_exits > 0 {
                    counted.insert(QUICK_EXITS.to_owned(), quick_exits.to_string());
                }
                Some((name.clone(), &process.argv, &counted))
            }
        });
        match found
            .ok_or_else(|| "it is not configured".to_owned())
            .and_then(|(log, argv, env)| process::start(&self.paths, &log, argv, env))
        {
            Ok(pid) => Event::Started { job, pid },
            Err(why) => Event::NotStarted { job, why },
        }
    }

    /// Reaps every ended child, own and inherited ones.
    fn reap(&mut self) {
        loop {
            // Not nix's `wait`: it loses a child that was ended by a real-time signal.
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let how = match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => format!("exit status {code}"),
                        (None, Some(signal)) => format!("signal {signal}"),
                        // Stopped or continued: not an exit.
                        (None, None) => continue,
                    };
                    self.exited(pid, how, status.exit_status() == Some(0));
                }
                Ok(None) | Err(rustix::io::Errno::CHILD) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    say(&format!("cannot wait for children: {error}"));
                    return;
                }
            }
        }
    }

    fn exited(&mut self, pid: rustix::process::Pid, how: String, success: bool) {
        let Ok(pid) = u32::try_from(pid.as_raw_nonzero().get()) else {
            return;
        };
        match self.successors.answered(pid, success) {
            Some(answer) => self.successor_answered(answer),
            None => self.feed(Event::Exited { pid, how, success }),
        }
    }

    fn retarget(&self) {
        let config = self.supervisor.config();
        let list = self
            .supervisor
            .probed()
            .into_iter()
            .map(|(name, pid, ready)| {
                let probe = config
                    .and_then(|config| config.processes.iter().find(|process| process.name == name))
                    .and_then(|process| process.probe.clone());
                Target {
                    name,
                    pid,
                    ready,
                    probe,
                }
            })
            .collect();
        self.targets.set(list);
    }

    fn report(&mut self) {
        self.sequence += 1;
        let mut processes = self.supervisor.processes();
        for (name, seen) in &mut processes {
            seen.status = self.statuses.of(name);
            if matches!(seen.state, ProcessState::BackOff | ProcessState::Unready) {
                seen.last_lines = process::tail(&self.paths.log(name), LINES).unwrap_or_default();
            }
        }
        self.outbox.put(Report {
            sequence: self.sequence,
            boot: self.boot.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            agent_level: LEVEL,
            generation: self.supervisor.config().map_or(0, |config| config.generation),
            config_error: self
                .config_error
                .clone()
                .or_else(|| self.supervisor.setup_error().map(str::to_owned)),
            processes,
            tasks_done: self.supervisor.tasks_done(),
            agent_rss_kib: seen::rss_kib(),
            disks: self.disks.clone(),
        });
    }

    /// All processes have stopped in order; ends whatever else runs in the machine (containers).
    fn finish(&mut self) {
        if getpid().as_raw() != 1 {
            return;
        }
        let everybody = Pid::from_raw(-1);
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            // No process left is the expected end.
            let _nobody = kill(everybody, signal);
            let deadline = pause::monotonic() + LAST_GRACE;
            while pause::monotonic() < deadline {
                match rustix::process::wait(WaitOptions::NOHANG) {
                    Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                    Ok(None) => pause::sleep(Duration::from_millis(5)),
                    // No child is left, so no process is: all were descendants.
                    Err(_) => break,
                }
            }
        }
        nix::unistd::sync();
    }
}

/// Sends a signal to a process group. A group that has ended is no error.
fn signal_group(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _gone = killpg(Pid::from_raw(pid), signal);
    }
}
