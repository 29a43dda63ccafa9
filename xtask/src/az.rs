//! The Azure CLI from its Python package, in the user's cache, a directory for each version.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::test::status;

/// The version that acceptance runs: the newest one that was studied.
pub(crate) const NEWEST: &str = "2.91.0";
/// The release of long-term support that still has the profile of Azure Stack.
pub(crate) const LTS: &str = "2.66.1";

/// The program of a version, installed if necessary.
pub(crate) fn installed(cache: &Path, version: &str) -> Result<PathBuf> {
    let dir = cache.join(format!("az/{version}"));
    let az = dir.join("bin/az");
    // An interrupted installation exists but does not run: made anew.
    let runs = || {
        let told = Command::new(&az)
            .arg("version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        told.is_ok_and(|status| status.success())
    };
    if runs() {
        return Ok(az);
    }
    println!(
        "installing azure-cli {version} into {} (about a minute)",
        dir.display()
    );
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    status(Command::new("python3").args(["-m", "venv"]).arg(&dir))?;
    status(
        Command::new(dir.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .arg(format!("azure-cli=={version}")),
    )?;
    // An older release may be installed with a newer Python than it supports.
    if !runs() {
        bail!(
            "azure-cli {version} is installed and does not run; '{} version' says why",
            az.display()
        );
    }
    Ok(az)
}
