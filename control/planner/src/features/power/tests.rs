//! A cluster that is stopped and started again: what is kept, what goes, what nobody may do meanwhile.

use cluster_spec::Tier;

use super::{healing::standing, *};

impl Ideal {
    /// Asks for the other power state.
    fn power(&mut self, stopped: bool) {
        let reached = self.seen.observed.generation >= self.desired.generation;
        if reached {
            self.desired.requests.reached = Some(Box::new(control_records::Reached {
                generation: self.desired.generation,
                state: self.desired.state.clone(),
                sealed: BTreeMap::new(),
            }));
        }
        self.desired.change_spec(|spec| spec.stopped = stopped);
        self.desired.generation += 1;
        self.desired.requests.generation = self.desired.generation;
        self.desired.modified_at = self.now;
        self.seen.operations = vec![OperationRecord {
            started_at: self.now,
            ..operation(self.desired.generation, false)
        }];
    }

    /// Machines that were enrolled, as all that ever ran.
    fn enrol(&mut self) {
        for machine in self.seen.machines.values_mut() {
            machine.record.enrolled_key = Some(format!("key of {}", machine.record.id));
        }
    }

    fn presences(&self, nodes: bool) -> Vec<Presence> {
        let machines = self.seen.machines.values();
        let own = machines.filter(|machine| machine.node_name().is_some() == nodes);
        own.map(|machine| machine.presence).collect()
    }

    fn names(&self) -> BTreeSet<String> {
        let machines = self.seen.machines.values();
        machines
            .filter_map(Machine::node_name)
            .map(str::to_owned)
            .collect()
    }

    fn stands(&self) -> bool {
        let members = self.presences(false).into_iter();
        let nodes = self
            .seen
            .machines
            .values()
            .filter(|machine| machine.node_name().is_some());
        members.into_iter().all(|presence| presence == Presence::Stopped)
            && nodes
                .into_iter()
                .all(|node| node.presence == Presence::Absent && node.record.enrolled_key.is_none())
    }
}

fn running(tier: Tier, nodes: u32) -> Ideal {
    let mut ideal = standing(tier, vec![pool("a", nodes)]);
    ideal.enrol();
    ideal
}

#[test]
fn members_keep_their_disks_and_nodes_come_back_under_their_names() {
    for tier in [Tier::Free, Tier::Standard] {
        let mut ideal = running(tier, 2);
        let (machines, names) = (ideal.seen.machines.len(), ideal.names());
        let objects = ideal.seen.api.nodes.clone();
        ideal.power(true);
        let first = ideal.plan();
        assert!(
            first
                .effects
                .iter()
                .all(|effect| matches!(effect, Effect::Fabric(FabricEffect::StopMachine(_))))
        );
        assert_eq!(first.effects.len(), machines);
        ideal.run();
        assert!(ideal.stands(), "{:#?}", ideal.seen.machines);
        assert_eq!(ideal.seen.observed.generation, 2);
        assert_eq!(ideal.seen.api.nodes, objects, "nothing is taken out of etcd");
        assert_eq!(
            ideal.seen.observed.ready_nodes,
            BTreeMap::from([("a".to_owned(), 0)])
        );
        assert_eq!(ideal.ended, [("op2".to_owned(), OperationStatus::Succeeded)]);
        assert!(
            ideal.told.iter().all(|(_, event)| !event.kind.is_warning()),
            "{:?}",
            ideal.told
        );

        ideal.ended.clear();
        ideal.power(false);
        ideal.run();
        assert_eq!(ideal.seen.machines.len(), machines);
        assert_eq!(ideal.names(), names);
        assert!(
            ideal
                .presences(true)
                .iter()
                .all(|presence| *presence == Presence::Running)
        );
        assert_eq!(ideal.seen.observed.generation, 3);
        assert!(!ideal.seen.observed.stopped);
        assert_eq!(
            ideal.seen.observed.ready_nodes,
            BTreeMap::from([("a".to_owned(), 2)])
        );
        assert_eq!(ideal.ended, [("op3".to_owned(), OperationStatus::Succeeded)]);
        assert_eq!(ideal.repairs(), Vec::<&str>::new());
    }
}

/// Has it archived, or brought back from its archive.
fn archive(ideal: &mut Ideal, archived: bool) {
    ideal.desired.change_spec(|spec| {
        spec.stopped = archived;
        spec.archived = archived;
        if !archived {
            spec.restore = Some(cluster_spec::RestoreSpec {
                id: "archive-1".to_owned(),
                at: None,
                source: "u".to_owned(),
            });
        }
    });
    ideal.desired.generation += 1;
    ideal.desired.requests.generation = ideal.desired.generation;
    ideal.desired.modified_at = ideal.now;
}

