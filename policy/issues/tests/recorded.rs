//! Each detector of the program's catalogue over recorded facts: of a cluster that has the issue, of one whose component is mended, and of one where the version is affected and
//! the condition is not met.

use std::collections::{BTreeMap, BTreeSet};

use policy_catalogue::{Catalogue, Count, Flag, On};
use policy_issues::{Facts, Installed, Verdict, findings, judge};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    affected: Facts,
    mended: Facts,
    /// Of an issue with a condition.
    otherwise: Option<Facts>,
}

fn recorded() -> BTreeMap<String, Recorded> {
    serde_json::from_str(include_str!("recorded.json")).expect("recorded.json is read")
}

#[test]
fn c7_each_detector_tells_a_cluster_with_the_issue_from_others() {
    let catalogue = Catalogue::built_in();
    let recorded = recorded();
    let ids: BTreeSet<&str> = catalogue.issues.iter().map(|issue| issue.id.as_str()).collect();
    let facts: BTreeSet<&str> = recorded.keys().map(String::as_str).collect();
    assert_eq!(ids, facts, "an issue without facts is not proved");
    assert!(ids.len() >= 12, "{} issues", ids.len());
    for issue in &catalogue.issues {
        let recorded = &recorded[&issue.id];
        let found = judge(&catalogue, issue, &recorded.affected);
        let found = found.unwrap_or_else(|| panic!("{} is not found", issue.id));
        assert_eq!(found.verdict, Verdict::Affected, "{}", issue.id);
        assert!(
            !found.versions.is_empty() && !found.fixed.is_empty(),
            "{}",
            issue.id
        );
        assert!(
            judge(&catalogue, issue, &recorded.mended).is_none(),
            "{} is mended",
            issue.id
        );
        assert_eq!(
            recorded.otherwise.is_some(),
            issue.when.is_some(),
            "{}: a condition has a counter-example",
            issue.id
        );
        if let Some(otherwise) = &recorded.otherwise {
            assert!(
                judge(&catalogue, issue, otherwise).is_none(),
                "{}: its condition is not met",
                issue.id
            );
            let unseen = Facts {
                installed: recorded.affected.installed.clone(),
                ..Facts::default()
            };
            let unseen = judge(&catalogue, issue, &unseen).map(|found| found.verdict);
            assert_eq!(
                unseen,
                Some(Verdict::Possible),
                "{}: nothing was observed",
                issue.id
            );
        }
    }
}

#[test]
fn every_project_that_a_node_stands_on_has_issues() {
    let catalogue = Catalogue::built_in();
    for component in ["kubernetes", "etcd", "containerd", "runc"] {
        assert!(
            catalogue.issues.iter().any(|issue| issue.component == component),
            "{component}"
        );
    }
}

/// What the images of this release have; older ones have the runc of Debian 12.
#[test]
fn the_issues_of_this_release_are_known() {
    let catalogue = Catalogue::built_in();
    let installed = |component: &str, version: &str, on: On| Installed {
        component: component.to_owned(),
        version: version.to_owned(),
        on,
    };
    let mut facts = Facts {
        installed: [
            installed("kubernetes", "1.36.3", On::ControlPlane),
            installed("kubernetes", "1.36.3", On::Node),
            installed("etcd", "3.6.16", On::ControlPlane),
            installed("containerd", "2.4.2", On::Node),
            installed("runc", "1.4.4", On::Node),
        ]
        .into(),
        flags: [
            (Flag::DynamicResourceAllocation, false),
            (Flag::PriorityClasses, true),
            (Flag::SeveralMembers, true),
        ]
        .into(),
        counts: [(Count::CoresOfANode, 2)].into(),
    };
    let ids = |facts: &Facts| -> Vec<String> {
        let found = findings(&catalogue, facts).into_iter();
        found.map(|found| found.issue.id.clone()).collect()
    };
    assert_eq!(ids(&facts), ["kubernetes-140685"]);
    facts.flags.insert(Flag::PriorityClasses, false);
    assert!(ids(&facts).is_empty());
    facts.counts.insert(Count::CoresOfANode, 64);
    assert!(ids(&facts).is_empty());
    facts
        .installed
        .insert(installed("runc-debian", "1.1.5+ds1-1+deb12u1", On::Node));
    assert_eq!(ids(&facts), ["runc-5275-debian"]);
}
