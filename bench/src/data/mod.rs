//! The cost of a workload's requests and writes that go through Landfall: a load balancer's address before a
//! pod, and a claim's volume under it, against the same program as a bare process on the host, in the same
//! run.
//!
//! The bare process is reached over the loopback, without any network interface, and writes to the filesystem
//! that has the volumes' files. Both are measured in turn, round by round, under the same conditions. A ratio
//! is of one round, and the median of all is printed.
#![expect(clippy::print_stdout, reason = "a bench's result is what it prints")]

mod claims;
mod figures;
mod load;
mod objects;
mod peer;

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use base_env::{Clock, Env};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    Data,
    arm::Stamp,
    edge::p99,
    kube::{Kube, is_ready},
};
use figures::{Spread, rounded};
use load::Over;

/// Longer than this is a failure.
const BOUND: Duration = Duration::from_secs(180);
/// Nodes of the cluster.
const NODES: u32 = 2;
/// A directory whose files outlive a reboot, so that they are on a disk.
const DIRECTORY: &str = "/var/tmp";
/// Requests a second where waiting is measured: over connections that are kept, and over new ones.
const RATE_KEPT: u32 = 1000;
const RATE_NEW: u32 = 200;
/// Writes at a time.
const IN_FLIGHT: [u32; 2] = [1, 4];

/// The last line of output.
#[derive(Debug, Serialize)]
struct Seen {
    /// Requests a second through a load balancer, of those of the bare process: connections that are kept, a Service as it is by default.
    lb_rps_ratio: f64,
    /// The additional latency at the 99th percentile of these requests, milliseconds.
    lb_p99_added_ms: f64,
    /// Small durable writes a second on a claim's volume, relative to those on the host: one at a time or
    /// four, whichever is worse.
    disk_iops_ratio: f64,
    /// From a claim and its pod to the start of the pod's container, seconds.
    claim_to_mounted_s: f64,
}

/// `bench data`.
pub(crate) async fn run(options: &Data) -> Result<()> {
    let (mut interrupted, mut terminated) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // Dropped before its end, it takes the stamp down all the same.
    tokio::select! {
        outcome = Box::pin(measure(options)) => outcome,
        _ = interrupted.recv() => Err(anyhow!("interrupted")),
        _ = terminated.recv() => Err(anyhow!("terminated")),
    }
}

async fn measure(options: &Data) -> Result<()> {
    let clock = Env::system().clock;
    let directory = options.directory.clone().unwrap_or_else(|| DIRECTORY.into());
    // Another process' directory of work may be another one.
    let directory = directory
        .canonicalize()
        .with_context(|| format!("cannot find {}", directory.display()))?;
    on_a_disk(&directory)?;
    let scratch = tempfile::Builder::new()
        .prefix("landfall-bench-")
        .tempdir_in(&directory)
        .with_context(|| format!("cannot make a directory in {}", directory.display()))?;
    let program = peer::build(&scratch.path().join("target"))?;
    let landfall = options.common.landfall()?;

    // Later declarations are dropped first: the stamp before its directory.
    let stamp = Stamp::start(&clock, &landfall, scratch.path()).await?;
    let version = cluster_versions::Offered::pinned().default_version().to_string();
    let (kube, _) = stamp.cluster(&clock, "data", &version, NODES, BOUND).await?;
    kube.until(&clock, objects::NODES, BOUND, |_, nodes| {
        let ready = nodes["items"].as_array()?.iter().filter(|node| is_ready(node));
        (ready.count() == NODES as usize).then_some(())
    })
    .await
    .context("not all nodes are ready")?;

    let there = There::make(&clock, &kube, &program, scratch.path()).await?;
    let rounds = options.rounds;
    println!(
        "a stamp with a cluster of {NODES} nodes; medians of {rounds} rounds of {} s each, least and most in brackets\n",
        options.seconds
    );
    let time = Duration::from_secs(options.seconds);
    let (lb_rps_ratio, lb_p99_added_ms) = requests(&clock, &there, rounds, time).await?;
    let disk_iops_ratio = writes(&clock, &there, rounds, time).await?;
    println!("a pod's start, from what `kubectl apply` sends");
    let starts = claims::Starts::measure(&clock, &kube, BOUND).await?;
    for line in starts.lines() {
        println!("{line}");
    }
    if options.common.json {
        let seen = Seen {
            lb_rps_ratio: rounded(lb_rps_ratio, 3),
            lb_p99_added_ms: rounded(lb_p99_added_ms, 3),
            disk_iops_ratio: rounded(disk_iops_ratio, 3),
            claim_to_mounted_s: rounded(starts.started().median, 2),
        };
        println!("{}", serde_json::to_string(&seen)?);
    }
    Ok(())
}

