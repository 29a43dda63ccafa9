//! Shares for claims: the driver's object in the cluster, and the StorageClasses of AKS. Always true: as for
//! disks ([`super`]).

use cluster_api::ObjectRef;
use cluster_volumes::FILES;
use serde_json::{Value, json};

use super::{VERSION, class_ref, storage_class, with_classes};
use crate::{Addon, Edits, Place, health};

pub(crate) const SHARES: Addon = Addon {
    name: "shares",
    about: "StorageClasses for shares that pods on all nodes use at the same time (not with `storageProfile.fileCSIDriver.enabled: false`)",
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
    wanted: |spec| !spec.files_off,
    objects,
};

const READS: [ObjectRef; 4] = [
    class_ref("azurefile"),
    class_ref("azurefile-csi"),
    class_ref("azurefile-csi-premium"),
    class_ref("azurefile-premium"),
];

fn objects(place: &Place<'_>) -> Vec<Value> {
    let driver = json!({
        "apiVersion": VERSION, "kind": "CSIDriver", "metadata": { "name": FILES },
        "spec": {
            // Every node finds an existing share.
            "attachRequired": false,
            "podInfoOnMount": false,
            // The files of a share of several nodes are not changed recursively for each pod.
            "fsGroupPolicy": "ReadWriteOnceWithFSType",
            "volumeLifecycleModes": ["Persistent"],
            "storageCapacity": false
        }
    });
    with_classes(place, driver, &READS, class)
}

fn class(name: &str) -> Value {
    let sku = if name.ends_with("premium") {
        "Premium_LRS"
    } else {
        "Standard_LRS"
    };
    // A share is available on every node.
    storage_class(name, FILES, json!({ "skuName": sku }), "Immediate")
}

#[cfg(test)]
mod tests {
    use cluster_spec::{ClusterSpec, testkit};

    use super::*;
    use crate::{AddonOptions, MODE, manifests};

    fn of_shares(spec: &ClusterSpec, read: &[Value]) -> Vec<Value> {
        let all = manifests(spec, &AddonOptions::default(), read).into_iter();
        all.filter(|object| object["provisioner"] == FILES || object["metadata"]["name"] == FILES)
            .collect()
    }

    #[test]
    fn none_is_the_default_and_none_is_attached() {
        let all = of_shares(&testkit::cluster(), &[]);
        assert_eq!(all.len(), 1 + READS.len());
        assert_eq!(all[0]["spec"]["attachRequired"], false);
        for class in &all[1..] {
            assert!(class["metadata"]["annotations"].is_null());
            assert_eq!(class["volumeBindingMode"], "Immediate");
            assert_eq!(class["metadata"]["labels"][MODE], "EnsureExists");
        }
    }

    #[test]
    fn a_class_that_is_there_is_its_tenants_and_without_the_driver_there_is_none() {
        let mine = class("azurefile");
        assert_eq!(of_shares(&testkit::cluster(), &[mine]).len(), READS.len());
        let spec = ClusterSpec {
            files_off: true,
            ..testkit::cluster()
        };
        assert!(of_shares(&spec, &[]).is_empty());
    }
}
