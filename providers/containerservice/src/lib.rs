//! The ARM provider `Microsoft.ContainerService`: managed clusters, agent pools, machines, credentials, versions.
//!
//! A pure core decides ([`properties.tsv`](compatibility) says what a body may hold; `cluster`, `pool`, `network`,
//! `identity` and `change` compute the new desired state or every problem of the body at once); a thin handler reads the
//! records, lets the core decide, and writes desired, operation and node resource group in one transaction, again from the
//! start where somebody else was faster.
//!
//! Always true:
//! - Nothing of a body is dropped silently: a property is acted on, or equals what happens anyway and is given back, or is
//!   refused by name. Read-only properties are ignored, null and empty texts mean absent, enums ignore case.
//! - `provisioningState` is never stored ([`cluster_state`], [`pool_state`]).
//! - A later request is merged with a running one (generation + 1); only a deletion cannot be taken back.
//! - Secrets are sealed into the record and never given back.
//!
//! Called by: the edge, through [`Provider`](arm_wire::Provider). The binary wires [`Credentials`] to what knows the
//! clusters' keys.

mod archived;
mod backups;
mod change;
mod cluster;
mod compatibility;
mod course;
mod credentials;
mod formats;
mod handler;
mod identity;
mod network;
mod own;
mod pool;
mod preconditions;
mod problems;
mod properties;
mod records;
mod recreate;
mod render;
mod routes;
mod state;
mod validation;
mod writes;

use cluster_versions::Offered;
use ipnet::Ipv4Net;

pub use archived::{Archived, Backups};
pub use backups::{BACKUP_API_VERSIONS, BACKUP_NAMESPACE, BACKUP_ROUTES, BackupApi};
pub use compatibility::compatibility;
pub use credentials::{CredentialKind, Credentials};
pub use handler::{ContainerService, secret_name};
pub use identity::SERVICE_PRINCIPAL_SECRET;
pub use own::{OWN_API_VERSIONS, OWN_NAMESPACE, OWN_ROUTES, OwnApi};
pub use routes::{API_VERSIONS, ROUTES};
pub use state::{ProvisioningState, cluster_state, pool_state};

/// The provider's namespace.
pub const NAMESPACE: &str = "Microsoft.ContainerService";

/// What the provider must know of its stamp.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// The stamp's only region, e.g. `local`.
    pub location: String,
    /// The stamp's DNS domain: API servers are `{prefix}-{hash}.hcp.{location}.{domain}`.
    pub domain: String,
    /// The versions that clusters can have.
    pub offered: Offered,
    /// Ranges that pods and services must keep clear of (the stamp's machine network and VIPs), each with what it is,
    /// e.g. `the machine network`.
    pub reserved_ranges: Vec<(Ipv4Net, String)>,
}
