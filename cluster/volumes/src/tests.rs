//! Parsing of claims, refusals, and parsing of PersistentVolumes and VolumeAttachments.

mod snapshots;

use cluster_api::VolumeObjects;
use serde_json::{Value, json};

use super::*;
use crate::quantity::GIB;

fn class() -> Value {
    json!({
        "metadata": { "name": "managed-csi" }, "provisioner": DRIVER, "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer", "parameters": { "skuname": "StandardSSD_LRS" }
    })
}

/// A claim that needs a volume.
fn claim() -> Value {
    json!({
        "metadata": {
            "namespace": "shop", "name": "data", "uid": "u1",
            "annotations": {
                "volume.kubernetes.io/storage-provisioner": DRIVER,
                "volume.kubernetes.io/selected-node": "node-1"
            }
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "managed-csi", "volumeMode": "Filesystem",
            "resources": { "requests": { "storage": "5Gi" } }
        },
        "status": { "phase": "Pending" }
    })
}

/// A PersistentVolume provisioned for the claim with this uid.
fn volume(uid: &str) -> Value {
    json!({
        "metadata": { "name": format!("pvc-{uid}"), "uid": format!("v-{uid}") },
        "spec": {
            "capacity": { "storage": "5Gi" }, "persistentVolumeReclaimPolicy": "Delete", "volumeMode": "Filesystem",
            "claimRef": { "namespace": "shop", "name": "data", "uid": uid },
            "csi": { "driver": DRIVER, "volumeHandle": "h", "volumeAttributes": { VOLUME_ATTRIBUTE: "abc" } }
        },
        "status": { "phase": "Bound" }
    })
}

/// A claim, bound to a volume.
fn bound() -> (Value, Value) {
    let mut claim = claim();
    claim["spec"]["volumeName"] = json!("pvc-u1");
    claim["status"] = json!({ "phase": "Bound", "capacity": { "storage": "5Gi" } });
    (claim, volume("u1"))
}

fn objects(claims: &[Value], volumes: &[Value]) -> VolumeObjects {
    VolumeObjects {
        claims: claims.to_vec(),
        volumes: volumes.to_vec(),
        attachments: Vec::new(),
        classes: vec![class()],
        ..VolumeObjects::default()
    }
}

/// The only claim, with a change; `None`: it is not ours.
fn read(change: impl FnOnce(&mut Value)) -> Option<Claim> {
    let mut claim = claim();
    change(&mut claim);
    only(Storage::read(&objects(&[claim], &[])).claims)
}

fn only<T>(all: Vec<T>) -> Option<T> {
    assert!(all.len() < 2);
    all.into_iter().next()
}

fn recipe(claim: Option<Claim>) -> Recipe {
    match claim.map(|claim| claim.stage) {
        Some(Stage::Wanted(recipe)) => *recipe,
        other => panic!("{other:?}"),
    }
}

