//! Events and actions of the supervisor.

use std::{collections::BTreeSet, time::Duration};

use agent_protocol::MachineConfig;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

/// A unit of work.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Job {
    /// The setup command with this index.
    Setup(usize),
    /// The task with this name.
    Task(String),
    /// The process with this name.
    Process(String),
}

/// An event.
#[derive(Debug)]
pub enum Event {
    /// A newer configuration is on disk and its files are written; `changed` are the paths that differed.
    Configured {
        /// The configuration.
        config: MachineConfig,
        /// Paths of files that differed.
        changed: BTreeSet<String>,
    },
    /// An action [`Action::Start`] succeeded.
    Started {
        /// The job.
        job: Job,
        /// The process id.
        pid: u32,
    },
    /// An action [`Action::Start`] failed.
    NotStarted {
        /// The job.
        job: Job,
        /// The reason.
        why: String,
    },
    /// A child ended.
    Exited {
        /// The process id.
        pid: u32,
        /// `exit status 1`, `signal 9`.
        how: String,
        /// Exit status 0.
        success: bool,
    },
    /// A probe succeeded or failed.
    Probed {
        /// The name of the process.
        name: String,
        /// Its process id at the time of the probe.
        pid: u32,
        /// Whether it is ready.
        ready: bool,
        /// The time of the last successful probe.
        answered: Duration,
    },
    /// A path that a process needs has vanished.
    Vanished {
        /// The name of the process.
        name: String,
        /// Its process id at the time of the check.
        pid: u32,
        /// The path.
        path: String,
    },
    /// The machine is to shut down.
    Stop,
    /// Time passed.
    Tick,
}

/// An action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start this job; the result is [`Event::Started`] or [`Event::NotStarted`].
    Start(Job),
    /// Send a signal.
    Signal(u32, Signal),
    /// A reported value has changed: send a report.
    Report,
    /// Everything is stopped: exit.
    End,
}
