//! From any partial state it converges.

use proptest::prelude::*;

use super::*;

/// What may be the matter with a machine, in any combination.
fn matter() -> impl Strategy<Value = (Presence, u8, bool, bool, bool)> {
    let presence = prop_oneof![
        Just(Presence::Unknown),
        Just(Presence::Absent),
        Just(Presence::Partial),
        Just(Presence::Running),
        Just(Presence::Gone),
    ];
    // Configuration (unknown, absent, old, right), record there, to go, node object there.
    (
        presence,
        0..4_u8,
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.2),
        any::<bool>(),
    )
}

prop_compose! {
    fn partial()(
        plugin in prop_oneof![
            Just(PodNetworking::Kubenet), Just(PodNetworking::AzureFlat), Just(PodNetworking::AzureOverlay), Just(PodNetworking::None),
        ],
        before in prop::collection::vec(0..4_u32, 1..4),
        wanted in prop::collection::vec(0..4_u32, 1..4),
        matters in prop::collection::vec(matter(), 16),
        network in 0..4_u8,
        reach in prop_oneof![Just(Reach::Unknown), Just(Reach::Away), Just(Reach::Ready)],
        stale in any::<bool>(),
        reached in any::<bool>(),
        deleting in prop::bool::weighted(0.25),
        strays in 0..3_u8,
        held in any::<bool>(),
        lost_pools in any::<bool>(),
    ) -> Ideal {
        let pools = |counts: &[u32]| -> Vec<_> {
            counts.iter().enumerate().map(|(index, count)| pool(&format!("p{index}"), *count)).collect()
        };
        // A cluster as it was, then cut to pieces, then asked to be something else.
        let mut ideal = converged(plugin, pools(&before));
        let ids: Vec<_> = ideal.seen.machines.keys().cloned().collect();
        for (id, (presence, config, there, going, node)) in ids.iter().zip(&matters) {
            let machine = ideal.seen.machines.get_mut(id).unwrap();
            let is_node = machine.node_name().is_some();
            if !node {
                let name = machine.node_name().map(str::to_owned);
                ideal.seen.api.nodes.retain(|seen| Some(&seen.name) != name.as_ref());
            }
            machine.presence = *presence;
            machine.report = None;
            match config {
                0 => machine.config = ConfigSeen::Unknown,
                1 => machine.config = ConfigSeen::Absent,
                2 => machine.config = ConfigSeen::Published { generation: 3, inputs: "old".to_owned(), made_at: at(0), issued_at: at(0) },
                _ => {}
            }
            if *going && is_node {
                machine.record.deleting = true;
                machine.drain = Some(Drain { since: at(0), asked: None, left: None, held: None });
            }
            if !there {
                ideal.seen.machines.remove(id);
            }
        }
        match network {
            0 => ideal.seen.network = NetworkSeen::Unknown,
            1 => ideal.seen.network = NetworkSeen::Gone,
            2 => ideal.seen.network = NetworkSeen::Made(NetworkLayout::default()),
            _ => {}
        }
        for index in 0..strays {
            ideal.seen.api.nodes.push(NodeSeen { name: format!("aks-gone-{index}"), ..NodeSeen::default() });
        }
        if held {
            ideal.seen.held.insert(Subject::Network, Held { attempts: 2, until: at(60), why: "no".to_owned() });
        }
        ideal.seen.api.reach = reach;
        ideal.seen.api.looked = 0;
        ideal.seen.api.change += 1;
        ideal.seen.inventory_stale = stale;
        ideal.desired.deleting = deleting;
        ideal.desired.change_spec(|spec| spec.pools = pools(&wanted));
        if lost_pools {
            ideal.desired.change_spec(|spec| spec.pools[0].incarnation.push('x'));
        }
        if !reached {
            ideal.desired.generation = 2;
        }
        ideal.seen.operations = vec![operation(ideal.desired.generation, deleting)];
        ideal.next_id = 100;
        ideal
    }
}

impl std::fmt::Debug for Ideal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#?}\n{:#?}", self.desired.spec().pools, self.seen)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn from_any_partial_state_it_converges(mut ideal in partial()) {
        let passes = ideal.run();
        prop_assert!(passes < 60, "{passes} passes");
        if ideal.desired.deleting {
            prop_assert!(ideal.forgotten && ideal.seen.machines.is_empty());
            return Ok(());
        }
        prop_assert_eq!(ideal.seen.observed.generation, ideal.desired.generation);
        prop_assert_eq!(&ideal.ended, &[(format!("op{}", ideal.desired.generation), OperationStatus::Succeeded)]);
        let nodes: Vec<_> = ideal.seen.machines.values().filter_map(|machine| match machine.role() {
            Some(Role::Node { address, pod_range, .. }) => Some((machine, *address, *pod_range)),
            _ => None,
        }).collect();
        let wanted: u32 = ideal.desired.spec().pools.iter().map(|pool| pool.count).sum();
        prop_assert_eq!(nodes.len(), wanted as usize);
        prop_assert_eq!(ideal.seen.machines.len(), wanted as usize + 1);
        let addresses: BTreeSet<_> = nodes.iter().map(|(_, address, _)| *address).collect();
        prop_assert_eq!(addresses.len(), nodes.len(), "an address twice");
        let ranges: Vec<_> = nodes.iter().filter_map(|(_, _, range)| *range).collect();
        for (index, range) in ranges.iter().enumerate() {
            prop_assert!(!ranges[..index].iter().any(|other| other.contains(range) || range.contains(other)));
            prop_assert!(!addresses.iter().any(|address| range.contains(address)), "a node among the pods");
        }
        let names: BTreeSet<_> = ideal.seen.api.nodes.iter().map(|node| node.name.as_str()).collect();
        let own: BTreeSet<_> = nodes.iter().filter_map(|(machine, ..)| machine.node_name()).collect();
        prop_assert_eq!(names, own);
    }
}
