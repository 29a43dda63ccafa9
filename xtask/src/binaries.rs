//! The workspace's test binaries, two at a time.
//!
//! Always true: it runs the same as `cargo test --workspace`, each binary in its crate's folder, and the
//! examples in documentation; every binary runs to its end, even if others fail; the output of each is
//! printed in one piece, with its time.
#![expect(
    clippy::disallowed_methods,
    reason = "a test run is told with the host's own stopwatch"
)]

use std::{
    ffi::OsString,
    path::Path,
    process::{Command, Output},
    sync::{Mutex, PoisonError, mpsc},
    time::Instant,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::cargo;

/// Cargo runs one binary after the other. Binaries with real clusters, etcd or machines wait most of their
/// time: another one uses the processors meanwhile.
const LANES: usize = 2;

/// The slowest binaries, slowest first: started last, they would run alone at the end.
const LONGEST: &[&str] = &[
    "cluster-client: real",
    "simulation: all",
    "machine-etcd: real",
    "machine-agent: end_to_end",
    "fabric-container: host",
];

/// A command to run, and its name.
pub(crate) struct Job {
    name: String,
    command: Command,
}

/// The result of a job.
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) outcome: std::io::Result<Output>,
    pub(crate) seconds: f64,
}

/// The needed members of a line of `--message-format json`.
#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<String>,
    executable: Option<String>,
    profile: Option<Profile>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// Builds all, and lists the jobs.
pub(crate) fn jobs(environment: &[(&str, OsString)]) -> Result<Vec<Job>> {
    let text = crate::output(
        cargo()
            .args(["test", "--quiet", "--workspace", "--no-run"])
            .arg("--message-format=json-render-diagnostics"),
    )?;
    let mut jobs = text
        .lines()
        .filter_map(|line| listed(line).transpose())
        .collect::<Result<Vec<_>>>()?;
    let mut examples = cargo();
    examples.args(["test", "--quiet", "--workspace", "--no-fail-fast", "--doc"]);
    jobs.push(Job {
        name: "examples in documentation".to_owned(),
        command: examples,
    });
    for job in &mut jobs {
        job.command
            .envs(environment.iter().map(|(name, value)| (*name, value)));
    }
    // The order of the others stays.
    jobs.sort_by_key(|job| rank(&job.name));
    Ok(jobs)
}

fn rank(name: &str) -> usize {
    LONGEST
        .iter()
        .position(|long| *long == name)
        .unwrap_or(LONGEST.len())
}

/// The test binary in a message of cargo's, if it has one.
fn listed(line: &str) -> Result<Option<Job>> {
    let message: Message = serde_json::from_str(line).with_context(|| format!("cargo wrote {line}"))?;
    let is_test = message.profile.is_some_and(|profile| profile.test);
    if message.reason != "compiler-artifact" || !is_test {
        return Ok(None);
    }
    let (Some(executable), Some(target)) = (message.executable, message.target) else {
        return Ok(None);
    };
    let manifest = message.manifest_path.context("a binary of no crate")?;
    let folder = Path::new(&manifest)
        .parent()
        .context("a manifest lies in a folder")?;
    let manifest = std::fs::read_to_string(&manifest).with_context(|| format!("cannot read {manifest}"))?;
    let package = package(&manifest).context("a manifest without a name")?;
    let mut command = Command::new(executable);
    command
        .arg("--quiet")
        .current_dir(folder)
        .env("CARGO_MANIFEST_DIR", folder)
        // Snapshots of this checkout, wherever the test was compiled: a target directory may be shared by several.
        .env("INSTA_WORKSPACE_ROOT", crate::top())
        .env("CARGO_PKG_NAME", package);
    // A crate's own tests, by the crate's name alone.
    let own = target.kind.iter().all(|kind| kind != "test");
    let name = if own && target.name.replace('_', "-") == package {
        package.to_owned()
    } else {
        format!("{package}: {}", target.name)
    };
    Ok(Some(Job { name, command }))
}

/// The name in a manifest.
fn package(manifest: &str) -> Option<&str> {
    let line = manifest.lines().find_map(|line| line.strip_prefix("name = \""))?;
    line.strip_suffix('"')
}

/// Runs all; `each` gets each result as soon as the job has ended.
pub(crate) fn run(jobs: Vec<Job>, mut each: impl FnMut(Ended)) {
    let queue = Mutex::new(jobs.into_iter());
    let (ended, arrives) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            let (queue, ended) = (&queue, ended.clone());
            scope.spawn(move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(mut job) = next else { return };
                    let begun = Instant::now();
                    let outcome = job.command.output();
                    let told = ended.send(Ended {
                        name: job.name,
                        outcome,
                        seconds: begun.elapsed().as_secs_f64(),
                    });
                    // The receiver is gone: the run was given up.
                    if told.is_err() {
                        return;
                    }
                }
            });
        }
        drop(ended);
        arrives.iter().for_each(&mut each);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_names_the_test_binaries() {
        let folder = env!("CARGO_MANIFEST_DIR");
        let line = |test: bool, kind: &str, name: &str| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "manifest_path": format!("{folder}/Cargo.toml"),
                "executable": "/target/debug/deps/x-1",
                "profile": { "test": test },
                "target": { "name": name, "kind": [kind] },
            })
            .to_string()
        };
        let name = |line: &str| listed(line).expect("readable").map(|job| job.name);
        assert_eq!(name(&line(true, "bin", "xtask")), Some("xtask".to_owned()));
        assert_eq!(name(&line(true, "test", "real")), Some("xtask: real".to_owned()));
        assert_eq!(name(&line(false, "bin", "xtask")), None);
        assert_eq!(name(r#"{"reason":"build-finished","success":true}"#), None);
        assert!(listed("warning: x").is_err());
    }

    #[test]
    fn each_ends_whatever_others_come_to() {
        let job = |name: &str, script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            Job {
                name: name.to_owned(),
                command,
            }
        };
        let missing = Job {
            name: "missing".to_owned(),
            command: Command::new("/nowhere/at/all"),
        };
        let jobs = vec![
            job("bad", "exit 3"),
            missing,
            job("a", "echo a"),
            job("b", "echo b"),
        ];
        let mut seen = Vec::new();
        run(jobs, |ended| {
            let success = ended.outcome.is_ok_and(|output| output.status.success());
            seen.push((ended.name, success));
        });
        seen.sort();
        let expected = [("a", true), ("b", true), ("bad", false), ("missing", false)];
        assert_eq!(seen, expected.map(|(name, success)| (name.to_owned(), success)));
    }
}
