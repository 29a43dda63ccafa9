//! Restores: what follows what.

use cluster_spec::{RestoreSpec, Tier};

use agent_protocol::programs::{EtcdPhase, EtcdStatus, Standing};

use super::{healing::standing, *};

fn wish(ideal: &mut Ideal, id: &str) {
    ideal.desired.generation += 1;
    let source = ideal.desired.uid.clone();
    let restore = RestoreSpec {
        id: id.to_owned(),
        at: Some(1_000),
        source,
    };
    ideal.desired.change_spec(|spec| spec.restore = Some(restore));
}

fn generation(ideal: &Ideal, control_plane: bool) -> u64 {
    let of = |machine: &&Machine| machine.node_name().is_none() == control_plane;
    match ideal.seen.machines.values().find(of).unwrap().config {
        ConfigSeen::Published { generation, .. } => generation,
        _ => panic!("it is configured"),
    }
}

#[test]
fn nodes_register_again_after_the_restored_state_serves_and_not_before() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 2)]);
    let before = (generation(&ideal, true), generation(&ideal, false));
    wish(&mut ideal, "r1");
    // etcd has not said yet that it is restored: however long that takes.
    for _ in 0..20 {
        ideal.pass();
    }
    assert_eq!(generation(&ideal, true), before.0 + 1);
    assert_eq!(generation(&ideal, false), before.1);
    assert_eq!(ideal.seen.observed.restored, None);
    assert!(ideal.seen.observed.generation < ideal.desired.generation);
    assert!(ideal.plan().waits.iter().any(|wait| wait.contains("restoring")));

    ideal.restored = Some("r1".to_owned());
    ideal.run();
    assert!(ideal.seen.observed.has_restored("r1"));
    assert_eq!(generation(&ideal, false), before.1 + 1);
    assert_eq!(ideal.seen.observed.generation, ideal.desired.generation);
    // Done once, it is never done again.
    let settled = (generation(&ideal, true), generation(&ideal, false));
    ideal.desired.generation += 1;
    ideal.run();
    assert_eq!((generation(&ideal, true), generation(&ideal, false)), settled);
}

#[test]
fn nodes_of_then_that_have_no_machine_go_and_addons_are_applied_anew() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 1)]);
    wish(&mut ideal, "r1");
    ideal.restored = Some("r1".to_owned());
    let was = |name: &str| NodeSeen {
        name: name.to_owned(),
        ready: true,
        ..NodeSeen::default()
    };
    ideal.seen.api.nodes.push(was("aks-old-12345678-vmss000000"));
    ideal.seen.api.nodes.push(was("somebody-elses"));
    ideal.now = after(ideal.now, Duration::from_secs(5));
    let begun = ideal.now;
    ideal.run();
    let names: Vec<&str> = ideal
        .seen
        .api
        .nodes
        .iter()
        .map(|node| node.name.as_str())
        .collect();
    assert!(!names.contains(&"aks-old-12345678-vmss000000") && names.contains(&"somebody-elses"));
    assert_eq!(names.len(), 2);
    assert!(ideal.seen.api.addons.as_ref().unwrap().at >= begun);
    assert_eq!(ideal.seen.observed.generation, ideal.desired.generation);
}

#[test]
fn a_second_restore_is_another() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 1)]);
    let before = generation(&ideal, true);
    for (id, nth) in [("r1", 1), ("r2", 2)] {
        wish(&mut ideal, id);
        ideal.restored = Some(id.to_owned());
        ideal.run();
        assert!(ideal.seen.observed.has_restored(id));
        // Once to restore, and once to be told that this is over.
        assert_eq!(generation(&ideal, true), before + 2 * nth);
    }
}

