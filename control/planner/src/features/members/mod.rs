//! The control plane's members: which there should be, how their limits follow the tier, how one leaves.
//!
//! Always true: a cluster whose etcd was formed never loses a second member to the planner before the first is back.

use cluster_bootstrap::member_address;
use cluster_spec::Tier;
use control_records::{EventKind, Part, Role};

use crate::{
    ConfigSeen, Draft, Machine, Permit, Write,
    checks::{Checks, Stage},
    disturb::Disturb,
    feature::Feature,
    features::addresses::Leases,
    view::control_plane::{all_healthy, healthy, membership, split, staying, target},
    view::{machines::member_index, recorded::formed},
};

pub(crate) const FEATURE: Feature = Feature {
    record,
    observe: serving,
    checks,
    ..Feature::named("members")
};

/// Three, and as many on their way out as there can be at the worst.
const MOST_MEMBERS: u32 = 6;

/// Brings the members' records to the tier: writes down what is missing, marks what is too much, highest number first.
fn record(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    let wanted = draft.desired.spec().tier.members();
    let staying = staying(draft);
    let there = u32::try_from(staying.len()).unwrap_or(u32::MAX);
    if there < wanted && there > 0 && !formed(&seen.observed) {
        // Those that are there may have formed etcd already, among themselves, although nobody has heard of it yet. Others that are
        // told to form it with them would be an etcd of their own.
        draft.wait("waiting for the first control plane member, to add others");
    } else if there < wanted {
        add(draft, wanted - there);
    } else if let Some(permits) = shrink(draft, there.saturating_sub(wanted)) {
        for permit in permits {
            draft.wait("taking control plane members away");
            draft.tell(
                EventKind::Member,
                permit.machine(),
                format!(
                    "the {:?} tier has {wanted} control plane member(s): this one goes",
                    draft.desired.spec().tier
                ),
            );
            draft.write(Write::MarkMachine(permit));
        }
    } else {
        draft.wait("waiting for all control plane members, to take some away");
    }
    if there.max(wanted) > 1 && !seen.observed.roaming {
        draft.observed.roaming = true;
    }
    limits(draft, there >= wanted);
}

/// So many members that are to go now; `None` while none may.
fn shrink(draft: &Draft<'_>, surplus: u32) -> Option<Vec<Permit>> {
    if surplus == 0 {
        return Some(Vec::new());
    }
    if !limits_followed(draft) {
        return None;
    }
    // The leader stays: its membership controller lets the others go, and knows that they are to.
    let leader = membership(draft)?.leader;
    staying(draft)
        .into_iter()
        .rev()
        .filter(|(id, _)| Some(*id) != leader.as_ref())
        .take(usize::try_from(surplus).unwrap_or_default())
        .map(|(id, _)| draft.may(Disturb::Shrink { id }).ok())
        .collect()
}

fn add(draft: &mut Draft<'_>, missing: u32) {
    if draft.waits_for_look() {
        return;
    }
    let seen = draft.seen;
    let mut leases = Leases::new(&draft.desired.uid, seen);
    if draft.leased().is_none() {
        // These two are leased in the same transaction: not twice the same.
        leases.cluster(&seen.observed);
    }
    let taken: Vec<_> = seen.machines.values().filter_map(member_index).collect();
    let free = (0..MOST_MEMBERS).filter(|index| {
        // A member that is in no record has its address in the VNET all the same.
        let address = member_address(draft.desired.spec(), *index);
        !taken.contains(index) && !address.is_some_and(|address| seen.kept.addresses.contains(&address))
    });
    for index in free.take(usize::try_from(missing).unwrap_or_default()) {
        let Some(address) = leases.member(index) else {
            draft.wait(
                "waiting for a free address of the stamp: all are in use; delete a cluster, or give the stamp a larger range",
            );
            return;
        };
        draft.wait("preparing machines");
        draft.write(Write::RecordMachine {
            role: Role::ControlPlane { index, address },
            image: target(draft).to_owned(),
            // A control plane takes the newest each time that it starts: it runs nobody's pods.
            build: None,
        });
    }
}

/// The API servers' limits follow the tier once all members are there and well, so that restarts one at a time go unnoticed.
fn limits(draft: &mut Draft<'_>, enough: bool) {
    let tier = draft.desired.spec().tier;
    let before = draft.seen.observed.limits;
    let follow = match before {
        _ if !formed(&draft.seen.observed) => true,
        // From before there were tiers: the limits in force are the free tier's.
        None => {
            draft.observed.limits = Some(Tier::Free);
            return;
        }
        Some(_) => enough && all_healthy(draft, None),
    };
    if before == Some(tier) {
        return;
    }
    if follow {
        draft.observed.limits = Some(tier);
    }
    if before.is_some() {
        // Configurations follow what is in the store.
        let staying = staying(draft);
        let unwell = staying.iter().find(|(_, machine)| !healthy(machine));
        draft.wait(match unwell {
            Some((_, machine)) => format!(
                "waiting for {}, to bring the API servers to the tier's limits",
                machine.label()
            ),
            None => "bringing the API servers to the tier's limits".to_owned(),
        });
    }
}

/// Whether all members go by the tier's limits: whoever stays is not restarted for them when nobody stands in any more.
fn limits_followed(draft: &Draft<'_>) -> bool {
    let Some(frame) = draft.frame() else {
        return false;
    };
    let follows = |machine: &Machine| match &machine.config {
        ConfigSeen::Published { inputs, .. } => {
            let wanted = frame.config_inputs(&machine.record);
            split(inputs).0 == split(&wanted).0
        }
        _ => false,
    };
    draft.seen.observed.limits == Some(draft.desired.spec().tier)
        && staying(draft).iter().all(|(_, machine)| follows(machine))
}

/// With several members, the cluster is what it is to be when all of them serve.
fn serving(draft: &mut Draft<'_>) {
    let members = staying(draft);
    if members.len() <= 1 {
        return;
    }
    for (_, member) in members {
        let serves = match member.api_server_ready() {
            Some(ready) => ready,
            None => draft.reached_before(),
        };
        if !serves {
            let unknown = member.report.is_none();
            draft.wait_or_adopt(unknown, format!("waiting for {}", member.label()));
        }
    }
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    let staying = staying(draft);
    let wanted = usize::try_from(draft.desired.spec().tier.members()).unwrap_or(usize::MAX);
    for (id, member) in &staying {
        let serves = member.api_server_ready().unwrap_or(draft.reached_before());
        let what = format!("waiting for the API server of {}", member.label());
        checks.machine(draft, id, member, what, serves);
    }
    for _ in staying.len()..wanted {
        checks.missing_machine(&Part::Base);
    }
    let tier = draft.desired.spec().tier;
    // As in the store: configurations follow only then.
    let limits = draft.seen.observed.limits.is_none_or(|limits| limits == tier);
    checks.cluster(
        Stage::Membership,
        "bringing the API servers to the tier's limits",
        limits,
    );
    for _ in wanted..staying.len() {
        checks.cluster(Stage::Membership, "taking control plane members away", false);
    }
    for (id, member) in &draft.seen.machines {
        if member.record.deleting && member.node_name().is_none() {
            checks.leaving_machine(
                &Part::Base,
                Stage::Membership,
                id,
                format!("removing {}", member.label()),
            );
        }
    }
}
