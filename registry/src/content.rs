//! Blobs, manifests, tags and repositories, as the distribution specification has them.

use axum::body::Body;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use storage_images::{Digest, LARGEST_MANIFEST, Reference, Repository};

use crate::{
    Asked, Outcome, Registries, Streams,
    answer::{Failure, empty, ok, set},
    stream::{body_of, range},
};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
/// The largest page of a list.
const MOST_IN_PAGE: usize = 1000;

/// A page of a list in order: the items after the last one that the client has, and whether there are more.
pub(crate) fn page<T: Clone>(
    all: &[T],
    name: impl Fn(&T) -> &str,
    last: Option<&str>,
    count: Option<usize>,
) -> (Vec<T>, bool) {
    let from = match last {
        Some(last) => all.iter().position(|item| name(item) == last).map_or_else(
            || all.iter().filter(|item| name(item) <= last).count(),
            |at| at + 1,
        ),
        None => 0,
    };
    let rest = all.get(from..).unwrap_or_default();
    let count = count.unwrap_or(MOST_IN_PAGE).min(MOST_IN_PAGE);
    (rest.iter().take(count).cloned().collect(), rest.len() > count)
}

/// Tells of the next page.
pub(crate) fn link(answer: &mut http::Response<Body>, asked: &Asked<'_>, last: &str, more: &str) {
    let count = asked
        .query("n")
        .map_or_else(String::new, |count| format!("&n={}", arm_ids::encode(count)));
    let next = format!(
        "<{}?last={}{count}{more}>; rel=\"next\"",
        asked.path,
        arm_ids::encode(last)
    );
    set(answer, header::LINK, &next);
}

/// `n` of the query.
pub(crate) fn count(asked: &Asked<'_>) -> Result<Option<usize>, Failure> {
    let Some(text) = asked.query("n") else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        Failure::new(
            StatusCode::BAD_REQUEST,
            "PAGINATION_NUMBER_INVALID",
            "'n' has to be a number",
        )
    })
}

impl Registries {
    /// Names of repositories.
    pub(crate) async fn catalog(&self, asked: &Asked<'_>) -> Outcome {
        let images = self.inner.images.of(&asked.registry.uid);
        let all = self.on_disk(move || images.repositories()).await?;
        let (names, more) = page(&all, String::as_str, asked.query("last"), count(asked)?);
        let mut answer = ok(&json!({ "repositories": names }));
        if let Some(last) = names.last().filter(|_| more) {
            link(&mut answer, asked, last, "");
        }
        Ok(answer)
    }

    /// Names of tags.
    pub(crate) async fn tag_names(&self, asked: &Asked<'_>, repository: Repository) -> Outcome {
        let images = self.inner.images.of(&asked.registry.uid);
        let wanted = repository.clone();
        let tags = self
            .on_disk(move || {
                let tags = images.tags(&wanted)?;
                // Without tags there may be manifests; without either there is no repository.
                if tags.is_empty() {
                    images.manifests(&wanted)?;
                }
                Ok(tags)
            })
            .await?;
        let all: Vec<String> = tags.into_iter().map(|tag| tag.name).collect();
        let (names, more) = page(&all, String::as_str, asked.query("last"), count(asked)?);
        // As the client names it.
        let name = if asked.path.starts_with("/v2/") {
            format!("{}/{repository}", asked.registry.name)
        } else {
            repository.to_string()
        };
        let mut answer = ok(&json!({ "name": name, "tags": names }));
        if let Some(last) = names.last().filter(|_| more) {
            link(&mut answer, asked, last, "");
        }
        Ok(answer)
    }

