//! Background upkeep of the clusters' backups.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use base_env::Env;
use cluster_archive::{Archive, ArchiveError, Mirror};
use cluster_backup::retention::Retention;
use control_records::{
    directory, events,
    unknown::{self, Kind},
};
use control_store::Store;
use jiff::Timestamp;

use crate::UPKEEP;

/// How often small parts are merged and expired ones deleted.
const TEND: Duration = Duration::from_secs(5 * 60);
/// Every so many rounds, all backups are verified by restoring them into memory.
const VERIFY_EVERY: u32 = 12;
/// How long a deleted cluster's backups are kept after their newest change, milliseconds: as long as the
/// records of the deleted cluster.
const AFTER_DELETION_MS: i64 = events::KEPT_AFTER_DELETION.as_secs().cast_signed() * 1000;

/// Interval of updates of the copy.
const COPY: Duration = Duration::from_secs(5);
/// The pause after a failure.
const COPY_AGAIN: Duration = Duration::from_secs(60);

/// By cluster: labels that are shown beside its uid for an unknown backup.
type Labels = BTreeMap<String, BTreeMap<String, String>>;

/// Keeps the copy up to date for ever.
pub async fn copy(env: Env, mut mirror: Mirror) {
    let mut well = true;
    loop {
        let spare = mirror.anew();
        let worked = UPKEEP.run(move || {
            let done = mirror.round();
            (mirror, done)
        });
        let done = match worked.await {
            Ok((again, done)) => {
                mirror = again;
                done
            }
            Err(panicked) => {
                // The state of the mirror was lost with it: it is read anew.
                mirror = spare;
                Err(io::Error::other(panicked))
            }
        };
        match &done {
            Ok(done) => {
                if !well {
                    tracing::info!("the backups are copied again");
                }
                tracing::debug!(?done, "copied backups");
            }
            Err(error) => tracing::warn!(%error, "the backups are not copied"),
        }
        well = done.is_ok();
        env.clock.sleep(if well { COPY } else { COPY_AGAIN }).await;
    }
}

/// Tends all backups for ever.
pub async fn tend(env: Env, store: Arc<dyn Store>, archive: Arc<Archive>) {
    let mut round: u32 = 0;
    loop {
        // Jitter, so that several stamps of a host do not read at the same time.
        let jitter = TEND.mul_f64(0.2 * env.seed.fraction(u64::from(round)));
        env.clock.sleep(TEND + jitter).await;
        round = round.wrapping_add(1);
        let alive: BTreeSet<String> = match directory::cluster_names(&*store, None, None).await {
            Ok((names, _)) => names.into_iter().map(|name| name.uid).collect(),
            Err(error) => {
                tracing::warn!(%error, "backups are not tended: the records cannot be read");
                continue;
            }
        };
        let removed = match store.list(&unknown::removed_key(Kind::Backup, "")).await {
            Ok((removed, _)) => removed.into_iter().map(|(key, _)| key).collect::<BTreeSet<_>>(),
            Err(error) => {
                tracing::warn!(%error, "backups are not tended: the records cannot be read");
                continue;
            }
        };
        let (archive, now) = (Arc::clone(&archive), env.clock.now());
        let known = move |cluster: &str| {
            if alive.contains(cluster) {
                Known::Alive
            } else if removed.contains(&unknown::removed_key(Kind::Backup, cluster)) {
                Known::Deleted
            } else {
                Known::Not
            }
        };
        let verify = round % VERIFY_EVERY == 1;
        let work = UPKEEP.run(move || look_after(&archive, known, verify, now));
        let strange = match work.await {
            Ok(Ok(strange)) => strange,
            Ok(Err(error)) => {
                tracing::warn!(%error, "backups cannot be tended");
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "tending the backups failed");
                continue;
            }
        };
        match unknown::found(&*store, Kind::Backup, strange, now).await {
            Ok(new) => {
                for cluster in new {
                    tracing::error!(
                        cluster,
                        "there is a backup of a cluster that is in no record of this store, which may be new or older than \
                         it: it is kept as it is; see 'landfall unknown list'"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "unknown backups are not written down"),
        }
    }
}

/// One pass over the archive: merges, thins out and deletes backups; with `verify`, restores existing
/// clusters' backups into memory. Blocks. Returns the clusters that `known` does not know: their backups are
/// kept unchanged.
///
/// # Errors
/// When the object store fails; the work before that stays done.
fn look_after(
    archive: &Archive,
    known: impl Fn(&str) -> Known,
    verify: bool,
    now: Timestamp,
) -> Result<Labels, ArchiveError> {
    let mut strange = Labels::new();
    for cluster in archive.clusters()? {
        let newest = archive
            .holding(&cluster)?
            .objects
            .iter()
            .map(|(name, _)| name.until())
            .max();
        let known = known(&cluster);
        match fate(known, newest, now) {
            Fate::Keep => {
                strange.insert(cluster, BTreeMap::new());
                continue;
            }
            Fate::Forget => {
                tracing::info!(cluster, "the backups of a deleted cluster have expired");
                archive.forget(&cluster)?;
                continue;
            }
            Fate::Tend => {}
        }
        let tended = archive.tend(&cluster, &Retention::default(), now)?;
        tracing::debug!(cluster, ?tended, "tended a backup");
        if verify && known == Known::Alive {
            let verdict = archive.verify(&cluster, now)?;
            match &verdict.problem {
                None => tracing::info!(
                    cluster,
                    keys = verdict.keys,
                    checked = verdict.checked,
                    "a backup is good"
                ),
                Some(problem) => tracing::error!(cluster, problem, "a backup is not good"),
            }
        }
    }
    Ok(strange)
}

/// Whether the store knows the cluster of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It exists.
    Alive,
    /// It was made by this store, and was deleted.
    Deleted,
    /// Unknown.
    Not,
}

