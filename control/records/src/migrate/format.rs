//! The format of the records, and why those of a store cannot be brought to it.

use control_store::StoreError;
use serde::{Deserialize, Serialize};

/// The format that this release reads and writes.
pub const FORMAT: u32 = 6;

/// Which format the records have, `/format`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FormatRecord {
    /// The format, from 2.
    pub format: u32,
}

/// Why the records cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A newer release wrote them.
    #[error(
        "the store's records have format {found} and this release knows formats up to {FORMAT}; use the release that wrote them, or a newer one"
    )]
    Newer {
        /// The store's format.
        found: u32,
    },
    /// A record is not what a release of that format wrote.
    #[error("the record {key} of format {format} cannot be migrated: {why}")]
    Damaged {
        /// Its key.
        key: String,
        /// The store's format.
        format: u32,
        /// What is wrong with it.
        why: String,
    },
    /// The store failed.
    #[error("the store's records cannot be migrated")]
    Store(#[from] StoreError),
}

/// What is wrong with a record.
pub(super) fn damaged(key: &str, format: u32, why: &str) -> MigrateError {
    MigrateError::Damaged {
        key: key.to_owned(),
        format,
        why: why.to_owned(),
    }
}
