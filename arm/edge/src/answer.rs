//! Answers: from a provider's [`Response`] or an [`ArmError`] to HTTP.

use arm_wire::{ArmError, ErrorCode, Response};
use axum::body::Body;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::Value;

/// A request's outcome: a response, or an error with headers of its own.
pub(crate) type Outcome = Result<Response, Failure>;

/// An error and what it needs beside its body.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Box<ArmError>,
    pub(crate) headers: Vec<(HeaderName, String)>,
}

impl From<ArmError> for Failure {
    fn from(error: ArmError) -> Self {
        Self {
            error: Box::new(error),
            headers: Vec::new(),
        }
    }
}

impl Failure {
    pub(crate) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The HTTP form. A HEAD is answered without a body, whatever the provider gave.
pub(crate) fn to_http(method: &Method, outcome: &Outcome) -> http::Response<Body> {
    let mut answer = match outcome {
        Ok(response) => {
            let mut answer = json(response.status, response.body.as_ref());
            for (name, value) in &response.headers {
                insert(&mut answer, HeaderName::from_bytes(name.as_bytes()).ok(), value);
            }
            answer
        }
        Err(failure) => {
            let mut answer = json(failure.error.status(), Some(&failure.error.body()));
            for (name, value) in &failure.headers {
                insert(&mut answer, Some(name.clone()), value);
            }
            if failure.error.code == ErrorCode::SERVICE_UNAVAILABLE
                && !answer.headers().contains_key(header::RETRY_AFTER)
            {
                answer
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            answer
        }
    };
    if *method == Method::HEAD {
        *answer.body_mut() = Body::empty();
    }
    answer
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    answer
}

/// A plain JSON answer.
pub(crate) fn json(status: StatusCode, body: Option<&Value>) -> http::Response<Body> {
    let mut answer = http::Response::new(body.map_or_else(Body::empty, |body| Body::from(body.to_string())));
    *answer.status_mut() = status;
    if body.is_some() {
        answer.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=utf-8"),
        );
    }
    answer
}

/// Sets a header; one that HTTP cannot carry is left out and logged, as the answer itself is good.
pub(crate) fn insert(answer: &mut http::Response<Body>, name: Option<HeaderName>, value: &str) {
    match (name, HeaderValue::from_str(value)) {
        (Some(name), Ok(value)) => {
            answer.headers_mut().insert(name, value);
        }
        (name, _) => tracing::error!(?name, "an answer has a header that HTTP cannot carry"),
    }
}
