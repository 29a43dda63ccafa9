//! Messages from the threads to the loop.

use std::time::Duration;

use agent_protocol::MachineConfig;
use nix::sys::signal::Signal;

/// An event outside the loop.
pub enum News {
    /// A configuration arrived.
    Config(MachineConfig),
    /// The result of a probe changed.
    Probed {
        /// The name of the process.
        name: String,
        /// Its process id at the time of the probe.
        pid: u32,
        /// The result.
        ready: bool,
        /// The time of the last successful probe.
        answered: Duration,
    },
    /// The service offers this agent program: its SHA-256.
    Agent(String),
    /// A signal arrived.
    Signal(Signal),
}
