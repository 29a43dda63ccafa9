//! What machines are configured with, and what they have to be restarted for.

use cluster_spec::{ApiAccess, Tier};

use super::{healing::standing, *};

/// The inputs of the member's configuration, and of all nodes'.
fn inputs(ideal: &Ideal) -> (String, BTreeSet<String>) {
    let configured = ideal.seen.machines.values().map(|machine| {
        let ConfigSeen::Published { inputs, .. } = &machine.config else {
            panic!("a machine without a configuration");
        };
        (machine.node_name().is_some(), inputs.clone())
    });
    let (nodes, members): (Vec<_>, Vec<_>) = configured.partition(|(node, _)| *node);
    let nodes = nodes.into_iter().map(|(_, inputs)| inputs).collect();
    (members[0].1.clone(), nodes)
}

#[test]
fn who_reaches_the_server_changes_while_it_serves_and_is_no_business_of_nodes() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 2)]);
    let (open, nodes) = inputs(&ideal);
    let mut seen = BTreeSet::from([open.clone()]);
    let accesses = [
        ApiAccess::Ranges(vec!["203.0.113.0/24".parse().unwrap()]),
        ApiAccess::Ranges(vec!["198.51.100.0/24".parse().unwrap()]),
        ApiAccess::Private,
    ];
    for access in accesses {
        ideal.desired.change_spec(|spec| spec.access = access);
        ideal.desired.generation += 1;
        ideal.run();
        let (member, now) = inputs(&ideal);
        assert_eq!(now, nodes);
        let restarts = |inputs: &str| inputs.split('.').next().map(str::to_owned);
        assert_eq!(restarts(&member), restarts(&open), "nothing restarts for it");
        assert!(seen.insert(member), "the member is told");
    }
    // As a release that knew of no such thing configured it.
    ideal.desired.change_spec(|spec| spec.access = ApiAccess::Open);
    ideal.desired.generation += 1;
    ideal.run();
    assert_eq!(inputs(&ideal).0, open);
}
