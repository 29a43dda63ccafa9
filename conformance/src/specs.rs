//! The list of tests, and the choice among them.
//!
//! Always true: the tests themselves apply `--focus` and `--skip`, in a dry run; a random choice follows only
//! from its seed and the names.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{
    place::{self, Place},
    programs::Programs,
};

/// A test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    /// As in reports: the texts of its containers, and its own.
    pub(crate) name: String,
    /// Whether it must not run in parallel with others.
    pub(crate) serial: bool,
}

/// Tests that are to run.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// The prefix of each name where expressions are compared.
    pub(crate) suite: String,
    pub(crate) specs: Vec<Spec>,
}

/// The needed members of a report.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    suite_description: String,
    spec_reports: Vec<Planned>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Planned {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    #[serde(default)]
    is_serial: bool,
    state: String,
}

/// The tests that two expressions choose. Needs no cluster.
pub(crate) fn list(programs: &Programs, place: &Place, focus: &str, skip: Option<&str>) -> Result<Chosen> {
    let report = place.unfinished("list.json");
    let mut command = Command::new(programs.path("e2e.test")?);
    command
        .arg("--ginkgo.dry-run")
        .arg(format!("--ginkgo.focus={focus}"))
        .arg(format!("--ginkgo.json-report={}", report.display()))
        .args(["--ginkgo.succinct", "--ginkgo.no-color", "--provider=skeleton"])
        // No user's cluster is contacted.
        .env_remove("KUBECONFIG");
    if let Some(skip) = skip {
        command.arg(format!("--ginkgo.skip={skip}"));
    }
    place::ran(&mut command).context("the tests do not tell which there are")?;
    let text = fs::read(&report).with_context(|| format!("cannot read {}", report.display()))?;
    fs::remove_file(&report).with_context(|| format!("cannot remove {}", report.display()))?;
    planned(&text)
}

/// Reads the result of a dry run.
fn planned(text: &[u8]) -> Result<Chosen> {
    let reports: Vec<Report> = serde_json::from_slice(text).context("the list of tests cannot be read")?;
    let report = reports.into_iter().next().context("the list of tests is empty")?;
    let mut specs: Vec<Spec> = report
        .spec_reports
        .into_iter()
        .filter(|planned| planned.leaf_node_type == "It" && planned.state == "passed")
        .map(|planned| {
            let name = name(
                planned.container_hierarchy_texts.unwrap_or_default(),
                planned.leaf_node_text,
            );
            Spec {
                serial: planned.is_serial
                    || ["[Serial]", "[Disruptive]"].iter().any(|tag| name.contains(tag)),
                name,
            }
        })
        .collect();
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    specs.dedup_by(|a, b| a.name == b.name);
    Ok(Chosen {
        suite: report.suite_description,
        specs,
    })
}

/// The whole name of a test.
pub(crate) fn name(around: Vec<String>, own: String) -> String {
    let words: Vec<String> = around
        .into_iter()
        .chain([own])
        .filter(|text| !text.is_empty())
        .collect();
    words.join(" ")
}

/// `count` of the tests, spread over the groups of Kubernetes (`[sig-…]`, the first word of a name): each in
/// turn gives one, until there are enough. The same seed gives the same choice from a group, independent of
/// the other groups.
pub(crate) fn sample(specs: Vec<Spec>, count: usize, seed: u64) -> Vec<Spec> {
    let mut groups: BTreeMap<String, Vec<([u8; 32], Spec)>> = BTreeMap::new();
    for spec in specs {
        let group = spec.name.split(' ').next().unwrap_or_default().to_owned();
        let mut hash = Sha256::new();
        hash.update(seed.to_be_bytes());
        hash.update(&spec.name);
        groups
            .entry(group)
            .or_default()
            .push((hash.finalize().into(), spec));
    }
    let mut turns: Vec<_> = groups
        .into_values()
        .map(|mut group| {
            group.sort_by_key(|one| one.0);
            group.into_iter().map(|(_, spec)| spec)
        })
        .collect();
    let mut taken = Vec::new();
    loop {
        let before = taken.len();
        for group in &mut turns {
            if taken.len() < count {
                taken.extend(group.next());
            }
        }
        if taken.len() == before {
            taken.sort_by(|a, b| a.name.cmp(&b.name));
            return taken;
        }
    }
}

