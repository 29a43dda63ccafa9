//! Where the clusters' backups are, and what is done to them in the background.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use base_env::Env;
use cluster_archive::{Archive, DirectoryShelf, Mirror, S3Place, S3Shelf, Shelf};
use cluster_backup::retention::Retention;
use control_records::{ClusterRecord, events};
use control_store::{Sealer, Store, list_records};
use zeroize::Zeroizing;

use crate::{
    problem::Problem,
    stamp::{BACKUPS_KEY, Places, Settings},
};

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
/// Where an object store's CAs are looked for.
const SYSTEM_CAS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where backups go.
pub(super) struct Kept {
    pub(super) archive: Arc<Archive>,
    /// What keeps a copy, if one is wished for.
    pub(super) mirror: Option<Mirror>,
}

/// The archive of a stamp, and its copy.
pub(super) fn open(places: &Places, settings: &Settings, sealer: &Arc<Sealer>, env: &Env) -> Result<Kept> {
    let own = places.state.join("backups");
    let shelf = match settings.backups.as_deref() {
        None => directory(&own)?,
        Some(place) => shelf(place, places, env)?,
    };
    let mirror = match settings.backups_copy.as_deref() {
        None => None,
        Some(place) if settings.backups.as_deref() == Some(place) => {
            return Err(Problem::new(
                format!("the copy of the backups would be in the place of the backups themselves, {place}"),
                "give another place: landfall up --backups-copy PLACE",
            )
            .into());
        }
        Some(place) => Some(Mirror::new(Arc::clone(&shelf), self::shelf(place, places, env)?)),
    };
    Ok(Kept {
        archive: Arc::new(Archive::new(shelf, Arc::clone(sealer))),
        mirror,
    })
}

fn directory(root: &Path) -> Result<Arc<dyn Shelf>> {
    let shelf =
        DirectoryShelf::open(root).with_context(|| format!("cannot keep backups in {}", root.display()))?;
    Ok(Arc::new(shelf))
}

/// A place as the user wrote it. Stamps may share one.
fn shelf(place: &str, places: &Places, env: &Env) -> Result<Arc<dyn Shelf>> {
    let Some((scheme, _)) = place.split_once("://") else {
        return directory(&PathBuf::from(place).join(&places.name));
    };
    let mut bucket = match scheme {
        "s3" => Bucket::parse(place)?,
        _ => return Err(unknown(place, "only directories and s3:// are known")),
    };
    bucket.prefix = [bucket.prefix.as_str(), places.name.as_str()]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("/");
    let path = places.secrets().join(BACKUPS_KEY);
    let key = std::fs::read_to_string(&path).map(Zeroizing::new);
    let key = key.map_err(|error| {
        Problem::new(
            format!(
                "the key to {place} cannot be read from {}: {error}",
                path.display()
            ),
            "give it: landfall up --backups-key FILE",
        )
    })?;
    let mut lines = key.lines().map(str::trim).filter(|line| !line.is_empty());
    let (access, secret) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let ca = match &bucket.ca {
        Some(file) => {
            Some(std::fs::read_to_string(file).with_context(|| format!("cannot read the CAs in {file}"))?)
        }
        None => std::fs::read_to_string(SYSTEM_CAS).ok(),
    };
    let clock = Arc::clone(&env.clock);
    let shelf = S3Shelf::new(
        S3Place {
            endpoint: bucket.endpoint,
            bucket: bucket.name,
            prefix: bucket.prefix,
            region: bucket.region,
            access: access.to_owned(),
            secret: Zeroizing::new(secret.to_owned()),
            ca,
        },
        &places.state.join("backups-on-their-way"),
        move || clock.now(),
    )
    .map_err(|error| unknown(place, &error.to_string()))?;
    Ok(Arc::new(shelf))
}

fn unknown(place: &str, why: &str) -> anyhow::Error {
    Problem::new(
        format!("backups cannot be kept at {place}: {why}"),
        "give a directory, or a bucket as s3://BUCKET/PREFIX?endpoint=https://HOST:PORT&region=REGION",
    )
    .into()
}

/// `s3://BUCKET/PREFIX?endpoint=…&region=…&ca=…`.
#[derive(Debug, PartialEq, Eq)]
struct Bucket {
    name: String,
    prefix: String,
    endpoint: String,
    region: String,
    ca: Option<String>,
}

impl Bucket {
    fn parse(place: &str) -> Result<Self> {
        let rest = place.trim_start_matches("s3://");
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (name, prefix) = path.split_once('/').unwrap_or((path, ""));
        if name.is_empty() {
            return Err(unknown(place, "it names no bucket"));
        }
        let (mut endpoint, mut region, mut ca) = (None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("endpoint", value)) => endpoint = Some(value.trim_end_matches('/').to_owned()),
                Some(("region", value)) => region = Some(value.to_owned()),
                Some(("ca", value)) => ca = Some(value.to_owned()),
                _ => {
                    return Err(unknown(
                        place,
                        &format!("{pair} is not known; endpoint, region and ca are"),
                    ));
                }
            }
        }
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        Ok(Self {
            name: name.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
            endpoint: endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com")),
            region,
            ca,
        })
    }
}

/// Keeps the copy up to date for ever.
pub(super) async fn copy(env: Env, mut mirror: Mirror) {
    let mut well = true;
    loop {
        let worked = tokio::task::spawn_blocking(move || {
            let done = mirror.round();
            (mirror, done)
        });
        let Ok((again, done)) = worked.await else {
            tracing::error!("copying the backups failed and is not tried again before the next start");
            return;
        };
        mirror = again;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_written_as_an_address() {
        let bucket =
            Bucket::parse("s3://b/some/where/?endpoint=http://127.0.0.1:9000/&region=x&ca=/c.pem").unwrap();
        assert_eq!(
            bucket,
            Bucket {
                name: "b".to_owned(),
                prefix: "some/where".to_owned(),
                endpoint: "http://127.0.0.1:9000".to_owned(),
                region: "x".to_owned(),
                ca: Some("/c.pem".to_owned()),
            }
        );
        let short = Bucket::parse("s3://b?region=eu-west-1").unwrap();
        assert_eq!(
            (short.endpoint.as_str(), short.prefix.as_str()),
            ("https://s3.eu-west-1.amazonaws.com", "")
        );
        for wrong in ["s3:///prefix", "s3://b?secret=x"] {
            let said = Bucket::parse(wrong).unwrap_err().to_string();
            assert!(said.contains(wrong), "{said}");
        }
    }
}
