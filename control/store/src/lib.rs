//! The store: a revisioned key-value store, as a contract. Pure: no runtime, no I/O.
//!
//! Keys are slash-separated paths, values are bytes (JSON records, see `control/records`). Every committed transaction
//! gets the next revision; a key remembers the revision that last changed it. Implemented by `storage/redb` (a file, or memory for tests).
//! Later by etcd, behind the same trait.
//!
//! Always true: a transaction is all or nothing and durable before `txn` returns; a watch sees every change after its
//! revision, in order, or ends with [`StoreError::Lagged`] (then list again). When a transaction names a key twice, the
//! last effect wins and is the only change. Secrets are sealed (`base/sealer`) before they come here.
//!
//! Called by: providers (desired, operations), the control loops (observed, machines, leases), the agent hub (tokens).

mod records;

pub use records::{Stored, get_record, list_records, parse_record, put_record};

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;

/// The most conditions, and the most effects, of a transaction: etcd's default, so that code written against
/// this trait works with etcd.
pub const LARGEST_TXN: usize = 128;

/// A point in the store's history; grows by one with each committed transaction. 0 is the empty store.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// Bytes of a value. Shared between the store and all readers: reading copies no data.
pub type Value = Arc<[u8]>;

/// A value and the revision that last changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// When it last changed.
    pub revision: Revision,
    /// The value.
    pub value: Value,
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key is absent.
    Absent(String),
    /// The key was last changed at exactly this revision.
    At(String, Revision),
}

/// An effect of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Set.
    Put(String, Vec<u8>),
    /// Remove; no effect if absent.
    Delete(String),
}

/// All conditions hold and all effects happen, or none does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// Conditions.
    pub compare: Vec<Compare>,
    /// Effects.
    pub ops: Vec<Op>,
}

impl Txn {
    /// Adds: only if the key is absent.
    #[must_use]
    pub fn absent(mut self, key: impl Into<String>) -> Self {
        self.compare.push(Compare::Absent(key.into()));
        self
    }

    /// Adds: only if the key was last changed at exactly `revision`.
    #[must_use]
    pub fn at(mut self, key: impl Into<String>, revision: Revision) -> Self {
        self.compare.push(Compare::At(key.into(), revision));
        self
    }

    /// Adds an effect, see [`put_record`].
    #[must_use]
    pub fn with(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }

    /// Adds a removal.
    #[must_use]
    pub fn delete(self, key: impl Into<String>) -> Self {
        self.with(Op::Delete(key.into()))
    }
}

/// A change seen by a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The transaction it came with.
    pub revision: Revision,
    /// Which key.
    pub key: String,
    /// The new value, or `None` for a removal.
    pub value: Option<Value>,
}

/// The changes of a watch, at the pace of its reader. It ends after its first error, or with the store;
/// dropping it ends the watch.
pub type Changes = BoxStream<'static, Result<Change, StoreError>>;

/// The reason of a failed call of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A condition of the transaction did not hold: read again and decide again.
    #[error("{key} has changed meanwhile")]
    Conflict {
        /// Which key.
        key: String,
    },
    /// A transaction has more than [`LARGEST_TXN`] conditions or effects: a bug.
    #[error(
        "a transaction of {conditions} conditions and {effects} effects is too large, at most {LARGEST_TXN} of each are taken"
    )]
    TooLarge {
        /// Its conditions.
        conditions: usize,
        /// Its effects.
        effects: usize,
    },
    /// A watch fell behind the history that is kept: list again.
    #[error("the watch fell behind")]
    Lagged,
    /// The medium failed.
    #[error("the store cannot {act}: {why}")]
    Io {
        /// The action, as an infinitive.
        act: String,
        /// The error of the operating system.
        why: String,
    },
    /// The file is damaged.
    #[error("the store {path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: String,
        /// The damage.
        why: String,
    },
    /// A record could not be read back.
    #[error("the record {key} cannot be read: {why}")]
    Corrupt {
        /// Which key.
        key: String,
        /// Why not.
        why: String,
    },
}

/// A revisioned key-value store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// One key.
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError>;
    /// All keys with a prefix, in order, and the revision they are from.
    async fn list(&self, prefix: &str) -> Result<(Vec<(String, Versioned)>, Revision), StoreError>;
    /// Commits. Returns the new revision.
    async fn txn(&self, txn: Txn) -> Result<Revision, StoreError>;
    /// All changes of keys with a prefix after `from`.
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Changes, StoreError>;
}
