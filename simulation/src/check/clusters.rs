//! Checks of one cluster: its machines, their versions, its nodes and its routes are those that it is to have.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use cluster_spec::PodNetworking;
use cluster_versions::Version;
use control_records::{ClusterRecord, MachineRecord, Role};
use fabric_api::{MachineSpec, NetworkSpec};

use super::{Records, same};
use crate::stamp::Stamp;

impl Stamp {
    /// Each machine runs its desired version: nodes their pool's, control planes their cluster's.
    fn check_versions(
        &self,
        cluster: &ClusterRecord,
        machines: &[(&MachineRecord, &Role)],
        problems: &mut Vec<String>,
    ) {
        let spec = cluster.spec();
        if spec.stopped {
            return;
        }
        let running = self.world.images();
        let version = |text: &str| text.parse::<Version>().ok();
        let mut members = BTreeSet::new();
        for (machine, role) in machines {
            let image = &machine.image;
            let right = match role {
                Role::ControlPlane { .. } => {
                    members.insert(image);
                    version(image) == version(&spec.kubernetes_version)
                }
                Role::Node { pool, .. } => {
                    let pool = spec.pools.iter().find(|found| found.name == *pool);
                    pool.is_none_or(|pool| {
                        // A build that is not known on one side tells nothing.
                        let other =
                            machine.build.is_some() && pool.image.is_some() && machine.build != pool.image;
                        pool.kubernetes_version == *image && !other
                    })
                }
            };
            if !right || machine.upgrading().is_some() || running.get(&machine.id) != Some(&machine.boots()) {
                problems.push(format!(
                    "{}: machine {} is of {image} and runs {:?}, which is not what it is to be",
                    cluster.name,
                    machine.id,
                    running.get(&machine.id)
                ));
            }
        }
        if members.len() > 1 {
            problems.push(format!(
                "{}: members of several versions: {members:?}",
                cluster.name
            ));
        }
    }

    pub(super) fn check_cluster(
        &self,
        records: &Records,
        cluster: &ClusterRecord,
        kept: &[MachineSpec],
        problems: &mut Vec<String>,
    ) {
        let (uid, spec, name) = (&cluster.uid, cluster.spec(), &cluster.name);
        let halted = cluster.requests.halted;
        let own: Vec<_> = records
            .machines
            .values()
            .filter_map(|machine| Some((machine, machine.assignment.as_ref()?)))
            .filter(|(_, assignment)| assignment.cluster == *uid)
            .map(|(machine, assignment)| (machine, &assignment.role))
            .collect();
        let (mut names, mut addresses, mut ranges) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (mut nodes, mut members) = (BTreeMap::<&str, u32>::new(), 0);
        self.check_versions(cluster, &own, problems);
        for (_, role) in own {
            match role {
                Role::ControlPlane { .. } => members += 1,
                Role::Node {
                    node_name,
                    address,
                    pod_range,
                    pool,
                    ..
                } => {
                    *nodes.entry(pool).or_default() += 1;
                    if !names.insert(node_name.clone()) {
                        problems.push(format!("{name}: two nodes called {node_name}"));
                    }
                    if !addresses.insert(*address) {
                        problems.push(format!("{name}: two nodes at {address}"));
                    }
                    if pod_range.is_some_and(|range| !ranges.insert(range)) {
                        problems.push(format!("{name}: two nodes with the pods {pod_range:?}"));
                    }
                }
            }
        }
        if spec.stopped {
            let seen = records.observed.get(uid);
            let ready: u32 = seen.iter().flat_map(|seen| seen.ready_nodes.values()).sum();
            if ready > 0 {
                problems.push(format!(
                    "{name}: {ready} nodes of a stopped cluster are called ready"
                ));
            }
            return;
        }
        if members != control_planes(cluster) {
            problems.push(format!(
                "{name}: {members} control plane machines, not {}",
                control_planes(cluster)
            ));
        }
        let wanted: BTreeMap<&str, u32> = spec
            .pools
            .iter()
            .filter(|pool| pool.wanted() > 0 && !halted)
            .map(|pool| (pool.name.as_str(), pool.wanted()))
            .collect();
        if nodes != wanted {
            problems.push(format!("{name}: machines by pool {nodes:?}, wanted {wanted:?}"));
        }
        if halted {
            return;
        }
        // Unknown machines exist, with their nodes and routes.
        names.extend(kept.iter().map(|machine| machine.hostname.clone()));
        for card in kept.iter().flat_map(|machine| &machine.nics) {
            if !addresses.insert(card.address.addr()) {
                problems.push(format!("{name}: two nodes at {}", card.address.addr()));
            }
        }
        let off = turned_off(records, uid, None);
        self.check_nodes(cluster, &names, &off, problems);
        let network = self.world.networks();
        let network = network.iter().find(|network| network.id.as_str() == uid);
        let neighbours = neighbours(records, cluster);
        for address in neighbours.intersection(&addresses) {
            problems.push(format!(
                "{name}: a node of another cluster in its VNET is at {address} too"
            ));
        }
        check_routes(cluster, network, ranges.len() + kept.len(), &neighbours, problems);
        if let Some(observed) = records.observed.get(uid) {
            // Members that have all lost their data since are restored once more, under a name of the planner's.
            if let Some(restore) = &spec.restore
                && !observed
                    .restored
                    .as_ref()
                    .is_some_and(|done| done.id == restore.id || done.id.starts_with("lost-"))
            {
                problems.push(format!(
                    "{name}: restore {} was not done, but {:?}",
                    restore.id, observed.restored
                ));
            }
            for pool in &spec.pools {
                let ready = observed.ready_nodes.get(&pool.name).copied();
                let off = turned_off(records, uid, Some(&pool.name)).len();
                let wanted = pool
                    .wanted()
                    .saturating_sub(u32::try_from(off).unwrap_or(u32::MAX));
                if ready != Some(wanted) && spec.network.plugin != PodNetworking::None {
                    problems.push(format!(
                        "{name}: ready nodes of {}: {ready:?}, not {wanted}",
                        pool.name
                    ));
                }
            }
            if let Some(problem) = &observed.problem {
                problems.push(format!("{name}: still called a problem: {problem}"));
            }
        }
    }

