//! What the autoscaler has to do with machines.

use std::time::Duration;

use crate::{Draft, Machine, view::machines::index_in};

/// Whether a node goes, or is to go, out of a pool that has an autoscaler, by its own name and not for its number.
pub(crate) fn is_let_go(draft: &Draft<'_>, id: &str, machine: &Machine) -> bool {
    let mut pools = draft.desired.spec().pools.iter();
    pools.any(|pool| {
        pool.autoscale.is_some() && pool.removed.contains(id) && index_in(machine, pool).is_some()
    })
}

/// How long its pods may hold up the removal of a node: where the autoscaler lets it go, as long as its profile says.
pub(crate) fn drain_bound(draft: &Draft<'_>, id: &str, machine: &Machine) -> Duration {
    if is_let_go(draft, id, machine) {
        Duration::from_secs(draft.desired.spec().autoscaler.graceful)
    } else {
        draft.policy.drain_bound
    }
}
