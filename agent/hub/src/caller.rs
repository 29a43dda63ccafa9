//! Who asks: the machine that a client certificate names, admitted before anything of its request's body is read.

use axum::{
    Extension,
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

use crate::{DirectoryError, Hub};

/// What a connection has shown: the client certificate, if there was one.
#[derive(Clone)]
pub(crate) struct Caller(pub(crate) Option<Shown>);

/// What the certificate says.
#[derive(Clone)]
pub(crate) struct Shown {
    machine: String,
    /// SHA-256 of its key, hex.
    key: String,
}

/// The machine that asks: one of ours, with the key that it enrolled.
#[derive(Clone)]
pub(crate) struct Admitted(pub(crate) String);

impl Shown {
    /// Name and key of the leaf that was shown. The chain was verified by TLS.
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

/// Why somebody is not admitted.
pub(crate) enum Refusal {
    Stranger,
    Forgotten,
    /// A machine that comes anew under an old name has a key of its own; the certificate of before is not its.
    OtherKey,
    Records(String, DirectoryError),
}

impl Refusal {
    pub(crate) fn answer(&self) -> Response {
        match self {
            Self::Stranger => refuse(StatusCode::UNAUTHORIZED, "no client certificate"),
            Self::Forgotten => refuse(StatusCode::FORBIDDEN, "there is no such machine"),
            Self::OtherKey => refuse(StatusCode::FORBIDDEN, "the certificate is not the enrolled one"),
            Self::Records(machine, error) => fault(machine, error),
        }
    }
}

impl Hub {
    /// The machine that this is, if it is one of ours and not forgotten. One that is being removed is ours until its record is
    /// gone: its pods are moved meanwhile, and its logs are wanted most when that does not get on.
    pub(crate) async fn identify(&self, caller: &Caller) -> Result<String, Refusal> {
        let Shown { machine, key } = caller.0.clone().ok_or(Refusal::Stranger)?;
        let known = self.inner.directory.token(&machine).await;
        let known = known.map_err(|error| Refusal::Records(machine.clone(), error))?;
        match known {
            None => Err(Refusal::Forgotten),
            Some(known) if known.enrolled_key.as_ref() != Some(&key) => Err(Refusal::OtherKey),
            Some(_) => Ok(machine),
        }
    }

    /// As [`Hub::identify`], and notes that the machine was heard.
    pub(crate) async fn admit(&self, caller: &Caller) -> Result<Admitted, Response> {
        let machine = self.identify(caller).await.map_err(|refusal| refusal.answer())?;
        let inner = &self.inner;
        if inner.sessions.hear(&machine, inner.env.clock.monotonic()) {
            inner
                .directory
                .token_used(&machine)
                .await
                .map_err(|error| fault(&machine, &error))?;
            // Not before: what could not be written is tried again with the next request.
            inner.sessions.token_spent(&machine);
        }
        Ok(Admitted(machine))
    }
}

/// Lets only machines of ours pass; the body has not been read when others are refused.
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
