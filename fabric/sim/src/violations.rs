//! Calls that must never be made to a fabric.

use std::{collections::BTreeMap, net::Ipv4Addr};

use agent_protocol::MachineConfig;
use cluster_versions::Version;
use fabric_api::{
    Attach, CONTROL_PLANE, MachineSpec, NetworkId, NetworkSpec, Power, ROLE_LABEL, Side, VolumeId, VolumeSpec,
};

use crate::state::State;

/// The stamp's own network, for people.
const STAMP: &str = "the stamp's network";

/// Each address with its network, for people.
fn addresses(spec: &MachineSpec) -> Vec<(String, Ipv4Addr)> {
    spec.nics
        .iter()
        .flat_map(|card| {
            let place = match &card.attach {
                Attach::Stamp => STAMP.to_owned(),
                Attach::Subnet { network, .. } => format!("network {network}"),
            };
            std::iter::once(card.address.addr())
                .chain(card.extra.iter().copied())
                .map(move |address| (place.clone(), address))
        })
        .collect()
}

/// Networks with a balancer at the address of such an interface.
fn balancing<'s>(
    networks: &'s BTreeMap<NetworkId, NetworkSpec>,
    attach: &Attach,
    address: Ipv4Addr,
) -> Vec<&'s NetworkSpec> {
    match attach {
        Attach::Stamp => {
            let all = networks.values();
            all.filter(|network| balances(network, Side::Stamp, address))
                .collect()
        }
        Attach::Subnet { network, .. } => {
            let own = networks.get(network).into_iter();
            own.filter(|network| balances(network, Side::Subnet, address))
                .collect()
        }
    }
}

fn balances(network: &NetworkSpec, side: Side, address: Ipv4Addr) -> bool {
    let mut balancers = network.balancers.iter();
    balancers.any(|balancer| balancer.side == side && balancer.address == address)
}

/// Records addresses of a new machine that are already in use.
pub(crate) fn machine(state: &mut State, spec: &MachineSpec) {
    for card in &spec.nics {
        for address in std::iter::once(card.address.addr()).chain(card.extra.iter().copied()) {
            for network in balancing(&state.networks, &card.attach, address) {
                state.violations.push(format!(
                    "a balancer of network {} and machine {} both have {address}",
                    network.id, spec.id
                ));
            }
        }
    }
    for (place, address) in addresses(spec) {
        // Most addresses are in separate networks: thousands of networks are not searched for those.
        let networks = if place == STAMP {
            Some(&state.networks)
        } else {
            None
        };
        for (id, network) in networks.into_iter().flatten() {
            if network.uplink == address {
                state.violations.push(format!(
                    "network {id} and machine {} both have {address} in {place}",
                    spec.id
                ));
            }
        }
        let holders = state.taken.entry((place.clone(), address)).or_default();
        for other in holders.iter().filter(|other| *other != spec.id.as_str()) {
            state.violations.push(format!(
                "machines {other} and {} both have {address} in {place}",
                spec.id
            ));
        }
        holders.insert(spec.id.to_string());
    }
}

/// A machine is deleted: its addresses are free.
pub(crate) fn machine_gone(state: &mut State, spec: &MachineSpec) {
    for key in addresses(spec) {
        if let Some(holders) = state.taken.get_mut(&key) {
            holders.remove(spec.id.as_str());
            if holders.is_empty() {
                state.taken.remove(&key);
            }
        }
    }
}

/// Records addresses of a network's uplink and balancers that are already in use.
pub(crate) fn network(state: &mut State, spec: &NetworkSpec) {
    let known = state.networks.get(&spec.id);
    let mut told = Vec::new();
    let others = || state.networks.values().filter(|other| other.id != spec.id);
    // Earlier violations were recorded when they occurred.
    if known.is_none_or(|known| known.uplink != spec.uplink) {
        let taken = others().filter(|other| other.uplink == spec.uplink);
        told.extend(taken.map(|other| {
            format!(
                "networks {} and {} both have the uplink {}",
                other.id, spec.id, spec.uplink
            )
        }));
    }
    for balancer in &spec.balancers {
        let (side, address) = (balancer.side, balancer.address);
        if known.is_some_and(|known| balances(known, side, address)) {
            continue;
        }
        let place = match side {
            Side::Stamp => {
                let taken = others().filter(|other| balances(other, side, address));
                told.extend(taken.map(|other| {
                    format!(
                        "balancers of networks {} and {} both have {address} in {STAMP}",
                        other.id, spec.id
                    )
                }));
                STAMP.to_owned()
            }
            Side::Subnet => format!("network {}", spec.id),
        };
        let machines = state.taken.get(&(place, address)).into_iter().flatten();
        told.extend(machines.map(|machine| {
            format!(
                "a balancer of network {} and machine {machine} both have {address}",
                spec.id
            )
        }));
    }
    state.violations.extend(told);
}

