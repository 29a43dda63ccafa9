//! The activity log: requests for changes or credentials with their callers and outcomes.
//!
//! A change that the kernel writes is logged in its own transaction. Refusals and credentials that were handed out are logged after the
//! answer. Each subscription has its own log, so that no subscription displaces another's records; refusals are kept apart from
//! completed requests for the same reason.
//!
//! Always true: of a subscription at most [`MAX_DONE`] and [`MAX_REFUSED`] records are kept, plus [`TRIM_EVERY`], none older than
//! [`KEPT_FOR`]. A log is never read to decide anything.

use std::time::Duration;

use control_store::{Op, Store, StoreError, Txn, list_records, put_record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The prefix of all activity logs.
pub const ACTIVITY: &str = "/activity/";
/// Number of records of completed requests kept for each subscription. The oldest go first.
pub const MAX_DONE: usize = 5_000;
/// Number of records of refused requests kept for each subscription.
pub const MAX_REFUSED: usize = 1_000;
/// Number of new records of a subscription after which records beyond the bounds are removed.
pub const TRIM_EVERY: usize = 64;
/// Age up to which a record is kept.
pub const KEPT_FOR: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Removals in one transaction.
const BATCH: usize = 100;

/// Outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActivityStatus {
    /// Accepted: a long-running operation carries it out.
    Accepted,
    /// Done.
    Succeeded,
    /// Refused, or failed.
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
    /// Time of the request.
    pub at: Timestamp,
    /// Object id of the caller.
    pub principal: String,
    /// Application id or user principal name of the caller.
    pub principal_name: String,
    /// Kind of the caller: `Application` or `User`.
    pub principal_type: String,
    /// Address of the caller, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<std::net::IpAddr>,
    /// The action, e.g. `Microsoft.ContainerService/managedClusters/write`.
    pub action: String,
    /// HTTP method; older records have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// ARM id of the resource.
    pub scope: String,
    /// Outcome.
    pub status: ActivityStatus,
    /// HTTP status of the answer; none where the record was written with the change, before the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Error code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Name of the long-running operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// `x-ms-correlation-request-id`.
    pub correlation_id: String,
    /// `x-ms-request-id`.
    pub request_id: String,
}

impl ActivityRecord {
    /// Its key in the log of `subscription`; `None` for requests in no existing subscription.
    pub fn key(&self, subscription: Option<&str>) -> String {
        let kind = match self.status {
            ActivityStatus::Accepted | ActivityStatus::Succeeded => Kind::Done,
            ActivityStatus::Failed => Kind::Refused,
        };
        format!("{}{}", prefix(subscription, kind), self.id())
    }

    /// Its id: ids are in the order of time across logs.
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
/// Errors of the store.
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

/// Removes the records of a subscription that are too many or too old.
///
/// # Errors
/// Errors of the store.
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

/// The keys, of these in order, that are to be removed.
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
        // All records have expired years later.
        let later = done.at.checked_add(KEPT_FOR * 2).unwrap();
        trim(&store, Some("s"), later).await.unwrap();
        assert_eq!(log(&store, Some("s")).await.unwrap(), []);
    }
}
