//! Benches: what the product costs against the bare-process floor, measured in the same run.
//!
//! Called by `cargo xtask bench`. Always true: nothing here asserts a time; each bench prints what it saw and, with
//! `--json`, one last line for programs; what it makes on the host is gone when it ends.

mod arm;
mod create;
mod floor;
mod idle;
mod kube;
mod memory;
mod simulated;

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
    Idle(Idle),
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
    #[command(flatten)]
    common: Common,
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
