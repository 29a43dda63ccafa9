//! `bench engine`: the capacity of one service, in clusters.
//!
//! Real: the provider (requests take the way behind the edge), the store on disk with its group commit, the
//! loops, all certificates and configurations. Simulated, without delays: machines, agents, the clusters'
//! APIs. Both run in one process on two threads, so times and CPU are upper bounds of the service's own.
//! Memory is split by counting before and after the service is dropped.
#![expect(clippy::print_stdout, reason = "a bench's result is what it prints")]
#![expect(clippy::print_stderr, reason = "how far it is goes beside the results")]

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use base_env::Env;
use fabric_sim::{Call, SimOptions};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    Engine, EnginePart, counting,
    haste::Haste,
    memory,
    stamp::{Client, Disk, SimStamp},
    storm,
};

const POOLS: u32 = 3;
/// Requests under way at a time.
const CLIENTS: u32 = 64;
/// How long any phase may take: a bound against hanging, not a promise.
const BOUND: Duration = Duration::from_secs(60 * 60);

/// The measurements for one number of clusters.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Seen {
    clusters: u32,
    accepted_s: f64,
    create_s: f64,
    upgrade_s: f64,
    restart_read_s: f64,
    restart_adopt_s: f64,
    idle_kib_per_cluster: f64,
    idle_mcpu_per_cluster: f64,
    world_kib_per_cluster: f64,
    store_file_kib_per_cluster: f64,
    rss_mib: f64,
    /// CPU time of the process while all were made, while all were upgraded, and until all were adopted, seconds.
    cpu_s: [f64; 3],
    /// Commits of the store a cluster: while all were made, while all were upgraded, and in each period of idleness.
    commits: [f64; 3],
}

