//! Claims and volumes in a cluster without a service.

use cluster_api::{ClaimRef, Note};
use cluster_volumes::DRIVER;

use super::{
    controllers::{PROVISIONER, SELECTED_NODE},
    *,
};
use crate::clusters::new_node;

fn cluster(binding: &str) -> Cluster {
    let mut cluster = Cluster::default();
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": "default" },
        "provisioner": DRIVER, "reclaimPolicy": "Delete", "volumeBindingMode": binding, "allowVolumeExpansion": true
    });
    cluster.objects.insert(format!("{CLASS}default"), class);
    for name in ["n1", "n2"] {
        let mut node = new_node(name, name, None, 0);
        node.seen.ready = true;
        cluster.nodes.insert(name.to_owned(), node);
    }
    cluster
}

fn claim(cluster: &Cluster) -> &Value {
    &cluster.objects[&own("data")]
}

/// Publishes a volume for the claim.
fn provision(cluster: &mut Cluster) {
    let uid = text(&claim(cluster)["metadata"]["uid"]);
    let object = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": { "name": "pv", "finalizers": [VOLUME_FINALIZER] },
        "spec": {
            "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"],
            "claimRef": { "namespace": "default", "name": "data", "uid": uid }
        }
    });
    let publish = VolumeWish::Publish {
        name: "pv".to_owned(),
        object: object.to_string(),
    };
    set(cluster, &publish).unwrap();
}

/// The only attachment: its name, its uid, its node, and whether it is deleted.
fn attachment(cluster: &Cluster) -> (String, String, String, bool) {
    let all = seen(cluster).attachments;
    assert_eq!(all.len(), 1, "{all:?}");
    let metadata = &all[0]["metadata"];
    let node = text(&all[0]["spec"]["nodeName"]);
    (
        text(&metadata["name"]),
        text(&metadata["uid"]),
        node,
        is_deleted(&all[0]),
    )
}

fn uses(cluster: &mut Cluster, node: &str) {
    assert!(use_on(cluster, "data", Some(node)));
    settle(cluster);
    cluster.changed();
}

#[test]
fn a_claim_waits_for_its_user_and_is_on_one_node_at_a_time() {
    let mut cluster = cluster("WaitForFirstConsumer");
    assert!(plant(&mut cluster, &PlantedClaim::default()));
    assert!(!plant(&mut cluster, &PlantedClaim::default()), "it is there");
    settle(&mut cluster);
    assert!(claim(&cluster)["metadata"]["annotations"][PROVISIONER].is_null());
    assert!(!use_on(&mut cluster, "data", Some("n3")));
    uses(&mut cluster, "n1");
    let annotations = &claim(&cluster)["metadata"]["annotations"];
    assert_eq!(
        (&annotations[PROVISIONER], &annotations[SELECTED_NODE]),
        (&json!(DRIVER), &json!("n1"))
    );
    assert!(seen(&cluster).attachments.is_empty());
    provision(&mut cluster);
    assert_eq!(claim(&cluster)["status"]["phase"], "Bound");
    let (name, uid, node, _) = attachment(&cluster);
    assert_eq!(node, "n1");
    for wish in [
        VolumeWish::Hold {
            name: name.clone(),
            uid: uid.clone(),
        },
        VolumeWish::Attached {
            name: name.clone(),
            uid: uid.clone(),
            volume: "v1".to_owned(),
        },
    ] {
        set(&mut cluster, &wish).unwrap();
    }
    assert_eq!(seen(&cluster).attachments[0]["status"]["attached"], true);
    uses(&mut cluster, "n2");
    assert!(attachment(&cluster).3, "the first node is to let go");
    let another = VolumeWish::Detached {
        name: name.clone(),
        uid: "another".to_owned(),
    };
    set(&mut cluster, &another).unwrap();
    assert_eq!(attachment(&cluster).2, "n1");
    set(&mut cluster, &VolumeWish::Detached { name, uid }).unwrap();
    let (name, uid, node, deleted) = attachment(&cluster);
    assert_eq!((node.as_str(), deleted), ("n2", false));

    // Its pod ends with the node; the detachment is not confirmed until the end of this test.
    cluster.nodes.remove("n2");
    settle(&mut cluster);
    assert!(user(claim(&cluster)).is_none());
    assert!(!attachment(&cluster).3);
    set(&mut cluster, &VolumeWish::Withdraw { name, uid }).unwrap();
    assert!(seen(&cluster).attachments.is_empty());
}

#[test]
fn what_is_deleted_is_there_until_nothing_keeps_it() {
    let mut cluster = cluster("Immediate");
    plant(&mut cluster, &PlantedClaim::default());
    settle(&mut cluster);
    assert_eq!(claim(&cluster)["metadata"]["annotations"][PROVISIONER], DRIVER);
    provision(&mut cluster);
    uses(&mut cluster, "n1");
    delete(&mut cluster.objects, &own("data"));
    settle(&mut cluster);
    assert_eq!(
        seen(&cluster).volumes[0]["status"]["phase"],
        "Bound",
        "it is used"
    );
    leave(cluster.objects.get_mut(&own("data")).unwrap());
    settle(&mut cluster);
    let left = seen(&cluster);
    assert!(left.claims.is_empty() && left.attachments.is_empty(), "{left:?}");
    assert_eq!(left.volumes[0]["status"]["phase"], "Released");
    let remove = |uid: &str| VolumeWish::Remove {
        name: "pv".to_owned(),
        uid: uid.to_owned(),
    };
    set(&mut cluster, &remove("another")).unwrap();
    assert_eq!(seen(&cluster).volumes.len(), 1);
    let uid = text(&left.volumes[0]["metadata"]["uid"]);
    set(&mut cluster, &remove(&uid)).unwrap();
    assert!(is_empty(&cluster));
}

#[test]
fn what_has_grown_is_used_where_it_is_attached() {
    let mut cluster = cluster("Immediate");
    plant(&mut cluster, &PlantedClaim::default());
    settle(&mut cluster);
    assert!(!grow(&mut cluster, "data", 2), "it has no volume yet");
    provision(&mut cluster);
    assert!(!grow(&mut cluster, "data", 1) && grow(&mut cluster, "data", 2));
    let reference = ClaimRef {
        namespace: "default".to_owned(),
        name: "data".to_owned(),
        uid: text(&claim(&cluster)["metadata"]["uid"]),
    };
    let grown = VolumeWish::Grown {
        name: "pv".to_owned(),
        uid: text(&seen(&cluster).volumes[0]["metadata"]["uid"]),
        bytes: 2 << 30,
        claim: Some(reference.clone()),
    };
    set(&mut cluster, &grown).unwrap();
    let status = &claim(&cluster)["status"];
    assert_eq!(
        status["allocatedResourceStatuses"]["storage"],
        "NodeResizePending"
    );
    assert_eq!(status["capacity"]["storage"], "1Gi");
    uses(&mut cluster, "n1");
    let (name, uid, ..) = attachment(&cluster);
    let attached = VolumeWish::Attached {
        name,
        uid,
        volume: "v1".to_owned(),
    };
    set(&mut cluster, &attached).unwrap();
    let status = &claim(&cluster)["status"];
    assert_eq!(status["capacity"]["storage"], "2Gi");
    assert!(status["conditions"].is_null(), "{status}");

    let tell = VolumeWish::Tell {
        claim: reference,
        note: Note {
            warning: true,
            reason: "VolumeResizeFailed",
            message: "no room".to_owned(),
        },
    };
    set(&mut cluster, &tell).unwrap();
    let told = &cluster.objects[&told_key("default", "data")];
    assert_eq!(told, "VolumeResizeFailed: no room");
}
