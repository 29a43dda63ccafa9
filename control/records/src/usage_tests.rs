use cluster_spec::{Tier, testkit};
use storage_redb::MemoryStore;

use super::*;

fn spec(tier: Tier, count: u32, surge: u32) -> ClusterSpec {
    let mut spec = testkit::cluster();
    spec.tier = tier;
    spec.pools.truncate(1);
    spec.pools[0].count = count;
    spec.pools[0].surge = surge;
    spec.pools[0].vm_size = "Standard_DS2_v2".to_owned();
    spec
}

fn used(spec: &ClusterSpec) -> UsageRecord {
    UsageRecord::default().with("S", &Amounts::default(), &Amounts::of(spec))
}

#[test]
fn a_cluster_asks_for_its_members_nodes_and_surge() {
    let amounts = Amounts::of(&spec(Tier::Standard, 5, 2));
    assert_eq!(
        (amounts.clusters, amounts.members, amounts.nodes, amounts.surge),
        (1, 3, 5, 2)
    );
    assert_eq!(
        amounts.cores,
        BTreeMap::from([("standardDSv2Family".to_owned(), 10)])
    );
    assert_eq!(amounts.surge_cores, 4);
    assert_eq!(amounts.machines(), 10);
    assert_eq!(amounts.memory_mib(), 7 * NODE_MEMORY_MIB + 3 * MEMBER_MEMORY_MIB);
    assert_eq!(amounts.minus(&amounts), Amounts::default());
    // Nothing is upgraded where there is no node.
    assert_eq!(Amounts::of(&spec(Tier::Free, 0, 2)).surge, 0);
}

