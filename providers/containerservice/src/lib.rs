//! The ARM provider `Microsoft.ContainerService`: managed clusters, agent pools, machines, credentials, versions; and Landfall's own
//! namespaces beside it.
//!
//! A folder or file a resource type: its rows, and how it is read, decided about and written; [`types`] is the list of them. Decisions
//! are pure (`properties.tsv` says what a body may hold, see [`arm_kernel::schema`]): they compute the new desired state or every problem of the
//! body at once. The kernel (`arm/kernel`) reads, lets decide, and commits desired, operation and node resource group in one transaction.
//!
//! Always true:
//! - Nothing of a body is dropped silently: a property is acted on, or equals what happens anyway and is given back, or is
//!   refused by name. Read-only properties are ignored, null and empty texts mean absent, enums ignore case.
//! - `provisioningState` is never stored ([`cluster_state`], [`pool_state`]).
//! - A later request is merged with a running one (generation + 1); only a deletion cannot be taken back.
//! - Secrets are sealed into the record and never given back.
//!
//! Called by: the edge, through [`Provider`](arm_kernel::Provider). The service wires [`Credentials`] to what knows the clusters' keys.

mod api_versions;
mod as_service;
mod bindings;
mod channels;
mod children;
mod clusters;
mod commands;
mod compatibility;
mod conversion;
mod deadlines;
mod empty;
mod estimates;
mod formats;
mod images;
mod landfall;
mod machines;
mod maintenance;
mod namespaces;
mod pools;
mod properties;
mod records;
mod rehearsal;
mod snapshots;
mod support;
mod types;
mod usages;
mod versions;

use std::{sync::Arc, time::Duration};

use arm_kernel::{Host, Keeper, Kept};
use base_env::Env;
use base_sealer::Sealer;
use cluster_versions::Offered;
use control_records::usage::Limits;
use control_store::Store;
use futures::lock::Mutex;
use ipnet::Ipv4Net;
use policy_support::Profile;

pub use api_versions::API_VERSIONS;
pub use channels::Next;
pub use clusters::{
    authentication::ISSUERS,
    credentials::{Credentials, until_granted},
    draft::SERVICE_PRINCIPAL_SECRET,
    instances::NodeRepair,
    state::{ProvisioningState, cluster_state, pool_state},
    transaction::secret_name,
};
pub use compatibility::{OtherRoutes, compatibility};
pub use images::{NodeImages, SameImages, built_on};
pub use landfall::{
    api::{HISTORY_API_VERSIONS, HISTORY_NAMESPACE, HistoryApi},
    archive::{ArchiveReader, BackupReader},
    backups::{BACKUP_API_VERSIONS, BACKUP_NAMESPACE, BackupApi},
    certificates::{AGENT, cluster_inventory},
    knowledge::{BuiltIn, InForce, SupportData},
    upgrade_plans::Rehearsals,
};
pub use rehearsal::{ClusterReader, UpgradeGuard};
pub use support::Support;

/// The provider's namespace.
pub const NAMESPACE: &str = "Microsoft.ContainerService";

/// What the provider must know of its stamp.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// The stamp's only region, e.g. `local`.
    pub location: String,
    /// The URL of its ARM API without a trailing slash: what clusters' issuers publish is below it.
    pub url: String,
    /// GUID of its tenant.
    pub tenant: String,
    /// The stamp's DNS domain: API servers are `{prefix}-{hash}.hcp.{location}.{domain}`.
    pub domain: String,
    /// The versions that clusters can have.
    pub offered: Offered,
    /// Ranges that pods and services must keep clear of (the stamp's machine network and VIPs), each with what it is,
    /// e.g. `the machine network`.
    pub reserved_ranges: Vec<(Ipv4Net, String)>,
    /// How much clusters may ask for.
    pub limits: Limits,
    /// How long credentials of clusters that are handed out are good.
    pub credential_lifetime: Duration,
    /// The support policies that the stamp goes by.
    pub support: Profile,
}

/// The provider.
pub struct ContainerService {
    env: Env,
    store: Arc<dyn Store>,
    sealer: Arc<Sealer>,
    config: Arc<ProviderConfig>,
    credentials: Arc<dyn Credentials>,
    /// What all clusters ask for is one record.
    turn: Mutex<()>,
    kept: Arc<Kept>,
    /// What is known of node images.
    images: Arc<dyn NodeImages>,
    /// Reads the deprecated APIs in use in clusters; `None`: they are not read, and refuse no upgrade.
    guard: Option<Arc<UpgradeGuard>>,
}

impl ContainerService {
    /// A provider over a store.
    pub fn new(
        env: Env,
        store: Arc<dyn Store>,
        sealer: Arc<Sealer>,
        config: ProviderConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Self {
        Self {
            env,
            store,
            sealer,
            config: Arc::new(config),
            credentials,
            turn: Mutex::new(()),
            kept: Arc::default(),
            images: Arc::new(SameImages),
            guard: None,
        }
    }

    /// The provider with what is known of node images.
    #[must_use]
    pub fn imaging(self, images: Arc<dyn NodeImages>) -> Self {
        Self { images, ..self }
    }

    /// The provider with a guard: an upgrade to a version that lacks an API in use is refused.
    #[must_use]
    pub fn guarded(self, guard: Arc<UpgradeGuard>) -> Self {
        Self {
            guard: Some(guard),
            ..self
        }
    }
}

impl Host for ContainerService {
    type Config = ProviderConfig;

    fn config(&self) -> &ProviderConfig {
        &self.config
    }

    fn env(&self) -> &Env {
        &self.env
    }

    fn store(&self) -> &dyn Store {
        &*self.store
    }

    fn location(&self) -> &str {
        &self.config.location
    }

    fn turn(&self) -> Option<&Mutex<()>> {
        Some(&self.turn)
    }
}

impl Keeper for ContainerService {
    fn kept(&self) -> &Kept {
        &self.kept
    }

    fn shared(&self) -> &Arc<dyn Store> {
        &self.store
    }

    fn reading(&self, store: Arc<dyn Store>) -> Self {
        Self {
            env: self.env.clone(),
            store,
            sealer: Arc::clone(&self.sealer),
            config: Arc::clone(&self.config),
            credentials: Arc::clone(&self.credentials),
            turn: Mutex::new(()),
            kept: Arc::clone(&self.kept),
            images: Arc::clone(&self.images),
            guard: self.guard.clone(),
        }
    }
}
