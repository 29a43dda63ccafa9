//! The stamp's token service for programs in machines and pods, which reach nothing else of the host: discovery, keys and tokens. No pages for
//! people, who sign in where the ARM API is.
//!
//! Who asks for discovery wants one of two things. A library that gets tokens takes a document only if its issuer is at the address that it
//! asked: it is told that one. An API server that checks tokens has to be told who they say that they are of: it asks below [`ISSUERS`].
//!
//! Always true: who asks is a stranger, with a stranger's limits; how often somebody may guess is counted for the address that the fabric gave the
//! cluster.

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

/// What stands before the path of an issuer for those who check its tokens.
pub const ISSUERS: &str = "/issuer";
/// Forms are small.
const FORM_LIMIT: usize = 64 * 1024;

/// The token service, and how machines reach it.
pub struct TokenDoor {
    /// Who issues tokens.
    pub tokens: Arc<TokenService>,
    /// The hub's URL without a trailing slash.
    pub url: String,
}

/// The other end of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Answers what is none of the agents' paths.
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

/// A discovery document, with its issuer where it was asked for. Other answers as they are.
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
