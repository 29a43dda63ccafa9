//! Records: values that are JSON of a Rust type.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Op, Revision, Store, StoreError, Versioned};

/// A record and the revision that last changed it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<T> {
    /// When it last changed; for [`crate::Compare::At`].
    pub revision: Revision,
    /// The record.
    pub value: T,
}

/// Parses a value; for callers that read a key repeatedly and parse it only after a change.
///
/// # Errors
/// [`StoreError::Corrupt`] when the value is not a `T`.
pub fn parse_record<T: DeserializeOwned>(key: &str, found: &Versioned) -> Result<Stored<T>, StoreError> {
    let value = serde_json::from_slice(&found.value).map_err(|error| StoreError::Corrupt {
        key: key.to_owned(),
        why: error.to_string(),
    })?;
    Ok(Stored {
        revision: found.revision,
        value,
    })
}

/// Reads one record.
///
/// # Errors
/// [`StoreError::Corrupt`] when the value is not a `T`; other errors of the store.
pub async fn get_record<T: DeserializeOwned>(
    store: &dyn Store,
    key: &str,
) -> Result<Option<Stored<T>>, StoreError> {
    let Some(found) = store.get(key).await? else {
        return Ok(None);
    };
    parse_record(key, &found).map(Some)
}

/// Reads all records with a prefix, in order of their keys, and the revision they are from (to watch from).
///
/// # Errors
/// [`StoreError::Corrupt`] when a value is not a `T`; other errors of the store.
pub async fn list_records<T: DeserializeOwned>(
    store: &dyn Store,
    prefix: &str,
) -> Result<(Vec<(String, Stored<T>)>, Revision), StoreError> {
    let (found, revision) = store.list(prefix).await?;
    let records = found
        .into_iter()
        .map(|(key, found)| {
            let record = parse_record(&key, &found)?;
            Ok((key, record))
        })
        .collect::<Result<_, StoreError>>()?;
    Ok((records, revision))
}

/// The effect that writes a record.
///
/// # Panics
/// When `T` has a map whose keys are not strings; no record does.
pub fn put_record<T: Serialize>(key: impl Into<String>, value: &T) -> Op {
    let bytes = serde_json::to_vec(value).expect("records are plain data with string keys");
    Op::Put(key.into(), bytes)
}
