//! Records among a cluster's children that its loop writes: of credentials, load balancers and volumes.

use std::sync::Arc;

use control_planner::NewVolume;
use control_records::{
    LeaseRecord,
    balancer::BalancerRecord,
    credential::CredentialRecord,
    unknown::{self, Kind},
    volume::VolumeRecord,
};
use control_store::{Stored, Txn, put_record};
use jiff::Timestamp;

use super::{Basis, Committed};

/// A credential's record as it is from now on, or its removal; nothing where it is gone meanwhile.
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
    // Either way it is not handed out again.
    let txn = txn
        .at(&key, *revision)
        .delete(CredentialRecord::certificate_key(uid, id));
    match change(CredentialRecord::clone(value)) {
        Some(changed) => txn.with(put_record(key, &changed)),
        None => txn.delete(key),
    }
}

/// A load balancer, with the lease of its address where others could take that.
pub(super) fn record_balancer(
    mut txn: Txn,
    basis: &Basis,
    record: &BalancerRecord,
    done: &mut Committed,
) -> Txn {
    let cluster = &basis.cluster.value.uid;
    if let Some(lease) = balancer_lease(basis, record) {
        let held = LeaseRecord {
            v: 1,
            owner: BalancerRecord::holder(cluster, &record.uid),
        };
        done.leased.push((lease.clone(), held.owner.clone()));
        txn = txn.absent(&lease).with(put_record(lease, &held));
    }
    let key = BalancerRecord::key(cluster, &record.uid);
    txn.absent(&key).with(put_record(key, record))
}

/// A load balancer goes, and with it its lease; nothing where it is gone meanwhile.
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
    BalancerRecord::lease(
        record.internal,
        record.address,
        vnet.map(|vnet| vnet.uid.as_str()),
    )
}

/// A volume that is to be made, or that is there and was in no record.
pub(super) fn record_volume(txn: Txn, basis: &Basis, volume: &NewVolume, now: Timestamp) -> Txn {
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
        object: volume.object.clone(),
        published: false,
        deleting: false,
        created_at: now,
    };
    let key = VolumeRecord::key(&basis.cluster.value.uid, &record.id);
    // Its id follows from its name, so one of before that was removed may have had it.
    txn.absent(&key)
        .with(put_record(key, &record))
        .delete(unknown::removed_key(Kind::Volume, &record.id))
}

/// A volume's record as it is from now on; nothing where it is gone meanwhile.
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

/// The record of a volume that is gone goes. What is left of it may be removed wherever it is found. Nothing where it is gone meanwhile.
pub(super) fn forget_volume(txn: Txn, basis: &Basis, id: &str, now: Timestamp) -> Txn {
    let Some(Stored { revision, .. }) = volume(basis, id) else {
        return txn;
    };
    let key = VolumeRecord::key(&basis.cluster.value.uid, id);
    txn.at(&key, *revision)
        .delete(key)
        .with(unknown::removed(Kind::Volume, id, now))
}

fn volume<'b>(basis: &'b Basis, id: &str) -> Option<&'b Stored<Arc<VolumeRecord>>> {
    basis.volumes.iter().find(|volume| volume.value.id == id)
}
