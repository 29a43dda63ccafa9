//! The places of the clusters' backups, from a stamp's settings.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use base_env::Env;
use base_sealer::Sealer;
use cluster_archive::{Archive, DirectoryStore, Mirror, ObjectStore};
use control_sealing::{FolderKeys, SealedPlace};
use storage_s3::{S3Config, S3Store, Timing};
use zeroize::Zeroizing;

use crate::{
    problem::Problem,
    stamp::{BACKUPS_KEY, Places, Settings},
};

/// The system's CA certificates, for object stores.
const SYSTEM_CAS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where backups go.
pub(crate) struct Kept {
    pub(crate) archive: Arc<Archive>,
    /// Keeps a second copy, if configured.
    pub(crate) mirror: Option<Mirror>,
    /// What is sealed with the stamp's keys in both.
    pub(crate) sealed: Vec<Arc<dyn SealedPlace>>,
}

/// The archive of a stamp, and its copy.
pub(crate) fn open(places: &Places, settings: &Settings, sealer: &Arc<Sealer>, env: &Env) -> Result<Kept> {
    let objects = match settings.backups.as_deref() {
        None => directory(&own(places))?,
        Some(place) => object_store(place, places, env)?,
    };
    let archive = Arc::new(Archive::new(Arc::clone(&objects), Arc::clone(sealer)));
    let mut sealed: Vec<Arc<dyn SealedPlace>> = vec![Arc::new(FolderKeys::of_backups(Arc::clone(&archive)))];
    let mirror = match settings.backups_copy.as_deref() {
        None => None,
        Some(place) if settings.backups.as_deref() == Some(place) => {
            return Err(Problem::new(
                format!("the copy of the backups would be in the place of the backups themselves, {place}"),
                "give another place: landfall up --backups-copy PLACE",
            )
            .into());
        }
        Some(place) => {
            let copy = object_store(place, places, env)?;
            let archive = Archive::new(Arc::clone(&copy), Arc::clone(sealer));
            sealed.push(Arc::new(FolderKeys::of_copy(Arc::new(archive))));
            Some(Mirror::new(objects, copy, Arc::clone(sealer)))
        }
    };
    Ok(Kept {
        archive,
        mirror,
        sealed,
    })
}

/// The default place.
fn own(places: &Places) -> PathBuf {
    places.state.join("backups")
}

/// The places of the backups and of their copy, for messages.
pub(crate) fn told(places: &Places, settings: &Settings) -> Vec<String> {
    let first = settings.backups.clone();
    let first = first.unwrap_or_else(|| own(places).display().to_string());
    [Some(first), settings.backups_copy.clone()]
        .into_iter()
        .flatten()
        .collect()
}

/// The archive of a copy's file: `DIRECTORY/store-ID/NAME.copy`, with the folder's key beside it.
pub(crate) fn archive_around(file: &Path, sealer: &Arc<Sealer>) -> Result<Arc<Archive>> {
    let root = file
        .parent()
        .and_then(Path::parent)
        .filter(|root| !root.as_os_str().is_empty());
    let root = root.unwrap_or(Path::new("."));
    Ok(Arc::new(Archive::new(directory(root)?, Arc::clone(sealer))))
}

fn directory(root: &Path) -> Result<Arc<dyn ObjectStore>> {
    let objects =
        DirectoryStore::open(root).with_context(|| format!("cannot keep backups in {}", root.display()))?;
    Ok(Arc::new(objects))
}

/// A place as the user wrote it. Stamps may share one.
fn object_store(place: &str, places: &Places, env: &Env) -> Result<Arc<dyn ObjectStore>> {
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
    let (waiting, runtime) = (env.clone(), tokio::runtime::Handle::current());
    let pauses = AtomicU64::new(0);
    let pause = move |least: Duration| {
        // Jitter, so that requests that failed together are not repeated together.
        let fraction = waiting.seed.fraction(pauses.fetch_add(1, Ordering::Relaxed));
        runtime.block_on(waiting.clock.sleep(least + least.mul_f64(fraction)));
    };
    let objects = S3Store::new(
        S3Config {
            endpoint: bucket.endpoint,
            bucket: bucket.name,
            prefix: bucket.prefix,
            region: bucket.region,
            access: access.to_owned(),
            secret: Zeroizing::new(secret.to_owned()),
            ca,
            allow_http: bucket.allow_http,
        },
        &places.state.join("uploads"),
        Timing {
            now: Box::new(move || clock.now()),
            pause: Box::new(pause),
        },
    )
    .map_err(|error| unknown(place, &error.to_string()))?;
    Ok(Arc::new(objects))
}

fn unknown(place: &str, why: &str) -> anyhow::Error {
    Problem::new(
        format!("backups cannot be kept at {place}: {why}"),
        "give a directory, or a bucket as s3://BUCKET/PREFIX?endpoint=https://HOST:PORT&region=REGION",
    )
    .into()
}

/// `s3://BUCKET/PREFIX?endpoint=…&region=…&ca=…&allow_http=true`.
#[derive(Debug, PartialEq, Eq)]
struct Bucket {
    name: String,
    prefix: String,
    endpoint: String,
    region: String,
    ca: Option<String>,
    allow_http: bool,
}

impl Bucket {
    fn parse(place: &str) -> Result<Self> {
        let rest = place.trim_start_matches("s3://");
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (name, prefix) = path.split_once('/').unwrap_or((path, ""));
        if name.is_empty() {
            return Err(unknown(place, "it names no bucket"));
        }
        let (mut endpoint, mut region, mut ca, mut allow_http) = (None, None, None, false);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("endpoint", value)) => endpoint = Some(value.trim_end_matches('/').to_owned()),
                Some(("region", value)) => region = Some(value.to_owned()),
                Some(("ca", value)) => ca = Some(value.to_owned()),
                Some(("allow_http", "true")) => allow_http = true,
                _ => {
                    return Err(unknown(
                        place,
                        &format!("{pair} is not known; endpoint, region, ca and allow_http=true are"),
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
            allow_http,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_written_as_an_address() {
        let bucket = Bucket::parse(
            "s3://b/some/where/?endpoint=http://127.0.0.1:9000/&region=x&ca=/c.pem&allow_http=true",
        )
        .unwrap();
        assert_eq!(
            bucket,
            Bucket {
                name: "b".to_owned(),
                prefix: "some/where".to_owned(),
                endpoint: "http://127.0.0.1:9000".to_owned(),
                region: "x".to_owned(),
                ca: Some("/c.pem".to_owned()),
                allow_http: true,
            }
        );
        let short = Bucket::parse("s3://b?region=eu-west-1").unwrap();
        assert_eq!(
            (short.endpoint.as_str(), short.prefix.as_str()),
            ("https://s3.eu-west-1.amazonaws.com", "")
        );
        for wrong in ["s3:///prefix", "s3://b?secret=x", "s3://b?allow_http=yes"] {
            let said = Bucket::parse(wrong).unwrap_err().to_string();
            assert!(said.contains(wrong), "{said}");
        }
    }
}
