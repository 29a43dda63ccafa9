//! Errors in Graph's shape.

use arm_wire::ArmError;
use control_store::StoreError;
use http::StatusCode;
use identity_directory::DirectoryError;
use jiff::Timestamp;
use serde_json::{Value, json};

/// The reason why a request failed.
#[derive(Debug)]
pub struct GraphError {
    /// The status.
    pub status: StatusCode,
    /// The error code of Graph.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// The invalid fields of the body, with the reasons.
    pub details: Vec<(String, String)>,
    /// The cause of an internal error: only for the log.
    pub internal: Option<String>,
    /// The number of seconds after which it may be repeated.
    pub retry_after: Option<u64>,
}

impl GraphError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            details: Vec::new(),
            internal: None,
            retry_after: None,
        }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Request_BadRequest", message)
    }

    /// An invalid parameter of the query.
    pub(crate) fn query(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Request_UnsupportedQuery", message)
    }

    pub(crate) fn missing(id: &str) -> Self {
        let id: String = id.chars().take(64).collect();
        let message = format!(
            "Resource '{id}' does not exist or one of its queried reference-property objects are not present."
        );
        Self::new(StatusCode::NOT_FOUND, "Request_ResourceNotFound", message)
    }

    /// An unknown path.
    pub fn nowhere(segment: &str) -> Self {
        let segment: String = segment.chars().take(64).collect();
        let message = format!("Resource not found for the segment '{segment}'.");
        Self::new(StatusCode::NOT_FOUND, "Request_ResourceNotFound", message)
    }

    pub(crate) fn not_yet(what: &str) -> Self {
        let message = format!("'{what}' is part of the API and not there yet in Landfall.");
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    /// A method that a path does not support.
    pub fn method() -> Self {
        let message = "This method is not allowed here.";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "Request_MethodNotAllowed",
            message,
        )
    }

    /// The caller has no permission.
    pub(crate) fn denied() -> Self {
        let message = "Insufficient privileges to complete the operation.";
        Self::new(StatusCode::FORBIDDEN, "Authorization_RequestDenied", message)
    }

    /// No token, or an invalid one.
    pub fn token(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "InvalidAuthenticationToken", message)
    }

    /// The error of an invalid body.
    pub fn content(error: &ArmError) -> Self {
        let mut own = Self::new(error.status(), "Request_BadRequest", error.message.clone());
        own.internal.clone_from(&error.internal);
        own
    }

    pub(crate) fn busy(message: impl Into<String>, seconds: u64) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        error.retry_after = Some(seconds);
        error
    }

    /// A fault of ours.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        let message = "The service has a fault; the log tells which.";
        let mut error = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Service_InternalServerError",
            message,
        );
        error.internal = Some(cause.to_string());
        error
    }

    /// The error for a request that took too long; its work continues.
    pub fn late() -> Self {
        let message =
            "The request takes longer than a minute; it goes on. Read the object to see how it went.";
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message);
        error.retry_after = Some(5);
        error
    }

    /// The body.
    pub fn body(&self, request_id: &str, now: Timestamp) -> Value {
        let mut error = json!({
            "code": self.code,
            "message": self.message,
            "innerError": { "date": now.to_string(), "request-id": request_id, "client-request-id": request_id },
        });
        if !self.details.is_empty() {
            let details = self.details.iter().map(
                |(target, message)| json!({ "code": "InvalidValue", "target": target, "message": message }),
            );
            error["details"] = details.collect();
        }
        json!({ "error": error })
    }
}

impl From<StoreError> for GraphError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { key } => {
                let message = "The object is being changed by many requests at once; repeat the request.";
                let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message);
                error.internal = Some(format!("{key} kept changing"));
                error.retry_after = Some(1);
                error
            }
            other => Self::internal(other),
        }
    }
}

impl From<ArmError> for GraphError {
    fn from(error: ArmError) -> Self {
        Self::internal(error.internal.unwrap_or(error.message))
    }
}

impl From<DirectoryError> for GraphError {
    fn from(error: DirectoryError) -> Self {
        let message = format!("{error}.");
        match error {
            DirectoryError::Store(error) => error.into(),
            DirectoryError::Missing { id, .. } => Self::missing(&id),
            DirectoryError::Taken { what, field, value } => Self::bad(format!(
                "Another object with the same value for property {} already exists: the {what} with '{value}'.",
                if field == "login" {
                    "userPrincipalName"
                } else {
                    field
                }
            )),
            DirectoryError::Invalid { field, must } => {
                let field = if field == "login" {
                    "userPrincipalName"
                } else {
                    field
                };
                let mut error = Self::bad(format!(
                    "Invalid value specified for property '{field}': it {must}."
                ));
                error.details.push((field.to_owned(), format!("It {must}.")));
                error
            }
            DirectoryError::Full { .. } => {
                Self::new(StatusCode::FORBIDDEN, "Directory_QuotaExceeded", message)
            }
            DirectoryError::MemberAlready { .. } => Self::bad(
                "One or more added object references already exist for the following modified properties: 'members'.",
            ),
            DirectoryError::LastAdmin => {
                Self::new(StatusCode::FORBIDDEN, "Authorization_RequestDenied", message)
            }
        }
    }
}
