//! Generated tests: of every operation one case, with all faults in turn, and a few seeds of chaos. The whole is run by
//! `cargo xtask chaos --cases` and `cargo xtask chaos --seeds 10000`.

use std::{collections::BTreeSet, time::Duration};

use simulation::{
    Fault, OPERATIONS,
    cases::{self, Case},
    chaos, run,
    script::Player,
};

const SEEDS: u64 = 2;

#[test]
fn of_every_operation_one_case_ends_as_it_has_to() {
    let mut chosen = Vec::new();
    for (index, &operation) in OPERATIONS.iter().enumerate() {
        let steps = cases::steps(operation).unwrap();
        assert!(steps.len() > 3, "{}: only {steps:?}", operation.name);
        // Each time another step and another fault.
        let step = (index * 7 + 1) % steps.len();
        chosen.push(Case {
            operation,
            step,
            what: steps[step].clone(),
            fault: Fault::ALL[index % Fault::ALL.len()],
        });
    }
    let faults: BTreeSet<_> = chosen.iter().map(|case| case.fault).collect();
    assert_eq!(faults.len(), Fault::ALL.len());
    let outcome = cases::play_all(&chosen, 2).unwrap();
    let failed: Vec<_> = outcome
        .failures
        .iter()
        .map(|failure| format!("{}\n{}", failure.case, failure.why))
        .collect();
    assert!(
        failed.is_empty(),
        "{} failed: {}",
        failed.len(),
        failed.join("\n\n")
    );
}

#[test]
fn a_few_seeds_of_chaos_end_as_they_have_to_and_each_the_same_way_twice() {
    let mut hashes = BTreeSet::new();
    for seed in 1..=SEEDS {
        let (one, again) = (
            chaos::play(seed, chaos::TAIL).unwrap(),
            chaos::play(seed, chaos::TAIL).unwrap(),
        );
        assert!(
            one.problems.is_empty(),
            "seed {seed}: {:#?}\n{}",
            one.problems,
            one.tail.join("\n")
        );
        assert_eq!(
            one.hash, again.hash,
            "seed {seed}: the same seed gives the same trace"
        );
        assert!(one.events > 10, "seed {seed}: hardly anything happened");
        hashes.insert(one.hash);
    }
    assert_eq!(hashes.len() as u64, SEEDS, "each seed is another history");
}

/// Clusters in their desired state cost nothing, however many there are.
#[test]
fn idle_clusters_ask_for_nothing() {
    run(async || {
        let mut player = Player::new(3).await?;
        // All clusters are compared once after the last change; then there is no work until the resync.
        player.stamp.settings.resync = Duration::from_secs(24 * 60 * 60);
        player.command("start").await?;
        for index in 0..30 {
            player.command(&format!("create c{index} np1=1")).await?;
        }
        player.command("settle").await?;
        player.command("wait 300").await?;
        player.stamp.trace.take(&[]);
        player.command("wait 3600").await?;
        let quiet = player.stamp.trace.take(&["call", "commit"]);
        assert!(quiet.is_empty(), "{quiet:#?}");
        Ok(())
    })
    .unwrap();
}
