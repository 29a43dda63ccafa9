//! The capacity of the ARM edge: requests for each second of its own processor time, and how long honest
//! clients wait, also during attacks.
//!
//! Requests go over TLS on loopback with a real token, one at a time on a connection. The service is a
//! separate process; a second of a core is a second of that process's user and system time, independent of
//! the clients' cost.

mod attack;
mod attacked;
mod server;

pub(crate) use attacked::run as attacked;

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use base_env::{Clock, Env};
use futures::StreamExt as _;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, Command},
};

use crate::{Edge, EdgeServe, arm, memory};
use server::{APPLICATION, AUDIENCE, SECRET, SUBSCRIPTION, Served};

const CLUSTERS: &str = "2026-06-01";
const GROUPS: &str = "2024-11-01";
const GROUP: &str = "bench";
/// Clusters of the list.
const LISTED: u32 = 1000;
/// Connections that send requests as fast as they are answered.
const CONNECTIONS: usize = 4;
/// Requests a second of honest clients where the wait is measured.
const RATE: u32 = 500;
/// Durable PUTs, one after the other.
const PUTS: u32 = 300;
/// The attackers of this bench: from the address of the honest client.
const CROWD: attack::Crowd = attack::Crowd {
    silent: 1000,
    heads: 50,
    bodies: 50,
    guessing: 8,
    addresses: 0,
};

/// The last line of output.
#[derive(Debug, Serialize)]
struct Seen {
    /// GETs of a cluster for each second of a core.
    get_rps_core: f64,
    /// GETs of a list of 1,000 clusters, all its pages, for each second of a core.
    list1000_rps_core: f64,
    /// At 500 GETs a second: 99 of 100 are answered within so many milliseconds.
    p99_ms_500rps: f64,
    /// A durable PUT, milliseconds, the median.
    put_ms: f64,
    /// As `p99_ms_500rps` at a tenth of the rate, while the edge is attacked.
    p99_ms_attacked: f64,
    /// The attackers' counters.
    attacks: attack::Done,
}

/// `bench edge-serve`.
pub(crate) async fn serve(options: &EdgeServe) -> Result<()> {
    server::run(&options.directory).await
}

/// `bench edge`.
#[expect(clippy::print_stdout, reason = "a bench's result is what it prints")]
pub(crate) async fn run(options: &Edge) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("landfall-bench-").tempdir()?;
    let service = Service::start(scratch.path()).await?;
    let client = Arc::new(Client::new(&service.served).await?);
    client.clusters(LISTED).await?;
    let time = Duration::from_secs(options.seconds);

    let one = client.cluster(0);
    let get_rps_core = service.rate(&client, &one, time).await?;
    println!("GET of a cluster                    {get_rps_core:9.0} a second of a core");
    let lists = service.lists(&client, time).await?;
    println!("GET of a list of {LISTED} clusters      {lists:9.1} a second of a core");
    let calm = client.waits(&one, RATE, time).await?;
    println!(
        "{RATE} GETs a second                  {:9.2} ms, 99 of 100",
        p99(calm.clone())
    );
    let put_ms = client.puts().await?;
    println!("a durable PUT                       {put_ms:9.2} ms, the median");
    let (attacked, attacks) =
        attack::during(&service.served, CROWD, client.waits(&one, RATE / 10, time)).await?;
    let p99_ms_attacked = p99(attacked);
    println!(
        "{} GETs a second while attacked      {p99_ms_attacked:9.2} ms, 99 of 100; {attacks}",
        RATE / 10
    );
    if options.json {
        let seen = Seen {
            get_rps_core,
            list1000_rps_core: lists,
            p99_ms_500rps: p99(calm),
            put_ms,
            p99_ms_attacked,
            attacks,
        };
        println!("{}", serde_json::to_string(&seen)?);
    }
    service.end().await
}

/// The service's process.
struct Service {
    process: Child,
    /// Closed, it ends.
    input: ChildStdin,
    pid: u32,
    served: Served,
}

