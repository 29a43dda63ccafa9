//! Commands: run while somebody answers, looked at now and then, and none of the cluster's business.

use cluster_spec::Tier;

use super::{healing::standing, *};

fn asked(ideal: &Ideal) -> usize {
    let plan = ideal.plan();
    let commands = plan
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Api(ApiEffect::Command(_))));
    commands.count()
}

#[test]
fn commands_are_run_side_by_side_and_looked_at_when_it_is_time() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    for id in ["one", "two"] {
        ideal.seen.commands.insert(id.to_owned(), None);
    }
    assert_eq!(asked(&ideal), 2);
    let reached = ideal.seen.observed.clone();
    ideal.pass();
    assert_eq!(ideal.seen.observed, reached, "the cluster is what it was");
    assert_eq!(asked(&ideal), 0, "not before it is time");
    assert!(ideal.plan().look_again.is_some());
    for _ in 0..10 {
        ideal.pass();
    }
    assert!(ideal.seen.commands.is_empty());
}

#[test]
fn while_nobody_answers_commands_wait() {
    let mut ideal = standing(Tier::Free, vec![pool("a", 1)]);
    ideal.seen.commands.insert("one".to_owned(), None);
    ideal.seen.api.reach = Reach::Away;
    assert_eq!(asked(&ideal), 0);
}
