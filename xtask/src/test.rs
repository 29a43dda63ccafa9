//! `cargo xtask test`: README's second command. Sets up the tests' prerequisites, then runs all tests, and of
//! acceptance the part that this commit chooses. `cargo xtask acceptance` runs all of acceptance.
//!
//! Always true: set-up is repeatable and cached; every part runs even when an earlier one failed; a test that
//! could not run on this host counts as skipped and is named; the last line is `N passed, N failed, N
//! skipped`, and the exit code agrees with it.
#![expect(
    clippy::disallowed_methods,
    reason = "a test run is told with the host's own stopwatch"
)]

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use base_testkit::needs;

use crate::{
    az, binaries, binary, build_binaries, cargo, chaos, docs, kubelogin, layers,
    sdk::{self, Sdk},
};

/// Packages that only tests need; `landfall up` installs those of the product.
const PACKAGES: &[(&str, &str)] = &[
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("mmdebstrap", "mmdebstrap"),
    ("mount", "mount"),
    ("unshare", "util-linux"),
    ("busybox", "busybox-static"),
    // The set-up builds node images, and runc in them is partly in C. Headers are looked for by their paths.
    ("gcc", "gcc"),
    ("/usr/include/stdio.h", "libc6-dev"),
    ("pkg-config", "pkg-config"),
    ("/usr/include/seccomp.h", "libseccomp-dev"),
];

/// Parts to leave out during development.
#[derive(Args)]
pub(crate) struct Options {
    /// Leave out acceptance (a real stamp, real clusters, the real Azure CLI); needs neither root nor Go then
    #[arg(long, conflicts_with_all = ["only", "part"])]
    no_acceptance: bool,
    #[command(flatten)]
    acceptance: AcceptanceOptions,
    /// Only set up what the tests need (packages, node images, the Azure CLI), and run nothing
    #[arg(long, conflicts_with_all = ["no_acceptance", "only", "part"])]
    set_up: bool,
}

/// Which scenarios of acceptance to play.
#[derive(Args)]
pub(crate) struct AcceptanceOptions {
    /// Of acceptance, only scenarios whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Of acceptance, one of several parts that together are all scenarios
    #[arg(long, value_name = "K/N", conflicts_with = "only")]
    part: Option<String>,
}

/// The number of parts of acceptance for tests of a change: all of it takes longer than all other tests
/// together.
const PARTS: u64 = 3;

impl AcceptanceOptions {
    /// With the part that the present commit chooses, unless one was given: a commit always runs the same
    /// part, and a few commits run all.
    fn of_commit(&self) -> Self {
        let part = self.part.clone().or_else(|| match self.only {
            Some(_) => None,
            None => Some(format!("{}/{PARTS}", part_of(&commit()))),
        });
        Self {
            only: self.only.clone(),
            part,
        }
    }

    fn asks_for(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| name.contains(only))
    }
}

