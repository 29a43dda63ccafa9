//! Alerts: what an operator has to know of and do something about, as resources that close by themselves.
//!
//! A record is the state of one alert: a rule and what it is about. What opens and closes one is decided elsewhere (`policy/alerts`), from facts;
//! no record of these is ever read to decide anything about a cluster.
//!
//! Always true: there is one record for each rule and subject, so an alert that comes again is the same one, opened once more; at most
//! [`MOST_OPEN`] are open, and at most [`MOST_CLOSED`] closed ones are kept, none longer than [`CLOSED_KEPT_FOR`].

use std::time::Duration;

use control_store::{Op, Store, StoreError, Stored, list_records, put_record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The prefix of all alerts.
pub const ALERTS: &str = "/alerts/";
/// How many may be open at the same time. The rules fold alerts of many clusters into one long before.
pub const MOST_OPEN: usize = 1_000;
/// How many closed ones are kept. Those that closed first go first.
pub const MOST_CLOSED: usize = 200;
/// How long a closed one is kept.
pub const CLOSED_KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// Something is lost, or about to be, unless somebody acts now.
    Critical,
    /// It has to be seen to within days.
    Warning,
    /// To know of.
    Information,
}

impl Severity {
    /// As in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "Critical",
            Self::Warning => "Warning",
            Self::Information => "Information",
        }
    }
}

/// The cluster that an alert is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertCluster {
    /// Its identity.
    pub uid: String,
    /// GUID of its subscription.
    pub subscription: String,
    /// Its group.
    pub resource_group: String,
    /// Its name.
    pub name: String,
}

/// An alert, `/alerts/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertRecord {
    /// Format.
    pub v: u32,
    /// Its name: that of its rule, and of its subject where there is one, `backup-lag.k3v1q09a2b`.
    pub name: String,
    /// The name of its rule.
    pub rule: String,
    /// How bad it is; the worst that it was since it opened.
    pub severity: Severity,
    /// The cluster that it is about; `None`: the stamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<AlertCluster>,
    /// What is so, for people: a sentence without a full stop. Never a secret.
    pub message: String,
    /// What to do about it, for people.
    pub remedy: String,
    /// What closes it, for people.
    pub closes: String,
    /// Since when it is open, the last time.
    pub opened_at: Timestamp,
    /// When it closed; `None`: it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<Timestamp>,
    /// How often it has opened.
    pub times: u64,
}

impl AlertRecord {
    /// Its key.
    pub fn key(&self) -> String {
        key(&self.name)
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.closed_at.is_none()
    }

    /// The effect that writes it.
    pub fn put(&self) -> Op {
        put_record(self.key(), self)
    }
}

/// The key of the alert of this name.
pub fn key(name: &str) -> String {
    format!("{ALERTS}{name}")
}

/// All alerts, in the order of their names.
///
/// # Errors
/// What the store says.
pub async fn list(store: &dyn Store) -> Result<Vec<Stored<AlertRecord>>, StoreError> {
    let (found, _) = list_records::<AlertRecord>(store, ALERTS).await?;
    Ok(found.into_iter().map(|(_, stored)| stored).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_pinned() {
        let record = AlertRecord {
            v: 1,
            name: "backup-lag.u".to_owned(),
            rule: "backup-lag".to_owned(),
            severity: Severity::Critical,
            cluster: Some(AlertCluster {
                uid: "u".to_owned(),
                subscription: "s".to_owned(),
                resource_group: "g".to_owned(),
                name: "c".to_owned(),
            }),
            message: "m".to_owned(),
            remedy: "r".to_owned(),
            closes: "x".to_owned(),
            opened_at: Timestamp::UNIX_EPOCH,
            closed_at: None,
            times: 1,
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(
            text,
            r#"{"v":1,"name":"backup-lag.u","rule":"backup-lag","severity":"Critical","cluster":{"uid":"u","subscription":"s","resourceGroup":"g","name":"c"},"message":"m","remedy":"r","closes":"x","openedAt":"1970-01-01T00:00:00Z","times":1}"#
        );
        assert_eq!(serde_json::from_str::<AlertRecord>(&text).unwrap(), record);
        assert_eq!(record.key(), "/alerts/backup-lag.u");
        assert!(record.is_open());
    }

    #[test]
    fn the_worst_is_first() {
        assert!(Severity::Critical < Severity::Warning && Severity::Warning < Severity::Information);
    }
}
