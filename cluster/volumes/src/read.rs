//! Parses the volume objects of a cluster.

use std::collections::BTreeMap;

use cluster_api::{ClaimRef, VolumeObjects};
use serde_json::Value;

use crate::{
    ATTACHMENT_FINALIZER, Attachment, Claim, DRIVER, Recipe, Stage, Storage, VOLUME_ATTRIBUTE, Volume,
    driver, is_shared, parameters,
    quantity::{self, GIB},
    render::PROVISIONED_BY,
    snapshots,
};

/// Azure's largest disk.
const MOST_GIB: u64 = 32_767;
/// Annotations with the provisioner of a claim, set by Kubernetes.
const PROVISIONER: [&str; 2] = [
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
];
/// The annotation with the node for which a claim is to be provisioned, set by the scheduler.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The old annotation with a claim's class; it takes precedence over the field.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// The access modes of a volume on one node at a time.
const ACCESS_MODES: [&str; 2] = ["ReadWriteOnce", "ReadWriteOncePod"];
/// The further access modes of a share.
const SHARED_MODES: [&str; 2] = ["ReadWriteMany", "ReadOnlyMany"];
/// The field with a claim's size.
const SIZE: &str = "spec.resources.requests.storage";

impl Storage {
    /// The objects of our driver.
    pub fn read(objects: &VolumeObjects) -> Self {
        let known = Known::of(objects);
        let claims = objects.claims.iter();
        let mut claims: Vec<Claim> = claims.filter_map(|claim| known.claim(claim)).collect();
        claims.sort_by(|a, b| a.claim.uid.cmp(&b.claim.uid));
        let mut attachments: Vec<Attachment> = objects.attachments.iter().filter_map(attachment).collect();
        attachments.sort_by(|a, b| a.name.cmp(&b.name));
        let mut snapshots: Vec<_> = objects
            .snapshots
            .iter()
            .filter_map(|snapshot| known.snapshot(snapshot))
            .collect();
        snapshots.sort_by(|a, b| a.snapshot.uid.cmp(&b.snapshot.uid));
        let contents = known.contents.values();
        let volumes = known.volumes.iter();
        Self {
            knows_snapshots: objects.knows_snapshots,
            snapshots,
            contents: contents
                .filter_map(|content| snapshots::content(&known, content))
                .collect(),
            claims,
            volumes: volumes
                .filter_map(|(name, volume)| known.volume(name, volume))
                .collect(),
            attachments,
        }
    }
}

/// Objects by name, for look-ups.
pub(crate) struct Known<'a> {
    /// StorageClasses of our drivers, by name.
    classes: BTreeMap<&'a str, &'a Value>,
    /// PersistentVolumes of our drivers, by name.
    pub(crate) volumes: BTreeMap<&'a str, &'a Value>,
    /// All claims, by namespace and name.
    pub(crate) claims: BTreeMap<(&'a str, &'a str), &'a Value>,
    /// Whether VolumeSnapshots were listed.
    pub(crate) knows_snapshots: bool,
    /// VolumeSnapshots, by namespace and name.
    pub(crate) snapshots: BTreeMap<(&'a str, &'a str), &'a Value>,
    /// VolumeSnapshotContents of our drivers, by name.
    pub(crate) contents: BTreeMap<&'a str, &'a Value>,
    /// VolumeSnapshotClasses, by name.
    pub(crate) snapshot_classes: BTreeMap<&'a str, &'a Value>,
}

/// The initial content of a volume.
enum Content {
    /// Empty.
    Nothing,
    /// A copy of this PersistentVolume's volume.
    Copy(String),
    /// A copy of a source that does not exist yet.
    NotYet,
}

impl<'a> Known<'a> {
    fn of(objects: &'a VolumeObjects) -> Self {
        let classes = objects.classes.iter();
        let volumes = objects.volumes.iter();
        Self {
            classes: classes
                .filter(|class| shared(&class["provisioner"]).is_some())
                .filter_map(named)
                .collect(),
            volumes: volumes
                .filter(|volume| shared(&volume["spec"]["csi"]["driver"]).is_some())
                .filter_map(named)
                .collect(),
            claims: objects
                .claims
                .iter()
                .filter_map(|claim| Some((key(&claim["metadata"])?, claim)))
                .collect(),
            knows_snapshots: objects.knows_snapshots,
            snapshots: objects
                .snapshots
                .iter()
                .filter_map(|snapshot| Some((key(&snapshot["metadata"])?, snapshot)))
                .collect(),
            contents: objects
                .contents
                .iter()
                .filter(|content| shared(&content["spec"]["driver"]).is_some())
                .filter_map(named)
                .collect(),
            snapshot_classes: objects.snapshot_classes.iter().filter_map(named).collect(),
        }
    }

