//! Claims, persistent volumes and their attachments in the world's clusters.
//!
//! They are ordinary objects, added by tests and written by the service; storage classes are those that were
//! applied. The work of a real cluster's controllers is done here after every change ([`controllers`]): a
//! claim gets its provisioner, at once or when a pod that uses it has a node, as its class specifies; it is
//! bound to the volume that names it; a volume without its claim is released; a used claim is attached to its
//! user's node, and never to two nodes at a time, except a claim for a share, which is never attached; deleted
//! objects stay while finalizers or users keep them. A claim has one user, a pod that ends with its node.

mod controllers;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cluster_api::{ClusterError, VolumeObjects, VolumeWish};
use cluster_volumes::{
    ATTACHMENT_FINALIZER, CONTENT_FINALIZER, DRIVER, FILES, SNAPSHOT_CLASS, SNAPSHOTS, VOLUME_ATTRIBUTE,
    VOLUME_FINALIZER,
};
use serde_json::{Value, json};

use crate::{Inner, SimWorld, state::Cluster};

pub(crate) use controllers::{begin_again, settle};
use controllers::{leave, user};

/// The key prefix of claims.
const CLAIM: &str = "v1/PersistentVolumeClaim ";
/// The key prefix of persistent volumes.
const VOLUME: &str = "v1/PersistentVolume ";
/// The key prefix of attachments.
const ATTACHMENT: &str = "storage.k8s.io/v1/VolumeAttachment ";
/// The key prefix of storage classes.
const CLASS: &str = "storage.k8s.io/v1/StorageClass ";
/// The key prefix of snapshots.
const SNAPSHOT: &str = "snapshot.storage.k8s.io/v1/VolumeSnapshot ";
/// The key prefix of snapshots' contents.
const CONTENT: &str = "snapshot.storage.k8s.io/v1/VolumeSnapshotContent ";
/// The key prefix of snapshots' classes.
const SNAPSHOT_KIND: &str = "snapshot.storage.k8s.io/v1/VolumeSnapshotClass ";
/// The key prefix of snapshots' events, before their namespaces.
const TOLD_SNAPSHOT: &str = "v1/Event snapshots.";
/// The key prefix of claims' events, before their namespaces; Services may have the same names.
const TOLD: &str = "v1/Event claims.";
/// An annotation of the simulation: the node of the pod that uses a claim.
const USER: &str = "simulated-user";
/// The class of snapshots of shares, which comes with the first of them.
const SHARE_SNAPSHOT_CLASS: &str = "csi-azurefile-vsc";
/// The finalizer of a claim in use.
const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// The finalizer of a bound persistent volume.
const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// The deletion time of all objects.
const DELETED: &str = "2026-01-01T00:00:00Z";
/// The time until an attachment to a lost node is deleted: no kubelet confirms the detachment.
const LET_GO: Duration = Duration::from_secs(6 * 60);

type Objects = BTreeMap<String, Value>;

/// A claim added by a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlantedClaim {
    /// Its name; its namespace is `default`.
    pub name: String,
    /// The requested size in GiB.
    pub gib: u64,
    /// Its storage class.
    pub class: String,
    /// Its access modes.
    pub access_modes: Vec<String>,
    /// Whether it requests a block device instead of a filesystem.
    pub block: bool,
    /// The claim that it is a copy of.
    pub source: Option<String>,
    /// The snapshot that it is restored from.
    pub snapshot: Option<String>,
}

impl Default for PlantedClaim {
    fn default() -> Self {
        Self {
            name: "data".to_owned(),
            gib: 1,
            class: "default".to_owned(),
            access_modes: vec!["ReadWriteOnce".to_owned()],
            block: false,
            source: None,
            snapshot: None,
        }
    }
}

