//! Benches: the cost of the product against the bare-process floor, measured in the same run.
//!
//! Called by `cargo xtask bench`. Always true: no bench asserts a time; each prints its measurements and,
//! with `--json`, one last line for programs; all objects that it makes on the host are removed when it ends.

mod arm;
mod counting;
mod create;
mod data;
mod edge;
mod engine;
mod floor;
mod haste;
mod idle;
mod kube;
mod memory;
mod policy;
mod setup;
mod simulated;
mod stamp;
mod storm;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// Measures Landfall.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Command {
    #[command(subcommand)]
    bench: Bench,
}

/// What to measure.
#[derive(Debug, Subcommand)]
enum Bench {
    /// From an accepted PUT to a ready API, a Ready node and a running pod, against bare processes
    Create(Create),
    /// What an idle stamp costs: memory and CPU of the service, agents and control planes
    ///
    /// What one more cluster costs the service is measured over simulated machines, in virtual time: memory is what the
    /// process grew by from 100 to 1,000 clusters, the simulated world included; CPU is the time that the process used in a
    /// quarter of an hour of virtual time (three resync periods), divided by that quarter and by the clusters.
    Idle(Idle),
    /// What the engine carries: thousands of simulated clusters created, changed, adopted after a restart, and idle
    ///
    /// The provider, the store on disk, the loops, certificates and configurations are real; machines, agents and the
    /// clusters' APIs are simulated in the same process and answer at once, so times and CPU are upper bounds of the
    /// service's own. Memory is split by counting what is allocated before and after the service is let go.
    ///
    /// Idle CPU is user and system time of the process over several resync periods (300 s each), divided by the time that
    /// passed for the service and by the clusters: 1 mCPU is a thousandth of a core. Time goes two to five times as fast for the
    /// service meanwhile. It says what looking at a cluster that needs nothing costs, and all that goes over all clusters.
    Engine(Engine),
    /// What a load balancer, a volume and its claim cost a workload, against the same program as a bare process on the host
    ///
    /// A stamp of its own with one cluster of two nodes. Requests: many short ones over HTTP/1.1 from the host, through a load balancer's
    /// address to a pod, against a bare process over the loopback; `lb_rps_ratio` and `lb_p99_added_ms` are of connections that are kept and
    /// of a Service with no other setting. Writes: 4 KiB each, at random places, each on the disk before the next one begins, on the filesystem of
    /// a claim in a pod against the filesystem that has the volumes' files; `disk_iops_ratio` is of one or of four at a time, whichever is worse.
    /// Claims: from a claim and its pod to the start of the pod's container, and the same pod without a claim (`claim_to_mounted_s`).
    /// Client and server share the host's processors, so a ratio is of all that both of them take.
    Data(Data),
    /// Where the time of a fresh machine's first command goes: compiling the service, building the node image
    ///
    /// Both are made from nothing but downloaded sources, in directories of their own, one after the other as `cargo run
    /// --release -- up` does. The floor is their processor time divided by the processors.
    Setup(Setup),
    /// What the ARM edge carries for each second of a core, and how long its clients wait, also while it is attacked
    ///
    /// The service is the real one with its store on disk, its listener and tokens, in a process of its own; machines, agents and the
    /// clusters' APIs are simulated. A second of a core is one of that process' user and system time.
    Edge(Edge),
    /// How long honest clients wait while the ARM edge is attacked: by each kind of attack, and by all together
    ///
    /// The service is that of `edge`. Honest clients GET a cluster a hundred times a second, each tenth time on a connection of its own;
    /// 99 of 100 are answered within the time that is told, from when they were due. The floor is the same with nobody attacking. Attacks:
    /// 1,000 connections that say nothing; 500 heads and 500 bodies that come by the byte; 100,000 wrong passwords over 10,000 names, from
    /// eight addresses; all of these. Clients, attackers and service share the processors, so a time is an upper bound of the service's own.
    Attack(Attack),
    /// How many states of support one core evaluates in a second, each with the date of its next change
    ///
    /// Of 64 clusters of all profiles with three pools each, some of them stopped, changed or of suspended subscriptions, at moments of two years.
    Policy(Policy),
    /// The service of `edge` and `attack`, in a process of its own
    #[command(hide = true)]
    EdgeServe(EdgeServe),
    /// The second part of `setup`, in a process of its own
    #[command(hide = true)]
    SetupImage(SetupImage),
    /// One part of `engine`, in a process of its own
    #[command(hide = true)]
    EnginePart(EnginePart),
}

