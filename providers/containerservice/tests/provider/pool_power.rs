//! Pools that are stopped and started: what is kept, what is refused, what is only sent back.

use serde_json::{Value, json};

use crate::stamp::{Answer, Stamp};

const C: &str = "managedClusters/c";
const SYSTEM: &str = "managedClusters/c/agentPools/np1";
const POOL: &str = "managedClusters/c/agentPools/np2";

/// A cluster with a system pool of one node and a user pool of two, all of them there.
async fn standing() -> Stamp {
    let stamp = Stamp::new().await;
    let pools = json!([{ "name": "np1", "mode": "System", "count": 1 }, { "name": "np2", "count": 2 }]);
    let body = json!({ "location": "local", "properties": { "agentPoolProfiles": pools } });
    stamp.create("c", body).await;
    stamp.reach("c").await;
    stamp
}

/// As `az aks nodepool stop` and `start` do: what was read goes back with another power state.
async fn turn(stamp: &Stamp, pool: &str, code: &str) -> Answer {
    let properties = stamp.get(pool).await.body["properties"].clone();
    let mut body = json!({ "properties": properties });
    body["properties"]["powerState"] = json!({ "code": code });
    stamp.ask("PUT", pool, body).await
}

/// provisioningState, powerState and count of the user pool.
async fn shown(stamp: &Stamp) -> (String, String, u64) {
    let properties = stamp.get(POOL).await.body["properties"].clone();
    let profile = stamp.get(C).await.body["properties"]["agentPoolProfiles"][1].clone();
    assert_eq!(profile["powerState"], properties["powerState"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (
        text(&properties["provisioningState"]),
        text(&properties["powerState"]["code"]),
        properties["count"].as_u64().unwrap(),
    )
}

/// Whether the user pool is to be stopped, and how many nodes it is to have now.
async fn wanted(stamp: &Stamp) -> (bool, u32) {
    let pool = stamp.record("c").await.unwrap().spec().pools[1].clone();
    (pool.stopped, pool.wanted())
}

fn said(state: &str, power: &str, count: u64) -> (String, String, u64) {
    (state.to_owned(), power.to_owned(), count)
}

#[tokio::test(start_paused = true)]
async fn a_user_pool_is_stopped_and_started() {
    let stamp = standing().await;
    let before = stamp.record("c").await.unwrap();
    let stop = turn(&stamp, POOL, "Stopped").await;
    assert_eq!(stop.status, 200, "{:#}", stop.body);
    assert!(stop.header("azure-asyncoperation").is_some());
    assert_eq!(shown(&stamp).await, said("Stopping", "Stopped", 2));
    assert_eq!(wanted(&stamp).await, (true, 0));
    stamp.reach("c").await;
    assert_eq!(shown(&stamp).await, said("Succeeded", "Stopped", 2));
    let system = stamp.get(SYSTEM).await.body["properties"]["powerState"].clone();
    assert_eq!(system, json!({ "code": "Running" }));
    // What is so already asks for nothing.
    let generation = stamp.record("c").await.unwrap().generation;
    turn(&stamp, POOL, "Stopped").await;
    assert_eq!(stamp.record("c").await.unwrap().generation, generation);

    assert_eq!(turn(&stamp, POOL, "Running").await.status, 200);
    assert_eq!(shown(&stamp).await, said("Starting", "Running", 2));
    stamp.reach("c").await;
    assert_eq!(shown(&stamp).await, said("Succeeded", "Running", 2));
    let after = stamp.record("c").await.unwrap();
    assert_eq!(after.spec(), before.spec(), "nothing is left of it");
    assert!(after.body()["properties"]["agentPoolProfiles"][1]["powerState"].is_null());
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_of_a_stopped_pool_is_there_with_its_start() {
    let stamp = standing().await;
    turn(&stamp, POOL, "Stopped").await;
    stamp.reach("c").await;
    for properties in [
        json!({ "count": 3 }),
        json!({ "count": 3, "nodeLabels": { "a": "b" } }),
    ] {
        let answer = stamp.ask("PUT", POOL, json!({ "properties": properties })).await;
        assert_eq!(answer.status, 200, "{:#}", answer.body);
        assert_eq!(wanted(&stamp).await, (true, 0), "silence leaves it as it is");
    }
    let image = stamp
        .ask("POST", &format!("{POOL}/upgradeNodeImageVersion"), Value::Null)
        .await;
    assert_eq!(image.status, 202);
    // The cluster as a whole, without a word about it, and with what was read of it.
    let body = json!({ "location": "local", "properties": { "agentPoolProfiles": [{ "name": "np2" }] } });
    assert_eq!(stamp.ask("PUT", C, body).await.status, 200);
    assert_eq!(wanted(&stamp).await, (true, 0));
    turn(&stamp, POOL, "Running").await;
    assert_eq!(wanted(&stamp).await, (false, 3));
}

#[tokio::test(start_paused = true)]
async fn a_system_pool_is_not_stopped() {
    let stamp = standing().await;
    let before = stamp.record("c").await.unwrap();
    let refused = turn(&stamp, SYSTEM, "Stopped").await;
    assert_eq!((refused.status, refused.code()), (400, "OperationNotAllowed"));
    assert_eq!(refused.body["error"]["target"], "properties.powerState.code");
    assert_eq!(stamp.record("c").await.unwrap(), before);
    turn(&stamp, POOL, "Stopped").await;
    let system = json!({ "properties": { "mode": "System" } });
    let refused = stamp.ask("PUT", POOL, system).await;
    assert_eq!((refused.status, refused.code()), (400, "OperationNotAllowed"));
}

#[tokio::test(start_paused = true)]
async fn an_abort_starts_it_again() {
    let stamp = standing().await;
    turn(&stamp, POOL, "Stopped").await;
    let abort = stamp.ask("POST", &format!("{POOL}/abort"), Value::Null).await;
    assert_eq!(abort.status, 202, "{:#}", abort.body);
    assert_eq!(wanted(&stamp).await, (false, 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_read_of_a_cluster_that_starts_stops_no_pool() {
    let stamp = standing().await;
    stamp.ask("POST", &format!("{C}/stop"), Value::Null).await;
    stamp.reach("c").await;
    stamp.ask("POST", &format!("{C}/start"), Value::Null).await;
    for pool in [SYSTEM, POOL] {
        let read = stamp.get(pool).await.body["properties"].clone();
        assert_eq!(read["powerState"]["code"], "Stopped", "{pool}");
        let answer = stamp.ask("PUT", pool, json!({ "properties": read })).await;
        assert_eq!(answer.status, 200, "{:#}", answer.body);
    }
    assert_eq!(wanted(&stamp).await, (false, 2));
    // One that was stopped alone stays so through a stop and a start of all.
    stamp.reach("c").await;
    turn(&stamp, POOL, "Stopped").await;
    stamp.reach("c").await;
    stamp.ask("POST", &format!("{C}/stop"), Value::Null).await;
    stamp.reach("c").await;
    stamp.ask("POST", &format!("{C}/start"), Value::Null).await;
    stamp.reach("c").await;
    assert_eq!(shown(&stamp).await, said("Succeeded", "Stopped", 2));
}
