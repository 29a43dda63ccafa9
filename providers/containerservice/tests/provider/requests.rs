//! Requests during the work of an earlier one: they queue and merge, the last request wins, an abort reverts.
#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

use arm_kernel::{AccessControl, Call, Provider as _, routes};
use control_records::{EventKind, OperationError, OperationRecord, OperationStatus, Part, directory, events};
use control_store::put_record;
use providers_containerservice::HistoryApi;
use serde_json::{Value, json};

use crate::stamp::{SUBSCRIPTION, Stamp, least};

const C: &str = "managedClusters/c";
const POOL: &str = "managedClusters/c/agentPools/nodepool1";
const NP2: &str = "managedClusters/c/agentPools/np2";

fn count(count: u32) -> Value {
    json!({ "properties": { "count": count } })
}

/// The id of the operation that a response names.
fn id(answer: &crate::stamp::Answer) -> String {
    let url = answer.header("azure-asyncoperation").expect("an operation");
    let path = url.split('?').next().unwrap();
    path.rsplit('/').next().unwrap().to_owned()
}

async fn operation(stamp: &Stamp, id: &str) -> OperationRecord {
    directory::operation(&*stamp.store, id)
        .await
        .unwrap()
        .unwrap()
        .value
}

/// The end of an operation, as the loop would write it.
async fn end(stamp: &Stamp, id: &str, status: OperationStatus) {
    let mut record = operation(stamp, id).await;
    record.status = status;
    record.ended_at = Some(stamp.env.clock.now());
    record.error = (status == OperationStatus::Failed).then(|| OperationError {
        code: "OperationTimedOut".to_owned(),
        message: "kubelet on machine m keeps ending".to_owned(),
    });
    stamp.write(put_record(record.key(), &record)).await;
}

async fn state(stamp: &Stamp, path: &str) -> String {
    let answer = stamp.get(path).await;
    let state = &answer.body["properties"]["provisioningState"];
    state
        .as_str()
        .unwrap_or_else(|| panic!("{path}: {}", answer.body))
        .to_owned()
}

async fn counts(stamp: &Stamp) -> Vec<(String, u32)> {
    let pools = stamp.record("c").await.unwrap().spec().pools.clone();
    pools.into_iter().map(|pool| (pool.name, pool.count)).collect()
}

/// A cluster of two pools in its desired state, without operations.
async fn with_two_pools() -> Stamp {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    stamp.ask("PUT", NP2, count(1)).await;
    stamp.reach("c").await;
    for operation in stamp.operations().await {
        end(&stamp, &operation.id, OperationStatus::Succeeded).await;
    }
    stamp
}

