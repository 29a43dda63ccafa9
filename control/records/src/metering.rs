//! What subscriptions have used, by the hour: [`UsageDayRecord`], one for each subscription and day that something was used on.
//!
//! Written by the service apart from all requests (`policy/metering` computes it from the records' changes); no decision rests on it, and losing
//! all of it changes nothing else. Quotas are another thing ([`crate::usage`]): what is asked for now.
//!
//! Always true: a record has at most 24 hours of four meters; none is kept longer than [`KEPT_DAYS`]; hours and days are UTC's.

use std::collections::BTreeMap;

use control_store::{Op, Store, StoreError, list_records, put_record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The prefix of all of it.
pub const METERING: &str = "/metering/";
/// The key of [`ThroughRecord`].
pub const THROUGH: &str = "/metered";
/// How many days are kept.
pub const KEPT_DAYS: i64 = 90;
/// Seconds of an hour.
pub const HOUR: i64 = 3_600;
/// Seconds of a day.
pub const DAY: i64 = 24 * HOUR;

/// What was used within an hour, each summed up over its seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meters {
    /// How many seconds of the hour are in it: fewer than 3,600 while it lasts, and where the service was away.
    pub seconds: u64,
    /// Cores of nodes, core-seconds.
    pub core_seconds: u64,
    /// Memory of nodes, MiB-seconds.
    pub memory_mib_seconds: u64,
    /// Disks of nodes and volumes, GiB-seconds.
    pub disk_gib_seconds: u64,
    /// Addresses of the stamp's network, address-seconds.
    pub address_seconds: u64,
}

/// Up to when what was used is written for all subscriptions, `/metered`: written after their records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThroughRecord {
    /// Format.
    pub v: u32,
    /// Seconds since 1970.
    pub through: i64,
}

/// What a subscription has used on a day, `/metering/{subscription}/{day}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageDayRecord {
    /// Format.
    pub v: u32,
    /// GUID of the subscription, lower case.
    pub subscription: String,
    /// Days since 1970.
    pub day: i64,
    /// By hour of the day, 0 to 23.
    pub hours: BTreeMap<u8, Meters>,
    /// Up to when it is counted, seconds since 1970.
    pub through: i64,
}

impl UsageDayRecord {
    /// A day on which nothing is counted yet.
    pub fn new(subscription: &str, day: i64) -> Self {
        Self {
            v: 1,
            subscription: subscription.to_ascii_lowercase(),
            day,
            hours: BTreeMap::new(),
            through: day.saturating_mul(DAY),
        }
    }

    /// Its key.
    pub fn key(&self) -> String {
        key(&self.subscription, self.day)
    }

    /// The effect that writes it.
    pub fn put(&self) -> Op {
        put_record(self.key(), self)
    }

    /// When one of its hours begins.
    pub fn begins(&self, hour: u8) -> Timestamp {
        let second = self
            .day
            .saturating_mul(DAY)
            .saturating_add(i64::from(hour) * HOUR);
        Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
    }
}

/// The prefix of what a subscription has used.
pub fn of(subscription: &str) -> String {
    format!("{METERING}{}/", subscription.to_ascii_lowercase())
}

/// The key of a day of a subscription; days are in order until the year 2240.
pub fn key(subscription: &str, day: i64) -> String {
    format!("{}{:05}", of(subscription), day.max(0))
}

/// The day of a key, days since 1970.
pub fn day_of(key: &str) -> Option<i64> {
    key.strip_prefix(METERING)?.rsplit_once('/')?.1.parse().ok()
}

/// The days of a subscription that are kept, oldest first.
///
/// # Errors
/// What the store says.
pub async fn days(store: &dyn Store, subscription: &str) -> Result<Vec<UsageDayRecord>, StoreError> {
    let (found, _) = list_records::<UsageDayRecord>(store, &of(subscription)).await?;
    Ok(found.into_iter().map(|(_, stored)| stored.value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_pinned() {
        let mut record = UsageDayRecord::new("S", 20_000);
        record.hours.insert(
            7,
            Meters {
                seconds: 3_600,
                core_seconds: 7_200,
                ..Meters::default()
            },
        );
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(
            text,
            r#"{"v":1,"subscription":"s","day":20000,"hours":{"7":{"seconds":3600,"coreSeconds":7200,"memoryMibSeconds":0,"diskGibSeconds":0,"addressSeconds":0}},"through":1728000000}"#
        );
        assert_eq!(serde_json::from_str::<UsageDayRecord>(&text).unwrap(), record);
        assert_eq!(record.begins(7).to_string(), "2024-10-04T07:00:00Z");
        assert_eq!(record.key(), "/metering/s/20000");
        assert_eq!(day_of(&record.key()), Some(20_000));
        assert!(key("s", 9_999) < key("s", 10_000));
        assert_eq!(day_of("/metering/s/x"), None);
    }
}
