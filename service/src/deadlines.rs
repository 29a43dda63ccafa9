//! Asks the provider to keep the deadlines of clusters: when a fact changes that they go by, and at the instant that it named.
//!
//! Always true: nothing is remembered that is not found again after a start, for each cluster is looked at once then; between two reasons to look,
//! nothing is read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use arm_kernel::Locks;
use base_env::Env;
use control_records::{deadlines, directory, key, planned};
use control_store::{Change, Store, StoreError};
use futures::StreamExt as _;
use jiff::Timestamp;
use providers_containerservice::{BackupReader, ContainerService, Next};
use serde_json::Value;
use tokio::sync::watch;

use crate::{Part, until};

/// After the store failed, and after the deadlines of a cluster could not be kept.
const BACK_OFF: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Clone)]
pub(crate) struct Deadlines {
    env: Env,
    store: Arc<dyn Store>,
    clusters: Arc<ContainerService>,
    backups: Arc<dyn BackupReader>,
    locks: Arc<dyn Locks>,
}

/// It knows of each cluster what was seen last of what deadlines go by.
type Agenda = crate::agenda::Agenda<BTreeMap<String, BTreeMap<String, Value>>>;

/// What of a record below a cluster deadlines go by; `None`: nothing.
fn fact(rest: &str, value: &[u8]) -> Option<Value> {
    let machine = rest.starts_with("machine/");
    if rest != "observed" && !machine {
        return None;
    }
    let record: Value = serde_json::from_slice(value).ok()?;
    let part = |pointer: &str| record.pointer(pointer).cloned().unwrap_or_default();
    if machine {
        return Some(
            [part("/healing/off"), part("/healing/offSince")]
                .into_iter()
                .collect(),
        );
    }
    let unready = part("/unreadySince");
    // Whether machines run is asked only where no node is Ready.
    let told = if unready.is_null() {
        Value::Null
    } else {
        part("/told")
    };
    Some([unready, told, part("/restored")].into_iter().collect())
}

/// Whether a fact says that nothing is so.
fn is_nothing(fact: &Value) -> bool {
    let mut parts = fact.as_array().into_iter().flatten();
    parts.all(|part| part.is_null() || *part == Value::Bool(false))
}

impl Agenda {
    /// Each is to be looked at.
    fn of(uids: impl IntoIterator<Item = String>) -> Self {
        let now: BTreeSet<String> = uids.into_iter().collect();
        Self {
            known: now.iter().map(|uid| (uid.clone(), BTreeMap::new())).collect(),
            now,
            ..Self::default()
        }
    }

    /// Something changed in the store.
    fn changed(&mut self, change: &Change) {
        let stamp = [planned::HOLD, deadlines::POLICY].contains(&change.key.as_str());
        if stamp || change.key.starts_with(key::SUBSCRIPTIONS) {
            self.now.extend(self.known.keys().cloned());
            return;
        }
        let Some((uid, rest)) = key::of_cluster(&change.key) else {
            return;
        };
        if rest == "desired" && change.value.is_none() {
            self.known.remove(uid);
            self.forget(uid);
            return;
        }
        if rest == "desired" {
            self.known.entry(uid.to_owned()).or_default();
            self.now.insert(uid.to_owned());
            return;
        }
        let waited = self.reached.contains(uid) && rest == "observed";
        let Some(seen) = self.known.get_mut(uid) else {
            return;
        };
        let value = change.value.as_deref().and_then(|value| fact(rest, value));
        let other = match value {
            Some(value) => match seen.insert(rest.to_owned(), value.clone()) {
                Some(before) => before != value,
                // It was looked at since the start, when something may have been so that is not any more: then its time finds nothing to do.
                None => !is_nothing(&value),
            },
            None => seen.remove(rest).is_some(),
        };
        if waited || other {
            self.now.insert(uid.to_owned());
        }
    }
}

impl Deadlines {
    /// Of the clusters of a store.
    pub(crate) fn new(
        env: &Env,
        store: &Arc<dyn Store>,
        clusters: &Arc<ContainerService>,
        backups: &Arc<dyn BackupReader>,
        locks: Arc<dyn Locks>,
    ) -> Self {
        Self {
            env: env.clone(),
            store: Arc::clone(store),
            clusters: Arc::clone(clusters),
            backups: Arc::clone(backups),
            locks,
        }
    }

