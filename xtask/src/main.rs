//! The project's own tools: `cargo xtask layers|docs|test|acceptance|acceptance-lts|terraform|takeover|conformance|chaos|fuzz|bench`.
//!
//! Always true: a task that finds a problem prints it with its place, and ends with exit code 1. Called by:
//! people, and `.ci/run`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for developers; it has no printer"
)]

mod az;
mod az_commands;
mod binaries;
mod chaos;
mod clients;
mod conformance;
mod docs;
mod earlier;
mod fuzz;
mod kubelogin;
mod layers;
mod sdk;
mod terraform;
mod test;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

/// Landfall's own tools.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check that every crate depends on lower layers only, and on nothing that it does not use
    Layers,
    /// Write the generated reference pages under docs/reference
    Docs {
        /// Write nothing; fail if a page is stale
        #[arg(long)]
        check: bool,
    },
    /// Set up what the tests need, and run all of them; of acceptance the part that this commit chooses
    Test(test::Options),
    /// All of acceptance: a real stamp, real clusters, the real Azure CLI
    Acceptance(test::AcceptanceOptions),
    /// Acceptance with the Azure CLI of long-term support, in the profile of Azure Stack
    AcceptanceLts,
    /// Acceptance with Terraform and its provider azurerm, which is compiled once
    Terraform(clients::TerraformOptions),
    /// An earlier commit's stamp with two clusters is taken over by this checkout, under load
    Takeover(clients::TakeoverOptions),
    /// Upstream's end-to-end tests against a stamp of this checkout
    #[command(disable_help_flag = true)]
    Conformance {
        /// What the tests themselves take; `--help` lists it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Random requests, faults, deaths and broken machines over the simulated control plane
    Chaos(chaos::Options),
    /// Requests that nobody should send, at the whole service in one process
    Fuzz(fuzz::Options),
    /// Measure against the bare-process floor: `bench create|idle|data|engine|edge|attack|setup [--json]`
    #[command(disable_help_flag = true)]
    Bench {
        /// What the bench itself takes; `--help` lists it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Args::parse().task {
        Task::Layers => layers::check(),
        Task::Docs { check } => docs::write(check),
        Task::Test(options) => test::run(&options),
        Task::Acceptance(options) => test::acceptance(&options),
        Task::AcceptanceLts => clients::lts(),
        Task::Terraform(options) => clients::terraform(&options),
        Task::Takeover(options) => clients::takeover(&options),
        Task::Conformance { options } => conformance::run(&options),
        Task::Chaos(options) => chaos::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Bench { options } => bench(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Benches are a separate program, built with --release, so that the other tasks do not need its
/// dependencies.
fn bench(options: &[String]) -> Result<()> {
    let status = cargo()
        .args(["run", "--quiet", "--release", "--package", "bench", "--"])
        .args(options)
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the bench ended with {status}");
    }
    Ok(())
}

/// The top folder of the repository in which the task runs. Several checkouts may share a target directory,
/// so the place of this program is not used.
fn top() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    xtask.parent().expect("xtask lies in the top folder").to_owned()
}

/// Builds the workspace's binaries and tests in one go: built one by one, dependencies would be compiled once
/// for each requested set of features.
fn build_binaries() -> Result<()> {
    build(&["--workspace", "--bins", "--tests"])
}

fn build(what: &[&str]) -> Result<()> {
    let status = cargo()
        .args(["build", "--quiet"])
        .args(what)
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the workspace does not build");
    }
    Ok(())
}

/// A binary of the workspace, once it is built.
fn binary(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top().join("target"), PathBuf::from);
    target.join("debug").join(name)
}

/// The cargo that runs us.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(top());
    command
}

/// Go in a module. Settings of proxies and checksum databases are the user's; other settings of a user are
/// ignored.
fn go(module: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(module)
        .env("GOFLAGS", "")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0");
    go
}

/// Runs to the end and returns its output.
fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!(
            "{name} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} wrote no text"))
}
