//! What is done about ailing machines: tables of steps over a world where nothing helps, or only the right thing does.

use agent_protocol::DiskSeen;
use control_records::{Asked, RepairStep, Work};

use super::*;

pub(super) const HOUR: Duration = Duration::from_secs(3600);

impl Ideal {
    /// A machine falls silent; `cure` brings it back.
    pub(super) fn fall_ill(&mut self, id: &str, cure: RepairStep) {
        self.ill.insert(id.to_owned(), (self.now, cure));
        self.world();
    }

    /// Goes on for a while, finished or not.
    pub(super) fn live(&mut self, time: Duration) {
        let end = after(self.now, time);
        for _ in 0..2000 {
            if !self.pass() && self.plan().look_again.is_none() {
                // Idle: nothing happens by itself, but silence is news.
                self.now = after(self.now, Duration::from_secs(5));
            }
            if self.now >= end {
                return;
            }
        }
        panic!("too busy: {:#?}", self.plan());
    }

    fn id_of(&self, node: &str) -> String {
        let found = self
            .seen
            .machines
            .iter()
            .find(|(_, machine)| machine.node_name() == Some(node));
        found.unwrap().0.clone()
    }

    pub(super) fn nodes_of(&self, pool: &str) -> Vec<String> {
        let mut found: Vec<_> = self
            .seen
            .machines
            .iter()
            .filter(
                |(_, machine)| matches!(machine.role(), Some(Role::Node { pool: name, .. }) if name == pool),
            )
            .map(|(id, _)| id.clone())
            .collect();
        found.sort();
        found
    }

    pub(super) fn control_plane_ids(&self) -> Vec<String> {
        let of = |machine: &Machine| matches!(machine.role(), Some(Role::ControlPlane { .. }));
        let found = self.seen.machines.iter().filter(|(_, machine)| of(machine));
        found.map(|(id, _)| id.clone()).collect()
    }
}

pub(super) fn standing(tier: cluster_spec::Tier, pools: Vec<PoolSpec>) -> Ideal {
    let mut desired = cluster(PodNetworking::Kubenet, pools);
    desired.change_spec(|spec| spec.tier = tier);
    let mut ideal = Ideal::new(desired, nothing_yet());
    ideal.run();
    // A while goes by, so that nothing is new any more.
    ideal.now = after(ideal.now, HOUR);
    ideal.told.clear();
    ideal
}

#[test]
fn a_machine_is_helped_gently_first_and_given_up_in_the_end() {
    let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 2)]);
    let ill = ideal.nodes_of("a")[0].clone();
    ideal.fall_ill(&ill, RepairStep::Replace);
    ideal.live(HOUR);
    assert_eq!(
        ideal.repairs(),
        [
            "restarting the machine: its agent says nothing",
            "making the machine anew: its agent says nothing",
            "replacing the machine: its agent says nothing",
        ]
    );
    let times: Vec<_> = ideal
        .told
        .iter()
        .filter(|(_, event)| event.kind == EventKind::Repair)
        .map(|(at, _)| *at)
        .collect();
    assert!(times[2].duration_since(times[1]) > times[1].duration_since(times[0]));
    assert!(!ideal.seen.machines.contains_key(&ill));
    assert_eq!(ideal.nodes_of("a").len(), 2);
    let new = ideal
        .seen
        .machines
        .values()
        .map(|machine| machine.record.healing.replaced);
    assert_eq!(new.max(), Some(0), "told by the records' writer, not here");
    assert!(ideal.seen.api.nodes.iter().all(|node| node.ready));
}

#[test]
fn whoever_recovers_starts_over_after_a_quiet_time() {
    for (cure, steps) in [(RepairStep::Reboot, 1), (RepairStep::Reimage, 2)] {
        let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 1)]);
        let ill = ideal.nodes_of("a")[0].clone();
        ideal.fall_ill(&ill, cure);
        ideal.live(HOUR / 6);
        assert_eq!(ideal.repairs().len(), steps);
        ideal.live(HOUR / 4);
        assert_eq!(ideal.repairs().len(), steps + 1);
        assert_eq!(ideal.repairs()[steps], "well again: its agent says nothing");
        assert_eq!(ideal.seen.machines[&ill].record.healing, Healing::default());
        assert!(!ideal.pass(), "settled");
    }
}

