//! HTTPS towards agents: the listener, its bounds and its time limits.
//!
//! Always true: HTTP/1.1 over TLS 1.3 only; each connection has a place among [`Connections`] from its first byte on and gives
//! it back at its end; nothing that a peer does not do is waited for without a bound.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{
    CaError, Hub, Limits,
    caller::{Caller, Shown},
    connections::{Connections, Place},
};

/// A TLS handshake takes no longer, or nobody is there.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Of a stranger, who can only enrol: until the first byte and the whole head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// …and the whole connection.
const STRANGER: Duration = Duration::from_secs(60);
/// Of a machine, likewise from one request to the next: longer than the pause between two reports.
const IDLE: Duration = Duration::from_secs(6 * 60);
/// The head of a request has at most this size.
const HEAD_BYTES: usize = 16 * 1024;
/// What was sent and is not acknowledged for so long is never read.
const UNREAD: u32 = 60_000;
/// Machines that fall silent together are looked for together.
const SILENCE_STEP: Duration = Duration::from_millis(500);

impl Hub {
    /// Serves agents until `shutdown` completes. `addresses` are those the listener is reached at.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub async fn serve(
        &self,
        listener: TcpListener,
        addresses: &[IpAddr],
        limits: Limits,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), CaError> {
        let acceptor = TlsAcceptor::from(Arc::new(self.tls(addresses)?));
        let router = self.router();
        let connections = Connections::new(limits);
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
                Ok((stream, peer)) => {
                    let (place, evicted) = connections.open(peer.ip());
                    let (hub, acceptor, router) = (self.clone(), acceptor.clone(), router.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = hub.connection(stream, &place, &acceptor, router) => {}
                            // Its sender was dropped.
                            _ = evicted => tracing::debug!(%peer, "a connection gave its place to another"),
                        }
                    });
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
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    async fn connection(&self, stream: TcpStream, place: &Place, acceptor: &TlsAcceptor, router: Router) {
        // Small messages, each waited for.
        let _unsupported = stream.set_nodelay(true);
        let _unsupported = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD);
        let clock = &self.inner.env.clock;
        let Ok(Ok(stream)) = clock.timeout(HANDSHAKE, acceptor.accept(stream)).await else {
            return;
        };
        let caller = Caller(stream.get_ref().1.peer_certificates().and_then(Shown::of));
        // A certificate alone is no merit: a machine that was removed still has one.
        let machine = self.identify(&caller).await.ok();
        if let Some(machine) = &machine {
            place.belongs_to(machine);
        }
        let service = TowerToHyperService::new(router.layer(Extension(caller)));
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(if machine.is_some() { IDLE } else { HEAD })
            .max_buf_size(HEAD_BYTES);
        let served = builder.serve_connection(TokioIo::new(stream), service);
        let ended = match machine {
            Some(_) => served.await,
            None => clock.timeout(STRANGER, served).await.unwrap_or(Ok(())),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an agent's connection ended");
        }
    }
}
