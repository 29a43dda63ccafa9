//! `bench idle`: the cost of an idle stamp.
#![expect(clippy::print_stdout, reason = "a bench's result is what it prints")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use base_env::{Clock, Env};
use serde_json::{Value, json};

use crate::{
    Idle,
    arm::Stamp,
    kube::median,
    memory::{self, Process},
    simulated::Cost,
};

const BOUND: Duration = Duration::from_secs(120);
/// A new stamp is not idle yet: caches fill, leases settle.
const SETTLE: Duration = Duration::from_secs(30);

/// The measurements of a stamp with this many clusters.
struct Seen {
    serve_rss_mb: f64,
    serve_own_mb: f64,
    serve_cpu_percent: f64,
    agent_rss_mb: f64,
    control_plane_pss_mb: f64,
    control_plane_cpu_percent: f64,
}

pub(crate) async fn run(options: &Idle) -> Result<()> {
    if options.simulated {
        let simulated = simulated().await?;
        if options.common.json {
            println!(
                "{}",
                json!({
                    "per_cluster_kib": round(simulated.per_cluster_kib, 100.0),
                    "per_cluster_mcpu": round(simulated.per_cluster_mcpu, 10_000.0),
                })
            );
        }
        return Ok(());
    }
    let env = Env::system();
    let clock = Arc::clone(&env.clock);
    let scratch = tempfile::Builder::new().prefix("landfall-bench-").tempdir()?;
    let stamp = Stamp::start(&clock, &options.common.landfall()?, scratch.path()).await?;
    let version = cluster_versions::Offered::pinned().default_version().to_string();

    let mut last = None;
    let mut made = 0;
    for clusters in [1, 3] {
        while made < clusters {
            made += 1;
            stamp
                .create(&clock, &format!("idle{made}"), &version, BOUND)
                .await?;
        }
        clock.sleep(SETTLE).await;
        let seen = measure(&clock, &stamp, Duration::from_secs(options.seconds)).await?;
        println!(
            "{clusters} cluster(s)   serve {:5.1} MiB resident ({:4.1} its own), {:4.2} % of a core   agent {:4.1} MiB resident   \
             control plane {:5.1} MiB (PSS), {:4.2} % of a core",
            seen.serve_rss_mb,
            seen.serve_own_mb,
            seen.serve_cpu_percent,
            seen.agent_rss_mb,
            seen.control_plane_pss_mb,
            seen.control_plane_cpu_percent,
        );
        last.get_or_insert(seen);
    }
    let one = last.context("nothing was measured")?;
    let simulated = simulated().await?;
    if options.common.json {
        println!(
            "{}",
            json!({
                "serve_rss_mb": round(one.serve_rss_mb, 100.0),
                "serve_own_mb": round(one.serve_own_mb, 100.0),
                "serve_cpu_percent": round(one.serve_cpu_percent, 100.0),
                "agent_rss_mb": round(one.agent_rss_mb, 100.0),
                "control_plane_pss_mb": round(one.control_plane_pss_mb, 100.0),
                "per_cluster_kib": round(simulated.per_cluster_kib, 100.0),
                "per_cluster_mcpu": round(simulated.per_cluster_mcpu, 10_000.0),
            })
        );
    }
    Ok(())
}

fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// The cost of one more cluster, in a separate runtime with virtual time.
async fn simulated() -> Result<Cost> {
    tokio::task::spawn_blocking(|| crate::simulated::run(&[100, 1000])).await?
}

async fn measure(clock: &Arc<dyn Clock>, stamp: &Stamp, window: Duration) -> Result<Seen> {
    let status = stamp.status()?;
    let serve = status["service"]["pid"]
        .as_u64()
        .and_then(|pid| u32::try_from(pid).ok());
    let serve = serve.with_context(|| format!("no service pid in {status}"))?;
    let before = memory::processes()?;
    let agents = agents(&before, &status)?;
    let start = clock.monotonic();
    clock.sleep(window).await;
    let seconds = (clock.monotonic() - start).as_secs_f64();
    let after = memory::processes()?;
    let used = |pid: u32| -> f64 {
        let at = |all: &BTreeMap<u32, Process>| all.get(&pid).map_or(0.0, |process| process.cpu_s);
        (at(&after) - at(&before)).max(0.0) * 100.0 / seconds
    };

    let mut agent_rss = Vec::new();
    let (mut planes, mut plane_cpu) = (Vec::new(), Vec::new());
    for agent in agents {
        agent_rss.push(memory::rss_mib(agent)?);
        let members = memory::tree(&after, agent);
        if members.iter().any(|process| process.name == "etcd") {
            // A process that ended between the two readings counts as zero.
            planes.push(
                members
                    .iter()
                    .filter_map(|process| memory::pss_mib(process.pid).ok())
                    .sum(),
            );
            plane_cpu.push(members.iter().map(|process| used(process.pid)).sum());
        }
    }
    Ok(Seen {
        serve_rss_mb: memory::rss_mib(serve)?,
        serve_own_mb: memory::own_mib(serve)?,
        serve_cpu_percent: used(serve),
        agent_rss_mb: median(agent_rss),
        control_plane_pss_mb: median(planes),
        control_plane_cpu_percent: median(plane_cpu),
    })
}

/// First processes of this stamp's machines: agents whose control group names one of its machines.
fn agents(all: &BTreeMap<u32, Process>, status: &Value) -> Result<Vec<u32>> {
    let machines: Vec<&str> = status["machines"]
        .as_array()
        .with_context(|| format!("no machines in {status}"))?
        .iter()
        .filter_map(|machine| machine["id"].as_str())
        .collect();
    Ok(all
        .values()
        .filter(|process| process.name.starts_with("landfall-agent"))
        .filter(|process| {
            let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap_or_default();
            machines.iter().any(|machine| groups.contains(machine))
        })
        .map(|process| process.pid)
        .collect())
}