pub(crate) async fn run(options: &Engine) -> Result<()> {
    println!("load average before: {}", load());
    // A separate runtime, with virtual time.
    let storm = tokio::task::spawn_blocking(storm::run).await??;
    println!(
        "fair queues, four things at a time, virtual time: a cluster is there after {:.1} s when nobody else asks, after {:.1} s beside \
         {} of another tenant, which take {:.1} s, and after {:.1} s when it is one more of theirs",
        storm.alone.as_secs_f64(),
        storm.beside.as_secs_f64(),
        storm::STORM,
        storm.storm.as_secs_f64(),
        storm.within.as_secs_f64(),
    );
    let few = measure((options.clusters / 10).max(1), options.seconds)?;
    let many = measure(options.clusters, options.seconds)?;
    println!("load average after: {}", load());
    let slope = |of: fn(&Seen) -> f64| of(&many) / of(&few).max(f64::EPSILON);
    let each = |of: fn(&Seen) -> f64| slope(of) * f64::from(few.clusters) / f64::from(many.clusters);
    println!(
        "per cluster, {} against {} (1.00: no growth)   creation {:.2}   upgrade {:.2}   adoption {:.2}   memory {:.2}   idle CPU {:.2}",
        many.clusters,
        few.clusters,
        each(|seen| seen.create_s),
        each(|seen| seen.upgrade_s),
        each(|seen| seen.restart_adopt_s),
        slope(|seen| seen.idle_kib_per_cluster),
        slope(|seen| seen.idle_mcpu_per_cluster),
    );
    if options.json {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        println!(
            "{}",
            json!({
                "clusters": many.clusters,
                "create_s": round(many.create_s),
                "restart_adopt_s": round(many.restart_adopt_s),
                "idle_kib_per_cluster": round(many.idle_kib_per_cluster),
                "idle_mcpu_per_cluster": round(many.idle_mcpu_per_cluster),
                "slope_1k_10k": round(slope(|seen| seen.idle_mcpu_per_cluster)),
            })
        );
    }
    Ok(())
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Measures in a separate process: without memory of the other numbers, and with its own peak.
fn measure(clusters: u32, seconds: u64) -> Result<Seen> {
    let output = std::process::Command::new(std::env::current_exe()?)
        .args(["engine-part", "--clusters", &clusters.to_string()])
        .args(["--seconds", &seconds.to_string()])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    ensure!(
        output.status.success(),
        "{clusters} clusters: the measurement ended with {}",
        output.status
    );
    let text = String::from_utf8(output.stdout)?;
    let seen: Seen = serde_json::from_str(text.lines().last().unwrap_or_default())
        .with_context(|| format!("{clusters} clusters: no result in {text:?}"))?;
    println!(
        "{:6} clusters of {POOLS} pools   {:.1} s to accept, {:.1} s until all are there   wave of upgrades, control planes and all \
         nodes: {:.1} s\n                restart: {:.1} s to read the store, {:.1} s until all are adopted and looked \
         at\n                idle, a cluster: {:.0} KiB of the service ({:.0} KiB of the simulated world; {:.0} KiB in the \
         store's file), {:.3} mCPU   process {:.0} MiB resident\n                commits of the store, a cluster: \
         {:.1} to make it, {:.1} to upgrade it, {:.2} in 300 s of idleness\n                CPU time of the process, with the simulated \
         world: {:.1} s to make all, {:.1} s to upgrade all, {:.1} s to adopt all",
        seen.clusters,
        seen.accepted_s,
        seen.create_s,
        seen.upgrade_s,
        seen.restart_read_s,
        seen.restart_adopt_s,
        seen.idle_kib_per_cluster,
        seen.world_kib_per_cluster,
        seen.store_file_kib_per_cluster,
        seen.idle_mcpu_per_cluster,
        seen.rss_mib,
        seen.commits[0],
        seen.commits[1],
        seen.commits[2],
        seen.cpu_s[0],
        seen.cpu_s[1],
        seen.cpu_s[2],
    );
    Ok(seen)
}

pub(crate) async fn part(options: &EnginePart) -> Result<()> {
    let (env, haste) = Haste::env();
    let clock = Arc::clone(&env.clock);
    let scratch = tempfile::Builder::new().prefix("landfall-bench-").tempdir()?;
    let file = scratch.path().join("store.redb");
    let mut stamp = SimStamp::new(env.clone(), SimOptions::instant(), Disk::File(file.clone()))?;
    let clusters = options.clusters;
    let empty_kib = counting::live_kib();
    let pid = std::process::id();
    let cpu = || memory::cpu_s(pid);
    let since = |start: Duration| (clock.monotonic() - start).as_secs_f64();

    let begun = cpu()?;
    stamp.start()?;
    let start = clock.monotonic();
    stamp.service()?.client().groups(&env, clusters).await?;
    let create = |client: Arc<Client>, number| async move { client.create(number, POOLS).await };
    let accepted_s = wave(&stamp, &env, clusters, "created", create).await?;
    let create_s = since(start);
    let create_cpu_s = cpu()? - begun;
    rest(&stamp, &haste, &env, clusters).await?;

    let begun = cpu()?;
    let made = stamp.service()?.client().commits().await?;
    let start = clock.monotonic();
    let upgrade = |client: Arc<Client>, number| async move { client.upgrade(number, POOLS).await };
    wave(&stamp, &env, clusters, "upgraded", upgrade).await?;
    let upgrade_s = since(start);
    let wave_cpu_s = cpu()? - begun;
    rest(&stamp, &haste, &env, clusters).await?;
    let waved = stamp.service()?.client().commits().await?;

    stamp.stop().await?;
    let begun = cpu()?;
    let looks = |stamp: &SimStamp| stamp.world.tally(Call::Nodes).calls;
    let looked_before = looks(&stamp);
    let start = clock.monotonic();
    stamp.start()?;
    let restart_read_s = since(start);
    stamp.service()?.idle(&env, clusters, BOUND).await?;
    let restart_adopt_s = since(start);
    let adopt_cpu_s = cpu()? - begun;
    eprintln!(
        "{clusters} clusters: adopted within {restart_adopt_s:.1} s, {:.0} MiB",
        rss_mib()?
    );
    ensure!(
        looks(&stamp) - looked_before >= u64::from(clusters),
        "a cluster was adopted without being looked at"
    );

    rest(&stamp, &haste, &env, clusters).await?;
    haste.set(pace(clusters));
    let rested = stamp.service()?.client().commits().await?;
    let before = cpu()?;
    let start = clock.monotonic();
    clock.sleep(Duration::from_secs(options.seconds)).await;
    let watched_s = since(start);
    let idle_mcpu = (cpu()? - before) / watched_s * 1000.0;
    let idled = stamp.service()?.client().commits().await?;
    stamp.service()?.idle(&env, clusters, BOUND).await?;
    haste.set(1);

    let rss_mib = rss_mib()?;
    let with_service = counting::live_kib();
    stamp.stop().await?;
    let world = counting::live_kib();
    ensure!(
        stamp.world.violations().is_empty(),
        "the simulated world complains: {:?}",
        stamp.world.violations().first()
    );
    let per = |whole: f64| whole / f64::from(clusters);
    #[expect(clippy::cast_precision_loss, reason = "a count, shown with some digits")]
    let commits = |from: u64, to: u64| per((to - from) as f64);
    let seen = Seen {
        clusters,
        cpu_s: [create_cpu_s, wave_cpu_s, adopt_cpu_s],
        commits: [
            commits(0, made),
            commits(made, waved),
            commits(rested, idled) * 300.0 / watched_s,
        ],
        accepted_s,
        create_s,
        upgrade_s,
        restart_read_s,
        restart_adopt_s,
        idle_kib_per_cluster: per(with_service - world),
        idle_mcpu_per_cluster: per(idle_mcpu),
        world_kib_per_cluster: per(world - empty_kib),
        #[expect(
            clippy::cast_precision_loss,
            reason = "a file's size, shown with three digits"
        )]
        store_file_kib_per_cluster: per(std::fs::metadata(&file)?.len() as f64 / 1024.0),
        rss_mib,
    };
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}

