//! Snapshots of disks and shares: the requests of VolumeSnapshots, the state of VolumeSnapshotContents, and the
//! rendering of the latter.

use cluster_api::ClaimRef;
use serde_json::{Value, json};

use crate::{
    VOLUME_ATTRIBUTE, driver, is_shared,
    read::{Known, is_block, is_deleting, key, shared, text},
};

/// The API group and version of the objects of snapshots.
pub const SNAPSHOTS: &str = "snapshot.storage.k8s.io/v1";
/// The name of the class in every cluster.
pub const SNAPSHOT_CLASS: &str = "csi-azuredisk-vsc";
/// The finalizer of a VolumeSnapshotContent until its copy is gone; upstream's name.
pub const CONTENT_FINALIZER: &str = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";
/// The annotation of the default class.
const IS_DEFAULT: &str = "snapshot.storage.kubernetes.io/is-default-class";
/// The field with a VolumeSnapshot's claim.
const CLAIM: &str = "spec.source.persistentVolumeClaimName";

/// Parameters of classes without an effect here: names in lower case.
const IGNORED: [&str; 9] = [
    "incremental",
    "usedataplaneapi",
    "tags",
    "tagvaluedelimiter",
    "location",
    "useragent",
    "dataaccessauthmode",
    "instantaccessdurationminutes",
    "enablebursting",
];

/// A VolumeSnapshot of our drivers, or a refused one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its namespace, name and uid.
    pub snapshot: ClaimRef,
    /// The name of its VolumeSnapshotContent, existing or planned: `snapcontent-{uid}`.
    pub content: String,
    /// Whether its status is ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its stage.
    pub stage: SnapshotStage,
}

/// The stage of a VolumeSnapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotStage {
    /// It is ready, or its claim has no disk yet.
    Waiting,
    /// A snapshot must be taken, with these properties.
    Wanted(Box<SnapshotRecipe>),
    /// The request cannot be satisfied: a sentence with a next step.
    Refused(String),
}

/// The properties of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRecipe {
    /// The VolumeSnapshotClass's name.
    pub class: String,
    /// Whether the copy is deleted with the VolumeSnapshot (`deletionPolicy: Delete`).
    pub deletes: bool,
    /// The source PersistentVolume.
    pub volume: String,
    /// The handle of the source.
    pub handle: String,
    /// Whether the source has `volumeMode: Block`.
    pub block: bool,
    /// Whether the source is a share.
    pub shared: bool,
}

/// A VolumeSnapshotContent of our drivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotContent {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The id of the copy in the fabric, from its annotation; `None`: it was not taken here.
    pub id: Option<String>,
    /// Whether it is of a share.
    pub shared: bool,
    /// The uid of the VolumeSnapshot that it is or was bound to.
    pub snapshot: Option<String>,
    /// Whether that VolumeSnapshot is known to be gone, or is being deleted.
    pub orphaned: bool,
    /// The time of the snapshot from its status, in nanoseconds since 1970.
    pub created: Option<i64>,
    /// Whether its status is ready.
    pub ready: bool,
    /// `deletionPolicy: Delete`.
    pub deletes: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// The id of a snapshot, in Azure's format.
pub fn snapshot_handle(subscription: &str, node_resource_group: &str, uid: &str) -> String {
    format!(
        "/subscriptions/{subscription}/resourceGroups/{node_resource_group}/providers/Microsoft.Compute/snapshots/snapshot-{uid}"
    )
}

/// The id of a snapshot of a share. There are no storage accounts: all shares have the same one.
pub fn share_snapshot_handle(node_resource_group: &str, uid: &str) -> String {
    format!("{node_resource_group}#landfall#snapshot-{uid}")
}

