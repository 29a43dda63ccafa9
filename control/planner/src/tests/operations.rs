//! Operations: what each waits for, how far it is, why it failed, and what is told.

use control_records::{EventKind, Leaving, Part};

use super::*;

/// A cluster whose requests are kept as providers keep them: all of it asked for by generation 1.
fn course(pools: Vec<PoolSpec>) -> Ideal {
    let mut desired = cluster(PodNetworking::Kubenet, pools);
    desired.requests.generation = 1;
    let names = desired.spec().pools.iter().map(|pool| pool.name.clone());
    desired.pool_generations = names.map(|name| (name, 1)).collect();
    Ideal::new(desired, nothing_yet())
}

fn of_pool(generation: u64, pool: &str) -> OperationRecord {
    OperationRecord {
        name: "AgentPools_CreateOrUpdate".to_owned(),
        part: Some(Part::pool(pool)),
        ..operation(generation, false)
    }
}

/// A later request about one pool.
fn ask(ideal: &mut Ideal, spec: PoolSpec) -> u64 {
    let desired = &mut ideal.desired;
    desired.generation += 1;
    desired
        .pool_generations
        .insert(spec.name.clone(), desired.generation);
    let generation = desired.generation;
    ideal.seen.operations.push(of_pool(generation, &spec.name));
    desired.change_spec(|desired| {
        desired.pools.retain(|pool| pool.name != spec.name);
        desired.pools.push(spec);
    });
    generation
}

/// Passes until nothing changes any more, without the machines of one pool ever being made.
fn run_without(ideal: &mut Ideal, pool: &str) {
    for _ in 0..60 {
        for (id, machine) in &ideal.seen.machines {
            if matches!(machine.role(), Some(Role::Node { pool: own, .. }) if own == pool) {
                ideal.seen.held.insert(
                    Subject::Machine(id.clone()),
                    Held {
                        attempts: 5,
                        until: Timestamp::MAX,
                        why: "starting it: no memory left".to_owned(),
                    },
                );
            }
        }
        let plan = ideal.plan();
        if plan.effects.is_empty() && plan.writes.is_empty() && !plan.observed_changed {
            return;
        }
        ideal.pass();
    }
    panic!("it does not come to rest: {:#?}", ideal.plan());
}

fn kinds(plan: &Plan) -> Vec<EventKind> {
    plan.events.iter().map(|event| event.kind).collect()
}

#[test]
fn an_operation_ends_when_its_own_wish_is_there_whatever_the_others_wait_for() {
    let mut ideal = course(vec![pool("a", 1)]);
    ideal.seen.operations.push(operation(1, false));
    ask(&mut ideal, pool("stuck", 2));
    ask(&mut ideal, pool("b", 1));
    run_without(&mut ideal, "stuck");
    let ended: BTreeMap<_, _> = ideal.ended.iter().cloned().collect();
    assert_eq!(
        ended,
        [
            ("op1".to_owned(), OperationStatus::Succeeded),
            ("op3".to_owned(), OperationStatus::Succeeded)
        ]
        .into()
    );
    let observed = &ideal.seen.observed;
    assert_eq!(observed.generation, 0, "the cluster as a whole is not there");
    assert_eq!(
        observed.reached.keys().cloned().collect::<Vec<_>>(),
        [Part::Base, Part::pool("a"), Part::pool("b")],
        "its parts are"
    );
    ideal.seen.held.clear();
    ideal.run();
    assert_eq!(ideal.seen.observed.generation, 3);
    assert!(ideal.seen.observed.reached.is_empty(), "the whole says it");
    assert_eq!(ideal.ended.len(), 3);
}

#[test]
fn a_deleted_pool_is_gone_with_its_last_machine() {
    let mut ideal = course(vec![pool("a", 1), pool("b", 2)]);
    ideal.run();
    let mut pools = ideal.desired.state.pools();
    let b = pools.pop().unwrap();
    ideal.desired.state = ideal.desired.state.with_pools(pools).unwrap();
    ideal.desired.pool_generations.remove("b");
    ideal.desired.generation = 2;
    ideal.desired.requests.leaving = vec![Leaving {
        pool: b,
        generation: 2,
        operation: "op2".to_owned(),
    }];
    let part = ideal.desired.requests.leaving[0].part();
    ideal.seen.operations = vec![OperationRecord {
        part: Some(part.clone()),
        ..of_pool(2, "b")
    }];
    // Something else never ends, so that only the pool's own part can end the operation.
    ask(&mut ideal, pool("stuck", 1));
    let mut percents = Vec::new();
    for _ in 0..60 {
        let before = ideal.seen.machines.len();
        run_without(&mut ideal, "stuck");
        let operation = ideal
            .seen
            .operations
            .iter()
            .find(|operation| operation.id == "op2");
        percents.extend(operation.map(|operation| operation.progress.percent));
        if operation.is_none() {
            break;
        }
        assert!(ideal.seen.machines.len() <= before);
    }
    assert_eq!(ideal.ended[0], ("op2".to_owned(), OperationStatus::Succeeded));
    assert!(
        ideal.seen.observed.generation < 2,
        "the cluster as a whole is not there"
    );
    assert!(
        ideal.seen.observed.reached.contains_key(&part),
        "{:?}",
        ideal.seen.observed.reached
    );
    let left = ideal
        .seen
        .machines
        .values()
        .filter(|machine| matches!(machine.role(), Some(Role::Node { pool, .. }) if pool == "b"));
    assert_eq!(left.count(), 0);
}