/// Expressions that match these tests and no other. More than one, as an argument of a program has a greatest length.
pub(crate) fn only(suite: &str, names: &[&str]) -> Vec<String> {
    const LONGEST: usize = 60_000;
    let mut names = names.to_vec();
    // Names with the same beginning are sorted together: the matcher then makes one path of it, and
    // distinguishes thousands of names quickly.
    names.sort_unstable();
    let mut expressions: Vec<String> = Vec::new();
    let mut open = String::new();
    for name in names {
        if open.len() + name.len() > LONGEST {
            expressions.push(whole(suite, &open));
            open.clear();
        }
        if !open.is_empty() {
            open.push('|');
        }
        open.push_str(&literal(name));
    }
    expressions.push(whole(suite, &open));
    expressions
}

fn whole(suite: &str, names: &str) -> String {
    format!("^{} (?:{names})$", literal(suite))
}

/// A text as an expression of Go's that means just it.
fn literal(text: &str) -> String {
    let mut expression = String::with_capacity(text.len() + 16);
    for own in text.chars() {
        if r"\.+*?()|[]{}^$".contains(own) {
            expression.push('\\');
        }
        expression.push(own);
    }
    expression
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> Spec {
        Spec {
            name: name.to_owned(),
            serial: false,
        }
    }

    #[test]
    fn what_would_run_is_what_passes_in_a_dry_run() {
        let entry = |kind: &str, around: serde_json::Value, own: &str, serial: bool, state: &str| {
            serde_json::json!({
                "ContainerHierarchyTexts": around, "LeafNodeType": kind, "LeafNodeText": own,
                "IsSerial": serial, "State": state, "RunTime": 1,
            })
        };
        let report = serde_json::json!([{
            "SuiteDescription": "Kubernetes e2e suite",
            "SpecReports": [
                entry("SynchronizedBeforeSuite", serde_json::Value::Null, "", false, "passed"),
                entry("It", serde_json::json!(["[sig-b] B", ""]), "works [Conformance]", false, "passed"),
                entry("It", serde_json::json!(["[sig-b] B", ""]), "works [Conformance]", false, "passed"),
                entry("It", serde_json::json!(["[sig-a] A [Serial]"]), "too", false, "passed"),
                entry("It", serde_json::json!(["[sig-a] A"]), "alone", true, "passed"),
                entry("It", serde_json::json!(["[sig-a] A"]), "not", false, "skipped"),
            ],
        }]);
        let chosen = planned(report.to_string().as_bytes()).unwrap();
        assert_eq!(chosen.suite, "Kubernetes e2e suite");
        let found: Vec<_> = chosen
            .specs
            .iter()
            .map(|spec| (spec.name.as_str(), spec.serial))
            .collect();
        assert_eq!(
            found,
            [
                ("[sig-a] A [Serial] too", true),
                ("[sig-a] A alone", true),
                ("[sig-b] B works [Conformance]", false),
            ]
        );
        assert!(planned(b"[]").is_err());
    }

    #[test]
    fn a_sample_follows_from_its_seed_and_is_spread() {
        let all: Vec<Spec> = (0..60)
            .map(|number| spec(&format!("[sig-{}] {number}", number % 3)))
            .chain([spec("[sig-rare] only")])
            .collect();
        let taken = sample(all.clone(), 10, 7);
        assert_eq!(taken.len(), 10);
        assert_eq!(taken, sample(all.iter().rev().cloned().collect(), 10, 7));
        assert_ne!(taken, sample(all.clone(), 10, 8));
        assert!(taken.contains(&spec("[sig-rare] only")));
        for group in 0..3 {
            let own = taken
                .iter()
                .filter(|spec| spec.name.starts_with(&format!("[sig-{group}]")))
                .count();
            assert_eq!(own, 3, "{taken:?}");
        }
        // More than there are: all of them, once.
        assert_eq!(sample(all.clone(), 1000, 7).len(), all.len());
    }

    #[test]
    fn expressions_mean_just_the_names() {
        assert_eq!(literal("[sig-a] a.b (c)?"), r"\[sig-a\] a\.b \(c\)\?");
        assert_eq!(
            only("Suite", &["b [x]", "a"]),
            [r"^Suite (?:a|b \[x\])$".to_owned()]
        );
        let long: Vec<String> = (0..2000).map(|number| format!("{number:0>100}")).collect();
        let names: Vec<&str> = long.iter().map(String::as_str).collect();
        let expressions = only("Suite", &names);
        assert!(expressions.len() > 2);
        assert!(expressions.iter().all(|expression| expression.len() < 100_000));
        let parts: usize = expressions
            .iter()
            .map(|expression| expression.matches('|').count() + 1)
            .sum();
        assert_eq!(parts, names.len());
    }
}
