//! The cost of one more cluster for the service: the real provider, loops and records over simulated
//! machines, in virtual time.
//!
//! The simulated world and the store are in the same process, so the results are upper bounds of the
//! service's own cost.

use std::time::Duration;

use anyhow::{Result, bail};
use base_env::Env;
use fabric_sim::{Call, SimOptions};

use crate::{
    memory,
    stamp::{Disk, SimStamp},
};

/// Virtual time over which an idle stamp is observed: long enough for two periods of all periodic work.
const WATCHED: Duration = Duration::from_secs(15 * 60);
/// Virtual time that a wave of creations may take.
const BOUND: Duration = Duration::from_secs(60 * 60);

/// Per added cluster, between the first and the last number of clusters.
pub(crate) struct Cost {
    /// Memory, KiB.
    pub(crate) per_cluster_kib: f64,
    /// Idle CPU, thousandths of a core.
    pub(crate) per_cluster_mcpu: f64,
}

/// The measurements for a number of clusters.
struct Seen {
    clusters: f64,
    rss_kib: f64,
    /// Idle CPU of each, thousandths of a core.
    mcpu: f64,
    /// How often the whole fabric was listed while they were watched. Not once for each: all share a listing.
    listings: u64,
}

/// Measures with each of these numbers of clusters.
pub(crate) fn run(steps: &[u32]) -> Result<Cost> {
    let seen = watch(steps)?;
    match (seen.first(), seen.last()) {
        (Some(first), Some(last)) if last.clusters > first.clusters => Ok(Cost {
            per_cluster_kib: (last.rss_kib - first.rss_kib) / (last.clusters - first.clusters),
            per_cluster_mcpu: last.mcpu,
        }),
        _ => bail!("two different numbers of clusters are needed"),
    }
}

fn watch(steps: &[u32]) -> Result<Vec<Seen>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()?;
    runtime.block_on(play(steps))
}

#[expect(clippy::print_stdout, reason = "a bench's result is what it prints")]
async fn play(steps: &[u32]) -> Result<Vec<Seen>> {
    let env = Env::simulated(1);
    let mut stamp = SimStamp::new(env.clone(), SimOptions::default(), Disk::None)?;
    stamp.start()?;
    let client = stamp.service()?.client();

    let pid = std::process::id();
    let mut made = 0;
    let mut seen = Vec::new();
    for &clusters in steps {
        client.groups(&env, clusters).await?;
        for number in made..clusters {
            client.create(number, 1).await?;
        }
        made = clusters;
        client.reached(&env, 0..clusters, BOUND).await?;
        stamp.service()?.idle(&env, clusters, BOUND).await?;
        let listed = stamp.world.tally(Call::List).calls;
        let before = memory::cpu_s(pid)?;
        env.clock.sleep(WATCHED).await;
        let mcpu = (memory::cpu_s(pid)? - before) / WATCHED.as_secs_f64() * 1000.0 / f64::from(clusters);
        let listings = stamp.world.tally(Call::List).calls - listed;
        let rss_kib = memory::rss_mib(pid)? * 1024.0;
        let of = Seen {
            clusters: f64::from(clusters),
            rss_kib,
            mcpu,
            listings,
        };
        println!(
            "{clusters:5} simulated clusters   {:7.1} MiB resident   {:6.3} mCPU a cluster, idle   the fabric was listed {} \
             times in {} minutes",
            of.rss_kib / 1024.0,
            of.mcpu,
            of.listings,
            WATCHED.as_secs() / 60
        );
        seen.push(of);
    }
    stamp.stop().await?;
    Ok(seen)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_few_clusters_settle_and_can_be_weighed() {
        let cost = super::run(&[3, 8]).unwrap();
        assert!(cost.per_cluster_kib.is_finite() && cost.per_cluster_mcpu >= 0.0);
    }

    #[test]
    fn an_idle_stamp_is_listed_once_a_slice_and_not_once_a_cluster() {
        // Thirty slices of clusters and three sweeps, each at its own time give or take a tenth.
        let listings = super::watch(&[120]).unwrap()[0].listings;
        assert!((20..=40).contains(&listings), "{listings}");
    }
}
