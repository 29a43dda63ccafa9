//! Results of tests: read from the runner's report, kept for the next run, printed for people.
//!
//! Always true: a test without a result has failed; an earlier pass counts only if it is the test's last
//! result.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{
    images::Missing,
    specs::{self, Spec},
};

/// The result of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Passed,
    Failed,
    /// The test itself found that it does not apply here.
    Skipped,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// A test and its result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) seconds: f64,
    /// The first line of why, unless it passed.
    pub(crate) why: String,
}

/// The contents of a report.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Found {
    pub(crate) outcomes: Vec<Outcome>,
    /// The error of a step that is no test, such as the one before all tests.
    pub(crate) around: Option<String>,
}

/// The needed members of a report.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    #[serde(default)]
    spec_reports: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    /// Nanoseconds.
    #[serde(default)]
    run_time: f64,
    #[serde(default)]
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

/// Reads the runner's report. Tests that were not chosen are in it as well, as skipped without a reason.
pub(crate) fn outcomes(text: &[u8]) -> Result<Found> {
    let reports: Vec<Report> = serde_json::from_slice(text).context("the runner's report cannot be read")?;
    let mut found = Found::default();
    for entry in reports
        .into_iter()
        .filter_map(|report| report.spec_reports)
        .flatten()
    {
        let why = entry
            .failure
            .map(|failure| first_line(&failure.message))
            .unwrap_or_default();
        let state = match entry.state.as_str() {
            "passed" => State::Passed,
            "skipped" | "pending" => State::Skipped,
            _ => State::Failed,
        };
        if entry.leaf_node_type != "It" {
            if state == State::Failed && found.around.is_none() {
                found.around = Some(format!("{} failed: {why}", entry.leaf_node_type));
            }
            continue;
        }
        // Not chosen: a test that skips itself gives a reason.
        if state == State::Skipped && why.is_empty() {
            continue;
        }
        found.outcomes.push(Outcome {
            name: specs::name(
                entry.container_hierarchy_texts.unwrap_or_default(),
                entry.leaf_node_text,
            ),
            state,
            seconds: entry.run_time / 1e9,
            why: if state == State::Failed && why.is_empty() {
                entry.state
            } else {
                why
            },
        });
    }
    Ok(found)
}

fn first_line(message: &str) -> String {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or_default().chars().take(300).collect()
}

/// Exactly the chosen tests, each with a result: the worst, if two have the same name.
pub(crate) fn complete(names: &[&str], found: Found, without: &str) -> Vec<Outcome> {
    let mut by_name: BTreeMap<String, Outcome> = BTreeMap::new();
    for outcome in found.outcomes {
        let worse = by_name
            .get(&outcome.name)
            .is_none_or(|known| known.state != State::Failed && outcome.state == State::Failed);
        if worse {
            by_name.insert(outcome.name.clone(), outcome);
        }
    }
    let why = found.around.unwrap_or_else(|| without.to_owned());
    names
        .iter()
        .map(|name| {
            by_name.remove(*name).unwrap_or_else(|| Outcome {
                name: (*name).to_owned(),
                state: State::Failed,
                seconds: 0.0,
                why: why.clone(),
            })
        })
        .collect()
}

/// Tests that passed in earlier runs, and are not run again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Before {
    pub(crate) passed: usize,
    /// Of those, with another build of `landfall`.
    pub(crate) other_build: usize,
}

/// All results there have been: a line each, the last of a name counts.
pub(crate) struct Journal {
    dir: PathBuf,
    file: File,
    build: String,
    /// State and build, by name.
    last: BTreeMap<String, (String, String)>,
}

