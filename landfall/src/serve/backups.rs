//! Where the clusters' backups are, and what is done to them in the background.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use base_env::Env;
use cluster_archive::{Archive, DirectoryShelf};
use cluster_backup::retention::Retention;
use control_records::ClusterRecord;
use control_store::{Sealer, Store, list_records};

use crate::{
    problem::Problem,
    stamp::{Places, Settings},
};

/// How often small parts are merged and what expired is dropped.
const TEND: Duration = Duration::from_secs(5 * 60);
/// Every so many rounds, everything is verified by restoring it into memory.
const VERIFY_EVERY: u32 = 12;
/// How long a deleted cluster's backups are kept after their newest change, milliseconds.
const AFTER_DELETION: i64 = 7 * 24 * 60 * 60 * 1000;

/// The archive of a stamp.
pub(super) fn open(places: &Places, settings: &Settings, sealer: &Arc<Sealer>) -> Result<Arc<Archive>> {
    let root = match settings.backups.as_deref() {
        None => places.state.join("backups"),
        Some(place) if place.contains("://") => {
            return Err(Problem::new(
                format!("backups cannot be kept at {place}: only directories are supported yet"),
                "give a directory, e.g. one that is mounted from there: landfall up --backups /mnt/backups",
            )
            .into());
        }
        Some(place) => PathBuf::from(place).join(&places.name),
    };
    let shelf =
        DirectoryShelf::open(&root).with_context(|| format!("cannot keep backups in {}", root.display()))?;
    Ok(Arc::new(Archive::new(Arc::new(shelf), Arc::clone(sealer))))
}

/// Tends all backups for ever.
pub(super) async fn tend(env: Env, store: Arc<dyn Store>, archive: Arc<Archive>) {
    let mut round: u32 = 0;
    loop {
        // Jitter, so that stamps of one host do not all read at once.
        let jitter = TEND.mul_f64(0.2 * env.seed.fraction(u64::from(round)));
        env.clock.sleep(TEND + jitter).await;
        round = round.wrapping_add(1);
        let alive: BTreeSet<String> = match list_records::<ClusterRecord>(&*store, "/clusters/").await {
            Ok((clusters, _)) => clusters.into_iter().map(|(_, found)| found.value.uid).collect(),
            Err(error) => {
                tracing::warn!(%error, "backups are not tended: the records cannot be read");
                continue;
            }
        };
        let (archive, now) = (Arc::clone(&archive), env.clock.now());
        let work = tokio::task::spawn_blocking(move || {
            for cluster in archive.clusters()? {
                let newest = archive
                    .holding(&cluster)?
                    .objects
                    .iter()
                    .map(|(name, _)| name.until())
                    .max();
                if !alive.contains(&cluster)
                    && newest.is_none_or(|newest| now.as_millisecond() - newest > AFTER_DELETION)
                {
                    tracing::info!(cluster, "the backups of a deleted cluster have expired");
                    archive.forget(&cluster)?;
                    continue;
                }
                let tended = archive.tend(&cluster, &Retention::default(), now)?;
                tracing::debug!(cluster, ?tended, "tended a backup");
                if round % VERIFY_EVERY == 1 && alive.contains(&cluster) {
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
            Ok::<_, cluster_archive::ArchiveError>(())
        });
        match work.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "backups cannot be tended"),
            Err(error) => tracing::warn!(%error, "tending the backups failed"),
        }
    }
}
