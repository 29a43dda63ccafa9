//! Landfall's additions to AKS: separate namespaces, so that they are not mistaken for Azure's.

mod alerts;
pub(crate) mod api;
pub(crate) mod archive;
pub(crate) mod backups;
pub(crate) mod certificates;
mod credentials;
mod history;
mod maintenance;
mod restore_points;
mod unknown;
pub(crate) mod upgrade_plans;
mod usage_records;
