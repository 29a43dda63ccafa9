//! Where backups of clusters are kept: by the service, sealed, for as long as the retention says.
//!
//! ```text
//! machine ── base, parts of the log ──► put: checked, sealed ──► shelf: {cluster uid}/{name}
//!                                                       tend: merge small parts, drop the expired, verify
//! restore, preview, verify ◄── get, fold: unsealed, checked
//! ```
//!
//! A shelf is a directory by default, or a bucket of S3 (`storage/s3`); anything that keeps files by name can be one ([`Shelf`]). A
//! second one may hold a copy of it ([`Mirror`]). What is on it is sealed with a
//! key of the cluster's own, which lies beside, sealed with the stamp's.
//!
//! Always true: what `put` has returned for is durable on the shelf and was whole when it came; nothing on the shelf can be
//! read, or passed off as something else, without the stamp's key; the newest base and what follows it is never dropped
//! while its cluster is there. All calls block: call them where that is allowed.
//!
//! Called by the agent hub (machines' uploads and restores), the provider (list, preview, verify) and the binary (tending).

mod archive;
mod maintenance;
mod mirror;
mod object_store;
mod sealed;

pub use archive::{Archive, ArchiveError, Holding};
pub use maintenance::{Tended, Verdict};
pub use mirror::Mirror;
pub use object_store::{DirectoryShelf, Shelf};

#[cfg(test)]
mod tests;
