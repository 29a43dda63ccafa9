//! Nodes that are asked for by name, and nodes that are to be made anew.

use cluster_spec::Tier;

use super::{healing::standing, *};

impl Ideal {
    fn node_names(&self) -> BTreeSet<String> {
        let machines = self.seen.machines.values();
        machines
            .filter_map(|machine| machine.node_name().map(str::to_owned))
            .collect()
    }

    /// Ids of machines of nodes, in the order of their numbers.
    fn node_machines(&self) -> Vec<String> {
        let nodes = self.seen.machines.iter();
        let mut named: Vec<(&str, String)> = nodes
            .filter_map(|(id, machine)| Some((machine.node_name()?, id.clone())))
            .collect();
        named.sort();
        named.into_iter().map(|(_, id)| id).collect()
    }

    fn ask(&mut self, change: impl FnOnce(&mut PoolSpec)) {
        self.desired.change_spec(|spec| change(&mut spec.pools[0]));
        self.desired.generation += 1;
    }
}

#[test]
fn the_nodes_that_are_named_go_and_no_others() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 3)]);
    let (machines, names) = (ideal.node_machines(), ideal.node_names());
    let first = ideal.seen.machines[&machines[0]].node_name().unwrap().to_owned();
    ideal.ask(|pool| {
        pool.count = 2;
        pool.removed = BTreeSet::from([machines[0].clone()]);
    });
    ideal.run();
    assert_eq!(ideal.node_machines(), machines[1..]);
    assert_eq!(ideal.seen.observed.generation, 2);
    // A node that is made later under the same name is another one, and stays.
    ideal.ask(|pool| pool.count = 3);
    ideal.run();
    assert_eq!(ideal.node_names(), names);
    assert!(ideal.node_names().contains(&first));
    assert!(!ideal.seen.machines.contains_key(&machines[0]));
    assert_eq!(ideal.seen.observed.generation, 3);
}

#[test]
fn nodes_that_were_made_before_are_replaced_one_beside_the_other() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 3)]);
    let before = ideal.node_machines();
    let now = ideal.now.as_millisecond();
    ideal.ask(|pool| pool.renewed = Some(now));
    let step = ideal.plan().observed.step;
    assert!(step.contains("newest node image"), "{step}");
    let mut least = usize::MAX;
    for _ in 0..400 {
        if !ideal.pass() {
            break;
        }
        let nodes = ideal
            .seen
            .machines
            .values()
            .filter(|machine| machine.node_name().is_some());
        let nodes: Vec<_> = nodes.collect();
        assert!(nodes.len() <= 4, "one more than there are to be");
        least = least.min(nodes.iter().filter(|machine| !machine.record.deleting).count());
    }
    assert!(least >= 3, "{least} were left");
    let after = ideal.node_machines();
    assert_eq!(after.len(), 3);
    assert!(after.iter().all(|machine| !before.contains(machine)));
    assert_eq!(ideal.seen.observed.generation, 2);
    assert!(ideal.plan().effects.is_empty(), "once");
}

#[test]
fn a_pool_that_is_stopped_has_no_nodes_and_comes_back_with_as_many() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 3), pool("b", 1)]);
    let (names, others) = (ideal.node_names(), ideal.nodes_of("b"));
    ideal.ask(|pool| pool.stopped = true);
    let waits = ideal.plan().waits;
    assert!(waits.iter().any(|wait| wait == "stopping pool a"), "{waits:?}");
    ideal.run();
    assert_eq!(ideal.nodes_of("a"), Vec::<String>::new());
    assert_eq!(ideal.nodes_of("b"), others, "nobody else is touched");
    assert_eq!(ideal.seen.observed.generation, 2);
    assert_eq!(ideal.seen.observed.ready_nodes["a"], 0);
    assert!(ideal.plan().effects.is_empty(), "it stays so");
    ideal.ask(|pool| pool.stopped = false);
    ideal.run();
    assert_eq!(ideal.node_names(), names);
    assert_eq!(ideal.seen.observed.generation, 3);
    assert_eq!(ideal.seen.observed.ready_nodes["a"], 3);
}

#[test]
fn what_is_asked_while_a_pool_stands_still_is_what_comes() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 2), pool("b", 1)]);
    // Nothing is added first for nodes that go anyway.
    ideal.ask(|pool| {
        pool.stopped = true;
        pool.renewed = Some(i64::MAX);
    });
    for _ in 0..200 {
        if !ideal.pass() {
            break;
        }
        let nodes = ideal.nodes_of("a");
        assert!(nodes.len() <= 2, "{nodes:?}");
    }
    assert_eq!(ideal.nodes_of("a"), Vec::<String>::new());
    ideal.ask(|pool| {
        pool.count = 4;
        pool.renewed = None;
    });
    ideal.run();
    assert_eq!(ideal.nodes_of("a"), Vec::<String>::new());
    assert_eq!(ideal.seen.observed.generation, 3);
    ideal.ask(|pool| pool.stopped = false);
    ideal.run();
    assert_eq!(ideal.nodes_of("a").len(), 4);
}

#[test]
fn a_stop_of_a_pool_may_turn_round_at_each_step() {
    for steps in 0..12 {
        let mut ideal = standing(Tier::Free, vec![pool("a", 2), pool("b", 1)]);
        ideal.ask(|pool| pool.stopped = true);
        for _ in 0..steps {
            ideal.pass();
        }
        ideal.ask(|pool| pool.stopped = false);
        ideal.run();
        assert_eq!(ideal.nodes_of("a").len(), 2, "after {steps}");
        assert_eq!(ideal.seen.observed.generation, 3, "after {steps}");
    }
}
