//! The rehearsal of an upgrade: its obstacles, before it begins. These are APIs in use that the version lacks, disruption budgets that permit no
//! eviction, webhooks that would block pods, pods without a controller, volumes of one node, and quotas.
//!
//! Three steps: the cluster is read through its API ([`seen`]; it needs no agent, and no program in the cluster); obstacles are found in what was
//! read ([`findings`], pure); [`crate::landfall`] answers with them. A part that cannot be read is a finding of its own, so that no part
//! without a finding was left unread.
//!
//! The APIs in use are those in the API server's metric `apiserver_requested_deprecated_apis`, since that server was started. AKS counts uses
//! within twelve hours: a use ends if the API's counter of requests has not grown for twelve hours. A counter that is read for the first time
//! counts as in use. The counters are those of the member that answered.

pub(crate) mod findings;
pub(crate) mod seen;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use seen::{METRICS, Use, uses};

/// An API without a request for this time is not in use, as in AKS.
const YOUNG: SignedDuration = SignedDuration::from_hours(12);
/// The limit of remembered counters; beyond it all are dropped, and their APIs count as in use.
const MOST: usize = 4096;

/// Reads clusters through their APIs. Implemented by the service with the clusters' keys.
#[async_trait]
pub trait ClusterReader: Send + Sync + 'static {
    /// The response of a cluster's API to a GET of a path, as text.
    ///
    /// # Errors
    /// The reason why it cannot be read, for people.
    async fn text(&self, uid: &str, path: &str) -> Result<String, String>;
}

/// Finds the deprecated APIs in use in clusters.
pub struct UpgradeGuard {
    reader: Arc<dyn ClusterReader>,
    /// By cluster and API: its counter, and the time since which it is unchanged.
    noted: Mutex<BTreeMap<(String, String), (u64, Timestamp)>>,
}

impl UpgradeGuard {
    /// A guard that reads clusters through this reader.
    pub fn new(reader: Arc<dyn ClusterReader>) -> Self {
        Self {
            reader,
            noted: Mutex::default(),
        }
    }

    pub(crate) fn reader(&self) -> &dyn ClusterReader {
        &*self.reader
    }

    /// The deprecated APIs in use in a cluster. The error is the reason why they cannot be read, for people.
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
