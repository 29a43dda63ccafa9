//! Load generators: short requests over HTTP/1.1, as fast as they are answered or at a rate.
//!
//! A client uses as little processor time as possible, because it shares the host's processors with the
//! server: its own cost is in both figures, and would make a ratio look better than it is.

use std::{net::SocketAddr, ops::Range, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use base_env::Clock;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

/// Concurrent connections.
const CONNECTIONS: u32 = 8;
/// The most new connections of one measurement, for each concurrent client: a used address and port is free
/// again a minute later, and there are some ten thousands.
const MOST_NEW: u32 = 250;
/// Requests at a rate begin this long after the clients are ready.
const READY: Duration = Duration::from_millis(200);
/// No measurement takes longer than it should by more than this.
const OVERTIME: Duration = Duration::from_secs(30);

/// How requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Over connections that are kept.
    Kept,
    /// Each on a new connection.
    New,
}

/// A connection.
struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::with_capacity(1024),
        })
    }

    /// Sends a request; gives the place of the response's body in the received bytes.
    async fn ask(&mut self, request: &[u8]) -> Result<Range<usize>> {
        self.stream.write_all(request).await?;
        self.received.clear();
        loop {
            if let Some(body) = body(&self.received)? {
                return Ok(body);
            }
            let more = self.stream.read_buf(&mut self.received).await?;
            ensure!(more > 0, "the connection ended before the answer did");
        }
    }

    /// Waits until the server has ended the connection: the side that ends it first keeps its port for a
    /// minute.
    async fn ended(&mut self) -> Result<()> {
        while self.stream.read_buf(&mut self.received).await? > 0 {}
        Ok(())
    }
}

/// The place of a response's body in the received bytes; `None`: it is incomplete.
///
/// # Errors
/// For any other response than the expected one.
fn body(received: &[u8]) -> Result<Option<Range<usize>>> {
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&received[..end]).context("a head that is no text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let length: usize = lines
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .context("an answer without a length")?
        .parse()?;
    let body = end + 4..end + 4 + length;
    if received.len() < body.end {
        return Ok(None);
    }
    ensure!(
        status == "HTTP/1.1 200 OK",
        "{status}: {}",
        String::from_utf8_lossy(&received[body])
    );
    Ok(Some(body))
}

fn request(target: &str, over: Over) -> Vec<u8> {
    let close = match over {
        Over::Kept => "",
        Over::New => "Connection: close\r\n",
    };
    format!("GET {target} HTTP/1.1\r\nHost: bench\r\n{close}\r\n").into_bytes()
}

/// Sends one request on a new connection; gives the body of the response.
pub(super) async fn get(address: SocketAddr, target: &str) -> Result<String> {
    let mut connection = Connection::open(address).await?;
    let body = connection.ask(&request(target, Over::New)).await?;
    Ok(String::from_utf8_lossy(&connection.received[body]).into_owned())
}

/// One of the concurrent clients.
struct Client {
    address: SocketAddr,
    over: Over,
    request: Vec<u8>,
    kept: Option<Connection>,
}

impl Client {
    fn new(address: SocketAddr, over: Over) -> Self {
        Self {
            address,
            over,
            request: request("/", over),
            kept: None,
        }
    }

    async fn ask(&mut self) -> Result<()> {
        let mut connection = match self.kept.take() {
            Some(connection) => connection,
            None => Connection::open(self.address).await?,
        };
        let _body = connection.ask(&self.request).await?;
        match self.over {
            Over::Kept => self.kept = Some(connection),
            Over::New => connection.ended().await?,
        }
        Ok(())
    }

    /// Sends requests until the time is over, each after the response before; gives their number.
    async fn fast(mut self, clock: Arc<dyn Clock>, until: Duration) -> Result<u32> {
        let mut count = 0;
        while clock.monotonic() < until && (self.over == Over::Kept || count < MOST_NEW) {
            self.ask().await?;
            count += 1;
        }
        Ok(count)
    }

