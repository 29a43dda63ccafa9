//! `bench policy`: how many states of support a core evaluates in a second.
#![expect(clippy::print_stdout, reason = "a bench's result is what it prints")]

use std::{hint::black_box, time::Duration};

use anyhow::Result;
use base_env::Env;
use cluster_versions::Offered;
use jiff::Timestamp;
use policy_support::{
    Change, ChangeKind, Fact, Facts, Means, Minor, Plugin, Pool, Profile, Subscription, next_change,
    releases, support_state,
};
use serde_json::json;

use crate::Policy;

/// How often each cluster is evaluated between two looks at the clock.
const ROUND: u32 = 1_000;
/// Clusters of different kinds.
const CLUSTERS: i64 = 64;

pub(crate) fn run(options: &Policy) -> Result<()> {
    let env = Env::system();
    let clusters = clusters()?;
    let begin = Timestamp::from_second(1_798_761_600)?;
    let states = rate(&env, options.seconds, &clusters, |facts, profile, now| {
        black_box(support_state(facts, profile, now));
    });
    let dates = rate(&env, options.seconds, &clusters, |facts, profile, now| {
        black_box(next_change(facts, profile, now));
    });
    let reasons: usize = clusters
        .iter()
        .map(|(facts, profile)| support_state(facts, *profile, begin).reasons.len())
        .sum();
    println!(
        "{states:.0} states of support a second on one core, with the date of the next change; {:.1} reasons each   {dates:.0} dates alone",
        reasons as f64 / clusters.len() as f64
    );
    if options.json {
        println!(
            "{}",
            json!({ "states_per_s": states.round(), "next_changes_per_s": dates.round() })
        );
    }
    Ok(())
}

/// Evaluations a second.
fn rate(
    env: &Env,
    seconds: u64,
    clusters: &[(Facts, Profile)],
    mut act: impl FnMut(&Facts, Profile, Timestamp),
) -> f64 {
    let begin = env.clock.monotonic();
    let bound = Duration::from_secs(seconds);
    let (mut count, mut second) = (0.0, 1_798_761_600_i64);
    loop {
        for _ in 0..ROUND / 64 {
            for (facts, profile) in clusters {
                // Each at another moment of two years.
                second = 1_798_761_600 + (second + 40_009) % (2 * 365 * 24 * 60 * 60);
                let now = Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
                act(black_box(facts), *profile, now);
                count += 1.0;
            }
        }
        let took = env.clock.monotonic().saturating_sub(begin);
        if took >= bound {
            return count / took.as_secs_f64();
        }
    }
}

/// Clusters of all profiles: some stopped, some changed, some of suspended subscriptions.
fn clusters() -> Result<Vec<(Facts, Profile)>> {
    let mut all = Vec::new();
    let created = Timestamp::from_second(1_780_000_000)?;
    let later = |days: i64| Timestamp::from_second(1_798_761_600 + days * 24 * 60 * 60);
    for number in 0..CLUSTERS {
        let minor = Minor::one(if number % 3 == 0 { 36 } else { 37 });
        let mut facts = Facts::of(created, minor, releases::known(&Offered::pinned()));
        for pool in 0..3 {
            facts.pools.push(Pool {
                name: format!("pool{pool}"),
                version: Fact::since(minor, created),
                oldest_node: Some(created),
                newest_image: (number % 4 == 0).then_some(created),
            });
        }
        if number % 5 == 0 {
            facts.stopped = Some(later(number)?);
        }
        if number % 7 == 0 {
            facts.subscription = Fact::since(Subscription::Suspended, later(number)?);
        }
        if number % 9 == 0 {
            facts.plugin = Fact::since(Plugin::Own, created);
        }
        if number % 11 == 0 {
            facts.changes.push(Change {
                kind: ChangeKind::Node,
                means: Means::Infrastructure,
                what: "/etc/hosts".to_owned(),
                who: None,
                at: later(number)?,
                undone: Some(later(number + 3)?),
            });
        }
        let profile = Profile::ALL[usize::try_from(number).unwrap_or_default() % Profile::ALL.len()];
        all.push((facts, profile));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_something_to_say_of_the_clusters_that_are_measured() {
        let clusters = super::clusters().unwrap();
        let now = jiff::Timestamp::from_second(1_830_000_000).unwrap();
        let reasons = clusters
            .iter()
            .map(|(facts, profile)| super::support_state(facts, *profile, now).reasons.len());
        assert!(reasons.sum::<usize>() >= clusters.len() / 2);
    }
}