impl PlantedClaim {
    /// The object as stored by the API server; `number` makes it unique.
    fn object(&self, number: u64) -> Value {
        let mut claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {
                "namespace": "default", "name": self.name, "uid": format!("{}-{number}", self.name),
                "annotations": {}, "finalizers": [CLAIM_PROTECTION]
            },
            "spec": {
                "accessModes": self.access_modes, "storageClassName": self.class,
                "volumeMode": if self.block { "Block" } else { "Filesystem" },
                "resources": { "requests": { "storage": format!("{}Gi", self.gib) } }
            },
            "status": { "phase": "Pending" }
        });
        if let Some(source) = &self.source {
            claim["spec"]["dataSource"] = json!({ "kind": "PersistentVolumeClaim", "name": source });
        }
        if let Some(snapshot) = &self.snapshot {
            claim["spec"]["dataSource"] =
                json!({ "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot });
        }
        claim
    }
}

fn claim_key(namespace: &str, name: &str) -> String {
    format!("{CLAIM}{namespace}/{name}")
}

fn own(name: &str) -> String {
    claim_key("default", name)
}

fn snapshot_key(namespace: &str, name: &str) -> String {
    format!("{SNAPSHOT}{namespace}/{name}")
}

fn told_key(namespace: &str, name: &str) -> String {
    format!("{TOLD}{namespace}/{name}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn quantity(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 30) {
        format!("{}Gi", bytes >> 30)
    } else {
        bytes.to_string()
    }
}

fn of_kind<'o>(objects: &'o Objects, kind: &'static str) -> impl Iterator<Item = (&'o String, &'o Value)> {
    let from = objects.range(kind.to_owned()..);
    from.take_while(move |(key, _)| key.starts_with(kind))
}

fn keys(objects: &Objects, kind: &'static str) -> Vec<String> {
    of_kind(objects, kind).map(|(key, _)| key.clone()).collect()
}

/// The object with this key, unless it was replaced by another one.
fn same<'o>(objects: &'o mut Objects, key: &str, uid: &str) -> Option<&'o mut Value> {
    let found = objects.get_mut(key);
    found.filter(|object| object["metadata"]["uid"] == uid)
}

fn is_deleted(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

fn is_kept(object: &Value) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|finalizers| !finalizers.is_empty())
}

fn hold(object: &mut Value, finalizer: &str) {
    let finalizers = &mut object["metadata"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(there) if there.iter().any(|one| one == finalizer) => {}
        Some(there) => there.push(json!(finalizer)),
        None => *finalizers = json!([finalizer]),
    }
}

fn let_go(object: &mut Value, finalizer: &str) {
    let finalizers = object.pointer_mut("/metadata/finalizers");
    if let Some(finalizers) = finalizers.and_then(Value::as_array_mut) {
        finalizers.retain(|one| one != finalizer);
    }
}

/// Deletes an object: it stays while it has finalizers.
fn delete(objects: &mut Objects, key: &str) {
    let Some(object) = objects.get_mut(key) else {
        return;
    };
    if is_kept(object) {
        object["metadata"]["deletionTimestamp"] = json!(DELETED);
    } else {
        objects.remove(key);
    }
}

/// The volume objects of a cluster.
pub(crate) fn seen(cluster: &Cluster) -> VolumeObjects {
    let all = |kind: &'static str| -> Vec<Value> {
        let found = of_kind(&cluster.objects, kind);
        found.map(|(_, object)| object.clone()).collect()
    };
    VolumeObjects {
        claims: all(CLAIM),
        volumes: all(VOLUME),
        attachments: all(ATTACHMENT),
        classes: all(CLASS),
        knows_snapshots: true,
        snapshots: all(SNAPSHOT),
        contents: all(CONTENT),
        snapshot_classes: all(SNAPSHOT_KIND),
    }
}

/// Whether a cluster has no volume objects except classes.
pub(crate) fn is_empty(cluster: &Cluster) -> bool {
    let mut kinds = [CLAIM, VOLUME, ATTACHMENT, SNAPSHOT, CONTENT].into_iter();
    kinds.all(|kind| of_kind(&cluster.objects, kind).next().is_none())
}

