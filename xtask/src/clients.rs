//! Acceptance with clients that are too heavy for every run, each under a separate command: an older Azure
//! CLI, Terraform with its provider, and an earlier release of Landfall itself.
//!
//! Always true: installed and compiled programs are kept in the user's cache by their content, and are made
//! once; missing prerequisites of the host are reported before any long step.

use std::{path::Path, process::Command};

use anyhow::Result;
use clap::Args;

use crate::{
    az, binary, build, earlier, terraform,
    test::{self, cache, status},
};

/// `cargo xtask terraform`.
#[derive(Args)]
pub(crate) struct TerraformOptions {
    /// Only compile what is compiled, and run nothing; needs no root
    #[arg(long)]
    set_up: bool,
}

/// The long-term release of the Azure CLI in the profile of Azure Stack.
pub(crate) fn lts() -> Result<()> {
    let ready = set_up()?;
    let lts = az::installed(&cache()?, az::LTS)?;
    acceptance(&ready, "lts", &[("--az-lts", &lts)])
}

/// Terraform with the provider `azurerm`.
pub(crate) fn terraform(options: &TerraformOptions) -> Result<()> {
    // Fails before an hour of compiling if the user is not root.
    let ready = if options.set_up { None } else { Some(set_up()?) };
    let program = terraform::program(&cache()?)?;
    let azurerm = terraform::provider(&cache()?)?;
    match ready {
        Some(ready) => acceptance(
            &ready,
            "terraform",
            &[("--terraform", &program), ("--azurerm", &azurerm)],
        ),
        None => Ok(()),
    }
}

/// `cargo xtask takeover`.
#[derive(Args)]
pub(crate) struct TakeoverOptions {
    /// The earlier release: a commit of this repository
    #[arg(long)]
    from: String,
}

/// A stamp with two clusters, made by an earlier commit's `landfall` and taken over by this one.
pub(crate) fn takeover(options: &TakeoverOptions) -> Result<()> {
    let ready = set_up()?;
    let program = earlier::landfall(&cache()?, &options.from)?;
    acceptance(&ready, "takeover", &[("--earlier", &program)])
}

fn set_up() -> Result<test::Ready> {
    build(&["--workspace", "--bins"])?;
    test::set_up()
}

fn acceptance(ready: &test::Ready, only: &str, programs: &[(&str, &Path)]) -> Result<()> {
    let mut command = Command::new(binary("acceptance"));
    command
        .arg("--landfall")
        .arg(binary("landfall"))
        .arg("--az")
        .arg(&ready.az)
        .args(["--only", only]);
    for (option, program) in programs {
        command.arg(option).arg(program);
    }
    status(&mut command)
}
