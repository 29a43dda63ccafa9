//! `cargo xtask fuzz`: invalid requests, mutated in body, path, query and headers, to the whole service in
//! one process.
//!
//! A part of them is a test of the simulation and runs on every change.

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::cargo;

/// The requests to send.
#[derive(Args)]
pub(crate) struct Options {
    /// How many requests
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    requests: u64,
    /// The seed
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Only this epoch (the requests of one stamp): what a failure prints
    #[arg(long, value_name = "N", conflicts_with = "requests")]
    epoch: Option<u64>,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: u64,
    /// One JSON object as the last line
    #[arg(long)]
    json: bool,
}

/// Sends them.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut command = cargo();
    command.args([
        "run",
        "--quiet",
        "--release",
        "--package",
        "simulation",
        "--",
        "fuzz",
    ]);
    command
        .args(["--requests", &options.requests.to_string()])
        .args(["--seed", &options.seed.to_string()])
        .args(["--jobs", &options.jobs.to_string()]);
    if let Some(epoch) = options.epoch {
        command.args(["--epoch", &epoch.to_string()]);
    }
    if options.json {
        command.arg("--json");
    }
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the simulation ended with {status}");
    }
    Ok(())
}
