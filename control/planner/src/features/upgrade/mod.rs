//! Upgrades: another version of Kubernetes for what is there.
//!
//! | machine | how |
//! |---|---|
//! | control plane | stopped, and started with the other image on the disk that it has; one member at a time, the leader last |
//! | node | another node is added beside it; when that one is ready, it is drained and goes ([`crate::nodes::records`]) |
//!
//! Always true: a control plane never goes back, and once one member has gone on, the others follow, whatever is asked for
//! meanwhile; no node is newer than any API server; the next member begins when the one before serves.

use cluster_spec::PoolSpec;
use cluster_versions::Version;
use control_records::EventKind;

use crate::{Draft, Effect, Machine, Subject, Write, heal, members, restore};

/// Whether a machine is still to be started with its other image. Who forgets that it was, as a new process of the service
/// does, starts it once more.
pub(crate) fn is_due(machine: &Machine) -> bool {
    let upgrading = machine.record.upgrading;
    // A repair that was decided since has started it with that image as well.
    upgrading.is_some_and(|at| machine.repaired.is_none_or(|repaired| repaired < at))
}

/// Whether what is known of a machine is said by the image that it is to have.
pub(crate) fn is_back(machine: &Machine) -> bool {
    let upgrading = machine.record.upgrading.is_some();
    let boot = machine.report.as_ref().map(|report| &report.boot);
    !upgrading || !is_due(machine) && boot.is_some() && boot != machine.ended_boot.as_ref()
}

/// As numbers, to be compared.
fn version(image: &str) -> Option<Version> {
    image.parse().ok()
}

/// The version that the control plane is to have: what is asked for, or newer where a member has it already.
pub(crate) fn target<'a>(draft: &Draft<'a>) -> &'a str {
    let images = members::staying(draft)
        .into_iter()
        .map(|(_, member)| member.record.image.as_str());
    std::iter::once(draft.desired.spec.kubernetes_version.as_str())
        .chain(images)
        .max_by_key(|image| version(image))
        .unwrap_or_default()
}

/// Whether a control plane member is what the upgrade makes of it.
pub(crate) fn is_done(draft: &Draft<'_>, member: &Machine) -> bool {
    member.record.upgrading.is_none() && member.record.image == target(draft)
}

/// Whether nodes of this pool's version may be there: no API server is older.
pub(crate) fn allows(draft: &Draft<'_>, pool: &PoolSpec) -> bool {
    let wanted = version(&pool.kubernetes_version);
    members::staying(draft)
        .iter()
        .all(|(_, member)| member.record.upgrading.is_none() && version(&member.record.image) >= wanted)
}

/// Which version serves: the oldest, while members differ.
pub(crate) fn observe(draft: &mut Draft<'_>) {
    let members = members::staying(draft);
    if members
        .iter()
        .any(|(_, member)| member.record.upgrading.is_some())
    {
        return;
    }
    let oldest = members
        .iter()
        .map(|(_, member)| &member.record.image)
        .min_by_key(|image| version(image));
    draft.observed.kubernetes_version = oldest.cloned();
}

/// Takes the control plane on, a member at a time.
pub(crate) fn plan(draft: &mut Draft<'_>) {
    let staying = members::staying(draft);
    let target = target(draft).to_owned();
    let mut under_way = false;
    for (id, member) in &staying {
        let Some(at) = member.record.upgrading else {
            continue;
        };
        under_way = true;
        let why = format!(
            "starting {} with Kubernetes {}",
            member.label(),
            member.record.image
        );
        if is_due(member) {
            let machine = (*id).clone();
            draft.act(Effect::RestartMachine { machine, at }, why);
        } else if is_back(member) && members::healthy(member) {
            draft.wait(why);
            draft.tell(
                EventKind::Upgrade,
                member.label(),
                format!("serves with Kubernetes {}", member.record.image),
            );
            draft.writes.push(Write::Upgrade {
                machine: (*id).clone(),
                image: member.record.image.clone(),
                upgrading: None,
            });
        } else {
            draft.wait(why);
        }
    }
    if under_way {
        return;
    }
    let leader = members::keeper(draft).and_then(|status| status.leader);
    let mut behind: Vec<_> = staying
        .iter()
        .filter(|(_, member)| member.record.image != target)
        .collect();
    behind.sort_by_key(|(id, _)| Some(*id) == leader.as_ref());
    let Some((id, member)) = behind.first() else {
        return;
    };
    if let Some(obstacle) = obstacle(draft, id, member) {
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
    draft.writes.push(Write::Upgrade {
        machine: (*id).clone(),
        image: target,
        upgrading: Some(draft.now),
    });
}

/// Why a member must not be stopped now, if so.
fn obstacle(draft: &Draft<'_>, id: &str, member: &Machine) -> Option<String> {
    if restore::pending(draft).is_some() {
        return Some("a restore is under way".to_owned());
    }
    let staying = members::staying(draft);
    let touched = |(other, machine): &(&String, &Machine)| {
        let config = Subject::Config((*other).clone());
        let itself = Subject::Machine((*other).clone());
        let seen = draft.seen;
        [config, itself]
            .iter()
            .any(|subject| seen.busy.contains(subject) || draft.planned.contains(subject))
            || heal::under_repair(draft, other, machine)
    };
    if let Some((_, machine)) = staying.iter().find(|other| touched(other)) {
        return Some(format!("something is being done to {}", machine.label()));
    }
    if staying.len() > 1 && members::formed(&draft.seen.observed) {
        // Whoever serves nobody may be stopped all the same.
        let but = (!members::healthy(member)).then_some(id);
        if !members::all_healthy(draft, but) {
            return Some("not all control plane members are well".to_owned());
        }
    }
    None
}
