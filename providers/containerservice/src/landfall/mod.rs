//! Landfall's additions to AKS: separate namespaces, so that they are not mistaken for Azure's.

mod access_record;
mod alerts;
pub(crate) mod api;
pub(crate) mod archive;
pub(crate) mod backups;
mod catalogue;
pub(crate) mod certificates;
mod credentials;
mod cves;
mod deadlines;
mod history;
mod issues;
pub(crate) mod knowledge;
mod maintenance;
mod restore_points;
mod support;
mod tickets;
mod unknown;
pub(crate) mod upgrade_plans;
mod upgrades;
mod usage_records;
