//! Landfall's additions to AKS: separate namespaces, so that they are not mistaken for Azure's.

pub(crate) mod api;
pub(crate) mod archive;
pub(crate) mod backups;
mod credentials;
mod history;
mod maintenance;
mod restore_points;
mod support;
mod unknown;
pub(crate) mod upgrade_plans;
