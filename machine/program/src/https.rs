//! HTTPS to one server with a known CA.

use std::{path::Path, sync::Arc, time::Duration};

use agent_protocol::{SEED_PATH, Seed};

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// Connection time-out: shorter than most waits, so that a dead host does not delay the next try.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection's buffers; most messages are a few hundred bytes.
const BUFFER: usize = 16 * 1024;

/// Time-outs of a request.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// A whole request with its answer. `None` for a streamed answer.
    pub whole: Option<Duration>,
    /// The connection.
    pub connect: Duration,
    /// The pause between two pieces of an answer.
    pub silence: Option<Duration>,
}

impl Bounds {
    /// For a request with a bounded answer.
    pub fn whole(bound: Duration) -> Self {
        Self {
            whole: Some(bound),
            connect: bound.min(CONNECT),
            silence: None,
        }
    }

    /// For a streamed answer, which may last as long as no pause in it is longer than this.
    pub fn stream(silence: Duration) -> Self {
        Self {
            whole: None,
            connect: CONNECT,
            silence: Some(silence),
        }
    }
}

/// The certificate and key that the agent of a machine has enrolled with.
const IDENTITY: [&str; 2] = [
    "/var/lib/landfall-agent/client.crt",
    "/var/lib/landfall-agent/client.key",
];

/// The URL of the service of the machine with this root, and a client with the identity of its agent's enrolment.
///
/// # Errors
/// A sentence that names the file: the machine has not enrolled yet, or its seed or key cannot be read.
pub fn service_of(root: &Path, bounds: Bounds) -> Result<(String, ureq::Agent), String> {
    let read = |path: &str| {
        let path = root.join(path.trim_start_matches('/'));
        std::fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let seed: Seed = serde_json::from_str(&read(SEED_PATH)?)
        .map_err(|error| format!("the seed cannot be read: {error}"))?;
    let [certificate, key] = IDENTITY;
    let shown = (read(certificate)?, read(key)?);
    let client = client(Some(&seed.ca), Some(&shown), bounds)
        .ok_or_else(|| "the agent's key cannot be read".to_owned())?;
    Ok((seed.service, client))
}

/// A client that trusts only this CA (`None`: no server) and presents this certificate (PEM certificate, PEM
/// key). Keeps one idle connection. HTTP error statuses are not errors. `None` when the key is invalid.
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