#[test]
fn disks_of_members_go_once_the_cluster_is_archived_and_not_before() {
    for tier in [Tier::Free, Tier::Standard] {
        let mut ideal = running(tier, 2);
        let (machines, names) = (ideal.seen.machines.len(), ideal.names());
        ideal.power(true);
        ideal.run();
        assert!(ideal.stands(), "members keep their disks");
        ideal.now = after(ideal.now, Duration::from_secs(1));
        archive(&mut ideal, true);
        ideal.run();
        assert_eq!(ideal.seen.observed.generation, ideal.desired.generation);
        let gone =
            |machine: &Machine| machine.presence == Presence::Absent && machine.record.enrolled_key.is_none();
        assert!(
            ideal.seen.machines.values().all(gone),
            "{:#?}",
            ideal.seen.machines
        );
        assert_eq!(
            (ideal.seen.machines.len(), ideal.names()),
            (machines, names.clone())
        );
        // Nothing is done to it any more.
        ideal.seen.inventory_stale = true;
        assert_eq!(ideal.plan().effects, [Effect::from(FabricEffect::Look)]);
        ideal.run();
        if tier == Tier::Standard {
            // How several members come back from a backup is the restore's matter.
            continue;
        }
        archive(&mut ideal, false);
        ideal.restored = Some("archive-1".to_owned());
        ideal.run();
        let runs = |machine: &Machine| machine.presence == Presence::Running;
        assert!(ideal.seen.machines.values().all(runs));
        assert_eq!(ideal.names(), names, "nodes come back under their names");
        assert!(ideal.seen.observed.has_restored("archive-1"));
    }
}

#[test]
fn nothing_happens_in_a_cluster_that_stands_still() {
    let mut ideal = running(Tier::Standard, 3);
    ideal.power(true);
    ideal.run();
    ideal.told.clear();
    // Days, resyncs, another process.
    for day in 0..3 {
        ideal.now = after(ideal.now, Duration::from_secs(24 * 3600));
        ideal.seen.inventory_stale = true;
        ideal.seen.network = NetworkSeen::Unknown;
        ideal.health = Default::default();
        let plan = ideal.plan();
        assert!(
            !plan.observed_changed && plan.writes.is_empty(),
            "day {day}: {plan:#?}"
        );
        assert_eq!(plan.effects, [Effect::from(FabricEffect::Look)]);
        assert!(plan.waits.is_empty());
        ideal.run();
        assert!(ideal.stands());
    }
    assert!(ideal.told.is_empty(), "{:?}", ideal.told);
}

#[test]
fn what_runs_though_it_is_not_to_is_stopped_again() {
    let mut ideal = running(Tier::Free, 1);
    ideal.power(true);
    ideal.run();
    for machine in ideal.seen.machines.values_mut() {
        machine.presence = Presence::Running;
    }
    ideal.run();
    assert!(ideal.stands());
}

#[test]
fn a_node_goes_in_order_and_its_token_last() {
    let mut ideal = running(Tier::Free, 1);
    let node = ideal.nodes_of("a")[0].clone();
    ideal.power(true);
    let step = |ideal: &Ideal| {
        let machine = &ideal.seen.machines[&node];
        (machine.presence, machine.record.enrolled_key.is_some())
    };
    let mut steps = vec![step(&ideal)];
    while ideal.pass() {
        steps.push(step(&ideal));
    }
    steps.push(step(&ideal));
    steps.dedup();
    assert_eq!(
        steps,
        [
            (Presence::Running, true),
            (Presence::Stopped, true),
            (Presence::Absent, true),
            (Presence::Absent, false)
        ]
    );
}

#[test]
fn a_stop_may_turn_round_at_each_step_and_a_start_too() {
    for tier in [Tier::Free, Tier::Standard] {
        for steps in 0..12 {
            let mut ideal = running(tier, 2);
            ideal.power(true);
            for _ in 0..steps {
                ideal.pass();
            }
            ideal.power(false);
            ideal.run();
            assert_eq!(
                ideal.seen.observed.generation, ideal.desired.generation,
                "after {steps}"
            );
            assert!(
                ideal
                    .presences(true)
                    .iter()
                    .all(|presence| *presence == Presence::Running),
                "after {steps}"
            );
            ideal.enrol();
            ideal.power(true);
            ideal.run();
            assert!(ideal.stands(), "after {steps}");
            ideal.power(false);
            for _ in 0..steps {
                ideal.pass();
            }
            ideal.power(true);
            ideal.run();
            assert!(ideal.stands(), "after {steps}");
            assert_eq!(ideal.seen.observed.generation, ideal.desired.generation);
        }
    }
}