impl Journal {
    /// Reads the results in the directory, and appends to them.
    pub(crate) fn open(dir: &Path, build: &str) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join("journal.tsv");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self {
            dir: dir.to_owned(),
            file,
            build: build.to_owned(),
            last: lasts(&text),
        })
    }

    /// Removes tests that passed before.
    pub(crate) fn leave_out(&self, specs: &mut Vec<Spec>) -> Before {
        let mut before = Before::default();
        specs.retain(|spec| match self.last.get(&spec.name) {
            Some((state, build)) if state == State::Passed.word() => {
                before.passed += 1;
                before.other_build += usize::from(*build != self.build);
                false
            }
            _ => true,
        });
        before
    }

    /// Records the result of a test.
    pub(crate) fn write(&mut self, name: &str, state: State) -> Result<()> {
        let line = format!("{}\t{}\t{name}\n", state.word(), self.build);
        // One write: a run that is killed leaves whole lines.
        self.file
            .write_all(line.as_bytes())
            .with_context(|| format!("cannot write to {}", self.dir.join("journal.tsv").display()))
    }

    /// A directory for a new run.
    pub(crate) fn new_run(&self) -> Result<PathBuf> {
        let runs = self.dir.join("runs");
        fs::create_dir_all(&runs).with_context(|| format!("cannot create {}", runs.display()))?;
        let taken: BTreeSet<u32> = fs::read_dir(&runs)
            .with_context(|| format!("cannot list {}", runs.display()))?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        let next = taken.last().map_or(1, |last| last + 1);
        let dir = runs.join(format!("{next:04}"));
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }
}

/// State and build of each name's last line. A truncated line is ignored.
fn lasts(text: &str) -> BTreeMap<String, (String, String)> {
    text.split_inclusive('\n')
        .filter_map(|line| {
            let mut words = line.strip_suffix('\n')?.splitn(3, '\t');
            let (state, build, name) = (words.next()?, words.next()?, words.next()?);
            Some((name.to_owned(), (state.to_owned(), build.to_owned())))
        })
        .collect()
}

/// All of it, for people and programs.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    kubernetes: String,
    nodes: u32,
    before: Before,
    outcomes: Vec<Outcome>,
    not_built: Vec<Missing>,
}

impl Summary {
    pub(crate) fn new(kubernetes: &str, nodes: u32, before: Before, not_built: Vec<Missing>) -> Self {
        Self {
            kubernetes: kubernetes.to_owned(),
            nodes,
            before,
            outcomes: Vec::new(),
            not_built,
        }
    }

    pub(crate) fn add(&mut self, outcomes: Vec<Outcome>) {
        self.outcomes.extend(outcomes);
    }

