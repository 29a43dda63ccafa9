//! The history of a cluster: what happened to it and why, for people.
//!
//! An event is written in the same transaction as the conclusion that it tells of, so it is told exactly once and never
//! of something that did not come about. It is never read to decide anything: losing all of them changes nothing else.
//!
//! Always true: a cluster has at most [`KEPT`] events, none older than [`KEPT_FOR`] where anything is written; those of a
//! deleted cluster go with its [`DeletedRecord`] after [`KEPT_AFTER_DELETION`].

use std::time::Duration;

use control_store::{Store, StoreError, Txn, list_records, put_record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ClusterRecord, PkiRecord, key};

/// How many events of a cluster are kept. The oldest go first.
pub const KEPT: usize = 200;
/// How many are removed in one transaction, at most; where there are more, later ones remove them.
const REMOVED: usize = 32;
/// How long an event is kept.
pub const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long the events of a deleted cluster are kept.
pub const KEPT_AFTER_DELETION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What kind of thing happened. Words that stay: clients filter by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EventKind {
    /// A request was accepted.
    Accepted,
    /// A later request took the place of an operation.
    Superseded,
    /// An operation was aborted.
    Aborted,
    /// An operation reached what was asked for.
    Succeeded,
    /// An operation ran out of time. The loop goes on.
    Failed,
    /// A machine runs, for the first time or again.
    MachineMade,
    /// A machine that ran is not there, or stands still.
    MachineLost,
    /// A machine is gone, as was wanted.
    MachineRemoved,
    /// An API server answers, or answers again.
    ApiReady,
    /// An API server that answered does not.
    ApiAway,
    /// A node is ready, or ready again.
    NodeJoined,
    /// A node that was ready is not.
    NodeLost,
    /// The agent of a machine started a component again.
    ComponentRestarted,
    /// A step of a repair: began, escalated, ended.
    Repair,
    /// A member of the control plane joined or was removed.
    Member,
    /// A machine goes on to another version of Kubernetes.
    Upgrade,
    /// The cluster autoscaler changes the count of a pool.
    Autoscaled,
    /// A step of the replacement of CAs or keys.
    Rotation,
    /// Planned work waits: for its window, or for an operator.
    Planned,
    /// A deadline of the support policies: notice of it, or that it has come.
    Deadline,
    /// A backup or a restore.
    Backup,
    /// Something is wrong.
    ProblemBegan,
    /// It is over.
    ProblemEnded,
    /// Everything of the cluster is gone.
    Deleted,
}

impl EventKind {
    /// Whether it is bad news.
    pub fn is_warning(self) -> bool {
        matches!(
            self,
            Self::Failed
                | Self::MachineLost
                | Self::ApiAway
                | Self::NodeLost
                | Self::ComponentRestarted
                | Self::ProblemBegan
        )
    }

    /// As in records and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Superseded => "Superseded",
            Self::Aborted => "Aborted",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::MachineMade => "MachineMade",
            Self::MachineLost => "MachineLost",
            Self::MachineRemoved => "MachineRemoved",
            Self::ApiReady => "ApiReady",
            Self::ApiAway => "ApiAway",
            Self::NodeJoined => "NodeJoined",
            Self::NodeLost => "NodeLost",
            Self::ComponentRestarted => "ComponentRestarted",
            Self::Repair => "Repair",
            Self::Member => "Member",
            Self::Upgrade => "Upgrade",
            Self::Autoscaled => "Autoscaled",
            Self::Rotation => "Rotation",
            Self::Planned => "Planned",
            Self::Deadline => "Deadline",
            Self::Backup => "Backup",
            Self::ProblemBegan => "ProblemBegan",
            Self::ProblemEnded => "ProblemEnded",
            Self::Deleted => "Deleted",
        }
    }
}

/// Something that happened, before it is written: when is the writer's matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// What kind.
    pub kind: EventKind,
    /// To what: a node's name, a pool's, `the control plane`; empty for the cluster as a whole.
    pub subject: String,
    /// What and why, for people: a sentence without a full stop. Never a secret.
    pub message: String,
    /// The operation that it belongs to, where it is the operation's own.
    pub operation: Option<String>,
}

impl Event {
    /// An event about a part of a cluster.
    pub fn new(kind: EventKind, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            subject: subject.into(),
            message: message.into(),
            operation: None,
        }
    }

    /// Of an operation.
    #[must_use]
    pub fn of(mut self, operation: impl Into<String>) -> Self {
        self.operation = Some(operation.into());
        self
    }
}