#[test]
fn percent_and_step_grow_with_what_is_there_and_never_go_back() {
    let mut ideal = course(vec![pool("a", 3)]);
    ideal.seen.operations.push(operation(1, false));
    let mut seen = Vec::new();
    // The world refuses progress lower than before, see `Ideal::write`.
    while ideal.pass() {
        if let Some(operation) = ideal.seen.operations.first() {
            seen.push((operation.progress.percent, operation.progress.step.clone()));
        }
    }
    let percents: Vec<_> = seen.iter().map(|(percent, _)| *percent).collect();
    assert_eq!(percents[0], 0);
    let distinct: BTreeSet<_> = percents.iter().collect();
    assert!(distinct.len() >= 4, "{seen:?}");
    assert!(seen.iter().all(|(_, step)| !step.is_empty()), "{seen:?}");
    assert_eq!(ideal.ended.len(), 1);

    // Scaling a large pool by one does not begin near the end.
    ask(&mut ideal, pool("a", 4));
    ideal.pass();
    let operation = &ideal.seen.operations[0];
    assert!(operation.progress.percent < 50, "{:?}", operation.progress);
    assert!(
        operation.progress.before.unwrap() > 500,
        "{:?}",
        operation.progress
    );
}

/// The message of the first operation when it is out of time.
fn failure(ideal: &mut Ideal) -> String {
    ideal.now = at(20 * 60);
    let plan = ideal.plan();
    let told: Vec<_> = kinds(&plan);
    assert!(told.contains(&EventKind::Failed), "{told:?}");
    plan.writes
        .iter()
        .find_map(|write| match write {
            Write::EndOperation {
                status: OperationStatus::Failed,
                error: Some(error),
                ..
            } => Some(error.message.clone()),
            _ => None,
        })
        .expect("it is out of time")
}