/// The speed of time for a service that is observed while idle. Periodic work must still be completed within
/// its period, or the service is never idle.
fn pace(clusters: u32) -> u32 {
    (10_000 / clusters.max(1)).clamp(2, 5)
}

/// Waits until no work is left, at a faster pace: some of it is only due after a while.
async fn rest(stamp: &SimStamp, haste: &Haste, env: &Env, clusters: u32) -> Result<()> {
    haste.set(pace(clusters));
    let rested = stamp.service()?.idle(env, clusters, BOUND).await;
    haste.set(1);
    rested
}

fn rss_mib() -> Result<f64> {
    memory::rss_mib(std::process::id())
}

/// Sends a request for each cluster and waits until all have reached their desired state. Returns after how
/// many seconds the last was accepted.
async fn wave<F, R>(stamp: &SimStamp, env: &Env, clusters: u32, what: &str, request: F) -> Result<f64>
where
    F: Fn(Arc<Client>, u32) -> R,
    R: Future<Output = Result<()>> + Send + 'static,
{
    let start = env.clock.monotonic();
    let since = || (env.clock.monotonic() - start).as_secs_f64();
    each(stamp, clusters, request).await?;
    let accepted_s = since();
    stamp.service()?.client().reached(env, 0..clusters, BOUND).await?;
    eprintln!(
        "{clusters} clusters: {what} within {:.1} s, {:.0} MiB",
        since(),
        rss_mib()?
    );
    Ok(accepted_s)
}

/// Sends a request for each cluster, some at a time.
async fn each<F, R>(stamp: &SimStamp, clusters: u32, request: F) -> Result<()>
where
    F: Fn(Arc<Client>, u32) -> R,
    R: Future<Output = Result<()>> + Send + 'static,
{
    let client = stamp.service()?.client();
    let mut under_way = JoinSet::new();
    for number in 0..clusters {
        while under_way.len() >= CLIENTS as usize {
            if let Some(answered) = under_way.join_next().await {
                answered??;
            }
        }
        under_way.spawn(request(Arc::clone(&client), number));
    }
    while let Some(answered) = under_way.join_next().await {
        answered??;
    }
    Ok(())
}
