//! Where nodes go: numbers, names, addresses and pod ranges. Pure choices, lowest first.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use base_seed::Seed;
use cluster_spec::{ClusterSpec, PodNetworking, PoolSpec};
use control_records::{Role, balancer::BalancerRecord};
use ipnet::Ipv4Net;

use crate::{KeptPlaces, Machine, Neighbours, nth};

/// Azure keeps the first four addresses of a subnet to itself; nodes start after them.
pub const NODE_OFFSET: u32 = 4;

/// The pods' range of a node where it has one of its own.
const POD_PREFIX: u8 = 24;

/// Every node that the service makes has this prefix; a node with another one is somebody else's.
pub(crate) const NAME_PREFIX: &str = "aks-";

/// The name of a node, as in AKS: the pool, a number that tells pools of the same name apart (other clusters, other
/// incarnations), and the index in base 36.
pub fn node_name(uid: &str, pool: &PoolSpec, index: u32) -> String {
    let number = Seed::new(0).child(uid).child(&pool.incarnation).value() % 100_000_000;
    format!("{NAME_PREFIX}{}-{number:08}-vmss{:0>6}", pool.name, base36(index))
}

fn base36(mut number: u32) -> String {
    let mut digits = Vec::new();
    loop {
        digits.extend(char::from_digit(number % 36, 36));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

/// Hands out places for new nodes, one after the other.
pub(crate) struct NodePlacement<'a> {
    uid: &'a str,
    spec: &'a ClusterSpec,
    addresses: BTreeSet<Ipv4Addr>,
    pod_ranges: BTreeSet<Ipv4Net>,
    /// Pool, incarnation and index.
    numbers: BTreeSet<(String, String, u32)>,
    /// Names of node objects.
    objects: BTreeSet<&'a str>,
}

impl<'a> NodePlacement<'a> {
    /// All machine records count, those on their way out too: their places are free when they are gone. A name is free when
    /// its node object is gone as well: whoever took it would be the drained node of before.
    pub(crate) fn new<'m>(
        uid: &'a str,
        spec: &'a ClusterSpec,
        machines: impl IntoIterator<Item = &'m Machine>,
        objects: impl IntoIterator<Item = &'a str>,
        kept: &KeptPlaces,
        neighbours: &Neighbours,
        balancers: &[Arc<BalancerRecord>],
    ) -> Self {
        let mut places = Self {
            uid,
            spec,
            addresses: kept.addresses.union(&neighbours.addresses).copied().collect(),
            pod_ranges: kept.routes.iter().map(|route| route.to).collect(),
            numbers: BTreeSet::new(),
            objects: objects.into_iter().collect(),
        };
        let internal = balancers.iter().filter(|balancer| balancer.internal);
        places.addresses.extend(internal.map(|balancer| balancer.address));
        for machine in machines {
            if let Some(Role::Node {
                pool,
                incarnation,
                index,
                address,
                pod_range,
                ..
            }) = machine.role()
            {
                places.addresses.insert(*address);
                places.pod_ranges.extend(*pod_range);
                places.numbers.insert((pool.clone(), incarnation.clone(), *index));
            }
        }
        places
    }

    /// The place of one more node; `None` when a range is full.
    pub(crate) fn next(&mut self, pool: &PoolSpec) -> Option<Role> {
        let pod_range = match self.spec.network.plugin {
            PodNetworking::Kubenet | PodNetworking::AzureOverlay => Some(self.own_range()?),
            PodNetworking::AzureFlat => Some(self.block(pool.max_pods)?),
            PodNetworking::None => None,
        };
        let node_range = pool.subnet.unwrap_or(self.spec.network.node_range);
        let last = u32::from(node_range.broadcast()) - u32::from(node_range.network());
        let address = (NODE_OFFSET..last)
            .filter_map(|index| nth(node_range, index))
            .find(|address| {
                !self.addresses.contains(address)
                    && !self.pod_ranges.iter().any(|range| range.contains(address))
            })
            .filter(|address| !pod_range.is_some_and(|range| range.contains(address)))?;
        let key = |index| (pool.name.clone(), pool.incarnation.clone(), index);
        let free = |index: &u32| {
            let name = node_name(self.uid, pool, *index);
            !self.numbers.contains(&key(*index)) && !self.objects.contains(name.as_str())
        };
        let index = (0..).find(free)?;
        self.addresses.insert(address);
        self.pod_ranges.extend(pod_range);
        self.numbers.insert(key(index));
        Some(Role::Node {
            pool: pool.name.clone(),
            incarnation: pool.incarnation.clone(),
            index,
            node_name: node_name(self.uid, pool, index),
            address,
            pod_range,
        })
    }

    /// A part of the pods' range for one node: the lowest free one.
    fn own_range(&self) -> Option<Ipv4Net> {
        let range = self.spec.network.pod_range?;
        range
            .subnets(POD_PREFIX.max(range.prefix_len()))
            .ok()?
            .find(|part| !self.pod_ranges.contains(part))
    }

    /// A block of the nodes' subnet for one node's pods: the highest free one, so that nodes can grow from below. The
    /// block with the subnet's last address is left alone.
    fn block(&self, max_pods: u32) -> Option<Ipv4Net> {
        let range = self.spec.network.node_range;
        // One address a pod, and one for the gateway that plugins take of the block.
        let size = (max_pods + 1).checked_next_power_of_two()?;
        let prefix = u8::try_from(size.leading_zeros() + 1).ok()?;
        if prefix <= range.prefix_len() {
            return None;
        }
        let first = u32::from(range.network());
        let blocks = (u32::from(range.broadcast()) - first) / size;
        // Block 0 holds the addresses that Azure keeps and the first nodes.
        (1..blocks)
            .rev()
            .filter_map(|index| Ipv4Net::new(Ipv4Addr::from(first + index * size), prefix).ok())
            .find(|block| {
                !self.pod_ranges.contains(block)
                    && !self
                        .pod_ranges
                        .iter()
                        .any(|other| other.contains(block) || block.contains(other))
                    && !self.addresses.iter().any(|address| block.contains(address))
            })
    }
}
