//! Questions about machines of pools with an autoscaler.

use std::time::Duration;

use crate::{Draft, Machine, view::machines::index_in};

/// Whether a node of a pool with an autoscaler is removed by its machine's id
/// ([`cluster_spec::PoolSpec::removed`]), and not because of the pool's count.
pub(crate) fn is_let_go(draft: &Draft<'_>, id: &str, machine: &Machine) -> bool {
    let mut pools = draft.desired.spec().pools.iter();
    pools.any(|pool| {
        pool.autoscale.is_some() && pool.removed.contains(id) && index_in(machine, pool).is_some()
    })
}

/// The time that pods may delay the removal of their node; for one of a pool with an autoscaler, the
/// profile's.
pub(crate) fn drain_bound(draft: &Draft<'_>, id: &str, machine: &Machine) -> Duration {
    if is_let_go(draft, id, machine) {
        Duration::from_secs(draft.desired.spec().autoscaler.graceful)
    } else {
        draft.policy.drain_bound
    }
}
