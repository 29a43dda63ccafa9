//! Generated tests: a part of all cases and of all seeds, with every operation, every fault. The whole is run by
//! `cargo xtask chaos --cases` and `cargo xtask chaos --seeds 10000`.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeSet;

use simulation::{Fault, OPERATIONS, cases, chaos};

/// One case in so many. A prime, so that each operation and each fault has its turn.
const EVERY: usize = 41;
const SEEDS: u64 = 12;

#[test]
fn a_part_of_all_cases_ends_as_it_has_to() {
    let all = cases::all().unwrap();
    let chosen: Vec<_> = all.iter().step_by(EVERY).cloned().collect();
    let operations: BTreeSet<_> = chosen.iter().map(|case| case.operation.name).collect();
    let faults: BTreeSet<_> = chosen.iter().map(|case| case.fault).collect();
    assert_eq!(operations.len(), OPERATIONS.len(), "{operations:?}");
    assert_eq!(faults.len(), Fault::ALL.len());
    let outcome = cases::play_all(&chosen, 2).unwrap();
    println!("{} of {} cases played", chosen.len(), all.len());
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
    for seed in 1..=SEEDS {
        let (one, again) = (chaos::play(seed).unwrap(), chaos::play(seed).unwrap());
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
    }
    assert_ne!(chaos::play(1).unwrap().hash, chaos::play(2).unwrap().hash);
}
