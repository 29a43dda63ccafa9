//! The archive of clusters' backups: stored by the service, sealed, for the time of the retention policy.
//!
//! ```text
//! machine ── base, parts of the log ──► put: checked, sealed ──► object store: {cluster uid}/{name}
//!                                                       tend: merge small parts, drop the expired, verify
//! restore, preview, verify ◄── get, fold: unsealed, checked
//! ```
//!
//! The object store is a directory by default ([`DirectoryStore`]), or a bucket of S3 (`storage/s3`): anything that keeps files by name can be one ([`ObjectStore`]). A
//! second one may hold a copy of it ([`Mirror`]). Each file is sealed with a
//! key of the cluster's own, which lies beside, sealed with the stamp's. Folders that begin with [`STORES`] hold copies of the stamp's
//! store instead (`control/backup`).
//!
//! When another of the stamp's keys seals, the keys of the folders are sealed anew with it ([`Archive::folder_keys`]); the keys themselves, and
//! what is sealed with them, stay.
//!
//! Always true: what `put` has returned for is durable in the object store and was whole when it came; nothing in it can be
//! read, or passed off as something else, without the stamp's key; the newest base and what follows it is never dropped
//! while its cluster is there. All calls block: call them where that is allowed.
//!
//! Called by the agent hub (machines' uploads and restores), the provider (list, preview, verify) and the binary (tending).

mod archive;
mod folder_key;
mod maintenance;
mod mirror;
mod object_store;
mod sealed;

pub use archive::{Archive, ArchiveError, Holding, Limits, STORES};
pub use maintenance::{Tended, Verdict};
pub use mirror::Mirror;
pub use object_store::{DirectoryStore, ObjectStore};

#[cfg(test)]
mod tests;
