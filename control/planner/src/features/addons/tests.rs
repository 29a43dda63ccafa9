//! What is told of add-ons that do not work.

use cluster_api::AddonAilment;

use super::*;

fn ails(ideal: &mut Ideal, ailments: &[(&str, Timestamp)]) -> Plan {
    let applied = ideal.seen.api.addons.as_mut().unwrap();
    applied.ailments = ailments
        .iter()
        .map(|(addon, since)| AddonAilment {
            addon: (*addon).to_owned(),
            since: *since,
            why: "0 of 1 pods are available".to_owned(),
        })
        .collect();
    let plan = ideal.plan();
    ideal.pass();
    plan
}

fn told(ideal: &Ideal) -> Vec<(EventKind, &str)> {
    let of_addons = |(_, event): &&(Timestamp, Event)| event.subject.starts_with("the add-on");
    let told = ideal.told.iter().filter(of_addons);
    told.map(|(_, event)| (event.kind, event.subject.as_str()))
        .collect()
}

#[test]
fn an_addon_that_does_not_work_is_told_of_once_and_so_is_that_it_works_again() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 1)]);
    let since = ideal.now;
    let plan = ails(&mut ideal, &[("coredns", since)]);
    assert_eq!(told(&ideal), [], "it may only be starting");
    assert_eq!(plan.look_again, Some(after(since, Duration::from_secs(120))));
    ideal.now = after(since, Duration::from_secs(120));
    for _ in 0..3 {
        ails(&mut ideal, &[("coredns", since)]);
    }
    let began = (EventKind::ProblemBegan, "the add-on coredns");
    assert_eq!(told(&ideal), [began]);
    let observed = &ideal.seen.observed;
    assert_eq!(
        observed.problem.as_deref(),
        Some("the add-on coredns does not work: 0 of 1 pods are available")
    );
    for _ in 0..2 {
        ails(&mut ideal, &[]);
    }
    assert_eq!(
        told(&ideal),
        [began, (EventKind::ProblemEnded, "the add-on coredns")]
    );
    assert_eq!(ideal.seen.observed.problem, None);
}

#[test]
fn a_cluster_with_an_addon_that_does_not_work_is_what_it_is_to_be() {
    let mut ideal = converged(PodNetworking::Kubenet, vec![pool("a", 1)]);
    let since = ideal.now;
    ideal.now = after(since, Duration::from_secs(600));
    ails(&mut ideal, &[("metrics-server", since)]);
    ideal.run();
    let plan = ails(&mut ideal, &[("metrics-server", since)]);
    assert!(plan.settled(), "{plan:?}");
    assert_eq!(plan.effects, []);
}
