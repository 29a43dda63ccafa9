//! Disks of a subscription, and snapshots of disks, that tenants make: `/disks/{disks or snapshots}/{s}/{group}/{name}` in lower case.
//!
//! Always true: a record is written before its volume is made, and says whether it was made ([`DiskRecord::there`]): a volume that was made
//! is never made anew, because what was on it would be missing. A record is removed in the transaction that says that its volume may go
//! ([`crate::unknown::removed`]). A cluster has a disk from the transaction in which [`DiskRecord::holder`] names it to the one in which it
//! does not, and the fabric gives the disk to no machine of another cluster meanwhile; a record with a holder is not removed.

use std::collections::BTreeMap;

use arm_ids::ResourcePath;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The prefix of all of them.
pub const DISKS: &str = "/disks/";

/// The label of a volume in the fabric with the key of its record.
pub const DISK_LABEL: &str = "disk";

/// A disk or a snapshot that a tenant has made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskRecord {
    /// Format.
    pub v: u32,
    /// Its identity over its life, `[0-9a-v]{10}`; one made anew under the same name gets another.
    pub uid: String,
    /// GUID of the subscription.
    pub subscription: String,
    /// Group, as in the request that made it.
    pub resource_group: String,
    /// Name, as in the request that made it.
    pub name: String,
    /// Region.
    pub location: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Grows by one with each accepted change.
    pub generation: u64,
    /// Whether it is a snapshot: a copy of a disk at one moment, which no machine gets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub snapshot: bool,
    /// The SKU, as Azure writes it: shown, of no effect.
    pub sku: String,
    /// How large it is to be, in bytes: a whole number of GiB.
    pub bytes: u64,
    /// Its canonical properties, without size and SKU.
    pub properties: Value,
    /// The id of the volume that it begins as a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How large its volume was seen to be; 0 before it was made.
    #[serde(default)]
    pub there: u64,
    /// Why its volume is not as it is to be, once that has failed several times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The uid of the cluster that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed by a request.
    pub modified_at: Timestamp,
}

/// The key of a disk, or of a snapshot. With an empty name, the prefix of its group's; with an empty group, of the subscription's.
pub fn key(snapshot: bool, subscription: &str, group: &str, name: &str) -> String {
    let kind = if snapshot { "snapshots" } else { "disks" };
    let folded = |text: &str| text.to_ascii_lowercase().replace('%', "%25").replace('/', "%2f");
    let prefix = format!("{DISKS}{kind}/{}/", folded(subscription));
    if group.is_empty() {
        return prefix;
    }
    format!("{prefix}{}/{}", folded(group), folded(name))
}

/// The ARM id of a disk or of a snapshot of a disk, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskId {
    /// Whether it is a snapshot's.
    pub snapshot: bool,
    /// The subscription.
    pub subscription: String,
    /// The group.
    pub resource_group: String,
    /// The name.
    pub name: String,
}

impl DiskId {
    /// Reads it; `None`: it is another resource's, or none.
    pub fn parse(id: &str) -> Option<Self> {
        let path = ResourcePath::parse(id).ok()?;
        let snapshot = path.type_is("snapshots");
        let known = path.namespace_is("Microsoft.Compute") && (snapshot || path.type_is("disks"));
        if !known || !path.is_item() || path.parent.is_some() {
            return None;
        }
        Some(Self {
            snapshot,
            name: path.name(0)?.to_owned(),
            subscription: path.subscription?,
            resource_group: path.resource_group?,
        })
    }

    /// The key of its record, where a tenant made it.
    pub fn key(&self) -> String {
        key(
            self.snapshot,
            &self.subscription,
            &self.resource_group,
            &self.name,
        )
    }
}

impl DiskRecord {
    /// Its key.
    pub fn key(&self) -> String {
        key(
            self.snapshot,
            &self.subscription,
            &self.resource_group,
            &self.name,
        )
    }

