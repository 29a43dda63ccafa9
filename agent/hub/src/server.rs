//! HTTPS towards agents.

use std::{net::IpAddr, sync::Arc, time::Duration};

use agent_protocol::{EnrollAnswer, EnrollRequest, Report, ReportAnswer};
use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{CaError, Hub, authority::SigningRequest, backup};

const ENROLL_LIMIT: usize = 64 * 1024;
const REPORT_LIMIT: usize = 1024 * 1024;
const LOG_LIMIT: usize = 16 * 1024 * 1024;
/// A TLS handshake and the head of a request take no longer, or nobody is there.
const PATIENCE: Duration = Duration::from_secs(15);
/// Machines that fall silent together are looked for together.
const SILENCE_STEP: Duration = Duration::from_millis(500);
/// The longest wait for a configuration that an agent may ask for, seconds.
const LONGEST_WAIT: u64 = 120;

/// Who asks: the common name of the client certificate, if one was shown.
#[derive(Clone)]
pub(crate) struct Caller(Option<Shown>);

/// What the certificate says.
#[derive(Clone)]
struct Shown {
    machine: String,
    /// SHA-256 of its key, hex.
    key: String,
}

#[cfg(test)]
impl Caller {
    pub(crate) fn shown(machine: &str, key: &str) -> Self {
        Self(Some(Shown {
            machine: machine.to_owned(),
            key: key.to_owned(),
        }))
    }
}

impl Hub {
    /// Serves agents until `shutdown` completes. `addresses` are those the listener is reached at.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub async fn serve(
        &self,
        listener: TcpListener,
        addresses: &[IpAddr],
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), CaError> {
        let acceptor = TlsAcceptor::from(Arc::new(self.tls(addresses)?));
        let router = self.router();
        tokio::pin!(shutdown);
        let silence = self.watch_silence();
        tokio::pin!(silence);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => return Ok(()),
                never = &mut silence => match never {},
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (hub, acceptor, router) = (self.clone(), acceptor.clone(), router.clone());
                    tokio::spawn(async move { hub.connection(stream, &acceptor, router).await });
                }
                Err(error) => {
                    // Out of file handles, most likely: give those that are open a chance to end.
                    tracing::warn!(%error, "cannot accept an agent's connection");
                    self.inner.env.clock.sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// One timer for all machines: tells of those that fell silent.
    async fn watch_silence(&self) -> std::convert::Infallible {
        let clock = &self.inner.env.clock;
        loop {
            let now = clock.monotonic();
            let next = self.inner.sessions.note_silence(now);
            clock.sleep(next.saturating_sub(now).max(SILENCE_STEP)).await;
        }
    }

    fn tls(&self, addresses: &[IpAddr]) -> Result<ServerConfig, CaError> {
        let unreadable = |_| {
            CaError::Tls(rustls::Error::General(
                "a certificate just made cannot be read".into(),
            ))
        };
        let now = self.inner.env.clock.now();
        let identity = self.inner.ca.server(addresses, now)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        let ca =
            CertificateDer::from_pem_slice(self.inner.ca.certificate_pem().as_bytes()).map_err(unreadable)?;
        roots.add(ca)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| CaError::Tls(rustls::Error::General(error.to_string())))?;
        let chain =
            vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).map_err(unreadable)?];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(unreadable)?;
        Ok(ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?)
    }

    async fn connection(&self, stream: TcpStream, acceptor: &TlsAcceptor, router: Router) {
        // Small messages, each waited for.
        let _unsupported = stream.set_nodelay(true);
        let handshake = self
            .inner
            .env
            .clock
            .timeout(PATIENCE, acceptor.accept(stream))
            .await;
        let Ok(Ok(stream)) = handshake else { return };
        let caller = Caller(stream.get_ref().1.peer_certificates().and_then(shown));
        let service = TowerToHyperService::new(router.layer(Extension(caller)));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(10 * 60))
            .max_buf_size(16 * 1024);
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "an agent's connection ended");
        }
    }

    fn router(&self) -> Router {
        Router::new()
            .route(
                "/agent/v1/enroll",
                post(enroll).layer(DefaultBodyLimit::max(ENROLL_LIMIT)),
            )
            .route("/agent/v1/config", get(config))
            .route(
                "/agent/v1/report",
                post(report).layer(DefaultBodyLimit::max(REPORT_LIMIT)),
            )
            .route(
                "/agent/v1/logs/{request}",
                post(logs).layer(DefaultBodyLimit::max(LOG_LIMIT)),
            )
            .route("/agent/v1/backup/{cluster}", get(backup::list))
            .route(
                "/agent/v1/backup/{cluster}/{object}",
                get(backup::get)
                    .put(backup::put)
                    .layer(DefaultBodyLimit::disable()),
            )
            .with_state(self.clone())
    }

    /// The machine that asks, if it is one of ours and not forgotten.
    pub(crate) async fn admit(&self, caller: &Caller) -> Result<String, Response> {
        let Shown { machine, key } = caller
            .0
            .clone()
            .ok_or_else(|| refuse(StatusCode::UNAUTHORIZED, "no client certificate"))?;
        let inner = &self.inner;
        let known = inner
            .directory
            .token(&machine)
            .await
            .map_err(|error| fault(&machine, &error))?;
        let Some(known) = known else {
            return Err(refuse(StatusCode::FORBIDDEN, "there is no such machine"));
        };
        // A machine that comes anew under an old name has a key of its own; the certificate of before is not its.
        if known.enrolled_key.as_ref() != Some(&key) {
            return Err(refuse(
                StatusCode::FORBIDDEN,
                "the certificate is not the enrolled one",
            ));
        }
        if inner.sessions.hear(&machine, inner.env.clock.monotonic()) {
            inner
                .directory
                .token_used(&machine)
                .await
                .map_err(|error| fault(&machine, &error))?;
            // Not before: what could not be written is tried again with the next request.
            inner.sessions.token_spent(&machine);
        }
        Ok(machine)
    }
}

