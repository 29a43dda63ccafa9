//! R1 to R7: what the service keeps running; C5 and C7: size and known issues.

use std::time::Duration;

use super::{Found, Says};
use crate::{Area, Facts, Profile, State, clocks::after};

/// How far a backup may be behind (R2).
const BACKUP: Duration = Duration::from_secs(30 * 60);
/// How old a fix is to be before it is the service's duty (R6).
const FIX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Masters, and agents, that production needs (C5).
const LEAST: u32 = 3;

pub(super) fn find<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    health(facts, profile, found);
    advisories(facts, profile, found);
    for reboot in &facts.reboots {
        if found.has_come(reboot.announced) && !found.has_come(reboot.at) {
            found
                .say("R5", State::Supported, Says::Reboots(reboot))
                .of(Area::Nodes)
                .by(reboot.at)
                .since(reboot.announced);
        }
    }
    if profile == Profile::HubEngine && (facts.members < LEAST || facts.nodes < LEAST) {
        let state = match facts.production {
            Some(true) => State::OutOfSupport,
            Some(false) => State::Supported,
            None => State::Warning,
        };
        if state == State::OutOfSupport {
            found.out(facts.created);
        }
        found.say("C5", state, Says::TooSmall(facts.members, facts.nodes));
    }
    for issue in &facts.issues {
        found
            .say("C7", State::Warning, Says::Issue(&issue.value))
            .since(issue.since);
    }
}

fn health<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    if profile != Profile::HubEngine {
        if let Some(problem) = &facts.problem {
            found
                .say("R1", State::Warning, Says::Problem(&problem.value))
                .of(Area::ControlPlane)
                .since(problem.since);
        }
        if let Some(failed) = &facts.failed {
            found
                .say("R1", State::Warning, Says::Failed(&failed.value))
                .since(failed.since);
        }
    }
    if profile.is_managed() {
        for repair in &facts.repairs {
            found
                .say("R3", State::Supported, Says::Repairing(&repair.value))
                .of(Area::Nodes)
                .since(repair.since);
        }
    }
    if let Some(since) = facts.backup_behind.filter(|_| profile == Profile::Aks)
        && found.has_come(after(since, BACKUP))
    {
        found
            .say("R2", State::Warning, Says::Behind)
            .of(Area::Etcd)
            .since(since);
    }
}

fn advisories<'a>(facts: &'a Facts, profile: Profile, found: &mut Found<'a>) {
    if profile == Profile::Hub {
        return;
    }
    for advisory in &facts.advisories {
        // Only what is the service's is counted; what else was reported is named as such.
        if !advisory.managed {
            if profile == Profile::Aks {
                found
                    .say("R7", State::Supported, Says::Foreign(advisory))
                    .since(advisory.since);
            }
            continue;
        }
        match advisory.fixed {
            Some(fixed) if profile == Profile::Aks => {
                let duty = after(fixed, FIX);
                let (state, says) = if found.has_come(duty) {
                    (State::Warning, Says::Fix(advisory))
                } else {
                    (State::Supported, Says::Young(advisory))
                };
                found.say("R6", state, says).since(advisory.since);
            }
            Some(_) | None => {
                found
                    .say("R4", State::Warning, Says::Guidance(advisory))
                    .since(advisory.since);
            }
        }
    }
}
