//! Copies of the store: how they are written, where they are kept, how a store is put back from one.
//!
//! ```text
//!  store ── Snapshot ──► encode: compressed ──► cluster/archive: sealed ──► store-{id}/{time}-{epoch}-{revision}.copy
//!                                                   │ read back and compared
//!  store file ◄── restore: beside, then renamed ◄───┘
//! ```
//!
//! A copy is the whole of a store at one revision. Its store's folder lies beside the clusters' backups, with a key of its own that is
//! sealed with the stamp's; a mirror of the archive takes it along. Who has a copy, the folder's key and `secrets/sealing.key` has the
//! store; without the sealing key a copy is worth nothing.
//!
//! Always true: a copy that is listed was read back and was what the store held; copies of another store are never removed; a store that
//! is put back has a larger epoch than each one before, and that is in the archive before it is in force; the store that was there is
//! kept beside. All of it blocks but [`Snapshot::of`].
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
