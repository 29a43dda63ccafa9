//! Runs the chosen tests: first the parallel ones, then the serial ones.
//!
//! Always true: a passed test is in the journal before the next line is printed; a chosen test without a
//! result when its part has ended has failed.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context as _, Result};

use crate::{
    cluster::Cluster,
    programs::Programs,
    progress,
    report::{self, Journal, Outcome, State, Summary},
    specs::{self, Chosen, Spec},
};

/// The inputs of a run.
pub(crate) struct Setting<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) cluster: &'a Cluster,
    /// The number of parallel tests.
    pub(crate) parallel: u32,
}

/// Runs both parts, and adds their results.
pub(crate) fn all(
    setting: &Setting<'_>,
    chosen: &Chosen,
    journal: &mut Journal,
    summary: &mut Summary,
) -> Result<()> {
    let dir = journal.new_run()?;
    println!("results in {}", dir.display());
    for (name, serial) in [("parallel", false), ("serial", true)] {
        let specs: Vec<&Spec> = chosen.specs.iter().filter(|spec| spec.serial == serial).collect();
        if specs.is_empty() {
            continue;
        }
        println!("{name} part: {} tests", specs.len());
        let processes = if serial { 1 } else { setting.parallel };
        let outcomes = part(setting, &dir, name, processes, &chosen.suite, &specs, journal)?;
        for outcome in &outcomes {
            journal.write(&outcome.name, outcome.state)?;
        }
        summary.add(outcomes);
    }
    summary.write(&dir)
}

/// Runs one part to its end, however it ends.
fn part(
    setting: &Setting<'_>,
    dir: &Path,
    name: &str,
    processes: u32,
    suite: &str,
    specs: &[&Spec],
    journal: &mut Journal,
) -> Result<Vec<Outcome>> {
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let log = dir.join(format!("{name}.log"));
    let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    let said = output.try_clone().context("cannot use a log twice")?;
    let total = names.len();
    let journal = Mutex::new((journal, BTreeSet::new()));
    let status = progress::listen(
        |ended| {
            let mut held = journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let (journal, seen) = &mut *held;
            if !seen.insert(ended.name.clone()) {
                return;
            }
            let state = if ended.passed {
                State::Passed
            } else {
                State::Failed
            };
            let word = if ended.passed { "ok    " } else { "FAILED" };
            println!("{word} {:>4}/{total} {}", seen.len(), ended.name);
            // It is written again when the part has ended; until then a run that is killed would run this test once more.
            if let Err(error) = journal.write(&ended.name, state) {
                println!("{error:#}");
            }
        },
        |url| {
            command(setting, dir, name, processes, &specs::only(suite, &names), url)?
                .stdin(Stdio::null())
                .stdout(output)
                .stderr(said)
                .status()
                .context("cannot run ginkgo")
        },
    )??;
    let report = dir.join(format!("{name}.json"));
    let found = match fs::read(&report) {
        Ok(text) => report::outcomes(&text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => report::Found::default(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", report.display())),
    };
    if !status.success() && found.outcomes.is_empty() {
        println!(
            "the {name} part ended with {status} and no report; {} says why",
            log.display()
        );
    }
    Ok(report::complete(
        &names,
        found,
        &format!("it has no result; {} may say why", log.display()),
    ))
}

fn command(
    setting: &Setting<'_>,
    dir: &Path,
    name: &str,
    processes: u32,
    focus: &[String],
    url: &str,
) -> Result<Command> {
    let kubectl = setting.cluster.kubectl_program();
    let mut command = Command::new(setting.programs.path("ginkgo")?);
    command
        .arg(format!("--procs={processes}"))
        .args(["--no-color", "--silence-skips", "--timeout=24h"])
        .arg(format!("--json-report={name}.json"))
        .arg(format!("--junit-report={name}.xml"))
        .arg(format!("--output-dir={}", dir.display()));
    command.args(focus.iter().map(|expression| format!("--focus={expression}")));
    command
        .arg(setting.programs.path("e2e.test")?)
        .arg("--")
        .arg("--provider=skeleton")
        .arg(format!("--kubeconfig={}", setting.cluster.kubeconfig().display()))
        .arg(format!("--kubectl-path={}", kubectl.display()))
        .arg(format!("--progress-report-url={url}"))
        // The source files that tests read are embedded in them.
        .args(["--repo-root=", "--disable-log-dump", "--node-os-distro=debian"])
        // No image is pulled: an image that is not loaded is not available.
        .arg("--prepull-images=false")
        // No connection here goes through a proxy.
        .env_remove("HTTPS_PROXY")
        .env_remove("https_proxy")
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy")
        .env_remove("KUBECONFIG")
        .current_dir(dir);
    // Some tests call kubectl by its name.
    if let Some(folder) = kubectl.parent() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(
            [folder.to_owned()]
                .into_iter()
                .chain(std::env::split_paths(&path)),
        )
        .context("kubectl lies where no PATH can lead")?;
        command.env("PATH", path);
    }
    // Tests for one architecture mean the nodes'.
    if std::env::consts::ARCH == "aarch64" {
        command.arg("--node-os-arch=arm64");
    }
    Ok(command)
}
