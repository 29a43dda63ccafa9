//! Rotations: that each step waits for all machines, that nothing is made anew, what an abort and other wishes make of them.

use cluster_spec::{Rotations, Tier};
use control_records::{KeyStep, Phase, Rotation, Turn};

use super::{healing::standing, *};

fn ask(ideal: &mut Ideal, rotations: Rotations) {
    ideal.desired.change_spec(|spec| spec.rotations = rotations);
    ideal.desired.generation += 1;
}

fn certificates(asked: i64) -> Rotations {
    Rotations {
        certificates: asked,
        ..Rotations::default()
    }
}

fn keys(asked: i64) -> Rotations {
    Rotations {
        service_account_keys: asked,
        ..Rotations::default()
    }
}

fn ids(ideal: &Ideal) -> Vec<String> {
    ideal.seen.machines.keys().cloned().collect()
}

/// Machines that have taken all that they are to have.
fn in_force(machine: &Machine) -> bool {
    let ConfigSeen::Published { generation, .. } = &machine.config else {
        return false;
    };
    let report = machine.report.as_ref();
    report.is_some_and(|report| report.generation >= *generation)
}

/// Lives until nothing is left to do; what is looked at before each pass.
fn watch(ideal: &mut Ideal, mut look: impl FnMut(&Ideal, &Plan)) {
    for _ in 0..400 {
        ideal.examine();
        look(ideal, &ideal.plan());
        if !ideal.pass() {
            return;
        }
    }
    panic!("it does not end: {:#?}", ideal.plan());
}

#[test]
fn each_step_waits_for_all_machines_and_members_are_configured_one_at_a_time() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 12)]);
    let before = ids(&ideal);
    ask(&mut ideal, certificates(7));
    let mut steps = Vec::new();
    watch(&mut ideal, |ideal, plan| {
        let renders: Vec<bool> = plan
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Config(ConfigEffect::Render { machine, .. }) => {
                    Some(ideal.seen.machines[machine.machine()].node_name().is_none())
                }
                _ => None,
            })
            .collect();
        let members = renders.iter().filter(|member| **member).count();
        assert!(members <= 1, "members take it one at a time");
        assert!(members == 0 || renders.len() == 1, "and before the nodes");
        assert!(renders.len() <= 10, "not all nodes at once");
        for write in &plan.writes {
            if let Write::StepKeys { step, .. } = write {
                assert!(ideal.seen.machines.values().all(in_force), "{step:?}");
                steps.push(step.clone());
            }
        }
    });
    assert_eq!(
        steps,
        [
            KeyStep::TrustAuthorities { asked: 7 },
            KeyStep::IssueFromNewAuthorities,
            KeyStep::DropFormerAuthorities,
        ]
    );
    assert_eq!(ids(&ideal), before, "no machine is made anew");
    assert!(ideal.seen.machines.values().all(in_force));
    assert_eq!(ideal.seen.pki, Some(4));
    assert_eq!(
        ideal.seen.rotation,
        Rotation {
            authorities: Turn {
                begun: 7,
                phase: Phase::Done
            },
            round: 1,
            ..Rotation::default()
        }
    );
    assert_eq!(ideal.seen.observed.generation, ideal.desired.generation);
}

#[test]
fn new_authorities_issue_once_pods_have_had_time_to_know_them() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    ask(&mut ideal, certificates(7));
    let (mut trusted, mut applied, mut issued) = (None, None, None);
    watch(&mut ideal, |ideal, plan| {
        let phase = ideal.seen.rotation.authorities.phase;
        let everywhere = ideal.seen.machines.values().all(in_force);
        if phase == Phase::Trusted && everywhere && trusted.is_none() {
            trusted = Some(ideal.now);
        }
        let applies = |effect: &Effect| matches!(effect, Effect::Api(ApiEffect::ApplyAddons { .. }));
        if phase == Phase::Trusted && plan.effects.iter().any(applies) {
            applied = Some(ideal.now);
        }
        if phase == Phase::Issued && issued.is_none() {
            issued = Some(ideal.now);
        }
    });
    let (trusted, applied, issued) = (trusted.unwrap(), applied.unwrap(), issued.unwrap());
    let pause = |from: Timestamp, to: Timestamp| to.duration_since(from).unsigned_abs();
    // A moment of it was before it was seen to be everywhere.
    let moment = Duration::from_secs(1);
    assert!(pause(trusted, applied) + moment >= ideal.policy.publish_pause);
    assert!(pause(trusted, issued) + moment >= ideal.policy.trust_pause);
    assert!(pause(issued, ideal.now) >= ideal.policy.former_certificates);
}