#[test]
fn many_nodes_of_a_pool_at_once_are_no_bad_machines() {
    let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 4), pool("b", 1)]);
    let ids = ideal.nodes_of("a");
    for id in &ids[..2] {
        ideal.fall_ill(id, RepairStep::Reboot);
    }
    ideal.live(HOUR / 8);
    assert_eq!(ideal.repairs().len(), 2, "{:?}", ideal.repairs());
    assert!(ideal.repairs()[0].contains("2 of 4 nodes of the pool ail at once"));
    assert_eq!(ideal.nodes_of("a"), ids);
    assert_eq!(ideal.ill.len(), 2);
    // One of them comes back by itself: the other is a bad machine now.
    ideal.ill.remove(&ids[0]);
    ideal.live(HOUR);
    assert!(ideal.ill.is_empty());
}

#[test]
fn one_of_three_is_helped_and_two_are_not() {
    let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 3)]);
    let ids = ideal.nodes_of("a");
    ideal.fall_ill(&ids[0], RepairStep::Reboot);
    ideal.live(HOUR / 4);
    assert!(ideal.ill.is_empty());
}

#[test]
fn while_a_mass_ails_one_machine_is_tried_now_and_then() {
    let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 3), pool("b", 1)]);
    let ids = ideal.nodes_of("a");
    // Nothing helps two of them: what is tried is tried one at a time, with long pauses.
    for id in &ids[..2] {
        ideal.fall_ill(id, RepairStep::Replace);
    }
    ideal.live(2 * HOUR);
    let gone = |id: &String| !ideal.seen.machines.contains_key(id);
    assert!(ids[..2].iter().all(gone), "{:?}", ideal.repairs());
    let mut steps: Vec<_> = ideal
        .told
        .iter()
        .filter(|(_, event)| event.kind == EventKind::Repair && !event.message.starts_with("not repaired"))
        .map(|(at, event)| (*at, event.message.clone()))
        .collect();
    assert!(steps[0].1.starts_with("restarting the machine"), "{steps:?}");
    // In this world whoever was rebooted is heard for a moment: no mass ails then, and the other follows at once.
    steps.dedup_by(|one, other| one.1 == other.1);
    let apart = |pair: &[(Timestamp, String)]| pair[1].0.duration_since(pair[0].0).unsigned_abs();
    let probe = ideal.policy.heal.probe;
    assert!(steps.windows(2).all(|pair| apart(pair) >= probe), "{steps:#?}");
}

#[test]
fn when_most_of_the_stamp_is_silent_hardly_anything_is_done() {
    let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 2)]);
    let control_plane = ideal.control_plane_ids()[0].clone();
    let node = ideal.nodes_of("a")[0].clone();
    ideal.seen.silent_machines = SilentMachines { silent: 2, all: 3 };
    ideal.fall_ill(&control_plane, RepairStep::Reboot);
    ideal.fall_ill(&node, RepairStep::Reboot);
    ideal.live(HOUR / 8);
    assert_eq!(ideal.ill.len(), 2);
    assert!(
        ideal
            .repairs()
            .iter()
            .all(|told| told.contains("30 % of the stamp's machines are silent"))
    );
    assert!(
        ideal
            .seen
            .observed
            .problem
            .as_ref()
            .unwrap()
            .contains("not repaired")
    );
    ideal.seen.silent_machines = SilentMachines { silent: 1, all: 3 };
    ideal.live(HOUR);
    assert!(ideal.ill.is_empty());
}

#[test]
fn a_service_that_has_just_started_holds_nobody_for_silent() {
    let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 1)]);
    // As after a reboot of the host: nothing was heard of anybody yet.
    ideal.health = Default::default();
    let ids: Vec<_> = ideal.seen.machines.keys().cloned().collect();
    let examine = |ideal: &mut Ideal| {
        for id in &ids {
            let machine = ideal.seen.machines.get_mut(id).unwrap();
            machine.contact = None;
            ideal.health.examine(
                machine,
                &ideal.seen.api,
                PodNetworking::Kubenet,
                &ideal.policy.heal,
                ideal.now,
            );
        }
    };
    examine(&mut ideal);
    ideal.now = after(ideal.now, Duration::from_secs(100));
    examine(&mut ideal);
    assert!(
        ideal
            .seen
            .machines
            .values()
            .all(|machine| machine.symptom.is_none())
    );
    let plan = ideal.plan();
    assert!(plan.look_again.is_some(), "it looks again when their time is up");
    ideal.now = after(ideal.now, Duration::from_secs(30));
    examine(&mut ideal);
    assert!(
        ideal
            .seen
            .machines
            .values()
            .all(|machine| machine.symptom.is_some())
    );
}

