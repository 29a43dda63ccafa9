//! Managed namespaces: what is taken and refused, what their states follow from, their operations, and their kubeconfigs.

use std::time::Duration;

use control_records::{
    ObservedRecord, OperationStatus,
    namespace::{NamespaceRecord, NamespaceState},
};
use control_store::{get_record, put_record};
use serde_json::{Value, json};

use crate::stamp::{Stamp, least, names};

const ALL: &str = "managedClusters/c/managedNamespaces";
const DEV: &str = "managedClusters/c/managedNamespaces/dev";

async fn stamp() -> Stamp {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    stamp.reach("c").await;
    stamp
}

/// As `az aks namespace add` sends it.
fn body() -> Value {
    json!({
        "location": "local",
        "tags": {},
        "properties": {
            "labels": { "team": "blue" },
            "annotations": {},
            "defaultResourceQuota": {
                "cpuRequest": "500m", "cpuLimit": "1", "memoryRequest": "1Gi", "memoryLimit": "2Gi"
            },
            "defaultNetworkPolicy": { "ingress": "AllowSameNamespace", "egress": "AllowAll" },
            "adoptionPolicy": "Never",
            "deletePolicy": "Keep"
        }
    })
}

async fn record(stamp: &Stamp) -> Option<NamespaceRecord> {
    let uid = stamp.record("c").await.unwrap().uid;
    let found = get_record(&*stamp.store, &NamespaceRecord::key(&uid, "dev")).await;
    found.unwrap().map(|found| found.value)
}

/// What the loop would write.
async fn see(stamp: &Stamp, change: impl FnOnce(&mut NamespaceState)) {
    let record = record(stamp).await.unwrap();
    let write = |observed: &mut ObservedRecord| {
        let state = observed.namespaces.entry("dev".to_owned()).or_default();
        state.id = record.id;
        state.wished = record.wished;
        change(state);
    };
    stamp.observe("c", write).await;
}

