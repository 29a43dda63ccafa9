//! Disks of tenants that objects of a cluster name: what the cluster may take.

use std::{collections::BTreeMap, sync::Arc};

use arm_ids::ResourcePath;
use cluster_volumes::Storage;
use control_planner::DiskSeen;
use control_records::{
    ClusterRecord,
    disk::{DiskId, DiskRecord},
    volume::VolumeRecord,
};
use control_store::{Store, StoreError, Stored, get_record};

use crate::{commit::is_held, rights};

/// What the identity of a cluster needs to be permitted at a disk.
const ATTACH: &str = "Microsoft.Compute/disks/write";

/// For each disk that a PersistentVolume names, that a node is to have and that the cluster does not have yet: what is known of it, or why the
/// cluster does not get it.
pub(crate) async fn named(
    store: &dyn Store,
    cluster: &ClusterRecord,
    volumes: &[Stored<Arc<VolumeRecord>>],
    storage: Option<&Storage>,
) -> Result<BTreeMap<String, Result<DiskSeen, String>>, StoreError> {
    let mut found = BTreeMap::new();
    let Some(storage) = storage else {
        return Ok(found);
    };
    let named = storage.volumes.iter().filter(|volume| {
        let mut attachments = storage.attachments.iter();
        volume.disk.is_some()
            && attachments.any(|attachment| attachment.volume == volume.name && !attachment.deleting)
    });
    for id in named.filter_map(|volume| volume.disk.as_ref()) {
        let key = DiskId::parse(id).map(|id| id.key());
        let mut records = volumes.iter();
        if key.is_some() && records.any(|record| record.value.disk == key) {
            continue;
        }
        if !found.contains_key(id) {
            let disk = look(store, cluster, id).await?;
            found.insert(id.clone(), disk);
        }
    }
    Ok(found)
}

/// A disk of this ARM id.
async fn look(
    store: &dyn Store,
    cluster: &ClusterRecord,
    id: &str,
) -> Result<Result<DiskSeen, String>, StoreError> {
    let path = ResourcePath::parse(id).ok();
    let parsed = DiskId::parse(id).filter(|parsed| !parsed.snapshot);
    let (Some(path), Some(parsed)) = (path, parsed) else {
        return Ok(Err(format!(
            "volumeHandle {id} is not the id of a disk; 'az disk show --query id' prints one"
        )));
    };
    // Before it is said whether there is one: who may not use it is not to know.
    if let Some(why) = rights::refusal(store, cluster, &path, ATTACH).await? {
        return Ok(Err(why));
    }
    let key = parsed.key();
    let Some(found) = get_record::<DiskRecord>(store, &key).await? else {
        return Ok(Err(format!(
            "there is no disk {} in the group {}; make it with 'az disk create', or name another",
            parsed.name, parsed.resource_group
        )));
    };
    let disk = found.value;
    if !disk.is_made() || disk.failure.is_some() {
        let why = disk.failure.as_deref().unwrap_or("it is being made");
        return Ok(Err(format!("the disk {} is not there yet: {why}", disk.name)));
    }
    let volume = disk.volume();
    if let Some(holder) = &disk.holder
        && *holder != cluster.uid
        && is_held(store, holder, &volume).await?
    {
        return Ok(Err(format!(
            "another cluster has the disk {}: one at a time does; delete the pod that uses it there",
            disk.name
        )));
    }
    Ok(Ok(DiskSeen {
        key,
        volume,
        bytes: disk.bytes,
        sku: disk.sku,
    }))
}

#[cfg(test)]
mod tests {
    use cluster_spec::testkit;
    use cluster_volumes::{Attachment, Volume};
    use control_store::{Txn, put_record};
    use jiff::Timestamp;
    use storage_redb::MemoryStore;

    use super::*;

    fn record(cluster: &ClusterRecord) -> DiskRecord {
        DiskRecord {
            v: 1,
            uid: "0123456789".to_owned(),
            subscription: cluster.subscription.clone(),
            resource_group: cluster.spec().node_resource_group.clone(),
            name: "data".to_owned(),
            location: "local".to_owned(),
            tags: BTreeMap::new(),
            generation: 1,
            snapshot: false,
            sku: "Premium_LRS".to_owned(),
            bytes: 1 << 30,
            properties: serde_json::json!({}),
            source: None,
            there: 1 << 30,
            failure: None,
            holder: None,
            created_at: Timestamp::UNIX_EPOCH,
            modified_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn storage(id: &str) -> Storage {
        Storage {
            volumes: vec![Volume {
                name: "mine".to_owned(),
                uid: "v".to_owned(),
                id: None,
                disk: Some(id.to_owned()),
                bytes: 1 << 30,
                shared: false,
                claim: None,
                released: false,
                deletes: false,
                deleting: false,
            }],
            attachments: vec![Attachment {
                name: "a".to_owned(),
                uid: "a".to_owned(),
                volume: "mine".to_owned(),
                node: "n".to_owned(),
                attached: false,
                failure: None,
                held: false,
                deleting: false,
            }],
            ..Storage::default()
        }
    }

    #[tokio::test]
    async fn a_disk_that_is_there_and_nobody_has_may_be_taken() {
        let store = MemoryStore::new();
        let cluster = ClusterRecord::of_spec("u1", &testkit::cluster(), Timestamp::UNIX_EPOCH);
        let disk = record(&cluster);
        let id = cluster_volumes::handle(&disk.subscription, &disk.resource_group, &disk.name);
        let found = async |id: &str| {
            let storage = storage(id);
            let found = named(&store, &cluster, &[], Some(&storage)).await.unwrap();
            found.into_values().next().unwrap()
        };
        assert!(found("nothing/of/the/kind").await.is_err());
        assert!(found(&id).await.unwrap_err().contains("there is no disk data"));
        let put = async |disk: &DiskRecord| {
            let txn = Txn::default().with(put_record(disk.key(), disk));
            store.txn(txn).await.unwrap();
        };
        put(&DiskRecord {
            there: 0,
            ..disk.clone()
        })
        .await;
        assert!(found(&id).await.unwrap_err().contains("being made"));
        put(&disk).await;
        let seen = found(&id).await.unwrap();
        assert_eq!((seen.key, seen.volume), (disk.key(), disk.volume()));
        // A cluster that has no record of it does not have it.
        let held = DiskRecord {
            holder: Some("u2".to_owned()),
            ..disk.clone()
        };
        put(&held).await;
        assert!(found(&id).await.is_ok());
        let key = VolumeRecord::key("u2", &disk.volume());
        store
            .txn(Txn::default().with(put_record(key, &"any")))
            .await
            .unwrap();
        assert!(found(&id).await.unwrap_err().contains("another cluster"));
        let none = named(&store, &cluster, &[], None).await.unwrap();
        assert!(none.is_empty());
    }
}