#[test]
fn a_failure_names_the_machine_the_component_its_last_lines_and_the_next_step() {
    let node = |ideal: &Ideal| {
        let mut machines = ideal.seen.machines.iter();
        machines
            .find_map(|(id, machine)| Some((id.clone(), machine.node_name()?.to_owned())))
            .unwrap()
    };
    let half = || {
        let mut ideal = course(vec![pool("a", 1)]);
        ideal.run();
        let desired = &mut ideal.desired;
        desired.generation = 2;
        desired.pool_generations.insert("a".to_owned(), 2);
        ideal.seen.operations = vec![of_pool(2, "a")];
        let (id, name) = node(&ideal);
        ideal
            .seen
            .api
            .nodes
            .iter_mut()
            .for_each(|node| node.ready = false);
        (ideal, id, name)
    };

    let (mut ideal, id, name) = half();
    let mut report = (**ideal.seen.machines[&id].report.as_ref().unwrap()).clone();
    for (name, state) in [
        ("containerd", ProcessState::Ready),
        ("kubelet", ProcessState::BackOff),
    ] {
        report.processes.insert(
            name.to_owned(),
            ProcessSeen {
                restarts: 7,
                last_exit: Some("exit status 1".to_owned()),
                last_lines: ["one", "two", "three", "failed to run Kubelet: no swap"]
                    .map(str::to_owned)
                    .to_vec(),
                ..process(state)
            },
        );
    }
    ideal.seen.machines.get_mut(&id).unwrap().report = Some(Arc::new(report));
    let message = failure(&mut ideal);
    for part in [
        format!("kubelet on machine {id} ({name}) keeps ending"),
        "started again 7 times".to_owned(),
        "exit status 1".to_owned(),
        "two | three | failed to run Kubelet: no swap".to_owned(),
        format!("Next: landfall logs {name} kubelet"),
        "20 minutes".to_owned(),
        "the next request is accepted".to_owned(),
    ] {
        assert!(message.contains(&part), "{part}: {message}");
    }

    let (mut ideal, id, name) = half();
    let message = failure(&mut ideal);
    assert!(
        message.contains(&format!("All components of node {name} (machine {id}) run")),
        "{message}"
    );
    assert!(message.contains("kubectl describe node"), "{message}");

    let (mut ideal, id, _) = half();
    let machine = ideal.seen.machines.get_mut(&id).unwrap();
    machine.report = None;
    let message = failure(&mut ideal);
    assert!(message.contains("its agent has not called"), "{message}");

    let mut ideal = course(vec![pool("a", 1)]);
    ideal.seen.operations.push(operation(1, false));
    ideal.pass();
    ideal.pass();
    run_without(&mut ideal, "a");
    let (id, name) = node(&ideal);
    let message = failure(&mut ideal);
    for part in [
        id.as_str(),
        &name,
        "5 attempts",
        "no memory left",
        "Next: landfall doctor",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn a_stopped_creation_leaves_nothing_and_the_next_request_begins_anew() {
    let mut ideal = course(vec![pool("a", 2)]);
    for _ in 0..6 {
        ideal.pass();
    }
    assert!(!ideal.seen.machines.is_empty());
    ideal.desired.requests.halted = true;
    ideal.desired.generation = 2;
    ideal.seen.operations = vec![operation(2, false)];
    ideal.run();
    assert!(ideal.seen.machines.is_empty() && ideal.seen.network == NetworkSeen::Gone);
    assert!(
        ideal.seen.pki.is_some() && !ideal.forgotten,
        "its keys and its record stay"
    );
    assert_eq!(ideal.seen.observed.generation, 2);
    assert_eq!(ideal.ended, [("op2".to_owned(), OperationStatus::Succeeded)]);
    assert_eq!(ideal.seen.observed.kubernetes_version, None);

    ideal.desired.requests.halted = false;
    ideal.desired.generation = 3;
    ideal.desired.requests.generation = 3;
    ideal.seen.api = ApiSeen::default();
    ideal.seen.operations = vec![operation(3, false)];
    ideal.run();
    assert_eq!(ideal.seen.observed.generation, 3);
    assert_eq!(ideal.seen.machines.len(), 3);
    assert_eq!(ideal.ended.last().unwrap().1, OperationStatus::Succeeded);
}

#[test]
fn what_happens_is_told_once() {
    let mut ideal = course(vec![pool("a", 1)]);
    let mut told = Vec::new();
    for _ in 0..40 {
        let plan = ideal.plan();
        told.extend(plan.events.iter().map(|event| event.kind));
        if !ideal.pass() {
            break;
        }
    }
    let mut sorted = told.clone();
    sorted.sort();
    assert_eq!(
        sorted,
        [
            EventKind::MachineMade,
            EventKind::MachineMade,
            EventKind::ApiReady,
            EventKind::NodeJoined
        ],
        "{told:?}"
    );
    assert_eq!(ideal.plan().events, []);

    // A node goes and comes back.
    ideal.seen.api.nodes[0].ready = false;
    let plan = ideal.plan();
    assert_eq!(kinds(&plan), [EventKind::NodeLost]);
    ideal.seen.observed = plan.observed;
    assert_eq!(ideal.plan().events, []);
    ideal.seen.api.nodes[0].ready = true;
    let plan = ideal.plan();
    assert_eq!(kinds(&plan), [EventKind::NodeJoined]);
    ideal.seen.observed = plan.observed;

    // A component is started again and again: told the first times, then each time the number has doubled.
    let id = ideal
        .seen
        .machines
        .iter()
        .find(|(_, machine)| machine.node_name().is_some())
        .unwrap()
        .0
        .clone();
    let mut told = Vec::new();
    for restarts in 1..=20 {
        let mut report = (**ideal.seen.machines[&id].report.as_ref().unwrap()).clone();
        report.processes.insert(
            "kubelet".to_owned(),
            ProcessSeen {
                restarts,
                ..process(ProcessState::Ready)
            },
        );
        ideal.seen.machines.get_mut(&id).unwrap().report = Some(Arc::new(report));
        let plan = ideal.plan();
        if kinds(&plan) == [EventKind::ComponentRestarted] {
            told.push(restarts);
        }
        ideal.seen.observed = plan.observed;
    }
    assert_eq!(told, [1, 2, 3, 6, 12]);
}

#[test]
fn a_problem_is_told_when_it_begins_and_when_nothing_is_left_to_do() {
    let mut ideal = course(vec![pool("a", 1)]);
    ideal.pass();
    ideal.pass();
    ideal.seen.held.insert(
        Subject::Network,
        Held {
            attempts: 3,
            until: at(1000),
            why: "making the network: no room".to_owned(),
        },
    );
    ideal.seen.network = NetworkSeen::Unknown;
    let plan = ideal.plan();
    assert!(kinds(&plan).contains(&EventKind::ProblemBegan));
    ideal.seen.observed = plan.observed;
    assert!(!kinds(&ideal.plan()).contains(&EventKind::ProblemBegan));
    // Between two attempts nothing seems wrong: no reason to say that it is over.
    ideal.seen.held.clear();
    assert!(!kinds(&ideal.plan()).contains(&EventKind::ProblemEnded));
    let mut ended = 0;
    for _ in 0..40 {
        ended += kinds(&ideal.plan())
            .iter()
            .filter(|kind| **kind == EventKind::ProblemEnded)
            .count();
        if !ideal.pass() {
            break;
        }
    }
    assert_eq!(ended, 1);
}