async fn state(stamp: &Stamp) -> String {
    let shown = stamp.get(DEV).await;
    assert_eq!(shown.status, 200, "{}", shown.body);
    let state = shown.body["properties"]["provisioningState"].as_str();
    state.unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_namespace_is_written_down_with_its_operation_and_shown_as_it_was_asked_for() {
    let stamp = stamp().await;
    let put = stamp.ask("PUT", DEV, body()).await;
    assert_eq!(put.status, 201, "{:#}", put.body);
    assert!(put.header("azure-asyncoperation").is_some(), "{:?}", put.headers);
    let mut expected = body();
    expected["properties"]["provisioningState"] = json!("Creating");
    expected["properties"]
        .as_object_mut()
        .unwrap()
        .remove("annotations");
    for member in ["location", "tags", "properties"] {
        assert_eq!(put.body[member], expected[member], "{member}");
    }
    assert_eq!(
        put.body["type"],
        "Microsoft.ContainerService/managedClusters/managedNamespaces"
    );
    assert!(
        put.body["id"]
            .as_str()
            .unwrap()
            .ends_with("/managedClusters/c/managedNamespaces/dev")
    );
    assert_eq!(stamp.get(DEV).await.body, put.body);
    assert_eq!(names(&stamp.get(ALL).await.body), ["dev"]);
    let operations = stamp.operations().await;
    let own = operations
        .iter()
        .find(|one| one.name == "ManagedNamespaces_CreateOrUpdate");
    let own = own.unwrap();
    assert!(own.creates && own.status == OperationStatus::InProgress && own.generation == 1);
    // What is sent back is what it is.
    let again = stamp.ask("PUT", DEV, put.body.clone()).await;
    assert_eq!(again.status, 200, "{:#}", again.body);
    assert_ne!(again.body["eTag"], put.body["eTag"]);
    let kept = record(&stamp).await.unwrap();
    assert_eq!((kept.generation, kept.wished, kept.operations.len()), (2, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn its_state_follows_from_what_was_seen_of_it() {
    let stamp = stamp().await;
    stamp.ask("PUT", DEV, body()).await;
    see(&stamp, |state| state.problem = Some("no".to_owned())).await;
    assert_eq!(state(&stamp).await, "Failed");
    see(&stamp, |state| {
        state.problem = None;
        state.held = true;
    })
    .await;
    assert_eq!(state(&stamp).await, "Succeeded");
    // Tags are nothing that the cluster sees.
    let tagged = stamp.ask("PATCH", DEV, json!({ "tags": { "a": "b" } })).await;
    assert_eq!((tagged.status, &tagged.body["tags"]), (200, &json!({ "a": "b" })));
    assert!(tagged.header("azure-asyncoperation").is_none());
    assert_eq!(state(&stamp).await, "Succeeded");
    let put = stamp.ask("PUT", DEV, body()).await;
    assert_eq!(put.body["properties"]["provisioningState"], "Updating");
    let gone = stamp.ask("DELETE", DEV, Value::Null).await;
    assert_eq!(gone.status, 202);
    assert!(gone.header("location").is_some() && gone.header("azure-asyncoperation").is_some());
    assert_eq!(state(&stamp).await, "Deleting");
    // One deletion, however often asked for; and it cannot be taken back.
    let again = stamp.ask("DELETE", DEV, Value::Null).await;
    assert_eq!(
        (again.status, again.header("location")),
        (202, gone.header("location"))
    );
    let back = stamp.ask("PUT", DEV, body()).await;
    assert_eq!((back.status, back.code()), (409, "Conflict"));
    let other = stamp.ask("DELETE", &format!("{ALL}/other"), Value::Null).await;
    assert_eq!(other.status, 204);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused_by_name() {
    let stamp = stamp().await;
    for name in ["kube-system", "default", "gatekeeper-system"] {
        let refused = stamp.ask("PUT", &format!("{ALL}/{name}"), body()).await;
        assert_eq!(
            (refused.status, refused.code()),
            (400, "OperationNotAllowed"),
            "{name}"
        );
        assert!(
            refused.message().contains("system namespace"),
            "{}",
            refused.message()
        );
    }
    for name in ["Dev", "a_b", "-a"] {
        let refused = stamp.ask("PUT", &format!("{ALL}/{name}"), body()).await;
        assert_eq!(
            (refused.status, refused.code()),
            (400, "InvalidResourceName"),
            "{name}"
        );
    }
    for (pointer, value, code) in [
        (
            "/location",
            json!("elsewhere"),
            "LocationNotAvailableForResourceType",
        ),
        (
            "/properties/adoptionPolicy",
            json!("Sometimes"),
            "InvalidParameter",
        ),
        ("/properties/deletePolicy", json!("Orphan"), "InvalidParameter"),
        (
            "/properties/defaultNetworkPolicy/ingress",
            json!("Allow"),
            "InvalidParameter",
        ),
        (
            "/properties/defaultResourceQuota/cpuLimit",
            json!("1core"),
            "InvalidParameter",
        ),
        ("/properties/labels/team", json!("a b"), "InvalidParameter"),
    ] {
        let mut wrong = body();
        *wrong.pointer_mut(pointer).unwrap() = value;
        let refused = stamp.ask("PUT", DEV, wrong).await;
        assert_eq!(
            (refused.status, refused.code()),
            (400, code),
            "{pointer}: {}",
            refused.body
        );
    }
    let mut own = body();
    own["properties"]["labels"]["kubernetes.azure.com/managedByArm"] = json!("true");
    assert_eq!(stamp.ask("PUT", DEV, own).await.status, 400);
    assert!(record(&stamp).await.is_none());
    let nowhere = stamp
        .ask("PUT", "managedClusters/x/managedNamespaces/dev", body())
        .await;
    assert_eq!((nowhere.status, nowhere.code()), (404, "ParentResourceNotFound"));
    assert_eq!(stamp.get(DEV).await.code(), "ResourceNotFound");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_has_so_many() {
    let stamp = stamp().await;
    stamp.ask("PUT", DEV, body()).await;
    let one = record(&stamp).await.unwrap();
    let uid = stamp.record("c").await.unwrap().uid;
    for number in 1..100 {
        let of = NamespaceRecord {
            name: format!("n{number}"),
            ..one.clone()
        };
        stamp
            .write(put_record(NamespaceRecord::key(&uid, &of.name), &of))
            .await;
    }
    let full = stamp.ask("PUT", &format!("{ALL}/more"), body()).await;
    assert_eq!((full.status, full.code()), (400, "OperationNotAllowed"));
    assert_eq!(
        stamp.ask("PUT", DEV, body()).await.status,
        200,
        "those that are there change"
    );
}

#[tokio::test(start_paused = true)]
async fn requests_that_pile_up_take_the_place_of_the_oldest() {
    let stamp = stamp().await;
    for _ in 0..10 {
        stamp.ask("PUT", DEV, body()).await;
        stamp.env.clock.sleep(Duration::from_secs(1)).await;
    }
    let of = |operations: &[control_records::OperationRecord], status| {
        let own = operations
            .iter()
            .filter(|one| one.name.starts_with("ManagedNamespaces"));
        own.filter(|one| one.status == status).count()
    };
    let operations = stamp.operations().await;
    assert_eq!(of(&operations, OperationStatus::InProgress), 8);
    assert_eq!(of(&operations, OperationStatus::Canceled), 2);
    assert_eq!(record(&stamp).await.unwrap().operations.len(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_stands_still_keeps_what_is_asked_for_and_lets_nothing_go() {
    let stamp = stamp().await;
    stamp.ask("PUT", DEV, body()).await;
    stamp.ask("POST", "managedClusters/c/stop", Value::Null).await;
    assert_eq!(state(&stamp).await, "Succeeded");
    let refused = stamp.ask("DELETE", DEV, Value::Null).await;
    assert_eq!((refused.status, refused.code()), (400, "OperationNotAllowed"));
    assert!(
        refused.message().contains("az aks start"),
        "{}",
        refused.message()
    );
}

#[tokio::test(start_paused = true)]
async fn a_kubeconfig_is_the_namespaces_own() {
    let stamp = stamp().await;
    let path = format!("{DEV}/listCredential");
    assert_eq!(
        stamp.ask("POST", &path, Value::Null).await.code(),
        "ResourceNotFound"
    );
    stamp.ask("PUT", DEV, body()).await;
    let early = stamp.ask("POST", &path, Value::Null).await;
    assert_eq!((early.status, early.code()), (409, "Conflict"));
    see(&stamp, |state| state.held = true).await;
    let given = stamp.ask("POST", &path, Value::Null).await;
    assert_eq!(given.status, 200, "{}", given.body);
    let value = given.body["kubeconfigs"][0]["value"].as_str().unwrap();
    let text = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, value).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), "clusterUser of c in dev");
    // Who asks for the cluster's gets another one.
    let clusters = stamp
        .ask("POST", "managedClusters/c/listClusterUserCredential", Value::Null)
        .await;
    assert_ne!(clusters.body, given.body);
    let again = stamp.ask("POST", &path, Value::Null).await;
    assert_eq!(again.body, given.body);
}
