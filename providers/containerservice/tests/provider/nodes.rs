//! Deleting nodes by name, and reimaging nodes with the newest node image.

use serde_json::{Value, json};

use crate::stamp::{Answer, Stamp};

const POOL: &str = "managedClusters/c/agentPools/np2";

/// A cluster with a system pool of one node and a user pool of three.
async fn stamp() -> Stamp {
    let stamp = Stamp::new().await;
    let pools = json!([{ "name": "np1", "mode": "System", "count": 1 }, { "name": "np2", "count": 3 }]);
    stamp
        .create(
            "c",
            json!({ "location": "local", "properties": { "agentPoolProfiles": pools } }),
        )
        .await;
    let uid = stamp.record("c").await.unwrap().uid;
    stamp.add_node(&uid, "s0", "np1", 0).await;
    for index in 0..3 {
        stamp.add_node(&uid, &format!("m{index}"), "np2", index).await;
    }
    stamp
}

fn name(pool: &str, index: u32) -> String {
    format!("aks-{pool}-12345678-vmss00000{index}")
}

async fn delete(stamp: &Stamp, pool: &str, names: Value) -> Answer {
    let path = format!("managedClusters/c/agentPools/{pool}/deleteMachines");
    stamp.ask("POST", &path, json!({ "machineNames": names })).await
}

async fn pool(stamp: &Stamp) -> (u32, Vec<String>) {
    let spec = stamp.record("c").await.unwrap().spec().pools[1].clone();
    (spec.count, spec.removed.into_iter().collect())
}

#[tokio::test(start_paused = true)]
async fn nodes_go_by_name() {
    let stamp = stamp().await;
    let answer = delete(&stamp, "np2", json!([name("np2", 1), name("np2", 1)])).await;
    assert_eq!(answer.status, 202, "{:#}", answer.body);
    assert!(answer.header("azure-asyncoperation").is_some() && answer.header("location").is_some());
    assert_eq!(pool(&stamp).await, (2, vec!["m1".to_owned()]));
    // A repeated request gives the same operation, and no other node is deleted.
    let again = delete(&stamp, "np2", json!([name("np2", 1).to_uppercase()])).await;
    assert_eq!(again.status, 202);
    assert_eq!(
        again.header("azure-asyncoperation"),
        answer.header("azure-asyncoperation")
    );
    assert_eq!(pool(&stamp).await, (2, vec!["m1".to_owned()]));
    // All nodes of a user pool.
    assert_eq!(
        delete(&stamp, "np2", json!([name("np2", 0), name("np2", 2)]))
            .await
            .status,
        202
    );
    assert_eq!(
        pool(&stamp).await,
        (0, vec!["m0".to_owned(), "m1".to_owned(), "m2".to_owned()])
    );
    // Scaling keeps them; a request after their deletion removes them from the record.
    assert_eq!(
        stamp
            .ask("PUT", POOL, json!({ "properties": { "count": 2 } }))
            .await
            .status,
        200
    );
    assert_eq!(pool(&stamp).await.1.len(), 3);
    let uid = stamp.record("c").await.unwrap().uid;
    for machine in ["m0", "m1", "m2"] {
        stamp
            .write(control_store::Op::Delete(control_records::key::machine(
                &uid, machine,
            )))
            .await;
    }
    stamp.add_node(&uid, "m3", "np2", 0).await;
    assert_eq!(delete(&stamp, "np2", json!([name("np2", 0)])).await.status, 202);
    assert_eq!(pool(&stamp).await, (1, vec!["m3".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_node_of_the_pool_is_named() {
    let stamp = stamp().await;
    let before = stamp.record("c").await.unwrap();
    let wrong = json!([name("np2", 0), name("np1", 0), 7, "x"]);
    let refused = delete(&stamp, "np2", wrong).await;
    assert_eq!(refused.status, 400);
    let details = refused.body["error"]["details"].as_array().unwrap();
    let targets: Vec<&str> = details
        .iter()
        .map(|detail| detail["target"].as_str().unwrap())
        .collect();
    assert_eq!(targets, ["machineNames[1]", "machineNames[2]", "machineNames[3]"]);
    for body in [
        json!({}),
        json!({ "machineNames": [] }),
        json!({ "machineNames": "x" }),
        json!([]),
    ] {
        let refused = stamp
            .ask("POST", &format!("{POOL}/deleteMachines"), body.clone())
            .await;
        assert_eq!(refused.status, 400, "{body}");
    }
    let last = delete(&stamp, "np1", json!([name("np1", 0)])).await;
    assert_eq!(
        (last.status, last.code()),
        (400, "OperationNotAllowed"),
        "{:#}",
        last.body
    );
    assert_eq!(
        delete(&stamp, "nothere", json!([name("np1", 0)])).await.status,
        404
    );
    assert_eq!(stamp.record("c").await.unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn nodes_of_the_newest_image_are_those_that_are_made_from_now_on() {
    let stamp = stamp().await;
    let asked = stamp.env.clock.now().as_millisecond();
    let answer = stamp
        .ask("POST", &format!("{POOL}/upgradeNodeImageVersion"), Value::Null)
        .await;
    assert_eq!(answer.status, 202, "{:#}", answer.body);
    let record = stamp.record("c").await.unwrap();
    assert_eq!(record.spec().pools[1].renewed, Some(asked));
    assert_eq!(record.spec().pools[0].renewed, None);
    assert_eq!(record.pool_generations["np2"], 2);
    // A later request does not revert it.
    assert_eq!(
        stamp
            .ask("PUT", POOL, json!({ "properties": { "count": 2 } }))
            .await
            .status,
        200
    );
    assert_eq!(
        stamp.record("c").await.unwrap().spec().pools[1].renewed,
        Some(asked)
    );
}
