//! The upgrade settings of a pool: drain timeout, soak time, and the treatment of nodes that cannot be drained.

use cluster_spec::{Tier, Undrainable};
use control_records::Part;

use super::{healing::standing, *};
use crate::POD_DRAIN_FAILURE;

const NEW: &str = "1.37.1";
const MINUTE: Duration = Duration::from_secs(60);

/// A cluster with a pool of three nodes.
fn three(change: impl FnOnce(&mut PoolSpec)) -> Ideal {
    let mut pool = pool("a", 3);
    change(&mut pool);
    standing(Tier::Free, vec![pool])
}

/// Requests the other version for control plane and pool, as a request for the pool.
fn ask(ideal: &mut Ideal) {
    ideal.desired.change_spec(|spec| {
        spec.kubernetes_version = NEW.to_owned();
        spec.pools[0].kubernetes_version = NEW.to_owned();
    });
    ideal.desired.generation += 1;
    let generation = ideal.desired.generation;
    ideal.desired.pool_generations.insert("a".to_owned(), generation);
    ideal.seen.operations.push(OperationRecord {
        part: Some(Part::pool("a")),
        started_at: ideal.now,
        ..operation(generation, false)
    });
}

/// Runs until the operation has ended; gives its status and duration.
fn until_it_ends(ideal: &mut Ideal) -> (OperationStatus, Duration) {
    let begun = ideal.now;
    for _ in 0..5000 {
        ideal.pass();
        if let Some((_, status)) = ideal.ended.pop() {
            return (status, ideal.now.duration_since(begun).unsigned_abs());
        }
    }
    panic!("it does not end: {:#?}", ideal.plan());
}

/// Runs until nothing is planned and no machine is being removed, whether the plan is finished or not.
fn come_to_rest(ideal: &mut Ideal) {
    for _ in 0..500 {
        let plan = ideal.plan();
        let going = ideal
            .seen
            .machines
            .values()
            .any(|machine| machine.record.deleting);
        if plan.effects.is_empty() && plan.writes.is_empty() && !going {
            return;
        }
        ideal.pass();
    }
    panic!("it does not come to rest: {:#?}", ideal.plan());
}

/// By version: the number of its nodes that are not being removed.
fn versions(ideal: &Ideal) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for machine in ideal.seen.machines.values() {
        if machine.node_name().is_some() && !machine.record.deleting {
            *found.entry(machine.record.image.clone()).or_default() += 1;
        }
    }
    found
}

fn given_up(ideal: &Ideal, id: &str) -> Option<bool> {
    let emptying = ideal.seen.machines[id].record.emptying.as_ref()?;
    Some(emptying.given_up.as_ref()?.quarantined)
}

#[test]
fn an_upgrade_ends_at_a_node_that_cannot_be_drained_and_a_later_request_goes_on() {
    let mut ideal = three(|pool| pool.drain_minutes = 40);
    let held = ideal.nodes_of("a")[2].clone();
    ideal.stubborn.insert(held.clone());
    ask(&mut ideal);
    let (status, took) = until_it_ends(&mut ideal);
    assert_eq!(status, OperationStatus::Failed);
    assert!((40 * MINUTE..45 * MINUTE).contains(&took), "{took:?}");
    assert_eq!(given_up(&ideal, &held), Some(false));
    come_to_rest(&mut ideal);
    // The nodes added for the upgrade are removed, and the others are unchanged.
    assert_eq!(versions(&ideal), BTreeMap::from([("1.36.3".to_owned(), 3)]));
    let plan = ideal.plan();
    let problem = plan.observed.problem.unwrap();
    assert!(problem.contains("pod d/aa: two disruption budgets"), "{problem}");
    assert!(
        plan.observed.generation < ideal.desired.generation,
        "that is not what was asked for"
    );

    ideal.stubborn.clear();
    ask(&mut ideal);
    assert_eq!(until_it_ends(&mut ideal).0, OperationStatus::Succeeded);
    ideal.run();
    assert_eq!(versions(&ideal), BTreeMap::from([(NEW.to_owned(), 3)]));
    assert!(ideal.plan().observed.problem.is_none());
}

#[test]
fn a_node_that_cannot_be_drained_is_quarantined_if_the_pool_says_so() {
    let mut ideal = three(|pool| pool.undrainable = Undrainable::Cordon);
    let held = ideal.nodes_of("a")[1].clone();
    ideal.stubborn.insert(held.clone());
    ask(&mut ideal);
    let (status, took) = until_it_ends(&mut ideal);
    assert_eq!(status, OperationStatus::Failed, "it is told");
    assert!(took >= 30 * MINUTE, "the default: {took:?}");
    assert_eq!(given_up(&ideal, &held), Some(true));
    come_to_rest(&mut ideal);
    let expected = BTreeMap::from([("1.36.3".to_owned(), 1), (NEW.to_owned(), 3)]);
    assert_eq!(versions(&ideal), expected, "another one does its work");

    ideal.stubborn.clear();
    ask(&mut ideal);
    assert_eq!(until_it_ends(&mut ideal).0, OperationStatus::Succeeded);
    ideal.run();
    assert_eq!(versions(&ideal), BTreeMap::from([(NEW.to_owned(), 3)]));
}