#[test]
fn members_that_lost_everything_together_are_restored_once() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    let wished = |ideal: &Ideal| {
        let observed = &ideal.seen.observed;
        crate::view::recorded::wished(ideal.desired.spec(), observed).map(|restore| (restore.id, restore.at))
    };
    for _ in 0..20 {
        ideal.pass();
    }
    assert_eq!(wished(&ideal), None);
    ideal.emptied = true;
    for _ in 0..20 {
        ideal.pass();
    }
    let (id, at) = wished(&ideal).unwrap();
    assert_eq!(at, None, "the newest");
    let told = |ideal: &Ideal| {
        let backup = |(_, event): &&(Timestamp, Event)| event.kind == EventKind::Backup;
        ideal.told.iter().filter(backup).count()
    };
    assert_eq!(told(&ideal), 1);
    ideal.emptied = false;
    ideal.restored = Some(id.clone());
    for _ in 0..50 {
        ideal.pass();
    }
    assert!(ideal.seen.observed.has_restored(&id));
    assert_eq!((wished(&ideal), told(&ideal)), (Some((id.clone(), None)), 2));
    // It happens again.
    ideal.emptied = true;
    for _ in 0..20 {
        ideal.pass();
    }
    let again = wished(&ideal).unwrap().0;
    assert_ne!(again, id);
    ideal.emptied = false;
    ideal.restored = Some(again);
    // And a wish of the user's takes its place.
    wish(&mut ideal, "r1");
    assert_eq!(wished(&ideal), Some(("r1".to_owned(), Some(1_000))));
}

#[test]
fn members_whose_disks_are_all_gone_are_made_anew_all_at_once() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    let gone = |ideal: &mut Ideal, members: usize| {
        let ids: Vec<String> = ideal.control_plane_ids().into_iter().take(members).collect();
        for id in &ids {
            let machine = ideal.seen.machines.get_mut(id).unwrap();
            machine.record.enrolled_key = Some("key".to_owned());
            machine.presence = Presence::Absent;
            machine.report = None;
        }
        ideal.examine();
        let repairs = |write: &&Write| matches!(write, Write::Repair { remove: true, .. });
        ideal.plan().writes.iter().filter(repairs).count()
    };
    // Where the others have a majority, it is one at a time. Where they have none, there is nobody to be waited for.
    assert_eq!(gone(&mut ideal, 1), 1);
    assert_eq!(gone(&mut ideal, 2), 2);
    assert_eq!(gone(&mut ideal, 3), 3);
    // Nobody is left who could have a majority.
    ideal.voters.clear();
    ideal.live(Duration::from_secs(600));
    let there = |id: &String| ideal.seen.machines[id].presence == Presence::Running;
    assert!(ideal.control_plane_ids().iter().all(there));
    assert_eq!(ideal.control_plane_ids().len(), 3);
}

#[test]
fn a_member_that_waits_empty_beside_one_with_data_is_no_reason_to_restore() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    ideal.emptied = true;
    ideal.world();
    let id = ideal.seen.machines.keys().next().unwrap().clone();
    let machine = ideal.seen.machines.get_mut(&id).unwrap();
    let mut report = (**machine.report.as_ref().unwrap()).clone();
    report.processes.get_mut("etcd").unwrap().status = None;
    machine.report = Some(std::sync::Arc::new(report));
    let plan = ideal.plan();
    assert_eq!(
        crate::view::recorded::wished(ideal.desired.spec(), &plan.observed),
        None
    );
}

/// Two of three members wait with nothing in their hands; the third runs and finds no majority.
fn two_of_three_empty() -> (Ideal, String) {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    ideal.emptied = true;
    ideal.world();
    let third = ideal.control_plane_ids()[1].clone();
    stranded(&mut ideal, &third);
    (ideal, third)
}

/// What the world says of this member instead.
fn stranded(ideal: &mut Ideal, id: &str) {
    let machine = ideal.seen.machines.get_mut(id).unwrap();
    let mut report = (**machine.report.as_ref().unwrap()).clone();
    report.processes.get_mut("etcd").unwrap().status = None;
    report.processes.get_mut("kube-apiserver").unwrap().state = ProcessState::Unready;
    machine.report = Some(std::sync::Arc::new(report));
}

