//! Copies of the store: their format, their storage, and restoring a store from one.
//!
//! ```text
//!  store ── Snapshot ──► encode: compressed ──► cluster/archive: sealed ──► store-{id}/{time}-{epoch}-{revision}.copy
//!                                                   │ read back and compared
//!  store file ◄── restore: beside, then renamed ◄───┘
//! ```
//!
//! A copy is the whole of a store at one revision. Its store's folder is beside the clusters' backups, with a
//! separate key that is sealed with the stamp's; a mirror of the archive contains it as well. A copy, the
//! folder's key and `secrets/sealing.key` together give the store; without the sealing key a copy is useless.
//!
//! Always true: a listed copy was read back and equals the store at that time; copies of another store are
//! never removed; a restored store has a larger epoch than each one before, and the archive has that epoch
//! before the restored store is in place; the previous store file is kept beside it. All functions block,
//! except [`Snapshot::of`].
//!
//! Called by: the service (copies), the binary (listing and restoring), the simulator.

mod copies;
mod format;
mod name;
mod restore;

pub use copies::{Copies, CopyError, Kept};
pub use format::{Decoded, Header, Snapshot, decode, encode};
pub use name::{CopyName, expired};
pub use restore::{RestoreError, Restored, restore};
