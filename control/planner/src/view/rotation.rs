//! Load balancers: which nodes get new connections, and what the network is to do with each address.
//!
//! A node is in rotation while all that is known of it says that it works and stays: its machine runs and is heard, its node is ready and
//! neither cordoned nor excluded by its label, and nobody is about to take it away. Connections that it has stay with it, so a node that is
//! left out for a moment harms nobody.
//!
//! Always true: what has not been looked at since this process began is left as it is: a restart of the service takes nobody out of
//! rotation.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use agent_api::SILENT_AFTER;
use cluster_api::NodeSeen;
use cluster_balancers::{EXCLUDED, PublicName, Wish};
use cluster_security::{Addresses, Direction, Rule, filter};
use control_records::{Role, balancer::BalancerRecord};
use fabric_api::{BalancedPort, Balancer, PortRange, Protocol, Side};
use ipnet::Ipv4Net;

use crate::{
    Draft, Machine, NetworkSeen, Presence, Subject, after,
    view::machines::{is_emptied, under_repair},
};

/// An agent that hung up calls again at once if it can; one that has not done so for this long is taken for gone.
const CALLS_AGAIN: Duration = Duration::from_secs(1);
/// An autoscaler's taint of nodes that it is about to remove.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What the network is to have: the load balancers that are known, and the addresses of those of which nothing is known yet.
pub(crate) fn balancers(draft: &mut Draft<'_>) -> (Vec<Balancer>, BTreeSet<Ipv4Addr>) {
    let seen = draft.seen;
    if seen.balancers.is_empty() {
        return (Vec::new(), BTreeSet::new());
    }
    let Some(wishes) = &seen.api.services else {
        let all = seen.balancers.iter().map(|record| record.address);
        return (Vec::new(), all.collect());
    };
    let nodes = nodes(draft);
    let profile = &draft.desired.spec().network;
    let within: Vec<Ipv4Net> = profile.space().iter().copied().chain(profile.pod_range).collect();
    let found = seen.balancers.iter().filter_map(|record| {
        let wish = wish_of(record, wishes).filter(|wish| wish.refusal.is_none())?;
        if clash_of(record, &seen.balancers, wishes).is_some() {
            return None;
        }
        Some(balancer(record, wish, &nodes, &within))
    });
    let mut found: Vec<_> = found.collect();
    found.sort();
    (found, BTreeSet::new())
}

/// What a load balancer is for, as long as it is to be there with this very address.
pub(crate) fn wish_of<'w>(record: &BalancerRecord, wishes: &'w [Wish]) -> Option<&'w Wish> {
    let wish = wishes.iter().find(|wish| wish.uid == record.uid)?;
    let named = wish.public.as_ref().map(PublicName::text);
    let fits = wish.internal == record.internal
        && wish.address.is_none_or(|address| address == record.address)
        && named == record.asked;
    (fits && !wish.deleting).then_some(wish)
}

/// Why a Service cannot share an address with another one: each port is one's. `None`: it can.
pub(crate) fn clash(wish: &Wish, other: &Wish) -> Option<String> {
    let port = wish.common_port(other)?;
    Some(format!(
        "Port {} of the address is the Service {}'s already; give this one another port, or another address.",
        port.port,
        other.key()
    ))
}

/// Why a Service has nothing at the address that it has been given: its ports have changed, and one of them is that of an earlier Service
/// there.
pub(crate) fn clash_of(
    record: &BalancerRecord,
    records: &[Arc<BalancerRecord>],
    wishes: &[Wish],
) -> Option<String> {
    record.public.as_ref()?;
    let wish = wish_of(record, wishes)?;
    let age = |record: &BalancerRecord| (record.created_at, record.uid.clone());
    let earlier = records
        .iter()
        .filter(|other| other.address == record.address && age(other) < age(record));
    earlier
        .filter_map(|other| wish_of(other, wishes))
        .filter(|other| other.refusal.is_none())
        .find_map(|other| clash(wish, other))
}

