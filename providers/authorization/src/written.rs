//! Responses to writes, where ARM has other status codes than for most resources.

use arm_kernel::{Decision, Resource, Written};
use arm_wire::{Request, Response};
use http::StatusCode;

/// `status` with the written or deleted resource; 204 where nothing changed.
pub(crate) fn done<R: Resource>(written: &Written<R>, request: &Request, status: StatusCode) -> Response {
    match &written.decision {
        Decision::Write(change) => {
            let body = R::render(&written.state, Some(change), &request.path, &request.api_version);
            Response::with(status, body)
        }
        Decision::InProgress(_) | Decision::Unchanged => Response::empty(StatusCode::NO_CONTENT),
    }
}