/// A short description of the wish.
pub(crate) fn describe(wish: &VolumeWish) -> String {
    match wish {
        VolumeWish::Publish { name, .. } => format!("publish {name}"),
        VolumeWish::Grown { name, .. } => format!("grown {name}"),
        VolumeWish::Remove { name, .. } => format!("remove {name}"),
        VolumeWish::Hold { name, .. } => format!("hold {name}"),
        VolumeWish::Attached { name, .. } => format!("attached {name}"),
        VolumeWish::AttachFailed { name, .. } => format!("attach failed {name}"),
        VolumeWish::Detached { name, .. } => format!("detached {name}"),
        VolumeWish::Withdraw { name, .. } => format!("withdraw {name}"),
        VolumeWish::Tell { claim, .. } => format!("tell {}/{}", claim.namespace, claim.name),
        VolumeWish::PublishContent { name, .. } => format!("publish {name}"),
        VolumeWish::RemoveContent { name, .. } => format!("remove {name}"),
        VolumeWish::Taken { snapshot, .. } => format!("taken {}/{}", snapshot.namespace, snapshot.name),
        VolumeWish::TellSnapshot { snapshot, .. } => {
            format!("tell snapshot {}/{}", snapshot.namespace, snapshot.name)
        }
    }
}

/// Applies a wish to an object; its cluster's controllers react.
pub(crate) fn set(cluster: &mut Cluster, wish: &VolumeWish) -> Result<(), ClusterError> {
    let before = seen(cluster);
    write(cluster, wish)?;
    settle(cluster);
    if seen(cluster) != before {
        cluster.changed();
    }
    Ok(())
}

fn write(cluster: &mut Cluster, wish: &VolumeWish) -> Result<(), ClusterError> {
    let number = *cluster.changes.borrow() + 1;
    let objects = &mut cluster.objects;
    match wish {
        VolumeWish::Publish { name, object } => publish(objects, name, object, number)?,
        VolumeWish::Grown {
            name,
            uid,
            bytes,
            claim,
        } => {
            let Some(volume) = same(objects, &format!("{VOLUME}{name}"), uid) else {
                return Ok(());
            };
            let size = quantity(*bytes);
            volume["spec"]["capacity"]["storage"] = json!(size);
            let Some(claim) = claim else {
                return Ok(());
            };
            let key = claim_key(&claim.namespace, &claim.name);
            if let Some(claim) = same(objects, &key, &claim.uid) {
                let status = &mut claim["status"];
                status["allocatedResources"] = json!({ "storage": size });
                status["allocatedResourceStatuses"] = json!({ "storage": "NodeResizePending" });
                status["conditions"] = json!([{ "type": "FileSystemResizePending", "status": "True" }]);
            }
        }
        VolumeWish::Remove { name, uid } => {
            let key = format!("{VOLUME}{name}");
            if let Some(volume) = same(objects, &key, uid) {
                let_go(volume, VOLUME_FINALIZER);
                delete(objects, &key);
            }
        }
        VolumeWish::Hold { name, uid } => {
            let attachment = same(objects, &format!("{ATTACHMENT}{name}"), uid);
            // A deleted attachment cannot get finalizers.
            if let Some(attachment) = attachment.filter(|attachment| !is_deleted(attachment)) {
                hold(attachment, ATTACHMENT_FINALIZER);
            }
        }
        VolumeWish::Attached { name, uid, volume } => {
            if let Some(attachment) = same(objects, &format!("{ATTACHMENT}{name}"), uid) {
                attachment["status"] =
                    json!({ "attached": true, "attachmentMetadata": { VOLUME_ATTRIBUTE: volume } });
            }
        }
        VolumeWish::AttachFailed { name, uid, why } => {
            if let Some(attachment) = same(objects, &format!("{ATTACHMENT}{name}"), uid) {
                attachment["status"] = json!({ "attached": false, "attachError": { "message": why } });
            }
        }
        VolumeWish::Detached { name, uid } => {
            if let Some(attachment) = same(objects, &format!("{ATTACHMENT}{name}"), uid) {
                attachment["status"] = json!({ "attached": false });
                let_go(attachment, ATTACHMENT_FINALIZER);
            }
        }
        VolumeWish::Withdraw { name, uid } => {
            let key = format!("{ATTACHMENT}{name}");
            if same(objects, &key, uid).is_some() {
                delete(objects, &key);
            }
        }
        VolumeWish::Tell { claim, note } => {
            let key = claim_key(&claim.namespace, &claim.name);
            if same(objects, &key, &claim.uid).is_some() {
                let told = json!(format!("{}: {}", note.reason, note.message));
                objects.insert(told_key(&claim.namespace, &claim.name), told);
            }
        }
        VolumeWish::PublishContent { name, object } => publish_content(objects, name, object, number)?,
        VolumeWish::RemoveContent { name, uid } => {
            let key = format!("{CONTENT}{name}");
            if let Some(content) = same(objects, &key, uid) {
                let_go(content, CONTENT_FINALIZER);
                delete(objects, &key);
            }
        }
        VolumeWish::Taken {
            snapshot,
            content,
            bytes,
            ..
        } => {
            let key = snapshot_key(&snapshot.namespace, &snapshot.name);
            if let Some(snapshot) = same(objects, &key, &snapshot.uid) {
                snapshot["status"] = json!({
                    "boundVolumeSnapshotContentName": content, "readyToUse": true, "restoreSize": quantity(*bytes)
                });
            }
        }
        VolumeWish::TellSnapshot { snapshot, note } => {
            let key = snapshot_key(&snapshot.namespace, &snapshot.name);
            if same(objects, &key, &snapshot.uid).is_some() {
                let told = json!(format!("{}: {}", note.reason, note.message));
                objects.insert(
                    format!("{TOLD_SNAPSHOT}{}/{}", snapshot.namespace, snapshot.name),
                    told,
                );
            }
        }
    }
    Ok(())
}

