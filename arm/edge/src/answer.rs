//! Responses: from a provider's [`Response`], a cached [`Text`] or an [`ArmError`] to HTTP.

use std::sync::Arc;

use arm_kernel::Text;
use arm_wire::{ArmError, ErrorCode, Response};
use axum::body::Body;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::Value;

use crate::compress;

/// A request's outcome: a response, or an error with additional headers.
pub(crate) type Outcome = Result<Response, Failure>;

/// The same, where the response may be a cached text.
pub(crate) type Told = Result<Answer, Failure>;

/// A successful response.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A response of a handler.
    Made(Response),
    /// 200 with a cached text.
    Kept(Arc<Text>),
}

/// An error and the headers of its response.
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

/// The HTTP form. The response to HEAD has no body.
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
    guard(&mut answer);
    answer
}

/// The HTTP form of a text, compressed if the client accepts that.
pub(crate) fn text_to_http(text: &Text, takes_gzip: bool) -> http::Response<Body> {
    let packed = (takes_gzip && compress::is_worth_it(text.plain().len()))
        .then(|| text.packed(|plain| compress::pack(plain).ok()))
        .flatten();
    let mut answer = http::Response::new(Body::from(packed.unwrap_or(text.plain()).clone()));
    answer.headers_mut().insert(header::CONTENT_TYPE, JSON);
    if packed.is_some() {
        compress::told(answer.headers_mut());
    }
    guard(&mut answer);
    answer
}

/// Headers against caching without validation and against content sniffing.
fn guard(answer: &mut http::Response<Body>) {
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
}

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// A plain JSON answer.
pub(crate) fn json(status: StatusCode, body: Option<&Value>) -> http::Response<Body> {
    let mut answer = http::Response::new(body.map_or_else(Body::empty, |body| Body::from(body.to_string())));
    *answer.status_mut() = status;
    if body.is_some() {
        answer.headers_mut().insert(header::CONTENT_TYPE, JSON);
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