impl Service {
    async fn start(directory: &Path) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("edge-serve")
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the service")?;
        let input = process.stdin.take().context("no standard input")?;
        let output = process.stdout.take().context("no standard output")?;
        let line = BufReader::new(output).lines().next_line().await?;
        let line = line.context("the service ended before it served")?;
        Ok(Self {
            pid: process.id().context("the service has ended")?,
            served: serde_json::from_str(&line)?,
            process,
            input,
        })
    }

    async fn end(mut self) -> Result<()> {
        drop(self.input);
        let status = self.process.wait().await?;
        ensure!(status.success(), "the service ended with {status}");
        Ok(())
    }

    fn cpu_s(&self) -> Result<f64> {
        memory::cpu_s(self.pid)
    }

    /// Requests to a path for each second of the service's processor time, on a few connections for so long.
    async fn rate(&self, client: &Arc<Client>, path: &str, time: Duration) -> Result<f64> {
        let before = self.cpu_s()?;
        let until = client.clock.monotonic() + time;
        let workers = (0..CONNECTIONS).map(|_| {
            let (client, path) = (Arc::clone(client), path.to_owned());
            tokio::spawn(async move {
                let mut count = 0_u32;
                while client.clock.monotonic() < until {
                    client.get(&path, CLUSTERS).await?;
                    count += 1;
                }
                anyhow::Ok(count)
            })
        });
        let mut count = 0;
        for worker in workers.collect::<Vec<_>>() {
            count += worker.await??;
        }
        Ok(f64::from(count) / (self.cpu_s()? - before))
    }

    /// Lists of all clusters, page by page, for each second of the service's processor time.
    async fn lists(&self, client: &Client, time: Duration) -> Result<f64> {
        let before = self.cpu_s()?;
        let until = client.clock.monotonic() + time;
        let mut count = 0_u32;
        while client.clock.monotonic() < until {
            let listed = client.list().await?;
            ensure!(listed == LISTED as usize, "{listed} clusters were listed");
            count += 1;
        }
        Ok(f64::from(count) / (self.cpu_s()? - before))
    }
}

/// An honest client.
struct Client {
    clock: Arc<dyn Clock>,
    http: reqwest::Client,
    base: String,
    token: String,
}

fn base(served: &Served) -> String {
    format!("https://{}", served.address)
}

impl Client {
    async fn new(served: &Served) -> Result<Self> {
        let http = arm::http(served.ca.as_bytes())?;
        let base = base(served);
        let token = arm::token(&http, &base, APPLICATION, SECRET, AUDIENCE).await?;
        Ok(Self {
            clock: Env::system().clock,
            http,
            base,
            token,
        })
    }

    fn cluster(&self, number: u32) -> String {
        format!(
            "{}/resourceGroups/{GROUP}/providers/Microsoft.ContainerService/managedClusters/c{number}",
            subscription()
        )
    }

    async fn get(&self, path: &str, version: &str) -> Result<bytes::Bytes> {
        let url = format!("{}{path}?api-version={version}", self.base);
        let answer = self.http.get(url).bearer_auth(&self.token).send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        ensure!(
            status.is_success(),
            "GET {path} answered {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(body)
    }

    async fn put(&self, path: &str, version: &str, body: &Value) -> Result<()> {
        let url = format!("{}{path}?api-version={version}", self.base);
        let asked = self.http.put(url).bearer_auth(&self.token).json(body);
        let answer = asked.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "PUT {path} answered {status}: {text}");
        Ok(())
    }

    async fn group(&self, number: u32) -> Result<()> {
        let path = format!("{}/resourceGroups/{GROUP}", subscription());
        let body = json!({ "location": "local", "tags": { "number": number.to_string() } });
        self.put(&path, GROUPS, &body).await
    }

