//! The rules as a page of the documentation.

use std::fmt::Write as _;

use crate::rules::{self, Rule, Status};

const HEAD: &str = "# Support policies

What AKS and its relatives on one's own hosts promise about support, rule by rule, and what is true of each here today. How to read a cluster's state: \
[guide](../guides/support.md).

| status | meaning |
|---|---|
| kept | running code keeps it |
| refused | running code refuses what it forbids |
| shown | the service collects the facts and shows what follows from them; what the rule would have done about it (stop, archive, delete, refuse) is not done |
| evaluated | it is evaluated when its facts are given, and tested so; the service does not collect them yet |
| not yet | there is nothing of it |

Profiles are sets of rules by document: `aks`, `arc` (AKS enabled by Arc), `hci` (AKS on Azure Stack HCI), `hub-engine` (AKS engine on Azure Stack Hub), `hub` (AKS on Azure Stack \
Hub). A stamp has one (`landfall up --support-profile`, by default `aks`); a state can be asked for by another.
";

const CHANGES: &str = "
The state is computed when it is asked for, from the records of that moment; `until` says when a date alone changes it. No event is written when it changes; notices of deadlines are events
(kind `Deadline`), and whether deadlines act is the stamp's policy: `landfall support policy`, which only tells unless an operator says otherwise.
";

/// The page `docs/reference/support-policies.md`.
pub fn page() -> String {
    let rules = rules::all();
    let mut page = HEAD.to_owned();
    page.push_str(CHANGES);
    let count = |status: Status| rules.iter().filter(|rule| rule.status == status).count();
    let counts = Status::ALL.map(|status| format!("{} {status}", count(status)));
    // Writing to a string cannot fail.
    let _ = writeln!(page, "\nOf {} rules: {}.\n", rules.len(), counts.join(", "));
    page.push_str("| rule | profiles | what it says | status | where a person sees it | note | code | tests |\n|---|---|---|---|---|---|---|---|\n");
    for rule in &rules {
        let _ = writeln!(page, "{}", row(rule));
    }
    page.push_str(
        "\n## What AKS on Azure Stack Hub had\n\n`+` it had it, `-` it had it not, `?` it was left open. For parameters: whether they are there, or needed.\n\n\
         | area | feature | Azure | Hub | here | note |\n|---|---|---|---|---|---|\n",
    );
    for row in rules::hub() {
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} |",
            row.area, row.feature, row.azure, row.hub, row.here, row.note
        );
    }
    page
}

fn row(rule: &Rule) -> String {
    let code = rule.code.iter().map(|code| link(code));
    let tests = rule.tests.iter().map(|test| match test.split_once('#') {
        Some((file, function)) => format!("[`{function}`](../../{file})"),
        None => link(test),
    });
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} |",
        rule.id,
        rule.profiles.join(", "),
        rule.sentence,
        rule.status,
        rule.seen,
        rule.note,
        code.collect::<Vec<_>>().join(", "),
        tests.collect::<Vec<_>>().join(", ")
    )
}

fn link(file: &str) -> String {
    format!("[`{file}`](../../{file})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_rule_and_claims_nothing_of_those_that_are_not_there() {
        let page = page();
        for id in rules::IDS.lines() {
            assert!(page.contains(&format!("\n| {id} | ")), "{id}");
        }
        for rule in rules::all().iter().filter(|rule| rule.status == Status::NotYet) {
            assert!(row(rule).contains("| not yet | - |"), "{}", rule.id);
        }
    }
}
