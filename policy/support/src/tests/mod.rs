//! The rules, one by one, and what is true of any facts.

mod any;
mod rules;

use jiff::Timestamp;

use crate::{Facts, Minor, Profile, Release, State, SupportState, support_state};

pub(crate) fn t(text: &str) -> Timestamp {
    let text = if text.len() == 10 {
        format!("{text}T00:00:00Z")
    } else {
        text.to_owned()
    };
    text.parse().unwrap()
}

/// Five minors, four months apart, the last of which the stamp does not have.
pub(crate) fn releases() -> Vec<Release> {
    let all = [
        (34, "2027-01-01"),
        (35, "2027-05-01"),
        (36, "2027-09-01"),
        (37, "2028-01-01"),
        (38, "2028-05-01"),
    ];
    let each = all.into_iter();
    each.map(|(minor, released)| Release {
        minor: Minor::one(minor),
        released: t(released),
        offered: minor < 38,
    })
    .collect()
}

pub(crate) fn facts(minor: u32) -> Facts {
    Facts::of(t("2027-10-01"), Minor::one(minor), releases())
}

/// The reasons of a rule.
pub(crate) fn of<'a>(state: &'a SupportState, rule: &str) -> Vec<&'a crate::Reason> {
    state
        .reasons
        .iter()
        .filter(|reason| reason.rule == rule)
        .collect()
}

pub(crate) fn ask(facts: &Facts, profile: Profile, at: &str) -> SupportState {
    support_state(facts, profile, t(at))
}

/// The state, and the rules that say something.
pub(crate) fn said(facts: &Facts, profile: Profile, at: &str) -> (State, Vec<&'static str>) {
    let state = ask(facts, profile, at);
    (
        state.state,
        state.reasons.iter().map(|reason| reason.rule).collect(),
    )
}
