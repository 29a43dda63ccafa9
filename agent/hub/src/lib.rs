//! The service's side of the agents: they dial in here, are told what to be, and say how they are.
//!
//! ```text
//! agent ── enroll (token) ──► directory: is it the machine's, is it unused? ──► a client certificate
//! agent ── config (certificate, long poll) ──► the newest configuration, as soon as there is one
//! agent ── report (certificate) ──► kept, and the loops are woken
//! etcd-backup ── base, log (certificate) ──► archive; and back, for a restore
//! ```
//!
//! Implements [`agent_api::Agents`]. Configurations and reports are in memory only: the loops publish again what they keep
//! sealed in the store, agents report again by themselves.
//!
//! Always true: who asks is the common name of the certificate that this stamp's agent CA signed, never what the request
//! says; a machine without a record is refused, certificate or not, and one that is being removed is heard until its record is
//! gone; a token is good for one key, until that key's certificate was used; who is not admitted has nothing read but the head
//! of its request; what machines say is free of control characters and bounded in length.

mod authority;
mod backup;
mod caller;
mod connections;
mod directory;
mod routes;
mod server;
mod sessions;
mod text;

pub use authority::{AgentCa, CaError, ServerIdentity};
pub use backup::BackupReceiver;
pub use connections::Limits;
pub use directory::{DirectoryError, Enrolment, MachineDirectory, StoreDirectory};

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use agent_api::{Agents, LogError};
use agent_protocol::{MachineConfig, Report};
use async_trait::async_trait;
use base_env::Env;
use tokio::sync::broadcast;

use sessions::Sessions;

/// Longer than an agent needs to read a log and send it.
const LOG_BOUND: Duration = Duration::from_secs(20);
/// An agent in contact asks for its configuration at least every minute.
const CONTACT: Duration = Duration::from_secs(90);

/// The service's side of the agents. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    ca: AgentCa,
    directory: Arc<dyn MachineDirectory>,
    sessions: Sessions,
    backups: OnceLock<Arc<BackupReceiver>>,
    /// SHA-256 of the program that agents are to be.
    agent_sha256: Mutex<Option<String>>,
}

impl Hub {
    /// A hub that enrols the machines of this directory under this CA.
    pub fn new(env: Env, ca: AgentCa, directory: Arc<dyn MachineDirectory>) -> Self {
        Self {
            inner: Arc::new(Inner {
                env,
                ca,
                directory,
                sessions: Sessions::default(),
                backups: OnceLock::new(),
                agent_sha256: Mutex::default(),
            }),
        }
    }

    /// From now on, machines' backups are kept there. Given once.
    pub fn keep_backups(&self, backups: BackupReceiver) {
        let _given_before = self.inner.backups.set(Arc::new(backups));
    }

    /// From now on, agents give way to the program with this SHA-256 and to no other one.
    pub fn offer_agent(&self, sha256: &str) {
        *self.offered_agent() = Some(sha256.to_owned());
    }

    fn offered_agent(&self) -> MutexGuard<'_, Option<String>> {
        let offered = self.inner.agent_sha256.lock();
        offered.unwrap_or_else(PoisonError::into_inner)
    }

    fn backups(&self) -> Option<Arc<BackupReceiver>> {
        self.inner.backups.get().map(Arc::clone)
    }
}

#[async_trait]
impl Agents for Hub {
    fn publish(&self, machine: &str, config: Arc<MachineConfig>) {
        self.inner.sessions.publish(machine, config);
    }

    fn forget(&self, machine: &str) {
        self.inner.sessions.forget(machine);
    }

    fn report(&self, machine: &str) -> Option<Arc<Report>> {
        self.inner.sessions.report(machine)
    }

    fn contact(&self, machine: &str) -> Option<Duration> {
        let heard = self.inner.sessions.heard(machine)?;
        Some(self.inner.env.clock.monotonic().saturating_sub(heard))
    }

    fn subscribe(&self) -> broadcast::Receiver<String> {
        self.inner.sessions.subscribe()
    }

    async fn logs(&self, machine: &str, process: &str, lines: u32) -> Result<String, LogError> {
        if self.contact(machine).is_none_or(|ago| ago > CONTACT) {
            return Err(LogError::Away(machine.to_owned()));
        }
        let request = self.inner.env.ids.short();
        let answer = self.inner.sessions.ask_log(machine, &request, process, lines);
        match self.inner.env.clock.timeout(LOG_BOUND, answer).await {
            Ok(Ok(text)) => Ok(text),
            _ => Err(LogError::Timeout(machine.to_owned())),
        }
    }
}
