//! What an upgrade of a cluster would meet, known before anything moves: APIs in use that the version does not have any more, disruption
//! budgets that allow nothing, webhooks that would let no pod in, what nobody makes anew, what cannot move, and room.
//!
//! Three steps: the cluster is read through its API ([`seen`], texts as the API server gives them; no agent, nothing in the cluster);
//! what was read is judged ([`findings`], pure); the answer is told by [`crate::landfall`]. What cannot be read is a finding of its own:
//! nothing is called well that was not looked at.
//!
//! Which APIs are in use says the API server's own metric `apiserver_requested_deprecated_apis`, since that server was started. Whether a use
//! is younger than twelve hours, as AKS asks, follows from its counter of requests: one that has not grown for twelve hours is over. What
//! was never counted before counts as young. The counters are those of the member that answered.

pub(crate) mod findings;
pub(crate) mod seen;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use seen::{METRICS, Use, uses};

/// As AKS: an API that was not used for so long is not in use.
const YOUNG: SignedDuration = SignedDuration::from_hours(12);
/// So many counters are remembered at most; then all are forgotten, and count as young.
const MOST: usize = 4096;

/// Reads clusters by way of their APIs. Implemented by the service over the clusters' keys.
#[async_trait]
pub trait ClusterReader: Send + Sync + 'static {
    /// What is at a path of the API of the cluster of this uid, as text.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    async fn text(&self, uid: &str, path: &str) -> Result<String, String>;
}

/// Knows which APIs that are about to go are in use in clusters.
pub struct UpgradeGuard {
    reader: Arc<dyn ClusterReader>,
    /// By cluster and API: its counter, and since when it was that.
    noted: Mutex<BTreeMap<(String, String), (u64, Timestamp)>>,
}

impl UpgradeGuard {
    /// One that reads clusters through this.
    pub fn new(reader: Arc<dyn ClusterReader>) -> Self {
        Self {
            reader,
            noted: Mutex::default(),
        }
    }

    pub(crate) fn reader(&self) -> &dyn ClusterReader {
        &*self.reader
    }

    /// The APIs with an end that are in use in a cluster; why that is not known, for people.
    pub(crate) async fn uses(&self, uid: &str, now: Timestamp) -> Result<Vec<Use>, String> {
        let text = self.reader.text(uid, METRICS).await?;
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() > MOST {
            noted.clear();
        }
        let mut found = uses(&text);
        found.retain(|used| {
            let before = noted
                .entry((uid.to_owned(), used.api.clone()))
                .or_insert((used.requests, now));
            let first = before.1 == now;
            if before.0 != used.requests {
                *before = (used.requests, now);
            }
            first || now.duration_since(before.1) < YOUNG
        });
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counts(Mutex<u64>);

    #[async_trait]
    impl ClusterReader for Counts {
        async fn text(&self, _: &str, path: &str) -> Result<String, String> {
            assert_eq!(path, METRICS);
            let requests = *self.0.lock().unwrap();
            Ok(format!(
                "apiserver_requested_deprecated_apis{{group=\"g\",removed_release=\"1.37\",resource=\"r\",subresource=\"\",version=\"v1beta1\"}} 1\n\
                 apiserver_request_total{{code=\"200\",group=\"g\",resource=\"r\",verb=\"GET\",version=\"v1beta1\"}} {requests}\n"
            ))
        }
    }

    #[tokio::test]
    async fn a_use_is_over_when_its_counter_has_stood_still_for_twelve_hours() {
        let counts = Arc::new(Counts(Mutex::new(5)));
        let guard = UpgradeGuard::new(Arc::clone(&counts) as Arc<dyn ClusterReader>);
        let at = |hours: i64| Timestamp::from_second(1_767_225_600 + hours * 3600).unwrap();
        for (hours, requests, used) in [
            (0, 5, true),
            (11, 5, true),
            (12, 5, false),
            (13, 6, true),
            (24, 6, true),
            (25, 6, false),
        ] {
            *counts.0.lock().unwrap() = requests;
            let found = guard.uses("u", at(hours)).await.unwrap();
            assert_eq!(!found.is_empty(), used, "after {hours} hours");
        }
        assert_eq!(
            guard.uses("other", at(25)).await.unwrap().len(),
            1,
            "never looked at"
        );
    }
}
