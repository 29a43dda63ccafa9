//! Brings the records of an older release to the present format.
//!
//! [`FormatRecord`] says which format the store has; a store from before that record has format 1. Each step works on JSON,
//! not on the types of today, so it stays right when these change.
//!
//! Always true: it runs before anything else reads or writes records. Each transaction of a step leaves every record
//! readable by that step, so a step that was cut short is repeated from its beginning and ends the same. The format is
//! written last. A store of a newer format is not touched.

mod access;
mod change;
mod format;
mod logins;
mod owners;
mod state;
mod words;

use control_store::{Store, Stored, Txn, get_record, put_record};

use crate::key;

pub use format::{FORMAT, FormatRecord, MigrateError};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// The format found; [`FORMAT`] in a new store.
    pub from: u32,
    /// How many records were changed.
    pub records: usize,
}

/// Brings all records to [`FORMAT`].
///
/// # Errors
/// [`MigrateError`]; then the store is as it was or partly migrated, and the next call goes on.
pub async fn migrate(store: &dyn Store) -> Result<Migrated, MigrateError> {
    let present = get_record::<FormatRecord>(store, key::FORMAT).await?;
    let from = match &present {
        Some(Stored { value, .. }) => value.format,
        None if store.list("/").await?.0.is_empty() => FORMAT,
        None => 1,
    };
    if from > FORMAT {
        return Err(MigrateError::Newer { found: from });
    }
    let mut records = 0;
    for format in from..FORMAT {
        records += match format {
            1 => owners::run(store).await?,
            2 => words::run(store).await?,
            3 => state::run(store).await?,
            4 => access::run(store).await?,
            5 => logins::run(store).await?,
            unknown => {
                return Err(MigrateError::Damaged {
                    key: key::FORMAT.to_owned(),
                    format: unknown,
                    why: "there never was such a format".to_owned(),
                });
            }
        };
    }
    if present.is_none() || from < FORMAT {
        let txn = Txn::default().with(put_record(key::FORMAT, &FormatRecord { format: FORMAT }));
        store.txn(txn).await?;
    }
    Ok(Migrated { from, records })
}
