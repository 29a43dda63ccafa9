//! Disks and snapshots of tenants, as clients request them.

use arm_wire::{ArmError, Response};
use cluster_spec::PodNetworking;
use control_records::{
    ObservedRecord,
    disk::{self, DiskRecord},
    key, unknown,
    volume::VolumeRecord,
};
use control_store::{Txn, get_record, put_record};
use http::Method;
use serde_json::{Value, json};

use crate::tests::{Asked, at};

const AT: &str = "resourceGroups/g/providers/Microsoft.Compute";

async fn stamp() -> Asked {
    Asked::new(false, PodNetworking::AzureOverlay).await
}

fn status(answer: &Result<Response, ArmError>) -> (u16, String) {
    match answer {
        Ok(response) => (response.status.as_u16(), String::new()),
        Err(error) => (error.code.status, error.code.code.to_owned()),
    }
}

async fn put(stamp: &Asked, path: &str, body: Value) -> Result<Response, ArmError> {
    stamp.send(Method::PUT, &format!("{AT}/{path}"), body).await
}

async fn delete(stamp: &Asked, path: &str) -> Result<Response, ArmError> {
    stamp
        .send(Method::DELETE, &format!("{AT}/{path}"), Value::Null)
        .await
}

async fn get(stamp: &Asked, path: &str) -> Value {
    stamp.get(&format!("{AT}/{path}")).await
}

fn empty(gib: u64) -> Value {
    json!({
        "location": "local", "sku": { "name": "Premium_LRS" },
        "properties": { "creationData": { "createOption": "Empty" }, "diskSizeGB": gib },
    })
}

fn copy(of: &str) -> Value {
    json!({
        "location": "local", "sku": { "name": "Standard_LRS" },
        "properties": { "creationData": { "createOption": "Copy", "sourceResourceId": of } },
    })
}

fn id(kind: &str, name: &str) -> String {
    format!("/subscriptions/s/{AT}/{kind}/{name}")
}

/// Changes a record as the loops do.
async fn change(
    stamp: &Asked,
    snapshot: bool,
    name: &str,
    change: impl FnOnce(&mut DiskRecord),
) -> DiskRecord {
    let key = disk::key(snapshot, "s", "g", name);
    let found = get_record::<DiskRecord>(&*stamp.store, &key).await.unwrap();
    let mut record = found.unwrap().value;
    change(&mut record);
    stamp
        .store
        .txn(Txn::default().with(put_record(key, &record)))
        .await
        .unwrap();
    record
}

async fn made(stamp: &Asked, snapshot: bool, name: &str) -> DiskRecord {
    change(stamp, snapshot, name, |record| record.there = record.bytes).await
}

#[tokio::test]
async fn a_disk_is_made_grown_shown_and_deleted() {
    let stamp = stamp().await;
    let asked = put(&stamp, "disks/Data", empty(4)).await;
    // Clients ask again until it is there.
    assert_eq!(status(&asked).0, 202, "{asked:?}");
    let shown = asked.unwrap().body.unwrap();
    assert_eq!(shown["properties"]["provisioningState"], "Creating");
    let record = made(&stamp, false, "data").await;
    let shown = get(&stamp, "disks/data").await;
    let properties = &shown["properties"];
    assert_eq!(
        (
            &properties["provisioningState"],
            &properties["diskState"],
            &properties["diskSizeGB"]
        ),
        (&json!("Succeeded"), &json!("Unattached"), &json!(4))
    );
    assert_eq!(shown["sku"], json!({ "name": "Premium_LRS", "tier": "Premium" }));
    // A body that was read may be sent back, and changes nothing.
    let again = put(&stamp, "disks/data", shown.clone()).await.unwrap();
    assert_eq!((again.status.as_u16(), again.body.unwrap()), (200, shown.clone()));

    let mut larger = shown.clone();
    larger["properties"]["diskSizeGB"] = json!(8);
    let larger = put(&stamp, "disks/data", larger).await.unwrap();
    assert_eq!(larger.status.as_u16(), 202);
    assert_eq!(
        larger.body.unwrap()["properties"]["provisioningState"],
        "Updating"
    );
    made(&stamp, false, "data").await;
    let patched = stamp
        .send(
            Method::PATCH,
            &format!("{AT}/disks/data"),
            json!({ "properties": { "diskSizeGB": 9 }, "sku": { "name": "StandardSSD_LRS" } }),
        )
        .await
        .unwrap()
        .body
        .unwrap();
    assert_eq!(
        (&patched["properties"]["diskSizeGB"], &patched["sku"]["name"]),
        (&json!(9), &json!("StandardSSD_LRS"))
    );
    let tags = stamp
        .send(
            Method::PATCH,
            &format!("{AT}/disks/data"),
            json!({ "tags": { "a": "b" } }),
        )
        .await
        .unwrap();
    assert_eq!(tags.body.unwrap()["tags"], json!({ "a": "b" }));
    let smaller = put(&stamp, "disks/data", empty(1)).await;
    assert_eq!(status(&smaller), (400, "InvalidParameter".to_owned()));
    assert_eq!(
        stamp.names(&format!("{AT}/disks")).await,
        ["Data"],
        "and none of the cluster's, which are elsewhere"
    );

    assert_eq!(status(&delete(&stamp, "disks/data").await).0, 200);
    assert_eq!(status(&delete(&stamp, "disks/data").await).0, 204);
    let volume = record.volume();
    let gone = unknown::is_removed(&*stamp.store, unknown::Kind::Volume, &volume);
    assert!(gone.await.unwrap(), "its volume may go");
}

