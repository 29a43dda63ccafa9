//! Each tenant gets its share, regardless of the others' demand.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn flow(tenant: u8, cluster: u8) -> Flow {
    Flow::of(&format!("/n/managedclusters/t{tenant}/g/c{cluster}"))
}

/// Entries are named by their tenant, cluster and number.
type Item = (u8, u8, u32);

fn granted(fair: &mut FairQueue<Item>) -> Vec<Item> {
    std::iter::from_fn(|| fair.next()).collect()
}

#[test]
fn a_storm_leaves_a_place_for_a_newcomer_at_once() {
    let mut fair = FairQueue::new([1, 16, 1]);
    for number in 0..10_000 {
        fair.join(Lane::Host, &flow(1, (number % 100) as u8), 4, (1, 0, number));
    }
    assert_eq!(granted(&mut fair).len(), 12);
    fair.join(Lane::Host, &flow(2, 0), 4, (2, 0, 0));
    assert_eq!(granted(&mut fair), [(2, 0, 0)]);
}

#[test]
fn a_tenants_clusters_take_turns() {
    let mut fair = FairQueue::new([1, 1, 1]);
    for number in 0..3 {
        for cluster in 0..2 {
            fair.join(Lane::Host, &flow(1, cluster), 1, (1, cluster, number));
        }
    }
    let mut order = Vec::new();
    while let Some((_, cluster, number)) = fair.next() {
        order.push((cluster, number));
        fair.leave(Lane::Host, &flow(1, 0).tenant);
    }
    assert_eq!(order, [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]);
}

#[test]
fn who_was_idle_has_saved_nothing_up() {
    let mut fair = FairQueue::new([1, 1, 1]);
    for number in 0..100 {
        fair.join(Lane::Host, &flow(1, 0), 1, (1, 0, number));
    }
    for _ in 0..50 {
        assert!(fair.next().is_some());
        fair.leave(Lane::Host, &flow(1, 0).tenant);
    }
    for number in 0..50 {
        fair.join(Lane::Host, &flow(2, 0), 1, (2, 0, number));
    }
    let mut got = BTreeMap::<u8, u32>::new();
    for _ in 0..20 {
        let (tenant, ..) = fair.next().unwrap();
        *got.entry(tenant).or_default() += 1;
        fair.leave(Lane::Host, &flow(tenant, 0).tenant);
    }
    assert_eq!(got, BTreeMap::from([(1, 10), (2, 10)]));
}

#[test]
fn a_tenant_with_a_backlog_plans_no_more_and_others_do() {
    let mut fair = FairQueue::new([8, 1, 1]);
    for number in 0..300 {
        fair.join(Lane::Host, &flow(1, 0), 1, (1, 0, number));
    }
    assert_eq!(granted(&mut fair).len(), 1);
    fair.join(Lane::Pass, &flow(1, 0), 1, (1, 0, 999));
    assert_eq!(granted(&mut fair), []);
    fair.join(Lane::Pass, &flow(2, 0), 1, (2, 0, 0));
    assert_eq!(granted(&mut fair), [(2, 0, 0)]);
    // As its effects get done, it plans again.
    let mut passed = false;
    for _ in 0..300 {
        fair.leave(Lane::Host, &flow(1, 0).tenant);
        passed |= granted(&mut fair).contains(&(1, 0, 999));
    }
    assert!(passed);
}

#[test]
fn who_no_longer_waits_is_passed_over_and_leaves_nothing_behind() {
    let mut fair = FairQueue::new([1, 1, 1]);
    let first = fair.join(Lane::Call, &flow(1, 0), 1, (1, 0, 0));
    assert_eq!(granted(&mut fair), [(1, 0, 0)]);
    let second = fair.join(Lane::Call, &flow(2, 0), 1, (2, 0, 1));
    fair.join(Lane::Call, &flow(3, 0), 1, (3, 0, 2));
    fair.withdraw(Lane::Call, &flow(2, 0), second);
    // Too late: it has its place.
    fair.withdraw(Lane::Call, &flow(1, 0), first);
    assert_eq!(fair.waiting(Lane::Call), 1);
    fair.leave(Lane::Call, &flow(1, 0).tenant);
    assert_eq!(granted(&mut fair), [(3, 0, 2)]);
    fair.leave(Lane::Call, &flow(3, 0).tenant);
    assert!(fair.tenants.is_empty() && fair.lanes.iter().all(|lane| lane.order.is_empty()));
}

