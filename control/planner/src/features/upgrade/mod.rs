//! Upgrades: another version of Kubernetes for what is there.
//!
//! | machine | how |
//! |---|---|
//! | control plane | stopped, and started with the other image on the disk that it has; one member at a time, the leader last |
//! | node | another node is added beside it; when that one is ready, it is drained and goes ([`super::nodes`]) |
//!
//! Always true: once one member has gone on, the others follow, whatever is asked for meanwhile; a control plane goes back only to
//! the minor release that it emulates ([`cluster_spec::ClusterSpec::emulated`]), a member at a time as well, and no member starts newer
//! programs before it has taken what they are to emulate; no node is newer than any API server; the next member begins when the one
//! before serves.

use control_records::{EventKind, Role, Work, times::Step};

use crate::{
    Draft, FabricEffect, Write,
    checks::Checks,
    disturb::Disturb,
    feature::Feature,
    features::nodes,
    history,
    view::{
        control_plane::{healthy, membership, staying, target},
        machines::{is_back, is_current, is_due, part_of},
    },
};

pub(crate) const FEATURE: Feature = Feature {
    act,
    observe,
    checks,
    ..Feature::named("upgrade")
};

/// Takes the control plane on, a member at a time.
fn act(draft: &mut Draft<'_>) {
    let staying = staying(draft);
    let target = target(draft).to_owned();
    let mut under_way = false;
    for (id, member) in &staying {
        let Some(at) = member.record.upgrading() else {
            continue;
        };
        under_way = true;
        let why = format!(
            "starting {} with Kubernetes {}",
            member.label(),
            member.record.image
        );
        if is_due(member) {
            draft.disturb(
                Disturb::Proceed { id },
                |machine| FabricEffect::RestartMachine { machine, at },
                why,
            );
        } else if is_back(member) && healthy(member) {
            draft.wait(why);
            let took = history::since(draft, at);
            draft.observed.times.took(Step::Member, took);
            draft.tell(
                EventKind::Upgrade,
                member.label(),
                format!("serves with Kubernetes {}", member.record.image),
            );
            draft.write(Write::Upgrade {
                machine: (*id).clone(),
                image: member.record.image.clone(),
                work: Work::of(member.record.repairing(), None),
            });
        } else {
            draft.wait(why);
        }
    }
    if under_way {
        return;
    }
    let leader = membership(draft).and_then(|status| status.leader);
    let mut behind: Vec<_> = staying
        .iter()
        .filter(|(_, member)| member.record.image != target)
        .collect();
    behind.sort_by_key(|(id, _)| Some(*id) == leader.as_ref());
    let Some((id, member)) = behind.first() else {
        return;
    };
    if let Err(obstacle) = draft.may(Disturb::Upgrade { id, member }) {
        draft.wait(format!(
            "waiting to upgrade the control plane to Kubernetes {target}: {obstacle}"
        ));
        return;
    }
    draft.wait(format!("upgrading the control plane to Kubernetes {target}"));
    let before = &member.record.image;
    draft.tell(
        EventKind::Upgrade,
        member.label(),
        format!("goes on from Kubernetes {before} to {target}"),
    );
    draft.write(Write::Upgrade {
        machine: (*id).clone(),
        image: target,
        work: Work::of(member.record.repairing(), Some(draft.now)),
    });
}

/// Keeps what was begun, from the transaction in which the first member's upgrade is written down: whoever decides what is asked
/// for next sees it there before anything has served.
fn observe(draft: &mut Draft<'_>) {
    let begun = draft.writes.iter().find_map(|write| match write {
        Write::Upgrade { image, work, .. } => {
            let begins = work.as_ref().and_then(Work::upgrade).is_some();
            begins.then(|| image.clone())
        }
        _ => None,
    });
    let served = draft.observed.upgrading_to.is_some()
        && draft.observed.upgrading_to == draft.observed.kubernetes_version;
    if begun.is_some() {
        draft.observed.upgrading_to = begun;
    } else if served {
        draft.observed.upgrading_to = None;
    }
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    let target = target(draft);
    for (id, member) in staying(draft) {
        let done = member.record.upgrading().is_none() && member.record.image == target;
        checks.machine(draft, id, member, format!("upgrading {}", member.label()), done);
    }
    for (id, machine) in &draft.seen.machines {
        let Some(Role::Node { pool, .. }) = machine.role() else {
            continue;
        };
        let Some(spec) = draft.desired.spec().pools.iter().find(|spec| spec.name == *pool) else {
            continue;
        };
        if part_of(draft, id, machine).is_some() && !is_current(machine, spec) {
            let what = if machine.record.image == spec.kubernetes_version {
                format!(
                    "replacing {} by one with {}",
                    machine.label(),
                    nodes::image_for(spec)
                )
            } else {
                format!(
                    "upgrading {} to Kubernetes {}",
                    machine.label(),
                    spec.kubernetes_version
                )
            };
            checks.machine(draft, id, machine, what, false);
        }
    }
}
