//! The stamp's sealing keys: one takes another's place, and what the other has sealed is sealed anew.
//!
//! ```text
//!  rotate ──► the next key is on disk, and seals
//!               │  in rounds, until nothing is found that is sealed with another
//!               ▼
//!             store: records, some at a time ──► places: keys of backups' folders, of their copy, files of the service
//!               ▼
//!             the key before is unused ──(15 days, and no copy of the store is from before)──► dropped
//! ```
//!
//! All that is remembered is in the file of the keys (`base/sealer`); how far a round came is seen by the next from what it finds. So a round may
//! be cut short anywhere, by `kill -9` as well, and a store that is put back with secrets of an older key is brought to the present one.
//!
//! A key is kept for the store's copies: they hold secrets as they were sealed when they were made. Backups of clusters do not need it: their
//! folders' keys are sealed anew.
//!
//! Always true: a key that something is known to be sealed with, in the store or in a [`SealedPlace`], is not dropped; a record is written only
//! as it was read, so no change of somebody else is lost; a value that no key opens stays as it is.
//!
//! Called by: the service (rounds), the provider in `identity` (listing, rotating, dropping).

mod fate;
mod places;
mod rounds;

pub use places::{FolderKeys, Found, PlaceError, SealedPlace};
pub use rounds::{KeyStatus, Look, Sealing, SealingError};

#[cfg(test)]
mod tests;
