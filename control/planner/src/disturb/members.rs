//! Control plane members: one at a time, and none that the others need.

use crate::{
    ConfigSeen, Draft, Frame, Machine, Presence, Subject,
    view::{
        control_plane::{all_healthy, healthy, membership, split, staying},
        etcd,
        machines::under_repair,
        recorded::formed,
    },
};

/// A member is stopped, to be started with another image.
pub(super) fn upgrade(draft: &Draft<'_>, id: &str, member: &Machine) -> Result<(), String> {
    if etcd::pending(draft).is_some() {
        return Err("a restore is under way".to_owned());
    }
    let staying = staying(draft);
    let touched = |(other, machine): &(&String, &Machine)| {
        let config = Subject::Config((*other).clone());
        let itself = Subject::Machine((*other).clone());
        let seen = draft.seen;
        [config, itself]
            .iter()
            .any(|subject| seen.busy.contains(subject) || draft.planned.contains(subject))
            || under_repair(draft, other, machine)
    };
    if let Some((_, machine)) = staying.iter().find(|other| touched(other)) {
        return Err(format!("something is being done to {}", machine.label()));
    }
    if draft.desired.spec().emulated.is_some() && !emulates(draft, member) {
        return Err(format!(
            "{} has not taken yet what it is to emulate",
            member.label()
        ));
    }
    if staying.len() > 1 && formed(&draft.seen.observed) {
        // Whoever serves nobody may be stopped all the same.
        let but = (!healthy(member)).then_some(id);
        if !all_healthy(draft, but) {
            return Err("not all control plane members are well".to_owned());
        }
    }
    Ok(())
}

/// Whether a member has taken the configuration that it should have, and said so: newer programs read it when they start, and what they wrote
/// before they knew what to emulate could not be taken back.
fn emulates(draft: &Draft<'_>, member: &Machine) -> bool {
    let ConfigSeen::Published {
        generation, inputs, ..
    } = &member.config
    else {
        return false;
    };
    let told = member
        .current_report()
        .is_some_and(|report| report.generation >= *generation);
    let same = |frame: &Frame<'_>| split(&frame.config_inputs(&member.record)).0 == split(inputs).0;
    // What nothing but a newer release of the service would change may wait.
    told && (draft.frame().is_some_and(|frame| same(&frame))
        || draft.older_frame().is_some_and(|frame| same(&frame)))
}

/// Members that are too many go once all are well and their leader is known: it lets the others go.
pub(super) fn shrink(draft: &Draft<'_>) -> Result<(), String> {
    if all_healthy(draft, None) && membership(draft).is_some() {
        return Ok(());
    }
    Err("not all control plane members are well".to_owned())
}

/// Whether a member that is to go may be removed now.
pub(super) fn may_leave(draft: &Draft<'_>, id: &str, machine: &Machine) -> bool {
    if machine.presence == Presence::Absent {
        return true;
    }
    // One that healing has given up is no help to the others.
    if machine.record.healing.given_up() {
        return true;
    }
    match membership(draft) {
        Some(status) => !status
            .voters
            .iter()
            .chain(&status.learners)
            .any(|name| name == id),
        // Members form etcd before anybody has seen an API server answer: who may be one of them waits until those who
        // stay say so. Where nobody stays, nothing is kept.
        None => {
            let alone = staying(draft).is_empty() || !draft.seen.observed.roaming;
            !formed(&draft.seen.observed) && (alone || machine.config == ConfigSeen::Absent)
        }
    }
}

/// Whether a member may take the configuration that it should have, `inputs`: at once if it is not restarted for it, else
/// one after the other, while all others are well.
pub(super) fn may_configure(draft: &Draft<'_>, id: &str, machine: &Machine, inputs: &str) -> bool {
    let staying = staying(draft);
    if staying.len() <= 1 || !formed(&draft.seen.observed) {
        return true;
    }
    // Nobody has anything to lose or to serve: all wait for what is to be restored, and for whoever restores it.
    if staying
        .iter()
        .all(|(_, member)| etcd::empty(member) || member.config == ConfigSeen::Absent)
    {
        return true;
    }
    let others = || staying.iter().filter(|(other, _)| *other != id);
    match &machine.config {
        ConfigSeen::Published { inputs: before, .. } => {
            let (restarts, rest) = split(inputs);
            let (restarts_before, rest_before) = split(before);
            // Planned, or on its way: until it has landed nothing is seen of it.
            let rolling = others().any(|(other, _)| {
                let subject = Subject::Config((*other).clone());
                draft.seen.busy.contains(&subject) || draft.planned.contains(&subject)
            });
            if restarts == restarts_before && rest != rest_before {
                return true;
            }
            // Whoever restores goes first, however the others are: they wait for it, and serve what was there until it has.
            if let Some(restore) = etcd::pending(draft)
                && let Some((first, by)) = staying.first()
            {
                return *first == id || etcd::restored(by).as_ref() == Some(&restore.id);
            }
            if rolling {
                return false;
            }
            // Those who are still to come serve nobody, and wait for this one.
            let alone = others().all(|(_, other)| other.config == ConfigSeen::Absent);
            if alone || all_healthy(draft, Some(id)) {
                return true;
            }
            // Whoever is not well can hardly be disturbed; and the members' list must reach everybody in the end, while one
            // of them is missing most of all. But not beside one that is just taking its own.
            let taking = |other: &Machine| match &other.config {
                ConfigSeen::Published { made_at, .. } => {
                    !healthy(other) && draft.after(*made_at, draft.policy.heal.after_restart) > draft.now
                }
                _ => false,
            };
            !others().any(|(_, other)| taking(other))
                && (!healthy(machine) || rest != rest_before && others().any(|(_, other)| healthy(other)))
        }
        // A new one waits until the others know of it.
        ConfigSeen::Absent => {
            let Some(frame) = draft.frame() else {
                return false;
            };
            others().all(|(_, other)| match &other.config {
                ConfigSeen::Absent => true,
                // Not read yet since the service started: what it knows is not known.
                ConfigSeen::Unknown => false,
                ConfigSeen::Published {
                    generation, inputs, ..
                } => {
                    let wanted = frame.config_inputs(&other.record);
                    split(inputs).1 == split(&wanted).1
                        && match &other.report {
                            Some(report) => report.generation >= *generation,
                            // Silent, it may know of nobody yet, and would show the new one the door when it is back.
                            None => other.heard(),
                        }
                }
            })
        }
        ConfigSeen::Unknown => true,
    }
}