#[test]
fn a_majority_that_lost_its_data_is_restored_once_the_rest_was_started_again_in_vain() {
    let (mut ideal, third) = two_of_three_empty();
    let lost = |plan: &Plan, ideal: &Ideal| {
        crate::view::recorded::wished(ideal.desired.spec(), &plan.observed).is_some()
    };
    let steps = |ideal: &mut Ideal, step: RepairStep, ago: u64| {
        let healing = &mut ideal.seen.machines.get_mut(&third).unwrap().record.healing;
        (healing.step, healing.at) = (
            step,
            Some(ideal.now - jiff::SignedDuration::from_secs(ago as i64)),
        );
        ideal.examine();
        let plan = ideal.plan();
        lost(&plan, ideal)
    };
    assert!(!steps(&mut ideal, RepairStep::None, 0));
    assert!(!steps(&mut ideal, RepairStep::Restart, 600));
    assert!(!steps(&mut ideal, RepairStep::Reboot, 1));
    assert!(steps(&mut ideal, RepairStep::Reboot, 600));
    // One that is on its way out may hold data too, as long as it is there.
    let machine = ideal.seen.machines.get_mut(&third).unwrap();
    machine.record.deleting = true;
    assert!(!steps(&mut ideal, RepairStep::Reboot, 600));
    ideal.seen.machines.get_mut(&third).unwrap().record.deleting = false;
    ideal.seen.machines.get_mut(&third).unwrap().symptom = None;
    // Well again, it is no reason to throw away what it has.
    let plan = ideal.plan();
    assert!(!lost(&plan, &ideal));
}

#[test]
fn who_alone_had_the_restored_state_and_is_gone_takes_it_along() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    wish(&mut ideal, "r1");
    ideal.restored = Some("r1".to_owned());
    ideal.run();
    assert!(ideal.seen.observed.has_restored("r1"));
    let ids = ideal.control_plane_ids();
    let says = |ideal: &mut Ideal, id: &str, status: &EtcdStatus| {
        stranded(ideal, id);
        let machine = ideal.seen.machines.get_mut(id).unwrap();
        let mut report = (**machine.report.as_ref().unwrap()).clone();
        let told = serde_json::to_value(status).unwrap();
        report.processes.get_mut("etcd").unwrap().status = Some(told);
        machine.report = Some(std::sync::Arc::new(report));
    };
    let waiting = |restored: Option<&str>| EtcdStatus {
        phase: EtcdPhase::Waiting,
        why: Some("another member that has a leader".to_owned()),
        restored: restored.map(str::to_owned),
        empty: false,
    };
    let lost = |ideal: &mut Ideal| {
        ideal.examine();
        ideal.plan().observed.etcd_lost.is_some()
    };
    for id in &ids[1..] {
        says(&mut ideal, id, &waiting(None));
    }
    assert!(!lost(&mut ideal), "one serves the restored state");
    let first = ideal.seen.machines.get_mut(&ids[0]).unwrap();
    (first.record.deleting, first.presence) = (true, Presence::Gone);
    // One of the others has come as far.
    says(&mut ideal, &ids[1], &waiting(Some("r1")));
    assert!(!lost(&mut ideal));
    says(&mut ideal, &ids[1], &waiting(Some("an older one")));
    assert!(lost(&mut ideal));
}

#[test]
fn one_that_lost_its_data_is_no_majority() {
    let (mut ideal, third) = two_of_three_empty();
    let fourth = ideal
        .control_plane_ids()
        .into_iter()
        .find(|id| *id != third)
        .unwrap();
    stranded(&mut ideal, &fourth);
    for id in [&third, &fourth] {
        let healing = &mut ideal.seen.machines.get_mut(id).unwrap().record.healing;
        (healing.step, healing.at) = (
            RepairStep::Reboot,
            Some(ideal.now - jiff::SignedDuration::from_secs(600)),
        );
    }
    ideal.examine();
    let plan = ideal.plan();
    assert_eq!(
        crate::view::recorded::wished(ideal.desired.spec(), &plan.observed),
        None
    );
}

