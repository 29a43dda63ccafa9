//! The service's sessions with its machines' agents: who is enrolled and admitted, what each is told, what it has said.
//!
//! ```text
//! enrol:   claim (token) ──► bind (key) ──► a certificate, from whoever has the CA
//! request: name and key of a certificate ──► admit ──► config (long poll) · report · log
//! loops:   agent_api::Agents: publish, forget, report, contact, logs
//! ```
//!
//! No transport: `agent/hub` brings requests here over TLS, `fabric/sim` those of simulated machines. Implements
//! [`agent_api::Agents`]. Configurations and reports are in memory only: the loops publish again what they keep sealed in the
//! store, agents report again by themselves.
//!
//! Always true: a machine without a record is refused, certificate or not, and one that is being removed is heard until its
//! record is gone; a token is good for one key, until that key's certificate was used; a newer configuration is never replaced
//! by an older one; what machines say is free of control characters and bounded in length.

mod directory;
mod table;
mod text;

pub use directory::{DirectoryError, Enrolment, MachineDirectory, StoreDirectory};

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agent_api::{Agents, LogError, WakeUp};
use agent_protocol::{MachineConfig, Report, ReportAnswer};
use async_trait::async_trait;
use base_env::Env;
use futures::{StreamExt as _, stream, stream::BoxStream};
use sha2::{Digest as _, Sha256};
use tokio::sync::{broadcast, oneshot};

use table::Table;

/// Longer than an agent needs to read a log and send it.
const LOG_BOUND: Duration = Duration::from_secs(20);
/// An agent in contact asks for its configuration at least every minute.
const CONTACT: Duration = Duration::from_secs(90);
/// The longest wait for a configuration that an agent may ask for, seconds.
const LONGEST_WAIT: u64 = 120;
/// An agent that asks for its configuration and has not reported for so long is asked for a report. It reports by itself when it
/// finds that the service was away; it does not find that when the service comes back between two of its requests.
const REPORT_WITHIN: Duration = Duration::from_secs(1);
/// Machines that fall silent together are looked for together.
const SILENCE_STEP: Duration = Duration::from_millis(500);

/// The sessions with all machines' agents. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    directory: Arc<dyn MachineDirectory>,
    table: Table,
    /// SHA-256 of the program that agents are to be.
    agent_sha256: Mutex<Option<String>>,
}

/// A machine that has shown its token.
pub struct Claim(String);

/// A machine that has shown the key that it enrolled.
#[derive(Clone)]
pub struct Admitted(String);

impl Admitted {
    /// Its id.
    pub fn machine(&self) -> &str {
        &self.0
    }
}

/// Why a machine is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such machine, or not its token, or one that was used.
    #[error("the token does not hold")]
    Token,
    /// It has no record (any more).
    #[error("there is no such machine")]
    Forgotten,
    /// A machine that comes anew under an old name has a key of its own; the certificate of before is not its.
    #[error("the certificate is not the enrolled one")]
    OtherKey,
    /// Its record cannot be read or written now.
    #[error(transparent)]
    Records(#[from] DirectoryError),
}

/// The answer to a machine that asks for its configuration.
#[derive(Debug, PartialEq, Eq)]
pub enum ConfigAnswer {
    /// A newer one.
    Newer(Arc<MachineConfig>),
    /// There is none; a report is wanted now.
    Report,
    /// There is none.
    Nothing,
}

/// Who waits for a log.
pub struct LogAsker(oneshot::Sender<String>);

impl LogAsker {
    /// Hands over the log.
    pub fn answer(self, log: &[u8]) {
        // The asker may have given up.
        let _gone = self.0.send(text::log(log));
    }
}

impl Sessions {
    /// Sessions with the machines of this directory, none of which was heard yet.
    pub fn new(env: Env, directory: Arc<dyn MachineDirectory>) -> Self {
        Self {
            inner: Arc::new(Inner {
                env,
                directory,
                table: Table::default(),
                agent_sha256: Mutex::default(),
            }),
        }
    }

    /// From now on, agents give way to the program with this SHA-256 and to no other one.
    pub fn offer_agent(&self, sha256: &str) {
        *self.offered_agent() = Some(sha256.to_owned());
    }

