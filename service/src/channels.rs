//! Asks the provider to follow clusters' channels: when something changes that they go by, and at the instant that it named.
//!
//! Always true: nothing is remembered that is not found again after a start, for each cluster is looked at once then; between two reasons to look,
//! nothing is read.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use base_env::Env;
use control_records::{directory, key, planned};
use control_store::{Change, Store, StoreError};
use futures::StreamExt as _;
use jiff::Timestamp;
use providers_containerservice::{ContainerService, Next};
use tokio::sync::watch;

use crate::{Part, until};

/// After the store failed, and after a cluster's channels could not be followed.
const BACK_OFF: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Clone)]
pub(crate) struct Channels {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clusters: Arc<ContainerService>,
}

/// It knows which clusters there are.
type Agenda = crate::agenda::Agenda<BTreeSet<String>>;

impl Agenda {
    /// Each is to be looked at.
    fn of(uids: impl IntoIterator<Item = String>) -> Self {
        let now: BTreeSet<String> = uids.into_iter().collect();
        Self {
            known: now.clone(),
            now,
            ..Self::default()
        }
    }

    /// Something changed in the store.
    fn changed(&mut self, change: &Change) {
        if change.key == planned::HOLD {
            self.now.extend(self.known.iter().cloned());
            return;
        }
        let Some((uid, rest)) = key::of_cluster(&change.key) else {
            return;
        };
        if rest == "desired" && change.value.is_none() {
            self.known.remove(uid);
            self.forget(uid);
        } else if rest == "desired"
            || planned::is_configuration(rest)
            || self.reached.contains(uid) && (rest == "observed" || rest.starts_with("op/"))
        {
            self.known.insert(uid.to_owned());
            self.now.insert(uid.to_owned());
        }
    }
}

impl Channels {
    /// The part of the service that follows them.
    pub(crate) fn part(self, stopped: &watch::Receiver<bool>) -> Part {
        let (env, ended) = (self.env.clone(), stopped.clone());
        Part::new("upgrades by channels", &env, stopped, move || {
            let (channels, ending) = (self.clone(), until(ended.clone()));
            async move {
                tokio::select! {
                    () = channels.run() => {}
                    () = ending => {}
                }
            }
        })
    }

    /// Follows them for ever.
    async fn run(&self) {
        loop {
            match self.serve().await {
                // The watch fell behind: everything is read anew.
                Ok(()) | Err(StoreError::Lagged) => {}
                Err(error) => {
                    tracing::error!(%error, "the channels of clusters are not followed");
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
        match self.clusters.follow(uid).await {
            Ok(next) => next,
            Err(error) => {
                let cause = error.internal.as_deref();
                tracing::error!(cluster = uid, %error, cause, "the channels of a cluster cannot be followed");
                let again = self.env.clock.now().checked_add(BACK_OFF);
                Next::At(again.unwrap_or(Timestamp::MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use control_store::Revision;

    use super::*;
    use crate::agenda::LONGEST;

    fn change(key: &str, there: bool) -> Change {
        Change {
            revision: Revision(1),
            key: key.to_owned(),
            value: there.then(|| b"{}".to_vec().into()),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_is_looked_at_when() {
        let uid = || "u".to_owned();
        let mut agenda = Agenda::of([uid(), "v".to_owned()]);
        assert_eq!(agenda.now.len(), 2, "each once at the start");
        agenda.now.clear();
        agenda.looked(uid(), Next::At(at(100)));
        assert_eq!(agenda.pause(at(40)), Duration::from_secs(60));
        assert_eq!(agenda.pause(at(140)), Duration::ZERO);
        agenda.come(at(99));
        assert!(agenda.now.is_empty());
        agenda.come(at(100));
        assert_eq!(agenda.now.pop_first(), Some(uid()));
        assert_eq!(agenda.pause(at(100)), LONGEST);
        // What its loop sees matters only while that is waited for.
        agenda.looked(uid(), Next::Changed);
        agenda.changed(&change("/c/u/observed", true));
        assert!(agenda.now.is_empty());
        agenda.looked(uid(), Next::Reached);
        agenda.changed(&change("/c/u/machine/m", true));
        assert!(agenda.now.is_empty());
        agenda.changed(&change("/c/u/observed", true));
        assert_eq!(agenda.now.pop_first(), Some(uid()));
        for key in ["/c/u/desired", "/c/u/child/maintenanceconfigurations/default"] {
            agenda.changed(&change(key, true));
            assert_eq!(agenda.now.pop_first(), Some(uid()), "{key}");
        }
        agenda.changed(&change(planned::HOLD, true));
        assert_eq!(agenda.now.len(), 2, "everybody waits, or goes on");
        agenda.changed(&change("/c/u/desired", false));
        agenda.changed(&change("/c/v/desired", false));
        assert_eq!(agenda, Agenda::default());
    }
}
