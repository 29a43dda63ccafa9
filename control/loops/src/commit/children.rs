//! Records among a cluster's children that its loop writes: of credentials, load balancers, volumes and managed namespaces.

use std::sync::Arc;

use arm_access::Scope;
use control_planner::NewVolume;
use control_records::{
    LeaseRecord, access,
    balancer::BalancerRecord,
    credential::CredentialRecord,
    disk::{self, DiskRecord},
    key,
    namespace::NamespaceRecord,
    network::{self, NetworkRecord},
    unknown::{self, Kind},
    volume::VolumeRecord,
};
use control_store::{Store, StoreError, Stored, Txn, get_record, list_records, put_record};
use jiff::Timestamp;

use super::{Basis, CommitError, Committed, cluster_id};
use crate::ControllerDeps;

/// A credential's changed record, or its removal; no change if it no longer exists.
pub(super) fn change_credential(
    txn: Txn,
    basis: &Basis,
    id: &str,
    change: impl FnOnce(CredentialRecord) -> Option<CredentialRecord>,
) -> Txn {
    let found = basis
        .credentials
        .iter()
        .find(|credential| credential.value.id == id);
    let Some(Stored { revision, value }) = found else {
        return txn;
    };
    let uid = &basis.cluster.value.uid;
    let key = CredentialRecord::key(uid, id);
    // In either case it is not handed out again.
    let txn = txn
        .at(&key, *revision)
        .delete(CredentialRecord::certificate_key(uid, id));
    match change(CredentialRecord::clone(value)) {
        Some(changed) => txn.with(put_record(key, &changed)),
        None => txn.delete(key),
    }
}

/// Records a load balancer, with the lease of its address if others could use that. The public IP address that it is of knows of the cluster
/// then, so that it is not deleted. It conflicts when that is another one by now.
pub(super) async fn record_balancer(
    store: &dyn Store,
    mut txn: Txn,
    basis: &Basis,
    record: &BalancerRecord,
    done: &mut Committed,
) -> Result<Txn, StoreError> {
    let cluster = &basis.cluster.value.uid;
    if let Some(id) = &record.public {
        let key = network::public_key(id).unwrap_or_else(|| id.clone());
        let found = get_record::<NetworkRecord>(store, &key).await?;
        let found = found.filter(|found| found.value.public_address() == Some(record.address));
        let Some(Stored { revision, mut value }) = found else {
            return Err(StoreError::Conflict { key });
        };
        value.clusters.insert(cluster.clone());
        // Services that come with one plan may share it: it is compared and written once.
        if !done.publics.contains(&key) {
            txn = txn.at(&key, revision).with(put_record(&key, &value));
            done.publics.insert(key);
        }
    }
    if let Some(lease) = balancer_lease(basis, record) {
        let held = LeaseRecord {
            v: 1,
            owner: BalancerRecord::holder(cluster, &record.uid),
        };
        done.leased.push((lease.clone(), held.owner.clone()));
        txn = txn.absent(&lease).with(put_record(lease, &held));
    }
    let key = BalancerRecord::key(cluster, &record.uid);
    Ok(txn.absent(&key).with(put_record(key, record)))
}

/// Removes a load balancer together with its lease; no change if it no longer exists.
pub(super) fn forget_balancer(txn: Txn, basis: &Basis, service: &str) -> Txn {
    let mut known = basis.balancers.iter();
    let Some(Stored { revision, value }) = known.find(|balancer| balancer.value.uid == service) else {
        return txn;
    };
    let key = BalancerRecord::key(&basis.cluster.value.uid, service);
    let txn = txn.at(&key, *revision).delete(key);
    match balancer_lease(basis, value) {
        Some(lease) => txn.delete(lease),
        None => txn,
    }
}

fn balancer_lease(basis: &Basis, record: &BalancerRecord) -> Option<String> {
    let vnet = basis.cluster.value.spec().network.vnet.as_ref();
    record.own_lease(vnet.map(|vnet| vnet.uid.as_str()))
}

/// Records a volume that is to be made, or that exists without a record; or that the cluster takes a tenant's disk. It conflicts when another
/// cluster has taken that.
pub(super) async fn record_volume(
    store: &dyn Store,
    txn: Txn,
    basis: &Basis,
    volume: &NewVolume,
    now: Timestamp,
    done: &mut Committed,
) -> Result<Txn, StoreError> {
    let uid = &basis.cluster.value.uid;
    let record = VolumeRecord {
        v: 1,
        id: volume.id.clone(),
        name: volume.name.clone(),
        claim: volume.claim.uid.clone(),
        claim_namespace: volume.claim.namespace.clone(),
        claim_name: volume.claim.name.clone(),
        bytes: volume.bytes,
        sku: volume.sku.clone(),
        shared: volume.shared,
        snapshot: volume.snapshot,
        source: volume.source.clone(),
        disk: volume.disk.clone(),
        object: volume.object.clone(),
        published: false,
        deleting: false,
        created_at: now,
    };
    let key = VolumeRecord::key(uid, &record.id);
    let txn = txn.absent(&key).with(put_record(key, &record));
    let Some(disk) = &volume.disk else {
        // Its id follows from its name, so an earlier removed one may have had it.
        return Ok(txn.delete(unknown::removed_key(Kind::Volume, &record.id)));
    };
    let found = get_record::<DiskRecord>(store, disk).await?;
    let Some(found) = found.filter(|found| found.value.volume() == record.id) else {
        return Err(StoreError::Conflict { key: disk.clone() });
    };
    if let Some(holder) = &found.value.holder
        && holder != uid
        && is_held(store, holder, &record.id).await?
    {
        return Err(StoreError::Conflict { key: disk.clone() });
    }
    let taken = DiskRecord {
        holder: Some(uid.clone()),
        ..found.value
    };
    done.taken.push(record.id);
    Ok(txn.at(disk, found.revision).with(put_record(disk, &taken)))
}

