//! A restore of the cluster's state, once it is wished for.
//!
//! The wish is part of what control plane members are configured with: etcd's own program restores before it starts, and the
//! programs that remember what etcd held start anew. When an API server serves the restored state, that is observed; this
//! is part of what nodes are configured with: kubelets register their nodes again and look anew at what is to run. Then the
//! add-ons are applied to what is there now, and nodes that the restored state knows and nobody else go.

use cluster_spec::RestoreSpec;
use control_records::{EtcdLost, EventKind, RepairStep, Restored};

use crate::{
    ApiEffect, Draft, Machine, Reach,
    checks::Checks,
    feature::Feature,
    features::{addons, nodes::placement::NAME_PREFIX},
    view::{
        control_plane::staying,
        etcd::{empty, majority_without_data, members, outdated, restored},
        machines::in_force,
        recorded::{formed, last, wished},
    },
};

pub(crate) const FEATURE: Feature = Feature {
    act,
    checks,
    ..Feature::named("restore")
};

fn act(draft: &mut Draft<'_>) {
    majority_lost(draft);
    let Some(restore) = wished(draft.desired.spec(), &draft.observed) else {
        return;
    };
    if draft.observed.has_restored(&restore.id) {
        settle(draft);
        return;
    }
    if serves(draft, &restore) {
        draft.observed.restored = Some(Restored {
            id: restore.id.clone(),
            at: draft.now,
        });
        draft.tell(EventKind::Backup, "", told(&restore, &draft.desired.uid));
        // Nodes are configured next.
        draft.unfinished = true;
    } else {
        draft.wait("restoring the state from the backup");
    }
}

/// What is told of a restore that serves.
fn told(restore: &RestoreSpec, uid: &str) -> String {
    let at = restore
        .at
        .and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    let state = at.map_or_else(
        || "its newest state".to_owned(),
        |at| format!("its state of {at}"),
    );
    if restore.source.is_empty() || restore.source == *uid {
        format!("{state} was restored from the backup")
    } else {
        format!(
            "the state of another cluster ({}), {state}, was restored from the backup",
            restore.source
        )
    }
}

/// So many of several voters have no data left that etcd never has a majority again, each waits for another, and whoever still has
/// some was started again without success: then the newest state of the backup is restored. One alone does so by itself.
///
/// What a member still has of before a restore that was seen to serve counts as nothing: etcd has gone on without it.
///
/// What a member still has may lack what was acknowledged, as may the backup, which is a second behind at most while the service is
/// heard; it is set aside on that member's disk.
fn majority_lost(draft: &mut Draft<'_>) {
    let staying = staying(draft);
    if staying.len() < 2 || !formed(&draft.observed) {
        return;
    }
    let done = wished(draft.desired.spec(), &draft.observed)
        .is_none_or(|restore| draft.observed.has_restored(&restore.id));
    let waits = |machine: &Machine| {
        machine.heard() && in_force(draft, machine) && (empty(machine) || outdated(draft, machine))
    };
    let waiting = staying.iter().filter(|(_, machine)| waits(machine)).count();
    let hopeless = members(draft).all(|(_, machine)| waits(machine) || beyond_repair(draft, machine));
    if !done || !hopeless || !majority_without_data(draft, waits) {
        return;
    }
    let who = if staying.iter().any(|(_, machine)| outdated(draft, machine)) {
        "the members of the control plane that had the restored state have lost it, and the others have what was before".to_owned()
    } else if waiting == staying.len() {
        "all members of the control plane have lost etcd's data".to_owned()
    } else {
        format!(
            "{waiting} of the {} members of the control plane lost etcd's data, and the rest is no majority of those that vote (what it \
             has is kept beside its data directory)",
            staying.len()
        )
    };
    draft.observed.etcd_lost = Some(EtcdLost {
        at: draft.now,
        after: last(draft.desired.spec()).map(str::to_owned),
    });
    draft.tell(
        EventKind::Backup,
        "",
        format!("{who}: the newest state of the backup is restored"),
    );
    draft.unfinished = true;
}

/// Whether a member that may have data still ails after it was started again, as a machine, a while ago.
fn beyond_repair(draft: &Draft<'_>, machine: &Machine) -> bool {
    let healing = &machine.record.healing;
    let long_ago = |at| draft.after(at, draft.policy.heal.after_reboot) <= draft.now;
    !machine.record.deleting
        && machine.symptom.is_some()
        && healing.step >= RepairStep::Reboot
        && machine.record.repairing().is_none()
        && healing.at.is_some_and(long_ago)
}

/// Whether an API server answers with the restored state.
fn serves(draft: &Draft<'_>, restore: &RestoreSpec) -> bool {
    let api = &draft.seen.api;
    let looked = api.reach == Reach::Ready && api.looked >= api.change;
    looked
        && staying(draft).iter().any(|(_, member)| {
            in_force(draft, member)
                && member.api_server_ready() == Some(true)
                && restored(member).is_some_and(|id| id == restore.id)
        })
}

/// What is to be done with the restored state before it counts.
fn settle(draft: &mut Draft<'_>) {
    if draft.reached_before() || draft.seen.api.reach != Reach::Ready {
        return;
    }
    let since = draft.observed.restored.as_ref().map(|restored| restored.at);
    let applied = draft.seen.api.addons.as_ref().map(|addons| addons.at);
    if applied.zip(since).is_some_and(|(applied, since)| applied < since) {
        draft.act(addons::apply(draft), "installing add-ons");
    }
    let seen = draft.seen;
    for node in &seen.api.nodes {
        let known = seen
            .machines
            .values()
            .any(|machine| machine.node_name() == Some(node.name.as_str()));
        // Only those that Landfall once made: no machine stands behind them any more.
        if !known && node.name.starts_with(NAME_PREFIX) {
            let why = format!("removing node {}, which has no machine any more", node.name);
            draft.act(ApiEffect::DeleteNode(node.name.clone()), why);
        }
    }
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    let Some(restore) = wished(draft.desired.spec(), &draft.observed) else {
        return;
    };
    // Seen in this very plan, it is not yet part of what nodes are configured with.
    let done = draft.seen.observed.has_restored(&restore.id);
    checks.routine("restoring the state from the backup", done);
}
