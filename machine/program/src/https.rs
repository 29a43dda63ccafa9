//! HTTPS towards one server, whose CA is known.

use std::{sync::Arc, time::Duration};

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// For a connection to come about: shorter than most waits, so that a host that is gone does not hold up the next try.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection's buffers; most messages are a few hundred bytes.
const BUFFER: usize = 16 * 1024;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// A whole request, with its answer. `None` for an answer that goes on.
    pub whole: Option<Duration>,
    /// Until the connection is there.
    pub connect: Duration,
    /// Between two pieces of an answer.
    pub silence: Option<Duration>,
}

impl Bounds {
    /// A request with its answer.
    pub fn whole(bound: Duration) -> Self {
        Self {
            whole: Some(bound),
            connect: bound.min(CONNECT),
            silence: None,
        }
    }

    /// An answer that goes on for as long as no pause in it is longer than this.
    pub fn stream(silence: Duration) -> Self {
        Self {
            whole: None,
            connect: CONNECT,
            silence: Some(silence),
        }
    }
}

/// A client that trusts only this CA (none: nobody) and shows this certificate (PEM certificate, PEM key). Keeps one idle
/// connection. A status is no error. `None` when the key is not one.
pub fn client(ca: Option<&str>, identity: Option<&(String, String)>, bounds: Bounds) -> Option<ureq::Agent> {
    let certificates = |pem: &str| -> Vec<Certificate<'static>> {
        parse_pem(pem.as_bytes())
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect()
    };
    let roots = ca.map(certificates).unwrap_or_default();
    let shown = match identity {
        None => None,
        Some((certificate, key)) => Some(ClientCert::new_with_certs(
            &certificates(certificate),
            PrivateKey::from_pem(key.as_bytes()).ok()?,
        )),
    };
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(shown)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .proxy(None)
        .max_idle_connections(1)
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        .timeout_connect(Some(bounds.connect))
        .timeout_global(bounds.whole)
        .timeout_per_read(bounds.silence)
        .build();
    Some(config.into())
}
