//! All rules of the support policies, with what is true of each today: where its code is, which tests try it, and where a person sees it.
//!
//! Kept as a table (`rules.tsv`), of which the page is made. The tests of this crate look whether it has each id of `ids.txt`, and whether the code
//! and the tests that it names are there.

use std::fmt;

/// The ids of all rules, in their order: one each line. An id is for ever.
pub const IDS: &str = include_str!("../ids.txt");
const TABLE: &str = include_str!("rules.tsv");
const HUB: &str = include_str!("hub.tsv");

/// What is true of a rule today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Running code keeps it.
    Kept,
    /// Running code refuses what it forbids.
    Refused,
    /// The service collects the facts, and shows what follows from them. What the rule would have done about it is not done.
    Shown,
    /// It is evaluated when its facts are given; the service does not collect them yet.
    Evaluated,
    /// There is nothing of it.
    NotYet,
}

impl Status {
    /// As in the table and on the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Refused => "refused",
            Self::Shown => "shown",
            Self::Evaluated => "evaluated",
            Self::NotYet => "not yet",
        }
    }

    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Kept,
        Self::Refused,
        Self::Shown,
        Self::Evaluated,
        Self::NotYet,
    ];
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its id, for ever.
    pub id: &'static str,
    /// The profiles that have it, by their names.
    pub profiles: Vec<&'static str>,
    /// What it says.
    pub sentence: &'static str,
    /// What is true of it today.
    pub status: Status,
    /// Files of the repository with its code.
    pub code: Vec<&'static str>,
    /// Its tests: `FILE#FUNCTION`, or a script of `scenarios`.
    pub tests: Vec<&'static str>,
    /// Where a person sees it.
    pub seen: &'static str,
    /// What is missing, or how it is kept.
    pub note: &'static str,
}

/// What AKS on Hub had, and what is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubRow {
    /// The area of the table.
    pub area: &'static str,
    /// The feature.
    pub feature: &'static str,
    /// Whether Azure had it: `+`, `-`, `?` or nothing.
    pub azure: &'static str,
    /// Whether Hub had it.
    pub hub: &'static str,
    /// What is here.
    pub here: &'static str,
    /// How, or what is missing.
    pub note: &'static str,
}

fn rows<const N: usize>(table: &'static str) -> impl Iterator<Item = [&'static str; N]> {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let cells: Vec<&str> = line.split('\t').collect();
        cells.try_into().ok()
    })
}

/// Names in a cell, apart by blanks; `-` is none.
fn names(cell: &'static str) -> Vec<&'static str> {
    cell.split_whitespace().filter(|name| *name != "-").collect()
}

/// All rules, in the order of their ids.
pub fn all() -> Vec<Rule> {
    let each = rows::<8>(TABLE);
    each.filter_map(|[id, profiles, sentence, status, code, tests, seen, note]| {
        Some(Rule {
            id,
            profiles: names(profiles),
            sentence,
            status: Status::ALL.into_iter().find(|known| known.as_str() == status)?,
            code: names(code),
            tests: names(tests),
            seen,
            note,
        })
    })
    .collect()
}

/// The tables of the overview of AKS on Hub.
pub fn hub() -> Vec<HubRow> {
    let each = rows::<6>(HUB);
    each.map(|[area, feature, azure, hub, here, note]| HubRow {
        area,
        feature,
        azure,
        hub,
        here,
        note,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::Profile;

    #[test]
    fn every_id_is_in_the_table_once_and_in_order() {
        let ids: Vec<&str> = IDS.lines().collect();
        assert_eq!(ids.len(), 55);
        let found: Vec<&str> = all().iter().map(|rule| rule.id).collect();
        assert_eq!(found, ids);
        let lines = TABLE.lines().count() - 1;
        assert_eq!(lines, ids.len(), "a line that is no rule");
        assert_eq!(HUB.lines().count() - 1, hub().len(), "a line that is no row");
    }

    #[test]
    fn what_the_table_names_is_there() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for rule in all() {
            for profile in &rule.profiles {
                assert!(profile.parse::<Profile>().is_ok(), "{}: {profile}", rule.id);
            }
            let claims = rule.status != Status::NotYet;
            assert_eq!(claims, !rule.code.is_empty(), "{}: code", rule.id);
            assert_eq!(claims, !rule.tests.is_empty(), "{}: tests", rule.id);
            for code in &rule.code {
                assert!(top.join(code).is_file(), "{}: there is no {code}", rule.id);
            }
            for test in &rule.tests {
                let (file, function) = test.split_once('#').unwrap_or((test, ""));
                let text = fs::read_to_string(top.join(file));
                let text = text.unwrap_or_else(|error| panic!("{}: {file}: {error}", rule.id));
                let there = function.is_empty() || text.contains(&format!("fn {function}("));
                assert!(there, "{}: {file} has no test {function}", rule.id);
            }
        }
    }
}
