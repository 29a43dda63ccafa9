//! An error of the token service, in the terms of OAuth and AADSTS codes.

use std::time::Duration;

use bytes::Bytes;
use control_store::StoreError;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::{Caller, TokenService, service::json_answer};

/// The device code is not yet approved.
pub(crate) const PENDING: u32 = 70_016;

/// The reason why no token is issued.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) error: &'static str,
    /// Number behind `AADSTS`.
    pub(crate) code: u32,
    pub(crate) text: String,
    pub(crate) retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(error: &'static str, code: u32, text: impl Into<String>) -> Self {
        let status = if error == "invalid_client" {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::BAD_REQUEST
        };
        Self {
            status,
            error,
            code,
            text: text.into(),
            retry_after: None,
        }
    }

    pub(crate) fn missing(field: &str) -> Self {
        Self::new(
            "invalid_request",
            900_144,
            format!("the request body needs the parameter '{field}'"),
        )
    }

    /// A person's sign-in that is no longer valid.
    pub(crate) fn stale(text: &str) -> Self {
        Self::new("invalid_grant", 700_082, text)
    }

    pub(crate) fn busy(wait: Duration) -> Self {
        let mut refusal = Self::new(
            "temporarily_unavailable",
            90_055,
            "too many sign-ins are under way from there; repeat later",
        );
        refusal.status = StatusCode::TOO_MANY_REQUESTS;
        refusal.retry_after = Some(wait);
        refusal
    }

    pub(crate) fn unavailable(text: &str) -> Self {
        let mut refusal = Self::new("temporarily_unavailable", 90_033, text);
        refusal.status = StatusCode::SERVICE_UNAVAILABLE;
        refusal
    }

    /// The store failed; the log has the cause.
    pub(crate) fn store(error: &StoreError) -> Self {
        tracing::error!(%error, "the token service cannot use its store");
        Self::unavailable("the token service cannot reach its store; repeat")
    }
}

impl TokenService {
    /// A response with a refusal, which is counted.
    pub(crate) fn refuse(&self, refusal: &Refusal, caller: &Caller) -> Response<Bytes> {
        self.note(refusal, caller);
        let trace = self.env.ids.uuid();
        let mut answer = json_answer(
            refusal.status,
            &json!({
                "error": refusal.error,
                "error_description": format!("AADSTS{}: {}. Trace ID: {trace}", refusal.code, refusal.text),
                "error_codes": [refusal.code],
                "timestamp": self.env.clock.now().to_string(),
                "trace_id": trace,
            }),
        );
        if let Some(wait) = refusal.retry_after {
            answer
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        }
        answer
    }

    /// A client that polls for a device code does so every few seconds and is not logged; other refusals are
    /// logged in numbers, so that no client can fill the log.
    pub(crate) fn note(&self, refusal: &Refusal, caller: &Caller) {
        if refusal.code != PENDING
            && let Some(count) = self.refusals.note(self.env.clock.monotonic())
        {
            let address = caller.address;
            tracing::info!(
                ?address,
                code = refusal.code,
                error = refusal.error,
                count,
                "refused tokens; this is the latest"
            );
        }
    }
}
