//! Changing records where they are, each once.

use control_store::{Store, Txn, Versioned, put_record};
use serde_json::{Value, json};

use super::format::{MigrateError, damaged};

/// How many records are changed in one transaction, at most.
pub(super) const BATCH: usize = 32;

/// A step that changes records where they are.
pub(super) struct Change {
    /// The format that it begins with.
    pub(super) from: u32,
    /// The `v` of a record that has been changed: larger than any before.
    pub(super) version: u64,
}

impl Change {
    /// Changes those of these records that have not been changed yet. `change` says whether a record is one of those that it changes.
    pub(super) async fn each(
        &self,
        store: &dyn Store,
        records: &[(String, Versioned)],
        change: impl Fn(&str, &mut Value) -> Result<bool, MigrateError>,
    ) -> Result<usize, MigrateError> {
        let mut changed = 0;
        for batch in records.chunks(BATCH) {
            let mut txn = Txn::default();
            for (key, record) in batch {
                let mut value = parse(key, self.from, record)?;
                // A later step may have changed it as well, before it was cut short: all steps are repeated then.
                let changed_before = value["v"].as_u64().is_some_and(|v| v >= self.version);
                if changed_before || !change(key, &mut value)? {
                    continue;
                }
                value["v"] = json!(self.version);
                txn = txn.at(key, record.revision).with(put_record(key.clone(), &value));
                changed += 1;
            }
            if !txn.ops.is_empty() {
                store.txn(txn).await?;
            }
        }
        Ok(changed)
    }
}

/// A record of a format as JSON.
pub(super) fn parse(key: &str, from: u32, record: &Versioned) -> Result<Value, MigrateError> {
    let value: Result<Value, _> = serde_json::from_slice(&record.value);
    let value = value.map_err(|error| damaged(key, from, &error.to_string()))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(damaged(key, from, "it is not an object"))
    }
}