/// Creates a VolumeSnapshotContent with its status, if it does not exist.
fn publish_content(objects: &mut Objects, name: &str, object: &str, number: u64) -> Result<(), ClusterError> {
    let refused = |why: String| ClusterError::Refused {
        act: format!("create the VolumeSnapshotContent {name}"),
        why,
    };
    let mut content: Value = serde_json::from_str(object).map_err(|error| refused(error.to_string()))?;
    if content["kind"] != "VolumeSnapshotContent" || content["metadata"]["name"] != name {
        return Err(refused("it is of another kind or name".to_owned()));
    }
    content["metadata"]["uid"] = json!(format!("{name}-{number}"));
    objects.entry(format!("{CONTENT}{name}")).or_insert(content);
    Ok(())
}

/// Creates a persistent volume, if it does not exist.
fn publish(objects: &mut Objects, name: &str, object: &str, number: u64) -> Result<(), ClusterError> {
    let key = format!("{VOLUME}{name}");
    if objects.contains_key(&key) {
        return Ok(());
    }
    let refused = |why: String| ClusterError::Refused {
        act: format!("create the PersistentVolume {name}"),
        why,
    };
    let mut volume: Value = serde_json::from_str(object).map_err(|error| refused(error.to_string()))?;
    if volume["kind"] != "PersistentVolume" || volume["metadata"]["name"] != name {
        return Err(refused("it is of another kind or name".to_owned()));
    }
    volume["metadata"]["uid"] = json!(format!("{name}-{number}"));
    hold(&mut volume, VOLUME_PROTECTION);
    volume["status"]["phase"] = json!("Available");
    objects.insert(key, volume);
    Ok(())
}

fn plant(cluster: &mut Cluster, claim: &PlantedClaim) -> bool {
    let key = own(&claim.name);
    let fresh = !cluster.objects.contains_key(&key);
    if fresh {
        let number = *cluster.changes.borrow() + 1;
        cluster.objects.insert(key, claim.object(number));
    }
    fresh
}

