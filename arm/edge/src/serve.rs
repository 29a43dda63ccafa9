//! The listener: TLS, a bounded number of connections in total and per client, an orderly shutdown.

use std::{io, pin::pin, sync::Arc, time::Duration};

use base_connections::{Connections, Limits};
use base_tls::{CertificateError, ServedCertificate};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    Edge,
    connection::{Caller, Protocol},
};

/// Limits of simultaneous connections. Beyond them, the oldest connection of the peer with the most is
/// closed.
pub const LIMITS: Limits = Limits {
    total: 1024,
    per_peer: 128,
    per_known: 256,
};
/// Time limit of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A connection whose peer acknowledges no data for this many milliseconds is closed.
const UNREAD: u32 = 60_000;
/// How long requests may still run when the edge ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the edge cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Certificate and key are not PEM, or do not fit.
    #[error("the certificate of the endpoint cannot be used; remove it and start again to make a new one")]
    Certificate(#[from] CertificateError),
    /// The library refused.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The listener has no address.
    #[error("the listener of the endpoint is gone")]
    Listener(#[source] io::Error),
}

/// TLS of the listener.
#[derive(Clone)]
pub struct ServerTls(Arc<ServerConfig>);

impl ServerTls {
    /// Serves this certificate, and after its replacement the new one; open connections continue.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn new(certificate: &ServedCertificate) -> Result<Self, ServeError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(certificate.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// A certificate that stays, from PEM, the leaf first.
    ///
    /// # Errors
    /// When the texts are no PEM or do not belong together.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, ServeError> {
        Self::new(&ServedCertificate::from_pem(cert_pem, key_pem)?)
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerTls")
    }
}

impl Edge {
    /// Serves until `shutdown`, then lets running requests end for some seconds. Plain HTTP without `tls`.
    ///
    /// # Errors
    /// When the listener is unusable.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<ServerTls>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let address = listener.local_addr().map_err(ServeError::Listener)?;
        tracing::info!(%address, tls = tls.is_some(), "serving ARM");
        let acceptor = tls.map(|tls| TlsAcceptor::from(tls.0));
        let (ending, ended) = watch::channel(false);
        let places = Connections::new(LIMITS);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                // Reaps finished connections, so that the set does not grow.
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (place, evicted) = places.open(peer.ip());
                    let (edge, acceptor, ended) = (self.clone(), acceptor.clone(), ended.clone());
                    connections.spawn(async move {
                        let caller = Caller {
                            peer,
                            place: Arc::new(place),
                            tls: acceptor.is_some(),
                        };
                        tokio::select! {
                            () = edge.connection(stream, &caller, acceptor, ended) => {}
                            // Its sender was dropped.
                            _ = evicted => tracing::debug!(%peer, "a connection gave its place to another"),
                        }
                    });
                }
                Err(error) => {
                    // Out of file handles, or a client that left: neither ends the service.
                    tracing::warn!(%error, "cannot accept a connection");
                    self.inner.env.clock.sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        // All receivers may be gone already.
        let _ = ending.send(true);
        let rest = async { while connections.join_next().await.is_some() {} };
        if self
            .inner
            .env
            .clock
            .timeout(SHUTDOWN_TIMEOUT, rest)
            .await
            .is_err()
        {
            tracing::warn!("some requests did not end in time");
        }
        Ok(())
    }

    async fn connection(
        &self,
        stream: TcpStream,
        caller: &Caller,
        acceptor: Option<TlsAcceptor>,
        ended: watch::Receiver<bool>,
    ) {
        let peer = caller.peer;
        // Responses are small; Nagle's algorithm would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD) {
            tracing::debug!(%error, "cannot set TCP_USER_TIMEOUT");
        }
        let Some(acceptor) = acceptor else {
            return self.http(stream, Protocol::Http1, caller, ended).await;
        };
        let clock = &self.inner.env.clock;
        let stream = match clock.timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "no TLS"),
            Err(error) => return tracing::debug!(%peer, %error, "no TLS"),
        };
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        };
        self.http(stream, protocol, caller, ended).await;
    }
}