async fn told(stamp: &Stamp) -> Vec<(EventKind, String)> {
    let uid = stamp.record("c").await.unwrap().uid;
    let history = events::history(&*stamp.store, &uid, stamp.env.clock.now())
        .await
        .unwrap();
    history
        .into_iter()
        .map(|(_, record)| (record.event.kind, record.event.message))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_requests_that_nobody_waits_for_is_accepted_as_a_whole() {
    let stamp = Stamp::new().await;
    let create = id(&stamp.ask("PUT", C, least()).await);
    let add = stamp.ask("PUT", NP2, count(2)).await;
    assert_eq!(add.status, 201);
    let scale = stamp.ask("PUT", POOL, count(3)).await;
    assert_eq!(scale.status, 200);
    let tags = stamp.ask("PATCH", C, json!({ "tags": { "a": "b" } })).await;
    assert_eq!(tags.status, 200);
    let record = stamp.record("c").await.unwrap();
    assert_eq!(record.generation, 4);
    assert_eq!(
        counts(&stamp).await,
        [("nodepool1".to_owned(), 3), ("np2".to_owned(), 2)]
    );
    for running in [&create, &id(&add), &id(&scale), &id(&tags)] {
        assert_eq!(
            operation(&stamp, running).await.status,
            OperationStatus::InProgress
        );
        assert!(record.requests.running.contains(running));
    }
    assert_eq!(state(&stamp, C).await, "Creating");
    assert_eq!(state(&stamp, NP2).await, "Creating");

    let delete = stamp.ask("DELETE", C, Value::Null).await;
    assert_eq!(delete.status, 202);
    for overtaken in [&create, &id(&add), &id(&scale), &id(&tags)] {
        let overtaken = operation(&stamp, overtaken).await;
        assert_eq!(overtaken.status, OperationStatus::Canceled);
        let error = overtaken.error.unwrap();
        assert_eq!(error.code, "AKSOperationPreemptedByDelete");
        assert!(error.message.contains(&id(&delete)), "{}", error.message);
    }
    assert_eq!(stamp.record("c").await.unwrap().requests.running, [id(&delete)]);
    // A PUT during a deletion cannot be merged with it: the error names the operation to wait for.
    let again = stamp.ask("PUT", C, least()).await;
    assert_eq!((again.status, again.code()), (409, "Conflict"));
    let message = again.message();
    assert!(
        message.contains(&id(&delete)) && message.contains("az aks wait --deleted"),
        "{message}"
    );
    assert_eq!(state(&stamp, C).await, "Deleting");
}

#[tokio::test(start_paused = true)]
async fn a_later_wish_about_the_same_thing_ends_the_earlier_one_and_nothing_else() {
    let stamp = with_two_pools().await;
    let three = id(&stamp.ask("PUT", POOL, count(3)).await);
    let other = id(&stamp.ask("PUT", NP2, count(2)).await);
    let same = id(&stamp.ask("PUT", POOL, count(3)).await);
    for running in [&three, &other, &same] {
        assert_eq!(
            operation(&stamp, running).await.status,
            OperationStatus::InProgress,
            "the same request again takes nobody's place"
        );
    }
    let five = id(&stamp.ask("PUT", POOL, count(5)).await);
    for overtaken in [&three, &same] {
        let overtaken = operation(&stamp, overtaken).await;
        assert_eq!(overtaken.status, OperationStatus::Canceled);
        let error = overtaken.error.unwrap();
        assert_eq!(error.code, "AKSOperationPreempted");
        assert!(error.message.contains(&five), "{}", error.message);
    }
    assert_eq!(
        operation(&stamp, &other).await.status,
        OperationStatus::InProgress
    );
    // `az aks scale` sends the whole cluster.
    let mut body = crate::stamp::sent_back(&stamp.get(C).await.body);
    body["properties"]["agentPoolProfiles"][0]["count"] = json!(2);
    let whole = id(&stamp.ask("PUT", C, body.clone()).await);
    assert_eq!(operation(&stamp, &five).await.status, OperationStatus::Canceled);
    assert_eq!(
        operation(&stamp, &other).await.status,
        OperationStatus::InProgress
    );
    body["properties"]["agentPoolProfiles"][0]["count"] = json!(4);
    stamp.ask("PUT", C, body).await;
    assert_eq!(operation(&stamp, &whole).await.status, OperationStatus::Canceled);
    assert_eq!(
        counts(&stamp).await,
        [("nodepool1".to_owned(), 4), ("np2".to_owned(), 2)]
    );
    let told = told(&stamp).await;
    assert!(
        told.iter()
            .any(|(kind, text)| *kind == EventKind::Accepted && text.contains("nodepool1 from 3 to 5 nodes")),
        "{told:?}"
    );
    let superseded = told.iter().filter(|(kind, _)| *kind == EventKind::Superseded);
    assert_eq!(superseded.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_creation_is_overtaken_by_a_deletion_only() {
    let stamp = Stamp::new().await;
    let create = id(&stamp.ask("PUT", C, least()).await);
    let add = id(&stamp.ask("PUT", NP2, count(1)).await);
    stamp
        .ask(
            "PUT",
            C,
            json!({ "location": "local", "sku": { "name": "Base", "tier": "Standard" } }),
        )
        .await;
    stamp.ask("PUT", POOL, count(4)).await;
    stamp.ask("PUT", NP2, count(7)).await;
    for running in [&create, &add] {
        assert_eq!(
            operation(&stamp, running).await.status,
            OperationStatus::InProgress
        );
    }
    stamp.ask("DELETE", NP2, Value::Null).await;
    let overtaken = operation(&stamp, &add).await;
    assert_eq!(overtaken.error.unwrap().code, "AKSOperationPreemptedByDelete");
    assert_eq!(
        operation(&stamp, &create).await.status,
        OperationStatus::InProgress
    );
}

#[tokio::test(start_paused = true)]
async fn preconditions_hold_while_something_runs() {
    let stamp = Stamp::new().await;
    let tag = stamp.create("c", least()).await["eTag"]
        .as_str()
        .unwrap()
        .to_owned();
    let with = |tag: &str, path: &str, body: Value| {
        let mut request = stamp.request("PUT", path, body);
        request.if_match = Some(tag.to_owned());
        request
    };
    assert_eq!(stamp.send(with(&tag, C, least())).await.status, 200);
    let stale = stamp.send(with(&tag, C, least())).await;
    assert_eq!((stale.status, stale.code()), (412, "PreconditionFailed"));
    let pool_tag = stamp.get(POOL).await.body["properties"]["eTag"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(stamp.send(with(&pool_tag, POOL, count(2))).await.status, 200);
    assert_eq!(stamp.send(with(&pool_tag, POOL, count(3))).await.status, 412);
    assert_eq!(
        counts(&stamp).await,
        [("nodepool1".to_owned(), 2)],
        "refused means not done"
    );
}

#[tokio::test(start_paused = true)]
async fn an_abort_returns_to_what_was_reached_last() {
    let stamp = Stamp::new().await;
    let body = json!({ "location": "local", "properties": {
        "agentPoolProfiles": [{ "name": "nodepool1", "mode": "System", "count": 2 }, { "name": "np2", "mode": "User", "count": 1 }] } });
    let created = stamp.ask("PUT", C, body).await;
    stamp.reach("c").await;
    end(&stamp, &id(&created), OperationStatus::Succeeded).await;
    let nothing = stamp.ask("POST", "managedClusters/c/abort", Value::Null).await;
    assert_eq!((nothing.status, nothing.code()), (409, "Conflict"));
    assert!(nothing.message().contains("ended already"));

    let scale = id(&stamp.ask("PUT", POOL, count(5)).await);
    let add = id(&stamp
        .ask("PUT", "managedClusters/c/agentPools/new", count(3))
        .await);
    let tags = id(&stamp.ask("PATCH", C, json!({ "tags": { "a": "b" } })).await);
    // One pool is complete before the abort: it stays.
    let grown = id(&stamp.ask("PUT", NP2, count(2)).await);
    let generation = stamp.record("c").await.unwrap().generation;
    stamp
        .observe("c", |observed| {
            observed.reached.insert(Part::pool("np2"), generation);
        })
        .await;
    end(&stamp, &grown, OperationStatus::Succeeded).await;
    let remove = id(&stamp.ask("DELETE", NP2, Value::Null).await);

    let answer = stamp.ask("POST", "managedClusters/c/abort", Value::Null).await;
    assert_eq!(answer.status, 202);
    assert!(answer.header("location").is_some() && answer.header("retry-after") == Some("1"));
    for aborted in [&scale, &add, &tags] {
        let aborted = operation(&stamp, aborted).await;
        assert_eq!(aborted.status, OperationStatus::Canceled);
        assert_eq!(aborted.error.unwrap().code, "OperationCanceled");
    }
    assert_eq!(
        operation(&stamp, &remove).await.status,
        OperationStatus::InProgress,
        "a deletion cannot be taken back"
    );
    assert_eq!(
        counts(&stamp).await,
        [("nodepool1".to_owned(), 2), ("new".to_owned(), 0)],
        "back to two; what is new stays visible without nodes; what is deleted stays deleted"
    );
    let record = stamp.record("c").await.unwrap();
    assert_eq!(record.body()["tags"], json!({}));
    assert_eq!(state(&stamp, C).await, "Canceling");
    assert_eq!(state(&stamp, POOL).await, "Canceling");
    assert_eq!(
        state(&stamp, "managedClusters/c/agentPools/new").await,
        "Canceling"
    );
    assert_eq!(state(&stamp, NP2).await, "Deleting");
    stamp.reach("c").await;
    end(&stamp, &id(&answer), OperationStatus::Succeeded).await;
    assert_eq!(state(&stamp, C).await, "Canceled");
    assert_eq!(state(&stamp, POOL).await, "Canceled");

    let twice = stamp.ask("POST", "managedClusters/c/abort", Value::Null).await;
    assert_eq!(twice.status, 409, "an abort is not aborted");
    // Until the next change of each.
    assert_eq!(stamp.ask("PUT", POOL, count(3)).await.status, 200);
    assert_eq!(state(&stamp, C).await, "Updating");
    assert_eq!(state(&stamp, POOL).await, "Updating");
    assert_eq!(
        state(&stamp, "managedClusters/c/agentPools/new").await,
        "Canceled"
    );
    stamp.reach("c").await;
    assert_eq!(state(&stamp, C).await, "Succeeded");
    let aborted = told(&stamp).await;
    assert_eq!(
        aborted
            .iter()
            .filter(|(kind, _)| *kind == EventKind::Aborted)
            .count(),
        3
    );
}

#[tokio::test(start_paused = true)]
async fn an_aborted_creation_stays_visible_and_the_next_put_works() {
    let stamp = Stamp::new().await;
    let create = id(&stamp.ask("PUT", C, least()).await);
    let uid = stamp.record("c").await.unwrap().uid;
    let abort = stamp.ask("POST", "managedClusters/c/abort", Value::Null).await;
    assert_eq!(abort.status, 202);
    assert_eq!(operation(&stamp, &create).await.status, OperationStatus::Canceled);
    let record = stamp.record("c").await.unwrap();
    assert!(record.requests.halted && !record.deleting);
    assert_eq!(state(&stamp, C).await, "Canceling");
    stamp.reach("c").await;
    assert_eq!(state(&stamp, C).await, "Canceled");
    assert_eq!(state(&stamp, POOL).await, "Canceled");
    let listed = stamp.get("managedClusters").await.body;
    assert_eq!(listed["value"][0]["name"], "c");

    let again = stamp.ask("PUT", C, least()).await;
    assert_eq!(again.status, 200);
    assert_eq!(again.body["properties"]["provisioningState"], "Creating");
    let record = stamp.record("c").await.unwrap();
    assert!(!record.requests.halted && record.uid == uid);
    assert!(
        record.requests.reached.is_none(),
        "an emptied cluster is nothing to return to"
    );
    stamp.reach("c").await;
    assert_eq!(state(&stamp, C).await, "Succeeded");
    assert_eq!(state(&stamp, POOL).await, "Succeeded");

    // And aborted once more: an existing cluster is not emptied.
    stamp.ask("PUT", POOL, count(9)).await;
    assert_eq!(
        stamp
            .ask("POST", "managedClusters/c/abort", Value::Null)
            .await
            .status,
        202
    );
    assert!(!stamp.record("c").await.unwrap().requests.halted);
}

#[tokio::test(start_paused = true)]
async fn the_abort_of_a_pool_leaves_the_others_alone() {
    let stamp = with_two_pools().await;
    let abort = "managedClusters/c/agentPools/nodepool1/abort";
    assert_eq!(stamp.ask("POST", abort, Value::Null).await.status, 409);
    let scale = id(&stamp.ask("PUT", POOL, count(8)).await);
    let other = id(&stamp.ask("PUT", NP2, count(4)).await);
    let before = stamp.record("c").await.unwrap();
    let first = before.requests.reached.as_ref().unwrap().state.spec().pools[0].count;
    assert_eq!(stamp.ask("POST", abort, Value::Null).await.status, 202);
    assert_eq!(operation(&stamp, &scale).await.status, OperationStatus::Canceled);
    assert_eq!(
        operation(&stamp, &other).await.status,
        OperationStatus::InProgress
    );
    assert_eq!(
        counts(&stamp).await,
        [("nodepool1".to_owned(), first), ("np2".to_owned(), 4)]
    );
    assert_eq!(state(&stamp, POOL).await, "Canceling");
    assert_eq!(state(&stamp, NP2).await, "Updating");
    stamp.reach("c").await;
    assert_eq!(state(&stamp, POOL).await, "Canceled");
    assert_eq!(state(&stamp, C).await, "Succeeded");
    assert_eq!(
        stamp
            .ask("POST", "managedClusters/c/agentPools/none/abort", Value::Null)
            .await
            .status,
        404
    );
    let deleting = stamp.ask("DELETE", C, Value::Null).await;
    assert_eq!(deleting.status, 202);
    let refused = stamp.ask("POST", "managedClusters/c/abort", Value::Null).await;
    assert_eq!(refused.status, 409);
    assert!(refused.message().contains("cannot be taken back"));
}

#[tokio::test(start_paused = true)]
async fn a_failed_operation_blocks_nothing() {
    let stamp = Stamp::new().await;
    let create = stamp.ask("PUT", C, least()).await;
    end(&stamp, &id(&create), OperationStatus::Failed).await;
    let failed = stamp.get(C).await.body;
    assert_eq!(failed["properties"]["provisioningState"], "Failed");
    let told = &failed["properties"]["status"]["provisioningError"];
    assert_eq!(told["code"], "OperationTimedOut");
    assert!(told["message"].as_str().unwrap().contains("kubelet on machine m"));

    // Each kind of request is accepted, one after the other failing.
    for (method, path, body, status) in [
        ("PUT", C, least(), 200),
        ("PATCH", C, json!({ "tags": {} }), 200),
        ("PUT", POOL, count(2), 200),
        ("PUT", NP2, count(1), 201),
        ("PUT", NP2, count(2), 200),
        ("DELETE", NP2, Value::Null, 202),
    ] {
        let answer = stamp.ask(method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        let state = state(&stamp, C).await;
        assert_eq!(state, "Creating", "{method} {path}");
        end(&stamp, &id(&answer), OperationStatus::Failed).await;
    }
    // The pool's own failure is shown at the pool, and ends with the cluster's next success.
    assert_eq!(state(&stamp, POOL).await, "Failed");
    assert_eq!(state(&stamp, NP2).await, "Failed");
    let next = stamp.ask("PUT", POOL, count(3)).await;
    assert_eq!(state(&stamp, POOL).await, "Creating");
    stamp.reach("c").await;
    assert_eq!(state(&stamp, C).await, "Succeeded");
    assert_eq!(state(&stamp, POOL).await, "Succeeded");
    assert_eq!(stamp.get(NP2).await.status, 404);
    // A failure that ends without any request.
    end(&stamp, &id(&next), OperationStatus::Failed).await;
    assert_eq!(state(&stamp, C).await, "Succeeded");
    // A failed deletion can be repeated.
    let delete = stamp.ask("DELETE", C, Value::Null).await;
    end(&stamp, &id(&delete), OperationStatus::Failed).await;
    assert_eq!(state(&stamp, C).await, "Failed");
    let again = stamp.ask("DELETE", C, Value::Null).await;
    assert_eq!(again.status, 202);
    assert_ne!(id(&again), id(&delete));
    assert_eq!(state(&stamp, C).await, "Deleting");
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_requests_keeps_the_record_small() {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    for _ in 0..100 {
        assert_eq!(stamp.ask("PATCH", C, json!({ "tags": {} })).await.status, 200);
    }
    let record = stamp.record("c").await.unwrap();
    assert!(
        record.requests.running.len() <= 64,
        "{}",
        record.requests.running.len()
    );
    let running = stamp.operations().await;
    let running = running
        .iter()
        .filter(|operation| operation.status == OperationStatus::InProgress);
    assert_eq!(running.count(), record.requests.running.len());
    assert!(told(&stamp).await.len() <= events::KEPT);
}

#[tokio::test(start_paused = true)]
async fn operations_and_events_are_told_in_a_namespace_of_our_own() {
    let stamp = Stamp::new().await;
    let own = HistoryApi::new(stamp.env.clone(), stamp.store.clone());
    let ask = async |path: &str, name: &str| {
        let full = format!("/subscriptions/{SUBSCRIPTION}{path}");
        let route = routes::<HistoryApi>()
            .into_iter()
            .find(|route| route.name == name)
            .unwrap();
        let call = Call::new(
            stamp.request("GET", &full, Value::Null),
            AccessControl::allow_all(),
        );
        match own.handle(&route, &call).await {
            Ok(response) => (200, response.body.unwrap()),
            Err(error) => (error.status().as_u16(), error.body()),
        }
    };
    const BASE: &str = "/providers/Landfall.ContainerService";
    let create = id(&stamp.ask("PUT", C, least()).await);
    stamp.create("other", least()).await;
    let scale = id(&stamp.ask("PUT", POOL, count(3)).await);
    end(&stamp, &create, OperationStatus::Succeeded).await;

    let (_, all) = ask(&format!("{BASE}/operations"), "Operations_List").await;
    assert_eq!(all["value"].as_array().unwrap().len(), 3);
    let (_, one) = ask(
        &format!("{BASE}/operations?cluster=C&active=true"),
        "Operations_List",
    )
    .await;
    assert_eq!(one["value"].as_array().unwrap().len(), 1);
    assert_eq!(one["value"][0]["id"], json!(scale));
    assert_eq!(one["value"][0]["pool"], "nodepool1");
    let (_, made) = ask(&format!("{BASE}/operations/{create}"), "Operations_Get").await;
    assert_eq!(
        (&made["status"], &made["percentComplete"]),
        (&json!("Succeeded"), &json!(100))
    );
    let (status, _) = ask(&format!("{BASE}/operations/none"), "Operations_Get").await;
    assert_eq!(status, 404);

    let events = format!("{BASE}/events?cluster=c&resourceGroup=RG1");
    let (_, told) = ask(&events, "Events_List").await;
    let told = told["value"].as_array().unwrap().clone();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0]["operation"], json!(create));
    assert_eq!(told[1]["subject"], "nodepool1");
    let after = told[0]["id"].as_str().unwrap();
    let (_, rest) = ask(&format!("{events}&after={after}"), "Events_List").await;
    assert_eq!(rest["value"], json!([told[1]]));
    let path = format!("/resourceGroups/rg1{BASE}/managedClusters/c/events");
    let (_, same) = ask(&path, "Events_ListByCluster").await;
    assert_eq!(same["value"], json!(told));
    let (status, _) = ask(&format!("{BASE}/events?cluster=nobody"), "Events_List").await;
    assert_eq!(status, 404);
}