#[test]
fn a_preserved_node_is_left_as_it_is_and_another_one_added_beside_it() {
    let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 1)]);
    let id = ideal.nodes_of("a")[0].clone();
    ideal.seen.api.nodes[0].preserve = Some("ticket 12".to_owned());
    ideal.pass();
    assert_eq!(
        ideal.seen.machines[&id].record.healing.preserve.as_deref(),
        Some("ticket 12")
    );
    ideal.fall_ill(&id, RepairStep::Reboot);
    ideal.live(HOUR);
    assert!(ideal.ill.contains_key(&id), "nobody touched it");
    assert!(
        ideal
            .repairs()
            .contains(&"not repaired: its agent says nothing; it is preserved (ticket 12)")
    );
    assert_eq!(ideal.nodes_of("a").len(), 2);
    // The evidence is no longer needed.
    let name = ideal.seen.machines[&id].node_name().unwrap().to_owned();
    for node in &mut ideal.seen.api.nodes {
        if node.name == name {
            node.preserve = None;
        }
    }
    ideal.live(2 * HOUR);
    assert!(!ideal.seen.machines.contains_key(&id));
    assert_eq!(ideal.nodes_of("a").len(), 1);
}

#[test]
fn what_has_vanished_is_made_anew_with_a_new_token_at_once() {
    for control_plane in [false, true] {
        let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 1)]);
        let id = if control_plane {
            ideal.control_plane_ids()[0].clone()
        } else {
            ideal.nodes_of("a")[0].clone()
        };
        let machine = ideal.seen.machines.get_mut(&id).unwrap();
        machine.record.enrolled_key = Some("key".to_owned());
        machine.presence = Presence::Absent;
        ideal.live(Duration::from_secs(10));
        assert_eq!(
            ideal.repairs(),
            ["making the machine anew: it is not there any more"]
        );
        assert_eq!(ideal.seen.machines[&id].presence, Presence::Running);
        assert_eq!(ideal.seen.machines[&id].record.enrolled_key, None);
    }
}

#[test]
fn a_machine_that_is_being_made_has_not_vanished() {
    let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 1)]);
    let id = ideal.nodes_of("a")[0].clone();
    // It enrolled before whoever makes it said that it runs.
    let machine = ideal.seen.machines.get_mut(&id).unwrap();
    machine.record.enrolled_key = Some("key".to_owned());
    machine.presence = Presence::Absent;
    ideal.seen.busy.insert(Subject::Machine(id.clone()));
    ideal.examine();
    assert_eq!(ideal.plan().writes, []);
    ideal.seen.busy.clear();
    assert!(
        matches!(&ideal.plan().writes[..], [Write::Repair { healing, .. }] if healing.step == RepairStep::Reimage)
    );
}

#[test]
fn a_node_made_anew_does_not_start_as_the_drained_one_of_before() {
    let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 4)]);
    let id = ideal.nodes_of("a")[0].clone();
    let machine = ideal.seen.machines.get_mut(&id).unwrap();
    let begun = Some(ideal.now);
    machine.record.work = Work::of(Some((RepairStep::Reimage, ideal.now)), None);
    machine.record.healing = Healing {
        step: RepairStep::Reimage,
        at: begun,
        ..Healing::default()
    };
    machine.repaired = begun;
    machine.presence = Presence::Absent;
    // The API server does not answer just now.
    ideal.seen.api.reach = Reach::Away;
    let plan = ideal.plan();
    let finished = |write: &Write| matches!(write, Write::Repair { work: None, .. });
    assert!(!plan.writes.iter().any(finished), "{:?}", plan.writes);
    ideal.seen.api.reach = Reach::Ready;
    let plan = ideal.plan();
    assert!(!plan.writes.iter().any(finished));
    assert!(
        plan.effects
            .iter()
            .any(|effect| matches!(effect, Effect::Api(ApiEffect::DeleteNode(_))))
    );
}

