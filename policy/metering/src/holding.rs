//! What a cluster has at a moment.

use cluster_spec::{ClusterSpec, vm_size};

/// What a cluster has, as it is asked for: what is still being made counts, and what is being removed as long as its record is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holding {
    /// Cores of its nodes.
    pub cores: u64,
    /// Memory of its nodes, MiB.
    pub memory_mib: u64,
    /// Disks of its nodes and its volumes, GiB.
    pub disk_gib: u64,
    /// Addresses of the stamp's network that it has leased.
    pub addresses: u64,
}

impl Holding {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cores: self.cores.saturating_add(other.cores),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            disk_gib: self.disk_gib.saturating_add(other.disk_gib),
            addresses: self.addresses.saturating_add(other.addresses),
        }
    }

    /// Whether there is nothing of it.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What the nodes of a cluster have: nothing while it is stopped. Control planes are the service's, and count for nobody.
pub fn nodes(spec: &ClusterSpec) -> Holding {
    let pools = spec.pools.iter().filter(|_| !spec.stopped);
    pools.fold(Holding::default(), |sum, pool| {
        let count = u64::from(pool.wanted());
        let size = vm_size(&pool.vm_size);
        sum.plus(Holding {
            cores: count.saturating_mul(size.map_or(0, |size| u64::from(size.cores))),
            memory_mib: count.saturating_mul(size.map_or(0, |size| size.memory_mib)),
            disk_gib: count.saturating_mul(u64::from(pool.os_disk_gib)),
            addresses: 0,
        })
    })
}

#[cfg(test)]
mod tests {
    use cluster_spec::testkit;

    use super::*;

    #[test]
    fn nodes_count_while_they_are_to_be_there() {
        let pool = |count, stopped| cluster_spec::PoolSpec {
            vm_size: "Standard_DS2_v2".to_owned(),
            os_disk_gib: 128,
            stopped,
            ..testkit::pool("a", count)
        };
        let mut spec = ClusterSpec {
            pools: vec![pool(3, false), pool(5, true)],
            ..testkit::cluster()
        };
        let size = vm_size("Standard_DS2_v2").unwrap();
        let three = Holding {
            cores: 3 * u64::from(size.cores),
            memory_mib: 3 * size.memory_mib,
            disk_gib: 3 * 128,
            addresses: 0,
        };
        assert_eq!(nodes(&spec), three);
        spec.stopped = true;
        assert!(nodes(&spec).is_nothing());
    }
}
