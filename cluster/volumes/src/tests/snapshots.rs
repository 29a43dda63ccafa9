//! VolumeSnapshots, and claims that are restored from one.

use super::*;

/// A VolumeSnapshot of the claim, its class, and its content.
fn snapshots(objects: &mut VolumeObjects) {
    objects.snapshot_classes = vec![json!({
        "metadata": { "name": SNAPSHOT_CLASS }, "driver": DRIVER, "deletionPolicy": "Delete",
        "parameters": { "incremental": "true" }
    })];
    objects.snapshots = vec![json!({
        "metadata": { "namespace": "shop", "name": "before", "uid": "s1" },
        "spec": {
            "volumeSnapshotClassName": SNAPSHOT_CLASS, "source": { "persistentVolumeClaimName": "data" }
        }
    })];
}

fn taken(change: impl FnOnce(&mut VolumeObjects)) -> Storage {
    let (claim, volume) = bound();
    let mut objects = objects(&[claim], &[volume]);
    snapshots(&mut objects);
    change(&mut objects);
    Storage::read(&objects)
}

#[test]
fn a_snapshot_is_taken_of_a_disk_of_ours() {
    let snapshot = only(taken(|_| {}).snapshots).unwrap();
    assert_eq!(snapshot.content, "snapcontent-s1");
    let SnapshotStage::Wanted(recipe) = &snapshot.stage else {
        panic!("{snapshot:?}")
    };
    assert_eq!((recipe.volume.as_str(), recipe.handle.as_str()), ("pvc-u1", "h"));
    assert!(recipe.deletes && !recipe.block);
    let content = snapshot_content(&snapshot, recipe, "abc");
    assert_eq!(content["spec"]["volumeSnapshotRef"]["uid"], "s1");
    assert_eq!(content["metadata"]["finalizers"], json!([CONTENT_FINALIZER]));

    let none = taken(|objects| objects.claims[0]["spec"]["volumeName"] = Value::Null);
    assert_eq!(only(none.snapshots).unwrap().stage, SnapshotStage::Waiting);
    let other = taken(|objects| objects.snapshot_classes[0]["driver"] = json!("example.com"));
    assert_eq!(other.snapshots, []);
    for (change, said) in [
        (
            json!({ "volumeSnapshotClassName": "none", "source": { "persistentVolumeClaimName": "data" } }),
            "VolumeSnapshotClass none",
        ),
        (
            json!({ "source": { "persistentVolumeClaimName": "data" } }),
            "no VolumeSnapshotClass is the default",
        ),
        (
            json!({ "volumeSnapshotClassName": SNAPSHOT_CLASS, "source": { "persistentVolumeClaimName": "none" } }),
            "no claim none",
        ),
        (
            json!({ "volumeSnapshotClassName": SNAPSHOT_CLASS, "source": { "volumeSnapshotContentName": "c" } }),
            "spec.source",
        ),
    ] {
        let read = taken(|objects| objects.snapshots[0]["spec"] = change);
        match only(read.snapshots).unwrap().stage {
            SnapshotStage::Refused(why) => assert!(why.contains(said), "{said}: {why}"),
            other => panic!("{said}: {other:?}"),
        }
    }
    let elsewhere =
        taken(|objects| objects.snapshot_classes[0]["parameters"]["resourceGroup"] = json!("mine"));
    assert!(matches!(
        only(elsewhere.snapshots).unwrap().stage,
        SnapshotStage::Refused(why) if why.contains("parameters.resourceGroup")
    ));
    let usual = taken(|objects| {
        objects.snapshots[0]["spec"]["volumeSnapshotClassName"] = Value::Null;
        objects.snapshot_classes[0]["metadata"]["annotations"] =
            json!({ "snapshot.storage.kubernetes.io/is-default-class": "true" });
    });
    assert!(matches!(
        only(usual.snapshots).unwrap().stage,
        SnapshotStage::Wanted(_)
    ));
}