    /// `None`: it needs no action.
    fn claim(&self, claim: &Value) -> Option<Claim> {
        let (metadata, spec) = (&claim["metadata"], &claim["spec"]);
        let (namespace, name) = key(metadata)?;
        let uid = text(&metadata["uid"])?;
        let size = size(spec);
        let (volume, shared, stage) = match text(&spec["volumeName"]) {
            Some(volume) => {
                let there = &self.volumes.get(volume)?["spec"];
                // A claim that names another claim's volume is not bound to it.
                if there["claimRef"]["uid"] != uid {
                    return None;
                }
                let stage = match &size {
                    Ok(_) => Stage::Bound,
                    Err(why) => Stage::Refused(why.clone()),
                };
                (volume.to_owned(), shared(&there["csi"]["driver"])?, stage)
            }
            None => {
                let class = text(&metadata["annotations"][BETA_CLASS]);
                let class = class.or_else(|| text(&spec["storageClassName"]))?;
                let found = self.classes.get(class)?;
                let stage = self.stage(claim, class, found, &size);
                (format!("pvc-{uid}"), shared(&found["provisioner"])?, stage)
            }
        };
        Some(Claim {
            claim: ClaimRef {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                uid: uid.to_owned(),
            },
            volume,
            bytes: size.unwrap_or_default(),
            shared,
            deleting: is_deleting(metadata),
            stage,
        })
    }

    /// The stage of an unbound claim.
    fn stage(&self, claim: &Value, name: &str, class: &Value, size: &Result<u64, String>) -> Stage {
        let annotations = &claim["metadata"]["annotations"];
        let asked = PROVISIONER
            .iter()
            .any(|by| annotations[*by] == class["provisioner"]);
        let waits = class["volumeBindingMode"] == "WaitForFirstConsumer";
        if !asked || (waits && text(&annotations[SELECTED_NODE]).is_none()) {
            return Stage::Waiting;
        }
        match self.recipe(claim, name, class, size) {
            Ok(Some(recipe)) => Stage::Wanted(Box::new(recipe)),
            Ok(None) => Stage::Waiting,
            Err(why) => Stage::Refused(why),
        }
    }

    /// `None`: its source does not exist yet.
    fn recipe(
        &self,
        claim: &Value,
        name: &str,
        class: &Value,
        size: &Result<u64, String>,
    ) -> Result<Option<Recipe>, String> {
        let spec = &claim["spec"];
        let shared = shared(&class["provisioner"]) == Some(true);
        if shared && is_block(spec) {
            return Err(
                "spec.volumeMode: a share is a filesystem, and Block is for disks; make the claim with Filesystem, or with a StorageClass of disks"
                    .to_owned(),
            );
        }
        if spec["selector"].is_object() {
            return Err(
                "spec.selector: a disk that is made for a claim has no labels to be selected by; make the claim without it".to_owned(),
            );
        }
        let access_modes = access_modes(spec, shared)?;
        let asked = parameters::read(&class["parameters"], shared)?;
        let bytes = size.clone()?;
        let source = match self.content(claim, bytes, shared)? {
            Content::Nothing => None,
            Content::Copy(volume) => Some(volume),
            Content::NotYet => return Ok(None),
        };
        Ok(Some(Recipe {
            class: name.to_owned(),
            sku: asked.sku.to_owned(),
            deletes: class["reclaimPolicy"] != "Retain",
            access_modes,
            block: is_block(spec),
            fs_type: asked.fs_type.to_owned(),
            mount_options: texts(&class["mountOptions"]),
            source,
        }))
    }

