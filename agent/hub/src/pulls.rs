//! Images of registries for machines and pods, which reach no other port of the host.
//!
//! Always true: a request has the rights of its connection's machine, if that is one of ours, and else those of
//! its token.

use axum::{
    Extension,
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use registry::Entrance;

use crate::{
    Hub,
    caller::{Caller, refuse},
    tokens::Peer,
};

/// Answers a request for one of the registries' paths.
pub(crate) async fn answer(
    State(hub): State<Hub>,
    Extension(Peer(address)): Extension<Peer>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Response> {
    let door = hub
        .inner
        .registries
        .get()
        .ok_or_else(|| refuse(StatusCode::NOT_FOUND, "this stamp keeps no images"))?;
    let entrance = Entrance {
        base_url: door.url.clone(),
        address: Some(address),
        machine: hub.identify(&caller).await,
    };
    // Boxed: the futures of all other routes would include its size.
    let (answer, _) = Box::pin(door.registries.answer(request, &entrance)).await;
    Ok(answer)
}
