//! A bucket of S3, or of a compatible service, as an object store of the archive.
//!
//! Requests are signed, and answers read, by `rusty-s3`; this crate sends them.
//!
//! | | how |
//! |---|---|
//! | an object of at most one part (16 MiB) | one request |
//! | a larger one, up to 156 GiB | a multipart upload; aborted when the content breaks off |
//! | reading | streamed; a connection that breaks is resumed where it broke, as long as the object is the same |
//! | time-outs | 5 s to connect, 60 s for an answer to begin, 60 s between two pieces of a body; none for a whole body |
//! | repeated | transmission failures, and answers 429 or 5xx: three times, after 0.2, 0.8 and 3.2 s |
//!
//! Always true: an object exists completely or not at all; an upload that a crash left unfinished is aborted
//! before the next multipart upload starts (its id was recorded before its first part was sent); `http://` is
//! used only to loopback, or if explicitly allowed; the secret appears in no message.
//!
//! Called by: the service (places of backups and of their copy). All calls block.

mod download;
mod http;
mod upload;

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cluster_archive::ObjectStore;
use jiff::Timestamp;
use rusty_s3::{Bucket, Credentials, UrlStyle, actions::ListObjectsV2};
use sha2::{Digest as _, Sha256};
use ureq::http::StatusCode;
use zeroize::Zeroizing;

use crate::{download::Download, http::Client, upload::Upload};

/// Size of a part of a multipart upload, except the last. S3 accepts 10,000 parts of 5 MiB or more.
const PART: usize = 16 * 1024 * 1024;
/// The largest page of a list, bytes.
const LARGEST_LIST: u64 = 16 * 1024 * 1024;

/// The location of a bucket, and the credentials for it.
#[derive(Clone)]
pub struct S3Config {
    /// `https://host[:port]`. The bucket's name is in the path.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// The prefix of all keys, without slashes at the ends; may be empty.
    pub prefix: String,
    /// The region in the signatures.
    pub region: String,
    /// The access key's id.
    pub access: String,
    /// The secret key.
    pub secret: Zeroizing<String>,
    /// PEM of the CAs that may sign the endpoint's certificate; without, no certificate is trusted.
    pub ca: Option<String>,
    /// Allows an `http://` endpoint on another host.
    pub allow_http: bool,
}

/// The store's source of time.
pub struct Timing {
    /// Wall time, for signatures.
    pub now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// Blocks the calling thread before a request is repeated.
    pub pause: Box<dyn Fn(Duration) + Send + Sync>,
}

/// An object store in a bucket; see the crate's documentation.
pub struct S3Store {
    shared: Arc<Shared>,
    part: usize,
    journal: PathBuf,
    /// The name prefix of this store's files in the journal's folder, which stores share.
    own: String,
    /// Uploads that an earlier process left unfinished.
    left: Mutex<Vec<PathBuf>>,
}

struct Shared {
    bucket: Bucket,
    prefix: String,
    credentials: Credentials,
    client: Client,
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.into())
}

impl S3Store {
    /// The store at that location. `journal`: a folder for records of uploads in progress.
    ///
    /// # Errors
    /// When the configuration is invalid: no endpoint, no key, a prefix that is not a folder, `http://` to
    /// another host; when the journal cannot be read.
    pub fn new(config: S3Config, journal: &Path, timing: Timing) -> io::Result<Self> {
        Self::with_parts(config, journal, timing, PART)
    }

