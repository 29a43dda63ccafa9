//! Effects on what machines are configured with.

use super::subject::Subject;
use crate::Permit;

/// An effect on a machine's configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigEffect {
    /// Read a stored configuration and publish it again.
    Load(String),
    /// Compute, seal, store and publish a configuration.
    Render {
        /// Which machine's: it may have to start programs again for it.
        machine: Permit,
        /// Its generation.
        generation: u64,
        /// [`crate::Frame::config_inputs`] it is computed from.
        inputs: String,
    },
}

impl ConfigEffect {
    /// The names of all of them, as [`Self::name`] gives them.
    pub(super) const NAMES: [&'static str; 2] = ["config_load", "config_render"];

    /// Its name where effects are counted.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Load(_) => "config_load",
            Self::Render { .. } => "config_render",
        }
    }

    /// What it concerns.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Load(machine) => Subject::Config(machine.clone()),
            Self::Render { machine, .. } => Subject::Config(machine.machine().to_owned()),
        }
    }
}
