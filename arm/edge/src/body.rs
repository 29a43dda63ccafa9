//! Bodies: bounded, JSON objects.

use std::time::Duration;

use arm_wire::{ArmError, ErrorCode};
use axum::body::Body;
use base_env::Env;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{HeaderMap, Method, header};
use serde_json::Value;

/// The largest body, as in ARM.
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
/// A body that is too large is still read up to here, so that the client gets to see the answer instead of a reset.
const DRAIN_BYTES: usize = 64 * 1024 * 1024;
/// Time limit for the arrival of a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read(env: &Env, body: Body, limit: usize) -> Result<Bytes, ArmError> {
    let whole = async {
        let mut stream = body.into_data_stream();
        let (mut bytes, mut seen) = (BytesMut::new(), 0_usize);
        while let Some(chunk) = stream.next().await {
            let chunk =
                chunk.map_err(|_| ArmError::new(ErrorCode::BAD_REQUEST, "The body did not arrive whole."))?;
            seen = seen.saturating_add(chunk.len());
            if seen <= limit {
                bytes.extend_from_slice(&chunk);
            } else if seen > DRAIN_BYTES {
                break;
            }
        }
        if seen > limit {
            return Err(ArmError::new(
                ErrorCode::REQUEST_CONTENT_TOO_LARGE,
                format!("The request content is larger than the {limit} bytes that are allowed."),
            ));
        }
        Ok(bytes.freeze())
    };
    env.clock.timeout(BODY_TIMEOUT, whole).await.map_err(|_| {
        ArmError::new(
            ErrorCode::BAD_REQUEST,
            format!("The body did not arrive within {} s.", BODY_TIMEOUT.as_secs()),
        )
    })?
}

/// How many bytes a request says that its body has; without saying so, none. More than are ever read count as that many.
pub(crate) fn declared(headers: &HeaderMap) -> u64 {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    length.unwrap_or(0).min(DRAIN_BYTES as u64)
}

/// The body of an ARM request: an object for PUT and PATCH, an object or empty for POST, ignored otherwise.
pub(crate) async fn json(
    env: &Env,
    method: &Method,
    headers: &HeaderMap,
    body: Body,
) -> Result<Value, ArmError> {
    if !matches!(*method, Method::PUT | Method::PATCH | Method::POST) {
        return Ok(Value::Null);
    }
    let bytes = read(env, body, MAX_BODY_BYTES).await?;
    if bytes.is_empty() {
        return if *method == Method::POST {
            Ok(Value::Null)
        } else {
            Err(ArmError::new(
                ErrorCode::INVALID_REQUEST_CONTENT,
                "The request needs a JSON object as its content.",
            ))
        };
    }
    media_type(headers)?;
    parse(&bytes)
}

fn media_type(headers: &HeaderMap) -> Result<(), ArmError> {
    let unsupported = |message: String| {
        Err(ArmError::new(ErrorCode::UNSUPPORTED_MEDIA_TYPE, message).target("Content-Type"))
    };
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return unsupported("The content is encoded; send it as it is.".to_owned());
    }
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let kind = kind.to_str().unwrap_or_default();
    let essence = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if matches!(
        essence.as_str(),
        "application/json" | "text/json" | "application/merge-patch+json"
    ) {
        Ok(())
    } else {
        unsupported("The content type is not supported; send 'application/json'.".to_owned())
    }
}

fn parse(bytes: &[u8]) -> Result<Value, ArmError> {
    // Some editors write a byte order mark at the start of a file that is then sent unchanged.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let wrong = |message| Err(ArmError::new(ErrorCode::INVALID_REQUEST_CONTENT, message));
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) if value.is_object() => Ok(value),
        Ok(value) => {
            let kind = match value {
                Value::Null => "null",
                Value::Bool(_) => "a boolean",
                Value::Number(_) => "a number",
                Value::String(_) => "a string",
                Value::Array(_) | Value::Object(_) => "an array",
            };
            wrong(format!(
                "The request content has to be a JSON object; it is {kind}."
            ))
        }
        // The text of the error ends in "at line L column C".
        Err(error) => wrong(format!("The request content is not valid JSON: {error}.")),
    }
}
