//! How long honest clients wait during attacks: none, each kind of attack alone, and all together.
//!
//! Always true: the attack goes on while honest clients are measured; a failed honest request is counted and
//! printed, and is in no figure.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

use super::{
    CLUSTERS, Client, Service,
    attack::{Attack, Crowd, Done},
    p99, percentile,
};
use crate::{Attack as Options, arm};

/// Requests a second of all honest clients together.
const RATE: u32 = 100;
/// One in this many requests uses a new connection.
const OWN: u32 = 10;
/// The stamp's clusters.
const THERE: u32 = 10;
/// Passwords that have to be guessed while it is measured.
const GUESSES: u64 = 100_000;
/// The longest time of an attack, even with few guesses.
const MOST: Duration = Duration::from_secs(60);

/// The addresses that each kind comes from: none uses up the share of one address, all together use up all places.
const ADDRESSES: u8 = 8;
const NOBODY: Crowd = Crowd {
    silent: 0,
    heads: 0,
    bodies: 0,
    guessing: 0,
    addresses: ADDRESSES,
};
const IDLE: Crowd = Crowd {
    silent: 1000,
    ..NOBODY
};
const SLOW: Crowd = Crowd {
    heads: 500,
    bodies: 500,
    ..NOBODY
};
const GUESSING: Crowd = Crowd {
    guessing: 8,
    ..NOBODY
};
const ALL: Crowd = Crowd {
    silent: IDLE.silent,
    heads: SLOW.heads,
    bodies: SLOW.bodies,
    guessing: GUESSING.guessing,
    addresses: ADDRESSES,
};

/// The attacks: their titles, and their names for programs.
const ATTACKS: [(&str, &str, Crowd); 5] = [
    ("nobody: the floor", "floor", NOBODY),
    ("1,000 idle connections", "idle", IDLE),
    ("500 slow heads, 500 slow bodies", "slow", SLOW),
    ("100,000 wrong passwords", "passwords", GUESSING),
    ("all of these", "all", ALL),
];

/// The last line of output.
#[derive(Debug, Serialize)]
struct Seen {
    /// For each attack: 99 of 100 honest requests were answered within so many milliseconds.
    p99_ms: BTreeMap<&'static str, f64>,
    /// Honest requests without a response, or with a wrong one.
    failed: u64,
    /// Passwords that were guessed.
    guesses: u64,
    /// Connections that the service ended and guesses that it refused.
    refused: u64,
}

/// How honest clients fared.
#[derive(Debug, Default)]
struct Waits {
    /// Times of the answered requests, milliseconds.
    answered: Vec<f64>,
    failed: u64,
    /// The error of the first failure.
    why: Option<String>,
}

/// `bench attack`.
#[expect(clippy::print_stdout, reason = "a bench's result is what it prints")]
pub(crate) async fn run(options: &Options) -> Result<()> {
    open_more_files()?;
    let scratch = tempfile::Builder::new().prefix("landfall-bench-").tempdir()?;
    let service = Service::start(scratch.path()).await?;
    let honest = Honest::new(&service).await?;
    let least = Duration::from_secs(options.seconds);
    println!("{RATE} GETs a second of honest clients, 1 of {OWN} on a connection of its own\n");
    println!("attack                            99 of 100       longest   failed   what was done");
    let (mut p99_ms, mut failed, mut total) = (BTreeMap::new(), 0, Done::default());
    for (told, name, crowd) in ATTACKS {
        let attack = Attack::begin(&service.served, crowd).await?;
        let wanted = if crowd.guessing > 0 { GUESSES } else { 0 };
        let waits = honest.waits(least, || attack.guesses() >= wanted).await?;
        let done = attack.end().await?;
        let within = p99(waits.answered.clone());
        println!(
            "{told:32} {within:8.2} ms {:10.2} ms {:8}   {done}",
            percentile(waits.answered, 100),
            waits.failed
        );
        if let Some(why) = waits.why {
            println!("    the first that failed: {why}");
        }
        p99_ms.insert(name, within);
        failed += waits.failed;
        total += &done;
    }
    if options.json {
        let seen = Seen {
            p99_ms,
            failed,
            guesses: total.guesses(),
            refused: total.refused(),
        };
        println!("{}", serde_json::to_string(&seen)?);
    }
    service.end().await
}

/// The attackers have more connections than a process may have files by default; so has the service, which inherits this.
fn open_more_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
        .context("cannot raise the limit of open files; raise its hard limit (ulimit -Hn) to 4096 or more")
}

/// Honest clients.
struct Honest {
    client: Arc<Client>,
    /// The same with a new connection for each request.
    own: Arc<Client>,
    path: String,
}

impl Honest {
    async fn new(service: &Service) -> Result<Self> {
        let client = Client::new(&service.served).await?;
        client.clusters(THERE).await?;
        let http = arm::builder(service.served.ca.as_bytes())?
            .pool_max_idle_per_host(0)
            .build()?;
        let own = Client {
            clock: Arc::clone(&client.clock),
            http,
            base: client.base.clone(),
            token: client.token.clone(),
        };
        Ok(Self {
            path: client.cluster(0),
            client: Arc::new(client),
            own: Arc::new(own),
        })
    }

    /// Sends requests at a rate, independent of responses, until there are enough. Times count from when a
    /// request was due.
    async fn waits(&self, least: Duration, enough: impl Fn() -> bool) -> Result<Waits> {
        let clock = &self.client.clock;
        let start = clock.monotonic();
        let mut asked = Vec::new();
        for number in 0.. {
            let due = start + Duration::from_secs(1) * number / RATE;
            let passed = due - start;
            if passed >= MOST || (passed >= least && enough()) {
                break;
            }
            clock.sleep(due.saturating_sub(clock.monotonic())).await;
            let client = if number % OWN == 0 {
                &self.own
            } else {
                &self.client
            };
            let (client, path) = (Arc::clone(client), self.path.clone());
            asked.push(tokio::spawn(async move {
                client.get(&path, CLUSTERS).await?;
                anyhow::Ok((client.clock.monotonic() - due).as_secs_f64() * 1000.0)
            }));
        }
        let mut waits = Waits::default();
        for asked in asked {
            match asked.await? {
                Ok(milliseconds) => waits.answered.push(milliseconds),
                Err(error) => {
                    waits.failed += 1;
                    waits.why.get_or_insert_with(|| format!("{error:#}"));
                }
            }
        }
        Ok(waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_attacks_together_are_each_of_them() {
        let of = |name: &str| ATTACKS.iter().find(|(_, called, _)| *called == name).unwrap().2;
        let (idle, slow, passwords, all) = (of("idle"), of("slow"), of("passwords"), of("all"));
        assert_eq!(all.silent, idle.silent);
        assert_eq!((all.heads, all.bodies), (slow.heads, slow.bodies));
        assert_eq!(all.guessing, passwords.guessing);
        let floor = of("floor");
        assert_eq!(floor.silent + floor.heads + floor.bodies + floor.guessing, 0);
    }

    #[test]
    fn programs_find_each_figure_under_its_name() {
        let seen = Seen {
            p99_ms: ATTACKS.iter().map(|(_, name, _)| (*name, 1.5)).collect(),
            failed: 0,
            guesses: 100_000,
            refused: 100_900,
        };
        let seen = serde_json::to_value(&seen).unwrap();
        assert_eq!(seen["p99_ms"]["all"], 1.5);
        assert_eq!(seen["p99_ms"]["floor"], 1.5);
        assert_eq!(seen["refused"], 100_900);
    }
}
