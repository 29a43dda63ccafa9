//! A volume's names, and its PersistentVolume.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Claim, Recipe, VOLUME_ATTRIBUTE, VOLUME_FINALIZER, driver, quantity};

/// The annotation with the driver that provisioned a PersistentVolume: Kubernetes leaves its deletion to that
/// driver.
pub(crate) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// The id in the fabric of a cluster's volume: 12 characters of `0-9a-v`. Stable across releases: volumes are
/// found by it.
pub fn id(cluster: &str, volume: &str) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let mut hash = Sha256::new();
    for part in [cluster, volume] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let characters = hash.finalize();
    characters
        .iter()
        .take(12)
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
        .collect()
}

/// The id of a volume's disk, in Azure's format.
pub fn handle(subscription: &str, node_resource_group: &str, volume: &str) -> String {
    format!(
        "/subscriptions/{subscription}/resourceGroups/{node_resource_group}/providers/Microsoft.Compute/disks/{volume}"
    )
}

/// The id of a share in the format of Azure's driver: resource group, storage account, share, disk, uuid,
/// namespace. There are no storage accounts: all shares have the same one.
pub fn share_handle(node_resource_group: &str, volume: &str, namespace: &str) -> String {
    format!("{node_resource_group}#landfall#{volume}###{namespace}")
}

/// The PersistentVolume of a claim. It has no node affinity: a disk can be attached to any node, and every
/// node finds a share.
pub fn persistent_volume(claim: &Claim, recipe: &Recipe, handle: &str, id: &str) -> Value {
    let driver = driver(claim.shared);
    let mut object = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": { "name": claim.volume, "annotations": { PROVISIONED_BY: driver } },
        "spec": {
            "capacity": { "storage": quantity::write(claim.bytes) },
            "accessModes": recipe.access_modes,
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": claim.claim.namespace, "name": claim.claim.name, "uid": claim.claim.uid
            },
            "persistentVolumeReclaimPolicy": if recipe.deletes { "Delete" } else { "Retain" },
            "storageClassName": recipe.class,
            "volumeMode": if recipe.block { "Block" } else { "Filesystem" },
            "csi": {
                "driver": driver, "volumeHandle": handle,
                "volumeAttributes": { VOLUME_ATTRIBUTE: id, "skuName": recipe.sku }
            }
        }
    });
    if recipe.deletes {
        object["metadata"]["finalizers"] = json!([VOLUME_FINALIZER]);
    }
    if !recipe.mount_options.is_empty() {
        object["spec"]["mountOptions"] = json!(recipe.mount_options);
    }
    if !recipe.block {
        object["spec"]["csi"]["fsType"] = json!(recipe.fs_type);
    }
    object
}
