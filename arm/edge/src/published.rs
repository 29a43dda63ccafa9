//! Public documents, served without a token; the owner of their contents implements [`Published`].

use async_trait::async_trait;
use axum::body::Body;
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::answer;

/// A document could not be read.
#[derive(Debug, thiserror::Error)]
#[error("a public document cannot be read")]
pub struct PublishedError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Documents below a path.
#[async_trait]
pub trait Published: Send + Sync {
    /// Whether a path is one of theirs.
    fn serves(&self, path: &str) -> bool;
    /// The document there; `None`: there is none.
    async fn read(&self, path: &str) -> Result<Option<Value>, PublishedError>;
}

/// The answer to a request for one.
pub(crate) async fn answer(documents: &dyn Published, method: &Method, path: &str) -> http::Response<Body> {
    let (status, document) = if matches!(*method, Method::GET | Method::HEAD) {
        match documents.read(path).await {
            Ok(Some(document)) => (StatusCode::OK, document),
            Ok(None) => (StatusCode::NOT_FOUND, json!({ "error": "not_found" })),
            Err(error) => {
                let why = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(path, %error, why, "a request failed inside");
                (
                    StatusCode::SERVICE_UNAVAILABLE,
                    json!({ "error": "temporarily_unavailable" }),
                )
            }
        }
    } else {
        (
            StatusCode::METHOD_NOT_ALLOWED,
            json!({ "error": "method_not_allowed" }),
        )
    };
    let mut answer = answer::json(status, Some(&document));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        answer::insert(&mut answer, Some(header::ALLOW), "GET");
    }
    if *method == Method::HEAD {
        *answer.body_mut() = Body::empty();
    }
    answer
}
