//! What Landfall offers beside AKS: namespaces of its own, so that nobody takes them for Azure's.

pub(crate) mod archive;
pub(crate) mod backups;
pub(crate) mod history;
mod restore_points;
mod unknown;
