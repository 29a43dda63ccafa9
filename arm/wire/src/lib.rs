//! The ARM envelope: requests and responses as providers see them, errors, operations.
//!
//! The edge turns HTTP into a [`Request`] and a [`Response`] or [`ArmError`] into HTTP; providers see neither sockets nor
//! tokens. Always true of an [`ArmError`]: its `code` is PascalCase, stable, and has a page under `docs/reference/errors/`.

mod error;

pub use error::{ArmError, Detail, ERROR_CODES, ErrorCode};

use arm_ids::ResourcePath;
use async_trait::async_trait;
use http::{Method, StatusCode};
use serde_json::Value;

/// Who asks, as far as the token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Object id.
    pub object_id: String,
    /// Application (client) id or user principal name.
    pub name: String,
    /// Tenant id.
    pub tenant_id: String,
    /// `Application` or `User`.
    pub kind: PrincipalKind,
}

/// What kind of principal asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrincipalKind {
    /// A service principal.
    Application,
    /// A person.
    User,
}

impl PrincipalKind {
    /// As in `systemData.createdByType`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Application => "Application",
            Self::User => "User",
        }
    }
}

/// A parsed, authenticated request.
#[derive(Debug, Clone)]
pub struct Request {
    /// GET, PUT, PATCH, POST, DELETE or HEAD.
    pub method: Method,
    /// The path below the host, parsed: scope, provider, type and name pairs, action. Names in the caller's casing.
    pub path: ResourcePath,
    /// The `api-version`, already checked against the provider's table.
    pub api_version: String,
    /// Decoded query parameters, without `api-version`.
    pub query: Vec<(String, String)>,
    /// JSON body; `Value::Null` without one.
    pub body: Value,
    /// `If-Match`, unquoted.
    pub if_match: Option<String>,
    /// `If-None-Match`, unquoted.
    pub if_none_match: Option<String>,
    /// Who asks.
    pub principal: Principal,
    /// Where the caller reached us, e.g. `https://127.0.0.1:8443`: the base of every absolute URL in the answer.
    pub base_url: String,
}

impl Request {
    /// The first query parameter of this name, ignoring case.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// Status.
    pub status: StatusCode,
    /// Headers beyond those the edge always sets.
    pub headers: Vec<(&'static str, String)>,
    /// JSON body; `None` sends none.
    pub body: Option<Value>,
}

impl Response {
    /// 200 with a body.
    pub fn ok(body: Value) -> Self {
        Self::with(StatusCode::OK, body)
    }

    /// Any status with a body.
    pub fn with(status: StatusCode, body: Value) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Some(body),
        }
    }

    /// Any status without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: None,
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds the headers of a long-running operation: `Azure-AsyncOperation` always, `Location` where `location` says
    /// so, `Retry-After` 1 (az waits 30 s where it is absent or 0).
    ///
    /// The operation id goes into `/subscriptions/{s}/providers/{namespace}/locations/{l}/operations/{id}`, and into
    /// `…/operationresults/{id}` for `Location`.
    #[must_use]
    pub fn operation(
        self,
        request: &Request,
        namespace: &str,
        subscription: &str,
        location: &str,
        operation: &str,
        with_location: bool,
    ) -> Self {
        let base = format!(
            "{}/subscriptions/{subscription}/providers/{namespace}/locations/{location}",
            request.base_url
        );
        let version = &request.api_version;
        let answer = self
            .header(
                "azure-asyncoperation",
                format!("{base}/operations/{operation}?api-version={version}"),
            )
            .header("retry-after", "1");
        if with_location {
            answer.header(
                "location",
                format!("{base}/operationresults/{operation}?api-version={version}"),
            )
        } else {
            answer
        }
    }
}

/// One operation a provider offers; the edge dispatches, answers 404/405 and documents from the table of these.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The method.
    pub method: &'static str,
    /// The type path below the namespace without names, e.g. `managedClusters/agentPools`; an action is a last segment
    /// with a leading `:`, e.g. `managedClusters/:listClusterAdminCredential`. Matching ignores case.
    pub path: &'static str,
    /// At which scope.
    pub scope: Scope,
    /// Its name in the API specification, e.g. `ManagedClusters_CreateOrUpdate`.
    pub name: &'static str,
    /// Whether it works, or answers 501 with an error that names it.
    pub status: RouteStatus,
}

/// What a route's path ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A type and its name: `managedClusters/{name}`.
    Item,
    /// A type without a name: `managedClusters`.
    Collection,
    /// A verb: `managedClusters/{name}/listClusterAdminCredential`.
    Action,
}

impl Route {
    /// What its path ends in: an action where the last segment starts with `:`; a collection where the path ends in `/`
    /// or the operation is a GET whose verb starts with `List` (`ManagedClusters_ListByResourceGroup`); an item otherwise.
    ///
    /// A GET on a bare type whose verb is not `List` needs the trailing `/`, e.g. `managedClusters/availableAgentPoolVersions/`.
    pub fn shape(&self) -> Shape {
        let verb = self.name.split_once('_').map_or(self.name, |(_, verb)| verb);
        if self
            .path
            .rsplit('/')
            .next()
            .is_some_and(|last| last.starts_with(':'))
        {
            Shape::Action
        } else if self.path.ends_with('/') || (self.method == "GET" && verb.starts_with("List")) {
            Shape::Collection
        } else {
            Shape::Item
        }
    }
}

/// Where a route hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `/providers/{ns}/…`
    Tenant,
    /// `/subscriptions/{s}/providers/{ns}/…`
    Subscription,
    /// `/subscriptions/{s}/resourceGroups/{g}/providers/{ns}/…`
    ResourceGroup,
}

/// Whether a route works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteStatus {
    /// It does what the specification says.
    Works,
    /// It answers 501 `NotImplemented` and names itself.
    NotYet,
}

/// An ARM resource provider.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Its namespace, e.g. `Microsoft.ContainerService`.
    fn namespace(&self) -> &'static str;
    /// The api-versions it accepts, newest first.
    fn api_versions(&self) -> &'static [&'static str];
    /// All that it offers.
    fn routes(&self) -> &'static [Route];
    /// Answers a request that matched one of its working routes.
    async fn handle(&self, route: &'static Route, request: Request) -> Result<Response, ArmError>;
    /// The location of a resource of this provider and its type, for `/resources` listings; ids in canonical casing.
    /// Each item is a JSON object with `id`, `name`, `type`, `location` and `tags`.
    async fn resources(
        &self,
        subscription: &str,
        resource_group: Option<&str>,
    ) -> Result<Vec<Value>, ArmError>;
    /// Starts deleting everything of a resource group. Returns how many resources are still there.
    async fn delete_resource_group(
        &self,
        subscription: &str,
        resource_group: &str,
    ) -> Result<usize, ArmError>;
}