    /// Has so many clusters.
    async fn clusters(&self, count: u32) -> Result<()> {
        self.group(0).await?;
        let puts = futures::stream::iter(0..count).map(|number| async move {
            let body = json!({
                "location": "local",
                "identity": { "type": "SystemAssigned" },
                "properties": {
                    "dnsPrefix": format!("c{number}"),
                    "agentPoolProfiles": [{ "name": "np1", "mode": "System", "count": 1, "vmSize": "Standard_B2s" }],
                },
            });
            self.put(&self.cluster(number), CLUSTERS, &body).await
        });
        let mut puts = puts.buffer_unordered(16);
        while let Some(done) = puts.next().await {
            done?;
        }
        // Until all clusters are complete, the service has other work.
        let deadline = self.clock.monotonic() + Duration::from_secs(300);
        for number in 0..count {
            let path = self.cluster(number);
            loop {
                let body: Value = serde_json::from_slice(&self.get(&path, CLUSTERS).await?)?;
                match body["properties"]["provisioningState"].as_str() {
                    Some("Succeeded") => break,
                    Some("Failed") => anyhow::bail!("c{number} has failed: {body}"),
                    _ => ensure!(
                        self.clock.monotonic() < deadline,
                        "c{number} is not there: {body}"
                    ),
                }
                self.clock.sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// How many clusters are listed.
    async fn list(&self) -> Result<usize> {
        let mut url = format!(
            "{}{}/providers/Microsoft.ContainerService/managedClusters?api-version={CLUSTERS}",
            self.base,
            subscription()
        );
        let mut listed = 0;
        loop {
            let answer = self.http.get(&url).bearer_auth(&self.token).send().await?;
            let page: Value = answer.error_for_status()?.json().await?;
            listed += page["value"].as_array().context("a list without a value")?.len();
            match page["nextLink"].as_str() {
                Some(next) => url = next.to_owned(),
                None => return Ok(listed),
            }
        }
    }

    /// Sends requests at a rate, independent of responses, for this long; gives the time of each response,
    /// milliseconds. Times count from when a request was due.
    async fn waits(self: &Arc<Self>, path: &str, rate: u32, time: Duration) -> Result<Vec<f64>> {
        let start = self.clock.monotonic();
        let count = (f64::from(rate) * time.as_secs_f64()) as u32;
        let asked = (0..count).map(|number| {
            let due = start + Duration::from_secs(1) * number / rate;
            let (client, path) = (Arc::clone(self), path.to_owned());
            tokio::spawn(async move {
                client
                    .clock
                    .sleep(due.saturating_sub(client.clock.monotonic()))
                    .await;
                client.get(&path, CLUSTERS).await?;
                anyhow::Ok((client.clock.monotonic() - due).as_secs_f64() * 1000.0)
            })
        });
        let mut waits = Vec::new();
        for asked in asked.collect::<Vec<_>>() {
            waits.push(asked.await??);
        }
        Ok(waits)
    }

    /// The median of some PUTs one after the other, milliseconds.
    async fn puts(&self) -> Result<f64> {
        let mut took = Vec::new();
        for number in 0..PUTS {
            let begun = self.clock.monotonic();
            self.group(number).await?;
            took.push((self.clock.monotonic() - begun).as_secs_f64() * 1000.0);
        }
        Ok(percentile(took, 50))
    }
}

fn subscription() -> String {
    format!("/subscriptions/{SUBSCRIPTION}")
}

/// The value that 99 of a hundred do not exceed.
pub(crate) fn p99(all: Vec<f64>) -> f64 {
    percentile(all, 99)
}

/// The value that so many of a hundred do not exceed; 0 of none.
fn percentile(mut all: Vec<f64>, percent: usize) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    let place = (all.len() * percent).div_ceil(100).saturating_sub(1);
    all.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_of_what_was_seen() {
        let all: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(all.clone(), 99), 198.0);
        assert_eq!(percentile(all, 50), 100.0);
        assert_eq!(percentile(vec![7.0], 99), 7.0);
        assert_eq!(percentile(Vec::new(), 99), 0.0);
    }
}
