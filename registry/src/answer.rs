//! Answers: errors of the distribution specification, JSON.

use axum::body::Body;
use base_blocking::PoolError;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use storage_images::ImagesError;

use crate::GateError;

/// Marks a response whose body takes as long as its reader: the listener counts its connection as in use until
/// then.
#[derive(Debug, Clone, Copy)]
pub struct Streams;

/// An error in the form of the specification.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(HeaderName, String)>,
    /// For the log only.
    pub(crate) internal: Option<String>,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            headers: Vec::new(),
            internal: None,
        }
    }

    #[must_use]
    pub(crate) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn nowhere() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "UNSUPPORTED",
            "nothing is served at this path",
        )
    }

    pub(crate) fn unsupported(message: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    }

    pub(crate) fn name_invalid(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "NAME_INVALID", message)
    }

    pub(crate) fn digest_invalid(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }

    pub(crate) fn no_upload() -> Self {
        ImagesError::NoUpload.into()
    }

    pub(crate) fn upload_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", message)
    }

    /// Without a valid token, or without the right. The same whether there is such a registry or not.
    pub(crate) fn unauthorized(challenge: String) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "authentication is required, and the right to do this: AcrPull, AcrPush or AcrDelete at the registry",
        )
        .with(header::WWW_AUTHENTICATE, challenge)
    }

    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        let mut failure = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "UNAVAILABLE",
            "the registry cannot answer now; try again",
        )
        .with(header::RETRY_AFTER, "5");
        failure.internal = Some(cause.to_string());
        failure
    }

    pub(crate) fn busy(error: &PoolError) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TOOMANYREQUESTS",
            format!("{error}"),
        )
        .with(header::RETRY_AFTER, "5")
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let error = json!({ "code": self.code, "message": self.message });
        let mut answer = of_json(self.status, &json!({ "errors": [error] }));
        for (name, value) in self.headers {
            set(&mut answer, name, &value);
        }
        answer
    }
}

impl From<GateError> for Failure {
    fn from(error: GateError) -> Self {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        Self::internal(format_args!("{error}: {}", cause.unwrap_or_default()))
    }
}

impl From<ImagesError> for Failure {
    fn from(error: ImagesError) -> Self {
        let (status, code) = match &error {
            ImagesError::NoBlob => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            ImagesError::NoUpload => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            ImagesError::NoManifest => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            ImagesError::NoRepository => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            ImagesError::NotNext { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            ImagesError::OtherContent { .. } => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            ImagesError::Manifest(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            ImagesError::Missing(_) => (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN"),
            ImagesError::Full { .. } => {
                let message = format!(
                    "{error}; delete images of it, which takes effect within hours, or choose a larger tier: az acr update --sku"
                );
                return Self::new(StatusCode::FORBIDDEN, "DENIED", message);
            }
            ImagesError::DiskFull => {
                let message = format!("{error}; its operator has to make room");
                return Self::new(StatusCode::INSUFFICIENT_STORAGE, "DENIED", message);
            }
            ImagesError::Io { source, .. } => return Self::internal(format_args!("{error}: {source}")),
        };
        Self::new(status, code, error.to_string())
    }
}

/// Sets a header; one that HTTP cannot carry is left out and logged, as the answer itself is good.
pub(crate) fn set(answer: &mut Response<Body>, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => {
            answer.headers_mut().insert(name, value);
        }
        Err(_) => tracing::error!(%name, "an answer has a header that HTTP cannot carry"),
    }
}

/// JSON with a status.
pub(crate) fn of_json(status: StatusCode, body: &Value) -> Response<Body> {
    let mut answer = Response::new(Body::from(body.to_string()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    answer
}

/// 200 with JSON.
pub(crate) fn ok(body: &Value) -> Response<Body> {
    of_json(StatusCode::OK, body)
}

/// A status without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}
