//! The provider of `Landfall.ContainerService`, which its types ([`super::history`], [`super::credentials`], [`super::unknown`], [`super::upgrade_plans`],
//! [`super::support`], [`super::cves`] …) read and write through.

use std::sync::Arc;

use agent_api::Agents;
use arm_kernel::Host;
use base_env::Env;
use base_sealer::Sealer;
use cluster_versions::Offered;
use control_store::Store;

use super::{
    knowledge::{BuiltIn, SupportData},
    upgrade_plans::Rehearsals,
};
use crate::Support;

/// The namespace.
pub const HISTORY_NAMESPACE: &str = "Landfall.ContainerService";
/// Its api-versions.
pub const HISTORY_API_VERSIONS: &[&str] = &["2026-11-01"];

/// The provider.
pub struct HistoryApi {
    pub(super) env: Env,
    pub(super) store: Arc<dyn Store>,
    pub(super) rehearsals: Option<Rehearsals>,
    pub(super) support: Support,
    /// The version catalogue and the bills of materials of node images.
    pub(super) known: Arc<dyn SupportData>,
    /// The versions that are offered.
    pub(super) offered: Offered,
    /// Opens what is sealed, for inventories.
    pub(super) sealer: Option<Arc<Sealer>>,
    /// The machines' agents, who are asked for audit logs.
    pub(super) agents: Option<Arc<dyn Agents>>,
}

impl HistoryApi {
    /// A provider over a store.
    pub fn new(env: Env, store: Arc<dyn Store>) -> Self {
        Self {
            env,
            store,
            rehearsals: None,
            support: Support::default(),
            known: Arc::new(BuiltIn),
            offered: Offered::pinned(),
            sealer: None,
            agents: None,
        }
    }

    /// The provider with records of what was done with credentials of tickets.
    #[must_use]
    pub fn auditing(self, agents: Arc<dyn Agents>) -> Self {
        Self {
            agents: Some(agents),
            ..self
        }
    }

    /// The provider with inventories of clusters' certificates.
    #[must_use]
    pub fn unsealing(self, sealer: Arc<Sealer>) -> Self {
        Self {
            sealer: Some(sealer),
            ..self
        }
    }

    /// The provider with rehearsals of upgrades.
    #[must_use]
    pub fn rehearsing(self, rehearsals: Rehearsals) -> Self {
        Self {
            rehearsals: Some(rehearsals),
            ..self
        }
    }

    /// The provider with other support policies than AKS' own, or with what is known of node images.
    #[must_use]
    pub fn supporting(self, support: Support) -> Self {
        Self { support, ..self }
    }

    /// The provider with a stamp's own catalogue and node images, and the versions that it offers.
    #[must_use]
    pub fn knowing(self, known: Arc<dyn SupportData>, offered: Offered) -> Self {
        Self {
            known,
            offered,
            ..self
        }
    }
}

impl Host for HistoryApi {
    type Config = ();

    fn config(&self) -> &() {
        &()
    }

    fn env(&self) -> &Env {
        &self.env
    }

    fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// No operation of this provider is long-running.
    fn location(&self) -> &str {
        ""
    }
}
