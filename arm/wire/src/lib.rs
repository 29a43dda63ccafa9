//! The ARM envelope: requests and responses as providers see them, errors, operations.
//!
//! The edge turns HTTP into a [`Request`] and a [`Response`] or [`ArmError`] into HTTP; providers see neither sockets nor
//! tokens. Always true of an [`ArmError`]: its `code` is PascalCase, stable, and has a page under `docs/reference/errors/`.

mod error;

pub use error::{ArmError, Detail, ERROR_CODES, ErrorCode};

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arm_ids::ResourcePath;
use http::{Method, StatusCode};
use serde_json::Value;

/// The caller, as far as the token says.
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

impl Principal {
    /// Whom the service acts for by itself, such as the last editor of a resource: a name without an object.
    pub fn named(name: impl Into<String>, tenant_id: impl Into<String>) -> Self {
        Self {
            object_id: String::new(),
            name: name.into(),
            tenant_id: tenant_id.into(),
            kind: PrincipalKind::Application,
        }
    }
}

/// The kind of a principal.
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

/// The ids of a request in logs, its source, and whether the activity log has it.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// `x-ms-request-id`.
    pub request_id: String,
    /// `x-ms-correlation-request-id`.
    pub correlation_id: String,
    /// The address of the other end, as far as known.
    pub address: Option<IpAddr>,
    /// The action that the caller had permission for, e.g.
    /// `Microsoft.ContainerService/managedClusters/write`; empty for calls by the service itself, which are
    /// not logged.
    pub action: String,
    /// The HTTP method.
    pub method: Method,
    logged: Arc<AtomicBool>,
}

impl Trace {
    /// For a request from `address`, before its action is known.
    pub fn new(request_id: &str, correlation_id: &str, address: Option<IpAddr>, method: Method) -> Self {
        Self {
            method,
            request_id: request_id.to_owned(),
            correlation_id: correlation_id.to_owned(),
            address,
            ..Self::default()
        }
    }

    /// Notes that the activity log has the request.
    pub fn log(&self) {
        self.logged.store(true, Ordering::Release);
    }

    /// Whether the activity log has the request.
    pub fn is_logged(&self) -> bool {
        self.logged.load(Ordering::Acquire)
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
    /// The caller.
    pub principal: Principal,
    /// The address at which the caller reached the stamp, e.g. `https://127.0.0.1:8443`: the base of every
    /// absolute URL in the response.
    pub base_url: String,
    /// For logs.
    pub trace: Trace,
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

/// A response.
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
