//! Volumes: requests to an API server, reads and writes.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;

use super::*;
use crate::fake::{self, Asked};

const GIB: u64 = 1 << 30;

fn claim_ref() -> ClaimRef {
    ClaimRef {
        namespace: "shop".to_owned(),
        name: "data".to_owned(),
        uid: "u1".to_owned(),
    }
}

fn claim() -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "namespace": "shop", "name": "data", "uid": "u1", "resourceVersion": "7" },
        "status": {
            "capacity": { "storage": "5Gi" },
            "conditions": [{ "type": "Resizing", "status": "True" }, { "type": "Unused", "status": "True" }]
        }
    })
}

fn volume(finalizers: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": { "name": "pvc-u1", "uid": "v1", "resourceVersion": "8", "finalizers": finalizers },
        "spec": { "capacity": { "storage": "5Gi" }, "csi": { "driver": DRIVER } }
    })
}

fn attachment(finalizers: &[&str], attached: bool) -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
        "metadata": { "name": "csi-1", "uid": "a1", "resourceVersion": "9", "finalizers": finalizers },
        "spec": { "attacher": DRIVER, "nodeName": "n", "source": { "persistentVolumeName": "pvc-u1" } },
        "status": { "attached": attached }
    })
}

/// Name and uid of the attachment.
fn named() -> (String, String) {
    ("csi-1".to_owned(), "a1".to_owned())
}

fn hold() -> VolumeWish {
    let (name, uid) = named();
    VolumeWish::Hold { name, uid }
}

fn attached() -> VolumeWish {
    let (name, uid) = named();
    VolumeWish::Attached {
        name,
        uid,
        volume: "abc".to_owned(),
    }
}

fn detached() -> VolumeWish {
    let (name, uid) = named();
    VolumeWish::Detached { name, uid }
}

fn remove() -> VolumeWish {
    VolumeWish::Remove {
        name: "pvc-u1".to_owned(),
        uid: "v1".to_owned(),
    }
}

fn grown_to(gib: u64) -> VolumeWish {
    VolumeWish::Grown {
        name: "pvc-u1".to_owned(),
        uid: "v1".to_owned(),
        bytes: gib * GIB,
        claim: Some(claim_ref()),
    }
}

/// The writes, in order.
fn written(log: &fake::Log) -> Vec<Asked> {
    let log = log.lock().unwrap();
    let written = log.iter().filter(|asked| asked.method != Method::GET);
    written.cloned().collect()
}

