//! Pools with an autoscaler: ranges, refused requests, and the count under other requests.

use serde_json::{Value, json};

use crate::stamp::{Answer, Stamp};

const C: &str = "managedClusters/c";
const POOL: &str = "managedClusters/c/agentPools/np2";

/// A cluster with a system pool of one node, and a user pool of two that has an autoscaler.
async fn standing() -> Stamp {
    let stamp = Stamp::new().await;
    let pools = json!([
        { "name": "np1", "mode": "System", "count": 1 },
        { "name": "np2", "count": 2, "enableAutoScaling": true, "minCount": 1, "maxCount": 4 }
    ]);
    let body = json!({ "location": "local", "properties": { "agentPoolProfiles": pools } });
    stamp.create("c", body).await;
    stamp.reach("c").await;
    stamp
}

/// As clients do: sends the body that was read, with a change.
async fn change(stamp: &Stamp, path: &str, change: impl FnOnce(&mut Value)) -> Answer {
    let properties = stamp.get(path).await.body["properties"].clone();
    let mut body = json!({ "location": "local", "properties": properties });
    if path == POOL {
        body = json!({ "properties": body["properties"] });
    }
    change(&mut body["properties"]);
    stamp.ask("PUT", path, body).await
}

async fn range_and_count(stamp: &Stamp) -> (Option<(u32, u32)>, u32) {
    let pool = stamp.record("c").await.unwrap().spec().pools[1].clone();
    (pool.autoscale.map(|range| (range.min, range.max)), pool.count)
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_not_scaled_by_hand_while_its_autoscaler_is_on() {
    let stamp = standing().await;
    let scaled = change(&stamp, POOL, |pool| pool["count"] = json!(3)).await;
    assert_eq!(
        (scaled.status, scaled.code()),
        (400, "OperationNotAllowed"),
        "{:#}",
        scaled.body
    );
    // An outdated count beside an intended change: the change is made, the count stays.
    let labelled = change(&stamp, POOL, |pool| {
        pool["count"] = json!(3);
        pool["nodeLabels"] = json!({ "a": "b" });
    })
    .await;
    assert_eq!(labelled.status, 200, "{:#}", labelled.body);
    assert_eq!(range_and_count(&stamp).await, (Some((1, 4)), 2));
    // The same with the PUT of the cluster.
    let whole = change(&stamp, C, |cluster| {
        cluster["agentPoolProfiles"][1]["count"] = json!(4)
    })
    .await;
    assert!(whole.status < 300, "{:#}", whole.body);
    assert_eq!(range_and_count(&stamp).await, (Some((1, 4)), 2));
    // With the autoscaler off, it is scaled as any pool.
    let off = change(&stamp, POOL, |pool| {
        pool["enableAutoScaling"] = json!(false);
        pool["minCount"] = Value::Null;
        pool["maxCount"] = Value::Null;
        pool["count"] = json!(3);
    })
    .await;
    assert_eq!(off.status, 200, "{:#}", off.body);
    assert_eq!(range_and_count(&stamp).await, (None, 3));
    let shown = stamp.get(POOL).await.body["properties"].clone();
    assert_eq!(shown["enableAutoScaling"], json!(false));
    assert!(shown.get("minCount").is_none(), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_count_outside_a_new_range_is_brought_into_it() {
    let stamp = standing().await;
    let ranges = [((3, 5), 3), ((1, 2), 2), ((0, 1), 1)];
    for ((min, max), count) in ranges {
        let changed = change(&stamp, POOL, |pool| {
            pool["minCount"] = json!(min);
            pool["maxCount"] = json!(max);
        })
        .await;
        assert_eq!(changed.status, 200, "{:#}", changed.body);
        assert_eq!(range_and_count(&stamp).await, (Some((min, max)), count));
    }
}

#[tokio::test(start_paused = true)]
async fn settings_that_are_not_given_are_shown_with_their_defaults() {
    let stamp = standing().await;
    let nothing = stamp.get(C).await.body["properties"]["autoScalerProfile"].clone();
    assert!(nothing.is_null(), "{nothing}");
    let set = change(&stamp, C, |cluster| {
        cluster["autoScalerProfile"] = json!({ "scan-interval": "30s", "scale-down-unneeded-time": "1m" });
    })
    .await;
    assert!(set.status < 300, "{:#}", set.body);
    let shown = stamp.get(C).await.body["properties"]["autoScalerProfile"].clone();
    for (name, value) in [
        ("scan-interval", json!("30s")),
        ("scale-down-delay-after-delete", json!("30s")),
        ("scale-down-unneeded-time", json!("1m")),
        ("scale-down-delay-after-add", json!("10m")),
        ("expander", json!("random")),
        ("ignore-daemonsets-utilization", json!(false)),
        ("daemonset-eviction-for-occupied-nodes", json!(true)),
        ("skip-nodes-with-system-pods", json!("true")),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    let spec = stamp.record("c").await.unwrap().spec().autoscaler.clone();
    assert_eq!((spec.scan, spec.after_delete, spec.unneeded), (30, 30, 60));
}