/// Whether a node may still get new connections, so that it is too early to drain it. Not for long: a network that cannot be changed keeps
/// nobody.
pub(crate) fn gets_connections(draft: &Draft<'_>, machine: &Machine) -> bool {
    let seen = draft.seen;
    let Some(Role::Node { address, .. }) = machine.role() else {
        return false;
    };
    match &seen.network {
        NetworkSeen::Made(layout) => layout.leads_to(*address) && !seen.held.contains_key(&Subject::Network),
        NetworkSeen::Unknown | NetworkSeen::Gone => false,
    }
}

fn balancer(
    record: &BalancerRecord,
    wish: &Wish,
    nodes: &[(&str, Ipv4Addr)],
    within: &[Ipv4Net],
) -> Balancer {
    let serving = nodes
        .iter()
        .filter(|(name, _)| !wish.local || wish.endpoints.contains(*name));
    let machines: BTreeSet<Ipv4Addr> = serving.map(|(_, address)| *address).collect();
    let ports = wish.ports.iter().map(|port| BalancedPort {
        protocol: port.protocol,
        port: port.port,
        target: port.node_port,
        machines: machines.clone(),
        sticky: wish.sticky,
    });
    Balancer {
        address: record.address,
        side: if record.internal {
            Side::Subnet
        } else {
            Side::Stamp
        },
        ports: ports.collect(),
        sources: ranges(&wish.sources, within),
    }
}

/// The ranges that words stand for, as in a rule of a security group; none for nobody named.
fn ranges(sources: &[Addresses], within: &[Ipv4Net]) -> Vec<Ipv4Net> {
    if sources.is_empty() {
        return Vec::new();
    }
    let side = |addresses: Vec<Addresses>| cluster_security::Side {
        addresses,
        ports: vec![PortRange::ALL],
    };
    let rule = Rule {
        priority: 0,
        direction: Direction::Inbound,
        allow: true,
        protocol: Protocol::Any,
        from: side(sources.to_vec()),
        to: side(vec![Addresses::Any]),
    };
    let resolved = filter(&[rule], within).inbound.into_iter().next();
    resolved.map(|rule| rule.from).unwrap_or_default()
}

/// The nodes in rotation, with their addresses.
fn nodes<'a>(draft: &mut Draft<'a>) -> Vec<(&'a str, Ipv4Addr)> {
    let seen = draft.seen;
    let mut nodes = Vec::new();
    for (id, machine) in &seen.machines {
        let Some(Role::Node {
            node_name, address, ..
        }) = machine.role()
        else {
            continue;
        };
        let stays = !machine.record.deleting
            && !machine.record.healing.off
            && !machine.record.healing.given_up()
            && !draft.is_marked(id)
            && !is_emptied(machine)
            && !under_repair(draft, id, machine);
        let serves = seen.api.node(node_name).is_some_and(serves);
        if stays && serves && runs(draft, machine) {
            nodes.push((node_name.as_str(), *address));
        }
    }
    nodes
}

fn serves(node: &NodeSeen) -> bool {
    let excluded = node.labels.contains_key(EXCLUDED);
    let going = node.taints.iter().any(|taint| taint.starts_with(TO_BE_DELETED));
    node.ready && !node.cordoned && !excluded && !going
}

/// Whether a machine runs and is heard. One that was not heard of since the service began is believed to, until it is silent.
fn runs(draft: &mut Draft<'_>, machine: &Machine) -> bool {
    let there = matches!(machine.presence, Presence::Running | Presence::Unknown);
    let heard = machine.contact.is_none_or(|contact| contact < SILENT_AFTER);
    let calls = match machine.hung_up {
        Some(ago) if ago < CALLS_AGAIN => {
            let due = after(draft.now, CALLS_AGAIN.saturating_sub(ago));
            draft.look_again_at(due);
            true
        }
        Some(_) => false,
        None => true,
    };
    there && heard && calls
}