#[test]
fn what_issues_nothing_yet_is_taken_back_by_an_abort_and_what_does_goes_on() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 2)]);
    ask(&mut ideal, certificates(7));
    while ideal.seen.rotation.authorities.phase != Phase::Trusted {
        ideal.pass();
    }
    ask(&mut ideal, certificates(0));
    ideal.run();
    assert_eq!(ideal.seen.rotation, Rotation::default());
    assert_eq!(ideal.seen.pki, Some(3));

    ask(&mut ideal, certificates(9));
    while ideal.seen.rotation.authorities.phase != Phase::Issued {
        ideal.pass();
    }
    ask(&mut ideal, certificates(0));
    ideal.run();
    assert_eq!(ideal.seen.rotation.authorities.phase, Phase::Done);
    assert_eq!(ideal.seen.rotation.round, 1);
    assert_eq!(ideal.seen.observed.generation, ideal.desired.generation);
    // And is asked for again.
    ask(&mut ideal, certificates(10));
    ideal.run();
    assert_eq!(ideal.seen.rotation.round, 2);
}

#[test]
fn wishes_that_come_meanwhile_are_one_more() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    ask(&mut ideal, certificates(7));
    while ideal.seen.rotation.authorities.phase != Phase::Issued {
        ideal.pass();
    }
    ask(&mut ideal, certificates(8));
    ask(&mut ideal, certificates(9));
    ideal.run();
    assert_eq!(ideal.seen.rotation.round, 2);
    assert_eq!(ideal.seen.rotation.authorities.begun, 9);
}

#[test]
fn a_silent_node_holds_nothing_up_and_a_silent_member_does() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 2)]);
    let silent = ideal.nodes_of("a")[0].clone();
    let machine = ideal.seen.machines.get_mut(&silent).unwrap();
    machine.contact = Some(Duration::from_secs(60 * 60));
    ask(&mut ideal, certificates(7));
    // As a service that has just begun, and has heard nobody yet.
    let begins = |ideal: &Ideal| {
        let plan = ideal.plan();
        plan.writes
            .iter()
            .any(|write| matches!(write, Write::StepKeys { .. }))
    };
    assert!(begins(&ideal));
    for machine in ideal.seen.machines.values_mut() {
        machine.report = None;
    }
    assert!(!begins(&ideal));
}

#[test]
fn tokens_of_the_old_key_are_taken_for_a_day() {
    let mut ideal = standing(Tier::Standard, vec![pool("a", 1)]);
    let before = ids(&ideal);
    ask(&mut ideal, keys(7));
    let mut steps = Vec::new();
    watch(&mut ideal, |_, plan| {
        for write in &plan.writes {
            if let Write::StepKeys { step, .. } = write {
                steps.push(step.clone());
            }
        }
    });
    let until = ideal.seen.rotation.former_until.unwrap();
    assert_eq!(
        steps,
        [
            KeyStep::TrustServiceAccountKey { asked: 7 },
            KeyStep::SignWithNewServiceAccountKey { until },
        ]
    );
    assert_eq!(ideal.seen.observed.generation, ideal.desired.generation);
    ideal.now = until;
    ideal.run();
    assert_eq!(ideal.seen.rotation.former_until, None);
    assert_eq!((ids(&ideal), ideal.seen.pki), (before, Some(4)));
    assert!(ideal.seen.machines.values().all(in_force));
}

#[test]
fn certificates_are_renewed_for_ten_years_and_two_generations_of_authorities_and_no_machine_is_made_anew() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let mut ideal = standing(Tier::Standard, vec![pool("a", 3)]);
    let before = ids(&ideal);
    let begun = ideal.now;
    let mut oldest = Duration::ZERO;
    let mut made: BTreeMap<String, BTreeSet<Timestamp>> = BTreeMap::new();
    for day in (5..3_650).step_by(5) {
        // A look at a cluster that rests; a timer of it may have taken it a little further.
        ideal.now = after(begun, DAY * day).max(ideal.now);
        if [1_100, 2_560].contains(&day) {
            ask(&mut ideal, certificates(i64::from(day)));
        }
        watch(&mut ideal, |_, _| {});
        for (id, machine) in &ideal.seen.machines {
            let ConfigSeen::Published {
                made_at, issued_at, ..
            } = &machine.config
            else {
                panic!("{id} has no configuration on day {day}");
            };
            oldest = oldest.max(ideal.now.duration_since(*issued_at).unsigned_abs());
            made.entry(id.clone()).or_default().insert(*made_at);
            assert!(in_force(machine), "{id} on day {day}");
        }
    }
    assert_eq!(ids(&ideal), before, "no machine is made anew");
    assert_eq!(
        (ideal.seen.rotation.round, ideal.seen.rotation.authorities.phase),
        (2, Phase::Done)
    );
    // Leaves are good for two years; of each a third of that would be told of.
    assert!(oldest <= ideal.policy.renew_after + DAY * 6, "{oldest:?}");
    for (id, times) in made {
        assert!(times.len() >= 20, "{id} was configured {} times", times.len());
    }
}
