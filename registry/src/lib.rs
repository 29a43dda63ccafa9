//! Registries of container images over HTTP: the API of the distribution specification, the one of Azure's
//! registries beside it (`/acr/v1`), and their tokens (`/oauth2`). Images are `storage/images`'.
//!
//! All registries of a stamp are at one host, and the first segment of a repository is the registry's name:
//!
//! ```text
//! HOST/v2/REGISTRY/REPOSITORY/…     clients that pull and push: the reference is HOST/REGISTRY/REPOSITORY
//! HOST/REGISTRY/v2/…, …/acr/v1/…    clients that have a login server, which is HOST/REGISTRY
//! HOST/oauth2/exchange, …/token     tokens for both
//! ```
//!
//! Always true: no image is shown, sent or changed without the right for it, which is asked for at each
//! request; whoever may not see a registry does not learn whether it exists; bodies are streamed, and each has
//! a limit of size and of the time between two pieces; a node pulls with its machine's certificate and cannot
//! push.
//!
//! Called by: the edge, for clients, and the agents' hub, for nodes and pods.

mod answer;
mod content;
mod gate;
mod metadata;
mod path;
mod scope;
mod stream;
mod tokens;
mod upkeep;
mod uploads;

use std::sync::Arc;

use axum::body::Body;
use base_blocking::{Pool, REGISTRIES};
use base_env::Env;
use http::{Method, Request, Response, header};
use storage_images::Images;

pub use answer::Streams;
pub use gate::{Access, Claims, Gate, GateError, KnownRegistry, Right};
pub use upkeep::UpkeepError;

use answer::{Failure, ok};
use path::Target;
use scope::Wanted;

/// Where a request came in.
#[derive(Debug, Clone)]
pub struct Entrance {
    /// The address at which the caller reached us, without a trailing slash, e.g. `https://127.0.0.1:8443`.
    pub base_url: String,
    /// The caller's address.
    pub address: Option<std::net::IpAddr>,
    /// The machine whose certificate the connection has; `None` without one.
    pub machine: Option<String>,
}

impl Entrance {
    /// Host and port of [`Self::base_url`].
    fn host(&self) -> &str {
        let url = self.base_url.trim_end_matches('/');
        url.split_once("://").map_or(url, |(_, host)| host)
    }
}

/// The registries of a stamp. Cheap to clone.
#[derive(Clone)]
pub struct Registries {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    images: Arc<Images>,
    gate: Arc<dyn Gate>,
    /// Threads for files.
    pool: Pool,
}

/// A response, or an error of the specification.
type Outcome = Result<Response<Body>, Failure>;

/// A request for something of a registry, by somebody with the right to it.
struct Asked<'a> {
    registry: &'a KnownRegistry,
    method: &'a Method,
    path: &'a str,
    query: &'a [(String, String)],
    headers: &'a http::HeaderMap,
}

impl Asked<'_> {
    /// The first parameter of the query with this name.
    fn query(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Registries {
    /// Serves these images to whom the gate lets through.
    pub fn new(env: Env, images: Arc<Images>, gate: Arc<dyn Gate>) -> Self {
        Self {
            inner: Arc::new(Inner {
                env,
                images,
                gate,
                pool: Pool::new(REGISTRIES),
            }),
        }
    }

    /// Whether a path is one of the registries'.
    pub fn serves(path: &str) -> bool {
        path::serves(path)
    }

    /// Runs work on files.
    ///
    /// # Errors
    /// When the work fails, or too much waits for a thread.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, storage_images::ImagesError> + Send + 'static,
    ) -> Result<T, Failure> {
        match self.inner.pool.run(work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(error.into()),
            Err(error) => Err(Failure::busy(&error)),
        }
    }

    /// Answers a request for one of their paths; gives the object id of the caller as well, if it was found out.
    pub async fn answer(
        &self,
        request: Request<Body>,
        entrance: &Entrance,
    ) -> (Response<Body>, Option<String>) {
        let mut who = None;
        let method = request.method().clone();
        let outcome = self.outcome(request, entrance, &mut who).await;
        let mut answer = outcome.unwrap_or_else(|failure| {
            if let Some(cause) = &failure.internal {
                tracing::error!(cause, "a request for images failed inside");
            }
            failure.into_response()
        });
        if method == Method::HEAD {
            *answer.body_mut() = Body::empty();
        }
        answer.headers_mut().insert(
            "docker-distribution-api-version",
            http::HeaderValue::from_static("registry/2.0"),
        );
        answer.headers_mut().insert(
            header::X_CONTENT_TYPE_OPTIONS,
            http::HeaderValue::from_static("nosniff"),
        );
        (answer, who)
    }

    async fn outcome(
        &self,
        request: Request<Body>,
        entrance: &Entrance,
        who: &mut Option<String>,
    ) -> Outcome {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let target = path::parse(path)?;
        let query = arm_ids::parse_query(parts.uri.query().unwrap_or_default(), 32)
            .ok_or_else(|| Failure::unsupported("the query cannot be understood"))?;
        let (named, from_login_server) = match target {
            Target::Exchange => return self.exchange(&parts, body, who).await,
            Target::Token => return self.token(&parts, &query, body, entrance).await,
            Target::Base { registry } => {
                self.base(&parts, entrance, registry.as_deref(), who).await?;
                return Ok(ok(&serde_json::json!({})));
            }
            Target::Named {
                named,
                from_login_server,
            } => (named, from_login_server),
        };
        let right = named.right(&parts.method)?;
        let wanted = Wanted::of(&named, right);
        let registry = self
            .admit(&parts, entrance, &wanted, from_login_server, who)
            .await?;
        let asked = Asked {
            registry: &registry,
            method: &parts.method,
            path,
            query: &query,
            headers: &parts.headers,
        };
        self.served(&asked, named.what, body).await
    }

    async fn served(&self, asked: &Asked<'_>, what: path::What, body: Body) -> Outcome {
        use path::What;
        match what {
            What::Catalog => self.catalog(asked).await,
            What::Tags(repository) => self.tag_names(asked, repository).await,
            What::Manifest(repository, reference) => self.manifest(asked, repository, reference, body).await,
            What::Blob(repository, digest) => self.blob(asked, repository, digest).await,
            What::Uploads(repository) => self.begin_upload(asked, repository, body).await,
            What::Upload(repository, id) => self.upload(asked, repository, id, body).await,
            What::Referrers(repository, digest) => self.referrers(asked, repository, digest).await,
            What::Attributes(repository) => self.attributes(asked, repository).await,
            What::TagList(repository) => self.tag_list(asked, repository).await,
            What::TagAttributes(repository, tag) => self.tag_attributes(asked, repository, tag).await,
            What::ManifestList(repository) => self.manifest_list(asked, repository).await,
            What::ManifestAttributes(repository, digest) => {
                self.manifest_attributes(asked, repository, digest).await
            }
        }
    }
}

/// The answer of a stamp that keeps no images.
pub fn absent() -> Response<Body> {
    let message = "this stamp is simulated and keeps no images; its registries are resources only";
    Failure::new(http::StatusCode::NOT_IMPLEMENTED, "UNSUPPORTED", message).into_response()
}

impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registries")
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
