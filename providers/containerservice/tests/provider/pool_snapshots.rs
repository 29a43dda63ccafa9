//! Snapshots of agent pools: how they are taken, and what is made from them.

use std::sync::Arc;

use arm_ids::ResourcePath;
use arm_kernel::{AccessControl, Authorizer};
use arm_wire::{ArmError, Principal};
use async_trait::async_trait;
use cluster_versions::Offered;
use serde_json::{Value, json};

use crate::stamp::{Answer, NAMESPACE, SUBSCRIPTION, Stamp, names};

const C: &str = "managedClusters/c";
const SNAPSHOT: &str = "snapshots/today";
const SOURCE: &str = "properties.creationData.sourceResourceId";

fn id(path: &str) -> String {
    format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/{NAMESPACE}/{path}")
}

fn pool(name: &str) -> String {
    format!("{C}/agentPools/{name}")
}

/// A cluster of 1.37.1 with a system pool of that and a user pool of 1.36.3 on larger machines.
async fn standing() -> Stamp {
    let stamp = Stamp::new().await;
    let pools = json!([
        { "name": "np1", "mode": "System", "count": 1 },
        { "name": "np2", "count": 1, "orchestratorVersion": "1.36", "vmSize": "Standard_B4ms" },
    ]);
    let properties = json!({ "kubernetesVersion": "1.37.1", "agentPoolProfiles": pools });
    stamp
        .create("c", json!({ "location": "local", "properties": properties }))
        .await;
    stamp.reach("c").await;
    stamp
}

fn of(source: &str) -> Value {
    json!({ "location": "local", "properties": { "creationData": { "sourceResourceId": id(source) } } })
}

async fn take(stamp: &Stamp, name: &str, source: &str) -> Answer {
    stamp.ask("PUT", name, of(&pool(source))).await
}

/// The PUT of a pool that names a snapshot.
async fn from(stamp: &Stamp, name: &str, snapshot: &str, more: Value) -> Answer {
    let mut properties = json!({ "creationData": { "sourceResourceId": id(snapshot) } });
    properties
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    stamp
        .ask("PUT", &pool(name), json!({ "properties": properties }))
        .await
}

