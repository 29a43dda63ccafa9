//! Public documents, without a token.

use std::sync::Arc;

use arm_edge::{Published, PublishedError};
use async_trait::async_trait;
use axum::body::Body;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fixture::Stamp;

struct Library;

#[async_trait]
impl Published for Library {
    fn serves(&self, path: &str) -> bool {
        path.starts_with("/library/")
    }

    async fn read(&self, path: &str) -> Result<Option<Value>, PublishedError> {
        match path {
            "/library/Book" => Ok(Some(json!({ "title": "one" }))),
            "/library/burnt" => Err(PublishedError("burnt".into())),
            _ => Ok(None),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn documents_are_read_without_a_token_and_nothing_is_written() {
    let stamp = Stamp::new().await;
    let ask = async |method: Method, path: &str| {
        let request = http::Request::builder().method(method).uri(path);
        stamp
            .send(request.header("host", "h").body(Body::empty()).unwrap())
            .await
    };
    let before = ask(Method::GET, "/library/Book").await;
    assert_ne!(before.status, StatusCode::OK);
    stamp.edge.publish(Arc::new(Library));
    let read = ask(Method::GET, "/library/Book").await;
    assert_eq!(
        (read.status, &read.body["title"]),
        (StatusCode::OK, &json!("one"))
    );
    assert!(read.headers.contains_key("x-ms-request-id"));
    let head = ask(Method::HEAD, "/library/Book").await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
    for (method, path, status) in [
        (Method::GET, "/library/none", StatusCode::NOT_FOUND),
        (Method::GET, "/library/burnt", StatusCode::SERVICE_UNAVAILABLE),
        (Method::POST, "/library/Book", StatusCode::METHOD_NOT_ALLOWED),
        (Method::DELETE, "/library/Book", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let answer = ask(method, path).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(!answer.text.contains("burnt"), "{}", answer.text);
    }
}