/// With files in memory no write waits for a disk, and a ratio would show the program alone.
fn on_a_disk(directory: &Path) -> Result<()> {
    let filesystem = statfs(directory).with_context(|| format!("cannot look at {}", directory.display()))?;
    ensure!(
        filesystem.filesystem_type() != TMPFS_MAGIC,
        "{} is in memory; name a directory on a disk with --directory",
        directory.display()
    );
    Ok(())
}

/// The measured servers.
struct There {
    bare: peer::Bare,
    /// The load balancers of the pod, with their names in the output; the first one has the default settings
    /// of Services.
    balancers: Vec<(&'static str, SocketAddr)>,
}

impl There {
    async fn make(clock: &Arc<dyn Clock>, kube: &Kube, program: &Path, scratch: &Path) -> Result<Self> {
        let directory = scratch.join("bare");
        fs::create_dir(&directory)?;
        let bare = peer::Bare::start(clock, program, &directory).await?;

        let bytes = fs::read(program)?;
        kube.create(objects::CLAIMS, &objects::claim(objects::PEER))
            .await?;
        kube.create(objects::PODS, &objects::asked(bytes.len())).await?;
        let services = [
            ("load balancer", "far", "Cluster"),
            ("externalTrafficPolicy: Local", "near", "Local"),
        ];
        for (_, name, policy) in services {
            let service = objects::service(name, policy);
            kube.create(objects::SERVICES, &service).await?;
        }
        let mut balancers = Vec::new();
        for (told, name, _) in services {
            let at = format!("{}/{name}", objects::SERVICES);
            let address = kube
                .until(clock, &at, BOUND, |_, service| objects::address(service))
                .await
                .context("a Service has no address")?;
            balancers.push((told, SocketAddr::new(address, objects::OUTSIDE)));
        }
        let at = format!("{}/{}", objects::PODS, objects::PEER);
        kube.until(clock, &at, BOUND, |_, pod| objects::started(pod).then_some(()))
            .await
            .context("the pod that is asked does not run")?;
        let there = Self { bare, balancers };
        peer::deliver(clock, there.default_balancer(), &bytes, BOUND).await?;
        for (_, address) in &there.balancers {
            peer::answers(clock, *address, BOUND).await?;
        }
        Ok(there)
    }

