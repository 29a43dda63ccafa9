//! Microsoft Graph's part of the stamp: `/graph/v1.0/…`, with its own tokens and error format.

use std::{sync::Arc, time::Duration};

use arm_wire::{Principal, Trace};
use axum::body::Body;
use base_connections::Place;
use http::{HeaderName, Method, header, request::Parts};
use identity::{Caller, TokenError};
use identity_graph::{GraphError, ROOT, Request, Route, VERSION};

use crate::{
    Edge, EdgeConfig,
    answer::{self, insert},
    body, query,
    written::Written,
};

/// As for ARM.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The audience of Graph's tokens.
pub(crate) fn resource_id(config: &EdgeConfig) -> String {
    resource_at(config.base_url.trim_end_matches('/'))
}

/// The address of Graph for a client that reaches the stamp at `base_url`. The client requests tokens for
/// that address; all of them have the one audience.
pub(crate) fn resource_at(base_url: &str) -> String {
    format!("{base_url}/{ROOT}")
}

/// The segments of a path that is one of Graph's, behind its root.
pub(crate) fn segments(path: &str) -> Option<Vec<Option<String>>> {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    segments.next().filter(|first| first.eq_ignore_ascii_case(ROOT))?;
    Some(segments.map(arm_ids::decode).collect())
}

impl Edge {
    /// Processes a request; gives the response and its error code.
    pub(crate) async fn graph(
        &self,
        parts: Parts,
        body: Body,
        caller: Caller,
        trace: Trace,
        principal: &mut Option<Principal>,
        written: &mut Option<Written>,
    ) -> (http::Response<Body>, &'static str) {
        let (method, request_id) = (parts.method.clone(), trace.request_id.clone());
        let mut challenge = None;
        let outcome = match self.graph_caller(&parts, &caller, &mut challenge).await {
            Ok(who) => {
                *principal = Some(who.clone());
                Box::pin(self.graph_outcome(parts, body, caller, trace, who, written)).await
            }
            Err(error) => Err(error),
        };
        let (mut answer, code) = match outcome {
            Ok(response) => (answer::to_http(&method, &Ok(response)), ""),
            Err(error) => {
                if let Some(cause) = &error.internal {
                    tracing::error!(request_id, cause, "a request for the directory failed inside");
                }
                let body = error.body(&request_id, self.inner.env.clock.now());
                let mut answer = answer::json(error.status, Some(&body));
                if let Some(seconds) = error.retry_after {
                    insert(&mut answer, Some(header::RETRY_AFTER), &seconds.to_string());
                }
                if let Some(challenge) = &challenge {
                    insert(&mut answer, Some(header::WWW_AUTHENTICATE), challenge);
                }
                insert(&mut answer, Some(header::CACHE_CONTROL), "no-cache");
                insert(&mut answer, Some(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
                (answer, error.code)
            }
        };
        insert(
            &mut answer,
            Some(HeaderName::from_static("request-id")),
            &request_id,
        );
        (answer, code)
    }

    /// The caller; or the error for an invalid token.
    async fn graph_caller(
        &self,
        parts: &Parts,
        caller: &Caller,
        challenge: &mut Option<String>,
    ) -> Result<Principal, GraphError> {
        let inner = &self.inner;
        let token = parts
            .headers
            .get(header::AUTHORIZATION)
            .map(|value| value.to_str().unwrap_or("-"));
        inner
            .identity
            .authenticate_for(token, &[resource_id(&inner.config)])
            .await
            .map_err(|problem| match problem {
                TokenError::Store(_) => GraphError::internal(format_args!("{problem}: {problem:?}")),
                other => {
                    *challenge = Some(inner.identity.challenge(&other, token, caller));
                    GraphError::token(format!("Access token validation failure: {other}."))
                }
            })
    }

    async fn graph_outcome(
        &self,
        parts: Parts,
        body: Body,
        caller: Caller,
        mut trace: Trace,
        who: Principal,
        written: &mut Option<Written>,
    ) -> Result<arm_wire::Response, GraphError> {
        let inner = &self.inner;
        if let Some(place) = parts.extensions.get::<Arc<Place>>() {
            place.belongs_to(&who.object_id);
        }
        let path: Option<Vec<String>> =
            segments(parts.uri.path()).and_then(|segments| segments.into_iter().collect());
        let path = path.ok_or_else(|| GraphError::nowhere("%"))?;
        let (version, path) = path.split_first().ok_or_else(|| GraphError::nowhere(""))?;
        if !version.eq_ignore_ascii_case(VERSION) {
            return Err(GraphError::nowhere(version));
        }
        let route = Route::of(path)?;
        if !matches!(
            parts.method,
            Method::GET | Method::POST | Method::PATCH | Method::DELETE
        ) {
            return Err(GraphError::method());
        }
        if let Some((action, scope)) = Route::written(&parts.method, path) {
            trace.action.clone_from(&action);
            *written = Some(Written {
                action,
                scope,
                subscription: None,
            });
        }
        let query =
            query::parse(parts.uri.query().unwrap_or_default()).ok_or_else(|| GraphError::nowhere("?"))?;
        let content = body::json(&inner.env, &parts.method, &parts.headers, body).await;
        let request = Request {
            body: content.map_err(|error| GraphError::content(&error))?,
            method: parts.method,
            segments: path.to_vec(),
            query,
            principal: who,
            base_url: format!("{}/{ROOT}/{VERSION}", caller.base_url),
            trace,
        };
        let edge = self.clone();
        // A separate task: a client that hangs up does not stop a change half-way, and a panic ends here.
        let task = tokio::spawn(async move { edge.inner.graph.answer(&route, &request).await });
        match inner.env.clock.timeout(REQUEST_TIMEOUT, task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Err(GraphError::internal(format_args!(
                "the handler panicked: {panic}"
            ))),
            Err(_) => Err(GraphError::late()),
        }
    }
}
