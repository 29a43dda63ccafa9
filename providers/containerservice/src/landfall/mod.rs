//! What Landfall offers beside AKS: namespaces of its own, so that nobody takes them for Azure's.

pub(crate) mod api;
pub(crate) mod archive;
pub(crate) mod backups;
mod credentials;
mod history;
mod restore_points;
mod unknown;
pub(crate) mod upgrade_plans;
