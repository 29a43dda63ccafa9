//! The agents of all machines, as the control loops see them. Implemented by `agent/sessions`, to which `agent/hub` brings the
//! agents of real machines and `fabric/sim` those of simulated ones.
//!
//! Always true: a published configuration reaches its machine at least once, newest generation only; a report is the
//! latest the machine sent, never merged.

mod reviews;

use std::{sync::Arc, time::Duration};

use agent_protocol::{MachineConfig, Report};
use async_trait::async_trait;
use futures::stream::BoxStream;

pub use reviews::{AccessReviews, NonResourceAttributes, ResourceAttributes, ReviewError, ReviewSpec};

/// A machine that was not heard of for so long is silent. Its agent asks for its configuration twice a minute at least.
pub const SILENT_AFTER: Duration = Duration::from_secs(45);

/// A machine whose report changed in content, that fell silent ([`SILENT_AFTER`]) or that came back; that has lost its key ([`Agents::has_lost_key`]); that hung up or called again, where
/// somebody has asked about that ([`Agents::hung_up`]). It carries no data: read
/// [`Agents::report`] and [`Agents::contact`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WakeUp {
    /// This one.
    Machine(String),
    /// Any may be: the reader fell behind.
    All,
}

/// Why a log could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The machine's agent is not in contact.
    #[error("the agent of machine {0} is not in contact")]
    Away(String),
    /// It did not answer in time.
    #[error("the agent of machine {0} did not answer in time")]
    Timeout(String),
}

/// The agents of all machines.
#[async_trait]
pub trait Agents: Send + Sync + 'static {
    /// What the machine is to be from now on. Kept in memory: published again after a restart of the service.
    fn publish(&self, machine: &str, config: Arc<MachineConfig>);
    /// The machine is gone: forgets its configuration and report, refuses its certificate.
    fn forget(&self, machine: &str);
    /// The latest report of this machine since the service started.
    fn report(&self, machine: &str) -> Option<Arc<Report>>;
    /// How long ago this machine was heard of (any request of it), since the service started.
    fn contact(&self, machine: &str) -> Option<Duration>;
    /// Whether this machine's agent is in contact: heard of less than [`SILENT_AFTER`] ago.
    fn heard(&self, machine: &str) -> bool {
        self.contact(machine)
            .is_some_and(|contact| contact < SILENT_AFTER)
    }
    /// How long ago the line ended on which this machine's agent waited for its next configuration, where it has called no more since: its
    /// machine may be gone. Who asks about a machine is woken when that changes. `None` also where nobody sees lines end.
    fn hung_up(&self, machine: &str) -> Option<Duration> {
        let _unseen = machine;
        None
    }
    /// Whether this machine's agent has asked to be enrolled with the machine's token and another key than the one that it is known by, and was
    /// not heard of since: its disk has lost the key, and it can never be heard of again. `false` also where nobody enrols.
    fn has_lost_key(&self, machine: &str) -> bool {
        let _unknown = machine;
        false
    }
    /// All wake-ups from now on. Ends when no agent will ever report again.
    fn subscribe(&self) -> BoxStream<'static, WakeUp>;
    /// The last lines of a process's log.
    async fn logs(&self, machine: &str, process: &str, lines: u32) -> Result<String, LogError>;
}
