//! Acceptance: unmodified clients (`az`, `kubectl`) against a real stamp with real clusters.
//!
//! `cargo run -p acceptance -- --landfall target/debug/landfall --az PATH` makes a separate stamp (random
//! name, no uplink, its own state directory and port), runs every scenario as a user would, takes the stamp
//! down, and checks that nothing is left on the host. It prints a line per step and ends with `N passed, N
//! failed`.
//!
//! Always true: a step checks the contents of responses, not only the success; waiting is for a condition
//! with a time limit; the stamp is taken down after any failure.

mod calls;
mod clients;
mod host;
mod journal;
mod loaded;
mod part;
mod scenarios;
mod stamp;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

/// Walks through Landfall with real clients.
#[derive(Parser)]
struct Args {
    /// The `landfall` binary to try.
    #[arg(long)]
    landfall: PathBuf,
    /// The Azure CLI.
    #[arg(long)]
    az: PathBuf,
    /// A Python with Azure's SDK, as `VERSION=PROGRAM`; repeat it for more.
    #[arg(long, value_parser = Program::parse)]
    sdk: Vec<Program>,
    /// A directory with Azure's SDK for JavaScript, as `VERSION=DIRECTORY`; repeat it for more.
    #[arg(long, value_parser = Program::parse)]
    sdk_js: Vec<Program>,
    /// kubelogin; without it, who is known to a cluster is not tried.
    #[arg(long)]
    kubelogin: Option<PathBuf>,
    /// The Azure CLI that still has the profile of Azure Stack, for the scenario `lts`.
    #[arg(long)]
    az_lts: Option<PathBuf>,
    /// Terraform, for the scenario `terraform`.
    #[arg(long)]
    terraform: Option<PathBuf>,
    /// A directory with Terraform's provider `azurerm`, for the scenario `terraform`.
    #[arg(long)]
    azurerm: Option<PathBuf>,
    /// The `landfall` binary of an earlier release, for the scenario `takeover`.
    #[arg(long)]
    earlier: Option<PathBuf>,
    /// Only scenarios whose name contains this.
    #[arg(long, conflicts_with = "part")]
    only: Option<String>,
    /// Only one of several parts that together are all scenarios, as `K/N`.
    #[arg(long, value_parser = part::Part::parse)]
    part: Option<part::Part>,
    /// Leave the stamp running at the end, to look around.
    #[arg(long)]
    keep: bool,
}

/// A client in one of its versions.
#[derive(Debug, Clone)]
struct Program {
    version: String,
    path: PathBuf,
}

impl Program {
    fn parse(text: &str) -> Result<Self, String> {
        let (version, path) = text
            .split_once('=')
            .ok_or_else(|| format!("{text} is no VERSION=PROGRAM"))?;
        Ok(Self {
            version: version.to_owned(),
            path: path.into(),
        })
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let journal = journal::Journal::default();
    let outcome = scenarios::run(&args, &journal);
    if let Err(error) = &outcome {
        journal.note(&format!("stopped: {error:#}"));
    }
    let (passed, failed) = journal.totals();
    let failed = if outcome.is_err() { failed.max(1) } else { failed };
    journal.note(&format!("acceptance: {passed} passed, {failed} failed"));
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
