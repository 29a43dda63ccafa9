//! The caller of a request: the machine named in the client certificate, admitted before the request's body
//! is read.

use agent_sessions::{Admitted, Refusal};
use axum::{
    Extension,
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

use crate::Hub;

/// The client certificate of a connection, if any.
#[derive(Clone)]
pub(crate) struct Caller(pub(crate) Option<Shown>);

/// The identity in the certificate.
#[derive(Clone)]
pub(crate) struct Shown {
    machine: String,
    /// SHA-256 of its key, hex.
    key: String,
}

impl Shown {
    /// Name and key of the leaf certificate. The chain was verified by TLS.
    pub(crate) fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
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
        Some(Self { machine, key })
    }

    #[cfg(test)]
    pub(crate) fn new(machine: &str, key: &str) -> Self {
        Self {
            machine: machine.to_owned(),
            key: key.to_owned(),
        }
    }
}

impl Hub {
    /// The caller's machine, if it is one of ours and not forgotten.
    pub(crate) async fn identify(&self, Caller(shown): &Caller) -> Option<String> {
        let Shown { machine, key } = shown.as_ref()?;
        let known = self.inner.sessions.identify(machine, key).await;
        known.is_ok().then(|| machine.clone())
    }

    pub(crate) async fn admit(&self, Caller(shown): &Caller) -> Result<Admitted, Response> {
        let Some(Shown { machine, key }) = shown else {
            return Err(refuse(StatusCode::UNAUTHORIZED, "no client certificate"));
        };
        let admitted = self.inner.sessions.admit(machine, key).await;
        admitted.map_err(|refusal| refused(machine, &refusal))
    }
}

/// Admits only requests of our machines; others are refused before their body is read.
pub(crate) async fn admitted(
    State(hub): State<Hub>,
    Extension(caller): Extension<Caller>,
    mut request: Request,
    next: Next,
) -> Result<Response, Response> {
    let machine = hub.admit(&caller).await?;
    request.extensions_mut().insert(machine);
    Ok(next.run(request).await)
}

/// The answer to a machine that is refused.
pub(crate) fn refused(machine: &str, refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::Token => StatusCode::UNAUTHORIZED,
        Refusal::Forgotten | Refusal::OtherKey => StatusCode::FORBIDDEN,
        Refusal::Records(error) => return fault(machine, error),
    };
    refuse(status, refusal.to_string())
}

pub(crate) fn refuse(status: StatusCode, why: impl Into<String>) -> Response {
    (status, why.into()).into_response()
}

pub(crate) fn fault(machine: &str, error: &dyn std::error::Error) -> Response {
    let source = error.source().map(ToString::to_string);
    tracing::error!(machine, %error, source, "an agent's request failed");
    refuse(
        StatusCode::SERVICE_UNAVAILABLE,
        "the records cannot be read; try again",
    )
}