/// Applies a wish, with a server that has these objects by path, and answers other requests with an empty
/// object.
async fn bring(wish: &VolumeWish, objects: Vec<(&'static str, Value)>) -> Vec<Asked> {
    let (cluster, log) = fake::cluster(move |asked| {
        let object = objects.iter().find(|(path, _)| asked.path.contains(*path));
        match object {
            Some((_, object)) if asked.method != Method::POST => (200, object.clone()),
            _ => (200, json!({})),
        }
    });
    cluster.bring_volume(wish).await.unwrap();
    written(&log)
}

/// Checks that nothing is written for a wish about this object.
async fn is_left(wish: &VolumeWish, objects: Vec<(&'static str, Value)>) {
    let written = bring(wish, objects).await;
    assert!(written.is_empty(), "{wish:?}: {written:?}");
}

#[tokio::test]
async fn claims_are_read_where_there_is_something_of_ours() {
    let (cluster, log) = fake::cluster(|asked| {
        let items = if asked.path.starts_with(CLASSES) {
            vec![json!({ "provisioner": "example.com" })]
        } else {
            Vec::new()
        };
        (200, json!({ "items": items }))
    });
    let seen = cluster.list_volumes().await.unwrap();
    assert_eq!((seen.classes.len(), seen.claims.len()), (1, 0));
    let asked = fake::paths(&log, &Method::GET);
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert!(!asked.iter().any(|path| path.starts_with(CLAIMS)), "{asked:?}");

    let (cluster, log) = fake::cluster(|asked| {
        let items = if asked.path.starts_with(CLASSES) {
            vec![json!({ "provisioner": DRIVER })]
        } else if asked.path.starts_with(CLAIMS) {
            vec![claim()]
        } else {
            Vec::new()
        };
        (200, json!({ "items": items }))
    });
    let seen = cluster.list_volumes().await.unwrap();
    assert_eq!((seen.classes.len(), seen.claims.len()), (1, 1));
    // VolumeSnapshots are not listed: there is no volume that one could be of.
    assert_eq!(fake::paths(&log, &Method::GET).len(), 5);
    assert!(
        !*cluster.has_volumes.borrow(),
        "an idle cluster follows claims only"
    );
}

#[tokio::test]
async fn volumes_and_attachments_are_followed_while_there_are_some() {
    for (path, item) in [
        (VOLUMES, volume(&[])),
        (ATTACHMENTS, attachment(&[ATTACHMENT_FINALIZER], true)),
    ] {
        let there = AtomicUsize::new(1);
        let (cluster, _) = fake::cluster(move |asked| {
            // Once only.
            let items = if asked.path.starts_with(path) && there.swap(0, Ordering::SeqCst) == 1 {
                vec![item.clone()]
            } else {
                Vec::new()
            };
            (200, json!({ "items": items }))
        });
        let mut changes = cluster.has_volumes.subscribe();
        cluster.list_volumes().await.unwrap();
        assert!(
            changes.has_changed().unwrap() && *changes.borrow_and_update(),
            "{path}"
        );
        cluster.list_volumes().await.unwrap();
        assert!(
            changes.has_changed().unwrap() && !*changes.borrow_and_update(),
            "{path}"
        );
        cluster.list_volumes().await.unwrap();
        assert!(!changes.has_changed().unwrap(), "{path}");
    }
}

#[tokio::test]
async fn a_volume_is_published_once() {
    let wish = VolumeWish::Publish {
        name: "pvc-u1".to_owned(),
        object: volume(&[]).to_string(),
    };
    for answer in [(201, volume(&[])), fake::refusal(409, "already exists")] {
        let (cluster, log) = fake::cluster(move |_| answer.clone());
        cluster.bring_volume(&wish).await.unwrap();
        let written = written(&log);
        assert_eq!(written.len(), 1);
        assert_eq!(
            (&written[0].method, written[0].path.as_str()),
            (&Method::POST, VOLUMES)
        );
        assert_eq!(written[0].body, volume(&[]));
    }
    let (cluster, _) = fake::cluster(|_| fake::refusal(422, "spec.csi: no"));
    let error = cluster.bring_volume(&wish).await.unwrap_err();
    assert!(matches!(error, ClusterError::Refused { why, .. } if why.contains("spec.csi")));
    let broken = VolumeWish::Publish {
        name: "pvc-u1".to_owned(),
        object: String::new(),
    };
    let (cluster, log) = fake::cluster(|_| (201, json!({})));
    let error = cluster.bring_volume(&broken).await.unwrap_err();
    assert!(matches!(error, ClusterError::Refused { act, .. } if act.contains("pvc-u1")));
    assert!(written(&log).is_empty());
}

#[tokio::test]
async fn growth_is_written_to_the_volume_then_to_the_claim() {
    let written = bring(
        &grown_to(8),
        vec![
            ("/persistentvolumes/pvc-u1", volume(&[])),
            ("/persistentvolumeclaims/data", claim()),
        ],
    )
    .await;
    assert_eq!(written[0].path, "/api/v1/persistentvolumes/pvc-u1");
    assert_eq!(
        written[0].body["spec"],
        json!({ "capacity": { "storage": "8Gi" } })
    );
    assert_eq!(
        written[1].path,
        "/api/v1/namespaces/shop/persistentvolumeclaims/data/status"
    );
    assert_eq!(written[1].body["metadata"]["resourceVersion"], "7");
    let status = &written[1].body["status"];
    assert_eq!(status["allocatedResources"]["storage"], "8Gi");
    assert_eq!(
        status["allocatedResourceStatuses"]["storage"],
        "NodeResizePending"
    );
    let kinds: Vec<&Value> = status["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|condition| &condition["type"])
        .collect();
    assert_eq!(kinds, ["Unused", "FileSystemResizePending"]);
    assert!(written[2].path.ends_with("/namespaces/shop/events"));
    assert_eq!(written[2].body["reason"], "FileSystemResizeRequired");
    assert_eq!(written.len(), 3);
}

#[tokio::test]
async fn a_claim_that_was_told_or_has_followed_is_left_alone() {
    let mut there = volume(&[]);
    there["spec"]["capacity"]["storage"] = json!("8Gi");
    let mut told = claim();
    told["status"]["allocatedResources"] = json!({ "storage": "8Gi" });
    told["status"]["allocatedResourceStatuses"] = json!({ "storage": "NodeResizeInProgress" });
    let mut followed = claim();
    followed["status"]["capacity"]["storage"] = json!("8Gi");
    let mut unbound = claim();
    unbound["status"]["capacity"] = Value::Null;
    for claim in [told.clone(), followed, unbound] {
        let objects = vec![
            ("/persistentvolumes/pvc-u1", there.clone()),
            ("/persistentvolumeclaims/data", claim),
        ];
        is_left(&grown_to(8), objects).await;
    }
    // The earlier capacity is outdated; the start of the wait is kept.
    let since =
        json!({ "type": RESIZE_PENDING, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    told["status"]["conditions"] = json!([since]);
    let patch = follows(&told, 9 * GIB, "2026-02-02T00:00:00Z").unwrap();
    assert_eq!(patch["status"]["conditions"], json!([since]));
    assert_eq!(patch["status"]["allocatedResources"]["storage"], "9Gi");
}

#[tokio::test]
async fn a_volume_is_deleted_before_it_loses_our_finalizer() {
    let path = "/persistentvolumes/pvc-u1";
    let there = volume(&["kubernetes.io/pv-protection", VOLUME_FINALIZER]);
    let removed = bring(&remove(), vec![(path, there.clone())]).await;
    let methods: Vec<&Method> = removed.iter().map(|asked| &asked.method).collect();
    assert_eq!(methods, [&Method::DELETE, &Method::PATCH]);
    assert_eq!(removed[0].body["preconditions"]["uid"], "v1");
    assert_eq!(
        removed[1].body["metadata"],
        json!({ "resourceVersion": "8", "finalizers": ["kubernetes.io/pv-protection"] })
    );
    // A deleted object is not deleted again; without our finalizer there is nothing to do.
    let mut going = there;
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let removed = bring(&remove(), vec![(path, going.clone())]).await;
    assert_eq!(removed.len(), 1);
    assert_eq!(removed[0].method, Method::PATCH);
    going["metadata"]["finalizers"] = json!(["kubernetes.io/pv-protection"]);
    is_left(&remove(), vec![(path, going)]).await;
}

#[tokio::test]
async fn an_attachment_is_held_before_and_released_after() {
    let path = "/volumeattachments/csi-1";
    let held = bring(&hold(), vec![(path, attachment(&[], false))]).await;
    assert_eq!(held.len(), 1);
    assert_eq!(
        held[0].body["metadata"]["finalizers"],
        json!([ATTACHMENT_FINALIZER])
    );
    assert_eq!(held[0].body["metadata"]["resourceVersion"], "9");
    let mut going = attachment(&[], false);
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    is_left(&hold(), vec![(path, going)]).await;

    let told = bring(
        &attached(),
        vec![(path, attachment(&[ATTACHMENT_FINALIZER], false))],
    )
    .await;
    assert_eq!(told.len(), 1);
    assert!(told[0].path.ends_with("/csi-1/status"), "{told:?}");
    let status = json!({
        "attached": true, "attachmentMetadata": { "landfall.dev/volume": "abc" }, "attachError": null, "detachError": null
    });
    assert_eq!(told[0].body["status"], status);

    let freed = bring(
        &detached(),
        vec![(path, attachment(&["other", ATTACHMENT_FINALIZER], true))],
    )
    .await;
    assert_eq!(freed.len(), 2);
    assert!(freed[0].path.ends_with("/csi-1/status"), "{freed:?}");
    assert_eq!(freed[0].body["status"]["attached"], false);
    assert!(freed[1].path.ends_with("/csi-1"), "{freed:?}");
    assert_eq!(freed[1].body["metadata"]["finalizers"], json!(["other"]));
}

#[tokio::test]
async fn the_second_time_nothing_is_to_do() {
    let path = "/volumeattachments/csi-1";
    let mut held = attachment(&[ATTACHMENT_FINALIZER], true);
    held["status"]["attachmentMetadata"] = json!({ "landfall.dev/volume": "abc" });
    for wish in [hold(), attached()] {
        is_left(&wish, vec![(path, held.clone())]).await;
    }
    let free = attachment(&["other"], false);
    is_left(&detached(), vec![(path, free)]).await;
    let mut failed = held;
    failed["status"]["attachError"] = json!({ "message": "no" });
    assert_eq!(bring(&attached(), vec![(path, failed.clone())]).await.len(), 1);
    failed["status"]["attached"] = json!(false);
    let (name, uid) = named();
    let why = "no".to_owned();
    is_left(&VolumeWish::AttachFailed { name, uid, why }, vec![(path, failed)]).await;
}

#[tokio::test]
async fn why_a_disk_is_not_attached_is_told_in_the_status() {
    let (name, uid) = named();
    let why = "there is no such disk".to_owned();
    let wish = VolumeWish::AttachFailed { name, uid, why };
    let path = "/volumeattachments/csi-1";
    let told = bring(&wish, vec![(path, attachment(&[ATTACHMENT_FINALIZER], false))]).await;
    assert_eq!(told.len(), 1);
    assert!(told[0].path.ends_with("/csi-1/status"), "{told:?}");
    let status = &told[0].body["status"];
    assert_eq!(status["attachError"]["message"], "there is no such disk");
    assert_eq!(status["attached"], false);
    // One that is attached after all has no reason.
    is_left(&wish, vec![(path, attachment(&[ATTACHMENT_FINALIZER], true))]).await;
}

#[tokio::test]
async fn an_attachment_of_a_node_that_is_gone_is_withdrawn() {
    let (name, uid) = named();
    let wish = VolumeWish::Withdraw { name, uid };
    let path = "/volumeattachments/csi-1";
    let mut there = attachment(&[ATTACHMENT_FINALIZER], true);
    let withdrawn = bring(&wish, vec![(path, there.clone())]).await;
    assert_eq!(withdrawn.len(), 1);
    assert_eq!(withdrawn[0].method, Method::DELETE);
    assert_eq!(withdrawn[0].body["preconditions"]["uid"], "a1");
    there["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    is_left(&wish, vec![(path, there)]).await;
}

#[tokio::test]
async fn a_claim_is_told_by_an_event_of_its_own() {
    let wish = VolumeWish::Tell {
        claim: claim_ref(),
        note: Note {
            warning: true,
            reason: "ProvisioningFailed",
            message: "no".to_owned(),
        },
    };
    let told = bring(&wish, vec![("/persistentvolumeclaims/data", claim())]).await;
    assert_eq!(told.len(), 1);
    let event = &told[0].body;
    assert_eq!(event["involvedObject"]["kind"], "PersistentVolumeClaim");
    assert_eq!(event["involvedObject"]["uid"], "u1");
    assert_eq!(
        (event["type"].as_str(), event["reason"].as_str()),
        (Some("Warning"), Some("ProvisioningFailed"))
    );
}

#[tokio::test]
async fn others_of_the_same_name_are_left_alone_and_what_is_gone_is_success() {
    let mut other = attachment(&[], false);
    other["metadata"]["uid"] = json!("another");
    for answer in [(200, other), fake::refusal(404, "not found")] {
        let (name, uid) = named();
        let withdraw = VolumeWish::Withdraw { name, uid };
        for wish in [hold(), attached(), detached(), withdraw, remove(), grown_to(8)] {
            let answer = answer.clone();
            let (cluster, log) = fake::cluster(move |_| answer.clone());
            cluster.bring_volume(&wish).await.unwrap();
            assert!(written(&log).is_empty(), "{wish:?}");
        }
    }
}

#[tokio::test]
async fn a_write_that_somebody_else_was_faster_with_is_tried_again() {
    let attempts = AtomicUsize::new(0);
    let (cluster, log) = fake::cluster(move |asked| {
        let there = attachment(&[], false);
        if asked.method == Method::PATCH && attempts.fetch_add(1, Ordering::SeqCst) < 2 {
            return fake::refusal(409, "the object has been modified");
        }
        (200, there)
    });
    cluster.bring_volume(&hold()).await.unwrap();
    assert_eq!(fake::paths(&log, &Method::PATCH).len(), 3);
    assert_eq!(fake::paths(&log, &Method::GET).len(), 3);

    let (cluster, log) = fake::cluster(|asked| match asked.method {
        Method::PATCH => fake::refusal(409, "the object has been modified"),
        _ => (200, attachment(&[], false)),
    });
    assert!(cluster.bring_volume(&hold()).await.is_err());
    assert_eq!(fake::paths(&log, &Method::PATCH).len(), ATTEMPTS);
}

#[tokio::test]
async fn a_cluster_that_knows_of_no_snapshots_has_none() {
    let (cluster, log) = fake::cluster(|asked| {
        if asked.path.starts_with(CONTENTS) {
            return fake::refusal(404, "there is no such resource");
        }
        let items = if asked.path.starts_with(VOLUMES) {
            vec![volume(&[])]
        } else {
            Vec::new()
        };
        (200, json!({ "items": items }))
    });
    let seen = cluster.list_volumes().await.unwrap();
    assert!(seen.contents.is_empty() && seen.snapshots.is_empty());
    assert!(!*cluster.has_snapshots.borrow());
    let asked = fake::paths(&log, &Method::GET);
    assert!(!asked.iter().any(|path| path.starts_with(SNAPSHOTS)), "{asked:?}");
}

#[tokio::test]
async fn a_content_is_published_with_its_status_and_the_snapshot_is_told() {
    let content = json!({
        "metadata": { "name": "snapcontent-s1", "uid": "c1" }, "spec": { "volumeSnapshotRef": { "uid": "s1" } }
    });
    let mut object = content.clone();
    object["status"] = json!({ "readyToUse": true });
    let wish = VolumeWish::PublishContent {
        name: "snapcontent-s1".to_owned(),
        object: object.to_string(),
    };
    for first in [(201, content.clone()), fake::refusal(409, "already exists")] {
        let there = content.clone();
        let (cluster, log) = fake::cluster(move |asked| {
            if asked.method == Method::POST {
                first.clone()
            } else {
                (200, there.clone())
            }
        });
        cluster.bring_volume(&wish).await.unwrap();
        let written = written(&log);
        assert_eq!(written.len(), 2, "{written:?}");
        assert!(written[1].path.ends_with("/snapcontent-s1/status"), "{written:?}");
        assert_eq!(written[1].body["status"]["readyToUse"], true);
    }

    let snapshot = ClaimRef {
        namespace: "shop".to_owned(),
        name: "before".to_owned(),
        uid: "s1".to_owned(),
    };
    let taken = VolumeWish::Taken {
        snapshot,
        content: "snapcontent-s1".to_owned(),
        bytes: 5 * GIB,
        at: None,
    };
    let path = "/volumesnapshots/before";
    let told = bring(&taken, vec![(path, json!({ "metadata": { "uid": "s1" } }))]).await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].body["status"]["restoreSize"], "5Gi");
    let ready = json!({ "metadata": { "uid": "s1" }, "status": { "readyToUse": true } });
    is_left(&taken, vec![(path, ready)]).await;

    let remove = VolumeWish::RemoveContent {
        name: "snapcontent-s1".to_owned(),
        uid: "c1".to_owned(),
    };
    let mut held = content;
    held["metadata"]["finalizers"] = json!([CONTENT_FINALIZER]);
    let removed = bring(&remove, vec![("/volumesnapshotcontents/snapcontent-s1", held)]).await;
    let methods: Vec<&Method> = removed.iter().map(|asked| &asked.method).collect();
    assert_eq!(methods, [&Method::DELETE, &Method::PATCH]);
}
