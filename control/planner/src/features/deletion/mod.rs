//! The plan of a cluster that is to go: its machines at once and without ceremony, then its volumes, then the
//! network, then the records, in one transaction.

use crate::{
    Draft, FabricEffect, NetworkSeen, Write,
    checks::removal,
    feature::{Feature, Instead},
    features::{balancers, volumes},
    nodes,
};

pub(crate) const FEATURE: Feature = Feature {
    instead: Some(Instead {
        applies: |desired| desired.deleting,
        plan,
        checks: removal,
    }),
    ..Feature::named("deletion")
};

fn plan(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    for (id, machine) in &seen.machines {
        nodes::remove_at_once(draft, id, machine);
    }
    if !seen.machines.is_empty() {
        return;
    }
    if volumes::remove_all(draft) {
        return;
    }
    if seen.network != NetworkSeen::Gone {
        draft.act(FabricEffect::DeleteNetwork, "removing the network");
    } else if balancers::forget_all(draft) {
        draft.wait("removing records");
    } else if seen.busy.is_empty() {
        draft.write(Write::Forget);
    } else {
        // An effect that began before the deletion may still write (a configuration, say).
        draft.wait("removing records");
    }
}
