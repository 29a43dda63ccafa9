//! `Microsoft.Resources`: tenants, subscriptions, locations, resource providers, resource groups, lists of resources, and the tags of any of them.
//!
//! Always true: the deletion of a group only marks it and writes the operation: the kernel's reaper does the
//! rest. Deployments and the other operations of the namespace are in the table and answer 501.
//!
//! Called by: the edge, which sends all paths without a namespace here.

mod features;
mod groups;
mod moves;
mod providers;
mod states;
mod subscriptions;
mod tags;
mod types;
mod validation;

use std::sync::Arc;

use arm_kernel::{Provider, Registry};
use arm_wire::{ArmError, ErrorCode, Request};
use base_env::Env;
use control_store::{Store, StoreError};

pub use features::{FEATURES_NAMESPACE, Features};
pub use states::{SUBSCRIPTIONS_API_VERSIONS, SUBSCRIPTIONS_NAMESPACE, Subscriptions};

/// The namespace.
pub const NAMESPACE: &str = "Microsoft.Resources";

/// The provider's configuration.
#[derive(Debug, Clone)]
pub struct ResourcesConfig {
    /// Name of the only location, e.g. `local`.
    pub location: String,
    /// The location for people, e.g. `Local`.
    pub location_display: String,
    /// GUID of the tenant.
    pub tenant_id: String,
    /// The tenant for people.
    pub tenant_name: String,
}

/// The provider.
pub struct ResourcesProvider {
    config: ResourcesConfig,
    env: Env,
    store: Arc<dyn Store>,
    /// All other providers: their types are listed, their resources too.
    others: Vec<Arc<dyn Provider>>,
    /// The providers of the resources.
    registry: Registry,
}

impl ResourcesProvider {
    /// A provider beside `others`.
    pub fn new(
        config: ResourcesConfig,
        env: Env,
        store: Arc<dyn Store>,
        others: Vec<Arc<dyn Provider>>,
    ) -> Self {
        Self {
            config,
            env,
            store,
            registry: Registry::new(others.clone()),
            others,
        }
    }
}

/// Any error of the store is an internal error.
fn store_error(error: StoreError) -> ArmError {
    ArmError::internal(error)
}

/// The subscription of a path that the edge has checked.
fn subscription(request: &Request) -> Result<&str, ArmError> {
    request
        .path
        .subscription
        .as_deref()
        .ok_or_else(|| ArmError::new(ErrorCode::NOT_FOUND, "The path has no subscription."))
}