    /// Sends this many requests at this pace from a moment on; gives the time of each response, milliseconds.
    async fn paced(
        mut self,
        clock: Arc<dyn Clock>,
        from: Duration,
        pace: Duration,
        count: u32,
    ) -> Result<Vec<f64>> {
        // A kept connection is opened before.
        self.ask().await?;
        let mut waits = Vec::new();
        for number in 0..count {
            let due = from + pace * number;
            let early = due.saturating_sub(clock.monotonic());
            // A late timer is not the network's fault. A late previous response is.
            let begun = if early.is_zero() {
                due
            } else {
                clock.sleep(early).await;
                clock.monotonic()
            };
            self.ask().await?;
            waits.push(clock.monotonic().saturating_sub(begun).as_secs_f64() * 1000.0);
        }
        Ok(waits)
    }
}

/// Requests a second, as fast as they are answered, for so long.
pub(super) async fn rate(
    clock: &Arc<dyn Clock>,
    address: SocketAddr,
    over: Over,
    time: Duration,
) -> Result<f64> {
    let begun = clock.monotonic();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| tokio::spawn(Client::new(address, over).fast(Arc::clone(clock), begun + time)))
        .collect();
    let counts = all(clock, time, clients).await?;
    let took = clock.monotonic() - begun;
    Ok(f64::from(counts.iter().sum::<u32>()) / took.as_secs_f64())
}

/// The time of each response, milliseconds, at this many requests a second for this long, independent of
/// earlier responses.
pub(super) async fn waits(
    clock: &Arc<dyn Clock>,
    address: SocketAddr,
    over: Over,
    rate: u32,
    time: Duration,
) -> Result<Vec<f64>> {
    let between = Duration::from_secs(1) / rate;
    let pace = between * CONNECTIONS;
    let count = turns(time, pace);
    let begun = clock.monotonic() + READY;
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let client = Client::new(address, over);
            tokio::spawn(client.paced(Arc::clone(clock), begun + between * number, pace, count))
        })
        .collect();
    Ok(all(clock, time, clients).await?.concat())
}

/// How often one at this pace has its turn.
fn turns(time: Duration, pace: Duration) -> u32 {
    u32::try_from(time.as_nanos() / pace.as_nanos()).unwrap_or(u32::MAX)
}

/// The results of all tasks. One that fails, or hangs, fails all.
async fn all<T>(
    clock: &Arc<dyn Clock>,
    time: Duration,
    clients: Vec<JoinHandle<Result<T>>>,
) -> Result<Vec<T>> {
    let seen = async {
        let mut seen = Vec::new();
        for client in clients {
            seen.push(client.await??);
        }
        anyhow::Ok(seen)
    };
    clock
        .timeout(time + OVERTIME, seen)
        .await
        .context("requests hang")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Type: text/plain\r\n\r\nyes";
        for some in 0..whole.len() {
            assert_eq!(body(&whole[..some]).unwrap(), None);
        }
        let found = body(whole).unwrap().unwrap();
        assert_eq!(&whole[found], b"yes");
    }

    #[test]
    fn an_answer_that_is_an_error_says_why() {
        let said = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 9\r\n\r\ndisk full";
        let error = body(said).unwrap_err().to_string();
        assert!(error.contains("500") && error.contains("disk full"), "{error}");
        body(b"HTTP/1.1 200 OK\r\n\r\n").unwrap_err();
    }

    #[test]
    fn only_a_connection_of_its_own_is_to_be_closed() {
        let of = |over| String::from_utf8(request("/", over)).unwrap();
        assert_eq!(of(Over::Kept), "GET / HTTP/1.1\r\nHost: bench\r\n\r\n");
        assert!(of(Over::New).contains("Connection: close\r\n"));
    }

    #[test]
    fn all_turns_lie_within_the_time() {
        assert_eq!(turns(Duration::from_secs(3), Duration::from_millis(8)), 375);
        assert_eq!(turns(Duration::from_millis(7), Duration::from_millis(8)), 0);
    }
}
