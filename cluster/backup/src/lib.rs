//! The format of a continuous backup of etcd, and the computation of the state of any second from it. Pure:
//! bytes in, bytes out; no clock, no files, no network.
//!
//! A backup is logical. A *base* holds every key at one revision. A *log* holds every change after a revision, in
//! order, each with the time at which it was seen. The state of a second is the newest base before it, and the log from
//! there to the end of that second:
//!
//! ```text
//!        base 1000 ──log──────────────► base 5210 ──log──────►
//!             12:00:00                       12:30:00      ▲ 12:41:07: base 5210 and the log up to there
//! ```
//!
//! Base and log are files of [`frame`]s: compressed, each with a checksum and the revision that it continues,
//! so that torn ends and gaps are detected. File names contain the covered range ([`ObjectName`]), so a list
//! of names is enough to determine which seconds can be restored ([`chain`]) and which files may be removed
//! ([`retention`]).
//!
//! Always true: a fold gives either exactly the keys of the requested moment or an error; changes of one
//! transaction (one revision) are applied together or not at all; a base and the fold up to its revision have
//! the same [`Totals`], by which backups are verified.
//!
//! Called by `machine/backup` (writes, restores) and `cluster/archive` (keeps, verifies, compares).

pub mod base;
pub mod chain;
mod codec;
pub mod diff;
pub mod fold;
pub mod frame;
pub mod log;
mod names;
pub mod retention;

pub use names::ObjectName;

use serde::{Deserialize, Serialize};

/// A key at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision that last wrote it.
    pub revision: i64,
    /// The lease it is attached to, or 0.
    pub lease: i64,
}

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The revision of its transaction.
    pub revision: i64,
    /// The time when it was seen, milliseconds since 1970. Never decreases within a log.
    pub seen: i64,
    /// The key.
    pub key: Vec<u8>,
    /// Its new value, and its lease or 0; `None`: deleted.
    pub now: Option<(Vec<u8>, i64)>,
}

/// A lease: its keys are deleted when it is not renewed. Kubernetes' events expire this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its identity.
    pub id: i64,
    /// The TTL in seconds.
    pub ttl: i64,
}

/// A summary that identifies a state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// The number of keys.
    pub keys: u64,
    /// The size of keys and values in bytes.
    pub bytes: u64,
    /// SHA-256 over all keys in order with values and revisions, hex.
    pub digest: String,
}

/// An invalid backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// The file ends in the middle of a frame: the writer did not get further.
    #[error("it ends in the middle of a block, after {whole} whole bytes")]
    Torn {
        /// Bytes up to the end of the last whole frame.
        whole: u64,
    },
    /// A frame's checksum or structure is wrong.
    #[error("it is damaged {whole} bytes from its start: {why}")]
    Damaged {
        /// Bytes up to the end of the last whole frame.
        whole: u64,
        /// The problem.
        why: &'static str,
    },
    /// Changes are missing.
    #[error("changes between revision {from} and revision {to} are missing")]
    Gap {
        /// The last revision before the gap.
        from: i64,
        /// The revision that the next part continues.
        to: i64,
    },
    /// Revisions, times or keys decrease.
    #[error("its order is wrong at revision {0}")]
    Order(i64),
    /// A base without its end record.
    #[error("the base has no end")]
    Unfinished,
    /// The content does not match the end record.
    #[error("the base holds {found} keys and says {said}")]
    Miscount {
        /// Number of keys read.
        found: u64,
        /// Number of keys in the end record.
        said: u64,
    },
    /// The medium failed.
    #[error("it cannot be read or written: {0}")]
    Medium(String),
}

impl From<std::io::Error> for BackupError {
    fn from(error: std::io::Error) -> Self {
        Self::Medium(error.to_string())
    }
}

/// Computes [`Totals`] over keys in order.
#[derive(Default)]
pub struct Tally {
    keys: u64,
    bytes: u64,
    digest: sha2::Sha256,
}

impl Tally {
    /// Adds an entry.
    pub fn add(&mut self, entry: &Entry) {
        use sha2::Digest as _;
        self.keys += 1;
        self.bytes += (entry.key.len() + entry.value.len()) as u64;
        self.digest.update((entry.key.len() as u64).to_le_bytes());
        self.digest.update(&entry.key);
        self.digest.update(entry.revision.to_le_bytes());
        self.digest.update((entry.value.len() as u64).to_le_bytes());
        self.digest.update(&entry.value);
    }

    /// The result.
    pub fn totals(self) -> Totals {
        use sha2::Digest as _;
        Totals {
            keys: self.keys,
            bytes: self.bytes,
            digest: hex::encode(self.digest.finalize()),
        }
    }
}