#[test]
fn what_passes_a_limit_is_named_with_its_figures() {
    let room = Room {
        memory_mib: Some(4096),
        disk_gib: Some(100),
        cores: Some(100),
        addresses: Some(100),
        vips: Some(100),
    };
    let free = |quota: &str| -> Limits {
        let mut limits = Limits {
            clusters: Some(1),
            nodes: Some(4),
            cores: Some(8),
            room: room.clone(),
        };
        match quota {
            "memory" => limits.room.memory_mib = Some(1500),
            "disk" => limits.room.disk_gib = Some(4),
            "stamp cores" => limits.room.cores = Some(5),
            "addresses" => limits.room.addresses = Some(3),
            "none" => limits = Limits::default(),
            _ => {}
        }
        limits
    };
    // What there is: one Free cluster with one node, which counts as two while it is upgraded.
    let now = spec(Tier::Free, 1, 1);
    let usage = used(&now);
    let none = Amounts::default();
    let was = Amounts::of(&now);
    let excess = |quota, limit, usage, required| Excess {
        quota,
        limit,
        usage,
        required,
    };
    for (name, limits, before, after, upgrade, expected) in [
        (
            "it stays as it is",
            "",
            &was,
            spec(Tier::Free, 1, 1),
            (0, 0),
            vec![],
        ),
        (
            "it fits exactly",
            "",
            &was,
            spec(Tier::Free, 4, 1),
            (0, 0),
            vec![],
        ),
        (
            "a fifth node",
            "",
            &was,
            spec(Tier::Free, 5, 1),
            (0, 0),
            vec![excess(Quota::Nodes, 4, 1, 4), excess(Quota::Cores, 8, 2, 8)],
        ),
        (
            "an upgrade needs one more than there may be",
            "",
            &was,
            spec(Tier::Free, 4, 1),
            (1, 2),
            vec![excess(Quota::Nodes, 4, 1, 4), excess(Quota::Cores, 8, 2, 8)],
        ),
        (
            "a second cluster",
            "",
            &none,
            spec(Tier::Free, 1, 1),
            (0, 0),
            vec![excess(Quota::Clusters, 1, 1, 1)],
        ),
        (
            "three members take memory, addresses and disk",
            "memory",
            &was,
            spec(Tier::Standard, 1, 1),
            (0, 0),
            vec![excess(Quota::StampMemory, 1500, 768, 768)],
        ),
        (
            "three members take addresses",
            "addresses",
            &was,
            spec(Tier::Standard, 1, 1),
            (0, 0),
            vec![excess(Quota::StampAddresses, 3, 2, 2)],
        ),
        (
            "machines take disk",
            "disk",
            &was,
            spec(Tier::Free, 3, 1),
            (0, 0),
            vec![excess(Quota::StampDisk, 4, 3, 2)],
        ),
        (
            "surge is kept free in the stamp",
            "stamp cores",
            &was,
            spec(Tier::Free, 2, 1),
            (0, 0),
            vec![excess(Quota::StampCores, 5, 4, 2)],
        ),
        (
            "no limits",
            "none",
            &none,
            spec(Tier::Premium, 1000, 500),
            (9, 9),
            vec![],
        ),
    ] {
        let found = free(limits).excesses(&usage, "s", before, &Amounts::of(&after), upgrade);
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn what_asks_for_less_is_let_through_whatever_the_limit_is_now() {
    let now = spec(Tier::Standard, 9, 3);
    let limits = Limits {
        clusters: Some(0),
        nodes: Some(1),
        cores: Some(1),
        room: Room::of_host(0, 0, Some(0), 0, 0),
    };
    let after = Amounts::of(&spec(Tier::Free, 8, 3));
    assert_eq!(
        limits.excesses(&used(&now), "s", &Amounts::of(&now), &after, (0, 0)),
        []
    );
}

#[test]
fn only_pools_that_go_to_another_version_need_their_surge() {
    let before = spec(Tier::Free, 10, 3);
    let mut after = before.clone();
    assert_eq!(upgrade(&before, &after), (0, 0));
    after.pools[0].kubernetes_version = "9.9.9".to_owned();
    assert_eq!(upgrade(&before, &after), (3, 6));
    after.pools[0].count = 0;
    assert_eq!(upgrade(&before, &after), (0, 0));
}

#[test]
fn another_subscription_shares_the_stamp_and_not_the_quota() {
    let now = spec(Tier::Free, 2, 1);
    let limits = Limits {
        clusters: Some(1),
        nodes: Some(2),
        cores: None,
        room: Room {
            memory_mib: Some(1500),
            ..Room::default()
        },
    };
    let asked = Amounts::of(&spec(Tier::Free, 1, 1));
    let found = limits.excesses(&used(&now), "other", &Amounts::default(), &asked, (0, 0));
    let quotas: Vec<Quota> = found.iter().map(|excess| excess.quota).collect();
    assert_eq!(quotas, [Quota::StampMemory]);
}

#[test]
fn sums_are_those_of_all_in_whatever_order_they_come() {
    let clusters = [
        ("S", spec(Tier::Free, 2, 1)),
        ("t", spec(Tier::Standard, 3, 0)),
        ("s", spec(Tier::Premium, 0, 1)),
    ];
    let none = Amounts::default();
    let mut added = UsageRecord::default();
    let mut one_by_one = UsageRecord::default();
    for (subscription, spec) in &clusters {
        added.add(subscription, &Amounts::of(spec));
        one_by_one = one_by_one.with(subscription, &none, &Amounts::of(spec));
    }
    assert_eq!(added, one_by_one);
    assert_eq!((added.of("s").clusters, added.of("T").members), (2, 3));
    assert_eq!(added.all(), added.of("s").plus(&added.of("t")));
    for (subscription, spec) in &clusters {
        one_by_one = one_by_one.with(subscription, &Amounts::of(spec), &none);
    }
    assert_eq!(
        one_by_one,
        UsageRecord::default(),
        "nothing is left of what is gone"
    );
}

#[tokio::test]
async fn two_who_read_the_same_sums_do_not_both_change_them() {
    let store = MemoryStore::new();
    let (none, asked) = (Amounts::default(), Amounts::of(&spec(Tier::Free, 1, 1)));
    let read = Usage::read(&store).await.unwrap();
    store
        .txn(read.change(Txn::default(), "s", &none, &asked))
        .await
        .unwrap();
    let second = store.txn(read.change(Txn::default(), "s", &none, &asked)).await;
    assert!(matches!(second, Err(StoreError::Conflict { .. })), "{second:?}");
    let read = Usage::read(&store).await.unwrap();
    store
        .txn(read.change(Txn::default(), "S", &none, &asked))
        .await
        .unwrap();
    let read = Usage::read(&store).await.unwrap();
    assert_eq!(read.record.of("s").clusters, 2);
    // No clusters are recorded, so that is what a start finds.
    assert!(keep(&store).await.unwrap());
    assert_eq!(Usage::read(&store).await.unwrap().record.of("s"), none);
    assert!(!keep(&store).await.unwrap());
}
