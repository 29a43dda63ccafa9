//! A cluster's own controllers for claims, volumes and attachments: scheduler, binder, attacher, kubelets.

use std::collections::{BTreeMap, BTreeSet};

use cluster_volumes::{DRIVER, FILES, is_shared};
use serde_json::{Value, json};

use super::{
    ATTACHMENT, CLAIM, CLAIM_PROTECTION, CLASS, CONTENT, Objects, TOLD, USER, VOLUME, VOLUME_PROTECTION,
    claim_key, delete, is_deleted, is_empty, is_kept, keys, let_go, of_kind, same, seen, text,
};
use crate::state::Cluster;

/// The annotation with a claim's provisioner.
pub(super) const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// Its older name, which is still written.
const PROVISIONER_BEFORE: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// The node of the first pod that uses a claim.
pub(super) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Runs the controllers on the current state.
pub(crate) fn settle(cluster: &mut Cluster) {
    if is_empty(cluster) {
        return;
    }
    loop {
        let before = seen(cluster);
        end_of_users(cluster);
        choose(&mut cluster.objects);
        bind(&mut cluster.objects);
        expand(&mut cluster.objects);
        attach(cluster);
        sweep(&mut cluster.objects);
        if seen(cluster) == before {
            return;
        }
    }
}

/// The same after a restore to an earlier state: the controllers have just started, and do not wait for
/// missing nodes.
pub(crate) fn begin_again(cluster: &mut Cluster) {
    settle(cluster);
    for key in keys(&cluster.objects, ATTACHMENT) {
        let node = text(&cluster.objects[&key]["spec"]["nodeName"]);
        if !cluster.nodes.contains_key(&node) {
            delete(&mut cluster.objects, &key);
        }
    }
    settle(cluster);
}

/// Pods end with their nodes.
fn end_of_users(cluster: &mut Cluster) {
    for key in keys(&cluster.objects, CLAIM) {
        let Some(claim) = cluster.objects.get_mut(&key) else {
            continue;
        };
        let lost = user(claim).is_some_and(|node| !cluster.nodes.contains_key(&node));
        if lost {
            leave(claim);
        }
    }
}

/// The node of the pod that uses a claim.
pub(super) fn user(claim: &Value) -> Option<String> {
    let user = claim["metadata"]["annotations"][USER].as_str();
    user.map(str::to_owned)
}

/// Ends the pod that uses a claim.
pub(super) fn leave(claim: &mut Value) {
    let annotations = claim.pointer_mut("/metadata/annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.remove(USER);
    }
}

/// Sets the provisioner of claims without a volume, when their classes require it.
fn choose(objects: &mut Objects) {
    let classes: BTreeMap<String, (String, bool)> = of_kind(objects, CLASS)
        .map(|(_, class)| {
            let waits = class["volumeBindingMode"] == "WaitForFirstConsumer";
            (
                text(&class["metadata"]["name"]),
                (text(&class["provisioner"]), waits),
            )
        })
        .filter(|(_, (driver, _))| is_shared(driver).is_some())
        .collect();
    for key in keys(objects, CLAIM) {
        let Some(claim) = objects.get_mut(&key) else {
            continue;
        };
        let Some((driver, waits)) = classes.get(&text(&claim["spec"]["storageClassName"])) else {
            continue;
        };
        if claim["spec"]["volumeName"].is_string() || is_deleted(claim) {
            continue;
        }
        let user = user(claim);
        let annotations = &mut claim["metadata"]["annotations"];
        if *waits && !annotations[SELECTED_NODE].is_string() {
            let Some(node) = user else { continue };
            annotations[SELECTED_NODE] = json!(node);
        }
        annotations[PROVISIONER] = json!(driver);
        annotations[PROVISIONER_BEFORE] = json!(driver);
    }
}

/// Binds volumes and the claims that they name; releases a volume whose claim is gone.
fn bind(objects: &mut Objects) {
    for key in keys(objects, VOLUME) {
        let Some(volume) = objects.get(&key) else {
            continue;
        };
        let (reference, spec) = (&volume["spec"]["claimRef"], &volume["spec"]);
        let (name, uid) = (text(&volume["metadata"]["name"]), text(&reference["uid"]));
        if uid.is_empty() {
            continue;
        }
        let (capacity, modes) = (spec["capacity"].clone(), spec["accessModes"].clone());
        let claim = claim_key(&text(&reference["namespace"]), &text(&reference["name"]));
        let phase = match same(objects, &claim, &uid) {
            None => "Released",
            Some(claim) => match claim["spec"]["volumeName"].as_str() {
                Some(there) if there == name => "Bound",
                Some(_) => continue,
                None => {
                    claim["spec"]["volumeName"] = json!(name);
                    claim["status"] = json!({ "phase": "Bound", "accessModes": modes, "capacity": capacity });
                    "Bound"
                }
            },
        };
        if let Some(volume) = objects.get_mut(&key) {
            volume["status"]["phase"] = json!(phase);
        }
    }
}