/// Of three members the first waits with nothing in its hands; both others run, find no leader and say how they stand.
fn one_of_three_empty(standings: [Option<Standing>; 2]) -> (Ideal, Vec<String>) {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    ideal.emptied = true;
    ideal.world();
    let ids = ideal.control_plane_ids();
    for (id, standing) in ids[1..].iter().zip(standings) {
        stranded(&mut ideal, id);
        let machine = ideal.seen.machines.get_mut(id).unwrap();
        let mut report = (**machine.report.as_ref().unwrap()).clone();
        let status = MembershipStatus {
            standing,
            ..MembershipStatus::default()
        };
        report.processes.get_mut("etcd-keeper").unwrap().status = serde_json::to_value(&status).ok();
        machine.report = Some(std::sync::Arc::new(report));
    }
    (ideal, ids)
}

/// Each of these members was started again long ago, in vain.
fn started_again_in_vain(ideal: &mut Ideal, ids: &[String]) {
    for id in ids {
        let healing = &mut ideal.seen.machines.get_mut(id).unwrap().record.healing;
        (healing.step, healing.at) = (
            RepairStep::Reboot,
            Some(ideal.now - jiff::SignedDuration::from_secs(600)),
        );
    }
    ideal.examine();
}

fn leaderless(voters: &[String]) -> Option<Standing> {
    let voters = voters.to_vec();
    Some(Standing::Leaderless { voters })
}

#[test]
fn a_learner_is_no_part_of_the_majority_that_is_left() {
    let ids = standing(Tier::Standard, vec![pool("a", 1)]).control_plane_ids();
    let (two, three) = (|| leaderless(&ids[..2]), || leaderless(&ids));
    let (learner, led) = (|| Some(Standing::Learner), || Some(Standing::Led));
    let cases = [
        ("one of two voters is left", [two(), learner()], true),
        ("two of three voters are left", [three(), three()], false),
        ("the learner was made a voter", [two(), three()], false),
        (
            "the learner was made a voter, and there is a leader",
            [two(), led()],
            false,
        ),
        ("there is a leader", [led(), learner()], false),
        ("the other is alone", [leaderless(&ids[1..2]), learner()], false),
        ("the third says nothing", [two(), None], false),
        ("nobody says anything, as before they could", [None, None], false),
    ];
    for (what, standings, restores) in cases {
        let (mut ideal, ids) = one_of_three_empty(standings);
        let wished = |ideal: &Ideal| {
            crate::view::recorded::wished(ideal.desired.spec(), &ideal.plan().observed).is_some()
        };
        ideal.examine();
        assert!(!wished(&ideal), "{what}: not before they were started again");
        started_again_in_vain(&mut ideal, &ids[1..2]);
        assert!(!wished(&ideal), "{what}: not before both were");
        started_again_in_vain(&mut ideal, &ids[1..]);
        assert_eq!(wished(&ideal), restores, "{what}");
    }
}

#[test]
fn what_a_member_said_of_its_etcd_counts_only_as_long_as_it_says_so() {
    let ids = standing(Tier::Standard, vec![pool("a", 1)]).control_plane_ids();
    type Change = fn(&mut Machine);
    let changes: [(&str, Change, bool); 4] = [
        ("it says so", |_| (), true),
        (
            "it was started again since",
            |machine| machine.ended_boot = machine.report.as_ref().map(|report| report.boot.clone()),
            false,
        ),
        (
            "it is not heard any more",
            |machine| machine.contact = Some(Duration::from_secs(3600)),
            false,
        ),
        (
            "its membership controller does not run",
            |machine| {
                let mut report = (**machine.report.as_ref().unwrap()).clone();
                report.processes.get_mut("etcd-keeper").unwrap().state = ProcessState::BackOff;
                machine.report = Some(std::sync::Arc::new(report));
            },
            false,
        ),
    ];
    for (what, change, restores) in changes {
        for changed in &ids[1..] {
            let (mut ideal, ids) = one_of_three_empty([leaderless(&ids[..2]), Some(Standing::Learner)]);
            started_again_in_vain(&mut ideal, &ids[1..]);
            change(ideal.seen.machines.get_mut(changed).unwrap());
            let plan = ideal.plan();
            let wished = crate::view::recorded::wished(ideal.desired.spec(), &plan.observed);
            assert_eq!(wished.is_some(), restores, "{what}");
        }
    }
}

