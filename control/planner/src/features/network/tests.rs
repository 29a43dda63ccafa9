//! Clusters in a tenant's VNET: addresses that others have, routes to others, subnets that come later.

use std::{net::Ipv4Addr, sync::Arc};

use cluster_security::{Rule, nothing_passes};
use cluster_spec::{TenantVnet, Tier};
use fabric_api::RouteSpec;

use super::{healing::standing, *};

fn range(text: &str) -> ipnet::Ipv4Net {
    text.parse().unwrap()
}

/// A cluster whose only pool is in a subnet of a tenant's VNET.
fn tenants(nodes: u32) -> ClusterRecord {
    let mut record = cluster(PodNetworking::Kubenet, vec![pool("a", nodes)]);
    record.change_spec(|spec| {
        spec.network.vnet_range = range("10.1.0.0/16");
        spec.network.node_range = range("10.1.0.0/24");
        spec.network.vnet = Some(TenantVnet {
            uid: "v".to_owned(),
            space: vec![range("10.1.0.0/16")],
            subnets: [range("10.1.0.0/24")].into(),
        });
        spec.pools[0].subnet = Some(range("10.1.0.0/24"));
    });
    record
}

fn neighbour(last: u8) -> (Ipv4Addr, RouteSpec) {
    let address = Ipv4Addr::new(10, 1, 0, last);
    let route = RouteSpec {
        to: ipnet::Ipv4Net::from(address),
        via: Ipv4Addr::new(100, 64, 16, 9),
    };
    (address, route)
}

fn addresses(ideal: &Ideal) -> Vec<Ipv4Addr> {
    let machines = ideal.seen.machines.values();
    let mut found: Vec<Ipv4Addr> = machines
        .filter_map(|machine| match machine.role()? {
            Role::Node { address, .. } => Some(*address),
            Role::ControlPlane { .. } => None,
        })
        .collect();
    found.sort_unstable();
    found
}

fn layout(ideal: &Ideal) -> NetworkLayout {
    match &ideal.seen.network {
        NetworkSeen::Made(layout) => layout.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn addresses_of_others_are_left_to_them_and_led_to() {
    let mut seen = nothing_yet();
    for last in [4, 6] {
        let (address, route) = neighbour(last);
        seen.neighbours.addresses.insert(address);
        seen.neighbours.routes.push(route);
    }
    let mut ideal = Ideal::new(tenants(2), seen);
    ideal.run();
    assert_eq!(
        addresses(&ideal),
        [5, 7].map(|last| Ipv4Addr::new(10, 1, 0, last))
    );
    let made = layout(&ideal);
    assert_eq!(made.subnets, [range("10.1.0.0/24")]);
    assert!(made.routes.contains(&neighbour(4).1), "{made:?}");
    assert_eq!(ideal.seen.observed.generation, 1);
    // Another node of somebody else: the network leads to it, and nothing else happens.
    let (address, route) = neighbour(9);
    ideal.seen.neighbours.addresses.insert(address);
    ideal.seen.neighbours.routes.push(route.clone());
    let plan = ideal.plan();
    assert!(
        matches!(&plan.effects[..], [Effect::Fabric(FabricEffect::EnsureNetwork(layout))] if layout.routes.contains(&route)),
        "{plan:?}"
    );
    assert!(plan.writes.is_empty(), "{plan:?}");
    ideal.run();
    assert_eq!(ideal.seen.observed.generation, 1);
}

#[test]
fn other_rules_are_taken_to_the_network_and_nowhere_else() {
    let mut ideal = Ideal::new(tenants(2), nothing_yet());
    ideal.run();
    let generation = ideal.seen.observed.generation;
    let go = |ideal: &mut Ideal, guards: BTreeMap<ipnet::Ipv4Net, Arc<[Rule]>>, wanted: usize| {
        ideal.seen.guards = guards;
        let plan = ideal.plan();
        assert!(plan.writes.is_empty(), "{plan:?}");
        assert!(
            matches!(&plan.effects[..], [Effect::Fabric(FabricEffect::EnsureNetwork(layout))] if layout.guards.len() == wanted),
            "{plan:?}"
        );
        ideal.run();
        assert_eq!(layout(ideal).guards.len(), wanted);
        assert!(ideal.plan().effects.is_empty(), "{:?}", ideal.plan());
    };
    let own = range("10.1.0.0/24");
    // The subnet begins to go by a group, the group gets rules, the subnet leaves it.
    go(&mut ideal, BTreeMap::from([(own, Arc::from([]))]), 1);
    go(&mut ideal, BTreeMap::from([(own, nothing_passes().into())]), 1);
    go(&mut ideal, BTreeMap::new(), 0);
    // What goes for a subnet that it has no nodes in is nothing to it.
    ideal.seen.guards = BTreeMap::from([(range("10.1.9.0/24"), Arc::from([]))]);
    assert!(ideal.plan().effects.is_empty(), "{:?}", ideal.plan());
    assert_eq!(ideal.seen.observed.generation, generation);
}

#[test]
fn a_machine_waits_for_the_subnet_that_it_is_plugged_into() {
    let mut ideal = Ideal::new(tenants(1), nothing_yet());
    ideal.run();
    ideal.desired.change_spec(|spec| {
        let vnet = spec.network.vnet.as_mut().unwrap();
        vnet.subnets.insert(range("10.1.1.0/24"));
        let mut second = pool("b", 1);
        second.subnet = Some(range("10.1.1.0/24"));
        spec.pools.push(second);
    });
    ideal.desired.generation += 1;
    let mut made = false;
    for _ in 0..400 {
        let starts = ideal
            .plan()
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Fabric(FabricEffect::EnsureMachine(_))));
        let there = layout(&ideal).subnets.contains(&range("10.1.1.0/24"));
        assert!(there || !starts, "{:?}", ideal.plan());
        made |= there;
        if !ideal.pass() {
            break;
        }
    }
    assert!(made);
    assert_eq!(
        addresses(&ideal),
        [Ipv4Addr::new(10, 1, 0, 4), Ipv4Addr::new(10, 1, 1, 4)]
    );
    assert_eq!(ideal.seen.observed.generation, 2);
}

