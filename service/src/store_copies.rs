//! Backups of the store itself: a copy soon after each change.
//!
//! Always true: an unchanged store is not copied again; a failure is reported and retried, and ends no other
//! work.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base_env::Env;
use control_backup::{Copies, CopyError, Kept, Snapshot};
use control_records::StoreRecord;
use control_store::{Revision, Store, StoreError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::UPKEEP;

/// Interval of the check whether the store has changed.
const LOOK: Duration = Duration::from_secs(30);
/// A copy is followed by a pause this many times as long, so that copies of a large store use only a part of
/// a core.
const PAUSE: u32 = 20;
/// A change without a copy after this time is reported as a problem.
pub const LATE: Duration = Duration::from_secs(10 * 60);

/// The reason of a failed copy.
#[derive(Debug, thiserror::Error)]
pub enum StoreCopyError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The copy cannot be kept.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A fault of ours.
    #[error("copying the store panicked; see the log")]
    Panicked,
}

/// A copy, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyStatus {
    /// When it was made.
    pub at: Timestamp,
    /// The store's identity.
    pub store: String,
    /// The store's epoch.
    pub epoch: u32,
    /// The store's revision.
    pub revision: u64,
    /// Its size in bytes, sealed.
    pub bytes: u64,
}

impl From<&Kept> for CopyStatus {
    fn from(kept: &Kept) -> Self {
        Self {
            at: kept.name.time(),
            store: kept.store.clone(),
            epoch: kept.name.epoch.0,
            revision: kept.name.revision.0,
            bytes: kept.bytes,
        }
    }
}

/// The store and its newest copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreStatus {
    /// The store's identity.
    pub id: String,
    /// How often the store was restored from a copy.
    pub epoch: u32,
    /// Its revision.
    pub revision: u64,
    /// The newest copy that was made since the service started.
    pub copy: Option<CopyStatus>,
    /// Since when the store has changes that are in no copy.
    pub behind_since: Option<Timestamp>,
    /// The reason why the last copy failed.
    pub problem: Option<String>,
}

impl StoreStatus {
    /// A problem for the operator: copies fail, or are late.
    pub fn complaint(&self, now: Timestamp) -> Option<String> {
        if let Some(problem) = &self.problem {
            return Some(format!("the store is not copied: {problem}"));
        }
        let since = self.behind_since?;
        (now.duration_since(since).unsigned_abs() > LATE)
            .then(|| format!("the store has changed since {since}, and there is no copy of that yet"))
    }
}

#[derive(Default)]
struct State {
    copy: Option<CopyStatus>,
    behind_since: Option<Timestamp>,
    problem: Option<String>,
}

/// Makes the copies of a store.
pub struct StoreCopies {
    env: Env,
    store: Arc<dyn Store>,
    own: StoreRecord,
    copies: Copies,
    /// Held while a copy is made: one at a time.
    one: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

impl StoreCopies {
    /// Without any copy yet. `own` identifies the store.
    pub fn new(env: &Env, store: Arc<dyn Store>, own: StoreRecord, copies: Copies) -> Self {
        Self {
            env: env.clone(),
            store,
            own,
            copies,
            one: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.store.list(control_records::key::STORE).await?.1)
    }

    /// How it is.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn status(&self) -> Result<StoreStatus, StoreError> {
        let revision = self.revision().await?.0;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(StoreStatus {
            id: self.own.id.clone(),
            epoch: self.own.epoch.0,
            revision,
            copy: state.copy.clone(),
            behind_since: state.behind_since,
            problem: state.problem.clone(),
        })
    }

    /// Makes a copy now.
    ///
    /// # Errors
    /// When it fails; the status shows the error as well.
    pub async fn take(&self) -> Result<CopyStatus, StoreCopyError> {
        let _one = self.one.lock().await;
        let made = self.make().await;
        self.change(|state| match &made {
            Ok(copy) => {
                *state = State {
                    copy: Some(copy.clone()),
                    ..State::default()
                };
            }
            Err(error) => state.problem = Some(error.to_string()),
        });
        made
    }

    async fn make(&self) -> Result<CopyStatus, StoreCopyError> {
        let snapshot = Snapshot::of(&*self.store, &self.env).await?;
        let copies = self.copies.clone();
        let kept = UPKEEP.run(move || copies.take(&snapshot)).await;
        let kept = kept.map_err(|_panicked| StoreCopyError::Panicked)??;
        Ok(CopyStatus::from(&kept))
    }