#[tokio::test]
async fn a_disk_that_a_cluster_has_is_not_deleted() {
    let stamp = stamp().await;
    put(&stamp, "disks/data", empty(1)).await.unwrap();
    let record = made(&stamp, false, "data").await;
    change(&stamp, false, "data", |record| {
        record.holder = Some("u1".to_owned())
    })
    .await;
    // It says so, and the cluster has no record of it: the store may be older than it.
    assert_eq!(
        get(&stamp, "disks/data").await["properties"]["diskState"],
        "Unattached"
    );
    let key = VolumeRecord::key("u1", &record.volume());
    let txn = Txn::default().with(put_record(key, &json!("it has")));
    stamp.store.txn(txn).await.unwrap();
    let shown = get(&stamp, "disks/data").await;
    assert_eq!(shown["properties"]["diskState"], "Attached");
    let holder = shown["managedBy"].as_str().unwrap();
    assert!(holder.contains("/managedClusters/"), "{holder}");
    let refused = delete(&stamp, "disks/data").await.unwrap_err();
    assert_eq!(refused.code.code, "OperationNotAllowed");
    assert!(refused.message.contains(holder), "{}", refused.message);
}

#[tokio::test]
async fn copies_begin_with_what_is_there_and_keep_it_until_they_are_made() {
    let stamp = stamp().await;
    let none = put(&stamp, "snapshots/before", copy(&id("disks", "data"))).await;
    assert_eq!(status(&none).1, "InvalidResourceReference");
    put(&stamp, "disks/data", empty(2)).await.unwrap();
    let early = put(&stamp, "snapshots/before", copy(&id("disks", "data"))).await;
    assert_eq!(status(&early).1, "InvalidResourceReference", "it is not made yet");
    let data = made(&stamp, false, "data").await;

    let taken = put(&stamp, "snapshots/before", copy(&id("disks", "DATA"))).await;
    assert_eq!(status(&taken).0, 202, "{taken:?}");
    let refused = delete(&stamp, "disks/data").await.unwrap_err();
    assert!(
        refused.message.contains("/snapshots/before"),
        "{}",
        refused.message
    );
    let before = made(&stamp, true, "before").await;
    assert_eq!((before.bytes, before.source), (data.bytes, Some(data.volume())));
    assert_eq!(status(&delete(&stamp, "disks/data").await).0, 200, "it is a copy");
    let grown = stamp
        .send(
            Method::PATCH,
            &format!("{AT}/snapshots/before"),
            json!({ "properties": { "diskSizeGB": 9 } }),
        )
        .await;
    assert_eq!(status(&grown).1, "PropertyChangeNotAllowed");

    let mut again = copy(&id("snapshots", "before"));
    again["properties"]["diskSizeGB"] = json!(1);
    let small = put(&stamp, "disks/again", again.clone()).await;
    assert_eq!(status(&small).1, "InvalidParameter");
    again["properties"]["diskSizeGB"] = json!(5);
    assert_eq!(status(&put(&stamp, "disks/again", again.clone()).await).0, 202);
    let restored = made(&stamp, false, "again").await;
    assert_eq!(
        (restored.bytes >> 30, restored.source),
        (5, Some("s".to_owned() + &before.uid))
    );
    again["properties"]["creationData"]["sourceResourceId"] = json!(id("snapshots", "other"));
    let changed = put(&stamp, "disks/again", again).await;
    assert_eq!(status(&changed).1, "PropertyChangeNotAllowed");
}