    fn check_nodes(
        &self,
        cluster: &ClusterRecord,
        names: &BTreeSet<String>,
        off: &BTreeSet<String>,
        problems: &mut Vec<String>,
    ) {
        let name = &cluster.name;
        let nodes = self.world.nodes(&cluster.uid);
        let seen: BTreeSet<_> = nodes.iter().map(|node| node.name.clone()).collect();
        same(problems, &format!("{name}: node objects and nodes"), &seen, names);
        for node in nodes {
            let pool = cluster
                .spec()
                .pools
                .iter()
                .find(|pool| node.name.starts_with(&format!("aks-{}-", pool.name)));
            let Some(pool) = pool else { continue };
            let labelled = pool
                .labels
                .iter()
                .all(|(key, value)| node.labels.get(key) == Some(value));
            let tainted = pool.taints.iter().all(|taint| node.taints.contains(taint));
            if !labelled || !tainted {
                problems.push(format!(
                    "{name}: {} lacks labels or taints of its pool",
                    node.name
                ));
            }
            if node.cordoned {
                problems.push(format!("{name}: {} is cordoned", node.name));
            }
            if !node.ready
                && !off.contains(&node.name)
                && cluster.spec().network.plugin != PodNetworking::None
            {
                problems.push(format!("{name}: {} is not ready", node.name));
            }
        }
    }
}

/// Names of a cluster's nodes that a user has stopped, of one pool or of all.
fn turned_off(records: &Records, uid: &str, pool: Option<&str>) -> BTreeSet<String> {
    let off = records.machines.values().filter(|machine| machine.healing.off);
    let given = off.filter_map(|machine| machine.assignment.as_ref());
    let own = given.filter(|given| given.cluster == uid);
    own.filter_map(|given| match &given.role {
        Role::Node {
            pool: of, node_name, ..
        } if pool.is_none_or(|pool| of == pool) => Some(node_name.clone()),
        _ => None,
    })
    .collect()
}

/// How many control plane machines a cluster is to have.
fn control_planes(cluster: &ClusterRecord) -> u32 {
    if cluster.requests.halted {
        0
    } else {
        cluster.spec().tier.members()
    }
}

/// Addresses of nodes that other clusters have in the tenant's VNET that a cluster is in.
fn neighbours(records: &Records, cluster: &ClusterRecord) -> BTreeSet<Ipv4Addr> {
    let vnet = |cluster: &ClusterRecord| cluster.spec().network.vnet.as_ref().map(|vnet| vnet.uid.clone());
    let Some(own) = vnet(cluster) else {
        return BTreeSet::new();
    };
    let assignments = records
        .machines
        .values()
        .filter_map(|machine| machine.assignment.as_ref());
    let others = assignments.filter(|given| given.cluster != cluster.uid);
    let inside =
        others.filter(|given| records.clusters.get(&given.cluster).and_then(vnet).as_ref() == Some(&own));
    inside
        .filter_map(|given| match given.role {
            Role::Node { address, .. } => Some(address),
            Role::ControlPlane { .. } => None,
        })
        .collect()
}

fn check_routes(
    cluster: &ClusterRecord,
    network: Option<&NetworkSpec>,
    ranges: usize,
    neighbours: &BTreeSet<Ipv4Addr>,
    problems: &mut Vec<String>,
) {
    let wanted = match cluster.spec().network.plugin {
        PodNetworking::Kubenet | PodNetworking::AzureOverlay => ranges,
        PodNetworking::AzureFlat | PodNetworking::None => 0,
    };
    let routes = network
        .map(|network| network.routes.as_slice())
        .unwrap_or_default();
    let (to_others, own): (Vec<_>, Vec<_>) = routes
        .iter()
        .partition(|route| neighbours.contains(&route.to.addr()));
    if to_others.len() != neighbours.len() {
        let found = to_others.len();
        problems.push(format!(
            "{}: {found} routes to other clusters' nodes, not {}",
            cluster.name,
            neighbours.len()
        ));
    }
    let there = own.len();
    if there != wanted {
        problems.push(format!("{}: {there} routes, not {wanted}", cluster.name));
    }
}
