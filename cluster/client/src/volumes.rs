//! Volumes: reads claims and related objects, and applies the service's wishes.
//!
//! Always true: an object with another uid than the wish is left alone, and a missing one is success; claims
//! are read only if a StorageClass or a PersistentVolume of our drivers exists; PersistentVolumes,
//! VolumeAttachments and snapshots are watched only while some of our drivers exist.

use base_env::Env;
use cluster_api::{ClaimRef, ClusterError, Note, VolumeObjects, VolumeWish};
use cluster_volumes::{
    ATTACHMENT_FINALIZER, CONTENT_FINALIZER, DRIVER, VOLUME_ATTRIBUTE, VOLUME_FINALIZER, is_shared, quantity,
};
use kube::api::WatchParams;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{Cluster, Failure, finalizers, watches::Follower};

/// The path of claims.
pub(crate) const CLAIMS: &str = "/api/v1/persistentvolumeclaims";
/// The path of PersistentVolumes.
pub(crate) const VOLUMES: &str = "/api/v1/persistentvolumes";
/// The path of VolumeAttachments.
pub(crate) const ATTACHMENTS: &str = "/apis/storage.k8s.io/v1/volumeattachments";
/// The path of VolumeSnapshots.
pub(crate) const SNAPSHOTS: &str = "/apis/snapshot.storage.k8s.io/v1/volumesnapshots";
/// The path of VolumeSnapshotContents.
pub(crate) const CONTENTS: &str = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents";
/// The path of VolumeSnapshotClasses.
const SNAPSHOT_CLASSES: &str = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses";
/// The path of StorageClasses.
const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";
/// Others write to these objects as well; a few attempts resolve conflicts.
const ATTEMPTS: usize = 5;
/// The condition of a claim whose volume has grown, and whose node must expand it.
const RESIZE_PENDING: &str = "FileSystemResizePending";
/// The corresponding value in its status.
const NODE_PENDING: &str = "NodeResizePending";
/// The conditions of a claim's expansion: one replaces the others.
const RESIZE_CONDITIONS: [&str; 4] = [
    RESIZE_PENDING,
    "Resizing",
    "ControllerResizeError",
    "NodeResizeError",
];

