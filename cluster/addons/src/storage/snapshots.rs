//! Snapshots of disks and shares: the kinds of upstream's API group, and the default class. Always true: as for disks
//! ([`super`]).
//!
//! There is no controller in the cluster: the stamp's service takes snapshots. The schemas have the fields that
//! it reads and writes, and those of common manifests.

use cluster_api::ObjectRef;
use cluster_volumes::{DRIVER, SNAPSHOT_CLASS, SNAPSHOTS as VERSION};
use serde_json::{Value, json};

use crate::{Addon, Edits, MODE, Place, health};

pub(crate) const SNAPSHOTS: Addon = Addon {
    name: "snapshots",
    about: "Snapshots of disks and shares, VolumeSnapshots and the class for disks (not with `storageProfile.snapshotController.enabled: false`)",
    images: &[],
    built: &[],
    // As for disks.
    watches: &[],
    reads: &READS,
    deployments: &[],
    health: health::available,
    edits: Edits::Kept,
    replaced_by: None,
    leaves: &[],
    wanted: |spec| !spec.snapshots_off,
    objects,
};

const CLASS_KIND: &str = "VolumeSnapshotClass";
/// The version and kind of definitions.
const DEFINITION: (&str, &str) = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");
/// The name of the definition of classes.
const OF_CLASSES: &str = "volumesnapshotclasses.snapshot.storage.k8s.io";

const READS: [ObjectRef; 2] = [
    ObjectRef {
        version: DEFINITION.0,
        kind: DEFINITION.1,
        namespace: None,
        name: OF_CLASSES,
    },
    ObjectRef {
        version: VERSION,
        kind: CLASS_KIND,
        namespace: None,
        name: SNAPSHOT_CLASS,
    },
];

fn objects(place: &Place<'_>) -> Vec<Value> {
    let [of_classes, class] = &READS;
    let mut objects = vec![snapshots(), contents(), classes()];
    // A server refuses objects of a kind that is not established yet: the class is created at the next apply of the
    // add-ons.
    let known = place.find(of_classes).is_some_and(|found| {
        let mut conditions = found["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| condition["type"] == "Established" && condition["status"] == "True")
    });
    if known && place.find(class).is_none() {
        objects.push(json!({
            "apiVersion": VERSION, "kind": CLASS_KIND,
            "metadata": {
                "name": SNAPSHOT_CLASS,
                "labels": { "kubernetes.io/cluster-service": "true", MODE: "EnsureExists" }
            },
            "driver": DRIVER,
            "deletionPolicy": "Delete",
            "parameters": { "incremental": "true" }
        }));
    }
    objects
}

/// The definition of a kind, with these short names, columns (name, type, path) and schema.
fn definition(
    kind: &str,
    scope: &str,
    short: &[&str],
    columns: &[(&str, &str, &str)],
    schema: &Value,
    has_status: bool,
) -> Value {
    let singular = kind.to_lowercase();
    let plural = if singular.ends_with('s') {
        format!("{singular}es")
    } else {
        format!("{singular}s")
    };
    let columns: Vec<Value> = columns
        .iter()
        .map(|(name, kind, path)| json!({ "name": name, "type": kind, "jsonPath": path }))
        .collect();
    json!({
        "apiVersion": DEFINITION.0, "kind": DEFINITION.1,
        "metadata": {
            "name": format!("{plural}.snapshot.storage.k8s.io"),
            // Required for Kubernetes' own API groups: the URL of the approval.
            "annotations": { "api-approved.kubernetes.io": "https://github.com/kubernetes-csi/external-snapshotter/pull/814" }
        },
        "spec": {
            "group": "snapshot.storage.k8s.io",
            "scope": scope,
            "names": {
                "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": singular, "shortNames": short
            },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": if has_status { json!({ "status": {} }) } else { json!({}) },
                "additionalPrinterColumns": columns,
                "schema": { "openAPIV3Schema": schema }
            }]
        }
    })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn date() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn policy() -> Value {
    json!({ "type": "string", "enum": ["Delete", "Retain"] })
}

/// An immutable text.
fn fixed(name: &str) -> Value {
    json!({
        "type": "string", "maxLength": 1024,
        "x-kubernetes-validations": [{ "rule": "self == oldSelf", "message": format!("{name} is immutable") }]
    })
}

/// An object with exactly one of these two properties.
fn either(one: &str, other: &str) -> Value {
    json!({
        "type": "object",
        "properties": { one: fixed(one), other: fixed(other) },
        "oneOf": [{ "required": [one] }, { "required": [other] }]
    })
}

fn error() -> Value {
    json!({ "type": "object", "properties": { "message": text(), "time": date() } })
}

