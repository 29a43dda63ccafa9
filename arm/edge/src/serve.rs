//! The listener: TLS, time limits, a bounded number of connections, an orderly end.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::body::Body;
use base_tls::{CertificateError, ServedCertificate};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{Edge, handle::Peer};

/// More clients than this wait in the kernel's queue.
const CONNECTIONS: usize = 1024;
/// A TLS handshake has to be over after this.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The head of a request has to have arrived after this; also how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The head of a request has at most this size; hyper answers 431 otherwise.
const HEAD_BYTES: usize = 64 * 1024;
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
    /// Shows this certificate, and from its replacement on the new one; connections that are there go on.
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
    /// When the listener is of no use.
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
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let permit = Arc::clone(&permits).acquire_owned();
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                // Reaps finished connections, so that the set does not grow.
                Some(_) = connections.join_next() => continue,
                accepted = async { (permit.await, listener.accept().await) } => accepted,
            };
            match accepted {
                (Ok(permit), Ok((stream, peer))) => {
                    let (edge, acceptor, ended) = (self.clone(), acceptor.clone(), ended.clone());
                    connections.spawn(async move {
                        edge.connection(stream, peer, acceptor, ended).await;
                        drop(permit);
                    });
                }
                (_, Err(error)) => {
                    // Out of file handles, or a client that left: neither ends the service.
                    tracing::warn!(%error, "cannot accept a connection");
                    self.inner.env.clock.sleep(Duration::from_millis(100)).await;
                }
                (Err(_), _) => break,
            }
        }
        drop(listener);
        // Every receiver may be gone already: then there is nobody to tell.
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
        peer: SocketAddr,
        acceptor: Option<TlsAcceptor>,
        ended: watch::Receiver<bool>,
    ) {
        // Answers are small; waiting for more to send only costs time.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        match acceptor {
            None => self.http(stream, peer, ended).await,
            Some(acceptor) => match self
                .inner
                .env
                .clock
                .timeout(HANDSHAKE, acceptor.accept(stream))
                .await
            {
                Ok(Ok(stream)) => self.http(stream, peer, ended).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS"),
                Err(error) => tracing::debug!(%peer, %error, "no TLS"),
            },
        }
    }

    async fn http<S>(&self, stream: S, peer: SocketAddr, mut ended: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES)
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(HEAD_TIMEOUT)
            .max_concurrent_streams(64)
            .max_header_list_size(64 * 1024);
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let edge = self.clone();
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(Peer(peer.ip()));
                Ok::<_, Infallible>(edge.handle(request).await)
            }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let result = tokio::select! {
            result = connection.as_mut() => result,
            // An error means that the sender is gone, which is an end as well.
            () = async { let _ = ended.wait_for(|ended| *ended).await; } => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%peer, %error, "a connection ended early");
        }
    }
}
