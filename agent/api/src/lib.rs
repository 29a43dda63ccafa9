//! The interface of the control loops to the machines' agents. Implemented by `agent/sessions`, to which
//! `agent/hub` brings requests of real machines' agents and `fabric/sim` those of simulated ones.
//!
//! Always true: a published configuration reaches its machine at least once, newest generation only; a report is the
//! latest the machine sent, never merged.

mod images;
mod reviews;

use std::{sync::Arc, time::Duration};

use agent_protocol::{MachineConfig, Report};
use async_trait::async_trait;
use futures::stream::BoxStream;

pub use images::{AddonImages, ImageArchive};
pub use reviews::{AccessReviews, NonResourceAttributes, ResourceAttributes, ReviewError, ReviewSpec};

/// A machine without a request for this long is silent. Its agent requests its configuration at least twice a
/// minute.
pub const SILENT_AFTER: Duration = Duration::from_secs(45);

/// A change of a machine: its report changed in content, it fell silent ([`SILENT_AFTER`]) or came back, it
/// lost its key ([`Agents::has_lost_key`]), or it hung up or called again, if [`Agents::hung_up`] was called
/// for it. Carries no data: read [`Agents::report`] and [`Agents::contact`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WakeUp {
    /// The machine with this id.
    Machine(String),
    /// Any machine may have changed: the reader fell behind.
    All,
}

/// The reason why a log is not available.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The machine's agent is not in contact.
    #[error("the agent of machine {0} is not in contact")]
    Away(String),
    /// The machine did not answer in time.
    #[error("the agent of machine {0} did not answer in time")]
    Timeout(String),
}

/// The interface to the agents of all machines.
#[async_trait]
pub trait Agents: Send + Sync + 'static {
    /// Sets the configuration of a machine. Kept in memory only: publish it again after a restart of the
    /// service.
    fn publish(&self, machine: &str, config: Arc<MachineConfig>);
    /// Removes a machine: drops its configuration and report, refuses its certificate.
    fn forget(&self, machine: &str);
    /// The latest report of this machine since the service started.
    fn report(&self, machine: &str) -> Option<Arc<Report>>;
    /// The time since the machine's last request of any kind; `None` without one since the service started.
    fn contact(&self, machine: &str) -> Option<Duration>;
    /// Whether this machine's agent is in contact: its last request is less than [`SILENT_AFTER`] ago.
    fn heard(&self, machine: &str) -> bool {
        self.contact(machine)
            .is_some_and(|contact| contact < SILENT_AFTER)
    }
    /// The time since this machine's agent closed its long poll, if it has sent no request since: the machine
    /// may be gone. Calling this subscribes to [`WakeUp`]s for changes of it. `None` also in implementations
    /// that do not detect closed connections.
    fn hung_up(&self, machine: &str) -> Option<Duration> {
        let _unseen = machine;
        None
    }
    /// Whether an enrolment was requested with this machine's token and another key than the enrolled one,
    /// with no request under the enrolled key since: the disk has lost the key, and the machine can never
    /// connect again. `false` also in implementations without enrolment.
    fn has_lost_key(&self, machine: &str) -> bool {
        let _unknown = machine;
        false
    }
    /// All wake-ups from now on. Ends when no more reports can come.
    fn subscribe(&self) -> BoxStream<'static, WakeUp>;
    /// The last lines of a process's log.
    async fn logs(&self, machine: &str, process: &str, lines: u32) -> Result<String, LogError>;
    /// The lines with this text in a log, and in what was set aside of it: the newest `most`, oldest first. An agent of an earlier release
    /// looks at the end of the log only; so do implementations that know no better.
    async fn lines_with(&self, machine: &str, log: &str, text: &str, most: u32) -> Result<String, LogError> {
        Ok(only(&self.logs(machine, log, most).await?, text))
    }
}

/// The lines with a text.
pub fn only(log: &str, text: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(text)).collect();
    lines.join("\n")
}