    fn default_balancer(&self) -> SocketAddr {
        self.balancers[0].1
    }
}

/// The measurements of one server, round by round.
#[derive(Default, Clone)]
struct Answers {
    rates: Vec<f64>,
    p99s: Vec<f64>,
}

/// The ratio of requests a second, and the additional latency at the 99th percentile, milliseconds.
async fn requests(clock: &Arc<dyn Clock>, there: &There, rounds: u32, time: Duration) -> Result<(f64, f64)> {
    println!(
        "GETs from the host, with answers of 64 bytes: of a pod, and of the same program as a bare process on the host, over loopback"
    );
    println!(
        "requests a second: as fast as they are answered; 99 of 100: at {RATE_KEPT} a second ({RATE_NEW} over new connections)"
    );
    let mut targets = vec![("bare process", there.bare.address)];
    targets.extend(&there.balancers);
    let mut headline = None;
    for (told, over, rate) in [
        ("over kept connections", Over::Kept, RATE_KEPT),
        ("each over a new one", Over::New, RATE_NEW),
    ] {
        let mut seen = vec![Answers::default(); targets.len()];
        for round in 0..rounds {
            for place in order(round, targets.len()) {
                let (told, address) = targets[place];
                let fast = load::rate(clock, address, over, time).await;
                let waits = load::waits(clock, address, over, rate, time).await;
                seen[place].rates.push(fast.context(told)?);
                seen[place].p99s.push(p99(waits.context(told)?));
            }
        }
        println!(
            "{told:30} {:>26} {:>24} {:>26} {:>26}",
            "requests a second", "of bare", "99 of 100, ms", "added, ms"
        );
        let bare = &seen[0];
        for ((told, _), seen) in targets.iter().zip(&seen) {
            let (rates, p99s) = (Spread::of(&seen.rates), Spread::of(&seen.p99s));
            let ratios = Spread::of_ratios(&seen.rates, &bare.rates);
            let added = Spread::of_differences(&seen.p99s, &bare.p99s);
            println!("  {told:28} {rates:26.0} {ratios:24.3} {p99s:26.3} {added:26.3}");
        }
        // The first one after the bare process, over connections that are kept.
        headline.get_or_insert((
            Spread::of_ratios(&seen[1].rates, &bare.rates).median,
            Spread::of_differences(&seen[1].p99s, &bare.p99s).median,
        ));
    }
    println!();
    headline.context("nothing was asked")
}

/// The ratio of small durable writes a second: of one at a time or of several, whichever is worse.
async fn writes(clock: &Arc<dyn Clock>, there: &There, rounds: u32, time: Duration) -> Result<f64> {
    println!(
        "writes of 4 KiB at random places of a file of 256 MiB, past the page cache, each of them durable (O_DIRECT, O_DSYNC):"
    );
    println!(
        "in a pod on a claim's volume, and by the same program on the host, on the filesystem that has the volumes' files"
    );
    let targets = [
        ("host", there.bare.address),
        ("claim's volume", there.default_balancer()),
    ];
    for (told, address) in targets {
        disk(clock, address, "/prepare", Duration::ZERO)
            .await
            .with_context(|| format!("no file to write to: {told}"))?;
    }
    println!("{:30} {:>26} {:>24}", "", "writes a second", "of the host's");
    let mut worst = f64::INFINITY;
    for in_flight in IN_FLIGHT {
        let target = format!("/write/{in_flight}/{}", time.as_millis());
        let mut seen = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            for place in order(round, targets.len()) {
                // Flush pending writes: both wait for the same disk.
                nix::unistd::sync();
                let (told, address) = targets[place];
                let said = disk(clock, address, &target, time).await.context(told)?;
                seen[place].push(a_second(&said)?);
            }
        }
        for ((told, _), rates) in targets.iter().zip(&seen) {
            let ratios = Spread::of_ratios(rates, &seen[0]);
            println!(
                "  {:28} {:26.0} {ratios:24.3}",
                format!("{told}, {in_flight} at a time"),
                Spread::of(rates)
            );
        }
        worst = worst.min(Spread::of_ratios(&seen[1], &seen[0]).median);
    }
    println!();
    Ok(worst)
}

/// Has a server use its disk for at least this long; gives its response.
async fn disk(clock: &Arc<dyn Clock>, address: SocketAddr, target: &str, time: Duration) -> Result<String> {
    clock.timeout(time + BOUND, load::get(address, target)).await?
}

/// Writes a second, from how many there were and how many microseconds they took.
fn a_second(said: &str) -> Result<f64> {
    let (writes, microseconds) = said
        .split_once(' ')
        .with_context(|| format!("it said {said:?}"))?;
    let (writes, microseconds): (f64, f64) = (writes.parse()?, microseconds.parse()?);
    ensure!(
        writes > 0.0 && microseconds > 0.0,
        "nothing was written: {said:?}"
    );
    Ok(writes * 1_000_000.0 / microseconds)
}

/// The order of servers in a round: reversed each time, so that none has the better place.
fn order(round: u32, count: usize) -> Vec<usize> {
    if round.is_multiple_of(2) {
        (0..count).collect()
    } else {
        (0..count).rev().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_go_back_and_forth() {
        assert_eq!(order(0, 3), [0, 1, 2]);
        assert_eq!(order(1, 3), [2, 1, 0]);
        assert_eq!(order(2, 3), [0, 1, 2]);
    }

    #[test]
    fn writes_a_second_follow_from_what_the_program_says() {
        assert_eq!(a_second("3000 1500000").unwrap(), 2000.0);
        a_second("0 1500000").unwrap_err();
        a_second("").unwrap_err();
    }

    #[test]
    fn programs_find_each_figure_under_its_name() {
        let seen = Seen {
            lb_rps_ratio: 0.95,
            lb_p99_added_ms: 0.1,
            disk_iops_ratio: 0.9,
            claim_to_mounted_s: 3.2,
        };
        assert_eq!(
            serde_json::to_string(&seen).unwrap(),
            r#"{"lb_rps_ratio":0.95,"lb_p99_added_ms":0.1,"disk_iops_ratio":0.9,"claim_to_mounted_s":3.2}"#
        );
    }
}
