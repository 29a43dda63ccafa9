//! The loop: the only place where the agent acts.

use std::{
    collections::BTreeMap,
    path::Path,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    time::Duration,
};

use agent_protocol::{MachineConfig, ProcessState, Report};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, Signal, kill, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpid},
};

use crate::{
    Paths,
    contact::{Contact, Outbox},
    disk, pause,
    probe::{self, Target, Targets},
    process,
    supervisor::{Action, Event, Job, Supervisor},
};

/// Logs are kept within bounds this often.
const LOG_CARE: Duration = Duration::from_secs(60);
/// What is left after an orderly stop (containers, mostly) gets this long.
const LAST_GRACE: Duration = Duration::from_secs(3);
/// Lines of a log in a report, for a process that is in trouble.
const LINES: usize = 20;
/// Small stacks: a machine has better uses for its memory.
const STACK: usize = 256 * 1024;

/// What the threads tell the loop.
pub enum News {
    /// A configuration arrived.
    Config(MachineConfig),
    /// A probe answered otherwise than before.
    Probed {
        /// Which process.
        name: String,
        /// Its process id when it was asked.
        pid: u32,
        /// The answer.
        ready: bool,
    },
    /// A signal arrived.
    Signal(Signal),
}

/// Says something on the console.
#[expect(clippy::print_stderr, reason = "standard error is the machine's console")]
pub(crate) fn say(line: &str) {
    eprintln!("landfall-agent: {line}");
}

/// A thread with a small stack. One that cannot be had is fatal: PID 1 that does half its work helps nobody.
pub(crate) fn thread(name: &str, work: impl FnOnce() + Send + 'static) {
    let spawned = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        .spawn(work);
    if let Err(error) = spawned {
        say(&format!("cannot start the {name} thread: {error}"));
        std::process::exit(1);
    }
}

/// Runs the machine below `root` until it is told to stop.
pub fn run(root: &Path) -> ExitCode {
    let paths = Paths::below(root);
    let signals: SigSet = [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGPWR,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ]
    .into_iter()
    .collect();
    // Before any thread starts, so that all inherit it. Children get an empty mask from the standard library.
    if let Err(error) = signals.thread_block() {
        say(&format!("cannot block signals: {error}"));
        return ExitCode::FAILURE;
    }
    if getpid().as_raw() != 1 {
        // Under test: what our children leave behind comes to us all the same.
        if let Err(error) = prctl::set_child_subreaper(true) {
            say(&format!("cannot become the reaper: {error}"));
        }
    }
    let seed = match disk::seed(&paths) {
        Ok(seed) => seed,
        Err(error) => {
            say(&format!(
                "{error}; a machine without a seed cannot become anything"
            ));
            return ExitCode::FAILURE;
        }
    };

    let (news, inbox) = mpsc::channel();
    let outbox = Arc::new(Outbox::default());
    let targets = Targets::default();
    {
        let news = news.clone();
        thread("signals", move || {
            while let Ok(signal) = signals.wait() {
                if news.send(News::Signal(signal)).is_err() {
                    return;
                }
            }
        });
    }
    {
        let (paths, targets, news) = (paths.clone(), Arc::clone(&targets), news.clone());
        thread("probes", move || probe::run(&paths, &targets, &news));
    }
    let mut machine = Machine {
        boot: boot_id(),
        paths: paths.clone(),
        supervisor: Supervisor::default(),
        outbox: Arc::clone(&outbox),
        targets,
        sequence: 0,
        config_error: None,
        ended: false,
    };
    // What was in force before comes into force again, whether the service is there or not.
    if let Some(config) = disk::config(&paths) {
        machine.configure(config);
    }
    let after = machine.supervisor.config().map_or(0, |config| config.generation);
    machine.report();
    start_contact(Contact::new(paths, seed), after, outbox, news);
    machine.run(&inbox)
}

fn start_contact(contact: Contact, after: u64, outbox: Arc<Outbox>, news: Sender<News>) {
    thread("contact", move || contact.run(after, &outbox, &news));
}

/// A new value each time the machine starts.
fn boot_id() -> String {
    // The kernel's generator needs no seed and no clock of ours.
    std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_or_else(|_| getpid().to_string(), |id| id.trim().to_owned())
}

struct Machine {
    boot: String,
    paths: Paths,
    supervisor: Supervisor,
    outbox: Arc<Outbox>,
    targets: Arc<Mutex<Vec<Target>>>,
    sequence: u64,
    config_error: Option<String>,
    ended: bool,
}

