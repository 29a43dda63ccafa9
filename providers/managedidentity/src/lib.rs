//! `Microsoft.ManagedIdentity`: user-assigned identities, each with a principal, and the federated
//! credentials that they log in with.
//!
//! Always true: an identity's record and its principal are made in one transaction and removed in one;
//! `principalId` and `clientId` are in the response that makes it and never change; a federated credential is
//! a credential of the principal and is stored only there. A system-assigned identity (`identities/default`)
//! belongs to its resource: it is only shown here.
//!
//! Called by: the edge.

mod body;
mod federated;
mod identities;
mod system;

use std::sync::Arc;

use arm_kernel::{Gate, Host, Namespace, Operation, ResourceType, Scope, Verb, operations_document};
use arm_wire::Response;
use base_env::Env;
use control_store::Store;

/// The namespace.
pub const NAMESPACE: &str = "Microsoft.ManagedIdentity";

/// The api-versions, newest first. The supported part has not changed between these, but for federated
/// credentials, which came in 2022.
pub(crate) const API_VERSIONS: &[&str] = &[
    "2025-05-31-preview",
    "2025-01-31-preview",
    "2024-11-30",
    "2023-07-31-preview",
    "2023-01-31",
    "2022-01-31-preview",
    "2021-09-30-preview",
    "2018-11-30",
    "2015-08-31-preview",
];

/// The provider's configuration.
#[derive(Debug, Clone)]
pub struct ManagedIdentityConfig {
    /// Name of the only location, e.g. `local`.
    pub location: String,
    /// The location for people, e.g. `Local`.
    pub location_display: String,
    /// GUID of the tenant.
    pub tenant_id: String,
}

/// The provider.
pub struct ManagedIdentity {
    config: ManagedIdentityConfig,
    env: Env,
    store: Arc<dyn Store>,
}

impl ManagedIdentity {
    /// A provider over a store.
    pub fn new(config: ManagedIdentityConfig, env: Env, store: Arc<dyn Store>) -> Self {
        Self { config, env, store }
    }
}

impl Host for ManagedIdentity {
    type Config = ManagedIdentityConfig;

    fn config(&self) -> &ManagedIdentityConfig {
        &self.config
    }

    fn env(&self) -> &Env {
        &self.env
    }

    fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// No operation of this provider is long-running.
    fn location(&self) -> &str {
        &self.config.location
    }
}

impl Namespace for ManagedIdentity {
    const NAME: &'static str = NAMESPACE;
    const TYPES: &'static [&'static ResourceType<Self>] =
        &[&identities::TYPE, &federated::TYPE, &system::TYPE, &OPERATIONS];
}

const OPERATIONS: ResourceType<ManagedIdentity> = ResourceType {
    path: "operations",
    versions: API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Operation::read(Verb::List, "Operations_List", |_, _| {
        Box::pin(async { Ok(Response::ok(operations_document::<ManagedIdentity>())) })
    })
    .gate(Gate::Anybody)
    .at(Scope::Tenant)],
};
