//! `stop` and `start`: their responses, refusals meanwhile, and their order.
#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

use control_records::{OperationRecord, OperationStatus, Part, directory};
use serde_json::{Value, json};

use crate::stamp::{Answer, Stamp, least, sent_back};

const C: &str = "managedClusters/c";
const POOL: &str = "managedClusters/c/agentPools/nodepool1";

impl Stamp {
    async fn power(&self, action: &str) -> Answer {
        self.ask("POST", &format!("{C}/{action}"), Value::Null).await
    }

    /// provisioningState and powerState of the cluster, powerState of its pool.
    async fn states(&self) -> [String; 3] {
        let cluster = self.get(C).await.body["properties"].clone();
        let pool = self.get(POOL).await.body["properties"]["powerState"].clone();
        assert_eq!(cluster["agentPoolProfiles"][0]["powerState"], pool);
        [
            &cluster["provisioningState"],
            &cluster["powerState"]["code"],
            &pool["code"],
        ]
        .map(|text| text.as_str().unwrap().to_owned())
    }
}

async fn standing() -> Stamp {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    stamp.reach("c").await;
    stamp
}

async fn operation(stamp: &Stamp, answer: &Answer) -> OperationRecord {
    let url = answer.header("location").expect("an operation");
    let id = url.split('?').next().unwrap().rsplit('/').next().unwrap();
    let found = directory::operation(&*stamp.store, id).await.unwrap();
    found.unwrap().value
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_stopped_and_started() {
    let stamp = standing().await;
    let before = stamp.record("c").await.unwrap();
    assert_eq!(stamp.states().await, ["Succeeded", "Running", "Running"]);
    let stop = stamp.power("stop").await;
    assert_eq!(stop.status, 202);
    assert!(stop.header("retry-after").is_some() && stop.header("azure-asyncoperation").is_some());
    assert_eq!(operation(&stamp, &stop).await.name, "ManagedClusters_Stop");
    assert_eq!(stamp.states().await, ["Stopping", "Running", "Running"]);
    stamp.reach("c").await;
    assert_eq!(stamp.states().await, ["Succeeded", "Stopped", "Stopped"]);
    let start = stamp.power("start").await;
    assert_eq!(start.status, 202);
    assert_eq!(operation(&stamp, &start).await.name, "ManagedClusters_Start");
    assert_eq!(stamp.states().await, ["Starting", "Stopped", "Stopped"]);
    stamp.reach("c").await;
    assert_eq!(stamp.states().await, ["Succeeded", "Running", "Running"]);
    let after = stamp.record("c").await.unwrap();
    let after = after.state.with(|body, _| {
        body["eTag"] = before.body()["eTag"].clone();
        body["properties"]["agentPoolProfiles"][0]["eTag"] =
            before.body()["properties"]["agentPoolProfiles"][0]["eTag"].clone();
    });
    assert_eq!(after.unwrap(), before.state, "nothing is left of it");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_runs_once_its_start_has_ended_whatever_else_goes_on() {
    let stamp = standing().await;
    stamp.power("stop").await;
    stamp.reach("c").await;
    let start = operation(&stamp, &stamp.power("start").await).await;
    // A start ends when all nodes report; a member may still be reconfigured by then.
    stamp
        .observe("c", |observed| {
            observed.stopped = false;
            observed.reached.insert(Part::Base, start.generation);
            observed.reached.insert(Part::pool("nodepool1"), start.generation);
        })
        .await;
    let ended = OperationRecord {
        status: OperationStatus::Succeeded,
        ..start
    };
    stamp.write(control_store::put_record(ended.key(), &ended)).await;
    assert_eq!(stamp.states().await[1..], ["Running", "Running"]);
    assert_eq!(stamp.power("start").await.status, 204);
    // The next request does not change that.
    stamp.ask("PATCH", C, json!({ "tags": { "a": "b" } })).await;
    assert_eq!(stamp.states().await[1..], ["Running", "Running"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_so_already_is_done_and_what_is_under_way_is_one_operation() {
    let stamp = standing().await;
    assert_eq!(stamp.power("start").await.status, 204);
    let first = stamp.power("stop").await;
    let second = stamp.power("stop").await;
    assert_eq!(second.status, 202);
    assert_eq!(first.header("location"), second.header("location"));
    stamp.reach("c").await;
    let generation = stamp.record("c").await.unwrap().generation;
    assert_eq!(stamp.power("stop").await.status, 204);
    assert_eq!(stamp.record("c").await.unwrap().generation, generation);
    // A start that timed out is requested again.
    let start = operation(&stamp, &stamp.power("start").await).await;
    let failed = OperationRecord {
        status: OperationStatus::Failed,
        ..start.clone()
    };
    stamp
        .write(control_store::put_record(failed.key(), &failed))
        .await;
    assert_eq!(stamp.states().await, ["Failed", "Stopped", "Stopped"]);
    let again = operation(&stamp, &stamp.power("start").await).await;
    assert_ne!(again.id, start.id);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_cluster_is_not_changed() {
    let stamp = standing().await;
    let shown = stamp.get(C).await.body;
    for reached in [false, true] {
        if reached {
            stamp.reach("c").await;
        } else {
            stamp.power("stop").await;
        }
        for (method, path, body) in [
            ("PUT", C, sent_back(&shown)),
            ("PATCH", C, json!({ "tags": { "a": "b" } })),
            ("PUT", POOL, json!({ "properties": { "count": 2 } })),
            (
                "PUT",
                "managedClusters/c/agentPools/np2",
                json!({ "properties": { "count": 2 } }),
            ),
            ("DELETE", POOL, Value::Null),
        ] {
            let answer = stamp.ask(method, path, body).await;
            assert_eq!(
                (answer.status, answer.code()),
                (400, "OperationNotAllowed"),
                "{method} {path}"
            );
            for part in ["'c'", "stopped", "az aks start"] {
                assert!(answer.message().contains(part), "{part}: {}", answer.message());
            }
        }
    }
    // Changes that do not concern its machines are accepted, and it can be deleted.
    let credential = stamp
        .ask("POST", &format!("{C}/listClusterAdminCredential"), Value::Null)
        .await;
    assert_eq!(credential.status, 200, "{}", credential.body);
    let window = json!({ "properties": { "timeInWeek": [{ "day": "Monday", "hourSlots": [1] }] } });
    let path = format!("{C}/maintenanceConfigurations/default");
    assert_eq!(stamp.ask("PUT", &path, window).await.status, 201);
    assert_eq!(stamp.ask("DELETE", C, Value::Null).await.status, 202);
    assert_eq!(stamp.states().await, ["Deleting", "Stopped", "Stopped"]);
    for action in ["stop", "start"] {
        let answer = stamp.power(action).await;
        assert_eq!((answer.status, answer.code()), (409, "Conflict"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_wish_wins_and_an_abort_goes_back() {
    let stamp = standing().await;
    let scale = stamp
        .ask("PUT", POOL, json!({ "properties": { "count": 3 } }))
        .await;
    let stop = operation(&stamp, &stamp.power("stop").await).await;
    let url = scale.header("azure-asyncoperation").unwrap();
    let id = url.split('?').next().unwrap().rsplit('/').next().unwrap();
    let scale = directory::operation(&*stamp.store, id)
        .await
        .unwrap()
        .unwrap()
        .value;
    assert_eq!(
        scale.status,
        OperationStatus::Canceled,
        "its nodes do not come now"
    );
    assert_eq!(scale.error.unwrap().code, "AKSOperationPreempted");
    let start = operation(&stamp, &stamp.power("start").await).await;
    let overtaken = directory::operation(&*stamp.store, &stop.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(overtaken.value.status, OperationStatus::Canceled);
    assert_eq!(start.status, OperationStatus::InProgress);
    stamp.reach("c").await;
    assert_eq!(
        stamp.record("c").await.unwrap().spec().pools[0].count,
        3,
        "what was asked for stays"
    );

    stamp.power("stop").await;
    assert_eq!(
        stamp.ask("POST", &format!("{C}/abort"), Value::Null).await.status,
        202
    );
    let record = stamp.record("c").await.unwrap();
    assert!(!record.spec().stopped && record.body()["properties"]["powerState"].is_null());
    stamp.reach("c").await;
    assert_eq!(stamp.states().await, ["Canceled", "Running", "Running"]);

    stamp.power("stop").await;
    stamp.reach("c").await;
    stamp.power("start").await;
    assert_eq!(
        stamp.ask("POST", &format!("{C}/abort"), Value::Null).await.status,
        202
    );
    stamp.reach("c").await;
    assert_eq!(stamp.states().await, ["Canceled", "Stopped", "Stopped"]);
    assert_eq!(stamp.power("start").await.status, 202);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_stopped_before_it_ever_was() {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    assert_eq!(stamp.power("stop").await.status, 202);
    assert_eq!(stamp.states().await, ["Creating", "Running", "Running"]);
    stamp.reach("c").await;
    assert_eq!(stamp.states().await, ["Succeeded", "Stopped", "Stopped"]);
}

#[tokio::test(start_paused = true)]
async fn a_preview_stops_nothing() {
    let stamp = standing().await;
    let before = stamp.record("c").await.unwrap();
    let answer = stamp.preview("POST", &format!("{C}/stop"), Value::Null).await;
    assert_eq!(answer.status, 202);
    assert_eq!(stamp.record("c").await.unwrap(), before);
}
