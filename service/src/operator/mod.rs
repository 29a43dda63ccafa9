//! What an operator sees of a stamp: metrics, alerts, what was used, and all certificates.
//!
//! ```text
//!  store ──► facts of clusters (kept by revision) ─┬─► page of metrics, when somebody asks
//!  agents, host, loops, edge ──────────────────────┴─► alerts, once a minute
//!  store's watch ──► ledger ──► usage by the hour
//! ```
//!
//! Always true: nothing here is on the way of a request or of a cluster's loop; there is no timer for a cluster, and what has not changed in the
//! store is not read again; a page has no label of a caller, a path or a secret; losing all of it changes nothing of any cluster.
//!
//! Called by: the binary, which serves the page and runs [`Operator::watch_alerts`] and [`Operator::keep_usage`]; the bench.

mod alerts;
mod certificates;
pub mod families;
mod gathered;
mod holdings;
mod page;
mod store_meter;
mod usage;

use std::sync::Arc;

use agent_api::Agents;
use arm_edge::Edge;
use base_env::Env;
use base_sealer::Sealer;
use cluster_pki::inventory::Item;
use control_loops::LoopMeter;
use control_records::usage::Limits;
use control_store::Store;
use providers_containerservice::NodeImages;

use crate::store_copies::StoreCopies;
use certificates::Book;
use gathered::Gatherer;

pub use policy_alerts::DiskFact;
pub use store_meter::{MeteredStore, StoreMeter};

/// What the host tells of itself and of this process. Reads a few small files.
pub trait Host: Send + Sync + 'static {
    /// What is so now.
    fn look(&self) -> HostSeen;
    /// The stamp's own certificates that are not in its store.
    ///
    /// # Errors
    /// Why they cannot be read, for people.
    fn certificates(&self) -> Result<Vec<Item>, String>;
}

/// What a host tells. What is `None` cannot be found out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostSeen {
    /// This process.
    pub process: Option<ProcessSeen>,
    /// Panics since it began, each contained.
    pub panics: u64,
    /// The filesystem that has the stamp's files.
    pub disk: Option<DiskFact>,
    /// Size of the store's file, bytes.
    pub store_bytes: Option<u64>,
    /// Node images that are being built.
    pub image_builds: usize,
}

/// This process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProcessSeen {
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// User and system time since it began, seconds.
    pub cpu_seconds: f64,
    /// Its threads.
    pub threads: u64,
    /// Its open files.
    pub open_files: u64,
    /// How many it may open.
    pub most_files: Option<u64>,
    /// When it began, seconds since 1970.
    pub started: f64,
}

/// What the view is made from.
pub struct Sources {
    /// Time.
    pub env: Env,
    /// The release of the service, for `landfall_info`.
    pub version: &'static str,
    /// Records.
    pub store: Arc<dyn Store>,
    /// Opens what is sealed in them.
    pub sealer: Arc<Sealer>,
    /// The machines' agents.
    pub agents: Arc<dyn Agents>,
    /// What is known of node images.
    pub images: Arc<dyn NodeImages>,
    /// What clusters may ask for.
    pub limits: Limits,
    /// The host.
    pub host: Arc<dyn Host>,
    /// What the loops count; `None`: there are none.
    pub loops: Option<LoopMeter>,
    /// The ARM API, for what it counts; `None`: there is none.
    pub edge: Option<Edge>,
    /// What the store counts; `None`: it is not counted.
    pub metered: Option<Arc<StoreMeter>>,
    /// Copies of the store; `None`: there are none.
    pub copies: Option<Arc<StoreCopies>>,
}

/// See the module.
pub struct Operator {
    sources: Sources,
    /// One scrape or look at a time: the second one finds what the first one has read.
    gathered: tokio::sync::Mutex<Gatherer>,
    book: std::sync::Mutex<Book>,
}

impl Operator {
    /// Nothing is read yet.
    pub fn new(sources: Sources) -> Self {
        Self {
            sources,
            gathered: tokio::sync::Mutex::default(),
            book: std::sync::Mutex::default(),
        }
    }

    /// What the host tells, looked up on a thread that may wait for a disk.
    async fn host(&self) -> HostSeen {
        let host = Arc::clone(&self.sources.host);
        match tokio::task::spawn_blocking(move || host.look()).await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::error!(%error, "the host cannot be looked at");
                HostSeen::default()
            }
        }
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