    /// The initial content of the volume of a claim of this size.
    fn content(&self, claim: &Value, bytes: u64, is_share: bool) -> Result<Content, String> {
        let spec = &claim["spec"];
        let fields = ["dataSourceRef", "dataSource"];
        let Some(field) = fields.into_iter().find(|field| spec[*field].is_object()) else {
            return Ok(Content::Nothing);
        };
        let from = &spec[field];
        let namespace = text(&claim["metadata"]["namespace"]).unwrap_or_default();
        let name = text(&from["name"]).unwrap_or_default();
        match (text(&from["apiGroup"]), text(&from["kind"]).unwrap_or_default()) {
            (None, "PersistentVolumeClaim") => {}
            (Some("snapshot.storage.k8s.io"), "VolumeSnapshot") => {}
            (_, other) => {
                let volume = if is_share { "share" } else { "disk" };
                return Err(format!(
                    "spec.{field}: a {volume} cannot begin as a copy of a {other}; name a PersistentVolumeClaim or a VolumeSnapshot, or make \
                     the claim without it"
                ));
            }
        }
        if let Some(other) = text(&from["namespace"]).filter(|other| *other != namespace) {
            return Err(format!(
                "spec.{field}: the claim {name} is in the namespace {other}, and a copy is made within one; name a claim of {namespace}"
            ));
        }
        if from["kind"] == "VolumeSnapshot" {
            return self.of_snapshot(claim, (bytes, is_share), field, (namespace, name));
        }
        let source = self.claims.get(&(namespace, name)).copied();
        let Some(source) = source.filter(|source| !is_deleting(&source["metadata"])) else {
            return Err(format!(
                "spec.{field}: there is no claim {name} in the namespace {namespace}, or it is being deleted; name another"
            ));
        };
        let Some(volume) = text(&source["spec"]["volumeName"]) else {
            return Ok(Content::NotYet);
        };
        let there = self.volumes.get(volume).copied().filter(|there| {
            let there = &there["spec"];
            shared(&there["csi"]["driver"]) == Some(is_share)
                && there["claimRef"]["uid"] == source["metadata"]["uid"]
                && text(&there["csi"]["volumeAttributes"][VOLUME_ATTRIBUTE]).is_some()
        });
        let Some(there) = there else {
            let by = driver(is_share);
            return Err(format!(
                "spec.{field}: the claim {name} has no volume that was made by {by} here, and no other can be copied; name another"
            ));
        };
        if is_block(spec) != is_block(&there["spec"]) {
            return Err(format!(
                "spec.volumeMode: it is another than that of the claim {name}, of which it is to be a copy; make the claim with the same"
            ));
        }
        let least = capacity(there);
        if least > bytes {
            return Err(format!(
                "{SIZE}: the disk of the claim {name} has {}, and so has a copy at least; make the claim with that",
                quantity::write(least)
            ));
        }
        Ok(Content::Copy(volume.to_owned()))
    }

    /// The initial content of the volume of a claim of this size, for a share or a disk, whose field `field` names a
    /// VolumeSnapshot.
    fn of_snapshot(
        &self,
        claim: &Value,
        (bytes, is_share): (u64, bool),
        field: &str,
        from: (&str, &str),
    ) -> Result<Content, String> {
        let name = from.1;
        let Some(snapshot) = self.snapshots.get(&from).copied() else {
            return Err(format!(
                "spec.{field}: there is no VolumeSnapshot {name} in the namespace {}; name another",
                from.0
            ));
        };
        if snapshot["status"]["readyToUse"] != true {
            return Ok(Content::NotYet);
        }
        let content = text(&snapshot["status"]["boundVolumeSnapshotContentName"]).unwrap_or_default();
        let there = self.contents.get(content).copied().filter(|there| {
            there["spec"]["volumeSnapshotRef"]["uid"] == snapshot["metadata"]["uid"]
                && shared(&there["spec"]["driver"]) == Some(is_share)
                && text(&there["metadata"]["annotations"][VOLUME_ATTRIBUTE]).is_some()
        });
        let Some(there) = there else {
            return Err(format!(
                "spec.{field}: the VolumeSnapshot {name} was not taken by {} here; name another",
                driver(is_share)
            ));
        };
        if is_block(&claim["spec"]) != (there["spec"]["sourceVolumeMode"] == "Block") {
            return Err(format!(
                "spec.volumeMode: it is another than that of the disk that the VolumeSnapshot {name} was taken of; make the claim with the same"
            ));
        }
        let least = there["status"]["restoreSize"].as_u64().unwrap_or_default();
        if least > bytes {
            return Err(format!(
                "{SIZE}: the VolumeSnapshot {name} has {}, and so has a disk that begins with it at least; make the claim with that",
                quantity::write(least)
            ));
        }
        Ok(Content::Copy(content.to_owned()))
    }

    fn volume(&self, name: &str, volume: &Value) -> Option<Volume> {
        let (metadata, spec) = (&volume["metadata"], &volume["spec"]);
        let owned = |value: &Value| text(value).map(str::to_owned);
        let id = owned(&spec["csi"]["volumeAttributes"][VOLUME_ATTRIBUTE]);
        let provisioned = id.is_some() || metadata["annotations"][PROVISIONED_BY] == spec["csi"]["driver"];
        Some(Volume {
            name: name.to_owned(),
            uid: owned(&metadata["uid"])?,
            disk: owned(&spec["csi"]["volumeHandle"])
                .filter(|_| id.is_none() && spec["csi"]["driver"] == DRIVER)
                .filter(|handle| handle.starts_with('/')),
            id,
            bytes: self.told(volume),
            shared: shared(&spec["csi"]["driver"])?,
            claim: owned(&spec["claimRef"]["uid"]),
            released: matches!(text(&volume["status"]["phase"]), Some("Released" | "Failed")),
            // As with the provisioners of CSI drivers: what somebody made by hand is left alone.
            deletes: provisioned && spec["persistentVolumeReclaimPolicy"] == "Delete",
            deleting: is_deleting(metadata),
        })
    }

