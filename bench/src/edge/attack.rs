//! Attackers: silent connections, heads and bodies that come by the byte, wrong passwords over many names.
//!
//! Always true: they have a separate thread, so that an honest client waits for the service and never for the
//! code of an attacker; a disconnected attacker comes again, but not faster than after a second; at the end
//! none of them is left.

use std::{
    fmt,
    net::Ipv4Addr,
    ops::AddAssign,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use base_env::{Clock, Env};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName, pki_types::pem::PemObject as _};
use serde::Serialize;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::server::{AUDIENCE, Served};
use crate::arm;

/// Names that passwords are guessed for.
const NAMES: u64 = 10_000;
/// The beginning of a request that never ends.
const HEAD: &[u8] = b"GET /subscriptions?api-version=2022-12-01 HTTP/1.1\r\nhost: h\r\nx: ";
const BODY: &[u8] = b"POST /adfs/oauth2/token HTTP/1.1\r\nhost: h\r\ncontent-length: 60000\r\n\r\n";
/// Between two bytes of those.
const PAUSE: Duration = Duration::from_millis(500);
/// Pause of a disconnected attacker.
const AGAIN: Duration = Duration::from_secs(1);

/// The numbers of concurrent attackers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Crowd {
    /// Silent connections.
    pub(super) silent: usize,
    /// Connections whose head comes by the byte.
    pub(super) heads: usize,
    /// Connections whose body comes by the byte.
    pub(super) bodies: usize,
    /// Connections that guess passwords as fast as they are answered.
    pub(super) guessing: usize,
    /// From how many addresses of loopback each kind comes; with none, from the one of honest clients.
    pub(super) addresses: u8,
}

/// The attackers' counters.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Done {
    /// Silent connections.
    silent: u64,
    /// Connections that came by the byte.
    slow: u64,
    /// Passwords that were guessed.
    guesses: u64,
    /// Connections of the first two kinds that the service ended.
    ended: u64,
    /// Guesses that were refused.
    refused: u64,
    /// Of those, guesses that were refused before a password was looked at.
    throttled: u64,
}

impl Done {
    /// Connections and guesses that were refused.
    pub(super) fn refused(&self) -> u64 {
        self.ended + self.refused
    }

    /// Passwords that were guessed.
    pub(super) fn guesses(&self) -> u64 {
        self.guesses
    }
}

impl AddAssign<&Self> for Done {
    fn add_assign(&mut self, more: &Self) {
        self.silent += more.silent;
        self.slow += more.slow;
        self.guesses += more.guesses;
        self.ended += more.ended;
        self.refused += more.refused;
        self.throttled += more.throttled;
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} silent connections, {} slow ones, {} wrong passwords; {} connections ended, {} guesses refused",
            self.silent, self.slow, self.guesses, self.ended, self.refused
        )
    }
}

#[derive(Default)]
struct Counts {
    silent: AtomicU64,
    slow: AtomicU64,
    /// Guesses that were begun: each has a unique number.
    begun: AtomicU64,
    guesses: AtomicU64,
    ended: AtomicU64,
    refused: AtomicU64,
    throttled: AtomicU64,
}

fn one_more(count: &AtomicU64) -> u64 {
    count.fetch_add(1, Ordering::Relaxed)
}

/// An attack that is under way.
pub(super) struct Attack {
    counts: Arc<Counts>,
    /// Dropped, the attackers end.
    end: oneshot::Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl Attack {
    /// Begins, and is under way some seconds later.
    pub(super) async fn begin(served: &Served, crowd: Crowd) -> Result<Self> {
        let attackers = Attackers::new(served)?;
        let counts = Arc::clone(&attackers.counts);
        let clock = Arc::clone(&attackers.clock);
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("attackers".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let _crowd = attackers.come(crowd)?;
                    // Its sender is gone when they are to end.
                    drop(ended.await);
                    anyhow::Ok(())
                })
            })
            .context("cannot start a thread for the attackers")?;
        // All attackers have to be connected first.
        clock.sleep(Duration::from_secs(2)).await;
        Ok(Self { counts, end, thread })
    }

    /// Passwords that were guessed so far.
    pub(super) fn guesses(&self) -> u64 {
        self.counts.guesses.load(Ordering::Relaxed)
    }

    /// Ends it.
    ///
    /// # Errors
    /// When the attackers could not begin, or one of them guessed right.
    pub(super) async fn end(self) -> Result<Done> {
        drop(self.end);
        let ended = tokio::task::spawn_blocking(move || self.thread.join()).await?;
        ended.map_err(|_| anyhow::anyhow!("the attackers panicked"))??;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let done = Done {
            silent: of(&self.counts.silent),
            slow: of(&self.counts.slow),
            guesses: of(&self.counts.guesses),
            ended: of(&self.counts.ended),
            refused: of(&self.counts.refused),
            throttled: of(&self.counts.throttled),
        };
        ensure!(
            done.guesses == done.refused,
            "of {} wrong passwords only {} were refused",
            done.guesses,
            done.refused
        );
        Ok(done)
    }
}

/// Runs attacks while a measurement is made.
pub(super) async fn during<T>(
    served: &Served,
    crowd: Crowd,
    measured: impl Future<Output = Result<T>>,
) -> Result<(T, Done)> {
    let attack = Attack::begin(served, crowd).await?;
    let measured = measured.await?;
    Ok((measured, attack.end().await?))
}

