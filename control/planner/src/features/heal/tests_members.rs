//! What is done about ailing control plane members: never so much that etcd loses its majority by it.

use control_records::RepairStep;

use super::{
    healing::{HOUR, standing},
    *,
};

#[test]
fn the_only_control_plane_member_is_rebooted_ever_more_rarely_and_never_deleted() {
    let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 1)]);
    let id = ideal.control_plane_ids()[0].clone();
    ideal.fall_ill(&id, RepairStep::Replace);
    ideal.live(4 * HOUR);
    let times: Vec<_> = ideal
        .told
        .iter()
        .filter(|(_, event)| event.kind == EventKind::Repair)
        .collect();
    assert!(
        times
            .iter()
            .all(|(_, event)| event.message.starts_with("restarting the machine"))
    );
    assert!(times.len() >= 4 && times.len() <= 8, "{}", times.len());
    let pause = |index: usize| times[index + 1].0.duration_since(times[index].0);
    assert!(pause(times.len() - 2) > 4 * pause(0), "{times:#?}");
    assert_eq!(ideal.control_plane_ids(), [id]);
}

/// With two of three members away none may be replaced; both have data, so only one of them coming up again gives a majority.
#[test]
fn members_that_must_not_be_replaced_are_rebooted_ever_more_rarely() {
    let mut ideal = standing(cluster_spec::Tier::Standard, vec![pool("a", 1)]);
    let ids = ideal.control_plane_ids();
    // Of a large stamp: no mass.
    ideal.seen.silent_machines = SilentMachines { silent: 2, all: 100 };
    ideal.fall_ill(&ids[0], RepairStep::Replace);
    ideal.fall_ill(&ids[1], RepairStep::Replace);
    ideal.live(4 * HOUR);
    for id in &ids[..2] {
        let label = ideal.seen.machines[id].label().to_owned();
        let reboots: Vec<_> = ideal
            .told
            .iter()
            .filter(|(_, event)| {
                event.subject == label && event.message.starts_with("restarting the machine")
            })
            .map(|(at, _)| *at)
            .collect();
        assert!((3..=8).contains(&reboots.len()), "{label}: {reboots:?}");
        let pause = |index: usize| reboots[index + 1].duration_since(reboots[index]);
        assert!(pause(reboots.len() - 2) > 2 * pause(0), "{label}: {reboots:?}");
    }
    assert_eq!(ideal.control_plane_ids(), ids);
}

#[test]
fn an_only_member_that_vanished_is_made_anew_though_others_were_about_to_join_it() {
    let mut ideal = standing(cluster_spec::Tier::Free, vec![pool("a", 1)]);
    let id = ideal.control_plane_ids()[0].clone();
    ideal.desired.generation += 1;
    ideal
        .desired
        .change_spec(|spec| spec.tier = cluster_spec::Tier::Standard);
    while ideal.control_plane_ids().len() < 3 {
        ideal.pass();
    }
    let others: Vec<String> = ideal
        .control_plane_ids()
        .into_iter()
        .filter(|other| *other != id)
        .collect();
    let vanished = ideal.seen.machines.get_mut(&id).unwrap();
    vanished.record.enrolled_key = Some("key".to_owned());
    vanished.presence = Presence::Absent;
    // They run, and were never told anything.
    for other in &others {
        let other = ideal.seen.machines.get_mut(other).unwrap();
        other.presence = Presence::Running;
        assert_eq!(other.config, ConfigSeen::Absent);
    }
    let repaired = |ideal: &mut Ideal| {
        ideal.examine();
        ideal.now = after(ideal.now, Duration::from_secs(60));
        ideal.examine();
        let replaced =
            |write: &Write| matches!(write, Write::Repair { machine, remove: true, .. } if *machine == id);
        ideal.plan().writes.iter().any(replaced)
    };
    // What is on their disks is not known before they say so.
    assert!(!repaired(&mut ideal));
    for other in &others {
        ideal.seen.machines.get_mut(other).unwrap().report = Some(Arc::new(Report::default()));
    }
    assert!(repaired(&mut ideal));
}

#[test]
fn two_members_are_not_taken_away_by_one_plan() {
    let mut ideal = standing(cluster_spec::Tier::Standard, vec![pool("a", 1)]);
    let ids = ideal.control_plane_ids();
    // Of a large stamp: no mass.
    ideal.seen.silent_machines = SilentMachines { silent: 2, all: 100 };
    ideal.fall_ill(&ids[0], RepairStep::Reboot);
    ideal.fall_ill(&ids[1], RepairStep::Reboot);
    ideal.now = after(ideal.now, HOUR);
    ideal.examine();
    // Both have been silent for long when it is looked at.
    ideal.now = after(ideal.now, HOUR);
    ideal.examine();
    let rebooted = |write: &&Write| matches!(write, Write::Repair { work: Some(_), .. });
    assert_eq!(ideal.plan().writes.iter().filter(rebooted).count(), 1);
    ideal.live(HOUR);
    assert!(ideal.ill.is_empty());
}