    /// The size of a volume, as far as its claim was told: two objects hold it, and a process that writes
    /// them may die in between. A claim was told if it has that capacity, or a status that makes the node
    /// expand it.
    fn told(&self, volume: &Value) -> u64 {
        let capacity = capacity(volume);
        let of = &volume["spec"]["claimRef"];
        let claim = key(of).and_then(|key| self.claims.get(&key));
        let Some(claim) = claim.filter(|claim| claim["metadata"]["uid"] == of["uid"]) else {
            return capacity;
        };
        let status = &claim["status"];
        if text(&status["allocatedResourceStatuses"]["storage"]).is_some() {
            return capacity;
        }
        let has = text(&status["capacity"]["storage"]).and_then(quantity::read);
        has.map_or(capacity, |has| has.min(capacity))
    }
}

/// `None`: it is of another driver, or has no PersistentVolume.
fn attachment(object: &Value) -> Option<Attachment> {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    if spec["attacher"] != DRIVER {
        return None;
    }
    let owned = |value: &Value| text(value).map(str::to_owned);
    let mut finalizers = metadata["finalizers"].as_array().into_iter().flatten();
    Some(Attachment {
        name: owned(&metadata["name"])?,
        uid: owned(&metadata["uid"])?,
        volume: owned(&spec["source"]["persistentVolumeName"])?,
        node: owned(&spec["nodeName"])?,
        attached: object["status"]["attached"] == true,
        failure: owned(&object["status"]["attachError"]["message"]),
        held: finalizers.any(|found| found == ATTACHMENT_FINALIZER),
        deleting: is_deleting(metadata),
    })
}

/// The requested size of a claim, in whole GiB.
fn size(spec: &Value) -> Result<u64, String> {
    let asked = text(&spec["resources"]["requests"]["storage"]).unwrap_or_default();
    let Some(bytes) = quantity::read(asked) else {
        return Err(format!("{SIZE}: {asked:?} is not a size such as 10Gi; set one"));
    };
    let gib = bytes.div_ceil(GIB).max(1);
    if gib > MOST_GIB {
        return Err(format!(
            "{SIZE}: {asked} is more than the {MOST_GIB}Gi that a disk has at most; ask for less"
        ));
    }
    Ok(gib * GIB)
}

/// As [`is_shared`], for a field that may be missing.
pub(crate) fn shared(name: &Value) -> Option<bool> {
    is_shared(text(name)?)
}

fn access_modes(spec: &Value, is_share: bool) -> Result<Vec<String>, String> {
    let modes = texts(&spec["accessModes"]);
    let permitted = |mode: &str| ACCESS_MODES.contains(&mode) || is_share && SHARED_MODES.contains(&mode);
    match modes.iter().find(|mode| !permitted(mode.as_str())) {
        Some(other) => Err(format!(
            "spec.accessModes: a disk is one node's at a time, and {other} is for several; make the claim with ReadWriteOnce, or with the \
             StorageClass azurefile-csi"
        )),
        None if modes.is_empty() => {
            Err("spec.accessModes: there is none; make the claim with ReadWriteOnce".to_owned())
        }
        None => Ok(modes),
    }
}

/// `spec.capacity` of a PersistentVolume; 0 if missing or invalid.
fn capacity(volume: &Value) -> u64 {
    let capacity = text(&volume["spec"]["capacity"]["storage"]);
    capacity.and_then(quantity::read).unwrap_or_default()
}

pub(crate) fn is_block(spec: &Value) -> bool {
    spec["volumeMode"] == "Block"
}

pub(crate) fn is_deleting(metadata: &Value) -> bool {
    metadata["deletionTimestamp"].is_string()
}

/// Namespace and name, of metadata or of a reference.
pub(crate) fn key(of: &Value) -> Option<(&str, &str)> {
    Some((text(&of["namespace"])?, text(&of["name"])?))
}

fn named(object: &Value) -> Option<(&str, &Value)> {
    Some((text(&object["metadata"]["name"])?, object))
}

/// A non-empty text.
pub(crate) fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten();
    texts.filter_map(Value::as_str).map(str::to_owned).collect()
}
