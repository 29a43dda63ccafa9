//! Disks for claims: the driver's objects in the cluster, and the StorageClasses of AKS.
//!
//! It has no pods: the stamp's service provisions and attaches, and a program on each node's machine mounts
//! (`cluster/bootstrap/src/volumes.rs`).
//!
//! Always true: an existing StorageClass stays as it is, as in AKS (`EnsureExists`): a tenant may remove the
//! annotation that makes `default` the cluster's default, or replace a class by another of the same name. A
//! deleted one is created again. Parameters of a class cannot be changed in Kubernetes: those of a later
//! release apply only to clusters without the class.

mod shares;
mod snapshots;

use cluster_api::ObjectRef;
use cluster_volumes::DRIVER;
use serde_json::{Value, json};

use crate::{Addon, Edits, MODE, Place, health};

pub(crate) use shares::SHARES;
pub(crate) use snapshots::SNAPSHOTS;

pub(crate) const DISKS: Addon = Addon {
    name: "disks",
    about: "StorageClasses for disks that outlive pods and nodes (not with `storageProfile.diskCSIDriver.enabled: false`)",
    images: &[],
    built: &[],
    // A deleted object is restored at the next apply of the add-ons: not worth two more watches.
    watches: &[],
    reads: &READS,
    deployments: &[],
    health: health::available,
    edits: Edits::Kept,
    replaced_by: None,
    leaves: &[],
    wanted: |spec| !spec.disks_off,
    objects,
};

const VERSION: &str = "storage.k8s.io/v1";
const KIND: &str = "StorageClass";

/// The default class.
const DEFAULT: &str = "default";
const MANAGED: &str = "managed";
const MANAGED_CSI: &str = "managed-csi";
const MANAGED_PREMIUM: &str = "managed-premium";
const MANAGED_CSI_PREMIUM: &str = "managed-csi-premium";

const STANDARD: &str = "StandardSSD_LRS";
const PREMIUM: &str = "Premium_LRS";

const READS: [ObjectRef; 5] = [
    class_ref(DEFAULT),
    class_ref(MANAGED),
    class_ref(MANAGED_CSI),
    class_ref(MANAGED_PREMIUM),
    class_ref(MANAGED_CSI_PREMIUM),
];

const fn class_ref(name: &'static str) -> ObjectRef {
    ObjectRef {
        version: VERSION,
        kind: KIND,
        namespace: None,
        name,
    }
}

fn objects(place: &Place<'_>) -> Vec<Value> {
    let driver = json!({
        "apiVersion": VERSION, "kind": "CSIDriver", "metadata": { "name": DRIVER },
        "spec": {
            "attachRequired": true,
            "podInfoOnMount": false,
            "fsGroupPolicy": "File",
            "volumeLifecycleModes": ["Persistent"],
            "storageCapacity": false
        }
    });
    with_classes(place, driver, &READS, class)
}

/// A driver's object, and those of its classes that do not exist.
fn with_classes(
    place: &Place<'_>,
    driver: Value,
    classes: &[ObjectRef],
    class: impl Fn(&str) -> Value,
) -> Vec<Value> {
    let missing = classes.iter().filter(|class| place.find(class).is_none());
    std::iter::once(driver)
        .chain(missing.map(|missing| class(missing.name)))
        .collect()
}

/// A class as AKS has it. `binding`: its `volumeBindingMode`.
fn storage_class(name: &str, provisioner: &str, parameters: Value, binding: &str) -> Value {
    json!({
        "apiVersion": VERSION, "kind": KIND,
        "metadata": { "name": name, "labels": { "kubernetes.io/cluster-service": "true", MODE: "EnsureExists" } },
        "provisioner": provisioner,
        "parameters": parameters,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": binding,
        "allowVolumeExpansion": true
    })
}

/// The two oldest use the names from before CSI.
fn class(name: &str) -> Value {
    let old = |sku: &str| json!({ "cachingmode": "ReadOnly", "kind": "Managed", "storageaccounttype": sku });
    let parameters = match name {
        MANAGED => old(STANDARD),
        MANAGED_PREMIUM => old(PREMIUM),
        MANAGED_CSI_PREMIUM => json!({ "skuname": PREMIUM }),
        _ => json!({ "skuname": STANDARD }),
    };
    // The node of the first pod is known before provisioning.
    let mut class = storage_class(name, DRIVER, parameters, "WaitForFirstConsumer");
    if name == DEFAULT {
        class["metadata"]["annotations"] = json!({ "storageclass.kubernetes.io/is-default-class": "true" });
    }
    class
}

#[cfg(test)]
mod tests {
    use cluster_spec::{ClusterSpec, testkit};

    use super::*;
    use crate::{AddonOptions, manifests};

    fn names(spec: &ClusterSpec, read: &[Value]) -> Vec<String> {
        manifests(spec, &AddonOptions::default(), read)
            .iter()
            .filter(|object| object["provisioner"] == DRIVER || object["metadata"]["name"] == DRIVER)
            .map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn one_class_is_the_default_and_all_wait_for_a_pod() {
        let all = manifests(&testkit::cluster(), &AddonOptions::default(), &[]);
        let classes = all.iter().filter(|object| object["kind"] == KIND);
        let classes: Vec<&Value> = classes.filter(|class| class["provisioner"] == DRIVER).collect();
        assert_eq!(classes.len(), READS.len());
        let defaults = classes
            .iter()
            .filter(|class| class["metadata"]["annotations"].is_object());
        assert_eq!(defaults.count(), 1);
        for class in classes {
            assert_eq!(class["volumeBindingMode"], "WaitForFirstConsumer");
            assert_eq!(class["metadata"]["labels"][MODE], "EnsureExists");
        }
    }

    #[test]
    fn a_class_that_is_there_is_its_tenants() {
        let mut mine = class(DEFAULT);
        mine["metadata"]["annotations"] = Value::Null;
        mine["parameters"] = json!({ "skuname": PREMIUM });
        let others = [DRIVER, MANAGED, MANAGED_CSI, MANAGED_PREMIUM, MANAGED_CSI_PREMIUM];
        assert_eq!(names(&testkit::cluster(), &[mine]), others);
    }

    #[test]
    fn a_cluster_without_the_driver_gets_none() {
        let spec = ClusterSpec {
            disks_off: true,
            ..testkit::cluster()
        };
        assert_eq!(names(&spec, &[]), [""; 0]);
    }
}
