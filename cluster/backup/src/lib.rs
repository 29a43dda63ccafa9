//! What a continuous backup of etcd is made of, and how the state of any second comes out of it again. Pure: bytes in,
//! bytes out; no clock, no files, no network.
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
//! Base and log are files of [`frame`]s: compressed, each with a checksum and the revision that it continues, so that a torn
//! end is recognised and a gap cannot pass unseen. Files are called by what they hold ([`ObjectName`]), so a list of names
//! is enough to say which seconds can be restored ([`chain`]) and what may go ([`retention`]).
//!
//! Always true: a fold either gives exactly the keys of the asked moment or an error; changes of one transaction
//! (one revision) are taken together or not at all; a base and the fold up to its revision have the same [`Totals`], which
//! is how backups are verified.
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

/// A key as it is at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Vec<u8>,
    /// What it holds.
    pub value: Vec<u8>,
    /// The revision that wrote it last.
    pub revision: i64,
    /// The lease it goes with, or 0.
    pub lease: i64,
}

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The transaction it belongs to.
    pub revision: i64,
    /// When it was seen, milliseconds since 1970. Never goes back within a log.
    pub seen: i64,
    /// Which key.
    pub key: Vec<u8>,
    /// What it holds now, and its lease or 0; `None`: it is gone.
    pub now: Option<(Vec<u8>, i64)>,
}

/// A lease: keys with it go when nobody renews it. Kubernetes has its events expire so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its identity.
    pub id: i64,
    /// Seconds that it was granted for.
    pub ttl: i64,
}

/// What tells two states apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// How many keys.
    pub keys: u64,
    /// How many bytes of keys and values.
    pub bytes: u64,
    /// SHA-256 over all keys in order with values and revisions, hex.
    pub digest: String,
}

/// What is not as a backup is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// The file ends in the middle of a frame: whoever wrote it did not get further.
    #[error("it ends in the middle of a block, after {whole} whole bytes")]
    Torn {
        /// Bytes up to the end of the last whole frame.
        whole: u64,
    },
    /// A frame's checksum or shape is not right.
    #[error("it is damaged {whole} bytes from its start: {why}")]
    Damaged {
        /// Bytes up to the end of the last whole frame.
        whole: u64,
        /// What is wrong.
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
    /// Revisions, times or keys go back.
    #[error("its order is wrong at revision {0}")]
    Order(i64),
    /// A base without its end: it was never finished.
    #[error("the base has no end")]
    Unfinished,
    /// What was read is not what its end says.
    #[error("the base holds {found} keys and says {said}")]
    Miscount {
        /// Keys read.
        found: u64,
        /// Keys that the end tells of.
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

/// Adds up [`Totals`] over keys in order.
#[derive(Default)]
pub struct Tally {
    keys: u64,
    bytes: u64,
    digest: sha2::Sha256,
}

impl Tally {
    /// Counts one more.
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

    /// The sum.
    pub fn totals(self) -> Totals {
        use sha2::Digest as _;
        Totals {
            keys: self.keys,
            bytes: self.bytes,
            digest: hex::encode(self.digest.finalize()),
        }
    }
}
