//! The listener for Prometheus (`--metrics-listen`): one path, over TLS, for who has the token.
//!
//! Always true: nothing is told without the token, which is compared in constant time, not even whether there is a path; each connection has one request
//! and a bound on every wait; so many at the same time ([`AT_A_TIME`]), and more are closed.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};
use base_env::Env;
use base_tls::ServedCertificate;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use service::operator::Operator;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;

use crate::problem::Problem;

/// The file of secrets with the token.
pub(crate) const TOKEN: &str = "metrics-token";
/// The only path.
const PATH: &str = "/metrics";
/// Connections at the same time.
const AT_A_TIME: usize = 16;
/// Bound of a handshake, and of a request's head.
const FIRST: Duration = Duration::from_secs(10);
/// Bound of a connection as a whole.
const WHOLE: Duration = Duration::from_secs(60);
/// After a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens at an address.
pub(super) async fn listen(address: SocketAddr, stamp: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Problem::new(
            format!("cannot listen for Prometheus at {address}"),
            format!(
                "choose another address: landfall up --name {stamp} --metrics-listen 127.0.0.1:{}, or none",
                address.port().saturating_add(1)
            ),
        )
        .because(error)
        .into()
    })
}

/// What the listener serves.
#[derive(Clone)]
pub(super) struct Door {
    operator: Arc<Operator>,
    token: Arc<str>,
    tls: TlsAcceptor,
    env: Env,
}

impl Door {
    /// Shows this certificate, and lets in who has this token.
    pub(super) fn new(
        env: &Env,
        operator: Arc<Operator>,
        certificate: &ServedCertificate,
        token: &str,
    ) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("cannot set up TLS for Prometheus")?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(certificate.clone()));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            operator,
            token: token.into(),
            tls: TlsAcceptor::from(Arc::new(config)),
            env: env.clone(),
        })
    }

    /// Serves until `stop` is done.
    pub(super) async fn serve(
        &self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<()> {
        let address = listener
            .local_addr()
            .context("the listener for Prometheus is gone")?;
        tracing::info!(%address, "serving metrics");
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    self.env.clock.sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tracing::warn!(%peer, "too many connections for metrics at the same time");
                continue;
            };
            let door = self.clone();
            tokio::spawn(async move {
                let clock = Arc::clone(&door.env.clock);
                if let Err(elapsed) = clock.timeout(WHOLE, Box::pin(door.connection(stream))).await {
                    tracing::debug!(%peer, %elapsed, "a connection for metrics was closed");
                }
                drop(place);
            });
        }
    }

    async fn connection(&self, stream: TcpStream) {
        let stream = match self.env.clock.timeout(FIRST, self.tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "no TLS for metrics"),
            Err(error) => return tracing::debug!(%error, "no TLS for metrics"),
        };
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let door = self.clone();
            async move {
                let (parts, _) = request.into_parts();
                let answer = door.answer(&parts.method, parts.uri.path(), &parts.headers).await;
                Ok::<_, Infallible>(answer)
            }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(FIRST)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection for metrics ended early");
        }
    }

    async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> axum::http::Response<Body> {
        if !admits(&self.token, headers) {
            let mut answer = text(
                StatusCode::UNAUTHORIZED,
                "the bearer token is missing or wrong\n".to_owned(),
            );
            answer
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return answer;
        }
        if *method != Method::GET || path != PATH {
            return text(StatusCode::NOT_FOUND, format!("there is GET {PATH} alone\n"));
        }
        page(&self.operator).await
    }
}

/// The page, as an answer.
pub(crate) async fn page(operator: &Operator) -> axum::http::Response<Body> {
    match operator.scrape().await {
        Ok(page) => {
            let mut answer = text(StatusCode::OK, page);
            let kind = HeaderValue::from_static(base_metrics::CONTENT_TYPE);
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            answer
        }
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be read");
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
        }
    }
}

fn text(status: StatusCode, text: String) -> axum::http::Response<Body> {
    let mut answer = axum::http::Response::new(Body::from(text));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// Whether a request has the token.
fn admits(token: &str, headers: &HeaderMap) -> bool {
    let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let given = given.and_then(|given| {
        let (scheme, token) = given.split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
    });
    // An empty token is none: it must not let everybody in.
    !token.is_empty() && given.is_some_and(|given| verify_slices_are_equal(given, token.as_bytes()).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_lets_in() {
        let with = |value: &'static str| {
            HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))])
        };
        assert!(admits("abc", &with("Bearer abc")));
        assert!(admits("abc", &with("bearer abc")));
        for wrong in [
            "",
            "abc",
            "Bearer",
            "Bearer ",
            "Bearer ab",
            "Bearer abcd",
            "Bearer  abc",
            "Basic abc",
        ] {
            assert!(!admits("abc", &with(wrong)), "{wrong:?}");
        }
        assert!(!admits("abc", &HeaderMap::new()));
        assert!(!admits("", &with("Bearer ")));
    }
}
