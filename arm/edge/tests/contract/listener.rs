//! The listener: real sockets on loopback, real TLS.

use std::{sync::Arc, time::Duration};

use arm_edge::{ServeError, ServerTls};
use base_tls::{CertificateError, ServedCertificate};
use identity::{EndpointCa, EndpointTls};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::TlsConnector;

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
        // A peer may end without close_notify; what was read is what counts.
        let _ = stream.read_to_string(&mut text).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(text.contains("x-ms-request-id"), "{text}");
    }
    // Too long a head, and something that is no TLS: each ends its own connection only.
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
    let ask = async |stream: &mut tokio_rustls::client::TlsStream<TcpStream>| {
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
    // The one from before is still there: it is the rest of the first answer, then the second.
    before
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut rest = String::new();
    let _ = before.read_to_string(&mut rest).await;
    assert!(rest.contains("HTTP/1.1 200"), "{rest}");
    server.abort();
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
