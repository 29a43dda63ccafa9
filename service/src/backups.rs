//! What is done to the clusters' backups in the background.

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use base_env::Env;
use cluster_archive::{Archive, Mirror};
use cluster_backup::retention::Retention;
use control_records::{ClusterRecord, events};
use control_store::{Store, list_records};

/// How often small parts are merged and what expired is dropped.
const TEND: Duration = Duration::from_secs(5 * 60);
/// Every so many rounds, everything is verified by restoring it into memory.
const VERIFY_EVERY: u32 = 12;
/// How long a deleted cluster's backups are kept after their newest change, milliseconds: as long as it is known what the
/// cluster was.
const AFTER_DELETION_MS: i64 = events::KEPT_AFTER_DELETION.as_secs().cast_signed() * 1000;

/// How often the copy is brought up to date.
const COPY: Duration = Duration::from_secs(5);
/// After it failed.
const COPY_AGAIN: Duration = Duration::from_secs(60);

/// Keeps the copy up to date for ever.
pub async fn copy(env: Env, mut mirror: Mirror) {
    let mut well = true;
    loop {
        let spare = mirror.anew();
        let worked = tokio::task::spawn_blocking(move || {
            let done = mirror.round();
            (mirror, done)
        });
        let done = match worked.await {
            Ok((again, done)) => {
                mirror = again;
                done
            }
            Err(panicked) => {
                // What it knew of the copy went with it: that is read anew.
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
                    && newest.is_none_or(|newest| now.as_millisecond() - newest > AFTER_DELETION_MS)
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