#[derive(Debug, Clone)]
enum Step {
    Join(u8, u8, u32),
    /// The n-th holder of a place leaves.
    Leave(prop::sample::Index),
    /// The n-th waiting entry gives up.
    Withdraw(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u8, 0..3_u8, 1..5_u32).prop_map(|(tenant, cluster, cost)| Step::Join(tenant, cluster, cost)),
        3 => any::<prop::sample::Index>().prop_map(Step::Leave),
        1 => any::<prop::sample::Index>().prop_map(Step::Withdraw),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_entry_is_served_or_withdrawn_once_and_no_place_stays_empty(
        limit in 1..10_u32,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut fair = FairQueue::new([1, limit, 1]);
        let mut waiting = BTreeMap::<u32, (Flow, u64)>::new();
        let mut holding = Vec::<Item>::new();
        let mut number = 0;
        for step in steps {
            match step {
                Step::Join(tenant, cluster, cost) => {
                    number += 1;
                    let ticket = fair.join(Lane::Host, &flow(tenant, cluster), cost, (tenant, cluster, number));
                    waiting.insert(number, (flow(tenant, cluster), ticket));
                }
                Step::Leave(index) if !holding.is_empty() => {
                    let (tenant, cluster, _) = holding.remove(index.index(holding.len()));
                    fair.leave(Lane::Host, &flow(tenant, cluster).tenant);
                }
                Step::Withdraw(index) if !waiting.is_empty() => {
                    let key = *waiting.keys().nth(index.index(waiting.len())).unwrap();
                    let (flow, ticket) = waiting.remove(&key).unwrap();
                    fair.withdraw(Lane::Host, &flow, ticket);
                }
                Step::Leave(_) | Step::Withdraw(_) => {}
            }
            for item in granted(&mut fair) {
                prop_assert!(waiting.remove(&item.2).is_some(), "served once, and not after it gave up");
                holding.push(item);
            }
            prop_assert!(holding.len() <= limit as usize);
            prop_assert_eq!(fair.waiting(Lane::Host), waiting.len());
            let free = limit - holding.len() as u32;
            for (waits, _) in waiting.values() {
                let held = holding.iter().filter(|item| flow(item.0, 0).tenant == waits.tenant).count() as u32;
                prop_assert!(held >= SHARE * free, "a place is empty that {waits:?} may take");
            }
        }
        // No starvation: all waiting entries are served as the others leave, in any order of arrival.
        while let Some((tenant, cluster, _)) = holding.pop() {
            fair.leave(Lane::Host, &flow(tenant, cluster).tenant);
            for item in granted(&mut fair) {
                waiting.remove(&item.2);
                holding.push(item);
            }
        }
        prop_assert!(waiting.is_empty());
        prop_assert!(fair.tenants.is_empty());
    }

    #[test]
    fn shares_are_even_and_a_place_in_the_queue_does_not_depend_on_anothers_length(
        costs in prop::collection::vec(1..5_u32, 4),
        storm in 100..400_u32,
    ) {
        let mut fair = FairQueue::new([1, 1, 1]);
        for number in 0..storm {
            for (tenant, cost) in costs.iter().enumerate() {
                fair.join(Lane::Host, &flow(tenant as u8, (number % 7) as u8), *cost, (tenant as u8, 0, number));
            }
        }
        let mut got = vec![0_u32; costs.len()];
        for turn in 0..storm {
            let (tenant, ..) = fair.next().unwrap();
            got[usize::from(tenant)] += costs[usize::from(tenant)];
            let (most, least) = (got.iter().max().unwrap(), got.iter().min().unwrap());
            prop_assert!(most - least <= *costs.iter().max().unwrap(), "after {turn}: {got:?}");
            fair.leave(Lane::Host, &flow(tenant, 0).tenant);
        }
        // A newcomer is next after at most one entry of each of the others.
        fair.join(Lane::Host, &flow(9, 0), 4, (9, 0, 0));
        let before = (0..)
            .find(|_| {
                let (tenant, ..) = fair.next().unwrap();
                fair.leave(Lane::Host, &flow(tenant, 0).tenant);
                tenant == 9
            })
            .unwrap();
        prop_assert!(before <= costs.len(), "{before} were before it");
    }
}
