//! Upstream's own end-to-end tests against a stamp: `cargo xtask conformance`.
//!
//! The tests, their runner and their images are made here from the Go modules of the very Kubernetes version
//! that the stamp runs, and from Debian's packages; no registry is used. A stamp without uplink is made with
//! one cluster, the images are loaded onto its nodes under the names that the tests use, and the tests run:
//! first those that may run in parallel, then the serial ones.
//!
//! Always true: exit code 0 means that every chosen test has passed, no test is counted that did not run, and
//! missing images are named; built programs and images are kept by their content and made once; passed tests
//! are recorded at once, so that a killed run can continue.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for developers; it has no printer"
)]

mod cluster;
mod debian;
mod images;
mod place;
mod programs;
mod progress;
mod report;
mod run;
mod specs;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Parser;

use crate::{
    cluster::Cluster,
    place::Place,
    report::{Journal, Summary},
    run::Setting,
};

/// Run upstream's end-to-end tests against a stamp of this checkout.
#[derive(Parser)]
#[command(name = "cargo xtask conformance", after_help = HELP)]
struct Args {
    /// Kubernetes version, as 1.37 or 1.37.1 [default: the one that a stamp offers first]
    #[arg(long, value_name = "VERSION")]
    kubernetes: Option<String>,
    /// Which tests: a regular expression of Go for their whole names
    #[arg(long, value_name = "REGEX", default_value = r"\[Conformance\]")]
    focus: String,
    /// Of those, which not
    #[arg(long, value_name = "REGEX")]
    skip: Option<String>,
    /// Of those, only this many, spread over all parts of Kubernetes
    #[arg(long, value_name = "COUNT")]
    sample: Option<usize>,
    /// Which ones `--sample` takes: the same seed takes the same
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Nodes of the cluster
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    nodes: u32,
    /// How many tests run side by side, of those that may
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    parallel: u32,
    /// Leave out what has passed before, as far as it is the same tests
    #[arg(long)]
    resume: bool,
    /// Use the stamp of this name, made where there is none, and keep it
    #[arg(long, value_name = "NAME")]
    stamp: Option<String>,
    /// Only build what is built (programs, images), and run nothing
    #[arg(long, conflicts_with = "list")]
    set_up: bool,
    /// Only print the names of the tests that would run; needs no root
    #[arg(long)]
    list: bool,
    /// The `landfall` binary to try
    #[arg(long, hide = true)]
    landfall: PathBuf,
    /// Where what is made is kept
    #[arg(long, hide = true)]
    cache: PathBuf,
    /// The folder with `components` and `conformance`
    #[arg(long, hide = true)]
    checkout: PathBuf,
}

const HELP: &str = "\
Examples:
  cargo xtask conformance                                # [Conformance], all of it
  cargo xtask conformance --kubernetes 1.37 --resume     # goes on where a run stopped
  cargo xtask conformance --focus 'sig-network.*Services' --stamp try
  cargo xtask conformance --sample 40 --seed 7 --skip '\\[Serial\\]|\\[Slow\\]|\\[Disruptive\\]'

Everything is kept below the cache directory, in conformance/VERSION-KEY: programs, images, and results with a summary, JUnit and logs
for each run. docs/reference/conformance.md says what is made of what.";

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all that was chosen has passed.
fn run(args: &Args) -> Result<bool> {
    if args.nodes == 0 || args.parallel == 0 || args.sample == Some(0) {
        bail!("--nodes, --parallel and --sample want at least 1");
    }
    let version = version(args.kubernetes.as_deref())?;
    let place = Place::open(&args.checkout, &args.cache, version)?;
    let programs = programs::have(&place, &programs::FOR_LISTS)?;
    let mut chosen = specs::list(&programs, &place, &args.focus, args.skip.as_deref())?;
    if let Some(count) = args.sample {
        chosen.specs = specs::sample(chosen.specs, count, args.seed);
    }
    if chosen.specs.is_empty() {
        bail!(
            "no test matches --focus '{}'{}",
            args.focus,
            args.skip
                .as_deref()
                .map_or_else(String::new, |skip| format!(" without --skip '{skip}'"))
        );
    }
    if args.list {
        for spec in &chosen.specs {
            println!("{}", spec.name);
        }
        return Ok(true);
    }
    let programs = programs::have(&place, &programs::ALL)?;
    let images = images::have(&place, &programs)?;
    if args.set_up {
        println!("{} images in {}", images.made.len(), place.images().display());
        return Ok(true);
    }
    let landfall = args.landfall.canonicalize().context("--landfall")?;
    let mut journal = Journal::open(&place.results(), &place::digest_of(&landfall)?)?;
    let total = chosen.specs.len();
    let before = if args.resume {
        journal.leave_out(&mut chosen.specs)
    } else {
        report::Before::default()
    };
    if args.resume {
        println!("{} of {total} passed before and are left out", before.passed);
    }
    let mut summary = Summary::new(version, args.nodes, before, images.missing.clone());
    if !chosen.specs.is_empty() {
        let cluster = Cluster::up(&landfall, version, args.nodes, args.stamp.as_deref())?;
        let outcome = cluster.load(&images).and_then(|()| {
            let setting = Setting {
                programs: &programs,
                cluster: &cluster,
                parallel: args.parallel,
            };
            run::all(&setting, &chosen, &mut journal, &mut summary)
        });
        // In any case; the tests' own error takes precedence.
        let down = cluster.down();
        outcome?;
        down?;
    }
    let text = summary.text();
    print!("{text}");
    summary.write(&place.results())?;
    println!("kept in {}", place.results().display());
    Ok(summary.is_good())
}

/// One of the versions that are pinned: `1.37`, `1.37.1` or `v1.37.1`.
fn version(wanted: Option<&str>) -> Result<&'static str> {
    let pinned = cluster_versions::PINNED;
    let Some(wanted) = wanted else {
        return pinned.first().copied().context("no version is pinned");
    };
    let number = wanted.strip_prefix('v').unwrap_or(wanted);
    pinned
        .iter()
        .find(|version| **version == number || place::minor(version) == number)
        .copied()
        .with_context(|| format!("Kubernetes {wanted} is not among {}", pinned.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_can_be_named_in_three_ways() {
        assert_eq!(version(None).unwrap(), cluster_versions::PINNED[0]);
        for pinned in cluster_versions::PINNED {
            let named = format!("v{pinned}");
            for name in [pinned, named.as_str(), place::minor(pinned)] {
                assert_eq!(version(Some(name)).unwrap(), *pinned);
            }
        }
        assert!(
            version(Some("1.3"))
                .unwrap_err()
                .to_string()
                .contains("1.3 is not among")
        );
    }
}