/// `cargo xtask bench create`.
#[derive(Debug, Args)]
struct Create {
    /// Rounds of each, interleaved
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Kubernetes version
    #[arg(long, value_name = "VERSION")]
    kubernetes: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// `cargo xtask bench idle`.
#[derive(Debug, Args)]
struct Idle {
    /// Seconds over which CPU time is counted
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,
    /// Only what one more cluster costs the service, with 100 and 1,000 simulated clusters and no real ones
    #[arg(long)]
    simulated: bool,
    #[command(flatten)]
    common: Common,
}

/// `cargo xtask bench engine`.
#[derive(Debug, Args)]
struct Engine {
    /// Clusters; a tenth of them is measured as well, for the slope
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    clusters: u32,
    /// Seconds of the service's time over which the CPU time of idle clusters is counted; everything comes round once in 300
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,
    /// Print one last line of JSON
    #[arg(long)]
    json: bool,
}

/// `bench engine-part`.
#[derive(Debug, Args)]
struct EnginePart {
    #[arg(long)]
    clusters: u32,
    #[arg(long)]
    seconds: u64,
}

/// `cargo xtask bench data`.
#[derive(Debug, Args)]
struct Data {
    /// Seconds of each measurement of requests and of writes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Rounds of each of them, bare and through Landfall in turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Where the stamp is with its volumes: a directory on a disk [default: /var/tmp]
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// `cargo xtask bench setup`.
#[derive(Debug, Args)]
struct Setup {
    /// Where to build; about 12 GB are needed meanwhile [default: the directory for temporary files]
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// Print one last line of JSON
    #[arg(long)]
    json: bool,
}

/// `bench setup-image`.
#[derive(Debug, Args)]
struct SetupImage {
    /// The cache directory
    cache: PathBuf,
}

/// `cargo xtask bench edge`.
#[derive(Debug, Args)]
struct Edge {
    /// Seconds over which each of the figures is measured
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: u64,
    /// Print one last line of JSON
    #[arg(long)]
    json: bool,
}

/// `cargo xtask bench attack`.
#[derive(Debug, Args)]
struct Attack {
    /// Seconds of each attack at least; passwords are guessed until there were 100,000, for a minute at most
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=60))]
    seconds: u64,
    /// Print one last line of JSON
    #[arg(long)]
    json: bool,
}

/// `cargo xtask bench policy`.
#[derive(Debug, Args)]
struct Policy {
    /// Seconds over which each of the two figures is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Print one last line of JSON
    #[arg(long)]
    json: bool,
}

/// `bench edge-serve`.
#[derive(Debug, Args)]
struct EdgeServe {
    /// Where its files are
    directory: PathBuf,
}

#[derive(Debug, Args)]
struct Common {
    /// Print one last line of JSON
    #[arg(long)]
    json: bool,
    /// The `landfall` binary to measure [default: built with --release]
    #[arg(long, value_name = "PROGRAM")]
    landfall: Option<PathBuf>,
}

fn main() -> Result<()> {
    let command = Command::parse();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider was installed before"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match &command.bench {
            Bench::Create(options) => create::run(options).await,
            Bench::Idle(options) => idle::run(options).await,
            Bench::Data(options) => data::run(options).await,
            Bench::Engine(options) => engine::run(options).await,
            Bench::EnginePart(options) => engine::part(options).await,
            Bench::Edge(options) => edge::run(options).await,
            Bench::Attack(options) => edge::attacked(options).await,
            Bench::Policy(options) => policy::run(options),
            Bench::EdgeServe(options) => edge::serve(options).await,
            Bench::Setup(options) => setup::run(options),
            Bench::SetupImage(options) => setup::image(options),
        }
    })
}

impl Common {
    /// The binary to measure: the one given, or the release build.
    fn landfall(&self) -> Result<PathBuf> {
        if let Some(program) = &self.landfall {
            return Ok(program.canonicalize()?);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = std::process::Command::new(cargo)
            .args(["build", "--release", "--package", "landfall"])
            .status()?;
        anyhow::ensure!(status.success(), "the release build failed");
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        Ok(target.join("release/landfall").canonicalize()?)
    }
}