/// Name and key of the leaf that was shown. The chain was verified by TLS.
fn shown(chain: &[CertificateDer<'_>]) -> Option<Shown> {
    use x509_parser::prelude::FromDer as _;
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(chain.first()?).ok()?;
    let machine = leaf
        .subject()
        .iter_common_name()
        .next()?
        .as_str()
        .ok()?
        .to_owned();
    let key = hex::encode(Sha256::digest(&leaf.public_key().subject_public_key.data));
    Some(Shown { machine, key })
}

pub(crate) fn refuse(status: StatusCode, why: &'static str) -> Response {
    (status, why).into_response()
}

pub(crate) fn fault(machine: &str, error: &dyn std::error::Error) -> Response {
    let source = error.source().map(ToString::to_string);
    tracing::error!(machine, %error, source, "an agent's request failed");
    refuse(
        StatusCode::SERVICE_UNAVAILABLE,
        "the records cannot be read; try again",
    )
}

async fn enroll(
    State(hub): State<Hub>,
    Json(request): Json<EnrollRequest>,
) -> Result<Json<EnrollAnswer>, Response> {
    let inner = &hub.inner;
    let machine = request.machine;
    let denied = || refuse(StatusCode::UNAUTHORIZED, "the token does not hold");
    let state = inner
        .directory
        .token(&machine)
        .await
        .map_err(|error| fault(&machine, &error))?
        .ok_or_else(denied)?;
    let hash = hex::encode(Sha256::digest(request.token.as_bytes()));
    let same =
        aws_lc_rs::constant_time::verify_slices_are_equal(hash.as_bytes(), state.token_hash.as_bytes());
    if same.is_err() {
        tracing::warn!(machine, "an enrolment with a wrong token was refused");
        return Err(denied());
    }
    let csr = SigningRequest::parse(&request.csr)
        .map_err(|_| refuse(StatusCode::BAD_REQUEST, "the signing request cannot be read"))?;
    let bound = inner
        .directory
        .bind_key(&machine, &csr.key_hash())
        .await
        .map_err(|error| fault(&machine, &error))?;
    if !bound {
        tracing::warn!(machine, "an enrolment with a used token was refused");
        return Err(denied());
    }
    let certificate = inner
        .ca
        .sign(&csr, &machine, inner.env.clock.now())
        .map_err(|error| fault(&machine, &error))?;
    tracing::debug!(machine, "enrolled");
    Ok(Json(EnrollAnswer { certificate }))
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait: u64,
    #[serde(default)]
    level: u32,
}

async fn config(
    State(hub): State<Hub>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Response> {
    let machine = hub.admit(&caller).await?;
    let (mut config, mut nudge) = hub.inner.sessions.listen(&machine);
    let wait = Duration::from_secs(wanted.wait.min(LONGEST_WAIT));
    let newer = async {
        let found = config.wait_for(|config| {
            config
                .as_ref()
                .is_some_and(|config| config.generation > wanted.after && config.level <= wanted.level)
        });
        // The sender goes when the machine is forgotten: then there is nothing to say.
        found.await.ok().and_then(|config| config.clone())
    };
    // The agent reports when its wait ends early, and is told of the wish then.
    let nudged = async {
        if !hub.inner.sessions.has_wishes(&machine) {
            let _forgotten = nudge.changed().await;
        }
    };
    let clock = &hub.inner.env.clock;
    let answer = clock
        .timeout(wait, async {
            tokio::select! {
                config = newer => config,
                () = nudged => None,
            }
        })
        .await;
    Ok(match answer {
        Ok(Some(config)) => Json(&*config).into_response(),
        Ok(None) if hub.inner.sessions.has_wishes(&machine) => {
            (StatusCode::NO_CONTENT, [("landfall-report", "now")]).into_response()
        }
        _ => StatusCode::NO_CONTENT.into_response(),
    })
}

async fn report(
    State(hub): State<Hub>,
    Extension(caller): Extension<Caller>,
    Json(report): Json<Report>,
) -> Result<Json<ReportAnswer>, Response> {
    let machine = hub.admit(&caller).await?;
    let logs = hub.inner.sessions.accept(&machine, report);
    Ok(Json(ReportAnswer { logs }))
}

async fn logs(
    State(hub): State<Hub>,
    Extension(caller): Extension<Caller>,
    Path(request): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Response> {
    let machine = hub.admit(&caller).await?;
    hub.inner
        .sessions
        .answer_log(&machine, &request, String::from_utf8_lossy(&body).into_owned());
    Ok(StatusCode::NO_CONTENT)
}