/// Whether a cluster has a tenant's disk, by the id of its volume. A cluster that is gone, or whose records are older, has none.
pub(crate) async fn is_held(store: &dyn Store, holder: &str, volume: &str) -> Result<bool, StoreError> {
    Ok(store.get(&VolumeRecord::key(holder, volume)).await?.is_some())
}

/// A volume's changed record; no change if it no longer exists.
pub(super) fn change_volume(
    txn: Txn,
    basis: &Basis,
    id: &str,
    change: impl FnOnce(VolumeRecord) -> VolumeRecord,
) -> Txn {
    let Some(Stored { revision, value }) = volume(basis, id) else {
        return txn;
    };
    let key = VolumeRecord::key(&basis.cluster.value.uid, id);
    let changed = change(VolumeRecord::clone(value));
    txn.at(&key, *revision).with(put_record(key, &changed))
}

/// Removes the record of a deleted volume. Remains of it may be removed wherever they are found. Of a tenant's disk: gives that
/// back. No change if the record no longer exists.
pub(super) async fn forget_volume(
    store: &dyn Store,
    txn: Txn,
    basis: &Basis,
    id: &str,
    now: Timestamp,
) -> Result<Txn, StoreError> {
    let Some(Stored { revision, value }) = volume(basis, id) else {
        return Ok(txn);
    };
    let uid = &basis.cluster.value.uid;
    let key = VolumeRecord::key(uid, id);
    let txn = txn.at(&key, *revision).delete(key);
    let Some(disk) = &value.disk else {
        return Ok(txn.with(unknown::removed(Kind::Volume, id, now)));
    };
    let found = get_record::<DiskRecord>(store, disk).await?;
    let Some(found) = found.filter(|found| found.value.holder.as_ref() == Some(uid)) else {
        return Ok(txn);
    };
    let free = DiskRecord {
        holder: None,
        ..found.value
    };
    Ok(txn.at(disk, found.revision).with(put_record(disk, &free)))
}

/// Removes what tenants made in the group of a cluster's nodes, which goes with the cluster: disks, snapshots of disks and public IP
/// addresses, at most so many. No other cluster has any of it. Whether there was nothing left of it.
pub(super) async fn remove_of_group(
    store: &dyn Store,
    mut txn: Txn,
    subscription: &str,
    group: &str,
    most: usize,
    now: Timestamp,
) -> Result<(Txn, bool), StoreError> {
    let mut left = most;
    for snapshot in [false, true] {
        let prefix = disk::key(snapshot, subscription, group, "");
        let (disks, _) = list_records::<DiskRecord>(store, &prefix).await?;
        for (key, found) in disks {
            if left == 0 {
                return Ok((txn, false));
            }
            left -= 1;
            txn = txn.at(&key, found.revision).delete(key).with(unknown::removed(
                Kind::Volume,
                &found.value.volume(),
                now,
            ));
        }
    }
    let prefix = network::key(network::PUBLIC_ADDRESSES, subscription, group, "");
    let (addresses, _) = list_records::<NetworkRecord>(store, &prefix).await?;
    for (name, found) in addresses {
        if left == 0 {
            return Ok((txn, false));
        }
        left -= 1;
        txn = txn.at(&name, found.revision).delete(name);
        if let Some(address) = found.value.public_address() {
            txn = txn.delete(key::lease("vips", address));
        }
    }
    Ok((txn, left == most))
}

/// The record of a managed namespace goes, and before it who may what with it, so that another of its name begins with nothing. Nothing where
/// it is gone meanwhile.
pub(super) async fn forget_namespace(
    deps: &ControllerDeps,
    txn: Txn,
    basis: &Basis,
    name: &str,
) -> Result<Txn, CommitError> {
    let mut known = basis.namespaces.iter();
    let Some(Stored { revision, value }) = known.find(|namespace| namespace.value.name == name) else {
        return Ok(txn);
    };
    let cluster = &basis.cluster.value;
    let key = NamespaceRecord::key(&cluster.uid, &value.name);
    let id = format!("{}/managedNamespaces/{name}", cluster_id(cluster));
    let scope = Scope::parse(&id).map_err(|error| StoreError::Corrupt {
        key: key.clone(),
        why: error.to_string(),
    })?;
    access::remove_below(&*deps.store, &scope).await?;
    Ok(txn.at(&key, *revision).delete(key))
}

fn volume<'b>(basis: &'b Basis, id: &str) -> Option<&'b Stored<Arc<VolumeRecord>>> {
    basis.volumes.iter().find(|volume| volume.value.id == id)
}
