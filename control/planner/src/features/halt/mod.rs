//! The plan of a cluster whose creation was aborted: its machines, its volumes and its network go, its record, its name, its addresses
//! and its keys stay. The next request begins where these are.

use crate::{
    Draft, FabricEffect, NetworkSeen,
    checks::removal,
    disturb::Disturb,
    feature::{Feature, Instead},
    features::{balancers, volumes},
    nodes,
};

pub(crate) const FEATURE: Feature = Feature {
    instead: Some(Instead {
        applies: |desired| desired.requests.halted,
        plan,
        checks: removal,
    }),
    ..Feature::named("halt")
};

fn plan(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    // Whatever its API had answered before, it is going to be another one.
    draft.observed.milestones.clear();
    draft.observed.formed = false;
    draft.observed.etcd_lost = None;
    draft.observed.backup_behind = None;
    draft.observed.addons.clear();
    draft.observed.namespaces.clear();
    draft.observed.ready_nodes.clear();
    draft.observed.unready_since = None;
    draft.observed.kubernetes_version = None;
    draft.observed.upgrading_to = None;
    for (id, machine) in &seen.machines {
        if !machine.record.deleting {
            // Written down first: a machine whose removal has begun is never taken back.
            draft.wait(format!("removing {}", machine.label()));
            if draft.has_room(2) {
                draft.mark(Disturb::End { id });
            }
        } else {
            nodes::remove_at_once(draft, id, machine);
        }
    }
    if !seen.machines.is_empty() {
        return;
    }
    if volumes::remove_all(draft) {
        return;
    }
    if seen.network != NetworkSeen::Gone {
        draft.act_or_adopt(
            seen.network == NetworkSeen::Unknown,
            FabricEffect::DeleteNetwork,
            "removing the network",
        );
    } else if balancers::forget_all(draft) {
        draft.wait("removing machines");
    } else if seen.busy.is_empty() {
        draft.observed.generation = draft.desired.generation.max(draft.observed.generation);
    } else {
        draft.wait("removing machines");
    }
}