/// The VolumeSnapshotContent of a VolumeSnapshot, without its status.
pub fn snapshot_content(snapshot: &Snapshot, recipe: &SnapshotRecipe, id: &str) -> Value {
    json!({
        "apiVersion": SNAPSHOTS, "kind": "VolumeSnapshotContent",
        "metadata": {
            "name": snapshot.content,
            "annotations": { VOLUME_ATTRIBUTE: id },
            "finalizers": [CONTENT_FINALIZER]
        },
        "spec": {
            "deletionPolicy": if recipe.deletes { "Delete" } else { "Retain" },
            "driver": driver(recipe.shared),
            "source": { "volumeHandle": recipe.handle },
            "sourceVolumeMode": if recipe.block { "Block" } else { "Filesystem" },
            "volumeSnapshotClassName": recipe.class,
            "volumeSnapshotRef": {
                "apiVersion": SNAPSHOTS, "kind": "VolumeSnapshot",
                "namespace": snapshot.snapshot.namespace, "name": snapshot.snapshot.name, "uid": snapshot.snapshot.uid
            }
        }
    })
}

/// The status of a VolumeSnapshotContent whose snapshot was taken; `created` in nanoseconds since 1970.
pub fn content_status(handle: &str, bytes: u64, created: i64) -> Value {
    json!({ "snapshotHandle": handle, "creationTime": created, "restoreSize": bytes, "readyToUse": true })
}