#[test]
fn a_failure_names_the_node_the_pod_and_what_became_of_it() {
    for (undrainable, fate) in [
        (Undrainable::Schedule, "takes pods again"),
        (Undrainable::Cordon, "upgrade-status=Quarantined"),
    ] {
        let mut ideal = three(|pool| pool.undrainable = undrainable);
        let held = ideal.nodes_of("a")[2].clone();
        let name = ideal.seen.machines[&held].node_name().unwrap().to_owned();
        ideal.stubborn.insert(held);
        ask(&mut ideal);
        let error = loop {
            let error = ideal.plan().writes.into_iter().find_map(|write| match write {
                Write::EndOperation { error, .. } => error,
                _ => None,
            });
            if let Some(error) = error {
                break error;
            }
            ideal.pass();
        };
        assert_eq!(error.code, POD_DRAIN_FAILURE);
        for part in [
            name.as_str(),
            "within 30 minutes",
            "pod d/aa",
            fate,
            "kubectl get pdb",
        ] {
            assert!(error.message.contains(part), "{part}: {}", error.message);
        }
    }
}

#[test]
fn an_empty_node_is_kept_as_long_as_its_pool_says_and_no_clock_ends_that() {
    let mut ideal = three(|pool| pool.soak_minutes = 30);
    ask(&mut ideal);
    let (mut kept, mut most) = (BTreeMap::new(), 0);
    let begun = ideal.now;
    while ideal.ended.is_empty() {
        let before = ideal.seen.machines.clone();
        ideal.pass();
        let aside = |machine: &&Machine| machine.record.emptying.is_some() && !machine.record.deleting;
        most = most.max(ideal.seen.machines.values().filter(aside).count());
        for (id, machine) in &before {
            let empty = machine
                .record
                .emptying
                .as_ref()
                .and_then(|emptying| emptying.empty);
            let goes = ideal
                .seen
                .machines
                .get(id)
                .is_some_and(|machine| machine.record.deleting);
            if let (Some(empty), false, true) = (empty, machine.record.deleting, goes) {
                kept.insert(id.clone(), ideal.now.duration_since(empty).unsigned_abs());
            }
        }
    }
    assert_eq!(ideal.ended.pop().unwrap().1, OperationStatus::Succeeded);
    assert_eq!(most, 1, "one after the other");
    assert_eq!(kept.len(), 3);
    assert!(kept.values().all(|time| *time >= 30 * MINUTE), "{kept:?}");
    let took = ideal.now.duration_since(begun).unsigned_abs();
    assert!(
        took >= 90 * MINUTE,
        "longer than requests commonly may take: {took:?}"
    );
}

#[test]
fn a_node_is_not_given_more_time_by_a_service_that_begins_anew() {
    let mut ideal = three(|_| {});
    let held = ideal.nodes_of("a")[2].clone();
    ideal.stubborn.insert(held.clone());
    ask(&mut ideal);
    let begun = ideal.now;
    let mut forgotten = 0;
    while given_up(&ideal, &held).is_none() {
        ideal.pass();
        let machine = ideal.seen.machines.get_mut(&held).unwrap();
        // The loop begins the drain when it reads the record.
        if let Some(drain) = machine.drain.as_mut().filter(|_| forgotten < 40) {
            forgotten += 1;
            drain.left = None;
        }
    }
    let took = ideal.now.duration_since(begun).unsigned_abs();
    assert!(took < 35 * MINUTE, "{took:?}");
    assert_eq!(forgotten, 40);
}

#[test]
fn a_node_being_drained_stays_when_that_is_requested_and_is_removed_with_a_stopped_pool() {
    let emptied = || {
        let mut ideal = three(|_| {});
        let held = ideal.nodes_of("a")[2].clone();
        ideal.stubborn.insert(held.clone());
        ask(&mut ideal);
        while ideal.seen.machines[&held].record.emptying.is_none() {
            ideal.pass();
        }
        (ideal, held)
    };
    let (mut ideal, held) = emptied();
    ideal
        .desired
        .change_spec(|spec| spec.pools[0].kubernetes_version = "1.36.3".to_owned());
    ideal.desired.generation += 1;
    ideal.run();
    assert_eq!(ideal.seen.machines[&held].record.emptying, None);
    assert_eq!(versions(&ideal), BTreeMap::from([("1.36.3".to_owned(), 3)]));

    let (mut ideal, held) = emptied();
    ideal.desired.change_spec(|spec| spec.pools[0].stopped = true);
    ideal.desired.generation += 1;
    ideal.pass();
    assert!(
        ideal.seen.machines[&held].record.deleting,
        "nothing takes its place"
    );
}

#[test]
fn what_people_put_on_a_node_is_passed_on_to_one_that_takes_its_place() {
    let mut ideal = three(|_| {});
    let marked = ideal.nodes_of("a")[1].clone();
    let name = ideal.seen.machines[&marked].node_name().unwrap().to_owned();
    let nodes = &mut ideal.seen.api.nodes;
    let node = nodes.iter_mut().find(|node| node.name == name).unwrap();
    node.marks.labels.insert("disk".to_owned(), "fast".to_owned());
    ask(&mut ideal);
    assert_eq!(until_it_ends(&mut ideal).0, OperationStatus::Succeeded);
    let machines = ideal.seen.machines.values();
    let heirs: Vec<_> = machines
        .filter_map(|machine| machine.record.inherited.as_ref())
        .collect();
    assert_eq!(heirs.len(), 1);
    assert_eq!(heirs[0].from, name);
    assert_eq!(heirs[0].labels["disk"], "fast");
}
