//! A simulated API server: a function from request to answer.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use base_env::Env;
use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use crate::Cluster;

/// A received request; the path includes the query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// The received requests, in order.
pub(crate) type Log = Arc<Mutex<Vec<Asked>>>;

/// A cluster with this API server: status and body.
pub(crate) fn cluster(answer: impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static) -> (Cluster, Log) {
    let log = Log::default();
    let (kept, answer) = (Arc::clone(&log), Arc::new(answer));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect_bytes().await.unwrap();
            let asked = Asked {
                method: parts.method,
                path: parts.uri.to_string(),
                body: serde_json::from_slice(&bytes).unwrap_or_default(),
            };
            log.lock().unwrap().push(asked.clone());
            let (status, body) = answer(&asked);
            let response = Response::builder().status(status);
            Ok::<_, Infallible>(response.body(Body::from(body.to_string().into_bytes())).unwrap())
        }
    });
    (
        Cluster::new(Env::system(), kube::Client::new(service, "default"), Arc::new([])),
        kept,
    )
}

/// An error answer of Kubernetes.
pub(crate) fn refusal(code: u16, message: &str) -> (u16, Value) {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "message": message, "reason": "", "code": code
    });
    (code, status)
}

pub(crate) fn paths(log: &Log, method: &Method) -> Vec<String> {
    let log = log.lock().unwrap();
    let asked = log.iter().filter(|asked| asked.method == *method);
    asked.map(|asked| asked.path.clone()).collect()
}