    fn offered_agent(&self) -> MutexGuard<'_, Option<String>> {
        let offered = self.inner.agent_sha256.lock();
        offered.unwrap_or_else(PoisonError::into_inner)
    }

    /// The first step of an enrolment: the token is this machine's.
    ///
    /// # Errors
    /// When it is not, or that cannot be known now.
    pub async fn claim(&self, machine: &str, token: &str) -> Result<Claim, Refusal> {
        let known = self.inner.directory.token(machine).await?;
        let known = known.ok_or(Refusal::Token)?;
        let hash = hex::encode(Sha256::digest(token.as_bytes()));
        let same =
            aws_lc_rs::constant_time::verify_slices_are_equal(hash.as_bytes(), known.token_hash.as_bytes());
        if same.is_err() {
            tracing::warn!(machine, "an enrolment with a wrong token was refused");
            return Err(Refusal::Token);
        }
        Ok(Claim(machine.to_owned()))
    }

    /// The second step: the machine is bound to its key, SHA-256 in hex.
    ///
    /// # Errors
    /// When its token was used or is bound to another key, it is to be removed, or that cannot be written down now.
    pub async fn bind(&self, Claim(machine): &Claim, key: &str) -> Result<(), Refusal> {
        if !self.inner.directory.bind_key(machine, key).await? {
            // An agent asks again and again.
            if self.inner.table.lose_key(machine) {
                tracing::warn!(
                    machine,
                    "an enrolment with a used token was refused: the machine's disk has lost its key, or somebody has its token"
                );
            }
            return Err(Refusal::Token);
        }
        Ok(())
    }

    /// Whether a certificate with this name and key is of a machine of ours that is not forgotten. One that is being removed is
    /// ours until its record is gone: its pods are moved meanwhile, and its logs are wanted most when that does not get on.
    ///
    /// # Errors
    /// When it is not, or that cannot be known now.
    pub async fn identify(&self, machine: &str, key: &str) -> Result<(), Refusal> {
        match self.inner.directory.token(machine).await? {
            None => Err(Refusal::Forgotten),
            Some(known) if known.enrolled_key.as_deref() != Some(key) => Err(Refusal::OtherKey),
            Some(_) => Ok(()),
        }
    }

    /// As [`Sessions::identify`], and notes that the machine was heard.
    ///
    /// # Errors
    /// As there, and when it cannot be written down that its token is spent.
    pub async fn admit(&self, machine: &str, key: &str) -> Result<Admitted, Refusal> {
        self.identify(machine, key).await?;
        let inner = &self.inner;
        if inner.table.hear(machine, inner.env.clock.monotonic()) {
            inner.directory.token_used(machine).await?;
            // Not before: what could not be written is tried again with the next request.
            inner.table.token_spent(machine);
        }
        Ok(Admitted(machine.to_owned()))
    }

    /// The machine's configuration as soon as there is one after this generation that an agent of this level can take; waits so
    /// many seconds for it.
    pub async fn config(
        &self,
        Admitted(machine): &Admitted,
        after: u64,
        level: u32,
        wait: u64,
    ) -> ConfigAnswer {
        let table = &self.inner.table;
        let line = Line::begin(self, machine);
        let (mut config, mut nudge) = table.listen(machine);
        let newer = async {
            let found = config.wait_for(|config| {
                config
                    .as_ref()
                    .is_some_and(|config| config.generation > after && config.level <= level)
            });
            // The sender goes when the machine is forgotten: then there is nothing to say.
            found.await.ok().and_then(|config| config.clone())
        };
        let clock = &self.inner.env.clock;
        // The agent reports when its wait ends early, and is told of the wish then.
        let nudged = async {
            if table.has_wishes(machine) {
                return;
            }
            if table.report(machine).is_none() {
                let wished = clock.timeout(REPORT_WITHIN, nudge.changed()).await.is_ok();
                if wished || table.report(machine).is_none() {
                    return;
                }
            }
            let _forgotten = nudge.changed().await;
        };
        let answer = clock
            .timeout(Duration::from_secs(wait.min(LONGEST_WAIT)), async {
                tokio::select! {
                    config = newer => config,
                    () = nudged => None,
                }
            })
            .await;
        line.answered();
        match answer {
            Ok(Some(config)) => ConfigAnswer::Newer(config),
            Ok(None) if table.wants_report(machine) => ConfigAnswer::Report,
            _ => ConfigAnswer::Nothing,
        }
    }

    /// Takes a report; tells which logs are wanted, and which program the agent is to be.
    pub fn take_report(&self, Admitted(machine): &Admitted, report: Report) -> ReportAnswer {
        ReportAnswer {
            logs: self.inner.table.accept(machine, text::report(report)),
            agent_sha256: self.offered_agent().clone(),
        }
    }

    /// Who waits for this log, if anybody does. It is answered once.
    pub fn log_asker(&self, Admitted(machine): &Admitted, request: &str) -> Option<LogAsker> {
        self.inner.table.take_log_request(machine, request).map(LogAsker)
    }

    /// One timer for all machines: tells of those that fell silent.
    pub async fn watch_silence(&self) -> std::convert::Infallible {
        let clock = &self.inner.env.clock;
        loop {
            let now = clock.monotonic();
            let next = self.inner.table.note_silence(now);
            clock.sleep(next.saturating_sub(now).max(SILENCE_STEP)).await;
        }
    }
}