#[test]
fn agents_that_stay_old_go_with_a_reboot_one_node_of_a_pool_at_a_time() {
    let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 4)]);
    let ids = ideal.nodes_of("a");
    // An agent of an older release does not get the configuration of this one.
    for id in &ids {
        let machine = ideal.seen.machines.get_mut(id).unwrap();
        let ConfigSeen::Published { generation, .. } = &mut machine.config else {
            panic!()
        };
        *generation += 1;
    }
    ideal.examine();
    assert_eq!(ideal.plan().writes, [], "it may give way by itself");
    ideal.now = after(ideal.now, HOUR);
    ideal.examine();
    let plan = ideal.plan();
    let steps = |write: &Write| match write {
        Write::Repair {
            machine,
            work: Some(_),
            ..
        } => Some(machine.clone()),
        _ => None,
    };
    let rebooted: Vec<_> = plan.writes.iter().filter_map(steps).collect();
    assert_eq!(rebooted, ids[..1], "{:?}", plan.writes);
    let held = |write: &&Write| matches!(write, Write::Repair { healing, .. } if healing.held.is_some());
    assert_eq!(plan.writes.iter().filter(held).count(), 3);
    // After a start the agent is the one that lies there, and takes its configuration.
    ideal.live(HOUR);
    let all = ideal.repairs();
    let reboots = all
        .iter()
        .filter(|told| told.starts_with("restarting the machine: its agent is of an older"));
    assert_eq!(reboots.count(), 1, "the others of this world gave way: {all:?}");
}

#[test]
fn a_full_disk_is_told_with_numbers() {
    let full = |ideal: &mut Ideal, id: &str| {
        let machine = ideal.seen.machines.get_mut(id).unwrap();
        let mut report = (**machine.report.as_ref().unwrap()).clone();
        report.disks = vec![DiskSeen {
            path: "/var/lib".to_owned(),
            total_mib: 1000,
            free_mib: 49,
        }];
        machine.report = Some(Arc::new(report));
    };
    let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 1)]);
    let (node, control_plane) = (
        ideal.nodes_of("a")[0].clone(),
        ideal.control_plane_ids()[0].clone(),
    );
    let step = |ideal: &mut Ideal, minutes: u64, ids: &[&String]| {
        ideal.now = after(ideal.now, Duration::from_secs(60 * minutes));
        for id in ids {
            full(ideal, id);
        }
        ideal.examine();
        ideal.plan()
    };
    step(&mut ideal, 0, &[&node]);
    let plan = step(&mut ideal, 11, &[&node]);
    let [Write::Repair { healing, .. }] = &plan.writes[..] else {
        panic!("{:?}", plan.writes)
    };
    assert_eq!(healing.step, RepairStep::Reimage);
    assert_eq!(
        healing.reason,
        "its disk is full: 49 MiB of 1000 MiB are left in /var/lib"
    );
    // All at once: it is the host's disk.
    step(&mut ideal, 0, &[&node, &control_plane]);
    let plan = step(&mut ideal, 11, &[&node, &control_plane]);
    assert_eq!(plan.events.len(), 2);
    for event in &plan.events {
        assert!(
            event
                .message
                .starts_with("not repaired: its disk is full: 49 MiB"),
            "{event:?}"
        );
    }
}

#[test]
fn a_process_that_its_agent_cannot_bring_back_is_restarted_and_then_its_machine() {
    let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 1)]);
    let id = ideal.nodes_of("a")[0].clone();
    let mut effects = Vec::new();
    for _ in 0..40 {
        let machine = ideal.seen.machines.get_mut(&id).unwrap();
        let ConfigSeen::Published { generation, .. } = machine.config else {
            panic!()
        };
        let processes = BTreeMap::from([("kubelet".to_owned(), process(ProcessState::Unready))]);
        machine.report = Some(Arc::new(Report {
            generation,
            processes,
            ..Report::default()
        }));
        ideal.examine();
        let plan = ideal.plan();
        effects.extend(plan.effects.clone());
        for effect in &plan.effects {
            ideal.carry_out(effect);
        }
        for write in &plan.writes {
            ideal.write(write);
        }
        ideal.now = after(ideal.now, Duration::from_secs(10));
    }
    assert_eq!(ideal.seen.machines[&id].record.healing.restarts["kubelet"], 1);
    let configured = effects.iter().position(
        |effect| matches!(effect, Effect::Config(ConfigEffect::Render { machine, .. }) if machine.machine() == id),
    );
    let rebooted = effects
        .iter()
        .position(|effect| matches!(effect, Effect::Fabric(FabricEffect::RestartMachine { machine, .. }) if machine.machine() == id));
    assert!(configured.unwrap() < rebooted.unwrap());
}

