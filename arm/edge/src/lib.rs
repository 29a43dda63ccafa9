//! The HTTP edge: everything between a socket and a provider.
//!
//! Owns the order of checks, headers, error bodies, the endpoints document, and the listener with TLS. The
//! kernel selects the provider ([`Registry`]); `identity/graph` serves paths below `/graph`, `registry` those of images. Always true:
//! every response has `x-ms-request-id`; every error below ARM paths has ARM's form; a request reaches a
//! provider only with a valid token, within the budgets of its principal, with a known api-version, the
//! permission of its row, an existing subscription (an enabled one, where a resource is made or changed) and (but for the group itself) an existing resource
//! group, and a JSON object where it has a body; a fault or panic of a provider becomes a 500 whose cause is
//! only in the log. Independent of Kubernetes.
//!
//! Called by: the binary ([`Edge::serve`]) and tests ([`Edge::router`]).

mod answer;
mod body;
mod bucket;
mod budgets;
mod charge;
mod compress;
mod connection;
mod graph;
mod handle;
mod images;
pub mod measures;
mod metadata;
mod operations;
mod published;
mod query;
mod serve;
mod strangers;
mod tally;
mod written;

use std::sync::{Arc, OnceLock};

use arm_kernel::{AccessControl, Provider, Registry};
use base_env::Env;
use base_metrics::Page;
use control_store::Store;
use identity::TokenService;
use identity_graph::Graph;
use registry::Registries;

use self::{budgets::Buckets, measures::Measures, strangers::Strangers, tally::Tally};

pub use body::MAX_BODY_BYTES;
pub use budgets::{Budget, Budgets};
pub use published::{Published, PublishedError};
pub use serve::{LIMITS, ServeError, ServerTls};
pub use tally::{Called, Calls, Client};

/// The edge's configuration.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Name of the stamp.
    pub stamp: String,
    /// Its base URL without a trailing slash, e.g. `https://management.local.landfall.test`: the scheme of all links, and the
    /// host where a request names none.
    pub base_url: String,
    /// The domain of suffixes in the endpoints document.
    pub domain: String,
    /// Name of its location, e.g. `local`.
    pub location: String,
    /// How many requests a principal may send.
    pub budgets: Budgets,
}

/// The edge of a stamp. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    inner: Arc<Inner>,
}

struct Inner {
    config: EdgeConfig,
    env: Env,
    store: Arc<dyn Store>,
    identity: Arc<TokenService>,
    registry: Registry,
    graph: Graph,
    access: AccessControl,
    published: OnceLock<Arc<dyn Published>>,
    images: OnceLock<Registries>,
    strangers: Strangers,
    hasty: Strangers,
    buckets: Buckets,
    tally: Tally,
    measures: Measures,
}

impl Edge {
    /// An edge for these providers. One of them has to be `Microsoft.Resources`: it serves the paths without
    /// a namespace. `access` decides permissions, and keeps the activity log.
    pub fn new(
        config: EdgeConfig,
        env: Env,
        store: Arc<dyn Store>,
        identity: Arc<TokenService>,
        providers: Vec<Arc<dyn Provider>>,
        access: AccessControl,
    ) -> Self {
        let graph = Graph::new(
            env.clone(),
            Arc::clone(&store),
            Arc::clone(&access.authorizer),
            identity.config().tenant_id.clone(),
        );
        let tally = Tally::new(providers.iter().flat_map(|provider| {
            let namespace = provider.namespace();
            let routes = provider.routes().into_iter();
            routes.map(move |route| (namespace, route.name, route.works))
        }));
        let measures = Measures::new(providers.iter().map(|provider| provider.namespace()));
        Self {
            inner: Arc::new(Inner {
                buckets: Buckets::new(config.budgets),
                config,
                env,
                store,
                identity,
                registry: Registry::new(providers),
                graph,
                access,
                published: OnceLock::new(),
                images: OnceLock::new(),
                strangers: Strangers::default(),
                hasty: Strangers::default(),
                tally,
                measures,
            }),
        }
    }

    /// Serves these documents without authentication from now on. Called at most once.
    pub fn publish(&self, documents: Arc<dyn Published>) {
        let _given_before = self.inner.published.set(documents);
    }

    /// Serves the images of these registries from now on. Called at most once; without it, their paths are answered with 501.
    pub fn serve_images(&self, images: Registries) {
        let _given_before = self.inner.images.set(images);
    }

    /// Which operations were called by which kinds of clients since this edge was made, in the order of their names.
    pub fn calls(&self) -> Vec<Calls> {
        self.inner.tally.told()
    }

    /// Writes what it has counted of requests to a page of metrics.
    pub fn measure(&self, page: &mut Page) {
        self.inner.measures.write(page);
    }

    /// The edge as an axum service: one handler for everything.
    pub fn router(&self) -> axum::Router {
        let edge = self.clone();
        axum::Router::new().fallback(move |request: axum::extract::Request| {
            let edge = edge.clone();
            async move { edge.handle(request).await }
        })
    }
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edge")
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}
