//! The listener: real sockets on loopback, real TLS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arm_edge::{LIMITS, ServeError, ServerTls};
use base_tls::{CertificateError, ServedCertificate};
use identity::{EndpointCa, EndpointTls};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::fixture::Stamp;

#[tokio::test]
async fn it_serves_tls_and_ends_in_order() {
    let stamp = Stamp::new().await;
    // Certificates are checked against the real clock here, so their time has to be real.
    let tls = EndpointTls::generate(
        &["arm.example.test".to_owned()],
        &[],
        base_env::Env::system().clock.now(),
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(stamp.edge.clone().serve(
        listener,
        Some(ServerTls::from_pem(&tls.cert_pem, &tls.key_pem).unwrap()),
        async move {
            let _ = stopped.await;
        },
    ));

    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(tls.ca_pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(client));
    for name in ["arm.example.test", "localhost", "127.0.0.1"] {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = connector
            .connect(ServerName::try_from(name).unwrap(), stream)
            .await
            .unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        // A peer may end without close_notify; the bytes read so far count.
        let _ = stream.read_to_string(&mut text).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(text.contains("x-ms-request-id"), "{text}");
    }
    // Too long a head, and bytes that are not TLS: each ends only its own connection.
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = connector
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
        .unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 431"), "{text}");
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes).await;
    assert!(!bytes.starts_with(b"HTTP"));

    stop.send(()).unwrap();
    let ended = stamp.env.clock.timeout(Duration::from_secs(15), server).await;
    ended.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_ends_no_other() {
    let stamp = Stamp::new().await;
    let now = base_env::Env::system().clock.now();
    let ca = EndpointCa::generate(now).unwrap();
    let (first, second) = (ca.issue(&[], &[], now).unwrap(), ca.issue(&[], &[], now).unwrap());
    let served = ServedCertificate::from_pem(&first.cert_pem, &first.key_pem).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = ServerTls::new(&served).unwrap();
    let server = tokio::spawn(
        stamp
            .edge
            .clone()
            .serve(listener, Some(tls), std::future::pending()),
    );
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A resumed session shows no certificate.
    client.resumption = rustls::client::Resumption::disabled();
    let connector = TlsConnector::from(Arc::new(client));
    let connect = async || {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        (stream, shown)
    };
    let ask = async |stream: &mut TlsStream<TcpStream>| {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n")
            .await
            .unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
    };
    let (mut before, shown_before) = connect().await;
    ask(&mut before).await;
    served.replace(&second.cert_pem, &second.key_pem).unwrap();
    let (mut after, shown_after) = connect().await;
    ask(&mut after).await;
    assert_ne!(shown_before, shown_after);
    // The earlier connection still works: it delivers the rest of the first response, then the second.
    before
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut rest = String::new();
    let _ = before.read_to_string(&mut rest).await;
    assert!(rest.contains("HTTP/1.1 200"), "{rest}");
    server.abort();
}

/// The first bytes of an HTTP/2 client: the preface, and empty settings.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A stamp that listens, and how to connect to it.
pub(crate) struct Listening {
    pub(crate) stamp: Stamp,
    address: SocketAddr,
    roots: RootCertStore,
    server: JoinHandle<Result<(), ServeError>>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Listening {
    pub(crate) async fn new() -> Self {
        let stamp = Stamp::new().await;
        let now = base_env::Env::system().clock.now();
        let tls = EndpointTls::generate(&[], &[], now).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = ServerTls::from_pem(&tls.cert_pem, &tls.key_pem).unwrap();
        let edge = stamp.edge.clone();
        let server = tokio::spawn(edge.serve(listener, Some(served), std::future::pending()));
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(tls.ca_pem.as_bytes()).unwrap())
            .unwrap();
        Self {
            stamp,
            address,
            roots,
            server,
        }
    }

    pub(crate) async fn connect(&self, protocol: &str) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        client.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        connector.connect(name, stream).await.unwrap()
    }

    /// Requests the list of subscriptions, as the application.
    async fn ask(&self, stream: &mut TlsStream<TcpStream>) -> String {
        let head = format!(
            "GET /subscriptions?api-version=2022-12-01 HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {}\r\n\r\n",
            self.stamp.token
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }
}

#[tokio::test]
async fn who_says_nothing_or_only_half_is_not_waited_for() {
    let listening = Listening::new().await;
    let cases: [(&str, &[u8]); 5] = [
        ("http/1.1", b""),
        ("http/1.1", b"GET /healthz HTT"),
        ("http/1.1", b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n"),
        ("h2", b""),
        ("h2", PREFACE),
    ];
    let mut streams = Vec::new();
    for (protocol, said) in cases {
        let mut stream = listening.connect(protocol).await;
        stream.write_all(said).await.unwrap();
        streams.push(stream);
    }
    // From here on the clock advances as soon as all tasks are idle.
    tokio::time::pause();
    let clock = &listening.stamp.env.clock;
    for (stream, case) in streams.iter_mut().zip(cases) {
        // Until the other end has ended it, with or without a farewell.
        let mut rest = Vec::new();
        let ended = clock.timeout(Duration::from_secs(200), stream.read_to_end(&mut rest));
        assert!(ended.await.is_ok(), "{case:?} is still there");
    }
}

#[tokio::test]
async fn strangers_do_not_push_out_who_is_known() {
    let listening = Listening::new().await;
    let mut honest = listening.connect("http/1.1").await;
    let answer = listening.ask(&mut honest).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("strict-transport-security: max-age="), "{answer}");
    // More connections than permitted from one address, all of them silent.
    let mut crowd = Vec::new();
    for _ in 0..LIMITS.per_peer + 10 {
        crowd.push(TcpStream::connect(listening.address).await.unwrap());
    }
    // The oldest of them is gone…
    let mut rest = Vec::new();
    let _reset_or_end = crowd[0].read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    // …and a connection that has shown a token is still there, and served.
    let answer = listening.ask(&mut honest).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn what_is_no_certificate_is_refused() {
    assert!(matches!(
        ServerTls::from_pem("", "x"),
        Err(ServeError::Certificate(CertificateError::Pem("key", _)))
    ));
    let one = EndpointTls::generate(&[], &[], "2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
    let two = EndpointTls::generate(&[], &[], "2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
    assert!(matches!(
        ServerTls::from_pem(&one.cert_pem, &two.key_pem),
        Err(ServeError::Certificate(CertificateError::Pair(_)))
    ));
}
