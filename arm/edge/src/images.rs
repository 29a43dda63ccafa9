//! Requests for images of registries: passed on to `registry`, with their own errors and without a limit of a body's size.

use std::sync::Arc;

use axum::body::Body;
use base_connections::Place;
use http::{Method, StatusCode};
use registry::{Entrance, absent};

use crate::{
    Edge, answer,
    handle::{CORRELATION_ID, REQUEST_ID},
};

impl Edge {
    /// Processes a request for one of the registries' paths.
    pub(crate) async fn images(&self, request: http::Request<Body>) -> http::Response<Body> {
        let env = &self.inner.env;
        let started = env.clock.monotonic();
        let request_id = env.ids.uuid().to_string();
        let (parts, body) = request.into_parts();
        let caller = self.inner.caller(&parts);
        let place = parts.extensions.get::<Arc<Place>>().cloned();
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let entrance = Entrance {
            base_url: caller.base_url,
            address: caller.address,
            machine: None,
        };
        let (mut answer, who) = match self.inner.images.get() {
            Some(images) => {
                let request = http::Request::from_parts(parts, body);
                // Boxed: the future of every request would include its size otherwise.
                Box::pin(images.answer(request, &entrance)).await
            }
            None => (absent(), None),
        };
        if let (Some(place), Some(who)) = (place, &who) {
            // From here on the connection does not count as an unauthenticated one of its address.
            place.belongs_to(who);
        }
        answer::insert(&mut answer, Some(REQUEST_ID), &request_id);
        answer::insert(&mut answer, Some(CORRELATION_ID), &request_id);
        let status = answer.status();
        let stranger = status == StatusCode::UNAUTHORIZED && who.is_none();
        let told = if stranger {
            self.inner.strangers.note(env.clock.monotonic())
        } else {
            Some(0)
        };
        macro_rules! log_request {
            ($level:ident) => {
                tracing::$level!(
                    method = method.as_str(),
                    path,
                    status = status.as_u16(),
                    ms = u64::try_from((env.clock.monotonic() - started).as_millis()).unwrap_or(u64::MAX),
                    request_id,
                    address = entrance.address.map(tracing::field::display),
                    left_out = told.filter(|left_out| *left_out > 0),
                    principal = who.as_deref().unwrap_or(""),
                    "request for images"
                )
            };
        }
        // A pull is a dozen requests, which are not worth a log line each.
        let reads = matches!(method, Method::GET | Method::HEAD);
        match told {
            None => {}
            Some(_) if reads && !status.is_server_error() => log_request!(debug),
            Some(_) => log_request!(info),
        }
        answer
    }
}
