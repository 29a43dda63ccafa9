//! `Microsoft.ContainerRegistry`: registries of container images, as resources. Their images are `registry`'s.
//!
//! Always true: a registry's name is unique in the stamp, because it is a part of the references of its images;
//! its record and its name are written in one transaction and removed in one, which also says that its images
//! are to go; a property without an effect here is accepted only with the value that is true anyway.
//!
//! Called by: the edge.

mod body;
mod names;
mod registries;

use std::sync::Arc;

use arm_kernel::{Gate, Host, Namespace, Operation, ResourceType, Scope, Verb, operations_document};
use arm_wire::Response;
use async_trait::async_trait;
use base_env::Env;
use control_store::Store;

pub use registries::registry_id;

/// The namespace.
pub const NAMESPACE: &str = "Microsoft.ContainerRegistry";

/// The api-versions, newest first. The first one is the Azure CLI's. The supported part has not changed between these.
pub const API_VERSIONS: &[&str] = &[
    "2026-09-01-preview",
    "2025-11-01",
    "2025-05-01-preview",
    "2025-04-01",
    "2025-03-01-preview",
    "2024-11-01-preview",
    "2023-11-01-preview",
    "2023-08-01-preview",
    "2023-07-01",
    "2023-06-01-preview",
    "2023-01-01-preview",
    "2022-12-01",
    "2021-09-01",
    "2019-05-01",
];

/// The provider's configuration.
#[derive(Debug, Clone)]
pub struct ContainerRegistryConfig {
    /// Name of the only location, e.g. `local`.
    pub location: String,
    /// The location for people, e.g. `Local`.
    pub location_display: String,
    /// Host and port of the stamp's registries, e.g. `127.0.0.1:8443`: the part of an image's reference before
    /// the registry's name.
    pub host: String,
}

impl ContainerRegistryConfig {
    /// A registry's login server.
    pub fn login_server(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }
}

/// The size of a registry's images cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("the images of the registry cannot be counted")]
pub struct OccupancyError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Tells how much registries hold.
#[async_trait]
pub trait Occupancy: Send + Sync {
    /// The bytes of all images and unfinished uploads of the registry with this uid.
    async fn bytes(&self, uid: &str) -> Result<u64, OccupancyError>;
}

/// The provider.
pub struct ContainerRegistry {
    config: ContainerRegistryConfig,
    env: Env,
    store: Arc<dyn Store>,
    /// `None`: this stamp keeps no images, because it is simulated.
    occupancy: Option<Arc<dyn Occupancy>>,
}

impl ContainerRegistry {
    /// A provider over a store. Without `occupancy`, usages are answered with an error.
    pub fn new(
        config: ContainerRegistryConfig,
        env: Env,
        store: Arc<dyn Store>,
        occupancy: Option<Arc<dyn Occupancy>>,
    ) -> Self {
        Self {
            config,
            env,
            store,
            occupancy,
        }
    }
}

impl Host for ContainerRegistry {
    type Config = ContainerRegistryConfig;

    fn config(&self) -> &ContainerRegistryConfig {
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

impl Namespace for ContainerRegistry {
    const NAME: &'static str = NAMESPACE;
    const TYPES: &'static [&'static ResourceType<Self>] =
        &[&registries::TYPE, &registries::USAGES, &names::TYPE, &OPERATIONS];
}

const OPERATIONS: ResourceType<ContainerRegistry> = ResourceType {
    path: "operations",
    versions: API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Operation::read(Verb::List, "Operations_List", |_, _| {
        Box::pin(async { Ok(Response::ok(operations_document::<ContainerRegistry>())) })
    })
    .gate(Gate::Anybody)
    .at(Scope::Tenant)],
};
