//! What a machine and its agent have to be known by, and what is held while agent and service are in contact ([`crate::contact`]).

use std::collections::BTreeMap;

use agent_protocol::{SEED_PATH, Seed};
use agent_sessions::Sessions;
use tokio::task::JoinHandle;

/// Work that ends with whoever holds this.
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

/// What an agent keeps on its disk to be known by.
#[derive(Clone)]
pub(crate) struct Identity {
    /// Stands for the key's SHA-256.
    pub(crate) key: String,
    /// Whether it has its certificate.
    pub(crate) enrolled: bool,
}

impl Identity {
    /// A key like no other: of the agent that makes it in this boot of the machine.
    pub(crate) fn new(id: &str, boot: u64) -> Self {
        Self {
            key: format!("{id}-{boot}"),
            enrolled: false,
        }
    }
}

impl Identity {
    /// Another key, made because the disk has lost the one of before.
    pub(crate) fn anew(&self) -> Self {
        Self {
            key: format!("{}-anew", self.key),
            enrolled: false,
        }
    }
}

/// The token that a machine is born with.
pub(crate) fn token(seed_files: &BTreeMap<String, String>) -> Option<String> {
    let seed: Seed = serde_json::from_str(seed_files.get(SEED_PATH)?).ok()?;
    Some(seed.token)
}
