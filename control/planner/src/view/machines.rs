//! Single machines: whether they stay, do their work, are being changed.

use agent_protocol::DiskSeen;
use cluster_spec::{PodNetworking, PoolSpec};
use control_records::{GivenUp, Part, RepairStep, Role, epoch::is_first};

use crate::{ConfigSeen, Draft, Machine, NetworkSeen, Presence, Reach, Subject};

/// Whether a process stands by etcd: its failing is told and it is started again, and no machine is taken away for it.
pub(crate) fn is_etcd_sidecar(process: &str) -> bool {
    process.starts_with("etcd-")
}

pub(crate) fn is_full(disk: &DiskSeen) -> bool {
    disk.free_mib * FULL < disk.total_mib
}

/// A file system with less than one in so many parts free is full.
pub(crate) const FULL: u64 = 20;

pub(crate) fn wiping(machine: &Machine) -> bool {
    let repairing = machine.record.repairing();
    repairing.is_some_and(|(step, _)| step >= RepairStep::Reimage)
}

/// Whether the fabric is to be looked through. A look tells nothing of a machine that something is done to: that will tell itself,
/// and looking until it does would never end. Volumes are found by the same look.
pub(crate) fn wants_look(draft: &Draft<'_>) -> bool {
    let seen = draft.seen;
    let unknown = |(id, machine): (&String, &Machine)| {
        machine.presence == Presence::Unknown && !seen.busy.contains(&Subject::Machine(id.clone()))
    };
    let volumes = seen.volumes_there.is_none() && !seen.volumes.is_empty();
    seen.inventory_stale || volumes || seen.machines.iter().any(unknown)
}

/// Whether the VNET is there, and in it the subnet that a machine is to be plugged into.
pub(crate) fn has_its_subnet(draft: &Draft<'_>, machine: &Machine) -> bool {
    let NetworkSeen::Made(layout) = &draft.seen.network else {
        return false;
    };
    match machine.role() {
        Some(Role::Node { address, .. }) if draft.desired.spec().network.vnet.is_some() => {
            layout.subnets.iter().any(|range| range.contains(address))
        }
        _ => true,
    }
}

pub(crate) fn staying<'a>(draft: &Draft<'a>) -> impl Iterator<Item = (&'a String, &'a Machine)> + use<'a> {
    draft
        .seen
        .machines
        .iter()
        .filter(|(_, machine)| !machine.record.deleting)
}

/// Whether an agent has put its machine's present configuration into force.
pub(crate) fn in_force(draft: &Draft<'_>, machine: &Machine) -> bool {
    let ConfigSeen::Published { generation, .. } = machine.config else {
        return false;
    };
    if machine.record.healing.off && machine.presence != Presence::Running {
        // It takes it when it runs again.
        return true;
    }
    match &machine.report {
        Some(report) => report.generation >= generation,
        // After a restart of the service, an agent that has nothing new to say keeps silent for a while. What was in
        // force before still is; and a machine that does its work and is in contact takes what is new at once.
        None => {
            let works = match machine.node_name() {
                Some(node) => joined(draft, node),
                None => draft.seen.api.reach == Reach::Ready,
            };
            machine.presence == Presence::Running
                && (draft.reached_before() || works && (is_first(generation) || machine.heard()))
        }
    }
}

/// Whether a node has joined as far as Landfall can bring it: without a CNI plugin it stays NotReady, and that is what
/// was asked for.
pub(crate) fn joined(draft: &Draft<'_>, node: &str) -> bool {
    draft
        .seen
        .api
        .node(node)
        .is_some_and(|node| node.ready || draft.desired.spec().network.plugin == PodNetworking::None)
}

/// Whether a machine is still to be started with its other image. Who forgets that it was, as a new process of the service
/// does, starts it once more.
pub(crate) fn is_due(machine: &Machine) -> bool {
    let upgrading = machine.record.upgrading();
    // A repair that was decided since has started it with that image as well.
    upgrading.is_some_and(|at| machine.repaired.is_none_or(|repaired| repaired < at))
}

/// Whether what is known of a machine is said by the image that it is to have.
pub(crate) fn is_back(machine: &Machine) -> bool {
    let upgrading = machine.record.upgrading().is_some();
    !upgrading || !is_due(machine) && machine.current_report().is_some()
}

/// Whether a machine is one of the nodes that its pool is to have. One that healing has given up is not, nor one that has another
/// version and is preserved or quarantined.
pub(crate) fn counts(machine: &Machine, pool: &PoolSpec) -> bool {
    let healing = &machine.record.healing;
    let aside = given_up(machine).is_some_and(|given_up| given_up.quarantined);
    let other = (healing.preserve.is_some() || aside) && !is_current(machine, pool);
    !healing.given_up() && !other
}

/// Whether a node is being drained because it is replaced.
pub(crate) fn is_emptied(machine: &Machine) -> bool {
    let emptying = machine.record.emptying.as_ref();
    emptying.is_some_and(|emptying| emptying.given_up.is_none())
}

/// The reason why a node that was to be replaced was not drained.
pub(crate) fn given_up(machine: &Machine) -> Option<&GivenUp> {
    machine.record.emptying.as_ref()?.given_up.as_ref()
}

/// Whether a node is made as the pool is to have them: of its version and build, and not before its nodes were to be made anew. Where a build
/// is not known on one side, nothing follows from it.
pub(crate) fn is_current(machine: &Machine, pool: &PoolSpec) -> bool {
    let record = &machine.record;
    let renewed = pool
        .renewed
        .is_none_or(|at| record.created_at.as_millisecond() >= at);
    let other = record.build.is_some() && pool.image.is_some() && record.build != pool.image;
    record.image == pool.kubernetes_version && !other && renewed
}

/// The number of a machine in this very incarnation of the pool.
pub(crate) fn index_in(machine: &Machine, spec: &PoolSpec) -> Option<u32> {
    match machine.role()? {
        Role::Node {
            pool,
            incarnation,
            index,
            ..
        } if *pool == spec.name && *incarnation == spec.incarnation => Some(*index),
        _ => None,
    }
}

/// Whether a machine is taken away for a while, or is from this plan on.
pub(crate) fn under_repair(draft: &Draft<'_>, id: &str, machine: &Machine) -> bool {
    machine.record.repairing().is_some() || is_due(machine) || draft.is_repaired(id)
}

/// The number of a control plane machine.
pub(crate) fn member_index(machine: &Machine) -> Option<u32> {
    match machine.role()? {
        Role::ControlPlane { index, .. } => Some(*index),
        Role::Node { .. } => None,
    }
}

/// The part of the cluster that a machine is counted in; `None` for one that is to go, or that another one stands in for.
pub(crate) fn part_of(draft: &Draft<'_>, id: &str, machine: &Machine) -> Option<Part> {
    if machine.record.deleting {
        return None;
    }
    match machine.role()? {
        Role::ControlPlane { .. } => Some(Part::Base),
        Role::Node { pool, .. } => {
            let spec = draft
                .desired
                .spec()
                .pools
                .iter()
                .find(|spec| spec.name == *pool)?;
            let counted = index_in(machine, spec).is_some() && counts(machine, spec) && !draft.is_marked(id);
            counted.then(|| Part::pool(pool))
        }
    }
}