/// A line on which an agent waits for its next configuration. It is dropped unanswered when the agent's end of it is gone.
struct Line<'a> {
    sessions: &'a Sessions,
    machine: &'a str,
    answered: bool,
}

impl<'a> Line<'a> {
    fn begin(sessions: &'a Sessions, machine: &'a str) -> Self {
        sessions.inner.table.line_begins(machine);
        Self {
            sessions,
            machine,
            answered: false,
        }
    }

    fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let inner = &self.sessions.inner;
        let now = (!self.answered).then(|| inner.env.clock.monotonic());
        inner.table.line_ends(self.machine, now);
    }
}

#[async_trait]
impl Agents for Sessions {
    fn publish(&self, machine: &str, config: Arc<MachineConfig>) {
        self.inner.table.publish(machine, config);
    }

    fn forget(&self, machine: &str) {
        self.inner.table.forget(machine);
    }

    fn report(&self, machine: &str) -> Option<Arc<Report>> {
        self.inner.table.report(machine)
    }

    fn contact(&self, machine: &str) -> Option<Duration> {
        let heard = self.inner.table.heard(machine)?;
        Some(self.inner.env.clock.monotonic().saturating_sub(heard))
    }

    fn hung_up(&self, machine: &str) -> Option<Duration> {
        let since = self.inner.table.hung_up(machine)?;
        Some(self.inner.env.clock.monotonic().saturating_sub(since))
    }

    fn has_lost_key(&self, machine: &str) -> bool {
        self.inner.table.has_lost_key(machine)
    }

    fn subscribe(&self) -> BoxStream<'static, WakeUp> {
        wake_ups(self.inner.table.subscribe())
    }

    async fn logs(&self, machine: &str, process: &str, lines: u32) -> Result<String, LogError> {
        if self.contact(machine).is_none_or(|ago| ago > CONTACT) {
            return Err(LogError::Away(machine.to_owned()));
        }
        let request = self.inner.env.ids.short();
        let answer = self.inner.table.ask_log(machine, &request, process, lines);
        match self.inner.env.clock.timeout(LOG_BOUND, answer).await {
            Ok(Ok(text)) => Ok(text),
            _ => Err(LogError::Timeout(machine.to_owned())),
        }
    }
}

/// The names that a channel tells, as wake-ups.
fn wake_ups(names: broadcast::Receiver<String>) -> BoxStream<'static, WakeUp> {
    stream::unfold(names, async |mut names| match names.recv().await {
        Ok(name) => Some((WakeUp::Machine(name), names)),
        Err(broadcast::error::RecvError::Lagged(_)) => Some((WakeUp::All, names)),
        Err(broadcast::error::RecvError::Closed) => None,
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use storage_redb::MemoryStore;

    use super::*;

    fn sessions() -> Sessions {
        let directory = StoreDirectory::new(Arc::new(MemoryStore::new()));
        Sessions::new(Env::simulated(1), Arc::new(directory))
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_has_not_reported_is_asked_to() {
        let sessions = sessions();
        let machine = Admitted("m".to_owned());
        let clock = sessions.inner.env.clock.clone();
        let config = Arc::new(MachineConfig {
            generation: 7,
            ..MachineConfig::default()
        });
        sessions.publish("m", Arc::clone(&config));
        // A service that was started again, and an agent that has the configuration already.
        let asked = clock.monotonic();
        assert_eq!(sessions.config(&machine, 7, 0, 30).await, ConfigAnswer::Report);
        assert_eq!(clock.monotonic() - asked, REPORT_WITHIN);
        assert_eq!(
            sessions.config(&machine, 6, 0, 30).await,
            ConfigAnswer::Newer(config)
        );

        sessions.take_report(&machine, Report::default());
        let asked = clock.monotonic();
        assert_eq!(sessions.config(&machine, 7, 0, 30).await, ConfigAnswer::Nothing);
        assert_eq!(clock.monotonic() - asked, Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_reports_meanwhile_goes_on_waiting() {
        let sessions = sessions();
        let machine = Admitted("m".to_owned());
        let clock = sessions.inner.env.clock.clone();
        let asked = clock.monotonic();
        let (answer, ()) = tokio::join!(sessions.config(&machine, 0, 0, 30), async {
            clock.sleep(REPORT_WITHIN / 2).await;
            sessions.take_report(&machine, Report::default());
        });
        assert_eq!(answer, ConfigAnswer::Nothing);
        assert_eq!(clock.monotonic() - asked, Duration::from_secs(30));
    }
}