/// The id of the present commit; empty where the checkout has none.
fn commit() -> String {
    let mut git = Command::new("git");
    let output = git.args(["rev-parse", "HEAD"]).current_dir(crate::top()).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// The part of acceptance, from 1, that a commit chooses.
fn part_of(commit: &str) -> u64 {
    let digits = commit
        .get(..8)
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    digits.unwrap_or_default() % PARTS + 1
}

/// Counts of tests.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Totals {
    /// A part that passes or fails as a whole.
    fn gate(&mut self, name: &str, run: impl FnOnce() -> Result<()>) {
        println!("\n== {name}");
        let begun = Instant::now();
        match run() {
            Ok(()) => self.passed += 1,
            Err(error) => {
                println!("FAILED {name}: {error:#}");
                self.failed += 1;
            }
        }
        took(name, begun);
    }

    /// A part that prints its own counts.
    fn counted(&mut self, name: &str, command: &mut Command) {
        println!("\n== {name}");
        let begun = Instant::now();
        self.came_to(name, counted(command));
        took(name, begun);
    }

    /// The workspace's test binaries, each with its own counts.
    fn binaries(&mut self, name: &str, environment: &[(&str, OsString)]) {
        println!("\n== {name}");
        let begun = Instant::now();
        match binaries::jobs(environment) {
            Ok(jobs) => binaries::run(jobs, |ended| {
                println!("\n{}: {:.1} s", ended.name, ended.seconds);
                let outcome = ended
                    .outcome
                    .context("cannot run it")
                    .map(|output| shown(&output));
                self.came_to(&ended.name, outcome);
            }),
            Err(error) => self.came_to(name, Err(error)),
        }
        took(name, begun);
    }

    /// Adds the counts that a program printed, and whether it ended well.
    fn came_to(&mut self, name: &str, outcome: Result<(Totals, bool)>) {
        match outcome {
            Ok((totals, success)) => {
                self.passed += totals.passed;
                // A program that ended badly without counting a failure did fail.
                self.failed += if success {
                    totals.failed
                } else {
                    totals.failed.max(1)
                };
                if !success {
                    println!("FAILED {name}");
                }
            }
            Err(error) => {
                println!("FAILED {name}: {error:#}");
                self.failed += 1;
            }
        }
    }

    /// Acceptance, with the scenarios that could not run without a client.
    fn acceptance(&mut self, ready: &Ready, options: &AcceptanceOptions) {
        if let Some(part) = &options.part {
            println!("\nacceptance: part {part}; all of it: cargo xtask acceptance");
        }
        self.counted("acceptance", &mut acceptance_of(ready, options));
        if let (Err(why), true) = (&ready.kubelogin, options.asks_for("kubernetes-access")) {
            println!("skipped acceptance kubernetes-access: kubelogin: {why}");
            self.skipped += 1;
        }
        if options.asks_for("sdk") {
            for sdk in &ready.sdks {
                if let Err(why) = &sdk.place {
                    println!(
                        "skipped acceptance sdk: {} {}: {why}",
                        sdk.kind.package(),
                        sdk.version
                    );
                    self.skipped += 1;
                }
            }
        }
    }

    /// Prints the last line; fails if a test failed.
    fn told(&self) -> Result<()> {
        println!(
            "\n{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        );
        if self.failed > 0 {
            bail!("{} failed", self.failed)
        }
        Ok(())
    }

    /// Adds the counts of a summary line.
    fn add(&mut self, line: &str) {
        if let Some((passed, failed)) = counts(line) {
            self.passed += passed;
            self.failed += failed;
        }
    }

    /// Rust counts a test that returned early as passed: tests that reported that they could not run are
    /// subtracted and named.
    fn without_skipped(&mut self, list: &Path) -> Result<()> {
        let lines = match std::fs::read_to_string(list) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.with_context(|| format!("cannot read {}", list.display()))?,
        };
        for line in lines.lines() {
            println!("skipped {line}");
            self.passed = self.passed.saturating_sub(1);
            self.skipped += 1;
        }
        Ok(())
    }
}

fn took(name: &str, begun: Instant) {
    println!("-- {name}: {:.0} s", begun.elapsed().as_secs_f64());
}

/// Runs all parts.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut totals = Totals::default();
    if options.set_up {
        // An existing one is sufficient: the set-up depends on content, not on the program that makes it.
        if !binary("landfall").is_file() {
            build_binaries()?;
        }
        return set_up().map(drop);
    }
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
    totals.gate("build", build_binaries);
    totals.gate("generated documents", || docs::compare(true));
    let mut ready = None;
    if !options.no_acceptance {
        totals.gate("set-up", || {
            ready = Some(set_up()?);
            Ok(())
        });
    }
    let skipped = tempfile::tempdir().context("cannot make a directory")?;
    let list = skipped.path().join("skipped");
    let mut environment = vec![(needs::SKIPPED, list.clone().into_os_string())];
    if let Some(ready) = &ready {
        totals.gate("programs of the node image", || {
            environment.extend(ready.programs()?);
            Ok(())
        });
    }
    totals.binaries("tests", &environment);
    totals.without_skipped(&list)?;
    totals.gate("chaos: fixed seeds", chaos::fixed);
    totals.gate("chaos: a part of all cases", chaos::some_cases);
    if let Some(ready) = &ready {
        totals.acceptance(ready, &options.acceptance.of_commit());
    }
    totals.told()
}

/// `cargo xtask acceptance`: all of it, or the requested part.
pub(crate) fn acceptance(options: &AcceptanceOptions) -> Result<()> {
    build_binaries()?;
    let ready = set_up()?;
    let mut totals = Totals::default();
    totals.acceptance(&ready, options);
    totals.told()
}

/// The prerequisites of tests and acceptance on this host, after set-up.
pub(crate) struct Ready {
    pub(crate) az: PathBuf,
    sdks: Vec<Sdk>,
    /// kubelogin, or why there is none.
    kubelogin: Result<PathBuf, String>,
    /// Of the node image that a stamp offers by default, top first.
    layers: Vec<PathBuf>,
}

