//! Sends signed requests, and repeats them after transient failures.

use std::{io, sync::Arc, time::Duration};

use instant_xml::FromXml;
use rusty_s3::{Method, S3Action};
use ureq::{
    Body,
    http::{Response, StatusCode},
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

use crate::Timing;

/// The time-out of a connection attempt.
const CONNECT: Duration = Duration::from_secs(5);
/// The time-out of the answer's head, and of each further piece of a body. A whole body has none.
const SILENCE: Duration = Duration::from_secs(60);
/// The validity of a signature: it covers the repetitions of a request, and clock differences.
const VALID: Duration = Duration::from_secs(15 * 60);
/// The number of attempts.
const ATTEMPTS: u32 = 4;
/// The pause before the second attempt; each further one is four times as long.
const PAUSE: Duration = Duration::from_millis(200);
/// The largest error answer that is read, bytes.
const LARGEST_ERROR: u64 = 16 * 1024;

pub(crate) struct Client {
    http: ureq::Agent,
    timing: Timing,
}

impl Client {
    pub(crate) fn new(ca: Option<&str>, timing: Timing) -> io::Result<Self> {
        let roots: Vec<Certificate<'static>> = parse_pem(ca.unwrap_or_default().as_bytes())
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if ca.is_some() && roots.is_empty() {
            return Err(crate::invalid("the CA file contains no certificate"));
        }
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            // A signature is valid for one address.
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .build();
        Ok(Self {
            http: config.into(),
            timing,
        })
    }

    /// Sends a request until it is answered; transient failures are retried.
    pub(crate) fn send<'a>(
        &self,
        action: &impl S3Action<'a>,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response<Body>> {
        let mut attempt = 0;
        loop {
            let answer = self.once(action, headers, body);
            attempt += 1;
            let passing = match &answer {
                Ok(answer) => is_passing(answer.status()),
                Err(_) => true,
            };
            if !passing || attempt == ATTEMPTS {
                return answer;
            }
            tracing::debug!(attempt, "a request to the object store is repeated");
            self.pause(attempt);
        }
    }

    /// Waits before the next attempt; `false` after the last one.
    pub(crate) fn pause(&self, attempts: u32) -> bool {
        let again = attempts < ATTEMPTS;
        if again {
            (self.timing.pause)(PAUSE * 4_u32.pow(attempts.saturating_sub(1)));
        }
        again
    }

    #[cfg(test)]
    pub(crate) fn bounds(&self) -> ureq::config::Timeouts {
        self.http.config().timeouts()
    }

    fn once<'a, A: S3Action<'a>>(
        &self,
        action: &A,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response<Body>> {
        let url = action.sign_with_time(VALID, &(self.timing.now)());
        let method = match A::METHOD {
            Method::Head => "HEAD",
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
        };
        let mut request = ureq::http::Request::builder().method(method).uri(url.as_str());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let built = |error: ureq::http::Error| io::Error::other(error.to_string());
        let answer = match method {
            "PUT" | "POST" => self.http.run(request.body(body).map_err(built)?),
            _ => self.http.run(request.body(()).map_err(built)?),
        };
        answer.map_err(|error| error.into_io())
    }
}

fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || status == StatusCode::TOO_MANY_REQUESTS
}

/// The answer if it has one of these statuses, else the server's error.
pub(crate) fn expect(answer: Response<Body>, wanted: &[StatusCode]) -> io::Result<Response<Body>> {
    if wanted.contains(&answer.status()) {
        return Ok(answer);
    }
    let status = answer.status();
    // The reason is optional: an unreadable error answer counts as empty.
    let text = text(answer, LARGEST_ERROR).unwrap_or_default();
    Err(refusal(status, &text))
}

/// The error in an error answer. S3 also sends one with status 200, when it fails late.
pub(crate) fn refusal(status: StatusCode, text: &str) -> io::Error {
    let said = instant_xml::from_str::<ErrorAnswer>(text).ok();
    let code = said
        .as_ref()
        .and_then(|said| said.code.as_deref())
        .unwrap_or_default();
    let message = said
        .as_ref()
        .and_then(|said| said.message.as_deref())
        .unwrap_or_default();
    let kind = match status {
        StatusCode::NOT_FOUND => io::ErrorKind::NotFound,
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    let said = format!("the object store answers {status} {code} {message}");
    io::Error::new(kind, said.trim_end().to_owned())
}

#[derive(FromXml)]
#[xml(rename = "Error")]
struct ErrorAnswer {
    #[xml(rename = "Code")]
    code: Option<String>,
    #[xml(rename = "Message")]
    message: Option<String>,
}

/// A body as text.
pub(crate) fn text(mut answer: Response<Body>, limit: u64) -> io::Result<String> {
    let body = answer.body_mut().with_config().limit(limit);
    body.read_to_string().map_err(|error| error.into_io())
}

pub(crate) fn unreadable(error: instant_xml::Error) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the object store's answer cannot be read: {error}"),
    )
}