    fn with_parts(config: S3Config, journal: &Path, timing: Timing, part: usize) -> io::Result<Self> {
        let endpoint = config.endpoint.parse::<ureq::http::Uri>().ok();
        let (Some(scheme), Some(host)) = (
            endpoint.as_ref().and_then(ureq::http::Uri::scheme_str),
            endpoint.as_ref().and_then(ureq::http::Uri::host),
        ) else {
            return Err(invalid("the endpoint must be like https://host:port"));
        };
        if scheme == "http" && !config.allow_http && !is_loopback(host) {
            return Err(invalid(
                "its endpoint is http://, which anybody on the way can read and change; use https://, or add allow_http=true",
            ));
        }
        if config.access.is_empty() || config.secret.is_empty() {
            return Err(invalid("the access key's id or the secret key is empty"));
        }
        // Segments such as `..` in a URL would lead out of the prefix, or out of the bucket.
        let segments = || config.prefix.split('/');
        if !config.prefix.is_empty() && segments().any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(invalid(format!("{:?} is no prefix of keys", config.prefix)));
        }
        let url = config
            .endpoint
            .parse()
            .map_err(|_| invalid("the endpoint must be like https://host:port"))?;
        let bucket = Bucket::new(url, UrlStyle::Path, config.bucket.clone(), config.region.clone())
            .map_err(|error| invalid(error.to_string()))?;
        let named = format!("{}\n{}\n{}", config.endpoint, config.bucket, config.prefix);
        let own = hex::encode(&Sha256::digest(named.as_bytes())[..8]);
        let left = upload::left(journal, &own)?;
        Ok(Self {
            shared: Arc::new(Shared {
                bucket,
                prefix: config.prefix,
                credentials: Credentials::new(config.access, config.secret.as_str()),
                client: Client::new(config.ca.as_deref(), timing)?,
            }),
            part,
            journal: journal.to_owned(),
            own,
            left: Mutex::new(left),
        })
    }

    /// Keys below a prefix with their sizes; with `folders`, the path segments between the prefix and the
    /// next slash instead.
    fn find(&self, prefix: &str, folders: bool) -> io::Result<Vec<(String, u64)>> {
        let shared = &self.shared;
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let mut page = shared.bucket.list_objects_v2(Some(&shared.credentials));
            page.with_prefix(prefix);
            if folders {
                page.with_delimiter("/");
            }
            if let Some(next) = next.take() {
                page.with_continuation_token(next);
            }
            let answer = shared.client.send(&page, &[], &[])?;
            let text = http::text(http::expect(answer, &[StatusCode::OK])?, LARGEST_LIST)?;
            let page = ListObjectsV2::parse_response(&text).map_err(http::unreadable)?;
            let short = |name: &str| Some(name.strip_prefix(prefix)?.trim_end_matches('/').to_owned());
            if folders {
                let prefixes = page.common_prefixes.iter();
                found.extend(prefixes.filter_map(|group| Some((short(&group.prefix)?, 0))));
            } else {
                let contents = page.contents.iter();
                found.extend(contents.filter_map(|object| Some((short(&object.key)?, object.size?))));
            }
            next = page.next_continuation_token;
            if next.is_none() {
                found.sort();
                return Ok(found);
            }
        }
    }

    /// Aborts uploads that an earlier process left unfinished. A failed abort is retried at the next start.
    fn abort_left(&self) {
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        for file in left {
            match upload::abort_left(&self.shared, &file) {
                Ok(()) => tracing::info!("an upload that was left unfinished is aborted"),
                Err(error) => tracing::warn!(%error, "an upload that was left unfinished cannot be aborted"),
            }
        }
    }
}

impl Shared {
    fn key(&self, name: &str) -> String {
        match self.prefix.as_str() {
            "" => name.to_owned(),
            prefix => format!("{prefix}/{name}"),
        }
    }
}

impl ObjectStore for S3Store {
    fn put(&self, name: &str, fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut upload = Upload::new(self, self.shared.key(name));
        fill(&mut upload)?;
        upload.finish()
    }

    fn get(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let download = Download::open(Arc::clone(&self.shared), self.shared.key(name))?;
        Ok(Box::new(download))
    }

    fn list(&self, folder: Option<&str>) -> io::Result<Vec<(String, u64)>> {
        match folder {
            Some(folder) => self.find(&format!("{}/", self.shared.key(folder)), false),
            None => self.find(&self.shared.key(""), true),
        }
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let (shared, key) = (&self.shared, self.shared.key(name));
        let delete = shared.bucket.delete_object(Some(&shared.credentials), &key);
        let gone = [StatusCode::OK, StatusCode::NO_CONTENT, StatusCode::NOT_FOUND];
        http::expect(shared.client.send(&delete, &[], &[])?, &gone).map(drop)
    }

    fn delete_folder(&self, folder: &str) -> io::Result<()> {
        for (name, _) in self.list(Some(folder))? {
            self.delete(&format!("{folder}/{name}"))?;
        }
        Ok(())
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests;