#[test]
fn what_etcd_says_of_nodes_counts_once_their_kubelets_have_spoken() {
    let mut ideal = running(Tier::Free, 1);
    let node = ideal.nodes_of("a")[0].clone();
    ideal.power(true);
    ideal.run();
    ideal.power(false);
    assert!(ideal.seen.api.nodes[0].ready, "as it was when its machine went");
    // The node's machine starts, and its programs do not get ready.
    for _ in 0..30 {
        ideal.pass();
        let machine = ideal.seen.machines.get_mut(&node).unwrap();
        machine.report = None;
    }
    assert!(ideal.seen.observed.generation < ideal.desired.generation);
    assert!(ideal.seen.observed.stopped);
    let plan = ideal.plan();
    assert!(
        plan.observed.step.contains("to come back"),
        "{}",
        plan.observed.step
    );
    ideal.run();
    assert_eq!(ideal.seen.observed.generation, ideal.desired.generation);
}

#[test]
fn a_preserved_node_keeps_its_disk() {
    let mut ideal = running(Tier::Free, 2);
    let kept = ideal.nodes_of("a")[0].clone();
    let name = ideal.seen.machines[&kept].node_name().unwrap().to_owned();
    let node = ideal.seen.api.nodes.iter_mut().find(|node| node.name == name);
    node.unwrap().preserve = Some("ticket 12".to_owned());
    ideal.run();
    ideal.power(true);
    ideal.run();
    assert_eq!(ideal.seen.machines[&kept].presence, Presence::Stopped);
    assert!(ideal.seen.machines[&kept].record.enrolled_key.is_some());
    ideal.power(false);
    ideal.run();
    assert_eq!(ideal.seen.machines[&kept].presence, Presence::Running);
    assert_eq!(ideal.seen.observed.generation, 3);
}

#[test]
fn nodes_that_were_on_their_way_out_are_gone_after_a_stop() {
    let mut ideal = running(Tier::Free, 3);
    ideal.desired.change_spec(|spec| spec.pools[0].count = 1);
    ideal.desired.generation += 1;
    ideal.pass();
    assert!(
        ideal
            .seen
            .machines
            .values()
            .any(|machine| machine.record.deleting)
    );
    ideal.power(true);
    ideal.run();
    assert!(ideal.stands());
    assert_eq!(ideal.nodes_of("a").len(), 1);
    assert_eq!(ideal.seen.observed.generation, ideal.desired.generation);
    ideal.power(false);
    ideal.run();
    assert_eq!(
        ideal.seen.api.nodes.len(),
        1,
        "their node objects go after the start"
    );
}

#[test]
fn a_cluster_that_never_was_can_be_stopped_and_then_made() {
    for passes in 0..6 {
        let mut ideal = Ideal::new(cluster(PodNetworking::Kubenet, vec![pool("a", 1)]), nothing_yet());
        for _ in 0..passes {
            ideal.pass();
        }
        ideal.power(true);
        ideal.run();
        assert_eq!(ideal.seen.observed.generation, 2);
        assert!(
            ideal
                .seen
                .machines
                .values()
                .all(|machine| machine.presence != Presence::Running)
        );
        ideal.power(false);
        ideal.run();
        assert_eq!(ideal.seen.observed.generation, 3);
        assert_eq!(
            ideal.seen.observed.ready_nodes,
            BTreeMap::from([("a".to_owned(), 1)])
        );
    }
}

#[test]
fn what_is_left_of_a_node_by_a_process_that_was_killed_goes_too() {
    let mut ideal = running(Tier::Free, 1);
    let node = ideal.nodes_of("a")[0].clone();
    ideal.power(true);
    while ideal.seen.machines[&node].presence != Presence::Absent {
        ideal.pass();
    }
    // What the fabric calls partial of a machine that was whole is no machine any more.
    ideal.health = Default::default();
    ideal.examine();
    let wipe = FabricEffect::WipeMachine {
        machine: Permit::assumed(&node),
        at: ideal.desired.modified_at,
    };
    assert_eq!(ideal.plan().effects, [Effect::from(wipe)]);
    ideal.run();
    assert!(ideal.stands());
}

#[test]
fn the_fabric_is_not_looked_through_again_and_again_for_a_machine_that_something_is_done_to() {
    let mut ideal = running(Tier::Free, 1);
    ideal.power(true);
    let id = ideal.seen.machines.keys().next().cloned().unwrap();
    ideal.seen.machines.get_mut(&id).unwrap().presence = Presence::Unknown;
    let looks = |ideal: &Ideal| ideal.plan().effects.contains(&FabricEffect::Look.into());
    assert!(looks(&ideal), "nobody knows, and nothing will tell");
    ideal.seen.busy.insert(Subject::Machine(id));
    assert!(!looks(&ideal));
}