fn snapshots() -> Value {
    let schema = json!({
        "type": "object", "required": ["spec"],
        "properties": {
            "apiVersion": text(), "kind": text(), "metadata": { "type": "object" },
            "spec": {
                "type": "object", "required": ["source"],
                "properties": {
                    "source": either("persistentVolumeClaimName", "volumeSnapshotContentName"),
                    "volumeSnapshotClassName": { "type": "string", "minLength": 1 }
                }
            },
            "status": {
                "type": "object",
                "properties": {
                    "boundVolumeSnapshotContentName": text(), "creationTime": date(), "readyToUse": { "type": "boolean" },
                    "restoreSize": text(), "error": error(), "volumeGroupSnapshotName": text()
                }
            }
        }
    });
    let columns = [
        ("ReadyToUse", "boolean", ".status.readyToUse"),
        ("SourcePVC", "string", ".spec.source.persistentVolumeClaimName"),
        (
            "SourceSnapshotContent",
            "string",
            ".spec.source.volumeSnapshotContentName",
        ),
        ("RestoreSize", "string", ".status.restoreSize"),
        ("SnapshotClass", "string", ".spec.volumeSnapshotClassName"),
        (
            "SnapshotContent",
            "string",
            ".status.boundVolumeSnapshotContentName",
        ),
        ("CreationTime", "date", ".status.creationTime"),
        ("Age", "date", ".metadata.creationTimestamp"),
    ];
    definition("VolumeSnapshot", "Namespaced", &["vs"], &columns, &schema, true)
}

fn contents() -> Value {
    let schema = json!({
        "type": "object", "required": ["spec"],
        "properties": {
            "apiVersion": text(), "kind": text(), "metadata": { "type": "object" },
            "spec": {
                "type": "object", "required": ["deletionPolicy", "driver", "source", "volumeSnapshotRef"],
                "properties": {
                    "deletionPolicy": policy(), "driver": text(),
                    "source": either("volumeHandle", "snapshotHandle"),
                    "sourceVolumeMode": text(), "volumeSnapshotClassName": text(),
                    "volumeSnapshotRef": {
                        "type": "object",
                        "properties": {
                            "apiVersion": text(), "fieldPath": text(), "kind": text(), "name": text(), "namespace": text(),
                            "resourceVersion": text(), "uid": text()
                        }
                    }
                }
            },
            "status": {
                "type": "object",
                "properties": {
                    "creationTime": { "type": "integer", "format": "int64" }, "readyToUse": { "type": "boolean" },
                    "restoreSize": { "type": "integer", "format": "int64", "minimum": 0 },
                    "snapshotHandle": text(), "error": error(), "volumeGroupSnapshotHandle": text()
                }
            }
        }
    });
    let columns = [
        ("ReadyToUse", "boolean", ".status.readyToUse"),
        ("RestoreSize", "integer", ".status.restoreSize"),
        ("DeletionPolicy", "string", ".spec.deletionPolicy"),
        ("Driver", "string", ".spec.driver"),
        ("VolumeSnapshotClass", "string", ".spec.volumeSnapshotClassName"),
        ("VolumeSnapshot", "string", ".spec.volumeSnapshotRef.name"),
        (
            "VolumeSnapshotNamespace",
            "string",
            ".spec.volumeSnapshotRef.namespace",
        ),
        ("Age", "date", ".metadata.creationTimestamp"),
    ];
    definition(
        "VolumeSnapshotContent",
        "Cluster",
        &["vsc", "vscs"],
        &columns,
        &schema,
        true,
    )
}

fn classes() -> Value {
    let schema = json!({
        "type": "object", "required": ["deletionPolicy", "driver"],
        "properties": {
            "apiVersion": text(), "kind": text(), "metadata": { "type": "object" },
            "deletionPolicy": policy(), "driver": text(),
            "parameters": { "type": "object", "additionalProperties": text() }
        }
    });
    let columns = [
        ("Driver", "string", ".driver"),
        ("DeletionPolicy", "string", ".deletionPolicy"),
        ("Age", "date", ".metadata.creationTimestamp"),
    ];
    definition(
        CLASS_KIND,
        "Cluster",
        &["vsclass", "vsclasses"],
        &columns,
        &schema,
        false,
    )
}

#[cfg(test)]
mod tests {
    use cluster_spec::{ClusterSpec, testkit};

    use super::*;
    use crate::{AddonOptions, manifests};

    fn names(spec: &ClusterSpec, read: &[Value]) -> Vec<String> {
        manifests(spec, &AddonOptions::default(), read)
            .iter()
            .filter(|object| object["kind"] == DEFINITION.1 || object["kind"] == CLASS_KIND)
            .map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn the_class_comes_once_its_kind_is_known_and_is_its_tenants_then() {
        let spec = testkit::cluster();
        let kinds = [
            "volumesnapshots.snapshot.storage.k8s.io",
            "volumesnapshotcontents.snapshot.storage.k8s.io",
            OF_CLASSES,
        ];
        assert_eq!(names(&spec, &[]), kinds);
        let mut known = classes();
        assert_eq!(names(&spec, std::slice::from_ref(&known)), kinds, "not yet");
        known["status"]["conditions"] = json!([{ "type": "Established", "status": "True" }]);
        let with = [&kinds[..], &[SNAPSHOT_CLASS]].concat();
        assert_eq!(names(&spec, std::slice::from_ref(&known)), with);
        let mine =
            json!({ "apiVersion": VERSION, "kind": CLASS_KIND, "metadata": { "name": SNAPSHOT_CLASS } });
        assert_eq!(names(&spec, &[known, mine]), kinds);
    }

    #[test]
    fn a_cluster_without_the_controller_gets_none() {
        let spec = ClusterSpec {
            snapshots_off: true,
            ..testkit::cluster()
        };
        assert_eq!(names(&spec, &[]), [""; 0]);
    }
}
