//! A few thousand invalid requests, on every change; `cargo xtask fuzz` sends a million.

use simulation::fuzz;

#[test]
fn no_request_ends_in_a_500_hangs_or_changes_what_it_is_refused() {
    let mut all = fuzz::Ended::default();
    for epoch in 0..3 {
        all.add(fuzz::play(1, epoch, 1500).unwrap());
    }
    assert!(all.problems.is_empty(), "{}", all.problems.join("\n\n"));
    // It reaches the handlers: accepted requests as well as all kinds of refusals.
    for status in [200, 201, 202, 204, 400, 401, 404, 405, 409, 412, 415, 501] {
        assert!(
            all.statuses.contains_key(&status),
            "no {status} in {:?}",
            all.statuses
        );
    }
    for operation in [
        "ManagedClusters_CreateOrUpdate",
        "AgentPools_CreateOrUpdate",
        "ManagedClusters_Delete",
    ] {
        assert!(
            all.operations.contains_key(operation),
            "no {operation} in {:?}",
            all.operations
        );
    }
}

#[test]
fn the_same_seed_sends_the_same_requests() {
    let (one, again) = (fuzz::play(7, 3, 300).unwrap(), fuzz::play(7, 3, 300).unwrap());
    assert_eq!(one.statuses, again.statuses);
}
