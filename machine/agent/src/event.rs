//! What the supervisor hears, and what it wants done.

use std::{collections::BTreeSet, time::Duration};

use agent_protocol::MachineConfig;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Job {
    /// The setup command of this index.
    Setup(usize),
    /// The task of this name.
    Task(String),
    /// The process of this name.
    Process(String),
}

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// A newer configuration is on disk and its files are written; `changed` are the paths that were different.
    Configured {
        /// The configuration.
        config: MachineConfig,
        /// Paths of files that were different.
        changed: BTreeSet<String>,
    },
    /// An action [`Action::Start`] worked.
    Started {
        /// Of what.
        job: Job,
        /// As which process.
        pid: u32,
    },
    /// An action [`Action::Start`] did not work.
    NotStarted {
        /// Of what.
        job: Job,
        /// Why not.
        why: String,
    },
    /// A child ended.
    Exited {
        /// Which.
        pid: u32,
        /// `exit status 1`, `signal 9`.
        how: String,
        /// Exit status 0.
        success: bool,
    },
    /// A probe answered, or did not.
    Probed {
        /// Which process.
        name: String,
        /// Its process id when it was asked.
        pid: u32,
        /// Whether it is ready.
        ready: bool,
        /// When it last answered.
        answered: Duration,
    },
    /// A path that a process needs is gone.
    Vanished {
        /// Which process.
        name: String,
        /// Its process id when it was looked.
        pid: u32,
        /// The path.
        path: String,
    },
    /// The machine is to shut down.
    Stop,
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start this; answer with [`Event::Started`] or [`Event::NotStarted`].
    Start(Job),
    /// Send a signal.
    Signal(u32, Signal),
    /// Something worth a report changed.
    Report,
    /// Everything is stopped: end.
    End,
}
