//! What one more cluster costs the service, over the simulator.

use anyhow::{Result, bail};

/// Per added cluster.
pub(crate) struct Cost {
    /// Memory, KiB.
    pub(crate) per_cluster_kib: f64,
    /// Idle CPU, thousandths of a core.
    pub(crate) per_cluster_mcpu: f64,
}

/// Measures with each of these numbers of clusters.
pub(crate) fn run(_clusters: &[u32]) -> Result<Cost> {
    bail!("the simulator cannot be measured yet")
}
