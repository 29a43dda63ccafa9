//! The agent: first process of every machine.
//!
//! ```text
//!  service ◄── enrol, long poll, report ──► contact threads ─┐ configurations
//!  signals (SIGCHLD, SIGTERM) ──► signal thread ─────────────┼──► one loop ──► supervisor (pure) ──► actions
//!  probes ──► probe thread ──────────────────────────────────┘                start, signal, write, report, end
//! ```
//!
//! The loop in [`run`] is the only one that acts; [`supervisor`] decides and does nothing else. The configuration in force
//! is on disk, so a machine that starts again needs no service.
//!
//! After an upgrade of the service the agent becomes its [`successor`]; nothing else in the machine notices.
//!
//! Always true: a configuration of a lower generation than the one in force is refused; nothing that runs survives the
//! agent (as first process of a pid namespace the kernel sees to that); what a file or a key contains is never logged.

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

/// Where the agent keeps and finds things. Everything lies below `root`, which is `/` except in tests.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// Below this directory.
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

    /// The agent that the fabric has put there.
    pub(crate) fn agent(&self) -> PathBuf {
        self.machine(agent_protocol::AGENT_PATH)
    }

    /// What one agent tells the next.
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
