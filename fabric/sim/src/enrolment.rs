//! The identity of a machine and its agent, and the state of its contact with the service
//! ([`crate::contact`]).

use std::collections::BTreeMap;

use agent_protocol::{SEED_PATH, Seed};
use agent_sessions::Sessions;
use tokio::task::JoinHandle;

/// A task that ends when this is dropped.
pub(crate) struct Tied(JoinHandle<()>);

impl Tied {
    pub(crate) fn to(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Tied {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The service, as agents reach it.
pub(crate) struct Service {
    pub(crate) sessions: Sessions,
    pub(crate) _silence: Tied,
}

/// An agent's identity on its disk.
#[derive(Clone)]
pub(crate) struct Identity {
    /// Stands for the key's SHA-256.
    pub(crate) key: String,
    /// Whether it has its certificate.
    pub(crate) enrolled: bool,
}

impl Identity {
    /// A unique key of an agent, created in this boot of the machine.
    pub(crate) fn new(id: &str, boot: u64) -> Self {
        Self {
            key: format!("{id}-{boot}"),
            enrolled: false,
        }
    }
}

impl Identity {
    /// Another key, because the disk has lost the previous one.
    pub(crate) fn anew(&self) -> Self {
        Self {
            key: format!("{}-anew", self.key),
            enrolled: false,
        }
    }
}

/// The token in a machine's seed.
pub(crate) fn token(seed_files: &BTreeMap<String, String>) -> Option<String> {
    let seed: Seed = serde_json::from_str(seed_files.get(SEED_PATH)?).ok()?;
    Some(seed.token)
}
