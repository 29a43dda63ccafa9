//! L1 to L7 and S1 to S3: what is stopped, idle, archived, disconnected or suspended. The clocks that would do something about it are
//! [`crate::clocks`]; here it is said where they stand.

use std::time::Duration;

use jiff::Timestamp;

use super::{Found, Says};
use crate::{
    Facts, Profile, Registration, State, Subscription,
    clocks::{
        ARCHIVE, DISCONNECTED, IDLE, STOPPED_NO_UPDATES, STOPPED_NOT_LATEST, STOPPED_UNSUPPORTED, SUSPENDED,
        UNSUPPORTED, after, before, preserved_until,
    },
};

/// From when on a state that is kept for a year is warned of.
const BEFORE_DELETION: Duration = Duration::from_secs(60 * 24 * 60 * 60);

pub(super) fn find<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    stopped(facts, profile, found);
    idle(facts, profile, found);
    subscription(facts, profile, found);
    connection(facts, profile, found);
    archive(facts, profile, found);
}

fn stopped<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    let Some(since) = facts.stopped else { return };
    if profile == Profile::Aks {
        let end = preserved_until(since);
        let near = found.has_come(before(end, BEFORE_DELETION));
        let state = if near { State::Warning } else { State::Supported };
        found.say("L1", state, Says::Kept(end)).by(end).since(since);
    }
    if !profile.is_hybrid() {
        return;
    }
    let unsupported = after(since, STOPPED_UNSUPPORTED);
    if found.has_come(unsupported) {
        found.out(unsupported);
        found
            .say("L5", State::OutOfSupport, Says::StoppedLong(since))
            .since(since);
    } else {
        found
            .say("L5", State::Warning, Says::StoppedLong(since))
            .by(unsupported)
            .since(since);
    }
    if found.has_come(after(since, STOPPED_NO_UPDATES)) {
        found.say("L5", State::OutOfSupport, Says::NoUpdate).since(since);
    } else if profile == Profile::Hci && found.has_come(after(since, STOPPED_NOT_LATEST)) {
        found.say("L5", State::OutOfSupport, Says::NoLatest).since(since);
    }
}

fn idle<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    if facts.stopped.is_some() || !profile.is_managed() {
        return;
    }
    if let Some(since) = facts.deallocated {
        found.out(since);
        let finding = found
            .say("L2", State::OutOfSupport, Says::Deallocated)
            .since(since);
        if profile == Profile::Aks {
            finding.by(after(since, IDLE));
        }
        return;
    }
    let Some(since) = facts.unready.filter(|_| profile == Profile::Aks) else {
        return;
    };
    // Nodes of which some machine runs are unwell, not idle.
    if facts.running.is_none_or(|running| running == 0) {
        found
            .say("L3", State::Warning, Says::StopsIdle(facts.running))
            .by(after(since, IDLE))
            .since(since);
    }
}

fn subscription<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    let (state, since) = (facts.subscription.value, facts.subscription.since);
    if state == Subscription::Active {
        return;
    }
    let deleted = state == Subscription::Deleted;
    match profile {
        Profile::Aks => {
            if let Some(since) = since {
                found.out(since);
            }
            if deleted {
                found.say("S2", State::OutOfSupport, Says::Deleted).since(since);
                return;
            }
            let end = since.map(|since| after(since, SUSPENDED));
            let says = Says::Suspended(end.unwrap_or(Timestamp::MAX));
            let finding = found.say("S1", State::OutOfSupport, says).since(since);
            if let Some(end) = end {
                finding.by(end);
            }
        }
        Profile::Arc | Profile::Hci => {
            // Of unknown age: taken to have begun only now.
            let end = since.map(|since| after(since, UNSUPPORTED));
            match end {
                Some(end) if found.has_come(end) => {
                    found.out(end);
                    found
                        .say("S3", State::OutOfSupport, Says::Left(deleted))
                        .since(since);
                }
                end => {
                    let says = Says::Leaving(end.unwrap_or(Timestamp::MAX), deleted);
                    let finding = found.say("S3", State::Warning, says).since(since);
                    if let Some(end) = end {
                        finding.by(end);
                    }
                }
            }
        }
        Profile::HubEngine | Profile::Hub => {}
    }
}

fn connection<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    match facts.stamp.registration {
        Registration::AirGapped if profile == Profile::Hub || profile.is_managed() => {
            found.say("L7", State::Supported, Says::AirGapped);
        }
        Registration::Reached(last) if profile.is_hybrid() => {
            let due = after(last, DISCONNECTED);
            if found.has_come(due) {
                found
                    .say("L6", State::Warning, Says::Disconnected(last))
                    .since(due);
            } else if found.has_come(before(due, DISCONNECTED / 2)) {
                found
                    .say("L6", State::Warning, Says::Disconnecting(last))
                    .by(due)
                    .since(last);
            }
        }
        Registration::Unknown | Registration::Exempt | Registration::AirGapped | Registration::Reached(_) => {
        }
    }
}

fn archive<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    if profile != Profile::Aks {
        return;
    }
    if let Some(since) = facts.archived {
        found.say("L4", State::OutOfSupport, Says::Archived).since(since);
        return;
    }
    let Some(out) = found.out else { return };
    let from = after(out, ARCHIVE);
    if found.has_come(from) {
        found.say("L4", State::Warning, Says::Archivable).since(from);
    }
}
