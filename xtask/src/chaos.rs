//! `cargo xtask chaos`: random requests and faults over the simulated control plane, or every generated case.
//!
//! The simulation is a separate program, built with `--release`, so that ten thousand seeds take minutes. The
//! part that runs on every change uses the binary built for the tests: it has overflow checks, and another
//! build would take longer than it saves.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{binary, cargo};

/// The scope of a run.
#[derive(Args)]
pub(crate) struct Options {
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 200)]
    seeds: u64,
    /// The first of them
    #[arg(long, value_name = "S", default_value_t = 1)]
    start: u64,
    /// Only this one, with all that happened: what a failing seed prints
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "start", "cases"])]
    seed: Option<u64>,
    /// Instead of seeds: every operation × every step × every fault
    #[arg(long, conflicts_with_all = ["seeds", "start"])]
    cases: bool,
    /// Of the cases, only those whose line contains this, e.g. 'scale-up 12 hangs'
    #[arg(long, value_name = "TEXT", requires = "cases")]
    only: Option<String>,
    /// Of the cases, only one in so many
    #[arg(long, value_name = "N", requires = "cases", default_value_t = 1)]
    every: u64,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: u64,
    /// One JSON object as the last line
    #[arg(long)]
    json: bool,
}

/// How many seeds are played on every change.
const FIXED: u64 = 200;

/// Of all cases, one in so many is played on every change. No divisor of the numbers of faults and steps: over the operations it
/// takes in every fault.
const ONE_CASE_IN: u64 = 97;

/// The fixed set of seeds.
pub(crate) fn fixed() -> Result<()> {
    play(Command::new(binary("simulation")), &on_every_change(false))
}

/// A fixed part of every operation × every step × every fault; `cargo xtask chaos --cases` plays all.
pub(crate) fn some_cases() -> Result<()> {
    play(Command::new(binary("simulation")), &on_every_change(true))
}

fn on_every_change(cases: bool) -> Options {
    Options {
        every: if cases { ONE_CASE_IN } else { 1 },
        seeds: FIXED,
        start: 1,
        seed: None,
        cases,
        only: None,
        jobs: 2,
        json: false,
    }
}

/// Plays.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--release", "--package", "simulation", "--"]);
    play(command, options)
}

fn play(mut command: Command, options: &Options) -> Result<()> {
    if options.cases {
        command.arg("cases");
        if let Some(only) = &options.only {
            command.args(["--only", only]);
        }
        command.args(["--every", &options.every.to_string()]);
    } else {
        command.arg("chaos");
        match options.seed {
            Some(seed) => command.args(["--seed", &seed.to_string()]),
            None => command
                .args(["--seeds", &options.seeds.to_string()])
                .args(["--start", &options.start.to_string()]),
        };
    }
    command.args(["--jobs", &options.jobs.to_string()]);
    if options.json {
        command.arg("--json");
    }
    let status = command.status().context("cannot run the simulation")?;
    if !status.success() {
        bail!("the simulation ended with {status}");
    }
    Ok(())
}
