//! Requests beyond the quota or the stamp's room are refused with the figures, before any effect; concurrent
//! requests cannot pass a limit together.
#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

use control_records::{
    key,
    usage::{Amounts, Limits, NODE_MEMORY_MIB, Room, UsageRecord},
};
use control_store::get_record;
use serde_json::{Value, json};

use crate::stamp::{Answer, SUBSCRIPTION, Stamp, least};

fn limits(clusters: u64, nodes: u64, cores: u64) -> Limits {
    Limits {
        clusters: Some(clusters),
        nodes: Some(nodes),
        cores: Some(cores),
        room: Room::default(),
    }
}

/// A body with one pool.
fn body(count: u32, tier: &str) -> Value {
    json!({
        "location": "local",
        "sku": { "name": "Base", "tier": tier },
        "properties": { "agentPoolProfiles": [{ "name": "np1", "mode": "System", "count": count }] },
    })
}

async fn used(stamp: &Stamp) -> Amounts {
    let found = get_record::<UsageRecord>(&*stamp.store, key::USAGE)
        .await
        .unwrap();
    found
        .map(|found| found.value.of(SUBSCRIPTION))
        .unwrap_or_default()
}

#[track_caller]
fn refused(answer: &Answer, figures: &[&str]) {
    assert_eq!(
        (answer.status, answer.code()),
        (400, "QuotaExceeded"),
        "{answer:?}"
    );
    let text = answer.body.to_string();
    for figure in figures {
        assert!(text.contains(figure), "no {figure:?} in {text}");
    }
}