/// Adds a snapshot of a claim, of the class in every cluster, or of one for shares.
fn plant_snapshot(cluster: &mut Cluster, name: &str, claim: &str) -> bool {
    let key = snapshot_key("default", name);
    if cluster.objects.contains_key(&key) {
        return false;
    }
    let number = *cluster.changes.borrow() + 1;
    let of = cluster.objects.get(&own(claim));
    let of = of.map(|claim| format!("{CLASS}{}", text(&claim["spec"]["storageClassName"])));
    let of = of.and_then(|class| cluster.objects.get(&class));
    let (name_of_class, driver) = if of.is_some_and(|class| class["provisioner"] == FILES) {
        (SHARE_SNAPSHOT_CLASS, FILES)
    } else {
        (SNAPSHOT_CLASS, DRIVER)
    };
    let class = json!({
        "apiVersion": SNAPSHOTS, "kind": "VolumeSnapshotClass", "metadata": { "name": name_of_class },
        "driver": driver, "deletionPolicy": "Delete"
    });
    let of_class = format!("{SNAPSHOT_KIND}{name_of_class}");
    cluster.objects.entry(of_class).or_insert(class);
    let snapshot = json!({
        "apiVersion": SNAPSHOTS, "kind": "VolumeSnapshot",
        "metadata": { "namespace": "default", "name": name, "uid": format!("{name}-{number}") },
        "spec": {
            "volumeSnapshotClassName": name_of_class, "source": { "persistentVolumeClaimName": claim }
        }
    });
    cluster.objects.insert(key, snapshot);
    true
}

fn use_on(cluster: &mut Cluster, name: &str, node: Option<&str>) -> bool {
    let mut nodes = cluster.nodes.values().map(|node| &node.seen);
    let found = nodes.find(|seen| match node {
        Some(end) => seen.name.ends_with(end),
        None => seen.ready && !seen.cordoned,
    });
    let Some(node) = found.map(|seen| seen.name.clone()) else {
        return false;
    };
    let claim = cluster.objects.get_mut(&own(name));
    let Some(claim) = claim.filter(|claim| !is_deleted(claim)) else {
        return false;
    };
    claim["metadata"]["annotations"][USER] = json!(node);
    true
}

fn grow(cluster: &mut Cluster, name: &str, gib: u64) -> bool {
    let Some(claim) = cluster.objects.get(&own(name)) else {
        return false;
    };
    let class = format!("{CLASS}{}", text(&claim["spec"]["storageClassName"]));
    let class = cluster.objects.get(&class);
    let grows = class.is_some_and(|class| class["allowVolumeExpansion"] == true);
    let size = claim["spec"]["resources"]["requests"]["storage"].as_str();
    let size = size.and_then(|size| size.strip_suffix("Gi")?.parse::<u64>().ok());
    if !grows || claim["status"]["phase"] != "Bound" || size.is_none_or(|size| size >= gib) {
        return false;
    }
    if let Some(claim) = cluster.objects.get_mut(&own(name)) {
        claim["spec"]["resources"]["requests"]["storage"] = json!(format!("{gib}Gi"));
    }
    true
}

impl Inner {
    /// A node object is gone: attachments to it are deleted after a time.
    pub(crate) fn lost_node(self: &Arc<Self>, cluster: &mut Cluster, uid: &str, node: &str) {
        settle(cluster);
        let mut attachments = of_kind(&cluster.objects, ATTACHMENT);
        if !attachments.any(|(_, attachment)| attachment["spec"]["nodeName"] == node) {
            return;
        }
        let (uid, node) = (uid.to_owned(), node.to_owned());
        self.later(LET_GO, move |inner| {
            let mut state = inner.state();
            let cluster = state.clusters.get_mut(&uid);
            let Some(cluster) = cluster.filter(|cluster| !cluster.nodes.contains_key(&node)) else {
                return;
            };
            let before = seen(cluster);
            for key in keys(&cluster.objects, ATTACHMENT) {
                if cluster.objects[&key]["spec"]["nodeName"] == node.as_str() {
                    delete(&mut cluster.objects, &key);
                }
            }
            settle(cluster);
            if seen(cluster) != before {
                cluster.changed();
            }
        });
    }
}