/// Records a machine that starts with an older image on a disk written by a newer one. A control plane member may, where nothing in its
/// cluster was stored in the form of a newer minor release ([`storage`]).
pub(crate) fn image(state: &mut State, before: &MachineSpec, now: &MachineSpec) {
    let (Some(old), Some(new)) = (version(&before.image), version(&now.image)) else {
        return;
    };
    if new >= old {
        return;
    }
    let member = now
        .labels
        .get(ROLE_LABEL)
        .is_some_and(|role| role == CONTROL_PLANE);
    let cluster = now.labels.get("cluster").filter(|_| member);
    let stored = cluster.and_then(|cluster| state.cluster(cluster).stored);
    if cluster.is_none() || stored.is_some_and(|stored| stored > minor(new)) {
        state.violations.push(format!(
            "machine {} goes back from {} to {}",
            now.id, before.image, now.image
        ));
    }
}

/// Notes in which minor release's form a member that starts its programs may store something.
pub(crate) fn storage(state: &mut State, cluster: &str, machine: &str) {
    let Some(found) = state.machines.get(machine) else {
        return;
    };
    let Some(own) = version(&found.spec.image).map(minor) else {
        return;
    };
    let emulated = found.in_force.as_deref().and_then(emulated);
    let writes = emulated.map_or(own, |emulated| emulated.min(own));
    let stored = &mut state.cluster(cluster).stored;
    *stored = (*stored).max(Some(writes));
}

fn minor(version: Version) -> (u32, u32) {
    (version.major, version.minor)
}

/// The minor release that an API server is told to emulate.
fn emulated(config: &MachineConfig) -> Option<(u32, u32)> {
    let server = config
        .processes
        .iter()
        .find(|process| process.name == "kube-apiserver")?;
    let mut flags = server.argv.iter();
    let minor = flags.find_map(|flag| flag.strip_prefix("--emulated-version=kube="))?;
    let (major, minor) = minor.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Records a volume that is created again after it was deleted with data: its owner would find the data
/// missing.
pub(crate) fn volume(state: &mut State, spec: &VolumeSpec) {
    if state.deleted_disks.contains(&spec.id) {
        let told = format!(
            "volume {} is to be made again, and what was on it is deleted",
            spec.id
        );
        state.violations.push(told);
    }
}

/// Records the deletion of an attached volume.
pub(crate) fn volume_gone(state: &mut State, id: &VolumeId) {
    let found = state.disks.get(id);
    if let Some(machine) = found.and_then(|found| found.attached.as_ref()) {
        let told = format!("volume {id} is to be deleted, and machine {machine} has it");
        state.violations.push(told);
    }
}

/// Records nodes that are newer than an API server of their cluster, when either starts.
pub(crate) fn skew(state: &mut State, cluster: &str) {
    let running = || {
        let members = state.members.get(cluster).into_iter().flatten();
        let machines = members.filter_map(|id| state.machines.get(id));
        machines.filter(|machine| machine.power == Power::Running)
    };
    let newest = running()
        .filter(|machine| !machine.is_control_plane_of(cluster))
        .max_by_key(|machine| version(&machine.spec.image));
    let oldest = running()
        .filter(|machine| machine.is_control_plane_of(cluster))
        .min_by_key(|machine| version(&machine.spec.image));
    if let (Some(node), Some(member)) = (newest, oldest)
        && version(&node.spec.image) > version(&member.spec.image)
    {
        let told = format!(
            "node {} runs {} under the API server of {}, which runs {}",
            node.spec.id, node.spec.image, member.spec.id, member.spec.image
        );
        state.violations.push(told);
    }
}

/// The version of an image; which build of it makes no difference.
fn version(image: &str) -> Option<Version> {
    image.split('@').next()?.parse().ok()
}
