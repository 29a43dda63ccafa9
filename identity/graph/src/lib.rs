//! The part of Microsoft Graph that `az ad` and `az role assignment` need: the directory over HTTP, at `{stamp}/graph/v1.0`.
//!
//! | what | offered |
//! |---|---|
//! | `/me` | of people; `changePassword`, `memberOf`, `revokeSignInSessions` |
//! | `/users`, `/groups`, `/servicePrincipals`, `/applications` | list, get, create, change, delete |
//! | `/groups/{id}/members` | list, `$ref` to add and to remove |
//! | `/applications/{id}`, `/servicePrincipals/{id}` | `addPassword`, `removePassword`; certificates by PATCH of `keyCredentials` |
//! | `/applications/{id}/federatedIdentityCredentials` | list, get, create, change, delete |
//! | `/directoryObjects` | `getByIds`; `checkMemberGroups`, `getMemberGroups`, `memberOf` of all that can be a member |
//!
//! Always true: one decision ([`access`]) permits or refuses a request before any lookup; only callers that
//! could assign roles at the whole stamp change the directory, so that no caller gains rights by it; a change
//! and its entry in the activity log are one transaction; a secret is only in the response to its creation;
//! unsupported members of a body are refused by name.
//!
//! Called by: the edge, which has authenticated the caller for this API: tokens of Graph and of ARM are not
//! valid for each other.

mod access;
mod applications;
mod body;
mod credentials;
mod directory_objects;
mod error;
mod groups;
mod passwords;
mod query;
mod route;
mod service_principals;
mod show;
mod users;

use std::sync::Arc;

use arm_kernel::Authorizer;
use arm_wire::{Principal, Response, Trace};
use base_blocking::Pool;
use base_env::Env;
use control_records::activity::{ActivityRecord, ActivityStatus};
use control_store::Store;
use http::Method;
use identity_directory::Writer;
use serde_json::Value;

pub use error::GraphError;
pub use route::{READ, Route};

/// The first segment of all paths.
pub const ROOT: &str = "graph";
/// The only version.
pub const VERSION: &str = "v1.0";

/// A request that was authenticated. Its body may hold a password: it has no `Debug`.
#[derive(Clone)]
pub struct Request {
    /// GET, POST, PATCH or DELETE.
    pub method: Method,
    /// The path behind the version, decoded.
    pub segments: Vec<String>,
    /// Decoded.
    pub query: Vec<(String, String)>,
    /// JSON; null without one.
    pub body: Value,
    /// The caller.
    pub principal: Principal,
    /// The address at which the caller reached this API, e.g. `https://127.0.0.1:8443/graph/v1.0`.
    pub base_url: String,
    /// For the activity log.
    pub trace: Trace,
}

impl Request {
    /// The first parameter of this name.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// The API over a stamp's directory.
pub struct Graph {
    env: Env,
    store: Arc<dyn Store>,
    authorizer: Arc<dyn Authorizer>,
    tenant: String,
    hashing: Pool,
    guesses: passwords::Guesses,
}

impl Graph {
    /// Over a store; `tenant` is the GUID of the stamp's tenant.
    pub fn new(
        env: Env,
        store: Arc<dyn Store>,
        authorizer: Arc<dyn Authorizer>,
        tenant: impl Into<String>,
    ) -> Self {
        Self {
            env,
            store,
            authorizer,
            tenant: tenant.into(),
            hashing: Pool::new(base_blocking::PASSWORDS),
            guesses: passwords::Guesses::default(),
        }
    }

    /// Serves a request for one of its routes ([`Route::of`]).
    ///
    /// # Errors
    /// As an error of Graph.
    pub async fn answer(&self, route: &Route, request: &Request) -> Result<Response, GraphError> {
        self.admit(route, request).await?;
        match route {
            Route::Users(at) => self.users(at, request).await,
            Route::Groups(at) => self.groups(at, request).await,
            Route::ServicePrincipals(at) => self.service_principals(at, request).await,
            Route::Applications(at) => self.applications(at, request).await,
            Route::Objects(at) => self.objects(at, request).await,
            Route::NotYet(what) => Err(GraphError::not_yet(what)),
        }
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The writer for a request, with its entry in the activity log.
    pub(crate) fn writer(&self, request: &Request) -> Writer<'_> {
        let trace = request.trace.clone();
        let (action, scope) = match Route::written(&request.method, &request.segments) {
            Some(written) => written,
            None => (READ.to_owned(), "/".to_owned()),
        };
        let note = ActivityRecord {
            v: 1,
            at: self.env.clock.now(),
            principal: request.principal.object_id.clone(),
            principal_name: request.principal.name.clone(),
            principal_type: request.principal.kind.as_str().to_owned(),
            address: trace.address,
            action,
            method: Some(request.method.as_str().to_owned()),
            scope,
            status: ActivityStatus::Succeeded,
            http_status: None,
            code: None,
            operation: None,
            correlation_id: trace.correlation_id.clone(),
            request_id: trace.request_id.clone(),
        };
        Writer {
            store: &*self.store,
            env: &self.env,
            note: vec![note.put(None)],
            done: Box::new(move || trace.log()),
        }
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Graph")
    }
}