/// The shared state of all attackers.
#[derive(Clone)]
struct Attackers {
    served: Served,
    counts: Arc<Counts>,
    clock: Arc<dyn Clock>,
    connector: TlsConnector,
}

impl Attackers {
    fn new(served: &Served) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_slice(
            served.ca.as_bytes(),
        )?)?;
        let client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            served: served.clone(),
            counts: Arc::default(),
            clock: Env::system().clock,
            connector: TlsConnector::from(Arc::new(client)),
        })
    }

    /// Starts all of them. Dropping the result ends them.
    fn come(self, crowd: Crowd) -> Result<JoinSet<()>> {
        let mut all = JoinSet::new();
        for number in 0..crowd.silent {
            all.spawn(self.clone().silent(address(crowd, 0, number)));
        }
        let slow = [(crowd.heads, HEAD), (crowd.bodies, BODY)];
        for (kind, (count, said)) in (1..).zip(slow) {
            for number in 0..count {
                all.spawn(self.clone().slow(address(crowd, kind, number), said));
            }
        }
        for number in 0..crowd.guessing {
            let client = arm::builder(self.served.ca.as_bytes())?
                .local_address(std::net::IpAddr::from(address(crowd, 3, number)))
                .build()?;
            all.spawn(self.clone().guesses(client));
        }
        Ok(all)
    }

    async fn connect(&self, from: Ipv4Addr) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        Ok(socket.connect(self.served.address).await?)
    }

    async fn connect_tls(&self, from: Ipv4Addr) -> Result<TlsStream<TcpStream>> {
        let stream = self.connect(from).await?;
        Ok(self
            .connector
            .connect(ServerName::try_from("localhost")?, stream)
            .await?)
    }

    async fn silent(self, from: Ipv4Addr) {
        loop {
            if let Ok(stream) = self.connect(from).await {
                one_more(&self.counts.silent);
                // The service sends no data first: a readable connection has ended.
                let _ended = stream.readable().await;
                one_more(&self.counts.ended);
            }
            self.clock.sleep(AGAIN).await;
        }
    }

    async fn slow(self, from: Ipv4Addr, said: &[u8]) {
        loop {
            if let Ok(mut stream) = self.connect_tls(from).await {
                one_more(&self.counts.slow);
                let mut sent = stream.write_all(said).await;
                while sent.is_ok() {
                    // Without this the byte waits for more to come.
                    sent = stream.flush().await;
                    self.clock.sleep(PAUSE).await;
                    if sent.is_ok() {
                        sent = stream.write_all(b"a").await;
                    }
                }
                one_more(&self.counts.ended);
            }
            self.clock.sleep(AGAIN).await;
        }
    }

    async fn guesses(self, client: reqwest::Client) {
        loop {
            let form = guess(one_more(&self.counts.begun));
            let asked = client
                .post(format!("{}/adfs/oauth2/token", super::base(&self.served)))
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form)
                .send();
            let Ok(answer) = asked.await else {
                self.clock.sleep(AGAIN).await;
                continue;
            };
            let status = answer.status();
            one_more(&self.counts.guesses);
            if status.is_client_error() {
                one_more(&self.counts.refused);
            }
            if status == http::StatusCode::TOO_MANY_REQUESTS {
                one_more(&self.counts.throttled);
            }
            // Read to its end, its connection serves the next one.
            let _read = answer.bytes().await;
        }
    }
}

/// The source address of an attacker.
fn address(crowd: Crowd, kind: u8, number: usize) -> Ipv4Addr {
    if crowd.addresses == 0 {
        return Ipv4Addr::LOCALHOST;
    }
    let among = u8::try_from(number % usize::from(crowd.addresses)).unwrap_or_default();
    Ipv4Addr::new(127, 0, 1 + kind, 1 + among % 254)
}

/// The credentials of the guess with this number: name after name, and another password each time round.
fn guess(number: u64) -> String {
    let (name, password) = (number % NAMES, number / NAMES);
    format!(
        "grant_type=password&client_id=x&username=user{name}&password=wrong{password}&scope={AUDIENCE}/.default"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn guesses_go_over_all_names_and_none_is_made_twice() {
        let guesses: BTreeSet<String> = (0..3 * NAMES).map(guess).collect();
        assert_eq!(guesses.len() as u64, 3 * NAMES);
        let first = guesses
            .iter()
            .filter(|form| form.contains("username=user0&"))
            .count();
        assert_eq!(first, 3);
    }

    #[test]
    fn kinds_come_from_addresses_of_their_own_and_none_from_that_of_honest_clients() {
        let crowd = Crowd {
            addresses: 8,
            ..Crowd::default()
        };
        let of = |kind: u8| -> BTreeSet<Ipv4Addr> {
            (0..100).map(|number| address(crowd, kind, number)).collect()
        };
        let all: BTreeSet<_> = (0..4).flat_map(of).collect();
        assert_eq!((of(0).len(), all.len()), (8, 32));
        assert!(
            all.iter()
                .all(|address| address.is_loopback() && *address != Ipv4Addr::LOCALHOST)
        );
        let beside = Crowd::default();
        assert_eq!(address(beside, 2, 7), Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn what_was_done_adds_up() {
        let one = Done {
            silent: 1,
            slow: 2,
            guesses: 3,
            ended: 4,
            refused: 3,
            throttled: 2,
        };
        let mut two = one.clone();
        two += &one;
        assert_eq!((two.refused(), two.guesses()), (14, 6));
    }
}
