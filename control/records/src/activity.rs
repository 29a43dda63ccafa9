//! The activity log: who asked for what change, or for credentials, and what was answered.
//!
//! A change that the kernel writes is logged in the transaction that makes it. What is refused, and what is handed out, is logged once it
//! is answered. Each subscription has a log of its own, so that nobody flushes another's; what was refused is kept apart from what was
//! done, so that refusals do not flush it.
//!
//! Always true: of a subscription at most [`MAX_DONE`] and [`MAX_REFUSED`] records are kept, plus [`TRIM_EVERY`], none older than
//! [`KEPT_FOR`]. A log is never read to decide anything.

use std::time::Duration;

use control_store::{Op, Store, StoreError, Txn, list_records, put_record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The prefix of all activity logs.
pub const ACTIVITY: &str = "/activity/";
/// How many records of what was done are kept for each subscription. The oldest go first.
pub const MAX_DONE: usize = 5_000;
/// How many records of what was refused are kept for each subscription.
pub const MAX_REFUSED: usize = 1_000;
/// After so many new records of a subscription, those beyond the bounds are removed.
pub const TRIM_EVERY: usize = 64;
/// How long a record is kept.
pub const KEPT_FOR: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Removals of one transaction.
const BATCH: usize = 100;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActivityStatus {
    /// It is carried out by a long-running operation.
    Accepted,
    /// It is done.
    Succeeded,
    /// It was refused, or failed.
    Failed,
}

impl ActivityStatus {
    /// As in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActivityRecord {
    /// Format.
    pub v: u32,
    /// When.
    pub at: Timestamp,
    /// Object id of who asked.
    pub principal: String,
    /// Its application id or user principal name.
    pub principal_name: String,
    /// `Application` or `User`.
    pub principal_type: String,
    /// From where, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<std::net::IpAddr>,
    /// What was asked, e.g. `Microsoft.ContainerService/managedClusters/write`.
    pub action: String,
    /// With which HTTP method; records from before this was kept do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Of what: an ARM id.
    pub scope: String,
    /// What became of it.
    pub status: ActivityStatus,
    /// The HTTP status of the answer; nothing where the record was written before the answer, with the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// The error's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The long-running operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// `x-ms-correlation-request-id`.
    pub correlation_id: String,
    /// `x-ms-request-id`.
    pub request_id: String,
}

impl ActivityRecord {
    /// Its key in the log of `subscription`, `None` for what is in no subscription that there is.
    pub fn key(&self, subscription: Option<&str>) -> String {
        let kind = match self.status {
            ActivityStatus::Accepted | ActivityStatus::Succeeded => Kind::Done,
            ActivityStatus::Failed => Kind::Refused,
        };
        format!("{}{}", prefix(subscription, kind), self.id())
    }

    /// Its id, in the order of time across logs.
    pub fn id(&self) -> String {
        format!("{}-{}", moment(self.at), self.request_id)
    }

    /// The effect that writes it.
    pub fn put(&self, subscription: Option<&str>) -> Op {
        put_record(self.key(subscription), self)
    }
}

/// The two parts of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Done,
    Refused,
}

fn prefix(subscription: Option<&str>, kind: Kind) -> String {
    let subscription = subscription.unwrap_or("-").to_ascii_lowercase();
    let kind = match kind {
        Kind::Done => "done",
        Kind::Refused => "refused",
    };
    format!("{ACTIVITY}{subscription}/{kind}/")
}

/// Milliseconds since 1970, so that keys are in the order of time.
fn moment(at: Timestamp) -> String {
    format!("{:015}", at.as_millisecond().max(0))
}

/// The log of a subscription with its ids, oldest first.
///
/// # Errors
/// What the store says.
pub async fn log(
    store: &dyn Store,
    subscription: Option<&str>,
) -> Result<Vec<(String, ActivityRecord)>, StoreError> {
    let mut all = Vec::new();
    for kind in [Kind::Done, Kind::Refused] {
        let (found, _) = list_records::<ActivityRecord>(store, &prefix(subscription, kind)).await?;
        all.extend(found.into_iter().map(|(_, stored)| stored.value));
    }
    let mut all: Vec<(String, ActivityRecord)> =
        all.into_iter().map(|record| (record.id(), record)).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(all)
}

/// Removes from a subscription's log what is too much or too old.
///
/// # Errors
/// What the store says.
pub async fn trim(store: &dyn Store, subscription: Option<&str>, now: Timestamp) -> Result<(), StoreError> {
    for (kind, most) in [(Kind::Done, MAX_DONE), (Kind::Refused, MAX_REFUSED)] {
        let prefix = prefix(subscription, kind);
        let (present, _) = store.list(&prefix).await?;
        let keys: Vec<&str> = present.iter().map(|(key, _)| key.as_str()).collect();
        for batch in superfluous(&keys, &prefix, most, now).chunks(BATCH) {
            let txn = batch.iter().fold(Txn::default(), |txn, key| txn.delete(*key));
            store.txn(txn).await?;
        }
    }
    Ok(())
}

/// Which of these keys, in order, are to go.
fn superfluous<'a>(keys: &[&'a str], prefix: &str, most: usize, now: Timestamp) -> Vec<&'a str> {
    let oldest = moment(now.checked_sub(KEPT_FOR).unwrap_or(Timestamp::MIN));
    let oldest = format!("{prefix}{oldest}");
    let too_many = keys.len().saturating_sub(most);
    keys.iter()
        .enumerate()
        .filter(|(place, key)| *place < too_many || **key < oldest.as_str())
        .map(|(_, key)| *key)
        .collect()
}

#[cfg(test)]
mod tests {
    use storage_redb::MemoryStore;

    use super::*;

    fn record(second: i64, status: ActivityStatus) -> ActivityRecord {
        ActivityRecord {
            v: 1,
            at: Timestamp::from_second(1_767_225_600 + second).unwrap(),
            principal: "o".to_owned(),
            principal_name: "ada".to_owned(),
            principal_type: "User".to_owned(),
            address: None,
            method: None,
            action: "Microsoft.Test/things/write".to_owned(),
            scope: "/subscriptions/S".to_owned(),
            status,
            http_status: None,
            code: None,
            operation: None,
            correlation_id: "c".to_owned(),
            request_id: format!("r{second}"),
        }
    }

    #[tokio::test]
    async fn refusals_do_not_flush_what_was_done_and_both_are_bounded() {
        let store = MemoryStore::new();
        let done = record(0, ActivityStatus::Accepted);
        let mut txns = vec![Txn::default().with(done.put(Some("S")))];
        let many = i64::try_from(MAX_REFUSED).unwrap() + 150;
        for first in (1..=many).step_by(100) {
            let txn = (first..first + 100).fold(Txn::default(), |txn, second| {
                txn.with(record(second, ActivityStatus::Failed).put(Some("s")))
            });
            txns.push(txn);
        }
        for txn in txns {
            store.txn(txn).await.unwrap();
        }
        trim(&store, Some("s"), record(many, ActivityStatus::Failed).at)
            .await
            .unwrap();
        let kept = log(&store, Some("S")).await.unwrap();
        assert_eq!(kept.len(), MAX_REFUSED + 1);
        assert_eq!(kept[0].1, done, "what was done stays, oldest first");
        assert_eq!(log(&store, Some("other")).await.unwrap(), []);
        // Years later nothing of it is left.
        let later = done.at.checked_add(KEPT_FOR * 2).unwrap();
        trim(&store, Some("s"), later).await.unwrap();
        assert_eq!(log(&store, Some("s")).await.unwrap(), []);
    }
}
