//! A client of the stamp's registries of images, as far as pushing needs it.
//!
//! Always true: a request that breaks is repeated; a blob that is there is not sent again; an upload goes on where it stopped.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use base_env::{Clock, Env};
use image::container::{PackedBlob, PackedManifest};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde_json::Value;

use crate::{
    arm::{ArmClient, encode},
    problem::Problem,
};

/// Bytes of a blob that are sent in one request.
const PIECE: u64 = 8 << 20;
/// The time-out of the end of an upload: the stamp computes the digest of the whole blob.
const DIGEST_BOUND: Duration = Duration::from_secs(10 * 60);
/// Pauses before further tries of a request whose connection broke or that was turned away because of load.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(2),
    Duration::from_secs(10),
];

/// A client of one repository.
pub(crate) struct Pusher<'a> {
    arm: &'a ArmClient,
    clock: Arc<dyn Clock>,
    /// The registry's name.
    registry: String,
    repository: String,
    refresh: String,
    token: String,
}

/// What an answer of a registry says about an error.
fn said(body: &str) -> String {
    let read: Value = serde_json::from_str(body).unwrap_or_default();
    read["errors"][0]["message"]
        .as_str()
        .unwrap_or("no reason given")
        .to_owned()
}

impl<'a> Pusher<'a> {
    /// Logs in for pushes to a repository of a registry.
    pub(crate) async fn login(
        arm: &'a ArmClient,
        env: &Env,
        registry: &str,
        repository: &str,
    ) -> Result<Self> {
        let mut pusher = Self {
            arm,
            clock: Arc::clone(&env.clock),
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            refresh: String::new(),
            token: String::new(),
        };
        let form = format!(
            "grant_type=access_token&service={}&access_token={}",
            encode(&pusher.service()),
            encode(arm.token())
        );
        let answer = pusher.form("exchange", form).await?;
        let refresh = answer["refresh_token"].as_str();
        refresh
            .context("the registry gave no token")?
            .clone_into(&mut pusher.refresh);
        pusher.renew().await?;
        Ok(pusher)
    }

    fn service(&self) -> String {
        let host = self.arm.base().trim_start_matches("https://");
        format!("{host}/{}", self.registry)
    }

    /// Another access token: one is good for minutes.
    async fn renew(&mut self) -> Result<()> {
        let form = format!(
            "grant_type=refresh_token&service={}&scope={}&refresh_token={}",
            encode(&self.service()),
            encode(&format!("repository:{}:pull,push", self.repository)),
            encode(&self.refresh)
        );
        let answer = self.form("token", form).await?;
        let token = answer["access_token"].as_str();
        token
            .context("the registry gave no token")?
            .clone_into(&mut self.token);
        Ok(())
    }