fn refused(answer: &Answer, code: &str, target: &str) {
    assert_eq!(
        (answer.code(), answer.body["error"]["target"].as_str()),
        (code, Some(target)),
        "{:#}",
        answer.body
    );
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_taken_tagged_listed_and_deleted() {
    let stamp = standing().await;
    let made = take(&stamp, SNAPSHOT, "np2").await;
    assert_eq!(made.status, 201, "{:#}", made.body);
    assert!(
        made.header("azure-asyncoperation").is_none(),
        "it is done at once"
    );
    assert_eq!(made.body["id"], json!(id(SNAPSHOT)));
    assert_eq!(
        made.body["properties"],
        json!({
            "creationData": { "sourceResourceId": id(&pool("np2")) },
            "snapshotType": "NodePool",
            "kubernetesVersion": "1.36.3",
            "nodeImageVersion": "AKSDebian-1.36.3",
            "osType": "Linux",
            "osSku": "Ubuntu",
            "vmSize": "Standard_B4ms",
            "enableFIPS": false,
        })
    );
    assert_eq!(stamp.get(SNAPSHOT).await.body, made.body);
    for list in [
        "snapshots".to_owned(),
        format!("/subscriptions/{SUBSCRIPTION}/providers/{NAMESPACE}/snapshots"),
    ] {
        assert_eq!(names(&stamp.get(&list).await.body), ["today"], "{list}");
    }
    let tagged = stamp
        .ask("PATCH", SNAPSHOT, json!({ "tags": { "a": "b" } }))
        .await;
    assert_eq!((tagged.status, &tagged.body["tags"]), (200, &json!({ "a": "b" })));
    // It stays what it was: of the pool as it is now, and once that is gone.
    let upgrade = json!({ "properties": { "orchestratorVersion": "1.37.1" } });
    assert_eq!(stamp.ask("PUT", &pool("np2"), upgrade).await.status, 200);
    let again = take(&stamp, "snapshots/TODAY", "np2").await;
    assert_eq!((again.status, &again.body["tags"]), (200, &json!({})));
    assert_eq!(again.body["properties"], made.body["properties"]);
    refused(
        &take(&stamp, SNAPSHOT, "np1").await,
        "PropertyChangeNotAllowed",
        SOURCE,
    );
    stamp.ask("DELETE", &pool("np2"), Value::Null).await;
    assert_eq!(take(&stamp, SNAPSHOT, "np2").await.status, 200);
    assert_eq!(stamp.ask("DELETE", SNAPSHOT, Value::Null).await.status, 200);
    assert_eq!(stamp.ask("DELETE", SNAPSHOT, Value::Null).await.status, 204);
    assert_eq!(stamp.get(SNAPSHOT).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_preview_takes_nothing() {
    let stamp = standing().await;
    let answer = stamp.preview("PUT", SNAPSHOT, of(&pool("np2"))).await;
    assert_eq!(answer.status, 201, "{:#}", answer.body);
    assert_eq!(stamp.get(SNAPSHOT).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn they_go_with_their_group() {
    let stamp = standing().await;
    take(&stamp, SNAPSHOT, "np2").await;
    let provider: &dyn arm_kernel::Provider = &*stamp.provider;
    let resources = provider.resources(SUBSCRIPTION, Some("rg1")).await.unwrap();
    assert!(
        resources
            .iter()
            .any(|one| one["type"] == json!(format!("{NAMESPACE}/snapshots")))
    );
    provider.delete_resource_group(SUBSCRIPTION, "rg1").await.unwrap();
    assert_eq!(stamp.get(SNAPSHOT).await.status, 404);
    stamp.add_group("rg2", true).await;
    let path = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/rg2/providers/{NAMESPACE}/snapshots/x");
    let answer = stamp.ask("PUT", &path, of(&pool("np1"))).await;
    assert_eq!(answer.code(), "ResourceGroupBeingDeleted", "{:#}", answer.body);
}

#[tokio::test(start_paused = true)]
async fn a_pool_takes_what_its_body_leaves_open() {
    let stamp = standing().await;
    take(&stamp, SNAPSHOT, "np2").await;
    let made = from(&stamp, "np3", SNAPSHOT, json!({ "count": 1 })).await;
    assert_eq!(made.status, 201, "{:#}", made.body);
    let properties = &made.body["properties"];
    assert_eq!(
        properties["creationData"],
        json!({ "sourceResourceId": id(SNAPSHOT) })
    );
    assert_eq!(properties["orchestratorVersion"], "1.36.3");
    assert_eq!(properties["nodeImageVersion"], "AKSDebian-1.36.3");
    assert_eq!(properties["vmSize"], "Standard_B4ms");
    // What the body says counts, where it agrees.
    let said = json!({
        "orchestratorVersion": "1.36", "vmSize": "Standard_B2s", "nodeImageVersion": "AKSDebian-1.36.3",
    });
    let other = from(&stamp, "np4", SNAPSHOT, said).await;
    assert_eq!(other.status, 201, "{:#}", other.body);
    assert_eq!(other.body["properties"]["vmSize"], "Standard_B2s");
    let newer = from(
        &stamp,
        "np5",
        SNAPSHOT,
        json!({ "orchestratorVersion": "1.37.1" }),
    )
    .await;
    refused(&newer, "InvalidParameter", "properties.orchestratorVersion");
    assert!(
        newer.message().contains("is of Kubernetes 1.36.3"),
        "{}",
        newer.message()
    );
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_upgraded_to_a_snapshot_and_not_back() {
    let stamp = standing().await;
    take(&stamp, "snapshots/old", "np2").await;
    take(&stamp, "snapshots/new", "np1").await;
    let upgraded = from(&stamp, "np2", "snapshots/new", json!({})).await;
    assert_eq!(upgraded.status, 200, "{:#}", upgraded.body);
    assert_eq!(upgraded.body["properties"]["orchestratorVersion"], "1.37.1");
    assert_eq!(upgraded.body["properties"]["vmSize"], "Standard_B4ms", "it stays");
    let back = from(&stamp, "np1", "snapshots/old", json!({})).await;
    refused(&back, "OperationNotAllowed", "properties.orchestratorVersion");
    // An upgrade without one: it is made from none any more.
    let plain = json!({ "properties": { "orchestratorVersion": "1.37.1" } });
    let plain = stamp.ask("PUT", &pool("np2"), plain).await;
    assert!(
        plain.body["properties"]["creationData"].is_null(),
        "{:#}",
        plain.body
    );
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_made_from_a_snapshot() {
    let stamp = standing().await;
    take(&stamp, SNAPSHOT, "np1").await;
    let pools = json!([{
        "name": "np1", "mode": "System", "count": 1, "creationData": { "sourceResourceId": id(SNAPSHOT) },
    }]);
    let made = stamp
        .create(
            "d",
            json!({ "location": "local", "properties": { "agentPoolProfiles": pools } }),
        )
        .await;
    let properties = &made["properties"];
    assert_eq!(properties["kubernetesVersion"], "1.37.1", "not the default");
    assert_eq!(
        properties["agentPoolProfiles"][0]["orchestratorVersion"],
        "1.37.1"
    );
    let skewed = json!({ "location": "local", "properties": { "kubernetesVersion": "1.36.3", "agentPoolProfiles": pools } });
    let skewed = stamp.ask("PUT", "managedClusters/e", skewed).await;
    assert_eq!(
        skewed.code(),
        "NodePoolMcVersionIncompatible",
        "{:#}",
        skewed.body
    );
}

#[tokio::test(start_paused = true)]
async fn a_pool_outlives_the_snapshot_that_it_was_made_from() {
    let stamp = standing().await;
    take(&stamp, SNAPSHOT, "np2").await;
    let made = from(&stamp, "np3", SNAPSHOT, json!({})).await.body;
    assert_eq!(stamp.ask("DELETE", SNAPSHOT, Value::Null).await.status, 200);
    let mut body = json!({ "properties": made["properties"] });
    body["properties"]["count"] = json!(2);
    let scaled = stamp.ask("PUT", &pool("np3"), body).await;
    assert_eq!(scaled.status, 200, "{:#}", scaled.body);
    assert_eq!(
        scaled.body["properties"]["creationData"],
        made["properties"]["creationData"]
    );
    refused(
        &from(&stamp, "np4", SNAPSHOT, json!({})).await,
        "InvalidResourceReference",
        SOURCE,
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_image_that_is_gone_is_said_to_be() {
    let before = standing().await;
    take(&before, SNAPSHOT, "np2").await;
    // Another release, which has no 1.36.
    let stamp = Stamp::offering(Offered::new(["1.37.1"], None).unwrap()).await;
    for (key, found) in before.store.list("/").await.unwrap().0 {
        stamp
            .write(control_store::Op::Put(key, found.value.to_vec()))
            .await;
    }
    let answer = from(&stamp, "np3", SNAPSHOT, json!({})).await;
    refused(&answer, "OperationNotAllowed", SOURCE);
    for part in ["AKSDebian-1.36.3", "no longer on this stamp", "1.37.1"] {
        assert!(answer.message().contains(part), "{part}: {}", answer.message());
    }
}

/// May do everything but one action.
struct Without(&'static str);

#[async_trait]
impl Authorizer for Without {
    async fn may(&self, _: &Principal, action: &str, _: &ResourcePath) -> Result<bool, ArmError> {
        Ok(action != self.0)
    }

    async fn reaches(&self, _: &Principal, _: &ResourcePath) -> Result<bool, ArmError> {
        Ok(true)
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_not_read_a_pool_or_snapshot_makes_nothing_of_it() {
    let stamp = standing().await;
    let ask = async |action: &'static str, path: &str, body: Value| {
        let access = AccessControl {
            authorizer: Arc::new(Without(action)),
            ..AccessControl::allow_all()
        };
        stamp.send_as(stamp.request("PUT", path, body), access).await
    };
    let pools = "Microsoft.ContainerService/managedClusters/agentPools/read";
    let answer = ask(pools, SNAPSHOT, of(&pool("np2"))).await;
    assert_eq!((answer.status, answer.code()), (403, "LinkedAuthorizationFailed"));
    assert!(
        answer.message().contains(&id(&pool("np2"))),
        "{}",
        answer.message()
    );
    take(&stamp, SNAPSHOT, "np2").await;
    // Of what is there already nothing is taken.
    assert_eq!(ask(pools, SNAPSHOT, of(&pool("np2"))).await.status, 200);
    let snapshots = "Microsoft.ContainerService/snapshots/read";
    let body = json!({ "properties": { "creationData": { "sourceResourceId": id(SNAPSHOT) } } });
    let answer = ask(snapshots, &pool("np3"), body.clone()).await;
    assert_eq!((answer.status, answer.code()), (403, "LinkedAuthorizationFailed"));
    assert_eq!(ask("nothing", &pool("np3"), body.clone()).await.status, 201);
    // Sent back, it is no reading.
    assert_eq!(ask(snapshots, &pool("np3"), body).await.status, 200);
    let pools =
        json!([{ "name": "np1", "mode": "System", "creationData": { "sourceResourceId": id(SNAPSHOT) } }]);
    let body = json!({ "location": "local", "properties": { "agentPoolProfiles": pools } });
    let answer = ask(snapshots, "managedClusters/d", body).await;
    assert_eq!((answer.status, answer.code()), (403, "LinkedAuthorizationFailed"));
}
