//! The names of everything that a stamp puts on a host.

use fabric_api::{MachineId, NetworkId};

use crate::short_hash;

/// Longest name of a network link in Linux (`IFNAMSIZ` less the final zero).
const LINK_MAX: usize = 15;

/// The VNET's card to the stamp's network, inside its namespace.
pub const UPLINK: &str = "uplink";

/// All stamp bridges begin so; rules that keep stamps apart match it.
pub(crate) const BRIDGE_PREFIX: &str = "lfs";

/// The names of one stamp. Every name holds a hash of the stamp's name, so that two stamps on a host never clash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    stamp: String,
    tag: String,
}

impl Names {
    /// The names of a stamp.
    pub fn new(stamp: &str) -> Self {
        Self {
            stamp: stamp.to_owned(),
            tag: short_hash(&["stamp", stamp], 8),
        }
    }

    /// The stamp's own name.
    pub fn stamp(&self) -> &str {
        &self.stamp
    }

    /// The hash of the stamp's name: eight characters of `0-9a-v`.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The bridge of the stamp's network, on the host.
    pub fn bridge(&self) -> String {
        link(format!("{BRIDGE_PREFIX}{}", self.tag))
    }

    /// The host's end of the veth pair between the stamp's bridge and a VNET.
    pub fn uplink_port(&self, network: &NetworkId) -> String {
        link(format!("lfu{}", short_hash(&[&self.stamp, network.as_str()], 12)))
    }

    /// The other end of a machine's interface: on the host (stamp) or in the VNET's namespace (subnet).
    pub fn port(&self, machine: &MachineId, card: &str) -> String {
        link(format!(
            "lfp{}",
            short_hash(&[&self.stamp, machine.as_str(), card], 12)
        ))
    }

    /// The network namespace of a VNET.
    pub fn network_namespace(&self, network: &NetworkId) -> String {
        format!("{}{network}", self.network_prefix())
    }

    /// The network namespace of a machine.
    pub fn machine_namespace(&self, machine: &MachineId) -> String {
        format!("{}{machine}", self.machine_prefix())
    }

    /// The VNET of a namespace, if it is one of this stamp.
    pub fn network_of_namespace(&self, namespace: &str) -> Option<NetworkId> {
        namespace
            .strip_prefix(&self.network_prefix())
            .map(NetworkId::from)
    }

    /// The machine of a namespace, if it is one of this stamp.
    pub fn machine_of_namespace(&self, namespace: &str) -> Option<MachineId> {
        namespace
            .strip_prefix(&self.machine_prefix())
            .map(MachineId::from)
    }

    /// The name of a machine's container.
    pub fn container(&self, machine: &MachineId) -> String {
        format!("lf-{}-{machine}", self.stamp)
    }

    /// The machine of a container, if it is one of this stamp.
    pub fn machine_of_container(&self, container: &str) -> Option<MachineId> {
        container
            .strip_prefix("lf-")?
            .strip_prefix(self.stamp.as_str())?
            .strip_prefix('-')
            .map(MachineId::from)
    }

    /// The parent control group of all machines, in every hierarchy.
    pub fn cgroup(&self) -> String {
        format!("/lf-{}", self.tag)
    }

    /// A machine's control group.
    pub fn machine_cgroup(&self, machine: &MachineId) -> String {
        format!("{}/{machine}", self.cgroup())
    }

    /// The nftables tables on the host, one of the family `inet` and one of the family `bridge`.
    pub fn table(&self) -> String {
        format!("landfall_{}", self.tag)
    }

    fn network_prefix(&self) -> String {
        format!("lf-{}-n-", self.tag)
    }

    fn machine_prefix(&self) -> String {
        format!("lf-{}-m-", self.tag)
    }
}

/// The bridge of a subnet inside its VNET's namespace.
pub fn subnet_bridge(subnet: &str) -> String {
    link(format!("sub{}", short_hash(&["subnet", subnet], 12)))
}

fn link(name: String) -> String {
    debug_assert!(name.len() <= LINK_MAX, "{name} is too long for a link");
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn link_names_fit_and_stamps_do_not_clash(
            a in "[a-z][a-z0-9-]{0,30}",
            b in "[a-z][a-z0-9-]{0,30}",
            id in "[a-z0-9]{1,12}",
        ) {
            let (ours, theirs) = (Names::new(&a), Names::new(&b));
            let (machine, network) = (MachineId::from(id.as_str()), NetworkId::from(id.as_str()));
            let all = |names: &Names| vec![
                names.bridge(),
                names.uplink_port(&network),
                names.port(&machine, "eth0"),
                names.port(&machine, "eth1"),
            ];
            for name in all(&ours) {
                prop_assert!(name.len() <= LINK_MAX);
                prop_assert!(a == b || !all(&theirs).contains(&name));
            }
            prop_assert!(a == b || ours.table() != theirs.table());
            prop_assert!(a == b || ours.machine_of_namespace(&theirs.machine_namespace(&machine)).is_none());
            prop_assert_eq!(ours.machine_of_namespace(&ours.machine_namespace(&machine)), Some(machine.clone()));
            prop_assert_eq!(ours.network_of_namespace(&ours.network_namespace(&network)), Some(network.clone()));
            prop_assert_eq!(ours.network_of_namespace(&ours.machine_namespace(&machine)), None);
            prop_assert_eq!(ours.machine_of_container(&ours.container(&machine)), Some(machine));
            prop_assert!(subnet_bridge(&a).len() <= LINK_MAX);
        }
    }
}
