//! The HTTPS listener for agents, its limits and time-outs.
//!
//! Always true: HTTP/1.1 over TLS 1.3 only; each connection holds a place among [`Connections`] from its
//! first byte to its end; every wait for a peer has a time-out.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{Extension, Router};
use base_connections::{Connections, Limits, Place};
use base_tls::ServedCertificate;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{
    CaError, Hub,
    caller::{Caller, Shown},
    tokens::Peer,
};

/// The time-out of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For a peer without a certificate, which can only enrol: the time-out of the first byte and of the whole
/// request head…
const HEAD: Duration = Duration::from_secs(10);
/// …and of the whole connection.
const STRANGER: Duration = Duration::from_secs(60);
/// For a machine: the same time-out, also between two requests; longer than the pause between two reports.
const IDLE: Duration = Duration::from_secs(6 * 60);
/// The size limit of a request head.
const HEAD_BYTES: usize = 16 * 1024;
/// Sent data that is not acknowledged for this long ends the connection, milliseconds.
const UNREAD: u32 = 60_000;
/// The service's certificate is valid for two years and is replaced after this time.
const RENEW_AFTER: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The connection limits for agents, in a process with this limit of open files: a part is reserved for the
/// rest of the service.
pub fn limits_for_open_files(open_files: u64) -> Limits {
    /// For the ARM API's listener, the store, disks, and child programs.
    const RESERVE: usize = 2048;
    const FEWEST: usize = 256;
    const MOST: usize = 16_384;
    let open_files = usize::try_from(open_files).unwrap_or(usize::MAX);
    Limits {
        total: open_files.saturating_sub(RESERVE).clamp(FEWEST, MOST),
        per_peer: 64,
        // An agent needs two connections, its backup two more, and twice as many while another agent takes
        // over; a node pulls three layers of an image at a time, and several images.
        per_known: 48,
    }
}

impl Hub {
    /// Serves agents until `shutdown` completes. `addresses` are those under which the listener is reached.
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
        let certificate = self.certificate(addresses)?;
        let acceptor = TlsAcceptor::from(Arc::new(self.tls(&certificate)?));
        let renewal = self.renew(addresses, &certificate);
        tokio::pin!(renewal);
        let router = self.router();
        let connections = Connections::new(limits);
        tokio::pin!(shutdown);
        let silence = self.inner.sessions.watch_silence();
        tokio::pin!(silence);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => return Ok(()),
                never = &mut silence => match never {},
                never = &mut renewal => match never {},
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (place, evicted) = connections.open(peer.ip());
                    let (hub, acceptor, router) = (self.clone(), acceptor.clone(), router.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = hub.connection(stream, peer.ip(), &place, &acceptor, router) => {}
                            // Its sender was dropped.
                            _ = evicted => tracing::debug!(%peer, "a connection gave its place to another"),
                        }
                    });
                }
                Err(error) => {
                    // Most likely out of file descriptors: give open connections a chance to end.
                    tracing::warn!(%error, "cannot accept an agent's connection");
                    self.inner.env.clock.sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// A certificate for the service, signed by the CA that agents trust.
    fn certificate(&self, addresses: &[IpAddr]) -> Result<ServedCertificate, CaError> {
        let identity = self.inner.ca.server(addresses, self.inner.env.clock.now())?;
        Ok(ServedCertificate::from_pem(&identity.certificate, &identity.key)?)
    }

    /// Replaces the certificate long before it expires.
    async fn renew(&self, addresses: &[IpAddr], served: &ServedCertificate) -> std::convert::Infallible {
        let clock = &self.inner.env.clock;
        loop {
            clock.sleep(RENEW_AFTER).await;
            let renewed = self
                .inner
                .ca
                .server(addresses, clock.now())
                .and_then(|identity| Ok(served.replace(&identity.certificate, &identity.key)?));
            match renewed {
                Ok(()) => tracing::info!("the certificate towards agents is renewed"),
                Err(error) => tracing::error!(%error, "the certificate towards agents cannot be renewed"),
            }
        }
    }

    fn tls(&self, certificate: &ServedCertificate) -> Result<ServerConfig, CaError> {
        let unreadable = |_| {
            CaError::Tls(rustls::Error::General(
                "a certificate just made cannot be read".into(),
            ))
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        let ca =
            CertificateDer::from_pem_slice(self.inner.ca.certificate_pem().as_bytes()).map_err(unreadable)?;
        roots.add(ca)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| CaError::Tls(rustls::Error::General(error.to_string())))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(certificate.clone()));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    async fn connection(
        &self,
        stream: TcpStream,
        peer: IpAddr,
        place: &Place,
        acceptor: &TlsAcceptor,
        router: Router,
    ) {
        // Small messages, each followed by a wait for its answer.
        let _unsupported = stream.set_nodelay(true);
        let _unsupported = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD);
        let clock = &self.inner.env.clock;
        let Ok(Ok(stream)) = clock.timeout(HANDSHAKE, acceptor.accept(stream)).await else {
            return;
        };
        let caller = Caller(stream.get_ref().1.peer_certificates().and_then(Shown::of));
        // A certificate alone does not prove membership: a removed machine still has one.
        let machine = self.identify(&caller).await;
        if let Some(machine) = &machine {
            place.belongs_to(machine);
        }
        let service = TowerToHyperService::new(router.layer(Extension(Peer(peer))).layer(Extension(caller)));
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

#[cfg(test)]
mod tests {
    use agent_sessions::{Sessions, StoreDirectory};
    use base_env::Env;
    use storage_redb::MemoryStore;

    use super::*;
    use crate::AgentCa;

    #[test]
    fn a_reserve_of_open_files_is_kept() {
        let total = |open_files| limits_for_open_files(open_files).total;
        assert_eq!(total(1024), 256);
        assert_eq!(total(8192), 8192 - 2048);
        assert_eq!(total(u64::MAX), 16_384);
    }

    #[tokio::test(start_paused = true)]
    async fn the_certificate_is_renewed_without_a_restart() {
        let env = Env::simulated(1);
        let ca = AgentCa::generate(env.clock.now()).unwrap();
        let directory = Arc::new(StoreDirectory::new(Arc::new(MemoryStore::new())));
        let hub = Hub::new(env.clone(), ca, Sessions::new(env.clone(), directory));
        let addresses = ["100.64.0.1".parse().unwrap()];
        let served = hub.certificate(&addresses).unwrap();
        let first = served.leaf();
        let renewing = tokio::spawn({
            let (hub, served) = (hub.clone(), served.clone());
            async move { hub.renew(&addresses, &served).await }
        });
        env.clock.sleep(RENEW_AFTER / 2).await;
        assert_eq!(served.leaf(), first);
        env.clock.sleep(RENEW_AFTER).await;
        assert_ne!(served.leaf(), first);
        renewing.abort();
    }
}
