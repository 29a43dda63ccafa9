//! The stamp's token service for programs in machines and pods, which reach no other port of the host:
//! discovery, keys and tokens. No pages for people, who sign in at the ARM API.
//!
//! Discovery has two kinds of callers. A library that gets tokens accepts a document only if its issuer is at
//! the requested address: it receives this address. An API server that checks tokens needs the issuer named
//! in the tokens: it asks below [`ISSUERS`].
//!
//! Always true: callers have the limits of unknown peers; failed logins are counted for the address that the
//! fabric gave the cluster.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use identity::{Caller, TokenService};
use serde_json::{Value, json};

use crate::{Hub, caller::refuse};

/// The path prefix of issuers, for callers that check tokens.
pub const ISSUERS: &str = "/issuer";
/// The size limit of a form.
const FORM_LIMIT: usize = 64 * 1024;

/// The token service and its URL for machines.
pub struct TokenDoor {
    /// The token service.
    pub tokens: Arc<TokenService>,
    /// The hub's URL without a trailing slash.
    pub url: String,
}

/// The address of the peer.
#[derive(Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Answers requests for all paths that are not agents'.
pub(crate) async fn answer(
    State(hub): State<Hub>,
    Extension(Peer(address)): Extension<Peer>,
    request: Request,
) -> Result<Response, Response> {
    let nowhere = || refuse(StatusCode::NOT_FOUND, "nothing is served at this path");
    let door = hub.inner.tokens.get().ok_or_else(nowhere)?;
    let (mut parts, body) = request.into_parts();
    let checks = parts.uri.path().strip_prefix(ISSUERS).map(str::to_owned);
    let checks = checks.filter(|rest| rest.starts_with('/'));
    if let Some(rest) = &checks {
        parts.uri = rest.parse().map_err(|_| nowhere())?;
    }
    if !door.tokens.serves_programs(parts.uri.path()) {
        return Err(nowhere());
    }
    let form = to_bytes(body, FORM_LIMIT)
        .await
        .map_err(|_| refuse(StatusCode::PAYLOAD_TOO_LARGE, "the form is too long or broke off"))?;
    let caller = Caller {
        base_url: door.url.clone(),
        address: Some(address),
    };
    let answer = door
        .tokens
        .answer(http::Request::from_parts(parts, form), &caller)
        .await;
    let answer = if checks.is_some() {
        answer
    } else {
        of_here(door, answer)
    };
    Ok(answer.map(Body::from).into_response())
}

/// Rewrites the issuer of a discovery document to the requested address. Other answers stay as they are.
fn of_here(door: &TokenDoor, answer: http::Response<Bytes>) -> http::Response<Bytes> {
    let Ok(mut document) = serde_json::from_slice::<Value>(answer.body()) else {
        return answer;
    };
    let own = door.tokens.config().base_url.trim_end_matches('/');
    let path = document["issuer"]
        .as_str()
        .and_then(|issuer| issuer.strip_prefix(own));
    let Some(here) = path.map(|path| format!("{}{path}", door.url)) else {
        return answer;
    };
    document["issuer"] = json!(here);
    answer.map(|_| Bytes::from(document.to_string()))
}
