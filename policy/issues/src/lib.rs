//! Which known issues a cluster has (rule C7): the detectors of the catalogue over facts of the cluster.
//!
//! A detector is data: a component, ranges of its versions, a kind of machine, and a condition over facts ([`policy_catalogue::Predicate`]). Facts that were not observed
//! are neither true nor false, and an issue that rests on one is [`Verdict::Possible`].
//!
//! Pure. Always true: an issue whose component does not run in an affected version is never reported; one that is reported names the version that has it.
//! [`asked`] says which facts are worth observing, so that a cluster is asked for nothing that no verdict rests on.
//!
//! Called by: `providers/containerservice`.

use std::collections::{BTreeMap, BTreeSet};

use policy_catalogue::{Catalogue, Count, Flag, Issue, On, Predicate};
use serde::{Deserialize, Serialize};

/// A component on a kind of machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Installed {
    /// As the catalogue calls it.
    pub component: String,
    /// Its version.
    pub version: String,
    /// Where it runs.
    pub on: On,
}

/// What is known of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Facts {
    /// What runs on its machines.
    pub installed: BTreeSet<Installed>,
    /// What was observed to be so, or not.
    #[serde(default)]
    pub flags: BTreeMap<Flag, bool>,
    /// What was counted.
    #[serde(default)]
    pub counts: BTreeMap<Count, u64>,
}

/// Whether a cluster has an issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The version is affected, and the condition holds.
    Affected,
    /// The version is affected, and the condition is not known.
    Possible,
}

impl Verdict {
    /// For answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Affected => "Affected",
            Self::Possible => "Possible",
        }
    }
}

/// An issue of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding<'a> {
    /// Which.
    pub issue: &'a Issue,
    /// Whether it is had for certain.
    pub verdict: Verdict,
    /// The versions that have it.
    pub versions: BTreeSet<&'a str>,
    /// The releases that mend them.
    pub fixed: BTreeSet<&'a str>,
}

/// The issues that a cluster has, or may have; certain ones first.
pub fn findings<'a>(catalogue: &'a Catalogue, facts: &'a Facts) -> Vec<Finding<'a>> {
    let issues = catalogue.issues.iter();
    let mut found: Vec<_> = issues
        .filter_map(|issue| judge(catalogue, issue, facts))
        .collect();
    found.sort_by(|a, b| (a.verdict, &a.issue.id).cmp(&(b.verdict, &b.issue.id)));
    found
}

/// Whether a cluster has an issue.
pub fn judge<'a>(catalogue: &'a Catalogue, issue: &'a Issue, facts: &'a Facts) -> Option<Finding<'a>> {
    let (versions, fixed) = affected(catalogue, issue, &facts.installed);
    if versions.is_empty() {
        return None;
    }
    let holds = issue.when.as_ref().map_or(Some(true), |when| holds(when, facts));
    let verdict = match holds {
        Some(false) => return None,
        Some(true) => Verdict::Affected,
        None => Verdict::Possible,
    };
    Some(Finding {
        issue,
        verdict,
        versions,
        fixed,
    })
}

/// The facts that decide about an issue whose versions run: what else is observed changes nothing.
pub fn asked(catalogue: &Catalogue, installed: &BTreeSet<Installed>) -> (BTreeSet<Flag>, BTreeSet<Count>) {
    let (mut flags, mut counts) = (BTreeSet::new(), BTreeSet::new());
    for issue in &catalogue.issues {
        let Some(when) = &issue.when else { continue };
        if affected(catalogue, issue, installed).0.is_empty() {
            continue;
        }
        when.facts(
            &mut |flag| {
                flags.insert(flag);
            },
            &mut |count| {
                counts.insert(count);
            },
        );
    }
    (flags, counts)
}

/// The versions that run and have an issue, and what mends them.
fn affected<'a>(
    catalogue: &Catalogue,
    issue: &'a Issue,
    installed: &'a BTreeSet<Installed>,
) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
    let (mut versions, mut fixed) = (BTreeSet::new(), BTreeSet::new());
    let Some(component) = catalogue.component(&issue.component) else {
        return (versions, fixed);
    };
    let runs = installed
        .iter()
        .filter(|installed| installed.component == issue.component && installed.on == issue.on);
    for runs in runs {
        for range in &issue.ranges {
            if range.has(component.versions, &runs.version) == Some(true) {
                versions.insert(runs.version.as_str());
                fixed.extend(range.fix().map(|(fixed, _)| fixed));
            }
        }
    }
    (versions, fixed)
}

/// Whether a condition holds; `None` where it rests on what was not observed.
fn holds(when: &Predicate, facts: &Facts) -> Option<bool> {
    match when {
        Predicate::Is(flag) => facts.flags.get(flag).copied(),
        Predicate::AtLeast(threshold) => {
            let count = facts.counts.get(&threshold.of)?;
            Some(*count >= threshold.number)
        }
        Predicate::Not(part) => holds(part, facts).map(|holds| !holds),
        // One that is false, or true, decides, whatever is not known of the others.
        Predicate::All(parts) => together(parts, facts, false),
        Predicate::Any(parts) => together(parts, facts, true),
    }
}

/// `decides` if one of the parts is that; its opposite if none is, and all are known.
fn together(parts: &[Predicate], facts: &Facts, decides: bool) -> Option<bool> {
    let mut known = true;
    for part in parts {
        match holds(part, facts) {
            Some(found) if found == decides => return Some(decides),
            Some(_) => {}
            None => known = false,
        }
    }
    known.then_some(!decides)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(flags: &[(Flag, bool)]) -> Facts {
        Facts {
            flags: flags.iter().copied().collect(),
            ..Facts::default()
        }
    }

    #[test]
    fn what_is_not_known_is_neither() {
        let is = Predicate::Is;
        let (several, away) = (Flag::SeveralMembers, Flag::MemberAway);
        let all = Predicate::All(vec![is(several), is(away)]);
        let any = Predicate::Any(vec![is(several), is(away)]);
        for (known, all_holds, any_holds) in [
            (&[][..], None, None),
            (&[(several, true)][..], None, Some(true)),
            (&[(several, false)][..], Some(false), None),
            (&[(several, true), (away, true)][..], Some(true), Some(true)),
            (&[(several, true), (away, false)][..], Some(false), Some(true)),
            (&[(several, false), (away, false)][..], Some(false), Some(false)),
        ] {
            let facts = facts(known);
            assert_eq!(holds(&all, &facts), all_holds, "{known:?}");
            assert_eq!(holds(&any, &facts), any_holds, "{known:?}");
            let not = Predicate::Not(Box::new(all.clone()));
            assert_eq!(holds(&not, &facts), all_holds.map(|holds| !holds), "{known:?}");
        }
    }

    #[test]
    fn only_what_decides_is_asked_for() {
        let catalogue = Catalogue::built_in();
        let installed = |component: &str, version: &str, on: On| Installed {
            component: component.to_owned(),
            version: version.to_owned(),
            on,
        };
        let now = BTreeSet::from([
            installed("kubernetes", "1.37.1", On::ControlPlane),
            installed("kubernetes", "1.37.1", On::Node),
            installed("etcd", "3.6.16", On::ControlPlane),
        ]);
        assert_eq!(asked(&catalogue, &now), (BTreeSet::new(), BTreeSet::new()));
        let before = BTreeSet::from([installed("kubernetes", "1.36.3", On::ControlPlane)]);
        let (flags, counts) = asked(&catalogue, &before);
        assert_eq!(
            flags,
            BTreeSet::from([Flag::DynamicResourceAllocation, Flag::PriorityClasses])
        );
        assert!(counts.is_empty());
    }
}