    /// The part of the service that keeps them.
    pub(crate) fn part(self, stopped: &watch::Receiver<bool>) -> Part {
        let (env, ended) = (self.env.clone(), stopped.clone());
        Part::new("deadlines of support policies", &env, stopped, move || {
            let (deadlines, ending) = (self.clone(), until(ended.clone()));
            async move {
                // Biased: chance has no part in it.
                tokio::select! {
                    biased;
                    () = ending => {}
                    () = deadlines.run() => {}
                }
            }
        })
    }

    /// Keeps them for ever.
    async fn run(&self) {
        loop {
            match self.serve().await {
                // The watch fell behind: everything is read anew.
                Ok(()) | Err(StoreError::Lagged) => {}
                Err(error) => {
                    tracing::error!(%error, "the deadlines of clusters are not kept");
                    self.env.clock.sleep(BACK_OFF).await;
                }
            }
        }
    }

    /// Until the store's watch ends.
    async fn serve(&self) -> Result<(), StoreError> {
        let (names, revision) = directory::cluster_names(&*self.store, None, None).await?;
        let mut changes = self.store.watch("/", revision).await?;
        let mut agenda = Agenda::of(names.into_iter().map(|name| name.uid));
        loop {
            agenda.come(self.env.clock.now());
            while let Some(uid) = agenda.now.pop_first() {
                let next = self.look(&uid).await;
                agenda.looked(uid, next);
            }
            let pause = self.env.clock.sleep(agenda.pause(self.env.clock.now()));
            tokio::select! {
                biased;
                change = changes.next() => match change {
                    Some(change) => agenda.changed(&change?),
                    None => return Ok(()),
                },
                () = pause => {}
            }
        }
    }

    async fn look(&self, uid: &str) -> Next {
        match self
            .clusters
            .keep_deadlines(uid, &*self.backups, &*self.locks)
            .await
        {
            Ok(next) => next,
            Err(error) => {
                let cause = error.internal.as_deref();
                tracing::error!(cluster = uid, %error, cause, "the deadlines of a cluster cannot be kept");
                let again = self.env.clock.now().checked_add(BACK_OFF);
                Next::At(again.unwrap_or(Timestamp::MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use control_store::Revision;
    use serde_json::json;

    use super::*;

    fn change(key: &str, value: Option<Value>) -> Change {
        Change {
            revision: Revision(1),
            key: key.to_owned(),
            value: value.map(|value| value.to_string().into_bytes().into()),
        }
    }

    #[test]
    fn what_is_looked_at_when() {
        let uid = || "u".to_owned();
        let mut agenda = Agenda::of([uid(), "v".to_owned()]);
        assert_eq!(agenda.now.len(), 2, "each once at the start");
        agenda.now.clear();
        // What its loop sees matters where a deadline goes by it, and is seen once.
        let quiet = json!({ "step": "starting", "unreadySince": null });
        agenda.changed(&change("/c/u/observed", Some(quiet.clone())));
        agenda.changed(&change("/c/u/observed", Some(quiet)));
        assert!(agenda.now.is_empty());
        let away = json!({ "step": "", "unreadySince": "2026-01-01T00:00:00Z" });
        agenda.changed(&change("/c/u/observed", Some(away)));
        assert_eq!(agenda.now.pop_first(), Some(uid()));
        let off = json!({ "healing": { "off": true } });
        agenda.changed(&change("/c/u/machine/m", Some(off.clone())));
        assert_eq!(agenda.now.pop_first(), Some(uid()));
        agenda.changed(&change("/c/u/machine/m", Some(off)));
        agenda.changed(&change("/c/u/event/1", Some(json!({}))));
        assert!(agenda.now.is_empty());
        agenda.changed(&change("/c/u/desired", Some(json!({}))));
        assert_eq!(agenda.now.pop_first(), Some(uid()));
        for key in [planned::HOLD, deadlines::POLICY] {
            agenda.changed(&change(key, Some(json!({}))));
            assert_eq!(agenda.now.len(), 2, "{key}");
            agenda.now.clear();
        }
        agenda.changed(&change(&key::subscription("s"), Some(json!({}))));
        assert_eq!(agenda.now.len(), 2);
        agenda.changed(&change("/c/u/desired", None));
        agenda.changed(&change("/c/v/desired", None));
        assert_eq!(agenda, Agenda::default());
    }
}
