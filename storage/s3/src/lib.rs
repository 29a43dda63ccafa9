//! A bucket of S3, or of what is like it, as an object store.
//!
//! A file is one object, handed over in one request (5 GiB at most, by S3's rules): it is there whole or not at all. What is on its
//! way is held in memory while it is small, then in a file without a name.

use std::{
    fs::File,
    io::{self, Read, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use machine_program::https::{self, Bounds};
use sha2::{Digest as _, Sha256};
use ureq::http::{Response, StatusCode};
use zeroize::Zeroizing;

use cluster_archive::ObjectStore;

use crate::signature::{Signed, Signer, encoded, sha256};

mod signature;

/// A request about names, or with little in it.
const SHORT: Duration = Duration::from_secs(60);
/// A base of several GiB.
const LONG: Duration = Duration::from_secs(60 * 60);
/// More than this is not held in memory.
const IN_MEMORY: usize = 4 * 1024 * 1024;
/// A page of a list.
const LARGEST_LIST: u64 = 16 * 1024 * 1024;

/// Where a bucket is, and who we are there.
#[derive(Clone)]
pub struct S3Config {
    /// `https://host[:port]`. The bucket is named in the path.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// What names begin with, without slashes at the ends; may be empty.
    pub prefix: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The access key's id.
    pub access: String,
    /// The secret key.
    pub secret: Zeroizing<String>,
    /// PEM of the CAs that the endpoint is trusted by.
    pub ca: Option<String>,
}

/// See the module.
pub struct S3Store {
    place: S3Config,
    signer: Signer,
    host: String,
    short: ureq::Agent,
    long: ureq::Agent,
    scratch: PathBuf,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

enum Content<'a> {
    None,
    Bytes(&'a [u8]),
    File(File, u64),
}

impl S3Store {
    /// An object store in that place. `scratch`: a directory for what is on its way.
    ///
    /// # Errors
    /// When the endpoint is no address.
    pub fn new(
        place: S3Config,
        scratch: &Path,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
        let host = place
            .endpoint
            .strip_prefix("https://")
            .or_else(|| place.endpoint.strip_prefix("http://"))
            .filter(|host| !host.is_empty() && !host.contains('/'))
            .ok_or_else(|| invalid("the endpoint must be like https://host:port"))?;
        let client = |bound| {
            https::client(place.ca.as_deref(), None, Bounds::whole(bound))
                .ok_or_else(|| invalid("the endpoint's CAs cannot be read"))
        };
        Ok(Self {
            host: host.to_owned(),
            signer: Signer {
                access: place.access.clone(),
                secret: place.secret.clone(),
                region: place.region.clone(),
            },
            short: client(SHORT)?,
            long: client(LONG)?,
            scratch: scratch.to_owned(),
            now: Box::new(now),
            place,
        })
    }

    fn key(&self, name: &str) -> String {
        match self.place.prefix.as_str() {
            "" => name.to_owned(),
            prefix => format!("{prefix}/{name}"),
        }
    }

    fn send(
        &self,
        method: &str,
        key: Option<&str>,
        query: &str,
        payload: &str,
        content: Content<'_>,
    ) -> io::Result<Response<ureq::Body>> {
        let mut path = format!("/{}", encoded(&self.place.bucket, false));
        if let Some(key) = key {
            path.push('/');
            path.push_str(&encoded(key, true));
        }
        let headers = self.signer.sign(&Signed {
            method,
            host: &self.host,
            path: &path,
            query,
            payload,
            at: (self.now)(),
        });
        let mut url = format!("{}{path}", self.place.endpoint);
        if !query.is_empty() {
            url = format!("{url}?{query}");
        }
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(url)
            .header("host", &self.host)
            .header("x-amz-content-sha256", payload)
            .header("x-amz-date", headers.date)
            .header("authorization", headers.authorization);
        let built = |error: ureq::http::Error| io::Error::other(error.to_string());
        let answer = match content {
            Content::None => self.short.run(request.body(()).map_err(built)?),
            Content::Bytes(bytes) => self.short.run(request.body(bytes).map_err(built)?),
            Content::File(file, length) => self.long.run(
                request
                    .header("content-length", length)
                    .body(file)
                    .map_err(built)?,
            ),
        };
        answer.map_err(|error| io::Error::other(error.to_string()))
    }

    /// What it says when it does not do what it was asked for.
    fn refused(mut answer: Response<ureq::Body>) -> io::Error {
        let text = answer
            .body_mut()
            .with_config()
            .limit(16 * 1024)
            .read_to_string()
            .unwrap_or_default();
        let code = element(&text, "Code").unwrap_or_default();
        let message = element(&text, "Message").unwrap_or_default();
        let kind = match answer.status() {
            StatusCode::NOT_FOUND => io::ErrorKind::NotFound,
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        let said = format!("the object store answers {} {code} {message}", answer.status());
        io::Error::new(kind, said.trim_end().to_owned())
    }

    /// Names below a prefix with sizes, and what comes between the prefix and the next slash.
    fn find(&self, prefix: &str, folders: bool) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let mut query = String::new();
            if let Some(next) = &next {
                query = format!("continuation-token={}&", encoded(next, false));
            }
            if folders {
                query.push_str("delimiter=%2F&");
            }
            query.push_str(&format!("list-type=2&prefix={}", encoded(prefix, false)));
            let mut answer = self.send("GET", None, &query, &sha256(b""), Content::None)?;
            if answer.status() != StatusCode::OK {
                return Err(Self::refused(answer));
            }
            let text = answer
                .body_mut()
                .with_config()
                .limit(LARGEST_LIST)
                .read_to_string()
                .map_err(|error| io::Error::other(error.to_string()))?;
            let short = |name: String| Some(name.strip_prefix(prefix)?.to_owned());
            if folders {
                let groups = elements(&text, "CommonPrefixes");
                found.extend(groups.filter_map(|group| {
                    let name = short(element(group, "Prefix")?)?;
                    Some((name.trim_end_matches('/').to_owned(), 0))
                }));
            } else {
                found.extend(elements(&text, "Contents").filter_map(|object| {
                    let size = element(object, "Size")?.parse().ok()?;
                    Some((short(element(object, "Key")?)?, size))
                }));
            }
            next = element(&text, "NextContinuationToken");
            if next.is_none() {
                found.sort();
                return Ok(found);
            }
        }
    }
}

impl ObjectStore for S3Store {
    fn put(&self, name: &str, fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut spill = Spill::new(&self.scratch);
        fill(&mut spill)?;
        let key = self.key(name);
        let payload = hex::encode(spill.hash.clone().finalize());
        let content = match spill.file {
            Some(mut file) => {
                file.seek(SeekFrom::Start(0))?;
                let length = file.metadata()?.len();
                Content::File(file, length)
            }
            None => Content::Bytes(&spill.bytes),
        };
        let answer = self.send("PUT", Some(&key), "", &payload, content)?;
        match answer.status() {
            StatusCode::OK => Ok(()),
            _ => Err(Self::refused(answer)),
        }
    }

    fn get(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let answer = self.send("GET", Some(&self.key(name)), "", &sha256(b""), Content::None)?;
        match answer.status() {
            StatusCode::OK => Ok(Box::new(answer.into_body().into_reader())),
            _ => Err(Self::refused(answer)),
        }
    }

    fn list(&self, folder: Option<&str>) -> io::Result<Vec<(String, u64)>> {
        match folder {
            Some(folder) => self.find(&format!("{}/", self.key(folder)), false),
            None => self.find(&self.key(""), true),
        }
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let answer = self.send("DELETE", Some(&self.key(name)), "", &sha256(b""), Content::None)?;
        match answer.status() {
            StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(()),
            _ => Err(Self::refused(answer)),
        }
    }

    fn delete_folder(&self, folder: &str) -> io::Result<()> {
        for (name, _) in self.list(Some(folder))? {
            self.delete(&format!("{folder}/{name}"))?;
        }
        Ok(())
    }
}

/// The text of the first element of this name.
fn element(text: &str, name: &str) -> Option<String> {
    let found = elements(text, name).next()?;
    let mut plain = found.to_owned();
    for (code, character) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ] {
        plain = plain.replace(code, character);
    }
    Some(plain)
}

/// What is in each element of this name. Lists of S3 have no attributes there, and none within another of its name.
fn elements<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = text;
    std::iter::from_fn(move || {
        let begin = rest.find(&open)? + open.len();
        let length = rest[begin..].find(&close)?;
        let found = &rest[begin..begin + length];
        rest = &rest[begin + length + close.len()..];
        Some(found)
    })
}

/// Takes what is written to it, and how it adds up.
struct Spill<'a> {
    scratch: &'a Path,
    hash: Sha256,
    bytes: Vec<u8>,
    file: Option<File>,
}

impl<'a> Spill<'a> {
    fn new(scratch: &'a Path) -> Self {
        Self {
            scratch,
            hash: Sha256::new(),
            bytes: Vec::new(),
            file: None,
        }
    }
}

impl Write for Spill<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        if self.file.is_none() && self.bytes.len() + bytes.len() > IN_MEMORY {
            std::fs::create_dir_all(self.scratch)?;
            let mut file = tempfile::tempfile_in(self.scratch)?;
            file.write_all(&self.bytes)?;
            self.bytes = Vec::new();
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write_all(bytes)?,
            None => self.bytes.extend_from_slice(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
