//! Planned work: whatever the service does to clusters although nobody has asked for it, such as upgrades by a channel.
//!
//! An operator can hold all of it up ([`HoldRecord`]). What a cluster waits for is kept so that it is told once, and can be shown.

use control_store::{Store, StoreError, get_record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::child;

/// The key of [`HoldRecord`].
pub const HOLD: &str = "/maintenance";

/// Whether planned work is held up in the whole stamp, `/maintenance`. Where there is no record, it is not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldRecord {
    /// Format.
    pub v: u32,
    /// Since when and why; `None`: it goes on.
    pub paused: Option<Paused>,
}

/// That an operator holds planned work up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Paused {
    /// Since when.
    pub at: Timestamp,
    /// Who said so.
    pub by: String,
    /// Why, for people; may be empty.
    pub reason: String,
}

impl Paused {
    /// What waits for it, for people.
    pub fn obstacle(&self) -> String {
        let why = match self.reason.as_str() {
            "" => String::new(),
            reason => format!(" ({reason})"),
        };
        format!("an operator holds planned work up{why}")
    }
}

/// Since when and why planned work is held up, if it is.
///
/// # Errors
/// What the store says.
pub async fn paused(store: &dyn Store) -> Result<Option<Paused>, StoreError> {
    let found = get_record::<HoldRecord>(store, HOLD).await?;
    Ok(found.and_then(|found| found.value.paused))
}

/// Planned work that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// What is to be done, for people: `upgrade to Kubernetes 1.36.5 (channel patch)`.
    pub what: String,
    /// When it begins, where that is known.
    pub until: Option<Timestamp>,
    /// What it waits for, for people.
    pub obstacle: String,
}

impl Waiting {
    /// For people: what waits for what, until when.
    pub fn sentence(&self) -> String {
        let Self { what, obstacle, .. } = self;
        match self.until {
            Some(until) => format!("{what} begins at {until}: {obstacle}"),
            None => format!("{what} waits: {obstacle}"),
        }
    }
}

/// What upgrades of a cluster by its channels wait for, `/c/{uid}/child/plannedwork/upgrade`; there while they do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingRecord {
    /// Format.
    pub v: u32,
    /// What.
    #[serde(flatten)]
    pub waiting: Waiting,
}

/// The key of a cluster's [`WaitingRecord`].
pub fn waiting_key(uid: &str) -> String {
    child::key(uid, "plannedWork", "upgrade")
}

/// The key of one of a cluster's maintenance configurations, a [`crate::ChildRecord`].
pub fn configuration_key(uid: &str, name: &str) -> String {
    child::key(uid, "maintenanceConfigurations", name)
}

/// Whether a key below a cluster (`rest`, see [`crate::key::of_cluster`]) is one of a maintenance configuration.
pub fn is_configuration(rest: &str) -> bool {
    rest.starts_with("child/maintenanceconfigurations/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_told_in_a_sentence() {
        let mut waiting = Waiting {
            what: "upgrade to Kubernetes 1.36.5 (channel patch)".to_owned(),
            until: Timestamp::from_second(1_767_225_600).ok(),
            obstacle: "its window".to_owned(),
        };
        assert_eq!(
            waiting.sentence(),
            "upgrade to Kubernetes 1.36.5 (channel patch) begins at 2026-01-01T00:00:00Z: its window"
        );
        waiting.until = None;
        assert!(waiting.sentence().ends_with("(channel patch) waits: its window"));
    }

    #[test]
    fn keys_are_known_again() {
        let key = configuration_key("u", "default");
        let (uid, rest) = crate::key::of_cluster(&key).unwrap();
        assert_eq!((uid, is_configuration(rest)), ("u", true));
        let key = waiting_key("u");
        let (_, rest) = crate::key::of_cluster(&key).unwrap();
        assert!(!is_configuration(rest));
    }
}