impl SimWorld {
    /// Adds a claim to a cluster, as a user would. `false` when one of that name exists.
    pub fn plant_claim(&self, cluster: &str, claim: &PlantedClaim) -> bool {
        self.change_claims(cluster, |cluster| plant(cluster, claim))
    }

    /// Deletes a claim, as a user would: it stays while a pod uses it. `false` when it does not exist.
    pub fn remove_claim(&self, cluster: &str, name: &str) -> bool {
        self.change_claims(cluster, |cluster| {
            let key = own(name);
            let there = cluster.objects.contains_key(&key);
            delete(&mut cluster.objects, &key);
            there
        })
    }

    /// Changes the requested size of a claim to this number of GiB. `false` if a cluster refuses: it has no
    /// volume yet, or one that is as large, or its class does not allow expansion.
    pub fn grow_claim(&self, cluster: &str, name: &str, gib: u64) -> bool {
        self.change_claims(cluster, |cluster| grow(cluster, name, gib))
    }

    /// Adds a snapshot of a claim to a cluster, as a user would. `false` when one of that name exists.
    pub fn plant_snapshot(&self, cluster: &str, name: &str, claim: &str) -> bool {
        self.change_claims(cluster, |cluster| plant_snapshot(cluster, name, claim))
    }

    /// Deletes a snapshot, as a user would. `false` when it does not exist.
    pub fn remove_snapshot(&self, cluster: &str, name: &str) -> bool {
        self.change_claims(cluster, |cluster| {
            let told = format!("{TOLD_SNAPSHOT}default/{name}");
            cluster.objects.remove(&told);
            cluster.objects.remove(&snapshot_key("default", name)).is_some()
        })
    }

    /// The last event of a snapshot.
    pub fn told_of_snapshot(&self, cluster: &str, name: &str) -> Option<String> {
        let state = self.inner.state();
        let objects = &state.clusters.get(cluster)?.objects;
        let told = objects.get(&format!("{TOLD_SNAPSHOT}default/{name}"))?;
        told.as_str().map(str::to_owned)
    }

    /// Schedules a pod that uses a claim on the node whose name ends so, or else on the first schedulable
    /// node; a pod that uses it elsewhere ends. `false` when the claim or node does not exist.
    pub fn use_claim(&self, cluster: &str, name: &str, node: Option<&str>) -> bool {
        self.change_claims(cluster, |cluster| use_on(cluster, name, node))
    }

    /// Ends the pod that uses a claim. `false` when there is none.
    pub fn leave_claim(&self, cluster: &str, name: &str) -> bool {
        self.change_claims(cluster, |cluster| {
            let claim = cluster.objects.get_mut(&own(name));
            let used = claim.filter(|claim| user(claim).is_some());
            used.map(leave).is_some()
        })
    }

    fn change_claims(&self, cluster: &str, act: impl FnOnce(&mut Cluster) -> bool) -> bool {
        let mut state = self.inner.state();
        let cluster = state.cluster(cluster);
        let done = act(cluster);
        if done {
            settle(cluster);
            cluster.changed();
        }
        done
    }

    /// The volume objects of a cluster.
    pub fn storage(&self, cluster: &str) -> VolumeObjects {
        let state = self.inner.state();
        state.clusters.get(cluster).map(seen).unwrap_or_default()
    }

    /// The last event of a claim.
    pub fn told_of_claim(&self, cluster: &str, name: &str) -> Option<String> {
        let state = self.inner.state();
        let objects = &state.clusters.get(cluster)?.objects;
        let told = objects.get(&told_key("default", name))?;
        told.as_str().map(str::to_owned)
    }
}
