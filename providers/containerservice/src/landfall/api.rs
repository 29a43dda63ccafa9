//! The provider of `Landfall.ContainerService`, which its types ([`super::history`], [`super::credentials`], [`super::unknown`], [`super::alerts`], [`super::certificates`], …) read and write through.

use std::sync::Arc;

use arm_kernel::Host;
use base_env::Env;
use base_sealer::Sealer;
use control_store::Store;

use super::upgrade_plans::Rehearsals;

/// The namespace.
pub const HISTORY_NAMESPACE: &str = "Landfall.ContainerService";
/// Its api-versions.
pub const HISTORY_API_VERSIONS: &[&str] = &["2026-11-01"];

/// The provider.
pub struct HistoryApi {
    pub(super) env: Env,
    pub(super) store: Arc<dyn Store>,
    pub(super) rehearsals: Option<Rehearsals>,
    /// Opens what is sealed, for inventories.
    pub(super) sealer: Option<Arc<Sealer>>,
}

impl HistoryApi {
    /// A provider over a store.
    pub fn new(env: Env, store: Arc<dyn Store>) -> Self {
        Self {
            env,
            store,
            rehearsals: None,
            sealer: None,
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