/// Whether a PersistentVolume is a share, which all nodes have.
fn is_share(volume: &Value) -> bool {
    volume["spec"]["csi"]["driver"] == FILES
}

/// A node grows the filesystem of a volume that has grown.
fn expand(objects: &mut Objects) {
    let attached: BTreeSet<String> = of_kind(objects, ATTACHMENT)
        .filter(|(_, attachment)| attachment["status"]["attached"] == true)
        .map(|(_, attachment)| text(&attachment["spec"]["source"]["persistentVolumeName"]))
        .collect();
    for key in keys(objects, CLAIM) {
        let Some(claim) = objects.get(&key) else {
            continue;
        };
        let name = text(&claim["spec"]["volumeName"]);
        let used = user(claim).is_some();
        if claim["status"]["allocatedResourceStatuses"].is_null() {
            continue;
        }
        let Some(volume) = objects.get(&format!("{VOLUME}{name}")) else {
            continue;
        };
        let is_there = attached.contains(&name) || is_share(volume) && used;
        if !is_there {
            continue;
        }
        let capacity = volume["spec"]["capacity"].clone();
        if let Some(status) = objects
            .get_mut(&key)
            .and_then(|claim| claim["status"].as_object_mut())
        {
            status.insert("capacity".to_owned(), capacity);
            for done in ["allocatedResources", "allocatedResourceStatuses", "conditions"] {
                status.remove(done);
            }
        }
    }
}

/// Attaches a used claim to its user's node, once no other node has it. Shares are never attached.
fn attach(cluster: &mut Cluster) {
    let wanted: BTreeMap<String, String> = of_kind(&cluster.objects, CLAIM)
        .filter(|(_, claim)| claim["status"]["phase"] == "Bound")
        .filter_map(|(_, claim)| Some((text(&claim["spec"]["volumeName"]), user(claim)?)))
        .collect();
    let mut taken = BTreeSet::new();
    for key in keys(&cluster.objects, ATTACHMENT) {
        let Some(attachment) = cluster.objects.get(&key) else {
            continue;
        };
        let volume = text(&attachment["spec"]["source"]["persistentVolumeName"]);
        let node = text(&attachment["spec"]["nodeName"]);
        // A lost node does not confirm the detachment.
        let heard = cluster.nodes.contains_key(&node);
        if heard && wanted.get(&volume) != Some(&node) {
            delete(&mut cluster.objects, &key);
        }
        if cluster.objects.contains_key(&key) {
            taken.insert(volume);
        }
    }
    let number = *cluster.changes.borrow() + 1;
    for (volume, node) in wanted {
        let there = cluster.objects.get(&format!("{VOLUME}{volume}"));
        if taken.contains(&volume) || there.is_none_or(is_share) {
            continue;
        }
        let name = format!("csi-{volume}-{node}");
        let attachment = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
            "metadata": { "name": name, "uid": format!("{name}-{number}") },
            "spec": { "attacher": DRIVER, "nodeName": node, "source": { "persistentVolumeName": volume } },
            "status": { "attached": false }
        });
        cluster.objects.insert(format!("{ATTACHMENT}{name}"), attachment);
    }
}

/// Removes deleted objects once nothing keeps them: a claim is kept by its user, a volume by its claim, all
/// by others' finalizers.
fn sweep(objects: &mut Objects) {
    for kind in [CLAIM, VOLUME, ATTACHMENT, CONTENT] {
        for key in keys(objects, kind) {
            let Some(object) = objects.get_mut(&key).filter(|object| is_deleted(object)) else {
                continue;
            };
            if kind == CLAIM && user(object).is_none() {
                let_go(object, CLAIM_PROTECTION);
            }
            if kind == VOLUME && object["status"]["phase"] != "Bound" {
                let_go(object, VOLUME_PROTECTION);
            }
            if !is_kept(object) {
                objects.remove(&key);
                if let Some(name) = key.strip_prefix(CLAIM) {
                    objects.remove(&format!("{TOLD}{name}"));
                }
            }
        }
    }
}