#[test]
fn a_repair_goes_on_where_a_crash_of_the_service_cut_it_short() {
    for crash in 1..25 {
        let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 1)]);
        let ill = ideal.nodes_of("a")[0].clone();
        ideal.fall_ill(&ill, RepairStep::Reimage);
        for _ in 0..crash {
            ideal.pass();
        }
        ideal.health = Default::default();
        for machine in ideal.seen.machines.values_mut() {
            machine.presence = match machine.presence {
                Presence::Absent => Presence::Absent,
                _ => Presence::Unknown,
            };
            machine.drain = None;
        }
        ideal.live(HOUR);
        assert!(ideal.ill.is_empty(), "crash after pass {crash}");
        assert!(ideal.seen.api.nodes.iter().all(|node| node.ready));
    }
}

#[test]
fn a_node_is_named_in_what_is_told() {
    let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 1)]);
    let name = ideal.seen.api.nodes[0].name.clone();
    let id = ideal.id_of(&name);
    ideal.fall_ill(&id, RepairStep::Reboot);
    ideal.live(HOUR / 6);
    let (_, event) = ideal
        .told
        .iter()
        .find(|(_, event)| event.kind == EventKind::Repair)
        .unwrap();
    assert_eq!(event.subject, name);
}

/// A host that is busy looks late: what it knows of nodes is old when a repair would be due.
#[test]
fn a_node_is_not_repaired_for_what_was_seen_before_the_repair_was_due() {
    for ailment in [Ailment::NotReady, Ailment::Unregistered] {
        let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 1)]);
        let id = ideal.nodes_of("a")[0].clone();
        let policy = ideal.policy.heal.clone();
        let due = after(ideal.now, policy.not_ready.max(policy.unregistered));
        let machine = ideal.seen.machines.get_mut(&id).unwrap();
        machine.symptom = Some(Symptom {
            ailment: ailment.clone(),
            since: ideal.now,
            why: "as if".to_owned(),
        });
        ideal.seen.api.looked_at = Some(ideal.now);
        ideal.now = due;
        let repairs = |plan: &Plan| {
            let repairs = plan
                .writes
                .iter()
                .filter(|write| matches!(write, Write::Repair { .. }));
            repairs.count()
        };
        let plan = ideal.plan();
        assert_eq!(repairs(&plan), 0, "{ailment:?}");
        assert_eq!(plan.effects, [Effect::Api(ApiEffect::Look)], "it looks first");
        ideal.seen.busy.insert(Subject::Api);
        let plan = ideal.plan();
        assert!(plan.effects.is_empty() && repairs(&plan) == 0 && plan.unfinished);
        ideal.seen.busy.clear();
        ideal.seen.api.looked_at = Some(due);
        assert_eq!(repairs(&ideal.plan()), 1, "{ailment:?}: it is so still");
    }
}

#[test]
fn what_somebody_asks_for_is_done_once_and_not_to_what_is_preserved() {
    for (step, told) in [
        (
            RepairStep::Reboot,
            "restarting the machine: somebody has asked for it",
        ),
        (
            RepairStep::Reimage,
            "making the machine anew: somebody has asked for it",
        ),
        (
            RepairStep::Replace,
            "replacing the machine: somebody has asked for it",
        ),
    ] {
        let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 2)]);
        let id = ideal.nodes_of("a")[0].clone();
        let asked = Asked { step, at: ideal.now };
        let ask = |ideal: &mut Ideal| {
            let machine = ideal.seen.machines.get_mut(&id).unwrap();
            machine.record.healing.asked = Some(asked);
        };
        ask(&mut ideal);
        ideal.live(HOUR);
        assert_eq!(ideal.repairs()[0], told);
        let done = ideal
            .repairs()
            .into_iter()
            .filter(|repair| *repair == told)
            .count();
        assert_eq!(done, 1, "{:?}", ideal.repairs());
        assert_eq!(ideal.seen.machines.contains_key(&id), step != RepairStep::Replace);
        assert_eq!(ideal.nodes_of("a").len(), 2);
        assert!(ideal.seen.api.nodes.iter().all(|node| node.ready));

        let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 2)]);
        let id = ideal.nodes_of("a")[0].clone();
        let machine = ideal.seen.machines.get_mut(&id).unwrap();
        machine.record.healing.asked = Some(Asked { step, at: ideal.now });
        machine.record.healing.preserve = Some("to look at".to_owned());
        let name = machine.node_name().unwrap().to_owned();
        for node in &mut ideal.seen.api.nodes {
            if node.name == name {
                node.preserve = Some("to look at".to_owned());
            }
        }
        ideal.live(HOUR / 60);
        assert_eq!(
            ideal.repairs(),
            ["not repaired: somebody has asked for it; it is preserved (to look at)"]
        );
    }
}
