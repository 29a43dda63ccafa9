//! The service's sessions with its machines' agents: enrolment, admission, configurations, reports.
//!
//! ```text
//! enrol:   claim (token) ──► bind (key) ──► a certificate, from the owner of the CA
//! request: name and key of a certificate ──► admit ──► config (long poll) · report · log
//! loops:   agent_api::Agents: publish, forget, report, contact, logs
//! ```
//!
//! No transport: `agent/hub` brings requests here over TLS, `fabric/sim` those of simulated machines.
//! Implements [`agent_api::Agents`]. Configurations and reports are in memory only: the loops publish
//! configurations again from the store, agents send their reports again by themselves.
//!
//! Always true: a machine without a record is refused, with or without a certificate, and one that is being
//! removed is admitted until its record is deleted; a token is valid for one key, until that key's
//! certificate was used; a newer configuration is never replaced by an older one; texts in reports are free
//! of control characters and bounded in length.

mod directory;
mod table;
mod text;

pub use directory::{DirectoryError, Enrolment, MachineDirectory, StoreDirectory};

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agent_api::{Agents, LogError, WakeUp, only};
use agent_protocol::{MachineConfig, Report, ReportAnswer};
use async_trait::async_trait;
use base_env::Env;
use futures::{StreamExt as _, stream, stream::BoxStream};
use sha2::{Digest as _, Sha256};
use tokio::sync::{broadcast, oneshot};

use table::Table;

/// The time-out of a log request: longer than an agent needs to read a log and send it.
const LOG_BOUND: Duration = Duration::from_secs(20);
/// An agent in contact requests its configuration at least every minute.
const CONTACT: Duration = Duration::from_secs(90);
/// The longest wait for a configuration that an agent may request, seconds.
const LONGEST_WAIT: u64 = 120;
/// An agent that requests its configuration without having reported for this long is asked for a report. It
/// reports by itself after noticing that the service was away; it does not notice that when the service
/// restarts between two of its requests.
const REPORT_WITHIN: Duration = Duration::from_secs(1);
/// The shortest pause between two checks for silence: machines that fall silent together are reported together.
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
    /// The SHA-256 of the offered agent program.
    agent_sha256: Mutex<Option<String>>,
}

/// A machine that has presented its token.
pub struct Claim(String);

/// A machine that has presented its enrolled key.
#[derive(Clone)]
pub struct Admitted(String);

impl Admitted {
    /// The machine's id.
    pub fn machine(&self) -> &str {
        &self.0
    }
}

/// The reason why a machine is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such machine, a wrong token, or a used one.
    #[error("the token does not hold")]
    Token,
    /// The machine has no record (any more).
    #[error("there is no such machine")]
    Forgotten,
    /// A new machine under an old name has another key; the certificate of the earlier machine is not valid
    /// for it.
    #[error("the certificate is not the enrolled one")]
    OtherKey,
    /// Its record cannot be read or written at the moment.
    #[error(transparent)]
    Records(#[from] DirectoryError),
}

/// The answer to a request for a configuration.
#[derive(Debug, PartialEq, Eq)]
pub enum ConfigAnswer {
    /// A newer configuration.
    Newer(Arc<MachineConfig>),
    /// No newer configuration; the service requests a report.
    Report,
    /// No newer configuration.
    Nothing,
}

/// The caller that waits for a log.
pub struct LogAsker(oneshot::Sender<String>);

impl LogAsker {
    /// Delivers the log.
    pub fn answer(self, log: &[u8]) {
        // The caller may have given up.
        let _gone = self.0.send(text::log(log));
    }
}

impl Sessions {
    /// Sessions with the machines of this directory, without any contact yet.
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

    /// Sets the only program, by SHA-256, that agents switch to from now on.
    pub fn offer_agent(&self, sha256: &str) {
        *self.offered_agent() = Some(sha256.to_owned());
    }