impl Machine {
    fn run(&mut self, inbox: &mpsc::Receiver<News>) -> ExitCode {
        let mut care_at = pause::monotonic() + LOG_CARE;
        while !self.ended {
            let now = pause::monotonic();
            let deadline = self.supervisor.next_deadline().unwrap_or(care_at).min(care_at);
            match inbox.recv_timeout(deadline.saturating_sub(now)) {
                Ok(News::Config(config)) => self.configure(config),
                Ok(News::Probed { name, pid, ready }) => self.feed(Event::Probed { name, pid, ready }),
                Ok(News::Signal(Signal::SIGCHLD)) => self.reap(),
                Ok(News::Signal(Signal::SIGTERM | Signal::SIGINT | Signal::SIGPWR)) => self.feed(Event::Stop),
                Ok(News::Signal(signal)) => self.forward(signal),
                Err(RecvTimeoutError::Timeout) => self.feed(Event::Tick),
                Err(RecvTimeoutError::Disconnected) => return ExitCode::FAILURE,
            }
            if pause::monotonic() >= care_at {
                care_at = pause::monotonic() + LOG_CARE;
                for name in self.supervisor.processes().keys() {
                    process::bound(&self.paths.log(name));
                }
            }
        }
        self.finish();
        ExitCode::SUCCESS
    }

    fn configure(&mut self, config: MachineConfig) {
        if !self.supervisor.accepts(config.generation) {
            return;
        }
        let written = disk::write_files(&self.paths, &config.files).and_then(|changed| {
            disk::keep_config(&self.paths, &config)?;
            Ok(changed)
        });
        match written {
            Ok(changed) => {
                self.config_error = None;
                self.feed(Event::Configured { config, changed });
            }
            Err(error) => {
                use std::error::Error as _;
                let cause = error
                    .source()
                    .map(|source| format!(": {source}"))
                    .unwrap_or_default();
                say(&format!(
                    "generation {} does not come into force: {error}{cause}",
                    config.generation
                ));
                self.config_error = Some(format!("{error}{cause}"));
                self.report();
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
        let found = config.and_then(|config| match &job {
            Job::Setup(index) => Some(("setup".to_owned(), &config.setup.get(*index)?.argv, &none)),
            Job::Task(name) => {
                let task = config.tasks.iter().find(|task| task.name == *name)?;
                Some((name.clone(), &task.argv, &none))
            }
            Job::Process(name) => {
                let process = config.processes.iter().find(|process| process.name == *name)?;
                Some((name.clone(), &process.argv, &process.env))
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

    /// Collects every child that ended, our own and those we inherited.
    fn reap(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => {
                    self.exited(pid, format!("exit status {code}"), code == 0)
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.exited(pid, format!("signal {}", signal as i32), false);
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => {
                    say(&format!("cannot wait for children: {error}"));
                    return;
                }
            }
        }
    }

    fn exited(&mut self, pid: Pid, how: String, success: bool) {
        if let Ok(pid) = u32::try_from(pid.as_raw()) {
            self.feed(Event::Exited { pid, how, success });
        }
    }

    fn forward(&self, signal: Signal) {
        for (_, pid, _) in self.supervisor.probed() {
            signal_group(pid, signal);
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
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner) = list;
    }

    fn report(&mut self) {
        self.sequence += 1;
        let mut processes = self.supervisor.processes();
        for (name, seen) in &mut processes {
            if matches!(seen.state, ProcessState::BackOff | ProcessState::Unready) {
                seen.last_lines = process::tail(&self.paths.log(name), LINES).unwrap_or_default();
            }
        }
        self.outbox.put(Report {
            sequence: self.sequence,
            boot: self.boot.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.supervisor.config().map_or(0, |config| config.generation),
            config_error: self
                .config_error
                .clone()
                .or_else(|| self.supervisor.setup_error().map(str::to_owned)),
            processes,
            tasks_done: self.supervisor.tasks_done(),
            agent_rss_kib: rss_kib(),
        });
    }

    /// The processes are gone in order; whatever else runs in the machine (containers) goes now.
    fn finish(&mut self) {
        if getpid().as_raw() != 1 {
            return;
        }
        let everybody = Pid::from_raw(-1);
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            // Nobody left to signal is what is wanted.
            let _nobody = kill(everybody, signal);
            let deadline = pause::monotonic() + LAST_GRACE;
            while waitpid(None, Some(WaitPidFlag::WNOHANG)) != Err(Errno::ECHILD)
                && pause::monotonic() < deadline
            {
                pause::sleep(Duration::from_millis(20));
            }
        }
        nix::unistd::sync();
    }
}

/// A process and what it started itself. One that is gone already is no error.
fn signal_group(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _gone = killpg(Pid::from_raw(pid), signal);
    }
}

fn rss_kib() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            status.lines().find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .trim()
                    .strip_suffix(" kB")?
                    .trim()
                    .parse()
                    .ok()
            })
        })
        .unwrap_or_default()
}
