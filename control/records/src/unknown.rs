//! What exists and is in no record of this store, and what this store knows to have been its own and removed.
//!
//! A store may be new, older than what it describes, or damaged. So nothing is removed because the store does not tell of it:
//! machines, networks, volumes and backups are removed only where a [`RemovedRecord`] says that they were this store's and were to
//! go. Everything else that is found is written down as an [`UnknownRecord`], shown to people and kept. A person who wants it
//! gone has a [`RemovedRecord`] written.
//!
//! Always true: a [`RemovedRecord`] is written in the transaction that removes the last record of the thing.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use control_store::{Op, Store, StoreError, Txn, list_records, put_record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The prefix of what is unknown.
pub const UNKNOWN: &str = "/unknown/";
/// The prefix of what was removed.
pub const REMOVED: &str = "/removed/";
/// How long it is remembered that something was removed: a creation that was under way when it was may end long after.
pub const REMEMBERED: Duration = Duration::from_secs(400 * 24 * 60 * 60);
/// Records that are changed in one transaction.
const BATCH: usize = 64;

/// What kind of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A machine of the fabric, with its disk.
    Machine,
    /// A network of the fabric.
    Network,
    /// A volume of the fabric, with all that is on it.
    Volume,
    /// A cluster's backup.
    Backup,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 4] = [Self::Machine, Self::Network, Self::Volume, Self::Backup];

    /// As in keys and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Backup => "backup",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not one of machine, network, volume, backup"))
    }
}

/// Something that exists and is in no record, `/unknown/{kind}/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnknownRecord {
    /// Format.
    pub v: u32,
    /// What kind of thing.
    pub kind: Kind,
    /// Its identity: a machine's, a network's, a volume's, or the cluster's uid of a backup.
    pub id: String,
    /// What it says of itself: the labels of a machine or a volume.
    pub labels: BTreeMap<String, String>,
    /// When it was first found.
    pub since: Timestamp,
}

/// Something of this store that was to go, `/removed/{kind}/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovedRecord {
    /// Format.
    pub v: u32,
    /// When its last record was removed.
    pub at: Timestamp,
}

/// The key of something unknown.
pub fn unknown_key(kind: Kind, id: &str) -> String {
    format!("{UNKNOWN}{kind}/{id}")
}

/// The key of something removed.
pub fn removed_key(kind: Kind, id: &str) -> String {
    format!("{REMOVED}{kind}/{id}")
}

/// Says that something was this store's and may be removed wherever it is found.
pub fn removed(kind: Kind, id: &str, now: Timestamp) -> Op {
    put_record(removed_key(kind, id), &RemovedRecord { v: 1, at: now })
}

/// Whether something was this store's and may be removed.
///
/// # Errors
/// What the store says.
pub async fn is_removed(store: &dyn Store, kind: Kind, id: &str) -> Result<bool, StoreError> {
    Ok(store.get(&removed_key(kind, id)).await?.is_some())
}

/// Everything unknown, in order of kind and identity.
///
/// # Errors
/// What the store says.
pub async fn list(store: &dyn Store) -> Result<Vec<UnknownRecord>, StoreError> {
    let (found, _) = list_records::<UnknownRecord>(store, UNKNOWN).await?;
    Ok(found.into_iter().map(|(_, unknown)| unknown.value).collect())
}

/// These things of a kind, by identity, are unknown at present, and no others: writes what is new, removes what is over.
/// Returns what is new.
///
/// # Errors
/// What the store says.
pub async fn found(
    store: &dyn Store,
    kind: Kind,
    present: BTreeMap<String, BTreeMap<String, String>>,
    now: Timestamp,
) -> Result<Vec<String>, StoreError> {
    let (before, _) = store.list(&format!("{UNKNOWN}{kind}/")).await?;
    let over = before.iter().filter(|(key, _)| {
        let id = key.rsplit('/').next().unwrap_or_default();
        !present.contains_key(id)
    });
    let mut ops: Vec<Op> = over.map(|(key, _)| Op::Delete(key.clone())).collect();
    let mut new = Vec::new();
    for (id, labels) in present {
        let key = unknown_key(kind, &id);
        if before.iter().any(|(known, _)| *known == key) {
            continue;
        }
        new.push(id.clone());
        let record = UnknownRecord {
            v: 1,
            kind,
            id,
            labels,
            since: now,
        };
        ops.push(put_record(key, &record));
    }
    for some in ops.chunks(BATCH) {
        let txn = some.iter().cloned().fold(Txn::default(), Txn::with);
        store.txn(txn).await?;
    }
    Ok(new)
}

/// Forgets that something was removed where that was long ago.
///
/// # Errors
/// What the store says.
pub async fn forget_removed(store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
    let (removed, _) = list_records::<RemovedRecord>(store, REMOVED).await?;
    let old: Vec<Op> = removed
        .into_iter()
        .filter(|(_, removed)| now.duration_since(removed.value.at).unsigned_abs() > REMEMBERED)
        .map(|(key, _)| Op::Delete(key))
        .collect();
    for some in old.chunks(BATCH) {
        let txn = some.iter().cloned().fold(Txn::default(), Txn::with);
        store.txn(txn).await?;
    }
    Ok(())
}
