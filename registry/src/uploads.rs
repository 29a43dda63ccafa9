//! Uploads of blobs: begun, sent in pieces or at once, ended.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderName, Method, Response, StatusCode, header};
use storage_images::{Digest, Repository, UploadId};

use crate::{
    Asked, Outcome, Registries,
    answer::{Failure, empty, set},
    stream::Upload,
};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// The path of a repository as its request has it: everything before what is in it.
fn base<'a>(asked: &Asked<'a>, below: &str) -> &'a str {
    asked
        .path
        .rfind(below)
        .map_or(asked.path, |at| asked.path.get(..at).unwrap_or_default())
}

/// The first byte of a piece, as `Content-Range: 0-99` or `bytes 0-99/*` says.
fn first_of(headers: &http::HeaderMap) -> Result<Option<u64>, Failure> {
    let Some(value) = headers.get(header::CONTENT_RANGE) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let range = text.strip_prefix("bytes ").unwrap_or(text);
    let first = range.split('-').next().and_then(|first| first.parse().ok());
    first
        .map(Some)
        .ok_or_else(|| Failure::upload_invalid("Content-Range cannot be understood; send FIRST-LAST"))
}

/// The answer about an upload that goes on.
fn under_way(asked: &Asked<'_>, upload: &Upload, size: u64, status: StatusCode) -> Response<Body> {
    let mut answer = empty(status);
    let id = upload.id.as_str();
    let at = format!("{}/blobs/uploads/{id}", base(asked, "/blobs/uploads"));
    set(&mut answer, header::LOCATION, &at);
    // By the specification the last byte; nothing yet is 0-0.
    set(
        &mut answer,
        header::RANGE,
        &format!("0-{}", size.saturating_sub(1)),
    );
    set(&mut answer, UPLOAD_ID, id);
    answer
}

/// The answer to a blob that is kept.
fn kept(asked: &Asked<'_>, digest: &Digest) -> Response<Body> {
    let mut answer = empty(StatusCode::CREATED);
    let at = format!("{}/blobs/{digest}", base(asked, "/blobs/uploads"));
    set(&mut answer, header::LOCATION, &at);
    set(&mut answer, CONTENT_DIGEST, &digest.to_string());
    answer
}

/// A digest of the query.
fn digest(asked: &Asked<'_>, name: &str) -> Result<Option<Digest>, Failure> {
    let Some(text) = asked.query(name) else {
        return Ok(None);
    };
    Digest::parse(text)
        .map(Some)
        .ok_or_else(|| Failure::digest_invalid("a digest is 'sha256:' and 64 hexadecimal digits"))
}

impl Registries {
    /// POST: a mount, a blob at once, or an upload to come.
    pub(crate) async fn begin_upload(
        &self,
        asked: &Asked<'_>,
        repository: Repository,
        body: Body,
    ) -> Outcome {
        let now = self.inner.env.clock.now();
        let images = self.inner.images.of(&asked.registry.uid);
        if let (Some(wanted), Some(from)) = (digest(asked, "mount")?, asked.query("from")) {
            // A client without a login server names the other repository with the registry.
            let own = format!("{}/", asked.registry.name);
            let from = from.strip_prefix(&own).unwrap_or(from);
            if let Some(from) = Repository::parse(from) {
                let (own, to, blob) = (Arc::clone(&images), repository.clone(), wanted.clone());
                let mounted = self.on_disk(move || own.mount(&to, &from, &blob, now)).await?;
                if mounted {
                    return Ok(kept(asked, &wanted));
                }
            }
        }
        let id = self.inner.env.ids.uuid().to_string();
        let upload = Upload {
            images,
            repository,
            id: UploadId::parse(&id).ok_or_else(Failure::no_upload)?,
            limit: asked.registry.limit,
        };
        let begun = upload.clone();
        self.on_disk(move || begun.images.begin_upload(&begun.repository, &begun.id))
            .await?;
        match digest(asked, "digest")? {
            Some(digest) => self.end(asked, &upload, 0, body, digest).await,
            None => Ok(under_way(asked, &upload, 0, StatusCode::ACCEPTED)),
        }
    }

    /// A further request about an upload.
    pub(crate) async fn upload(
        &self,
        asked: &Asked<'_>,
        repository: Repository,
        id: UploadId,
        body: Body,
    ) -> Outcome {
        let upload = Upload {
            images: self.inner.images.of(&asked.registry.uid),
            repository,
            id,
            limit: asked.registry.limit,
        };
        if *asked.method == Method::DELETE {
            self.on_disk(move || upload.images.cancel(&upload.repository, &upload.id))
                .await?;
            return Ok(empty(StatusCode::NO_CONTENT));
        }
        let wanted = match (*asked.method == Method::PUT, digest(asked, "digest")?) {
            (true, None) => {
                return Err(Failure::digest_invalid(
                    "an upload ends with its digest: ?digest=sha256:…",
                ));
            }
            (true, wanted) => wanted,
            (false, _) => None,
        };
        let looked = upload.clone();
        let has = self
            .on_disk(move || looked.images.upload_size(&looked.repository, &looked.id))
            .await;
        let has = match (has, wanted.clone()) {
            (Ok(has), _) => has,
            // The answer to its end may have been lost: then the blob is there.
            (Err(failure), Some(digest)) => {
                let (gone, now) = (upload.clone(), self.inner.env.clock.now());
                let wanted = digest.clone();
                let size = self
                    .on_disk(move || gone.images.blob_size(&gone.repository, &wanted, now))
                    .await;
                return size.map(|_| kept(asked, &digest)).map_err(|_| failure);
            }
            (Err(failure), None) => return Err(failure),
        };
        if !matches!(*asked.method, Method::PATCH | Method::PUT) {
            return Ok(under_way(asked, &upload, has, StatusCode::NO_CONTENT));
        }
        if let Some(first) = first_of(asked.headers)?
            && first != has
        {
            let at = format!("0-{}", has.saturating_sub(1));
            let not_next = Failure::from(storage_images::ImagesError::NotNext { has });
            return Err(not_next.with(header::RANGE, at));
        }
        match wanted {
            Some(digest) => self.end(asked, &upload, has, body, digest).await,
            None => {
                let has = self.receive(&upload, has, body).await?;
                Ok(under_way(asked, &upload, has, StatusCode::ACCEPTED))
            }
        }
    }

    /// Takes the rest of an upload, and makes a blob of it.
    async fn end(&self, asked: &Asked<'_>, upload: &Upload, has: u64, body: Body, digest: Digest) -> Outcome {
        self.receive(upload, has, body).await?;
        let now = self.inner.env.clock.now();
        let (ended, wanted) = (upload.clone(), digest.clone());
        self.on_disk(move || ended.images.finish(&ended.repository, &ended.id, &wanted, now))
            .await?;
        Ok(kept(asked, &digest))
    }
}