impl Ready {
    /// Tests that run upstream programs take them from the node image. A missing one that it should have is a
    /// fault, not a reason to skip tests.
    fn programs(&self) -> Result<Vec<(&'static str, OsString)>> {
        let mut named = vec![(needs::LAYERS, std::env::join_paths(&self.layers)?)];
        for (variable, program) in [(needs::ETCD, "etcd"), (needs::ETCDUTL, "etcdutl")] {
            let places = ["usr/local/bin", "usr/bin"];
            let found = self
                .layers
                .iter()
                .flat_map(|layer| places.map(|place| layer.join(place).join(program)))
                .find(|path| path.is_file())
                .with_context(|| format!("the node image has no {program}"))?;
            named.push((variable, found.into_os_string()));
        }
        Ok(named)
    }
}

fn acceptance_of(ready: &Ready, options: &AcceptanceOptions) -> Command {
    let mut command = Command::new(binary("acceptance"));
    command
        .arg("--landfall")
        .arg(binary("landfall"))
        .arg("--az")
        .arg(&ready.az);
    for sdk in &ready.sdks {
        if let Some(argument) = sdk.argument() {
            command.args(argument);
        }
    }
    if let Ok(kubelogin) = &ready.kubelogin {
        command.arg("--kubelogin").arg(kubelogin);
    }
    if let Some(only) = &options.only {
        command.args(["--only", only]);
    }
    if let Some(part) = &options.part {
        command.args(["--part", part]);
    }
    command
}

/// Installs or builds the prerequisites of tests with real programs and of acceptance: packages, the binary,
/// the node images, the Azure CLI.
pub(crate) fn set_up() -> Result<Ready> {
    if crate::output(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!(
            "acceptance makes machines and networks, which only root may; repeat as root, or with --no-acceptance"
        );
    }
    install_packages()?;
    println!("node images (built once, about 10 and 8 minutes on 2 cores)");
    for version in cluster_versions::PINNED {
        status(Command::new(binary("landfall")).args(["image", "build", "--kubernetes", version]))?;
    }
    Ok(Ready {
        az: az::installed(&cache()?, az::NEWEST)?,
        sdks: sdk::installed(&cache()?)?,
        kubelogin: kubelogin::built(&cache()?)?,
        layers: layers_of(cluster_versions::PINNED[0])?,
    })
}

/// The layers of an existing node image, top first.
fn layers_of(version: &str) -> Result<Vec<PathBuf>> {
    let text = crate::output(Command::new(binary("landfall")).args(["image", "list", "--output", "json"]))?;
    let images: Vec<serde_json::Value> =
        serde_json::from_str(&text).context("'landfall image list' answered no JSON")?;
    let layers = images
        .iter()
        .find(|image| image["version"] == version && image["built"] == true)
        .and_then(|image| image["layers"].as_array())
        .with_context(|| format!("'landfall image list' shows no node image {version}"))?;
    Ok(layers
        .iter()
        .filter_map(|layer| layer.as_str())
        .map(PathBuf::from)
        .collect())
}

fn present(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}

/// Installs the missing Debian packages that the tests need.
pub(crate) fn install_packages() -> Result<()> {
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

/// Where clients are installed: in the user's cache.
pub(crate) fn cache() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(cache.join("landfall"))
}

pub(crate) fn status(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!("{name} ended with {status}");
    }
    Ok(())
}

/// Runs a program, prints its output, and sums its `N passed` and `N failed`.
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
        totals.add(&line);
    }
    let success = child.wait().context("cannot wait for the child")?.success();
    Ok((totals, success))
}

/// Prints the output of a program that has ended, and sums it as [`counted`] does.
fn shown(output: &Output) -> (Totals, bool) {
    let mut totals = Totals::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        println!("{line}");
        totals.add(line);
    }
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    (totals, output.status.success())
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
    fn a_commit_chooses_its_part() {
        assert_eq!(part_of("00000000ffffffff"), 1);
        assert_eq!(part_of("00000004ffffffff"), 2);
        assert_eq!(part_of("fffffffe"), 3);
        assert_eq!(part_of(""), 1, "no repository");
    }

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
        assert_eq!(
            totals,
            Totals {
                passed: 2,
                failed: 1,
                skipped: 0
            }
        );
    }

    #[test]
    fn a_skipped_test_has_not_passed() {
        let directory = tempfile::tempdir().expect("a directory");
        let list = directory.path().join("skipped");
        let mut totals = Totals {
            passed: 3,
            ..Totals::default()
        };
        totals.without_skipped(&list).expect("no list: none was skipped");
        std::fs::write(&list, "a: needs root\nb: needs etcd\n").expect("writable");
        totals.without_skipped(&list).expect("readable");
        assert_eq!((totals.passed, totals.failed, totals.skipped), (1, 0, 2));
    }
}
