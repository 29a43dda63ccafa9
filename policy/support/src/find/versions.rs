//! V1 to V10: versions, previews, images.

use std::time::Duration;

use jiff::Timestamp;

use super::{Found, NOTICE, Part, Says};
use crate::{
    Area, Facts, Minor, Profile, State,
    clocks::{after, before, months_after},
};

/// Minors that are supported at a time (V1: N-2).
const SUPPORTED_MINORS: usize = 3;
/// How long a minor of the long-term plan is supported.
const LONG_TERM_MONTHS: i64 = 24;
/// How often there are node images (V10).
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(super) fn find<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    if profile.is_managed() {
        let version = facts.control_plane;
        minor(
            facts,
            profile,
            found,
            Part::ControlPlane,
            version.value,
            version.since,
        );
        for pool in &facts.pools {
            // A pool of the control plane's version says nothing new.
            if pool.version.value != version.value {
                let part = Part::Pool(&pool.name);
                minor(
                    facts,
                    profile,
                    found,
                    part,
                    pool.version.value,
                    pool.version.since,
                );
            }
        }
        images(facts, profile, found);
    }
    lag(facts, profile, found);
    platform(facts, profile, found);
    engine(facts, profile, found);
    features(facts, profile, found);
}

/// When a minor goes out of support; `None`: that is not known yet.
fn end(facts: &Facts, profile: Profile, of: Minor) -> Option<Timestamp> {
    let released = || {
        let known = facts.releases.iter().find(|release| release.minor == of);
        known.map(|release| release.released)
    };
    if profile == Profile::Arc {
        return released().map(|released| months_after(released, 12));
    }
    // The one that takes its place among the newest: the third of those that are newer. What the stamp does not have takes nobody's place.
    let newer = facts
        .releases
        .iter()
        .filter(|release| release.offered && release.minor > of);
    let mut newer: Vec<(Minor, Timestamp)> = newer.map(|release| (release.minor, release.released)).collect();
    newer.sort_unstable();
    let end = newer.get(SUPPORTED_MINORS - 1).map(|(_, released)| *released)?;
    let long = facts.long_term.then(released).flatten();
    Some(long.map_or(end, |released| end.max(months_after(released, LONG_TERM_MONTHS))))
}

fn minor<'a>(
    facts: &'a Facts,
    profile: Profile,
    found: &mut Found<'a>,
    part: Part<'a>,
    version: Minor,
    since: Option<Timestamp>,
) {
    let Some(end) = end(facts, profile, version) else {
        return;
    };
    if found.has_come(end) {
        found.out(end);
        let ended = Says::VersionEnded(part, version, end);
        found.say("V4", State::OutOfSupport, ended).since(since);
        if profile == Profile::Arc && part == Part::ControlPlane {
            found
                .say("V2", State::Warning, Says::StillWorks(version))
                .since(end);
            found
                .say("V3", State::Warning, Says::NoUpdates(version))
                .since(end);
        }
    } else if found.has_come(before(end, NOTICE)) {
        found
            .say("V1", State::Warning, Says::VersionEnds(part, version))
            .by(end)
            .since(since);
    }
}

/// Nodes whose image is older than the newest by more than one turn of images.
fn images<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    let turn = if profile == Profile::Aks { WEEK } else { MONTH };
    for pool in &facts.pools {
        let (Some(made), Some(newest)) = (pool.oldest_node, pool.newest_image) else {
            continue;
        };
        if made < newest && found.has_come(after(newest, turn)) {
            found
                .say("V10", State::Warning, Says::ImageOld(&pool.name, made))
                .of(Area::Nodes)
                .since(newest);
        }
    }
}

/// A minor that upstream has released, and this stamp does not have.
fn lag<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    if !matches!(profile, Profile::Hub | Profile::Aks) {
        return;
    }
    let newest = facts.releases.iter().filter(|release| release.offered);
    let newest = newest.map(|release| release.minor).max();
    let missing = facts
        .releases
        .iter()
        .filter(|release| !release.offered && newest.is_some_and(|newest| release.minor > newest));
    for release in missing {
        if found.has_come(release.released) {
            found
                .say("V9", State::Supported, Says::Lags(release.minor))
                .since(release.released);
        }
    }
}

fn platform<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    let Some(end) = facts.stamp.platform_end.filter(|_| profile.is_hybrid()) else {
        return;
    };
    if found.has_come(end) {
        found.out(end);
        found
            .say("V5", State::OutOfSupport, Says::PlatformEnded)
            .since(end);
    } else if found.has_come(before(end, NOTICE)) {
        found.say("V5", State::Warning, Says::PlatformEnds).by(end);
    }
}

fn engine<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    let behind = facts.stamp.releases_behind;
    let Some(behind) = behind.filter(|behind| profile == Profile::HubEngine && behind.value > 1) else {
        return;
    };
    if let Some(since) = behind.since {
        found.out(since);
    }
    found
        .say("V6", State::OutOfSupport, Says::EngineBehind(behind.value))
        .since(behind.since);
}

fn features<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    if profile.is_managed() {
        for gate in &facts.alpha_gates {
            let says = Says::Alpha(&gate.value, facts.sandbox);
            found.say("V7", State::Unsupportable, says).since(gate.since);
        }
    }
    let state = match profile {
        Profile::HubEngine => State::OutOfSupport,
        Profile::Aks | Profile::Arc | Profile::Hci | Profile::Hub => State::BestEffort,
    };
    if profile == Profile::Hub {
        return;
    }
    for preview in &facts.previews {
        found
            .say("V8", state, Says::Preview(&preview.value))
            .since(preview.since);
        if let (State::OutOfSupport, Some(since)) = (state, preview.since) {
            found.out(since);
        }
    }
}
