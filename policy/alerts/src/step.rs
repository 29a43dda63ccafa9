//! What becomes of the alerts that there are: which open, change, close, and are forgotten.

use std::collections::{BTreeMap, BTreeSet};

use control_records::alert::{AlertRecord, CLOSED_KEPT_FOR, MOST_CLOSED, MOST_OPEN, Severity};
use jiff::Timestamp;

use crate::{Facts, Finding, Level, RULES, Rule};

/// Of one rule, so many clusters have alerts of their own. With more of them, one alert tells of all.
pub const ALONE: usize = 25;
/// How many clusters such an alert names.
const NAMED: usize = 5;
/// The subject of such an alert.
const MANY: &str = "many-clusters";

/// A change of the alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It opens, for the first time or again: write the record.
    Open(AlertRecord),
    /// It is still open, and what it tells has changed: write the record.
    Tell(AlertRecord),
    /// It closes: write the record.
    Close(AlertRecord),
    /// It is closed for long, or too many are: remove the record of this name.
    Forget(String),
}

/// What changes now. `before`: all alerts that there are. `learned`: the facts, at `now`.
///
/// Alerts of a rule whose facts are not known, and of rules that this release does not have, are left as they are.
pub fn step(before: &[AlertRecord], learned: &Facts, now: Timestamp) -> Vec<Change> {
    let mut found: BTreeMap<String, (&Rule, Finding)> = BTreeMap::new();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for rule in RULES {
        let Some(findings) = (rule.find)(learned, now) else {
            continue;
        };
        known.insert(rule.name);
        for finding in fold(rule, findings) {
            found.insert(name_of(rule, &finding), (rule, finding));
        }
    }
    let mut open = before.iter().filter(|record| record.is_open()).count();
    let mut changes = Vec::new();
    for record in before
        .iter()
        .filter(|record| known.contains(record.rule.as_str()))
    {
        match (found.remove(&record.name), record.is_open()) {
            (Some((rule, finding)), true) => {
                let told = AlertRecord {
                    severity: finding.severity.min(record.severity),
                    opened_at: record.opened_at,
                    times: record.times,
                    ..opened(&record.name, rule, &finding, now)
                };
                // A message tells figures, which change all the time: it is told anew where it has become worse, or something else has to be done.
                if told.severity != record.severity || told.remedy != record.remedy {
                    changes.push(Change::Tell(told));
                }
            }
            (Some((rule, finding)), false) => {
                if finding.level == Level::Opens && open < MOST_OPEN {
                    open += 1;
                    let times = record.times.saturating_add(1);
                    let again = opened(&record.name, rule, &finding, now);
                    changes.push(Change::Open(AlertRecord { times, ..again }));
                }
            }
            (None, true) => {
                open = open.saturating_sub(1);
                changes.push(Change::Close(AlertRecord {
                    closed_at: Some(now),
                    ..record.clone()
                }));
            }
            (None, false) => {}
        }
    }
    for (name, (rule, finding)) in found {
        if finding.level == Level::Opens && open < MOST_OPEN {
            open += 1;
            changes.push(Change::Open(opened(&name, rule, &finding, now)));
        }
    }
    let gone = forgotten(before, &changes, now);
    changes.extend(gone.into_iter().map(Change::Forget));
    changes
}

fn name_of(rule: &Rule, finding: &Finding) -> String {
    if finding.subject.is_empty() {
        return rule.name.to_owned();
    }
    // A key of the store and a segment of a path.
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' || c == '-' {
            c
        } else {
            '-'
        }
    };
    let subject: String = finding.subject.chars().take(100).map(plain).collect();
    format!("{}.{subject}", rule.name)
}

fn opened(name: &str, rule: &Rule, finding: &Finding, now: Timestamp) -> AlertRecord {
    AlertRecord {
        v: 1,
        name: name.to_owned(),
        rule: rule.name.to_owned(),
        severity: finding.severity,
        cluster: finding.cluster.clone(),
        message: finding.message.clone(),
        remedy: finding.remedy.clone(),
        closes: rule.closes.to_owned(),
        opened_at: now,
        closed_at: None,
        times: 1,
    }
}

/// One finding in the place of those of many clusters.
fn fold(rule: &Rule, findings: Vec<Finding>) -> Vec<Finding> {
    let of_clusters = findings.iter().filter(|finding| finding.cluster.is_some());
    if of_clusters.clone().count() <= ALONE {
        return findings;
    }
    let mut clusters: Vec<String> = of_clusters
        .clone()
        .filter_map(|finding| finding.cluster.as_ref())
        .map(|cluster| format!("{}/{}", cluster.resource_group, cluster.name))
        .collect();
    clusters.sort();
    clusters.dedup();
    let named = clusters
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    let worst = of_clusters.clone().map(|finding| finding.severity).min();
    let opens = of_clusters.clone().any(|finding| finding.level == Level::Opens);
    let remedy = of_clusters.clone().next().map(|finding| finding.remedy.clone());
    let many = Finding {
        subject: MANY.to_owned(),
        cluster: None,
        severity: worst.unwrap_or(Severity::Warning),
        level: if opens { Level::Opens } else { Level::Holds },
        message: format!("{} clusters {}: {named} and others", clusters.len(), rule.of_many),
        remedy: format!("of each: {}", remedy.unwrap_or_default()),
    };
    let own = findings.into_iter().filter(|finding| finding.cluster.is_none());
    own.chain([many]).collect()
}

/// The names of closed alerts that are not kept any longer.
fn forgotten(before: &[AlertRecord], changes: &[Change], now: Timestamp) -> Vec<String> {
    let opens: Vec<&str> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Open(record) => Some(record.name.as_str()),
            Change::Tell(_) | Change::Close(_) | Change::Forget(_) => None,
        })
        .collect();
    let mut closed: Vec<(Timestamp, &str)> = before
        .iter()
        .filter(|record| !opens.contains(&record.name.as_str()))
        .filter_map(|record| Some((record.closed_at?, record.name.as_str())))
        .collect();
    closed.sort();
    let too_many = closed.len().saturating_sub(MOST_CLOSED);
    let oldest = now.checked_sub(CLOSED_KEPT_FOR).unwrap_or(Timestamp::MIN);
    let gone = closed
        .into_iter()
        .enumerate()
        .filter(|(place, (at, _))| *place < too_many || *at < oldest);
    gone.map(|(_, (_, name))| name.to_owned()).collect()
}
