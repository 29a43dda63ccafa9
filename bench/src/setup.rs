//! `bench setup`: the time of a fresh machine's first command, from sources to a program and a node image.
//!
//! Always true: all outputs are made in new directories, which are removed afterwards; downloads (crates and
//! Go modules) are reused, so that the speed of the network is not measured. The floor of a step is its
//! processor time divided by the number of processors, i.e. its time if they never waited.
#![expect(clippy::print_stdout, reason = "a bench's result is what it prints")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use base_env::{Clock, Env};
use image::{Event, ImageStore, Source};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Setup, SetupImage};

/// So many of the longest parts of a step are listed.
const LISTED: usize = 12;

/// A step, as seen.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall: Duration,
    processor: Duration,
}

impl Cost {
    fn plus(self, other: Self) -> Self {
        Self {
            wall: self.wall + other.wall,
            processor: self.processor + other.processor,
        }
    }

    fn floor(self, processors: usize) -> Duration {
        self.processor / u32::try_from(processors).unwrap_or(1)
    }

    fn json(self, processors: usize) -> serde_json::Value {
        let seconds = |duration: Duration| (duration.as_secs_f64() * 10.0).round() / 10.0;
        let floor = self.floor(processors);
        json!({
            "wall_s": seconds(self.wall),
            "processor_s": seconds(self.processor),
            "floor_s": seconds(floor),
            "ratio": (self.wall.as_secs_f64() / floor.as_secs_f64() * 100.0).round() / 100.0,
        })
    }
}

/// A slow part of a step.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    name: String,
    seconds: f64,
}

pub(crate) fn run(options: &Setup) -> Result<()> {
    let env = Env::system();
    let clock = &env.clock;
    let processors = std::thread::available_parallelism()?.get();
    let scratch = match &options.directory {
        Some(directory) => tempfile::Builder::new()
            .prefix("landfall-bench-")
            .tempdir_in(directory),
        None => tempfile::Builder::new().prefix("landfall-bench-").tempdir(),
    }
    .context("cannot make a directory to build in (--directory names another place for it)")?;
    println!(
        "{processors} processors, everything is built in {}",
        scratch.path().display()
    );

    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let fetched = Command::new(&cargo).args(["fetch", "--locked"]).status()?;
    ensure!(fetched.success(), "the crates cannot be downloaded");

    let target = scratch.path().join("target");
    let service = timed(clock, || compile_service(&cargo, &target))?;
    let mut units = units(&target)?;
    report("the service, compiled", service, processors, &mut units);

    let mut programs = Vec::new();
    let image = timed(clock, || build_image(scratch.path(), &mut programs))?;
    report("the node image, built", image, processors, &mut programs);

    let all = service.plus(image);
    println!("together: {}", line(all, processors));
    if options.json {
        println!(
            "{}",
            json!({
                "processors": processors,
                "service": service.json(processors),
                "image": image.json(processors),
                "together": all.json(processors),
            })
        );
    }
    Ok(())
}

/// The build of README's first command before the service starts.
fn compile_service(cargo: &std::ffi::OsStr, target: &Path) -> Result<()> {
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--package",
            "landfall",
            "--timings",
        ])
        .arg("--target-dir")
        .arg(target)
        .status()?;
    ensure!(status.success(), "the release build failed");
    Ok(())
}

/// Builds the image in a separate process with empty caches.
fn build_image(scratch: &Path, programs: &mut Vec<Part>) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("setup-image")
        .arg(scratch.join("cache"))
        .env("GOCACHE", scratch.join("go-build"))
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("the output was asked for")?;
    for line in BufReader::new(output).lines() {
        programs
            .push(serde_json::from_str(&line?).context("a step of the image is not told as it should be")?);
    }
    ensure!(child.wait()?.success(), "the image could not be built");
    Ok(())
}

/// `bench setup-image`: builds the image and prints a line for each step that is finished.
pub(crate) fn image(options: &SetupImage) -> Result<()> {
    let version = cluster_versions::Offered::pinned().default_version().to_string();
    let store = ImageStore::open(&options.cache)?;
    store.build(&version, &Source::Modules, &|event: Event<'_>| {
        if let Event::Finished { step, took } = event {
            let name = step.to_owned();
            let seconds = took.as_secs_f64();
            println!("{}", json!(Part { name, seconds }));
        }
    })?;
    Ok(())
}

/// How long each crate took, from cargo's own report: it writes it for people, with the figures as JSON in it.
fn units(target: &Path) -> Result<Vec<Part>> {
    #[derive(Deserialize)]
    struct Unit {
        name: String,
        target: String,
        duration: f64,
    }
    let report = target.join("cargo-timings/cargo-timing.html");
    let text = fs::read_to_string(&report).with_context(|| format!("cannot read {}", report.display()))?;
    let (_, rest) = text
        .split_once("UNIT_DATA = ")
        .context("cargo's report has no UNIT_DATA any more")?;
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Vec<Unit>>();
    let units = values.next().context("cargo's report ends too early")??;
    let mut crates = BTreeMap::new();
    for unit in units {
        // The agent is built by the build script of the crate that contains it: no other name in the list
        // would explain the time.
        let kind = if unit.target.contains("build") {
            " (build script)"
        } else {
            ""
        };
        *crates.entry(format!("{}{kind}", unit.name)).or_insert(0.0) += unit.duration;
    }
    Ok(crates
        .into_iter()
        .map(|(name, seconds)| Part { name, seconds })
        .collect())
}

/// Runs a closure and gives its cost, including the children's processor time.
fn timed(clock: &Arc<dyn Clock>, work: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let (begun, before) = (clock.monotonic(), processor_time()?);
    work()?;
    Ok(Cost {
        wall: clock.monotonic() - begun,
        processor: processor_time()? - before,
    })
}

/// User and system time of all children that have ended and were waited for, and of theirs.
fn processor_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let total = usage.user_time() + usage.system_time();
    Ok(Duration::from_micros(
        u64::try_from(total.num_microseconds()).context("processor time is never negative")?,
    ))
}

fn report(what: &str, cost: Cost, processors: usize, parts: &mut [Part]) {
    println!("{what}: {}", line(cost, processors));
    parts.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    for part in parts.iter().take(LISTED) {
        println!("  {:>7.1} s  {}", part.seconds, part.name);
    }
    let rest: f64 = parts.iter().skip(LISTED).map(|part| part.seconds).sum();
    if rest > 0.0 {
        println!("  {rest:>7.1} s  {} others", parts.len() - LISTED);
    }
}

fn line(cost: Cost, processors: usize) -> String {
    let floor = cost.floor(processors);
    format!(
        "{}, {} of processor time: {:.2} x the floor of {}",
        minutes(cost.wall),
        minutes(cost.processor),
        cost.wall.as_secs_f64() / floor.as_secs_f64(),
        minutes(floor)
    )
}

fn minutes(duration: Duration) -> String {
    format!("{} min {:02} s", duration.as_secs() / 60, duration.as_secs() % 60)
}