    /// Makes copies for ever.
    pub async fn run(&self) {
        let mut copied = None;
        loop {
            let begun = self.env.clock.monotonic();
            match self.revision().await {
                Ok(revision) if copied == Some(revision) => {}
                Ok(_) => {
                    let now = self.env.clock.now();
                    let well = {
                        let mut well = true;
                        self.change(|state| {
                            state.behind_since.get_or_insert(now);
                            well = state.problem.is_none();
                        });
                        well
                    };
                    match self.take().await {
                        Ok(copy) => {
                            copied = Some(Revision(copy.revision));
                            if !well {
                                tracing::info!("the store is copied again");
                            }
                            tracing::debug!(?copy, "copied the store");
                        }
                        Err(error) => {
                            tracing::error!(%error, "the store is not copied; see 'landfall store show'");
                        }
                    }
                }
                Err(error) => tracing::error!(%error, "the store is not copied: it cannot be read"),
            }
            let took = self.env.clock.monotonic().saturating_sub(begun);
            self.env.clock.sleep(LOOK.max(took * PAUSE)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use base_sealer::Sealer;
    use cluster_archive::{Archive, DirectoryStore, ObjectStore};
    use control_records::epoch::identify;
    use control_store::{Op, Txn};
    use storage_redb::MemoryStore;

    use super::*;

    struct Stand {
        directory: tempfile::TempDir,
        env: Env,
        store: Arc<MemoryStore>,
        copies: Arc<StoreCopies>,
        kept: Copies,
    }

    async fn stand() -> Stand {
        let directory = tempfile::tempdir().unwrap();
        let objects: Arc<dyn ObjectStore> =
            Arc::new(DirectoryStore::open(&directory.path().join("backups")).unwrap());
        let (env, store) = (Env::simulated(1), Arc::new(MemoryStore::new()));
        let own = identify(&*store, || env.ids.short()).await.unwrap();
        let archive = Archive::new(objects, Arc::new(Sealer::from_key(&[7; 32])));
        let kept = Copies::new(Arc::new(archive));
        let as_store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&store);
        Stand {
            directory,
            copies: Arc::new(StoreCopies::new(&env, as_store, own, kept.clone())),
            env,
            store,
            kept,
        }
    }

    impl Stand {
        async fn write(&self) {
            let put = Op::Put("/a".to_owned(), b"x".to_vec());
            self.store.txn(Txn::default().with(put)).await.unwrap();
        }

        async fn number(&self) -> usize {
            let id = self.copies.status().await.unwrap().id;
            self.kept.of(&id).unwrap().len()
        }

        /// Blocking work takes real time while the clock is paused.
        #[expect(
            clippy::disallowed_methods,
            reason = "virtual time does not pass for threads that block"
        )]
        async fn until(&self, copies: usize) {
            for _ in 0..10_000 {
                if self.number().await == copies && self.copies.status().await.unwrap().behind_since.is_none()
                {
                    return;
                }
                std::thread::sleep(Duration::from_millis(2));
                tokio::task::yield_now().await;
            }
            panic!(
                "{} copies, not {copies}: {:?}",
                self.number().await,
                self.copies.status().await
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_is_copied_within_a_minute_after_a_change_and_not_otherwise() {
        let stand = stand().await;
        let copies = Arc::clone(&stand.copies);
        let work = tokio::spawn(async move { copies.run().await });
        stand.until(1).await;
        stand.env.clock.sleep(Duration::from_secs(3600)).await;
        assert_eq!(stand.number().await, 1, "nothing has changed");
        stand.write().await;
        stand.env.clock.sleep(Duration::from_secs(60)).await;
        stand.until(2).await;
        let status = stand.copies.status().await.unwrap();
        assert_eq!(
            status.copy.as_ref().map(|copy| copy.revision),
            Some(status.revision)
        );
        work.abort();
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told_until_it_is_right_again() {
        let stand = stand().await;
        let backups = stand.directory.path().join("backups");
        std::fs::remove_dir_all(&backups).unwrap();
        std::fs::write(&backups, "no directory").unwrap();
        assert!(stand.copies.take().await.is_err());
        let status = stand.copies.status().await.unwrap();
        let complaint = status.complaint(stand.env.clock.now()).unwrap();
        assert!(complaint.contains("not copied"), "{complaint}");
        std::fs::remove_file(&backups).unwrap();
        std::fs::create_dir(&backups).unwrap();
        stand.copies.take().await.unwrap();
        let status = stand.copies.status().await.unwrap();
        assert_eq!(status.complaint(stand.env.clock.now()), None);
    }

    #[test]
    fn a_copy_that_does_not_come_is_told() {
        let now = Timestamp::from_second(100_000).unwrap();
        let behind = |since: i64| StoreStatus {
            id: "s".to_owned(),
            epoch: 0,
            revision: 7,
            copy: None,
            behind_since: Timestamp::from_second(since).ok(),
            problem: None,
        };
        assert_eq!(behind(99_990).complaint(now), None);
        assert!(behind(99_000).complaint(now).unwrap().contains("no copy"));
    }
}