#[test]
fn a_full_subnet_is_told() {
    let mut record = tenants(1);
    record.change_spec(|spec| {
        spec.network.node_range = range("10.1.0.0/29");
        spec.network.vnet.as_mut().unwrap().subnets = [range("10.1.0.0/29")].into();
        spec.pools[0].subnet = Some(range("10.1.0.0/29"));
    });
    let mut seen = nothing_yet();
    seen.neighbours.addresses = [4, 5, 6].map(|last| neighbour(last).0).into();
    let mut ideal = Ideal::new(record, seen);
    for _ in 0..50 {
        ideal.pass();
    }
    assert!(addresses(&ideal).is_empty());
    let waits = ideal.plan().waits;
    assert!(
        waits
            .iter()
            .any(|wait| wait.contains("free addresses for pool a")),
        "{waits:?}"
    );
}

#[test]
fn a_node_that_is_turned_off_stands_still_until_it_is_turned_on() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 2)]);
    let node = ideal.nodes_of("a")[0].clone();
    let turn = |ideal: &mut Ideal, off: bool| {
        ideal.seen.machines.get_mut(&node).unwrap().record.healing.off = off;
        ideal.desired.generation += 1;
    };
    turn(&mut ideal, true);
    let plan = ideal.plan();
    assert_eq!(
        plan.effects,
        [Effect::Fabric(FabricEffect::StopMachine(Permit::assumed(&node)))]
    );
    ideal.run();
    assert_eq!(ideal.seen.machines[&node].presence, Presence::Stopped);
    assert_eq!(ideal.seen.observed.generation, 2, "that is what was asked for");
    // Its node is not ready, and nobody mends that.
    let name = ideal.seen.machines[&node].node_name().unwrap().to_owned();
    for seen in &mut ideal.seen.api.nodes {
        seen.ready &= seen.name != name;
    }
    ideal.live(healing::HOUR);
    let machine = &ideal.seen.machines[&node];
    assert_eq!(
        (machine.presence, machine.record.work.as_ref()),
        (Presence::Stopped, None)
    );
    assert_eq!(ideal.seen.machines.len(), 3, "nobody takes its place");
    turn(&mut ideal, false);
    ideal.run();
    assert_eq!(ideal.seen.machines[&node].presence, Presence::Running);
    assert_eq!(ideal.seen.observed.generation, 3);
}