    fn offered_agent(&self) -> MutexGuard<'_, Option<String>> {
        let offered = self.inner.agent_sha256.lock();
        offered.unwrap_or_else(PoisonError::into_inner)
    }

    /// The first step of an enrolment: checks that the token is this machine's.
    ///
    /// # Errors
    /// When it is not, or when the record cannot be read.
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

    /// The second step: binds the machine to its key, SHA-256 in hex.
    ///
    /// # Errors
    /// When its token was used or is bound to another key, the machine is being removed, or the record cannot
    /// be written.
    pub async fn bind(&self, Claim(machine): &Claim, key: &str) -> Result<(), Refusal> {
        if !self.inner.directory.bind_key(machine, key).await? {
            // An agent repeats its request.
            if self.inner.table.lose_key(machine) {
                tracing::warn!(
                    machine,
                    "an enrolment with a used token was refused: the machine's disk has lost its key, or its token was stolen"
                );
            }
            return Err(Refusal::Token);
        }
        Ok(())
    }

    /// Whether a certificate with this name and key belongs to a known machine. A machine that is being
    /// removed is known until its record is deleted: its pods are moved meanwhile, and its logs matter most
    /// when that stalls.
    ///
    /// # Errors
    /// When it does not, or when the record cannot be read.
    pub async fn identify(&self, machine: &str, key: &str) -> Result<(), Refusal> {
        match self.inner.directory.token(machine).await? {
            None => Err(Refusal::Forgotten),
            Some(known) if known.enrolled_key.as_deref() != Some(key) => Err(Refusal::OtherKey),
            Some(_) => Ok(()),
        }
    }

    /// As [`Sessions::identify`], and notes the contact.
    ///
    /// # Errors
    /// As there, and when the use of its token cannot be recorded.
    pub async fn admit(&self, machine: &str, key: &str) -> Result<Admitted, Refusal> {
        self.identify(machine, key).await?;
        let inner = &self.inner;
        if inner.table.hear(machine, inner.env.clock.monotonic()) {
            inner.directory.token_used(machine).await?;
            // Not before: a failed write is tried again with the next request.
            inner.table.token_spent(machine);
        }
        Ok(Admitted(machine.to_owned()))
    }

    /// The machine's configuration as soon as one newer than this generation exists that an agent of this
    /// level can take; waits this number of seconds for it.
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
            // The sender is dropped when the machine is forgotten: then there is no configuration.
            found.await.ok().and_then(|config| config.clone())
        };
        let clock = &self.inner.env.clock;
        // The agent reports when its poll ends early, and receives the log request with the answer.
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

    /// Accepts a report; the answer has the requested logs and the offered agent program.
    pub fn take_report(&self, Admitted(machine): &Admitted, report: Report) -> ReportAnswer {
        ReportAnswer {
            logs: self.inner.table.accept(machine, text::report(report)),
            agent_sha256: self.offered_agent().clone(),
        }
    }

    /// The caller that waits for this log, if any. Returned once.
    pub fn log_asker(&self, Admitted(machine): &Admitted, request: &str) -> Option<LogAsker> {
        self.inner.table.take_log_request(machine, request).map(LogAsker)
    }

    /// One timer for all machines: sends wake-ups for those that fell silent.
    pub async fn watch_silence(&self) -> std::convert::Infallible {
        let clock = &self.inner.env.clock;
        loop {
            let now = clock.monotonic();
            let next = self.inner.table.note_silence(now);
            clock.sleep(next.saturating_sub(now).max(SILENCE_STEP)).await;
        }
    }
}

/// A long poll of an agent. Dropped unanswered when the agent closes its connection.
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
        self.log(machine, process, lines, None).await
    }

    async fn lines_with(&self, machine: &str, log: &str, text: &str, most: u32) -> Result<String, LogError> {
        Ok(only(&self.log(machine, log, most, Some(text)).await?, text))
    }
}

impl Sessions {
    /// Asks a machine for a log, or for the lines with a text in it.
    async fn log(
        &self,
        machine: &str,
        process: &str,
        lines: u32,
        containing: Option<&str>,
    ) -> Result<String, LogError> {
        if self.contact(machine).is_none_or(|ago| ago > CONTACT) {
            return Err(LogError::Away(machine.to_owned()));
        }
        let request = self.inner.env.ids.short();
        let answer = self
            .inner
            .table
            .ask_log(machine, &request, process, lines, containing);
        match self.inner.env.clock.timeout(LOG_BOUND, answer).await {
            Ok(Ok(text)) => Ok(text),
            _ => Err(LogError::Timeout(machine.to_owned())),
        }
    }
}

/// The machine names from a channel, as wake-ups.
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
        // A restarted service, and an agent that has the configuration already.
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