    fn of(&self, state: State) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(move |outcome| outcome.state == state)
    }

    /// Whether every test that ran has passed. A test that skipped itself did not run; a run without any pass
    /// is not good.
    pub(crate) fn is_good(&self) -> bool {
        let passed = self.of(State::Passed).count() + self.before.passed;
        self.of(State::Failed).next().is_none() && passed > 0
    }

    /// As text. The last line is the count.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("\nKubernetes {} on {} nodes\n", self.kubernetes, self.nodes);
        let mut line = |words: String| {
            text.push_str(&words);
            text.push('\n');
        };
        for outcome in self.of(State::Failed) {
            line(format!("FAILED  {}\n        {}", outcome.name, outcome.why));
        }
        for outcome in self.of(State::Skipped) {
            line(format!("skipped {}\n        {}", outcome.name, outcome.why));
        }
        for missing in &self.not_built {
            line(format!("image not built: {}: {}", missing.reference, missing.why));
        }
        if self.before.passed > 0 {
            line(format!(
                "{} passed in earlier runs and were left out, {} of them with another build of landfall",
                self.before.passed, self.before.other_build
            ));
        }
        let count = |state| self.of(state).count();
        line(format!(
            "{} passed, {} failed, {} skipped",
            count(State::Passed),
            count(State::Failed),
            count(State::Skipped)
        ));
        text
    }

    /// Writes it into a directory: as text, and as JSON with the time of each test.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self).context("cannot describe the results")?;
        for (name, text) in [("summary.txt", self.text()), ("summary.json", json)] {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, name: &str, state: &str, message: Option<&str>) -> serde_json::Value {
        let mut entry = serde_json::json!({
            "ContainerHierarchyTexts": ["[sig-a] A"], "LeafNodeType": kind, "LeafNodeText": name,
            "State": state, "RunTime": 1_500_000_000_u64, "StartTime": "2026-01-01T00:00:00Z",
        });
        if let Some(message) = message {
            entry["Failure"] = serde_json::json!({ "Message": message, "Location": { "LineNumber": 3 } });
        }
        entry
    }

    fn report(entries: &[serde_json::Value]) -> Found {
        let text = serde_json::json!([{ "SuiteDescription": "x", "SpecReports": entries }]).to_string();
        outcomes(text.as_bytes()).unwrap()
    }

    #[test]
    fn results_are_read_with_the_first_line_of_why() {
        let found = report(&[
            entry("It", "one", "passed", None),
            entry("It", "two", "failed", Some("\n  wanted 1\ngot 2")),
            entry("It", "three", "skipped", Some("only for x")),
            entry("It", "not chosen", "skipped", None),
            entry("It", "four", "panicked", None),
        ]);
        let told: Vec<_> = found
            .outcomes
            .iter()
            .map(|outcome| (outcome.name.as_str(), outcome.state, outcome.why.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("[sig-a] A one", State::Passed, ""),
                ("[sig-a] A two", State::Failed, "wanted 1"),
                ("[sig-a] A three", State::Skipped, "only for x"),
                ("[sig-a] A four", State::Failed, "panicked"),
            ]
        );
        assert!((found.outcomes[0].seconds - 1.5).abs() < 1e-9);
        assert!(outcomes(b"no").is_err());
        assert_eq!(outcomes(br#"[{"SpecReports":null}]"#).unwrap(), Found::default());
    }

    #[test]
    fn a_test_without_a_result_has_failed() {
        let found = report(&[
            entry("SynchronizedBeforeSuite", "", "failed", Some("no nodes")),
            entry("It", "one", "passed", None),
            entry("It", "one", "failed", Some("again")),
            entry("It", "other", "passed", None),
        ]);
        let all = complete(&["[sig-a] A one", "[sig-a] A two"], found, "unused");
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].state, all[0].why.as_str()), (State::Failed, "again"));
        assert_eq!(all[1].state, State::Failed);
        assert_eq!(all[1].why, "SynchronizedBeforeSuite failed: no nodes");
        let none = complete(&["x"], Found::default(), "it has no result");
        assert_eq!(none[0].why, "it has no result");
    }

    #[test]
    fn what_passed_last_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), "old").unwrap();
        for (name, state) in [
            ("a", State::Passed),
            ("b", State::Passed),
            ("b", State::Failed),
            ("c", State::Skipped),
        ] {
            journal.write(name, state).unwrap();
        }
        let mut journal = Journal::open(dir.path(), "new").unwrap();
        journal.write("d", State::Passed).unwrap();
        // A run was killed while it wrote.
        let path = dir.path().join("journal.tsv");
        let text = fs::read_to_string(&path).unwrap() + "passed\tnew\te";
        fs::write(&path, text).unwrap();
        let journal = Journal::open(dir.path(), "new").unwrap();
        let mut specs: Vec<Spec> = ["a", "b", "c", "d", "e"]
            .map(|name| Spec {
                name: name.to_owned(),
                serial: false,
            })
            .to_vec();
        let before = journal.leave_out(&mut specs);
        assert_eq!(
            before,
            Before {
                passed: 2,
                other_build: 1
            }
        );
        let left: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(left, ["b", "c", "e"]);
        assert_eq!(journal.new_run().unwrap(), dir.path().join("runs/0001"));
        assert_eq!(journal.new_run().unwrap(), dir.path().join("runs/0002"));
    }

    #[test]
    fn a_summary_names_what_failed_and_ends_with_the_count() {
        let missing = vec![Missing {
            reference: "r/x:1".to_owned(),
            why: "nobody asks".to_owned(),
        }];
        let before = Before {
            passed: 3,
            other_build: 1,
        };
        let mut summary = Summary::new("1.37.1", 2, before, missing);
        let outcome = |name: &str, state, why: &str| Outcome {
            name: name.to_owned(),
            state,
            seconds: 1.0,
            why: why.to_owned(),
        };
        assert!(summary.is_good(), "all passed before");
        summary.add(vec![
            outcome("one", State::Passed, ""),
            outcome("three", State::Skipped, "not here"),
        ]);
        assert!(summary.is_good());
        summary.add(vec![outcome("two", State::Failed, "wanted 1")]);
        assert!(!summary.is_good());
        let text = summary.text();
        assert!(text.contains("FAILED  two\n        wanted 1\n"), "{text}");
        assert!(text.contains("skipped three\n        not here\n"), "{text}");
        assert!(text.contains("image not built: r/x:1: nobody asks\n"), "{text}");
        assert!(text.ends_with("1 passed, 1 failed, 1 skipped\n"), "{text}");
        let nothing = Summary::new("1.37.1", 2, Before::default(), Vec::new());
        assert!(!nothing.is_good());
    }
}