impl Known<'_> {
    /// `None`: it is of another driver.
    pub(crate) fn snapshot(&self, snapshot: &Value) -> Option<Snapshot> {
        let metadata = &snapshot["metadata"];
        let (namespace, name) = key(metadata)?;
        let uid = text(&metadata["uid"])?;
        let status = &snapshot["status"];
        let ready = status["readyToUse"] == true;
        let bound = text(&status["boundVolumeSnapshotContentName"]);
        let content = bound.map_or_else(|| format!("snapcontent-{uid}"), str::to_owned);
        let stage = if ready {
            // Its content has the driver's name.
            self.contents.get(content.as_str())?;
            SnapshotStage::Waiting
        } else {
            self.snapshot_stage(snapshot, namespace)?
        };
        Some(Snapshot {
            snapshot: ClaimRef {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                uid: uid.to_owned(),
            },
            content,
            ready,
            deleting: is_deleting(metadata),
            stage,
        })
    }

    /// The stage of a VolumeSnapshot that is not ready; `None`: it is for another driver.
    fn snapshot_stage(&self, snapshot: &Value, namespace: &str) -> Option<SnapshotStage> {
        let class = match self.snapshot_class(snapshot, namespace) {
            Ok(class) => class,
            Err(why) => return Some(SnapshotStage::Refused(why)),
        };
        let of_share = is_shared(text(&class["driver"])?)?;
        Some(
            match self.snapshot_recipe(snapshot, (class, of_share), namespace) {
                Ok(Some(recipe)) => SnapshotStage::Wanted(Box::new(recipe)),
                Ok(None) => SnapshotStage::Waiting,
                Err(why) => SnapshotStage::Refused(why),
            },
        )
    }

    /// Whether the claim of a VolumeSnapshot is for a share, as far as is known.
    fn is_of_share(&self, snapshot: &Value, namespace: &str) -> bool {
        let claim = text(&snapshot["spec"]["source"]["persistentVolumeClaimName"]);
        let claim = claim.and_then(|name| self.claims.get(&(namespace, name)).copied());
        let volume = claim.and_then(|claim| text(&claim["spec"]["volumeName"]));
        let volume = volume.and_then(|volume| self.volumes.get(volume).copied());
        volume.is_some_and(|volume| shared(&volume["spec"]["csi"]["driver"]) == Some(true))
    }

    fn snapshot_class(&self, snapshot: &Value, namespace: &str) -> Result<&Value, String> {
        if let Some(name) = text(&snapshot["spec"]["volumeSnapshotClassName"]) {
            return self.snapshot_classes.get(name).copied().ok_or_else(|| {
                format!("spec.volumeSnapshotClassName: there is no VolumeSnapshotClass {name}; make it, or name {SNAPSHOT_CLASS}")
            });
        }
        let mut classes = self.snapshot_classes.values().copied();
        let by = driver(self.is_of_share(snapshot, namespace));
        let usual =
            |class: &&Value| class["driver"] == by && class["metadata"]["annotations"][IS_DEFAULT] == "true";
        classes.find(usual).ok_or_else(|| {
            format!(
                "spec.volumeSnapshotClassName: it is missing, and no VolumeSnapshotClass is the default of {by}; name one whose driver is {by}"
            )
        })
    }

    /// `None`: its claim has no volume yet. `of_share`: whether the class is one for shares.
    fn snapshot_recipe(
        &self,
        snapshot: &Value,
        (class, of_share): (&Value, bool),
        namespace: &str,
    ) -> Result<Option<SnapshotRecipe>, String> {
        for name in class["parameters"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
        {
            let known = name.to_ascii_lowercase();
            if !IGNORED.contains(&known.as_str()) && !known.starts_with("csi.storage.k8s.io/") {
                return Err(format!(
                    "parameters.{name} of the VolumeSnapshotClass cannot be followed: snapshots are in the node resource group and go with the \
                     cluster; make a VolumeSnapshotClass without it"
                ));
            }
        }
        let source = &snapshot["spec"]["source"];
        let Some(name) = text(&source["persistentVolumeClaimName"]) else {
            return Err(format!(
                "spec.source: a VolumeSnapshot for a VolumeSnapshotContent that is there cannot be made yet; name a claim in {CLAIM}"
            ));
        };
        let Some(claim) = self.claims.get(&(namespace, name)).copied() else {
            return Err(format!(
                "{CLAIM}: there is no claim {name} in the namespace {namespace}; name another"
            ));
        };
        let Some(volume) = text(&claim["spec"]["volumeName"]) else {
            return Ok(None);
        };
        let there = self.volumes.get(volume).copied().filter(|there| {
            let spec = &there["spec"];
            shared(&spec["csi"]["driver"]) == Some(of_share)
                && spec["claimRef"]["uid"] == claim["metadata"]["uid"]
                && text(&spec["csi"]["volumeAttributes"][VOLUME_ATTRIBUTE]).is_some()
        });
        let Some(there) = there else {
            return Err(format!(
                "{CLAIM}: the claim {name} has no volume that was made by {} here, and of no other can a snapshot be taken with this \
                 VolumeSnapshotClass; name another claim, or take a snapshot of a disk of your own with 'az snapshot create'",
                driver(of_share)
            ));
        };
        Ok(Some(SnapshotRecipe {
            class: text(&class["metadata"]["name"]).unwrap_or_default().to_owned(),
            deletes: class["deletionPolicy"] != "Retain",
            volume: volume.to_owned(),
            handle: text(&there["spec"]["csi"]["volumeHandle"])
                .unwrap_or_default()
                .to_owned(),
            block: is_block(&there["spec"]),
            shared: of_share,
        }))
    }
}

/// `None`: it has no name.
pub(crate) fn content(known: &Known<'_>, object: &Value) -> Option<SnapshotContent> {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    let of = &spec["volumeSnapshotRef"];
    let bound = text(&of["uid"]).is_some();
    let snapshot = key(of).and_then(|key| known.snapshots.get(&key).copied());
    let there = snapshot
        .is_some_and(|there| there["metadata"]["uid"] == of["uid"] && !is_deleting(&there["metadata"]));
    let owned = |value: &Value| text(value).map(str::to_owned);
    Some(SnapshotContent {
        name: owned(&metadata["name"])?,
        uid: owned(&metadata["uid"])?,
        id: owned(&metadata["annotations"][VOLUME_ATTRIBUTE]),
        shared: shared(&spec["driver"])?,
        snapshot: owned(&spec["volumeSnapshotRef"]["uid"]),
        orphaned: known.knows_snapshots && bound && !there,
        created: status["creationTime"].as_i64(),
        ready: status["readyToUse"] == true,
        deletes: spec["deletionPolicy"] != "Retain",
        deleting: is_deleting(metadata),
    })
}