    async fn form(&self, what: &str, form: String) -> Result<Value> {
        let url = format!("{}/oauth2/{what}", self.arm.base());
        let request = self
            .arm
            .http()
            .post(url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
        let answer = self.persist(request).await?;
        let status = answer.status();
        let body = answer.text().await.context("the answer broke off")?;
        if !status.is_success() {
            return Err(Problem::new(
                format!("cannot log in to the registry {}: {}", self.registry, said(&body)),
                "landfall logs shows the service's log",
            )
            .into());
        }
        serde_json::from_str(&body).context("the answer is not JSON")
    }

    /// Sends a request that may be repeated.
    async fn persist(&self, request: RequestBuilder) -> Result<Response> {
        for pause in PAUSES {
            let Some(again) = request.try_clone() else { break };
            match again.send().await {
                Ok(answer) if answer.status() == StatusCode::TOO_MANY_REQUESTS => {}
                Ok(answer) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => {}
                Ok(answer) => return Ok(answer),
                Err(_) => {}
            }
            self.clock.sleep(pause).await;
        }
        request.send().await.map_err(|error| {
            Problem::new(
                format!("the registry at {} does not answer", self.arm.base()),
                "repeat the command: what is there already is not sent again; landfall up starts the service",
            )
            .because(error)
            .into()
        })
    }

    /// Sends a request about the repository; with another token if this one has ended.
    async fn send(
        &mut self,
        method: &Method,
        url: &str,
        prepare: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        for _ in 0..2 {
            let request = self
                .arm
                .http()
                .request(method.clone(), url)
                .bearer_auth(&self.token);
            let answer = self.persist(prepare(request)).await?;
            if answer.status() != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            self.renew().await?;
        }
        Err(Problem::new(
            format!(
                "there is no registry {} in this stamp, or no right to push to it",
                self.registry
            ),
            format!(
                "make it: az acr create --resource-group GROUP --name {} --sku Basic",
                self.registry
            ),
        )
        .into())
    }

    async fn refused(&self, act: &str, answer: Response) -> anyhow::Error {
        let status = answer.status();
        let body = answer.text().await.unwrap_or_default();
        Problem::new(
            format!("the registry refuses to {act}: {} ({status})", said(&body)),
            "repeat the command once that is mended: what is there already is not sent again",
        )
        .into()
    }

    fn url(&self, rest: &str) -> String {
        format!(
            "{}/{}/v2/{}/{rest}",
            self.arm.base(),
            self.registry,
            self.repository
        )
    }

    /// Sends a blob of an archive, unless it is there; gives whether it was sent. `progress` gets the bytes that are there.
    pub(crate) async fn blob(
        &mut self,
        archive: &Path,
        blob: &PackedBlob,
        progress: impl Fn(u64),
    ) -> Result<bool> {
        let there = self.url(&format!("blobs/{}", blob.digest));
        let answer = self.send(&Method::HEAD, &there, |request| request).await?;
        match answer.status() {
            StatusCode::OK => return Ok(false),
            StatusCode::NOT_FOUND => {}
            _ => return Err(self.refused("tell of a layer", answer).await),
        }
        let begin = self.url("blobs/uploads/");
        let answer = self.send(&Method::POST, &begin, |request| request).await?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(self.refused("take a layer", answer).await);
        }
        let upload = location(&answer)?;
        let upload = format!("{}{upload}", self.arm.base());
        let mut at = 0;
        while at < blob.size {
            let piece = piece(archive.to_owned(), blob, at).await?;
            let end = at + piece.len() as u64;
            let range = format!("{at}-{}", end.saturating_sub(1));
            let answer = self
                .send(&Method::PATCH, &upload, |request| {
                    request
                        .header(header::CONTENT_RANGE, range.as_str())
                        .header(header::CONTENT_TYPE, "application/octet-stream")
                        .body(piece.clone())
                })
                .await?;
            match answer.status() {
                StatusCode::ACCEPTED => at = end,
                // A try before has arrived after all, wholly or in part.
                StatusCode::RANGE_NOT_SATISFIABLE => at = received(&answer, at, end)?,
                _ => return Err(self.refused("take a layer", answer).await),
            }
            progress(at);
        }
        let end = format!("{upload}?digest={}", encode(&blob.digest));
        let answer = self
            .send(&Method::PUT, &end, |request| request.timeout(DIGEST_BOUND))
            .await?;
        if answer.status() != StatusCode::CREATED {
            return Err(self.refused("keep a layer", answer).await);
        }
        Ok(true)
    }

    /// Sends a manifest, under a tag or under its digest.
    pub(crate) async fn manifest(&mut self, manifest: &PackedManifest, reference: &str) -> Result<()> {
        let url = self.url(&format!("manifests/{reference}"));
        let answer = self
            .send(&Method::PUT, &url, |request| {
                request
                    .header(header::CONTENT_TYPE, manifest.media_type.as_str())
                    .body(manifest.content.clone())
            })
            .await?;
        if answer.status() != StatusCode::CREATED {
            return Err(self.refused("keep the image", answer).await);
        }
        Ok(())
    }
}

/// The path of an upload.
fn location(answer: &Response) -> Result<String> {
    let location = answer.headers().get(header::LOCATION);
    let location = location.and_then(|value| value.to_str().ok());
    match location {
        Some(path) if path.starts_with('/') => Ok(path.to_owned()),
        _ => bail!("the registry does not say where the layer is to be sent"),
    }
}

/// How much of an upload the registry has, when it wants another piece than the one from `at` to `end`.
fn received(answer: &Response, at: u64, end: u64) -> Result<u64> {
    let range = answer.headers().get(header::RANGE);
    let last = range
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.rsplit_once('-'))
        .and_then(|(_, last)| last.parse::<u64>().ok());
    match last {
        Some(last) if last + 1 > at && last < end => Ok(last + 1),
        _ => bail!("the registry has another part of the layer than was sent"),
    }
}

/// A part of a blob.
async fn piece(archive: PathBuf, blob: &PackedBlob, at: u64) -> Result<Vec<u8>> {
    let (offset, count) = (blob.offset + at, PIECE.min(blob.size - at));
    let read = move || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(&archive)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut piece = Vec::new();
        file.take(count).read_to_end(&mut piece)?;
        Ok(piece)
    };
    let piece = tokio::task::spawn_blocking(read)
        .await
        .context("reading the archive ended unexpectedly")?
        .context("cannot read the archive")?;
    if piece.len() as u64 != count {
        bail!("the archive has become shorter meanwhile");
    }
    Ok(piece)
}