    /// The id of its volume in the fabric. Volumes of claims have ids of another length.
    pub fn volume(&self) -> String {
        let kind = if self.snapshot { 's' } else { 'd' };
        format!("{kind}{}", self.uid)
    }

    /// The labels of its volume.
    pub fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (DISK_LABEL.to_owned(), self.key()),
            ("disk-name".to_owned(), self.name.clone()),
        ])
    }

    /// Whether its volume was made.
    pub fn is_made(&self) -> bool {
        self.there > 0
    }

    /// Whether its volume is as it is to be, as far as is known.
    pub fn is_settled(&self) -> bool {
        self.there >= self.bytes && self.failure.is_none()
    }

    /// `provisioningState`
    pub fn state(&self) -> &'static str {
        match () {
            () if self.failure.is_some() => "Failed",
            () if !self.is_made() => "Creating",
            () if self.there < self.bytes => "Updating",
            () => "Succeeded",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> DiskRecord {
        DiskRecord {
            v: 1,
            uid: "0123456789".to_owned(),
            subscription: "S".to_owned(),
            resource_group: "G".to_owned(),
            name: "Data".to_owned(),
            location: "local".to_owned(),
            tags: BTreeMap::new(),
            generation: 1,
            snapshot: false,
            sku: "Premium_LRS".to_owned(),
            bytes: 1 << 30,
            properties: serde_json::json!({}),
            source: None,
            there: 0,
            failure: None,
            holder: None,
            created_at: Timestamp::UNIX_EPOCH,
            modified_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_pinned() {
        let text = serde_json::to_string(&record()).unwrap();
        assert_eq!(
            text,
            r#"{"v":1,"uid":"0123456789","subscription":"S","resourceGroup":"G","name":"Data","location":"local","tags":{},"generation":1,"sku":"Premium_LRS","bytes":1073741824,"properties":{},"there":0,"createdAt":"1970-01-01T00:00:00Z","modifiedAt":"1970-01-01T00:00:00Z"}"#
        );
        assert_eq!(serde_json::from_str::<DiskRecord>(&text).unwrap(), record());
    }

    #[test]
    fn names_ignore_case_and_are_one_segment() {
        assert_eq!(record().key(), "/disks/disks/s/g/data");
        assert!(record().key().starts_with(&key(false, "s", "", "")));
        assert!(!key(false, "s", "g2", "d").starts_with(&key(false, "s", "g", "")));
        assert_eq!(key(true, "s", "g", "a/b").matches('/').count(), 5);
        let snapshot = DiskRecord {
            snapshot: true,
            ..record()
        };
        assert_ne!(snapshot.key(), record().key());
        assert_eq!((record().volume().len(), snapshot.volume().len()), (11, 11));
        assert_ne!(snapshot.volume(), record().volume());
    }

    #[test]
    fn an_id_is_that_of_a_disk_or_of_a_snapshot() {
        let id = |end: &str| format!("/subscriptions/S/resourceGroups/G/providers/Microsoft.Compute/{end}");
        let disk = DiskId::parse(&id("disks/Data")).unwrap();
        assert_eq!((disk.key(), disk.snapshot), (record().key(), false));
        let taken = DiskId::parse(&id("Snapshots/data")).unwrap();
        assert_eq!(taken.key(), key(true, "s", "g", "data"));
        for other in [
            "h",
            "",
            &id("virtualMachines/data"),
            &id("disks"),
            &id("disks/a/b/c"),
        ] {
            assert_eq!(DiskId::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_state_follows_from_what_was_made() {
        let mut disk = record();
        assert_eq!((disk.state(), disk.is_settled()), ("Creating", false));
        disk.there = disk.bytes;
        assert_eq!((disk.state(), disk.is_settled()), ("Succeeded", true));
        disk.bytes *= 2;
        assert_eq!((disk.state(), disk.is_settled()), ("Updating", false));
        disk.failure = Some("no".to_owned());
        assert_eq!((disk.state(), disk.is_settled()), ("Failed", false));
    }
}