#[test]
fn a_claim_begins_with_a_snapshot_that_is_ready() {
    let restored = |change: &dyn Fn(&mut VolumeObjects)| {
        let (source, volume) = bound();
        let mut wanted = claim();
        wanted["metadata"]["name"] = json!("again");
        wanted["metadata"]["uid"] = json!("u2");
        wanted["spec"]["dataSource"] =
            json!({ "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "before" });
        let mut objects = objects(&[source, wanted], &[volume]);
        snapshots(&mut objects);
        objects.snapshots[0]["status"] =
            json!({ "readyToUse": true, "boundVolumeSnapshotContentName": "snapcontent-s1" });
        let status = content_status("h", 5 * GIB, 7);
        objects.contents = vec![json!({
            "metadata": { "name": "snapcontent-s1", "uid": "c1", "annotations": { VOLUME_ATTRIBUTE: "def" } },
            "spec": {
                "driver": DRIVER, "deletionPolicy": "Retain", "sourceVolumeMode": "Filesystem",
                "volumeSnapshotRef": { "uid": "s1" }
            },
            "status": status
        })];
        change(&mut objects);
        Storage::read(&objects)
    };
    let read = restored(&|_| {});
    assert_eq!(
        recipe(Some(read.claims[1].clone())).source.as_deref(),
        Some("snapcontent-s1")
    );
    let content = &read.contents[0];
    assert_eq!((content.id.as_deref(), content.created), (Some("def"), Some(7)));
    assert!(content.ready && !content.deletes && read.snapshots[0].ready);
    let waits = restored(&|objects| objects.snapshots[0]["status"] = Value::Null);
    assert_eq!(waits.claims[1].stage, Stage::Waiting);
    let refused = |change: &dyn Fn(&mut VolumeObjects)| refusal(Some(restored(change).claims[1].clone()));
    let small = refused(&|objects| {
        objects.claims[1]["spec"]["resources"]["requests"]["storage"] = json!("4Gi");
    });
    assert!(small.contains("5Gi"), "{small}");
    let block = refused(&|objects| objects.claims[1]["spec"]["volumeMode"] = json!("Block"));
    assert!(block.contains("spec.volumeMode"), "{block}");
    let none = refused(&|objects| objects.contents[0]["spec"]["volumeSnapshotRef"]["uid"] = json!("x"));
    assert!(none.contains("was not taken"), "{none}");
}

#[test]
fn a_snapshot_of_a_share_is_of_a_class_for_shares_and_begins_a_share() {
    let shares = |objects: &mut VolumeObjects| {
        objects.snapshot_classes[0]["driver"] = json!(FILES);
        objects.volumes[0]["spec"]["csi"]["driver"] = json!(FILES);
    };
    let snapshot = only(taken(shares).snapshots).unwrap();
    let SnapshotStage::Wanted(recipe) = &snapshot.stage else {
        panic!("{snapshot:?}")
    };
    assert!(recipe.shared);
    let content = snapshot_content(&snapshot, recipe, "abc");
    assert_eq!(content["spec"]["driver"], FILES);
    assert_eq!(share_snapshot_handle("mc", "s1"), "mc#landfall#snapshot-s1");
    // A class for disks takes none of shares, and the other way round.
    let mixed: [fn(&mut VolumeObjects); 2] = [
        |objects| objects.snapshot_classes[0]["driver"] = json!(FILES),
        |objects| objects.volumes[0]["spec"]["csi"]["driver"] = json!(FILES),
    ];
    for mixed in mixed {
        let stage = only(taken(mixed).snapshots).unwrap().stage;
        assert!(
            matches!(&stage, SnapshotStage::Refused(why) if why.contains("with this VolumeSnapshotClass")),
            "{stage:?}"
        );
    }
    // Without a class, the default of the claim's own driver.
    let usual = taken(|objects| {
        shares(objects);
        objects.snapshots[0]["spec"]["volumeSnapshotClassName"] = Value::Null;
        let default = json!({ "snapshot.storage.kubernetes.io/is-default-class": "true" });
        objects.snapshot_classes[0]["metadata"]["annotations"] = default.clone();
        let mut of_disks = objects.snapshot_classes[0].clone();
        of_disks["metadata"] = json!({ "name": "a", "annotations": default });
        of_disks["driver"] = json!(DRIVER);
        objects.snapshot_classes.push(of_disks);
    });
    let stage = only(usual.snapshots).unwrap().stage;
    assert!(
        matches!(&stage, SnapshotStage::Wanted(recipe) if recipe.shared && recipe.class == SNAPSHOT_CLASS),
        "{stage:?}"
    );

    let restored = |by: &str| {
        let mut wanted = claim();
        wanted["metadata"]["annotations"] = json!({ "volume.kubernetes.io/storage-provisioner": FILES });
        wanted["spec"]["accessModes"] = json!(["ReadWriteMany"]);
        wanted["spec"]["dataSource"] =
            json!({ "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "before" });
        let mut objects = objects(&[wanted], &[]);
        snapshots(&mut objects);
        objects.classes[0]["provisioner"] = json!(FILES);
        objects.classes[0]["volumeBindingMode"] = json!("Immediate");
        objects.classes[0]["parameters"] = json!({ "skuName": "Premium_LRS" });
        objects.snapshots[0]["status"] =
            json!({ "readyToUse": true, "boundVolumeSnapshotContentName": "snapcontent-s1" });
        objects.contents = vec![json!({
            "metadata": { "name": "snapcontent-s1", "uid": "c1", "annotations": { VOLUME_ATTRIBUTE: "def" } },
            "spec": {
                "driver": by, "deletionPolicy": "Delete", "sourceVolumeMode": "Filesystem",
                "volumeSnapshotRef": { "uid": "s1" }
            },
            "status": content_status("h", 5 * GIB, 7)
        })];
        Storage::read(&objects)
    };
    let read = restored(FILES);
    assert!(read.contents[0].shared);
    assert_eq!(
        recipe_of(&read.claims[0]).source.as_deref(),
        Some("snapcontent-s1")
    );
    let other = refusal(only(restored(DRIVER).claims));
    assert!(other.contains("was not taken by"), "{other}");
}

fn recipe_of(claim: &Claim) -> Recipe {
    recipe(Some(claim.clone()))
}
