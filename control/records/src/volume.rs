//! Volumes of a cluster, among its children: `/c/{uid}/child/volumes/{id}`.
//!
//! A record says that a volume is the cluster's, how large it is to be and whether it is to go, and nothing else: who has it is seen in the
//! fabric, who is to have it in the cluster. Always true: it is written before the volume is made, and goes after the volume and the
//! PersistentVolume are gone; its id follows from the cluster's uid and the PersistentVolume's name; one that was published is never made
//! anew, because what was on it would be missing; [`ObservedRecord::volumes`](crate::ObservedRecord::volumes) is set while there is one.
//!
//! The record of a disk that a tenant made ([`crate::disk`]) says only that the cluster has it: it is there from before the disk is given to
//! a machine of the cluster until no machine has it, and nothing of the disk is made or removed by it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::child;

/// What volumes are called among children.
const KIND: &str = "volumes";

/// A volume that was provisioned for a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRecord {
    /// Format.
    pub v: u32,
    /// Its id in the fabric.
    pub id: String,
    /// The PersistentVolume's name, and the disk's in the node resource group: `pvc-{uid of the claim}`.
    pub name: String,
    /// The uid of the claim that it was made for.
    pub claim: String,
    /// That claim's namespace.
    pub claim_namespace: String,
    /// That claim's name.
    pub claim_name: String,
    /// How large it is to be.
    pub bytes: u64,
    /// The SKU that the storage class asks for, as Azure writes it: shown, of no effect.
    pub sku: String,
    /// Whether it is a share, which all nodes can mount at the same time, or a snapshot of one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// Whether it is a snapshot: a copy of another volume at one moment, which is never attached. Its claim is then a
    /// VolumeSnapshot, and its PersistentVolume a VolumeSnapshotContent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub snapshot: bool,
    /// The id of the volume that it began as a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The key of the record of the disk that it is, where a tenant made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// The PersistentVolume as JSON, until it was seen in the cluster; empty where it was there before the record.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// Whether the PersistentVolume was seen in the cluster.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub published: bool,
    /// Whether it and all that is on it is to go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// When it was written down.
    pub created_at: Timestamp,
}

impl VolumeRecord {
    /// The prefix of a cluster's volumes.
    pub fn all(cluster: &str) -> String {
        child::key(cluster, KIND, "")
    }

    /// Its key.
    pub fn key(cluster: &str, id: &str) -> String {
        child::key(cluster, KIND, id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_pinned() {
        let record = VolumeRecord {
            v: 1,
            id: "abc".to_owned(),
            name: "pvc-u1".to_owned(),
            claim: "u1".to_owned(),
            claim_namespace: "shop".to_owned(),
            claim_name: "data".to_owned(),
            bytes: 1 << 30,
            sku: "StandardSSD_LRS".to_owned(),
            shared: false,
            snapshot: false,
            source: None,
            disk: None,
            object: "{}".to_owned(),
            published: false,
            deleting: false,
            created_at: Timestamp::UNIX_EPOCH,
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(
            text,
            r#"{"v":1,"id":"abc","name":"pvc-u1","claim":"u1","claimNamespace":"shop","claimName":"data","bytes":1073741824,"sku":"StandardSSD_LRS","object":"{}","createdAt":"1970-01-01T00:00:00Z"}"#
        );
        assert_eq!(serde_json::from_str::<VolumeRecord>(&text).unwrap(), record);
        let going = VolumeRecord {
            shared: true,
            snapshot: true,
            source: Some("def".to_owned()),
            disk: Some("/disks/disks/s/g/d".to_owned()),
            object: String::new(),
            published: true,
            deleting: true,
            ..record
        };
        let text = serde_json::to_string(&going).unwrap();
        assert_eq!(
            text,
            r#"{"v":1,"id":"abc","name":"pvc-u1","claim":"u1","claimNamespace":"shop","claimName":"data","bytes":1073741824,"sku":"StandardSSD_LRS","shared":true,"snapshot":true,"source":"def","disk":"/disks/disks/s/g/d","published":true,"deleting":true,"createdAt":"1970-01-01T00:00:00Z"}"#
        );
        assert_eq!(serde_json::from_str::<VolumeRecord>(&text).unwrap(), going);
        assert!(VolumeRecord::key("c", "abc").starts_with(&VolumeRecord::all("c")));
    }
}
