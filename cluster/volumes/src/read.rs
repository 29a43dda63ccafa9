//! Parses the volume objects of a cluster.

use std::collections::BTreeMap;

use cluster_api::{ClaimRef, VolumeObjects};
use serde_json::Value;

use crate::{
    ATTACHMENT_FINALIZER, Attachment, Claim, DRIVER, Recipe, Stage, Storage, VOLUME_ATTRIBUTE, Volume,
    parameters,
    quantity::{self, GIB},
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
        let volumes = known.volumes.iter();
        Self {
            claims,
            volumes: volumes
                .filter_map(|(name, volume)| known.volume(name, volume))
                .collect(),
            attachments,
        }
    }
}

/// Objects by name, for look-ups.
struct Known<'a> {
    /// StorageClasses of [`DRIVER`], by name.
    classes: BTreeMap<&'a str, &'a Value>,
    /// PersistentVolumes of [`DRIVER`], by name.
    volumes: BTreeMap<&'a str, &'a Value>,
    /// All claims, by namespace and name.
    claims: BTreeMap<(&'a str, &'a str), &'a Value>,
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
                .filter(|class| class["provisioner"] == DRIVER)
                .filter_map(named)
                .collect(),
            volumes: volumes
                .filter(|volume| volume["spec"]["csi"]["driver"] == DRIVER)
                .filter_map(named)
                .collect(),
            claims: objects
                .claims
                .iter()
                .filter_map(|claim| Some((key(&claim["metadata"])?, claim)))
                .collect(),
        }
    }

    /// `None`: it needs no action.
    fn claim(&self, claim: &Value) -> Option<Claim> {
        let (metadata, spec) = (&claim["metadata"], &claim["spec"]);
        let (namespace, name) = key(metadata)?;
        let uid = text(&metadata["uid"])?;
        let size = size(spec);
        let (volume, stage) = match text(&spec["volumeName"]) {
            Some(volume) => {
                // A claim that names another claim's volume is not bound to it.
                if self.volumes.get(volume)?["spec"]["claimRef"]["uid"] != uid {
                    return None;
                }
                let stage = match &size {
                    Ok(_) => Stage::Bound,
                    Err(why) => Stage::Refused(why.clone()),
                };
                (volume.to_owned(), stage)
            }
            None => {
                let class = text(&metadata["annotations"][BETA_CLASS]);
                let class = class.or_else(|| text(&spec["storageClassName"]))?;
                let stage = self.stage(claim, class, self.classes.get(class)?, &size);
                (format!("pvc-{uid}"), stage)
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
            deleting: is_deleting(metadata),
            stage,
        })
    }

    /// The stage of an unbound claim.
    fn stage(&self, claim: &Value, name: &str, class: &Value, size: &Result<u64, String>) -> Stage {
        let annotations = &claim["metadata"]["annotations"];
        let asked = PROVISIONER.iter().any(|by| annotations[*by] == DRIVER);
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
        if spec["selector"].is_object() {
            return Err(
                "spec.selector: a disk that is made for a claim has no labels to be selected by; make the claim without it".to_owned(),
            );
        }
        let access_modes = access_modes(spec)?;
        let asked = parameters::read(&class["parameters"])?;
        let bytes = size.clone()?;
        let source = match self.content(claim, bytes)? {
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
    fn content(&self, claim: &Value, bytes: u64) -> Result<Content, String> {
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
            (_, "VolumeSnapshot") => {
                return Err(format!(
                    "spec.{field}: there are no snapshots of disks yet; name a PersistentVolumeClaim, or make the claim without it"
                ));
            }
            (_, other) => {
                return Err(format!(
                    "spec.{field}: a disk cannot begin as a copy of a {other}; name a PersistentVolumeClaim, or make the claim without it"
                ));
            }
        }
        if let Some(other) = text(&from["namespace"]).filter(|other| *other != namespace) {
            return Err(format!(
                "spec.{field}: the claim {name} is in the namespace {other}, and a copy is made within one; name a claim of {namespace}"
            ));
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
            there["claimRef"]["uid"] == source["metadata"]["uid"]
                && text(&there["csi"]["volumeAttributes"][VOLUME_ATTRIBUTE]).is_some()
        });
        let Some(there) = there else {
            return Err(format!(
                "spec.{field}: the claim {name} has no disk that was made by {DRIVER} here, and no other can be copied; name another"
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

    fn volume(&self, name: &str, volume: &Value) -> Option<Volume> {
        let (metadata, spec) = (&volume["metadata"], &volume["spec"]);
        let owned = |value: &Value| text(value).map(str::to_owned);
        Some(Volume {
            name: name.to_owned(),
            uid: owned(&metadata["uid"])?,
            id: owned(&spec["csi"]["volumeAttributes"][VOLUME_ATTRIBUTE]),
            bytes: self.told(volume),
            claim: owned(&spec["claimRef"]["uid"]),
            released: matches!(text(&volume["status"]["phase"]), Some("Released" | "Failed")),
            deletes: spec["persistentVolumeReclaimPolicy"] == "Delete",
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

fn access_modes(spec: &Value) -> Result<Vec<String>, String> {
    let modes = texts(&spec["accessModes"]);
    match modes.iter().find(|mode| !ACCESS_MODES.contains(&mode.as_str())) {
        Some(other) => Err(format!(
            "spec.accessModes: a disk is one node's at a time, and {other} is for several; make the claim with ReadWriteOnce"
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

fn is_block(spec: &Value) -> bool {
    spec["volumeMode"] == "Block"
}

fn is_deleting(metadata: &Value) -> bool {
    metadata["deletionTimestamp"].is_string()
}

/// Namespace and name, of metadata or of a reference.
fn key(of: &Value) -> Option<(&str, &str)> {
    Some((text(&of["namespace"])?, text(&of["name"])?))
}

fn named(object: &Value) -> Option<(&str, &Value)> {
    Some((text(&object["metadata"]["name"])?, object))
}

/// A non-empty text.
fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten();
    texts.filter_map(Value::as_str).map(str::to_owned).collect()
}