    /// A blob, or a part of it.
    pub(crate) async fn blob(&self, asked: &Asked<'_>, repository: Repository, digest: Digest) -> Outcome {
        let images = self.inner.images.of(&asked.registry.uid);
        let wanted = digest.clone();
        let mut answer = empty(StatusCode::OK);
        if *asked.method == Method::HEAD {
            let now = self.inner.env.clock.now();
            let size = self
                .on_disk(move || images.blob_size(&repository, &wanted, now))
                .await?;
            set(&mut answer, header::CONTENT_LENGTH, &size.to_string());
        } else {
            let (file, size) = self.on_disk(move || images.blob(&repository, &wanted)).await?;
            let part = range(asked.headers, size)?;
            let (from, count) = part.unwrap_or((0, size));
            *answer.body_mut() = body_of(&self.inner.pool, file, from, count).map_err(Failure::internal)?;
            answer.extensions_mut().insert(Streams);
            set(&mut answer, header::CONTENT_LENGTH, &count.to_string());
            if part.is_some() {
                *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
                let last = (from + count).saturating_sub(1);
                let of = format!("bytes {from}-{last}/{size}");
                set(&mut answer, header::CONTENT_RANGE, &of);
            }
        }
        let headers = answer.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        // It never changes, but not everybody may see it.
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, max-age=31536000"),
        );
        set(&mut answer, CONTENT_DIGEST, &digest.to_string());
        set(&mut answer, header::ETAG, &format!("\"{digest}\""));
        Ok(answer)
    }

    /// A manifest: shown, pushed, deleted.
    pub(crate) async fn manifest(
        &self,
        asked: &Asked<'_>,
        repository: Repository,
        reference: Reference,
        body: Body,
    ) -> Outcome {
        let images = self.inner.images.of(&asked.registry.uid);
        if *asked.method == Method::PUT {
            return self.put_manifest(asked, repository, reference, body).await;
        }
        if *asked.method == Method::DELETE {
            self.on_disk(move || match &reference {
                Reference::Digest(digest) => images.delete_manifest(&repository, digest).map(drop),
                Reference::Tag(tag) => images.delete_tag(&repository, tag),
            })
            .await?;
            tracing::info!(path = asked.path, "a manifest or a tag was deleted");
            return Ok(empty(StatusCode::ACCEPTED));
        }
        let found = self
            .on_disk(move || images.manifest(&repository, &reference))
            .await?;
        let mut answer = empty(StatusCode::OK);
        let size = found.content.len();
        if *asked.method == Method::GET {
            *answer.body_mut() = Body::from(found.content);
        }
        set(&mut answer, header::CONTENT_TYPE, &found.media_type);
        set(&mut answer, header::CONTENT_LENGTH, &size.to_string());
        set(&mut answer, CONTENT_DIGEST, &found.digest.to_string());
        set(&mut answer, header::ETAG, &format!("\"{}\"", found.digest));
        Ok(answer)
    }

    async fn put_manifest(
        &self,
        asked: &Asked<'_>,
        repository: Repository,
        reference: Reference,
        body: Body,
    ) -> Outcome {
        let images = self.inner.images.of(&asked.registry.uid);
        let content = self.small(body, LARGEST_MANIFEST).await?;
        let said = asked.headers.get(header::CONTENT_TYPE);
        let said = said
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty() && value != "application/json");
        let subject = serde_json::from_slice::<Value>(&content)
            .ok()
            .and_then(|manifest| manifest["subject"]["digest"].as_str().map(str::to_owned));
        let now = self.inner.env.clock.now();
        let limit = asked.registry.limit;
        let digest = self
            .on_disk(move || {
                images.put_manifest(&repository, &reference, said.as_deref(), &content, limit, now)
            })
            .await?;
        tracing::info!(path = asked.path, %digest, "a manifest was pushed");
        let mut answer = empty(StatusCode::CREATED);
        let at = asked.path.rfind('/').and_then(|at| asked.path.get(..at));
        let at = format!("{}/{digest}", at.unwrap_or_default());
        set(&mut answer, header::LOCATION, &at);
        set(&mut answer, CONTENT_DIGEST, &digest.to_string());
        if let Some(subject) = subject {
            set(&mut answer, SUBJECT, &subject);
        }
        Ok(answer)
    }

    /// Manifests about a manifest, e.g. signatures.
    pub(crate) async fn referrers(
        &self,
        asked: &Asked<'_>,
        repository: Repository,
        subject: Digest,
    ) -> Outcome {
        let images = self.inner.images.of(&asked.registry.uid);
        let all = self
            .on_disk(move || match images.manifests(&repository) {
                // By the specification there is a list in any case.
                Err(storage_images::ImagesError::NoRepository) => Ok(Vec::new()),
                other => other,
            })
            .await?;
        let subject = subject.to_string();
        let kind = asked.query("artifactType");
        let about = all.into_iter().filter(|manifest| {
            manifest.subject.as_ref() == Some(&subject)
                && kind.is_none_or(|kind| manifest.artifact_type.as_deref() == Some(kind))
        });
        let manifests: Vec<Value> = about
            .map(|manifest| {
                json!({
                    "mediaType": manifest.media_type, "digest": manifest.digest.to_string(),
                    "size": manifest.size, "artifactType": manifest.artifact_type,
                })
            })
            .collect();
        let mut answer = ok(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
        }));
        answer.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/vnd.oci.image.index.v1+json"),
        );
        if kind.is_some() {
            set(&mut answer, FILTERS, "artifactType");
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_also_when_the_last_item_is_gone() {
        let all = ["a", "b", "d", "e"].map(str::to_owned);
        let of = |last: Option<&str>, count| {
            let (names, more) = page(&all, String::as_str, last, count);
            (names.join(""), more)
        };
        assert_eq!(of(None, None), ("abde".to_owned(), false));
        assert_eq!(of(None, Some(2)), ("ab".to_owned(), true));
        assert_eq!(of(Some("b"), Some(2)), ("de".to_owned(), false));
        assert_eq!(of(Some("c"), Some(1)), ("d".to_owned(), true));
        assert_eq!(of(Some("z"), Some(1)), (String::new(), false));
        assert_eq!(of(None, Some(0)), (String::new(), true));
    }
}
