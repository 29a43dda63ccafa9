//! What the threads tell the loop.

use std::time::Duration;

use agent_protocol::MachineConfig;
use nix::sys::signal::Signal;

/// Something that happened outside the loop.
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
        /// When it last answered.
        answered: Duration,
    },
    /// The service has said which program agents are to be: its SHA-256.
    Agent(String),
    /// A signal arrived.
    Signal(Signal),
}