/// An event as kept, `/c/{uid}/event/{when}-{number}`: keys are in the order in which things happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRecord {
    /// Format.
    pub v: u32,
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// A cluster that is gone, `/deleted/{uid}`: so that its history can still be found by its name, and its backup restored as a new
/// cluster, for as long as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletedRecord {
    /// Format.
    pub v: u32,
    /// Its identity.
    pub uid: String,
    /// GUID of the subscription.
    pub subscription: String,
    /// Its group.
    pub resource_group: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When the last of it was gone.
    pub deleted_at: Timestamp,
    /// What it was to be last, without what it was asked for in its course.
    #[serde(default)]
    pub last: Option<Box<ClusterRecord>>,
    /// Its keys, sealed as [`key::sealed::pki`] says: its backup cannot be read without them.
    #[serde(default)]
    pub pki: Option<PkiRecord>,
}

/// Adds events to a transaction, and the removal of those that are too many or too old.
///
/// Two writers never take the same key: the one that commits second gets a [`StoreError::Conflict`] and decides again.
///
/// # Errors
/// What the store says.
pub async fn append(
    store: &dyn Store,
    mut txn: Txn,
    uid: &str,
    events: &[Event],
    now: Timestamp,
) -> Result<Txn, StoreError> {
    if events.is_empty() {
        return Ok(txn);
    }
    let (present, _) = store.list(&key::events(uid)).await?;
    let keys: Vec<&str> = present.iter().map(|(key, _)| key.as_str()).collect();
    for key in superfluous(&keys, uid, events.len(), now) {
        txn = txn.delete(key);
    }
    let prefix = key::events_at(uid, now);
    let first = keys.iter().filter(|key| key.starts_with(&prefix)).count();
    for (number, event) in events.iter().enumerate() {
        let record = EventRecord {
            v: 1,
            at: now,
            event: event.clone(),
        };
        let key = format!("{prefix}{:03}", first + number);
        txn = txn.absent(&key).with(put_record(key, &record));
    }
    Ok(txn)
}

/// Which of these keys, in order, are to go when `coming` more are written.
fn superfluous<'a>(keys: &[&'a str], uid: &str, coming: usize, now: Timestamp) -> Vec<&'a str> {
    let oldest = key::events_at(uid, now.checked_sub(KEPT_FOR).unwrap_or(Timestamp::MIN));
    let too_many = (keys.len() + coming).saturating_sub(KEPT);
    keys.iter()
        .enumerate()
        .filter(|(place, key)| *place < too_many || **key < oldest.as_str())
        .map(|(_, key)| *key)
        .take(REMOVED)
        .collect()
}

/// The events of a cluster in the order in which they happened, those younger than [`KEPT_FOR`], each with an id that is in
/// the same order, across clusters too.
///
/// # Errors
/// What the store says.
pub async fn history(
    store: &dyn Store,
    uid: &str,
    now: Timestamp,
) -> Result<Vec<(String, EventRecord)>, StoreError> {
    let prefix = key::events(uid);
    let (found, _) = list_records::<EventRecord>(store, &prefix).await?;
    let oldest = now.checked_sub(KEPT_FOR).unwrap_or(Timestamp::MIN);
    Ok(found
        .into_iter()
        .filter(|(_, stored)| stored.value.at >= oldest)
        .map(|(key, stored)| (key[prefix.len()..].to_owned(), stored.value))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    #[test]
    fn keys_are_in_the_order_of_time() {
        let keys = [
            key::events_at("u", Timestamp::MIN),
            key::events_at("u", at(0)),
            key::events_at("u", at(9)),
            key::events_at("u", at(10)),
            key::events_at("u", Timestamp::MAX),
        ];
        assert!(keys.is_sorted(), "{keys:?}");
        assert!(keys.iter().all(|key| key.starts_with(&key::events("u"))));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_and_the_old_in_any_case() {
        let all: Vec<String> = (0..i64::try_from(KEPT).unwrap())
            .map(|second| format!("{}000", key::events_at("u", at(second))))
            .collect();
        let keys: Vec<&str> = all.iter().map(String::as_str).collect();
        assert_eq!(superfluous(&keys, "u", 3, at(1000)), &keys[..3]);
        assert_eq!(superfluous(&keys[..10], "u", 3, at(1000)), Vec::<&str>::new());
        let later = at(4).checked_add(KEPT_FOR).unwrap();
        assert_eq!(superfluous(&keys[..10], "u", 1, later), &keys[..4]);
    }
}