#[test]
fn who_has_data_has_the_time_to_set_it_aside_before_its_machine_is_replaced() {
    let ids = standing(Tier::Standard, vec![pool("a", 1)]).control_plane_ids();
    let (mut ideal, ids) = one_of_three_empty([leaderless(&ids[..2]), Some(Standing::Learner)]);
    started_again_in_vain(&mut ideal, &ids[1..]);
    let pass = |ideal: &mut Ideal, seconds: u64| {
        ideal.now = after(ideal.now, Duration::from_secs(seconds));
        ideal.examine();
        let plan = ideal.plan();
        let repairs = |write: &&Write| matches!(write, Write::Repair { remove: true, .. });
        ideal.seen.observed = plan.observed.clone();
        plan.writes.iter().filter(repairs).count()
    };
    // Their next step has long been due when the restore is decided.
    assert_eq!(pass(&mut ideal, 300), 0);
    assert!(ideal.seen.observed.etcd_lost.is_some());
    assert_eq!(pass(&mut ideal, 1), 0);
    assert_eq!(pass(&mut ideal, 60), 0);
    // Nobody restores: it may be just these that cannot.
    assert_eq!(pass(&mut ideal, 120), 2);
}

#[test]
fn who_has_data_is_started_again_one_at_a_time_where_the_majority_is_lost() {
    let ids = standing(Tier::Standard, vec![pool("a", 1)]).control_plane_ids();
    let reboots = |standings: [Option<Standing>; 2]| {
        let (mut ideal, ids) = one_of_three_empty(standings);
        started_again_in_vain(&mut ideal, &ids[1..]);
        for id in &ids[1..] {
            let machine = ideal.seen.machines.get_mut(id).unwrap();
            machine.record.healing.step = RepairStep::Restart;
        }
        ideal.now = after(ideal.now, Duration::from_secs(300));
        ideal.examine();
        let reboots = |write: &&Write| matches!(write, Write::Repair { healing, work: Some(_), .. } if healing.step == RepairStep::Reboot);
        ideal.plan().writes.iter().filter(reboots).count()
    };
    assert_eq!(reboots([leaderless(&ids[..2]), Some(Standing::Learner)]), 1);
    // Stuck with a majority: nothing that a machine could be blamed for.
    assert_eq!(reboots([leaderless(&ids), leaderless(&ids)]), 0);
    assert_eq!(reboots([None, None]), 0);
}

#[test]
fn whoever_restores_goes_first_and_the_others_follow_when_it_has() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    let configured = |ideal: &mut Ideal, passes: u32| -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for _ in 0..passes {
            ideal.examine();
            found.extend(
                ideal
                    .plan()
                    .effects
                    .into_iter()
                    .filter_map(|effect| match effect {
                        Effect::Config(ConfigEffect::Render { machine, .. }) => {
                            Some(machine.machine().to_owned())
                        }
                        _ => None,
                    }),
            );
            ideal.pass();
        }
        found
    };
    wish(&mut ideal, "r1");
    // By its number, not by its id: the others would wait for it, and it for them to be well.
    let mut by_number: Vec<(u32, String)> = ideal
        .seen
        .machines
        .iter()
        .filter_map(|(id, machine)| match machine.role()? {
            Role::ControlPlane { index, .. } => Some((*index, id.clone())),
            Role::Node { .. } => None,
        })
        .collect();
    by_number.sort();
    let first = by_number[0].1.clone();
    assert_eq!(configured(&mut ideal, 20), BTreeSet::from([first.clone()]));
    ideal.restored = Some("r1".to_owned());
    let others = configured(&mut ideal, 50);
    assert!(
        by_number[1..].iter().all(|(_, id)| others.contains(id)),
        "{others:?} beside {first}"
    );
}
