//! Landfall's additions to AKS: separate namespaces, so that they are not mistaken for Azure's.

pub(crate) mod api;
pub(crate) mod archive;
pub(crate) mod backups;
mod catalogue;
mod credentials;
mod cves;
mod history;
mod issues;
pub(crate) mod knowledge;
mod maintenance;
mod restore_points;
mod support;
mod unknown;
pub(crate) mod upgrade_plans;