/// The decision about a backup.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It is merged and thinned out.
    Tend,
    /// It is deleted.
    Forget,
    /// It is kept unchanged.
    Keep,
}

/// The decision about a backup whose newest change was seen at `newest` (milliseconds since 1970). A backup
/// of an unknown cluster is kept unchanged: the store may be new, or older than the backup.
fn fate(known: Known, newest: Option<i64>, now: Timestamp) -> Fate {
    let expired = newest.is_none_or(|newest| now.as_millisecond() - newest > AFTER_DELETION_MS);
    match known {
        Known::Alive => Fate::Tend,
        Known::Deleted if expired => Fate::Forget,
        Known::Deleted => Fate::Tend,
        Known::Not => Fate::Keep,
    }
}

#[cfg(test)]
mod tests {
    use base_sealer::Sealer;
    use cluster_archive::DirectoryStore;
    use cluster_backup::{ObjectName, base::BaseWriter};

    use super::*;

    #[test]
    fn what_is_alive_stays_what_is_strange_is_told_and_what_has_expired_goes() {
        const DAY: i64 = 24 * 60 * 60 * 1000;
        let directory = tempfile::tempdir().unwrap();
        let objects = DirectoryStore::open(directory.path()).unwrap();
        let archive = Archive::new(Arc::new(objects), Arc::new(Sealer::from_key(&[7; 32])));
        let put = |cluster: &str, at: i64| {
            let (bytes, _) = BaseWriter::new(1, at).finish(&[]).unwrap();
            let name = ObjectName::Base { revision: 1, at };
            archive.put(cluster, name, bytes.as_slice()).unwrap();
        };
        for (cluster, at) in [("alive", 0), ("deleted", 0), ("lately", 99 * DAY), ("strange", 0)] {
            put(cluster, at);
        }
        let known = |cluster: &str| match cluster {
            "alive" => Known::Alive,
            "deleted" | "lately" => Known::Deleted,
            _ => Known::Not,
        };
        let now = Timestamp::from_millisecond(100 * DAY).unwrap();
        for _ in 0..2 {
            let strange = look_after(&archive, known, true, now).unwrap();
            assert_eq!(strange.into_keys().collect::<Vec<_>>(), ["strange"]);
            assert_eq!(archive.clusters().unwrap(), ["alive", "lately", "strange"]);
        }
        let verdict = archive.verify("alive", now).unwrap();
        assert_eq!(verdict.problem, None);
    }

    #[test]
    fn a_backup_of_a_cluster_that_the_store_does_not_know_is_kept_as_it_is() {
        let now = Timestamp::from_second(100 * 24 * 60 * 60).unwrap();
        let old = Some(0);
        let young = Some(now.as_millisecond() - 1);
        for newest in [None, old, young] {
            assert_eq!(fate(Known::Not, newest, now), Fate::Keep);
            assert_eq!(fate(Known::Alive, newest, now), Fate::Tend);
        }
        assert_eq!(fate(Known::Deleted, young, now), Fate::Tend);
        assert_eq!(fate(Known::Deleted, old, now), Fate::Forget);
        assert_eq!(fate(Known::Deleted, None, now), Fate::Forget);
    }
}