/// A change of one object.
enum Step<'a> {
    /// Sets a PersistentVolume's capacity.
    Grow(u64),
    /// Tells a claim that its volume has this capacity.
    Follow(u64),
    /// Deletes a PersistentVolume, and removes our finalizer.
    Remove,
    /// Deletes an object.
    Delete,
    /// Adds our finalizer to a VolumeAttachment.
    Hold,
    /// Sets a VolumeAttachment's status to attached, with the id of its volume.
    Attached(&'a str),
    /// Sets the reason in a VolumeAttachment's status why its volume is not attached.
    AttachFailed(&'a str),
    /// Sets a VolumeAttachment's status to detached, and removes our finalizer.
    Detached,
    /// Writes an event of a claim.
    Tell(&'a Note),
    /// Sets the status of a VolumeSnapshotContent or a VolumeSnapshot, unless it is ready already.
    Status(&'a Value),
    /// Deletes a VolumeSnapshotContent, and removes our finalizer.
    RemoveContent,
    /// Writes an event of a VolumeSnapshot, and the error in its status.
    TellSnapshot(&'a Note),
}

impl Cluster {
    pub(crate) async fn list_volumes(&self) -> Result<VolumeObjects, ClusterError> {
        let (classes, volumes) = tokio::try_join!(
            self.list("list StorageClasses", CLASSES),
            self.list("list PersistentVolumes", VOLUMES),
        )?;
        let any_volume = volumes
            .iter()
            .any(|volume| is_ours(&volume["spec"]["csi"]["driver"]));
        let any_class = classes.iter().any(|class| is_ours(&class["provisioner"]));
        let claims = async {
            if any_class || any_volume {
                self.list("list PersistentVolumeClaims", CLAIMS).await
            } else {
                Ok(Vec::new())
            }
        };
        // After the PersistentVolumes: one that is read as released gets no further attachment.
        let (claims, attachments) =
            tokio::try_join!(claims, self.list("list VolumeAttachments", ATTACHMENTS))?;
        // Snapshots may outlive the disks. Contents are listed before VolumeSnapshots: a content whose VolumeSnapshot
        // is missing afterwards has lost it.
        let contents = self
            .list_if_known("list VolumeSnapshotContents", CONTENTS)
            .await?;
        let any_content = contents
            .iter()
            .flatten()
            .any(|content| is_ours(&content["spec"]["driver"]));
        let snapshots = if contents.is_some() && (any_volume || any_content) {
            self.list_if_known("list VolumeSnapshots", SNAPSHOTS).await?
        } else {
            None
        };
        let snapshot_classes = if snapshots.as_ref().is_none_or(Vec::is_empty) {
            Vec::new()
        } else {
            self.list_if_known("list VolumeSnapshotClasses", SNAPSHOT_CLASSES)
                .await?
                .unwrap_or_default()
        };
        let followed = contents.is_some() && (any_volume || any_content);
        self.has_snapshots
            .send_if_modified(|before| std::mem::replace(before, followed) != followed);
        let any = any_volume
            || attachments
                .iter()
                .any(|attachment| attachment["spec"]["attacher"] == DRIVER);
        self.has_volumes
            .send_if_modified(|before| std::mem::replace(before, any) != any);
        Ok(VolumeObjects {
            claims,
            volumes,
            attachments,
            classes,
            knows_snapshots: snapshots.is_some(),
            snapshots: snapshots.unwrap_or_default(),
            contents: contents.unwrap_or_default(),
            snapshot_classes,
        })
    }

    pub(crate) async fn bring_volume(&self, wish: &VolumeWish) -> Result<(), ClusterError> {
        let volume = |name: &str| format!("{VOLUMES}/{name}");
        let attachment = |name: &str| format!("{ATTACHMENTS}/{name}");
        let (path, uid, step) = match wish {
            VolumeWish::Publish { name, object } => return self.publish(name, object).await,
            VolumeWish::Grown {
                name,
                uid,
                bytes,
                claim,
            } => {
                self.settle(&volume(name), uid, &Step::Grow(*bytes)).await?;
                // If this process dies here, the claim still has to be told: see
                // `cluster_volumes::Volume::bytes`.
                match claim {
                    Some(claim) => (path_of(claim), &claim.uid, Step::Follow(*bytes)),
                    None => return Ok(()),
                }
            }
            VolumeWish::Remove { name, uid } => (volume(name), uid, Step::Remove),
            VolumeWish::Hold { name, uid } => (attachment(name), uid, Step::Hold),
            VolumeWish::Attached { name, uid, volume } => (attachment(name), uid, Step::Attached(volume)),
            VolumeWish::AttachFailed { name, uid, why } => (attachment(name), uid, Step::AttachFailed(why)),
            VolumeWish::Detached { name, uid } => (attachment(name), uid, Step::Detached),
            VolumeWish::Withdraw { name, uid } => (attachment(name), uid, Step::Delete),
            VolumeWish::Tell { claim, note } => (path_of(claim), &claim.uid, Step::Tell(note)),
            VolumeWish::PublishContent { name, object } => return self.publish_content(name, object).await,
            VolumeWish::RemoveContent { name, uid } => {
                (format!("{CONTENTS}/{name}"), uid, Step::RemoveContent)
            }
            VolumeWish::Taken {
                snapshot,
                content,
                bytes,
                at,
            } => {
                let status = json!({
                    "boundVolumeSnapshotContentName": content, "readyToUse": true, "creationTime": at,
                    "restoreSize": quantity::write(*bytes), "error": null
                });
                let path = path_of_snapshot(snapshot);
                return self.settle(&path, &snapshot.uid, &Step::Status(&status)).await;
            }
            VolumeWish::TellSnapshot { snapshot, note } => (
                path_of_snapshot(snapshot),
                &snapshot.uid,
                Step::TellSnapshot(note),
            ),
        };
        self.settle(&path, uid, &step).await
    }

    /// Lists objects of a kind that the cluster may not know; `None`: it does not.
    async fn list_if_known(&self, act: &str, path: &str) -> Result<Option<Vec<Value>>, ClusterError> {
        match self.list(act, path).await {
            Ok(items) => Ok(Some(items)),
            Err(failure) if failure.is_absent() => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Creates a VolumeSnapshotContent, and writes its status: two requests, between which this process may
    /// die.
    async fn publish_content(&self, name: &str, object: &str) -> Result<(), ClusterError> {
        let object: Value = serde_json::from_str(object).map_err(|error| ClusterError::Refused {
            act: format!("publish the VolumeSnapshotContent {name}"),
            why: error.to_string(),
        })?;
        let made = self
            .call(
                "publish a VolumeSnapshotContent",
                http::Method::POST,
                CONTENTS,
                "application/json",
                Some(&object),
            )
            .await;
        let path = format!("{CONTENTS}/{name}");
        let there = match made {
            Ok(made) => made,
            Err(failure) if failure.is_conflict() => self.get("read a VolumeSnapshotContent", &path).await?,
            Err(failure) => return Err(failure.into()),
        };
        let of = |object: &Value| object["spec"]["volumeSnapshotRef"]["uid"].clone();
        let Some(uid) = there["metadata"]["uid"]
            .as_str()
            .filter(|_| of(&there) == of(&object))
        else {
            // An existing one of this name for another VolumeSnapshot is left alone.
            return Ok(());
        };
        self.settle(&path, uid, &Step::Status(&object["status"])).await
    }

    /// Creates a PersistentVolume; an existing one of its name is success.
    async fn publish(&self, name: &str, object: &str) -> Result<(), ClusterError> {
        let object: Value = serde_json::from_str(object).map_err(|error| ClusterError::Refused {
            act: format!("publish the PersistentVolume {name}"),
            why: error.to_string(),
        })?;
        match self
            .call(
                "publish a PersistentVolume",
                http::Method::POST,
                VOLUMES,
                "application/json",
                Some(&object),
            )
            .await
        {
            Err(failure) if !failure.is_conflict() => Err(failure.into()),
            _ => Ok(()),
        }
    }

    /// Applies a step to the object at a path, if it exists and has this uid.
    async fn settle(&self, path: &str, uid: &str, step: &Step<'_>) -> Result<(), ClusterError> {
        let mut outcome = Ok(());
        for _ in 0..ATTEMPTS {
            let object = match self.get("read an object of a volume", path).await {
                Err(failure) if failure.is_absent() => return Ok(()),
                other => other?,
            };
            if object["metadata"]["uid"] != uid {
                return Ok(());
            }
            outcome = self.step(path, object, step).await;
            if !outcome.as_ref().is_err_and(Failure::is_conflict) {
                break;
            }
        }
        match outcome {
            // It was deleted meanwhile.
            Err(failure) if failure.is_absent() => Ok(()),
            other => Ok(other?),
        }
    }

    async fn step(&self, path: &str, mut object: Value, step: &Step<'_>) -> Result<(), Failure> {
        let status = format!("{path}/status");
        match step {
            Step::Grow(bytes) => {
                if let Some(patch) = grown(&object, *bytes) {
                    self.merge("write the capacity of a PersistentVolume", path, &patch)
                        .await?;
                }
            }
            Step::Follow(bytes) => {
                let now = self.env.clock.now().to_string();
                if let Some(patch) = follows(&object, *bytes, &now) {
                    let act = "write the status of a PersistentVolumeClaim";
                    object = self.merge(act, &status, &patch).await?;
                    let message = "The disk has grown, and its node follows when a pod uses it";
                    self.tell(
                        &object,
                        "PersistentVolumeClaim",
                        false,
                        "FileSystemResizeRequired",
                        message,
                    )
                    .await;
                }
            }
            Step::Remove => {
                if !is_deleting(&object) {
                    self.delete_exactly("delete a PersistentVolume", path, &object)
                        .await?;
                    // It still exists as long as it has a finalizer.
                    let found = self.get("read a PersistentVolume", path).await?;
                    if found["metadata"]["uid"] != object["metadata"]["uid"] {
                        return Ok(());
                    }
                    object = found;
                }
                if let Some(patch) = finalizers::patch(&object, VOLUME_FINALIZER, false) {
                    self.merge("write the finalizers of a PersistentVolume", path, &patch)
                        .await?;
                }
            }
            Step::Delete => {
                if !is_deleting(&object) {
                    self.delete_exactly("delete a VolumeAttachment", path, &object)
                        .await?;
                }
            }
            Step::Hold => {
                // A deleted object accepts no more finalizers.
                let patch = finalizers::patch(&object, ATTACHMENT_FINALIZER, true);
                if let Some(patch) = patch.filter(|_| !is_deleting(&object)) {
                    self.merge("write the finalizers of a VolumeAttachment", path, &patch)
                        .await?;
                }
            }
            Step::AttachFailed(why) => {
                let told = object["status"]["attachError"]["message"] == *why;
                if !told && object["status"]["attached"] != true {
                    let now = self.env.clock.now().to_string();
                    let patch = json!({
                        "metadata": { "uid": object["metadata"]["uid"] },
                        "status": { "attached": false, "attachError": { "message": why, "time": now } }
                    });
                    self.merge("write the status of a VolumeAttachment", &status, &patch)
                        .await?;
                }
            }
            Step::Attached(_) | Step::Detached => {
                let volume = match step {
                    Step::Attached(volume) => Some(*volume),
                    _ => None,
                };
                if let Some(patch) = attached_patch(&object, volume) {
                    let act = "write the status of a VolumeAttachment";
                    object = self.merge(act, &status, &patch).await?;
                }
                // The finalizer is removed last: nothing can be written to the object afterwards.
                let release = finalizers::patch(&object, ATTACHMENT_FINALIZER, false);
                if let Some(patch) = release.filter(|_| volume.is_none()) {
                    self.merge("write the finalizers of a VolumeAttachment", path, &patch)
                        .await?;
                }
            }
            Step::Status(wanted) => {
                if object["status"]["readyToUse"] != true {
                    let patch = json!({
                        "metadata": { "uid": object["metadata"]["uid"] },
                        "status": wanted
                    });
                    self.merge("write the status of a snapshot", &status, &patch)
                        .await?;
                }
            }
            Step::RemoveContent => {
                // Also a content that is not being deleted: its snapshot is gone.
                if !is_deleting(&object) {
                    self.delete_exactly("delete a VolumeSnapshotContent", path, &object)
                        .await?;
                    // It still exists as long as it has a finalizer.
                    let found = self.get("read a VolumeSnapshotContent", path).await?;
                    if found["metadata"]["uid"] != object["metadata"]["uid"] {
                        return Ok(());
                    }
                    object = found;
                }
                if let Some(patch) = finalizers::patch(&object, CONTENT_FINALIZER, false) {
                    let act = "write the finalizers of a VolumeSnapshotContent";
                    self.merge(act, path, &patch).await?;
                }
            }
            Step::TellSnapshot(note) => {
                self.tell(
                    &object,
                    "VolumeSnapshot",
                    note.warning,
                    note.reason,
                    &note.message,
                )
                .await;
                if object["status"]["error"]["message"] != note.message.as_str() {
                    let now = self.env.clock.now().to_string();
                    let patch = json!({
                        "metadata": { "uid": object["metadata"]["uid"] },
                        "status": { "readyToUse": false, "error": { "message": note.message, "time": now } }
                    });
                    self.merge("write the status of a snapshot", &status, &patch)
                        .await?;
                }
            }
            Step::Tell(note) => {
                self.tell(
                    &object,
                    "PersistentVolumeClaim",
                    note.warning,
                    note.reason,
                    &note.message,
                )
                .await;
            }
        }
        Ok(())
    }

    /// Deletes an object, unless it was replaced by another of its name.
    async fn delete_exactly(&self, act: &str, path: &str, object: &Value) -> Result<(), Failure> {
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": { "uid": object["metadata"]["uid"] }
        });
        self.call(
            act,
            http::Method::DELETE,
            path,
            "application/json",
            Some(&options),
        )
        .await?;
        Ok(())
    }
}

fn path_of(claim: &ClaimRef) -> String {
    format!(
        "/api/v1/namespaces/{}/persistentvolumeclaims/{}",
        claim.namespace, claim.name
    )
}

fn path_of_snapshot(snapshot: &ClaimRef) -> String {
    format!(
        "/apis/snapshot.storage.k8s.io/v1/namespaces/{}/volumesnapshots/{}",
        snapshot.namespace, snapshot.name
    )
}

fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Whether this is the name of one of our drivers.
fn is_ours(driver: &Value) -> bool {
    driver.as_str().and_then(is_shared).is_some()
}

/// A quantity of an object, in bytes.
fn bytes_of(value: &Value) -> Option<u64> {
    value.as_str().and_then(quantity::read)
}

/// The patch that gives a PersistentVolume at least this capacity, if needed.
fn grown(volume: &Value, bytes: u64) -> Option<Value> {
    let there = bytes_of(&volume["spec"]["capacity"]["storage"]);
    if there.is_some_and(|there| there >= bytes) {
        return None;
    }
    Some(json!({
        "metadata": { "uid": volume["metadata"]["uid"] },
        "spec": { "capacity": { "storage": quantity::write(bytes) } }
    }))
}

/// The patch of a claim's status that makes its node expand the volume, if needed. The kubelet acts only on
/// pending expansions, and removes status and conditions afterwards.
fn follows(claim: &Value, bytes: u64, now: &str) -> Option<Value> {
    let status = &claim["status"];
    // A claim without a capacity yet gets it from its PersistentVolume.
    if bytes_of(&status["capacity"]["storage"]).is_none_or(|has| has >= bytes) {
        return None;
    }
    let told = bytes_of(&status["allocatedResources"]["storage"]) == Some(bytes);
    let stage = status["allocatedResourceStatuses"]["storage"].as_str();
    if told && matches!(stage, Some(NODE_PENDING | "NodeResizeInProgress")) {
        return None;
    }
    let kind = |condition: &Value| condition["type"].as_str().unwrap_or_default().to_owned();
    let there = status["conditions"].as_array().cloned().unwrap_or_default();
    let (resizing, mut conditions): (Vec<Value>, Vec<Value>) = there
        .into_iter()
        .partition(|condition| RESIZE_CONDITIONS.contains(&kind(condition).as_str()));
    let pending = resizing
        .into_iter()
        .find(|condition| kind(condition) == RESIZE_PENDING && condition["status"] == "True");
    conditions.push(pending.unwrap_or_else(|| {
        json!({
            "type": RESIZE_PENDING, "status": "True", "lastTransitionTime": now,
            "message": "The filesystem grows on the node that has the disk, when a pod uses it"
        })
    }));
    Some(json!({
        "metadata": {
            "uid": claim["metadata"]["uid"], "resourceVersion": claim["metadata"]["resourceVersion"]
        },
        "status": {
            "allocatedResources": { "storage": quantity::write(bytes) },
            "allocatedResourceStatuses": { "storage": NODE_PENDING },
            "conditions": conditions
        }
    }))
}

/// The needed changes of a VolumeAttachment's status, if any; `volume`: the id of the attached volume. Kubelets hand its
/// metadata to the node's driver.
fn attached_patch(attachment: &Value, volume: Option<&str>) -> Option<Value> {
    let status = &attachment["status"];
    let errors = [&status["attachError"], &status["detachError"]];
    let metadata = match volume {
        Some(volume) => json!({ VOLUME_ATTRIBUTE: volume }),
        None => Value::Null,
    };
    if status["attached"] == volume.is_some()
        && status["attachmentMetadata"] == metadata
        && errors.iter().all(|error| error.is_null())
    {
        return None;
    }
    Some(json!({
        "metadata": { "uid": attachment["metadata"]["uid"] },
        "status": {
            "attached": volume.is_some(), "attachmentMetadata": metadata, "attachError": null, "detachError": null
        }
    }))
}

/// Watches a list of these objects; nothing while there are none of the driver.
pub(crate) async fn follow(
    env: &Env,
    client: &kube::Client,
    sender: &watch::Sender<u64>,
    path: &str,
    mut in_use: watch::Receiver<bool>,
) {
    loop {
        let wanted = *in_use.borrow_and_update();
        if !wanted {
            if in_use.changed().await.is_err() {
                return;
            }
            continue;
        }
        let mut follower = Follower::new(client.clone(), path.to_owned(), WatchParams::default());
        tokio::select! {
            changed = in_use.changed() => if changed.is_err() { return },
            () = follower.follow(env, sender) => {}
        }
    }
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
