//! `cargo xtask test`: README's second command. Sets up what the tests need, then runs all of them.
//!
//! Always true: set-up is repeatable and cached; every part runs even when an earlier one failed; the last line is
//! `N passed, N failed`, and the exit code says the same.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{cargo, chaos, docs, layers, top};

/// The Azure CLI that acceptance runs: the newest that was studied.
const AZURE_CLI: &str = "2.91.0";

/// Packages that only tests need; what the product needs, `landfall up` knows.
const PACKAGES: &[(&str, &str)] = &[
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("mmdebstrap", "mmdebstrap"),
    ("mount", "mount"),
];

/// What to leave out, while working on something.
#[derive(Args)]
pub(crate) struct Options {
    /// Leave out acceptance (a real stamp, real clusters, the real Azure CLI); needs neither root nor Go then
    #[arg(long)]
    no_acceptance: bool,
    /// Of acceptance, only scenarios whose name contains this
    #[arg(long, value_name = "TEXT", conflicts_with = "no_acceptance")]
    only: Option<String>,
}

/// Counts of what ran.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
}

impl Totals {
    /// A part that passes or fails as a whole.
    fn gate(&mut self, name: &str, run: impl FnOnce() -> Result<()>) {
        println!("\n== {name}");
        match run() {
            Ok(()) => self.passed += 1,
            Err(error) => {
                println!("FAILED {name}: {error:#}");
                self.failed += 1;
            }
        }
    }

    /// A part that counts by itself.
    fn counted(&mut self, name: &str, command: &mut Command) {
        println!("\n== {name}");
        match counted(command) {
            Ok((totals, success)) => {
                self.passed += totals.passed;
                // A program that ended badly without counting a failure did fail.
                self.failed += if success {
                    totals.failed
                } else {
                    totals.failed.max(1)
                };
            }
            Err(error) => {
                println!("FAILED {name}: {error:#}");
                self.failed += 1;
            }
        }
    }
}

/// Runs everything.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut totals = Totals::default();
    totals.gate("formatting", || status(cargo().args(["fmt", "--all", "--check"])));
    totals.gate("clippy", || {
        status(cargo().args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]))
    });
    totals.gate("layers", layers::check);
    totals.gate("generated documents", || docs::write(true));
    totals.counted(
        "tests",
        cargo().args(["test", "--quiet", "--workspace", "--no-fail-fast"]),
    );
    totals.gate("chaos: fixed seeds", chaos::fixed);
    totals.gate("chaos: every case", chaos::cases);
    if !options.no_acceptance {
        match set_up() {
            Ok(az) => totals.counted("acceptance", &mut acceptance(&az, options)),
            Err(error) => {
                println!("FAILED set-up: {error:#}");
                totals.failed += 1;
            }
        }
    }
    println!("\n{} passed, {} failed", totals.passed, totals.failed);
    if totals.failed > 0 {
        bail!("{} failed", totals.failed)
    }
    Ok(())
}

fn acceptance(az: &Path, options: &Options) -> Command {
    let mut command = cargo();
    command
        .args(["run", "--quiet", "--package", "acceptance", "--", "--landfall"])
        .arg(landfall())
        .arg("--az")
        .arg(az);
    if let Some(only) = &options.only {
        command.args(["--only", only]);
    }
    command
}

fn landfall() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top().join("target"), PathBuf::from);
    target.join("debug/landfall")
}

/// Everything acceptance needs: packages, the binary, the node image, the Azure CLI. Returns the last.
fn set_up() -> Result<PathBuf> {
    println!("\n== set-up for acceptance");
    if crate::output(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!(
            "acceptance makes machines and networks, which only root may; repeat as root, or with --no-acceptance"
        );
    }
    install_packages()?;
    status(cargo().args([
        "build",
        "--quiet",
        "--package",
        "landfall",
        "--package",
        "acceptance",
    ]))?;
    println!("node images (built once, about 10 and 8 minutes on 2 cores)");
    for version in cluster_versions::PINNED {
        status(Command::new(landfall()).args(["image", "build", "--kubernetes", version]))?;
    }
    azure_cli()
}

fn present(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}

fn install_packages() -> Result<()> {
    let mut missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(program, _)| !present(program))
        .map(|(_, package)| *package)
        .collect();
    if !present("python3") {
        missing.push("python3");
    }
    let venv = Command::new("python3")
        .args(["-c", "import ensurepip"])
        .stderr(Stdio::null())
        .status();
    if !venv.is_ok_and(|status| status.success()) {
        missing.push("python3-venv");
    }
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing Debian packages: {}", missing.join(" "));
    let install = || {
        status(
            Command::new("apt-get")
                .args(["install", "--yes", "--quiet", "--no-install-recommends"])
                .args(&missing)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    if install().is_err() {
        status(Command::new("apt-get").args(["update", "--quiet"]))?;
        install()?;
    }
    Ok(())
}

/// The Azure CLI from its Python package, in the user's cache.
fn azure_cli() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    let dir = cache.join(format!("landfall/az/{AZURE_CLI}"));
    let az = dir.join("bin/az");
    // An installation that was cut short is there and does not run: made anew.
    let runs = Command::new(&az)
        .arg("version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if runs.is_ok_and(|status| status.success()) {
        return Ok(az);
    }
    println!(
        "installing azure-cli {AZURE_CLI} into {} (about a minute)",
        dir.display()
    );
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    status(Command::new("python3").args(["-m", "venv"]).arg(&dir))?;
    status(
        Command::new(dir.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .arg(format!("azure-cli=={AZURE_CLI}")),
    )?;
    Ok(az)
}

fn status(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!("{name} ended with {status}");
    }
    Ok(())
}

/// Runs a program, shows what it writes, and adds up its `N passed` and `N failed`.
fn counted(command: &mut Command) -> Result<(Totals, bool)> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let stdout = child.stdout.take().context("the child has an output")?;
    let mut totals = Totals::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read the child's output")?;
        println!("{line}");
        if let Some((passed, failed)) = counts(&line) {
            totals.passed += passed;
            totals.failed += failed;
        }
    }
    let success = child.wait().context("cannot wait for the child")?.success();
    Ok((totals, success))
}

/// The counts of a summary line: `test result: ok. 3 passed; 0 failed; …` or `acceptance: 3 passed, 0 failed`.
fn counts(line: &str) -> Option<(u64, u64)> {
    let rest = line
        .strip_prefix("test result: ")
        .or_else(|| line.trim_start().strip_prefix("acceptance: "))?;
    let words: Vec<&str> = rest
        .split([' ', ';', ',', '.'])
        .filter(|word| !word.is_empty())
        .collect();
    let before = |what: &str| {
        let at = words.iter().position(|word| *word == what)?;
        words.get(at.checked_sub(1)?)?.parse().ok()
    };
    Some((before("passed")?, before("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_counted_and_other_lines_are_not() {
        assert_eq!(
            counts("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured"),
            Some((12, 0))
        );
        assert_eq!(
            counts("test result: FAILED. 2 passed; 3 failed; 0 ignored"),
            Some((2, 3))
        );
        assert_eq!(counts("acceptance: 40 passed, 1 failed"), Some((40, 1)));
        assert_eq!(counts("5 passed, 5 failed in my log"), None);
    }

    #[test]
    fn a_program_that_ends_badly_has_failed() {
        let mut totals = Totals::default();
        totals.counted(
            "x",
            Command::new("sh").args(["-c", "echo 'test result: ok. 2 passed; 0 failed'; exit 3"]),
        );
        assert_eq!(totals, Totals { passed: 2, failed: 1 });
    }
}
