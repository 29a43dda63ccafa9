//! Those who mean harm: silent connections, heads and bodies that come by the byte, wrong passwords over many names.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName, pki_types::pem::PemObject as _};
use serde::Serialize;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::server::{AUDIENCE, Served};

/// Connections that say nothing.
const SILENT: usize = 1000;
/// Connections that say a byte now and then.
const SLOW: usize = 100;
/// Connections that guess passwords as fast as they are answered.
const GUESSING: usize = 8;

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Done {
    /// Connections that said nothing.
    silent: u64,
    /// Connections that came by the byte.
    slow: u64,
    /// Passwords that were guessed.
    guesses: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} silent connections, {} slow ones, {} wrong passwords",
            self.silent, self.slow, self.guesses
        )
    }
}

#[derive(Default)]
struct Counts {
    silent: AtomicU64,
    slow: AtomicU64,
    guesses: AtomicU64,
}

/// Attacks while something is measured.
pub(super) async fn during<T>(
    served: &Served,
    measured: impl Future<Output = Result<T>>,
) -> Result<(T, Done)> {
    let counts = Arc::new(Counts::default());
    let clock = base_env::Env::system().clock;
    let connector = connector(served)?;
    let mut attackers = JoinSet::new();
    for _ in 0..SILENT {
        let (address, counts, clock) = (served.address, Arc::clone(&counts), Arc::clone(&clock));
        attackers.spawn(async move {
            // One that is thrown out comes again, but not faster than a second.
            loop {
                if let Ok(stream) = TcpStream::connect(address).await {
                    counts.silent.fetch_add(1, Ordering::Relaxed);
                    let _ended = stream.readable().await;
                }
                clock.sleep(Duration::from_secs(1)).await;
            }
        });
    }
    for number in 0..SLOW {
        let (served, counts, connector, clock) = (
            served.clone(),
            Arc::clone(&counts),
            connector.clone(),
            Arc::clone(&clock),
        );
        attackers.spawn(async move {
            let said: &[u8] = if number % 2 == 0 {
                b"GET /subscriptions?api-version=2022-12-01 HTTP/1.1\r\nhost: h\r\nx: "
            } else {
                b"POST /adfs/oauth2/token HTTP/1.1\r\nhost: h\r\ncontent-length: 60000\r\n\r\n"
            };
            loop {
                if let Ok(mut stream) = connect(&connector, &served).await {
                    counts.slow.fetch_add(1, Ordering::Relaxed);
                    let mut sent = stream.write_all(said).await;
                    while sent.is_ok() {
                        clock.sleep(Duration::from_millis(500)).await;
                        sent = stream.write_all(b"a").await;
                    }
                }
                clock.sleep(Duration::from_secs(1)).await;
            }
        });
    }
    let http = crate::arm::http(served.ca.as_bytes())?;
    for guesser in 0..GUESSING {
        let (http, base, counts) = (http.clone(), super::base(served), Arc::clone(&counts));
        attackers.spawn(async move {
            let mut number = 0_u64;
            loop {
                number += 1;
                let form = format!(
                    "grant_type=password&client_id=x&username=user{guesser}-{number}&password=wrong{number}&scope={AUDIENCE}/.default"
                );
                let asked = http
                    .post(format!("{base}/adfs/oauth2/token"))
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(form);
                if asked.send().await.is_ok() {
                    counts.guesses.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    // The crowd has to be there first.
    clock.sleep(Duration::from_secs(2)).await;
    let measured = measured.await?;
    attackers.shutdown().await;
    let done = Done {
        silent: counts.silent.load(Ordering::Relaxed),
        slow: counts.slow.load(Ordering::Relaxed),
        guesses: counts.guesses.load(Ordering::Relaxed),
    };
    Ok((measured, done))
}

fn connector(served: &Served) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(
        served.ca.as_bytes(),
    )?)?;
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(client)))
}

async fn connect(connector: &TlsConnector, served: &Served) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(served.address).await?;
    Ok(connector
        .connect(ServerName::try_from("localhost")?, stream)
        .await?)
}
