//! Which store this is, and how often it was put back from a copy.
//!
//! A store that was put back is older than what it describes: numbers that it gives out from now on may have been given out before, in the
//! time that it does not know. So each restore begins a new epoch, and what must never be given out twice carries the epoch in its high
//! bits ([`Epoch::lift`]).
//!
//! Always true: of two lives of a store, the later one has the larger epoch; the record is written with the first records, and then by a
//! restore only.

use control_store::{Store, StoreError, Txn, get_record, put_record};
use serde::{Deserialize, Serialize};

use crate::key;

/// How often a store was put back from a copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The number of a configuration, as it is given out in this epoch: larger than all numbers of earlier epochs. A number of this epoch
    /// stays as it is, so the same configuration has the same number each time.
    #[must_use]
    pub fn lift(self, generation: u64) -> u64 {
        let begins = u64::from(self.0) << 32;
        if generation >= begins {
            generation
        } else {
            begins | (generation & u64::from(u32::MAX))
        }
    }
}

/// Whether a configuration is its machine's first, whatever its epoch.
pub fn is_first(generation: u64) -> bool {
    generation & u64::from(u32::MAX) == 1
}

/// Which store this is, `/store`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreRecord {
    /// Format.
    pub v: u32,
    /// Its identity: another one than that of every other store, kept when it is put back.
    pub id: String,
    /// How often it was put back.
    pub epoch: Epoch,
}

/// Which store this is; a store that does not say it yet is given an identity, from `new_id`.
///
/// # Errors
/// What the store says.
pub async fn identify(
    store: &dyn Store,
    new_id: impl FnOnce() -> String + Send,
) -> Result<StoreRecord, StoreError> {
    if let Some(found) = get_record::<StoreRecord>(store, key::STORE).await? {
        return Ok(found.value);
    }
    let record = StoreRecord {
        v: 1,
        id: new_id(),
        epoch: Epoch::default(),
    };
    let txn = Txn::default()
        .absent(key::STORE)
        .with(put_record(key::STORE, &record));
    store.txn(txn).await?;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use storage_redb::MemoryStore;

    use super::*;

    #[test]
    fn no_number_of_a_later_epoch_was_given_out_before() {
        let (first, second) = (Epoch(0), Epoch(1));
        assert_eq!(first.lift(7), 7);
        // The store knows of 3; 4 to 9 were given out before it was put back.
        let lifted = second.lift(3);
        assert!(lifted > first.lift(9));
        assert_eq!(second.lift(lifted), lifted, "the same each time");
        assert!(second.lift(lifted + 1) > lifted);
        assert!(Epoch(2).lift(lifted + 1) > lifted + 1);
        assert!(is_first(1) && is_first(second.lift(1)) && !is_first(lifted));
    }

    #[tokio::test]
    async fn a_store_has_one_identity() {
        let store = MemoryStore::new();
        let first = identify(&store, || "one".to_owned()).await.unwrap();
        assert_eq!(first.id, "one");
        assert_eq!(identify(&store, || "two".to_owned()).await.unwrap(), first);
    }
}
