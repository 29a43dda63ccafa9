//! The agent: first process of every machine.
//!
//! ```text
//!  service ◄── enrol, long poll, report ──► contact threads ─┐ configurations
//!  signals (SIGCHLD, SIGTERM) ──► signal thread ─────────────┼──► one loop ──► supervisor (pure) ──► actions
//!  probes ──► probe thread ──────────────────────────────────┘                start, signal, write, report, end
//! ```
//!
//! Only the loop in [`run`] acts; [`supervisor`] only decides. The configuration in force is on disk, so a
//! machine that restarts needs no service.
//!
//! After an upgrade of the service the agent replaces itself with its [`successor`]; all other processes keep
//! running.
//!
//! Always true: a configuration with a lower generation than the one in force is refused; no process of the
//! machine outlives the agent (it is the first process of a pid namespace, so the kernel kills the others);
//! contents of files and keys are never logged.

mod change;
mod console;
pub mod contact;
pub mod disk;
mod event;
pub mod news;
pub mod probe;
pub mod process;
pub mod run;
mod seen;
mod signals;
pub mod successor;
pub mod supervisor;
mod unit;

use std::path::{Path, PathBuf};

/// The agent's paths. Everything lies below `root`, which is `/` except in tests.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// Paths below this directory.
    pub fn below(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// An absolute path of the machine, below the root.
    pub fn machine(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(crate) fn seed(&self) -> PathBuf {
        self.machine(agent_protocol::SEED_PATH)
    }

    /// The agent binary provided by the fabric.
    pub(crate) fn agent(&self) -> PathBuf {
        self.machine(agent_protocol::AGENT_PATH)
    }

    /// The file that an agent hands over to its successor.
    pub(crate) fn handover(&self) -> PathBuf {
        self.machine("/run/landfall-agent.json")
    }

    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.machine("/var/lib/landfall-agent").join(name)
    }

    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.machine("/var/log/landfall").join(format!("{process}.log"))
    }
}