fn refusal(claim: Option<Claim>) -> String {
    match claim.map(|claim| claim.stage) {
        Some(Stage::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// A class with a change, and a claim of it.
fn of_class(change: impl FnOnce(&mut Value)) -> Option<Claim> {
    let mut objects = objects(&[claim()], &[]);
    change(&mut objects.classes[0]);
    only(Storage::read(&objects).claims)
}

#[test]
fn a_plain_claim_gets_a_volume_of_its_size() {
    let claim = read(|_| {}).unwrap();
    assert_eq!((claim.volume.as_str(), claim.bytes), ("pvc-u1", 5 * GIB));
    assert_eq!(
        (claim.claim.namespace.as_str(), claim.claim.name.as_str()),
        ("shop", "data")
    );
    assert!(!claim.deleting);
    let wanted = Recipe {
        class: "managed-csi".to_owned(),
        sku: "StandardSSD_LRS".to_owned(),
        deletes: true,
        access_modes: vec!["ReadWriteOnce".to_owned()],
        block: false,
        fs_type: "ext4".to_owned(),
        mount_options: Vec::new(),
        source: None,
    };
    assert_eq!(claim.stage, Stage::Wanted(Box::new(wanted)));
}

#[test]
fn what_its_class_says_is_read() {
    let recipe = recipe(of_class(|class| {
        class["reclaimPolicy"] = json!("Retain");
        class["mountOptions"] = json!(["noatime", "discard"]);
        class["parameters"] = json!({ "storageAccountType": "Premium_LRS" });
    }));
    assert!(!recipe.deletes);
    assert_eq!(recipe.mount_options, ["noatime", "discard"]);
    assert_eq!(recipe.sku, "Premium_LRS");
}

#[test]
fn a_class_is_named_by_the_field_or_by_the_annotation_of_old() {
    let named = read(|claim| {
        claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"] = json!("managed-csi");
        claim["spec"]["storageClassName"] = Value::Null;
    });
    assert_eq!(recipe(named).class, "managed-csi");
}

#[test]
fn claims_of_other_classes_are_none_of_ours() {
    for class in [json!("other"), json!(""), Value::Null] {
        let other = read(|claim| claim["spec"]["storageClassName"] = class.clone());
        assert_eq!(other, None, "{class}");
    }
    let other = of_class(|class| class["provisioner"] = json!("blob.csi.azure.com"));
    assert_eq!(other, None);
}

#[test]
fn a_claim_waits_for_its_pod_and_for_kubernetes() {
    let stage = |name: &str| {
        let name = name.to_owned();
        let without = read(move |claim| claim["metadata"]["annotations"][name] = Value::Null);
        without.unwrap().stage
    };
    assert_eq!(stage("volume.kubernetes.io/selected-node"), Stage::Waiting);
    assert_eq!(stage("volume.kubernetes.io/storage-provisioner"), Stage::Waiting);
    let old = read(|claim| {
        claim["metadata"]["annotations"] = json!({
            "volume.beta.kubernetes.io/storage-provisioner": DRIVER, "volume.kubernetes.io/selected-node": "n"
        });
    });
    assert!(matches!(old.unwrap().stage, Stage::Wanted(_)));
    let mut at_once = objects(&[claim()], &[]);
    at_once.classes[0]["volumeBindingMode"] = json!("Immediate");
    at_once.claims[0]["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] = Value::Null;
    assert!(matches!(
        only(Storage::read(&at_once).claims).unwrap().stage,
        Stage::Wanted(_)
    ));
}

#[test]
fn what_cannot_be_had_is_refused_by_its_field() {
    let spec = |field: &str, value: Value| refusal(read(|claim| claim["spec"][field] = value));
    let storage = |size: &str| json!({ "requests": { "storage": size } });
    for (why, named) in [
        (spec("accessModes", json!(["ReadWriteMany"])), "ReadWriteMany"),
        (
            spec("accessModes", json!(["ReadWriteOnce", "ReadOnlyMany"])),
            "ReadOnlyMany",
        ),
        (spec("accessModes", json!([])), "spec.accessModes"),
        (spec("selector", json!({})), "spec.selector"),
        (
            spec("resources", storage("32768Gi")),
            "spec.resources.requests.storage",
        ),
        (spec("resources", storage("much")), "\"much\""),
        (spec("resources", Value::Null), "spec.resources.requests.storage"),
        (
            spec(
                "dataSource",
                json!({ "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s" }),
            ),
            "there is no VolumeSnapshot s",
        ),
        (
            spec(
                "dataSourceRef",
                json!({ "apiGroup": "example.com", "kind": "Photo", "name": "p" }),
            ),
            "spec.dataSourceRef: a disk cannot begin as a copy of a Photo",
        ),
    ] {
        assert!(why.contains(named), "{named}: {why}");
    }
    let class = refusal(of_class(|class| class["parameters"]["fsType"] = json!("xfs")));
    assert!(class.contains("parameters.fsType"), "{class}");
    let block = refusal(read(|claim| {
        claim["spec"]["volumeMode"] = json!("Block");
        claim["spec"]["accessModes"] = json!(["ReadWriteMany"]);
    }));
    assert!(block.contains("ReadWriteOnce"), "{block}");
}

#[test]
fn sizes_are_whole_gibibytes_and_at_least_one() {
    for (asked, gib) in [
        ("1", 1),
        ("0", 1),
        ("100Mi", 1),
        ("1Gi", 1),
        ("1.2Gi", 2),
        ("5G", 5),
        ("32767Gi", 32_767),
    ] {
        let claim = read(|claim| claim["spec"]["resources"]["requests"]["storage"] = json!(asked)).unwrap();
        assert_eq!(claim.bytes, gib * GIB, "{asked}");
        assert!(matches!(claim.stage, Stage::Wanted(_)), "{asked}");
    }
}

#[test]
fn one_pod_and_raw_blocks_are_fine() {
    let recipe = recipe(read(|claim| {
        claim["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
        claim["spec"]["volumeMode"] = json!("Block");
    }));
    assert!(recipe.block);
    assert_eq!(recipe.access_modes, ["ReadWriteOncePod"]);
}

#[test]
fn a_claim_is_bound_to_a_volume_that_is_its_own() {
    let (mut claim, volume) = bound();
    claim["spec"]["resources"]["requests"]["storage"] = json!("7Gi");
    let read = |claim: &Value, volume: &Value| {
        let objects = objects(std::slice::from_ref(claim), std::slice::from_ref(volume));
        only(Storage::read(&objects).claims)
    };
    let there = read(&claim, &volume).unwrap();
    assert_eq!(there.stage, Stage::Bound);
    assert_eq!((there.volume.as_str(), there.bytes), ("pvc-u1", 7 * GIB));

    let mut others = volume.clone();
    others["spec"]["csi"]["driver"] = json!("example.com");
    assert_eq!(read(&claim, &others), None);
    others = volume.clone();
    others["spec"]["claimRef"]["uid"] = json!("u2");
    assert_eq!(read(&claim, &others), None, "it names another's volume");

    claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    claim["spec"]["storageClassName"] = json!("gone");
    let going = read(&claim, &volume).unwrap();
    assert!(going.deleting && going.stage == Stage::Bound);

    claim["spec"]["resources"]["requests"]["storage"] = json!("99999Gi");
    let why = refusal(read(&claim, &volume));
    assert!(why.contains("32767Gi"), "{why}");
}

#[test]
fn a_copy_is_of_a_bound_claim_of_the_same_namespace_and_no_smaller() {
    let (source, there) = bound();
    let copy = |change: &dyn Fn(&mut VolumeObjects)| {
        let mut copy = claim();
        copy["metadata"]["name"] = json!("copy");
        copy["metadata"]["uid"] = json!("u9");
        copy["spec"]["dataSource"] = json!({ "kind": "PersistentVolumeClaim", "name": "data" });
        let mut objects = objects(&[copy, source.clone()], std::slice::from_ref(&there));
        change(&mut objects);
        let claims = Storage::read(&objects).claims;
        claims.into_iter().find(|claim| claim.claim.uid == "u9")
    };
    assert_eq!(recipe(copy(&|_| {})).source.as_deref(), Some("pvc-u1"));
    let same = recipe(copy(&|objects| {
        let spec = &mut objects.claims[0]["spec"];
        spec["dataSourceRef"] = spec["dataSource"].clone();
        spec["dataSourceRef"]["namespace"] = json!("shop");
    }));
    assert_eq!(same.source.as_deref(), Some("pvc-u1"));

    let early = copy(&|objects| objects.claims[1]["spec"]["volumeName"] = Value::Null);
    assert_eq!(early.unwrap().stage, Stage::Waiting);
    let why = |change: &dyn Fn(&mut VolumeObjects)| refusal(copy(change));
    for (why, named) in [
        (
            why(&|objects| objects.volumes[0]["spec"]["capacity"]["storage"] = json!("6Gi")),
            "6Gi",
        ),
        (
            why(&|objects| objects.claims[1]["metadata"]["namespace"] = json!("other")),
            "no claim data",
        ),
        (
            why(&|objects| {
                objects.claims[0]["spec"]["dataSourceRef"] =
                    json!({ "kind": "PersistentVolumeClaim", "name": "data", "namespace": "other" });
            }),
            "namespace other",
        ),
        (
            why(&|objects| objects.claims[1]["metadata"]["deletionTimestamp"] = json!("now")),
            "being deleted",
        ),
        (
            why(&|objects| objects.volumes[0]["spec"]["csi"]["volumeAttributes"] = Value::Null),
            "no volume that was made",
        ),
        (
            why(&|objects| objects.claims[0]["spec"]["volumeMode"] = json!("Block")),
            "spec.volumeMode",
        ),
    ] {
        assert!(why.contains(named), "{named}: {why}");
    }
}

#[test]
fn volumes_of_ours_are_read_in_the_order_of_their_names() {
    let mut released = volume("b");
    released["status"]["phase"] = json!("Released");
    released["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let mut kept = volume("a");
    kept["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain");
    kept["spec"]["claimRef"] = Value::Null;
    kept["spec"]["csi"]["volumeAttributes"] = Value::Null;
    let mut other = volume("c");
    other["spec"]["csi"]["driver"] = json!("example.com");
    let read = Storage::read(&objects(&[], &[released, kept, other])).volumes;
    let kept = Volume {
        name: "pvc-a".to_owned(),
        uid: "v-a".to_owned(),
        id: None,
        disk: None,
        bytes: 5 * GIB,
        shared: false,
        claim: None,
        released: false,
        deletes: false,
        deleting: false,
    };
    let released = Volume {
        name: "pvc-b".to_owned(),
        uid: "v-b".to_owned(),
        id: Some("abc".to_owned()),
        claim: Some("b".to_owned()),
        released: true,
        deletes: true,
        deleting: true,
        ..kept.clone()
    };
    assert_eq!(read, [kept, released]);
}

#[test]
fn a_volume_that_somebody_made_names_a_disk_and_is_never_deleted_by_us() {
    let read = |change: &dyn Fn(&mut Value)| {
        let mut made = volume("u1");
        let csi = &mut made["spec"]["csi"];
        csi["volumeHandle"] = json!(handle("s", "mine", "data"));
        csi["volumeAttributes"] = Value::Null;
        change(&mut made);
        only(Storage::read(&objects(&[], &[made])).volumes).unwrap()
    };
    let by_hand = read(&|_| {});
    assert_eq!(by_hand.disk, Some(handle("s", "mine", "data")));
    assert!(
        by_hand.id.is_none() && !by_hand.deletes,
        "whatever its policy says"
    );
    // One that was made here has its own disk, whatever its handle says.
    let own = read(&|made| made["spec"]["csi"]["volumeAttributes"] = json!({ VOLUME_ATTRIBUTE: "abc" }));
    assert!(own.disk.is_none() && own.deletes);
    let of_share = read(&|made| made["spec"]["csi"]["driver"] = json!(FILES));
    assert_eq!(of_share.disk, None);
    let no_id = read(&|made| made["spec"]["csi"]["volumeHandle"] = json!("data"));
    assert_eq!(no_id.disk, None);
}

#[test]
fn growth_that_a_claim_was_not_told_of_is_not_there_yet() {
    let (mut claim, mut volume) = bound();
    volume["spec"]["capacity"]["storage"] = json!("8Gi");
    let bytes = |claim: &Value| {
        let objects = objects(std::slice::from_ref(claim), std::slice::from_ref(&volume));
        only(Storage::read(&objects).volumes).unwrap().bytes
    };
    assert_eq!(bytes(&claim), 5 * GIB);
    let mut another = claim.clone();
    another["metadata"]["uid"] = json!("u2");
    assert_eq!(bytes(&another), 8 * GIB, "another claim of the same name");
    claim["status"]["allocatedResourceStatuses"] = json!({ "storage": "NodeResizePending" });
    assert_eq!(bytes(&claim), 8 * GIB);
    claim["status"] = json!({ "capacity": { "storage": "8Gi" } });
    assert_eq!(bytes(&claim), 8 * GIB);
    claim["status"] = json!({});
    assert_eq!(
        bytes(&claim),
        8 * GIB,
        "one that is not bound yet gets it as it is"
    );
}

#[test]
fn attachments_of_ours_are_read() {
    let attachment = |name: &str, attacher: &str| {
        json!({
            "metadata": { "name": name, "uid": "a1", "finalizers": [ATTACHMENT_FINALIZER] },
            "spec": { "attacher": attacher, "nodeName": "node-1", "source": { "persistentVolumeName": "pvc-u1" } },
            "status": { "attached": true }
        })
    };
    let mut going = attachment("csi-b", DRIVER);
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    going["metadata"]["finalizers"] = Value::Null;
    going["status"] = json!({ "attached": false });
    let objects = VolumeObjects {
        attachments: vec![
            going,
            attachment("csi-c", "example.com"),
            attachment("csi-a", DRIVER),
        ],
        ..VolumeObjects::default()
    };
    let there = Attachment {
        name: "csi-a".to_owned(),
        uid: "a1".to_owned(),
        volume: "pvc-u1".to_owned(),
        node: "node-1".to_owned(),
        attached: true,
        failure: None,
        held: true,
        deleting: false,
    };
    let going = Attachment {
        name: "csi-b".to_owned(),
        attached: false,
        held: false,
        deleting: true,
        ..there.clone()
    };
    assert_eq!(Storage::read(&objects).attachments, [there, going]);
}

#[test]
fn names_are_stable() {
    assert_eq!(id("c1", "pvc-u1"), "e7mrpuli6hm5");
    assert_ne!(id("c1", "pvc-u1"), id("c", "1pvc-u1"));
    assert_eq!(
        handle("s", "MC_g_c_here", "pvc-u1"),
        "/subscriptions/s/resourceGroups/MC_g_c_here/providers/Microsoft.Compute/disks/pvc-u1"
    );
}

#[test]
fn a_persistent_volume_is_as_upstream_makes_it_and_read_back() {
    let claim = read(|_| {}).unwrap();
    let mut recipe = recipe(Some(claim.clone()));
    let object = persistent_volume(&claim, &recipe, "/handle", "abc");
    assert_eq!(
        object,
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {
                "name": "pvc-u1",
                "annotations": { "pv.kubernetes.io/provisioned-by": "disk.csi.azure.com" },
                "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer"]
            },
            "spec": {
                "capacity": { "storage": "5Gi" }, "accessModes": ["ReadWriteOnce"],
                "claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "shop", "name": "data", "uid": "u1"
                },
                "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "managed-csi", "volumeMode": "Filesystem",
                "csi": {
                    "driver": "disk.csi.azure.com", "volumeHandle": "/handle", "fsType": "ext4",
                    "volumeAttributes": { "landfall.dev/volume": "abc", "skuName": "StandardSSD_LRS" }
                }
            }
        })
    );
    let mut published = object;
    published["metadata"]["uid"] = json!("v1");
    let there = only(Storage::read(&objects(&[], &[published])).volumes).unwrap();
    assert_eq!((there.id.as_deref(), there.bytes), (Some("abc"), claim.bytes));
    assert_eq!(there.claim.as_deref(), Some("u1"));

    recipe.deletes = false;
    recipe.block = true;
    recipe.mount_options = vec!["noatime".to_owned()];
    let object = persistent_volume(&claim, &recipe, "/handle", "abc");
    assert_eq!(object["metadata"]["finalizers"], Value::Null);
    assert_eq!(object["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(object["spec"]["volumeMode"], "Block");
    assert_eq!(object["spec"]["csi"]["fsType"], Value::Null);
    assert_eq!(object["spec"]["mountOptions"], json!(["noatime"]));
}

/// A claim of a class of shares, with a change.
fn of_shares(change: impl FnOnce(&mut Value)) -> Option<Claim> {
    let mut objects = objects(&[claim()], &[]);
    objects.classes[0]["provisioner"] = json!(FILES);
    objects.classes[0]["volumeBindingMode"] = json!("Immediate");
    objects.classes[0]["parameters"] = json!({ "skuName": "Premium_LRS" });
    objects.claims[0]["metadata"]["annotations"] =
        json!({ "volume.kubernetes.io/storage-provisioner": FILES });
    objects.claims[0]["spec"]["accessModes"] = json!(["ReadWriteMany"]);
    change(&mut objects.claims[0]);
    only(Storage::read(&objects).claims)
}

#[test]
fn a_share_is_for_several_nodes_and_a_filesystem() {
    let claim = of_shares(|_| {}).unwrap();
    assert!(claim.shared);
    let recipe = recipe(Some(claim.clone()));
    assert_eq!(recipe.access_modes, ["ReadWriteMany"]);
    assert_eq!(recipe.sku, "Premium_LRS");
    let handle = share_handle("mc", &claim.volume, "shop");
    assert_eq!(handle, "mc#landfall#pvc-u1###shop");
    let object = persistent_volume(&claim, &recipe, &handle, "abc");
    assert_eq!(object["spec"]["csi"]["driver"], FILES);
    assert_eq!(
        object["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"],
        FILES
    );
    let read = Storage::read(&VolumeObjects {
        volumes: vec![{
            let mut object = object;
            object["metadata"]["uid"] = json!("v");
            object
        }],
        ..VolumeObjects::default()
    });
    assert!(read.volumes[0].shared);

    let why = refusal(of_shares(|claim| claim["spec"]["volumeMode"] = json!("Block")));
    assert!(why.contains("spec.volumeMode"), "{why}");
    // For another provisioner.
    let other = of_shares(|claim| {
        claim["metadata"]["annotations"] = json!({ "volume.kubernetes.io/storage-provisioner": DRIVER });
    });
    assert_eq!(other.map(|claim| claim.stage), Some(Stage::Waiting));
}
