//! The control plane as the records alone say it: who its members are, and the restore that its etcd must come from.

use std::net::Ipv4Addr;

use cluster_bootstrap::{Member, member_address};
use cluster_spec::{ClusterSpec, RestoreSpec, Tier};
use control_records::{EtcdLost, MachineRecord, ObservedRecord, Role};

/// A cluster's control plane as each of its members has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    /// Those that are to be, in order of their numbers.
    pub members: Vec<Member>,
    /// Whether there was an etcd before: then none begins an empty one.
    pub formed: bool,
    /// Whether they hold the VIP among themselves.
    pub roaming: bool,
    /// The tier whose limits the API servers go by.
    pub limits: Tier,
    /// The restore that etcd's data must come from.
    pub restore: Option<RestoreSpec>,
    /// The restore that it was seen to come from: nodes register again after it.
    pub restored: Option<String>,
}

impl ControlPlane {
    /// As it is in the records.
    pub fn of<'m>(
        spec: &ClusterSpec,
        observed: &ObservedRecord,
        machines: impl IntoIterator<Item = &'m MachineRecord>,
    ) -> Self {
        let mut numbered: Vec<_> = machines
            .into_iter()
            .filter(|machine| !machine.deleting)
            .filter_map(|machine| {
                let (index, member) = member(spec, observed, machine)?;
                Some((index, member))
            })
            .collect();
        numbered.sort();
        Self {
            members: numbered.into_iter().map(|(_, member)| member).collect(),
            formed: formed(observed),
            roaming: observed.roaming,
            limits: observed.limits.unwrap_or(spec.tier),
            restore: wished(spec, observed),
            restored: observed.restored.as_ref().map(|restored| restored.id.clone()),
        }
    }
}

/// Whether the cluster's etcd held something before.
pub(crate) fn formed(observed: &ObservedRecord) -> bool {
    observed.formed
}

/// The number of a control plane machine, and where it is.
pub fn member(
    spec: &ClusterSpec,
    observed: &ObservedRecord,
    machine: &MachineRecord,
) -> Option<(u32, Member)> {
    let Role::ControlPlane { index, address } = machine.assignment.as_ref()?.role else {
        return None;
    };
    let stamp = if address.is_unspecified() {
        observed.control_plane_address.unwrap_or(Ipv4Addr::UNSPECIFIED)
    } else {
        address
    };
    let vnet = member_address(spec, index)?;
    Some((
        index,
        Member {
            machine: machine.id.clone(),
            stamp,
            vnet,
        },
    ))
}

/// The restore (its id) that was wished for last.
pub(crate) fn last(spec: &ClusterSpec) -> Option<&str> {
    spec.restore.as_ref().map(|restore| restore.id.as_str())
}

/// That too much of etcd's data is lost, since the restore that was wished for last: a later wish takes its place.
pub(super) fn lost<'a>(spec: &ClusterSpec, observed: &'a ObservedRecord) -> Option<&'a EtcdLost> {
    let lost = observed.etcd_lost.as_ref();
    lost.filter(|lost| lost.after.as_deref() == last(spec))
}

/// The restore that etcd's data must come from: what was asked for last; the newest state of its own (a source without a name),
/// where members have lost it since.
pub(crate) fn wished(spec: &ClusterSpec, observed: &ObservedRecord) -> Option<RestoreSpec> {
    match lost(spec, observed) {
        Some(lost) => Some(RestoreSpec {
            id: format!("lost-{}", lost.at.as_millisecond()),
            at: None,
            source: String::new(),
        }),
        None => spec.restore.clone(),
    }
}