#[tokio::test]
async fn the_disk_of_a_claim_is_a_source_and_is_not_changed() {
    let stamp = stamp().await;
    let own = key::observed("u1");
    let observed = get_record::<ObservedRecord>(&*stamp.store, &own).await.unwrap();
    let observed = ObservedRecord {
        volumes: true,
        ..observed.unwrap().value
    };
    let record = VolumeRecord {
        v: 1,
        id: "v1".to_owned(),
        name: "pvc-1".to_owned(),
        claim: "1".to_owned(),
        claim_namespace: "shop".to_owned(),
        claim_name: "data".to_owned(),
        bytes: 3 << 30,
        sku: "Premium_LRS".to_owned(),
        shared: false,
        snapshot: false,
        source: None,
        disk: None,
        object: String::new(),
        published: true,
        deleting: false,
        created_at: at(),
    };
    let held = VolumeRecord {
        id: "d0".to_owned(),
        name: "by-hand".to_owned(),
        disk: Some("/disks/disks/s/g/data".to_owned()),
        ..record.clone()
    };
    let txn = [record, held]
        .iter()
        .fold(Txn::default().with(put_record(own, &observed)), |txn, record| {
            txn.with(put_record(VolumeRecord::key("u1", &record.id), record))
        });
    stamp.store.txn(txn).await.unwrap();
    let of_claim = "/subscriptions/s/resourceGroups/mc/providers/Microsoft.Compute/disks/pvc-1";
    let taken = put(&stamp, "snapshots/before", copy(of_claim)).await;
    assert_eq!(status(&taken).0, 202, "{taken:?}");
    let snapshot = made(&stamp, true, "before").await;
    assert_eq!(snapshot.source.as_deref(), Some("v1"));
    let in_nodes = "resourceGroups/mc/providers/Microsoft.Compute/disks";
    let names = stamp.names(in_nodes).await;
    assert!(
        names.contains(&"pvc-1".to_owned()) && !names.contains(&"by-hand".to_owned()),
        "{names:?}"
    );
    let refused = stamp
        .send(Method::DELETE, &format!("{in_nodes}/pvc-1"), Value::Null)
        .await;
    assert_eq!(status(&refused).1, "OperationNotAllowed");
    // As the documentation of AKS has it: a disk in the group of the nodes.
    let beside = stamp
        .send(Method::PUT, &format!("{in_nodes}/mine"), empty(1))
        .await;
    assert_eq!(status(&beside).0, 202, "{beside:?}");
}

#[tokio::test]
async fn what_is_wrong_is_told_by_its_property() {
    let stamp = stamp().await;
    let with = |change: fn(&mut Value)| {
        let mut body = empty(1);
        change(&mut body);
        body
    };
    for (body, code, target) in [
        (
            with(|body| body["properties"]["diskSizeGB"] = json!(40_000)),
            "InvalidParameter",
            "properties.diskSizeGB",
        ),
        (
            with(|body| body["properties"]["diskSizeGB"] = Value::Null),
            "MissingRequiredParameter",
            "properties.diskSizeGB",
        ),
        (
            with(|body| body["properties"]["creationData"] = Value::Null),
            "MissingRequiredParameter",
            "properties.creationData",
        ),
        (
            with(|body| body["properties"]["creationData"]["createOption"] = json!("Upload")),
            "PropertyNotSupported",
            "properties.creationData.createOption",
        ),
        (
            with(|body| body["properties"]["maxShares"] = json!(2)),
            "PropertyNotSupported",
            "properties.maxShares",
        ),
        (
            with(|body| body["properties"]["creationData"]["createOption"] = json!("Copy")),
            "MissingRequiredParameter",
            "properties.creationData.sourceResourceId",
        ),
        (
            with(|body| body["sku"]["name"] = json!("Cheap_LRS")),
            "InvalidParameter",
            "sku.name",
        ),
        (
            with(|body| body["location"] = json!("elsewhere")),
            "LocationNotAvailableForResourceType",
            "location",
        ),
        (
            with(|body| body["properties"]["colour"] = json!("blue")),
            "UnknownProperty",
            "properties.colour",
        ),
    ] {
        let refused = put(&stamp, "disks/data", body).await.unwrap_err();
        assert_eq!(
            (refused.code.code, refused.target.as_deref()),
            (code, Some(target)),
            "{}",
            refused.message
        );
    }
    let name = put(&stamp, "disks/-data", empty(1)).await;
    assert_eq!(status(&name).1, "InvalidResourceName");
    let taken_of_nothing = put(&stamp, "snapshots/s", empty(1)).await;
    assert_eq!(status(&taken_of_nothing).1, "PropertyNotSupported");
    assert_eq!(stamp.names(&format!("{AT}/disks")).await, [""; 0]);
}
