//! `bench metrics`: how long a scrape of the service's metrics takes, with many clusters.
//!
//! The records, the loops and the agents' sessions are real; machines and clusters are simulated, in virtual time. What is measured is real time, of one
//! thread.
#![expect(clippy::print_stdout, reason = "a bench's result is what it prints")]

use std::time::Duration;

use anyhow::{Result, ensure};
use base_env::Env;
use cluster_pki::inventory::Item;
use fabric_sim::SimOptions;
use serde_json::json;
use service::operator::{Host, HostSeen};

use crate::{
    Metrics,
    kube::median,
    stamp::{Disk, SimStamp},
};

/// Scrapes after the first one.
const ROUNDS: usize = 21;
/// Virtual time that the creation may take.
const BOUND: Duration = Duration::from_secs(60 * 60);

/// A host that tells nothing: what it would tell is a few files.
pub(crate) struct NoHost;

impl Host for NoHost {
    fn look(&self) -> HostSeen {
        HostSeen::default()
    }

    fn certificates(&self) -> Result<Vec<Item>, String> {
        Ok(Vec::new())
    }
}

/// Milliseconds.
struct Seen {
    first: f64,
    median: f64,
    slowest: f64,
    bytes: usize,
    series: usize,
}

pub(crate) async fn run(options: &Metrics) -> Result<()> {
    let clusters = options.clusters;
    // A separate runtime, with virtual time.
    let seen = tokio::task::spawn_blocking(move || watch(clusters)).await??;
    println!(
        "{clusters} clusters   first scrape {:.1} ms, then {:.1} ms (median of {ROUNDS}, the slowest {:.1} ms)   {} series, {} KiB",
        seen.first,
        seen.median,
        seen.slowest,
        seen.series,
        seen.bytes / 1024
    );
    if options.json {
        let round = |value: f64| (value * 10.0).round() / 10.0;
        println!(
            "{}",
            json!({
                "clusters": clusters,
                "first_ms": round(seen.first),
                "scrape_ms": round(seen.median),
                "slowest_ms": round(seen.slowest),
                "series": seen.series,
                "page_kib": seen.bytes / 1024,
            })
        );
    }
    Ok(())
}

fn watch(clusters: u32) -> Result<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()?;
    runtime.block_on(play(clusters))
}

async fn play(clusters: u32) -> Result<Seen> {
    let (env, wall) = (Env::simulated(1), Env::system().clock);
    let mut stamp = SimStamp::new(env.clone(), SimOptions::default(), Disk::None)?;
    stamp.start()?;
    let client = stamp.service()?.client();
    client.groups(&env, clusters).await?;
    for number in 0..clusters {
        client.create(number, 1).await?;
    }
    client.reached(&env, 0..clusters, BOUND).await?;
    stamp.service()?.idle(&env, clusters, BOUND).await?;

    let operator = stamp.operator()?;
    let mut times = Vec::with_capacity(ROUNDS + 1);
    let mut page = String::new();
    for _ in 0..=ROUNDS {
        let begun = wall.monotonic();
        page = operator.scrape().await?;
        times.push((wall.monotonic() - begun).as_secs_f64() * 1000.0);
    }
    let wanted = format!("landfall_clusters{{state=\"Succeeded\",power=\"Running\"}} {clusters}\n");
    ensure!(
        page.contains(&wanted),
        "the page does not tell of {clusters} clusters"
    );
    let first = times.remove(0);
    let seen = Seen {
        first,
        slowest: times.iter().copied().fold(0.0, f64::max),
        median: median(times),
        bytes: page.len(),
        series: page.lines().filter(|line| !line.starts_with('#')).count(),
    };
    drop(operator);
    stamp.stop().await?;
    Ok(seen)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_scrape_tells_of_each_cluster_and_is_measured() {
        let seen = super::watch(12).unwrap();
        assert!(seen.first > 0.0 && seen.median > 0.0 && seen.slowest >= seen.median);
        // Three series of each cluster at least.
        assert!(seen.series > 3 * 12 && seen.bytes > 1024);
    }
}