#[tokio::test]
async fn creations_and_scaling_are_refused_with_the_figures_and_change_nothing() {
    let stamp = Stamp::limited(limits(2, 6, 8)).await;
    stamp.create("a", body(2, "Free")).await;
    stamp.create("b", body(1, "Free")).await;
    let (before, _) = stamp.store.list("/").await.unwrap();
    for (path, body, figures) in [
        (
            "managedClusters/c",
            body(1, "Free"),
            &[
                "Managed Clusters",
                "Current Limit: 2",
                "Current Usage: 2",
                "Additional Required: 1",
            ][..],
        ),
        (
            "managedClusters/c",
            body(3, "Free"),
            &[
                "Managed Clusters",
                "Total Regional Cores",
                "New Limit Required: 12",
            ],
        ),
        (
            "managedClusters/a",
            body(6, "Free"),
            &[
                "Nodes",
                "Current Limit: 6",
                "Current Usage: 3",
                "Additional Required: 4",
            ],
        ),
        (
            "managedClusters/a/agentPools/np1",
            json!({ "properties": { "mode": "System", "count": 4 } }),
            &[
                "Total Regional Cores",
                "Current Limit: 8",
                "Current Usage: 6",
                "Additional Required: 4",
                "properties.count",
            ],
        ),
        (
            "managedClusters/b/agentPools/more",
            json!({ "properties": { "count": 2 } }),
            &["(Minimum) New Limit Required: 10"],
        ),
        (
            "managedClusters/b/agentPools/more",
            json!({ "properties": { "count": 1, "vmSize": "Standard_DS4_v2" } }),
            &["Additional Required: 8"],
        ),
    ] {
        refused(&stamp.preview("PUT", path, body.clone()).await, figures);
        refused(&stamp.ask("PUT", path, body).await, figures);
    }
    let (after, _) = stamp.store.list("/").await.unwrap();
    assert_eq!(before, after);
    // A request within the limit is accepted.
    let pool = json!({ "properties": { "count": 1 } });
    let answer = stamp.ask("PUT", "managedClusters/b/agentPools/more", pool).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let now = used(&stamp).await;
    assert_eq!(
        (now.clusters, now.nodes, now.pools, now.all_cores()),
        (2, 4, 3, 8)
    );
    // A request for less or the same is accepted, even at the limit.
    for count in [2, 1] {
        let answer = stamp.ask("PUT", "managedClusters/a", body(count, "Free")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let answer = stamp
        .ask("DELETE", "managedClusters/b/agentPools/more", Value::Null)
        .await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(used(&stamp).await.nodes, 2);
}

#[tokio::test]
async fn three_members_and_the_nodes_of_an_upgrade_have_to_fit_the_stamp() {
    let stamp = Stamp::limited(Limits {
        room: Room {
            // A Free cluster, its node, and the surge node of an upgrade.
            memory_mib: Some(800),
            ..Room::default()
        },
        ..Limits::default()
    })
    .await;
    let tight = stamp.ask("PUT", "managedClusters/a", body(1, "Standard")).await;
    refused(
        &tight,
        &[
            "Memory of the stamp",
            "Current Limit: 800",
            "Current Usage: 0",
            "Additional Required: 1536",
        ],
    );
    stamp.create("a", body(1, "Free")).await;
    let tight = stamp.ask("PUT", "managedClusters/a", body(1, "Standard")).await;
    refused(&tight, &["Current Usage: 768", "Additional Required: 768"]);
    let needed = format!("Additional Required: {NODE_MEMORY_MIB}");
    let mut wider = body(1, "Free");
    wider["properties"]["agentPoolProfiles"][0]["upgradeSettings"] = json!({ "maxSurge": "2" });
    refused(&stamp.ask("PUT", "managedClusters/a", wider).await, &[&needed]);
}

#[tokio::test]
async fn an_upgrade_is_counted_with_the_nodes_that_it_adds() {
    let stamp = Stamp::limited(limits(1, 2, 100)).await;
    let older = |count: u32| {
        let mut body = body(count, "Free");
        body["properties"]["kubernetesVersion"] = json!("1.36.3");
        body
    };
    stamp.create("a", older(2)).await;
    stamp.reach("a").await;
    let mut newer = older(2);
    newer["properties"]["kubernetesVersion"] = json!("1.37.1");
    let answer = stamp.ask("PUT", "managedClusters/a", newer.clone()).await;
    assert_eq!(
        answer.status, 200,
        "the control plane adds no machine: {answer:?}"
    );
    stamp.reach("a").await;
    newer["properties"]["agentPoolProfiles"][0]["orchestratorVersion"] = json!("1.37.1");
    refused(
        &stamp.ask("PUT", "managedClusters/a", newer.clone()).await,
        &[
            "Nodes",
            "Current Limit: 2",
            "Current Usage: 2",
            "Additional Required: 1",
        ],
    );
    newer["properties"]["agentPoolProfiles"][0]["count"] = json!(1);
    let answer = stamp.ask("PUT", "managedClusters/a", newer).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn many_who_ask_at_once_pass_no_limit_together() {
    let stamp = Stamp::limited(limits(10, 100, 1000)).await;
    let asked = (0..40).map(|number| {
        let stamp = &stamp;
        async move {
            let path = format!("managedClusters/c{number}");
            stamp.ask("PUT", &path, body(1, "Free")).await
        }
    });
    let answers = futures::future::join_all(asked).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    let over = answers
        .iter()
        .filter(|answer| answer.code() == "QuotaExceeded")
        .count();
    assert_eq!((made, over), (10, 30));
    assert_eq!(used(&stamp).await.clusters, 10);
}

#[tokio::test]
async fn what_others_have_counts_in_the_stamp_and_not_in_the_subscription() {
    let mut tight = limits(1, 100, 100);
    tight.room.vips = Some(2);
    let stamp = Stamp::limited(tight).await;
    // Another subscription has one cluster, the caller's has none.
    let others = UsageRecord::default().with(
        "0b0e2b6c-93d1-4b6f-8d0a-1c2d3e4f5a6b",
        &Amounts::default(),
        &Amounts {
            clusters: 1,
            members: 1,
            ..Amounts::default()
        },
    );
    let both = |clusters: u64| {
        let own = Amounts {
            clusters,
            ..Amounts::default()
        };
        others.with(SUBSCRIPTION, &Amounts::default(), &own)
    };
    let keep = async |sums: UsageRecord| stamp.write(control_store::put_record(key::USAGE, &sums)).await;
    let ask = async || {
        let answer = stamp.ask("PUT", "managedClusters/b", body(1, "Free")).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        answer
    };
    // The subscription's is full, the stamp's is not.
    let own = format!("This is the limit of the subscription '{SUBSCRIPTION}'");
    keep(UsageRecord::default().with(
        SUBSCRIPTION,
        &Amounts::default(),
        &Amounts {
            clusters: 1,
            ..Amounts::default()
        },
    ))
    .await;
    let answer = ask().await;
    refused(
        &answer,
        &["Managed Clusters", "Current Limit: 1", "Current Usage: 1", &own],
    );
    assert!(
        !answer.body.to_string().contains("limit of the stamp"),
        "{answer:?}"
    );
    // Both limits are exceeded: each is reported with its own figures.
    keep(both(1)).await;
    let answer = ask().await;
    refused(
        &answer,
        &[
            &own,
            "API server addresses of the stamp",
            "This is the limit of the stamp",
            "Current Limit: 2, Current Usage: 2",
        ],
    );
    // The use of other subscriptions does not count for this one.
    keep(others.clone()).await;
    let answer = stamp.ask("PUT", "managedClusters/b", body(1, "Free")).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(used(&stamp).await.clusters, 1);
}

#[tokio::test]
async fn sums_that_are_not_there_are_counted() {
    let stamp = Stamp::limited(limits(2, 100, 100)).await;
    stamp.create("a", least()).await;
    stamp.create("b", least()).await;
    stamp
        .write(control_store::Op::Delete(key::USAGE.to_owned()))
        .await;
    refused(
        &stamp.ask("PUT", "managedClusters/c", least()).await,
        &["Current Usage: 2"],
    );
    let answer = stamp.ask("PUT", "managedClusters/a", body(2, "Free")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let now = used(&stamp).await;
    assert_eq!((now.clusters, now.nodes, now.pools), (2, 4, 3));
}

#[tokio::test]
async fn usages_are_read_with_their_limits() {
    let stamp = Stamp::limited(limits(5, 100, 64)).await;
    stamp.create("a", body(3, "Free")).await;
    let at = |location: &str| {
        format!(
            "/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/locations/{location}/usages"
        )
    };
    let usages = stamp.get(&at("local")).await.body;
    let of = |name: &str| {
        let mut lines = usages["value"].as_array().unwrap().iter();
        let line = lines.rfind(|line| line["name"]["value"] == name).unwrap();
        (line["currentValue"].clone(), line["limit"].clone())
    };
    assert_eq!(of("ManagedClusters"), (json!(1), json!(5)));
    assert_eq!(of("Nodes"), (json!(3), json!(100)));
    assert_eq!(of("Cores"), (json!(6), json!(64)));
    assert_eq!(
        stamp.get(&at("mars")).await.code(),
        "LocationNotAvailableForResourceType"
    );
}
