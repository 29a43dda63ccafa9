//! The removal of a cluster's records, once everything that they stand for is gone.

use arm_access::Scope;
use control_planner::{OPERATION_PREEMPTED, Plan};
use control_records::{
    ClusterRecord, DeletedRecord, GroupRecord, LeaseRecord, OperationError, OperationStatus, PkiRecord,
    Requests, access, child, key,
    principal::of_cluster,
    unknown::{self, Kind},
    usage::{Amounts, Usage},
};
use control_store::{StoreError, Txn, get_record, put_record};
use jiff::Timestamp;

use super::{Basis, CommitError, Committed, children::remove_of_group, cluster_id, end};
use crate::{ControllerDeps, recipes::network_id};

/// The most operations that are ended in one transaction.
const ENDED: usize = 64;
/// The most children that are removed in one transaction.
const CHILDREN: usize = 32;
/// The most disks and addresses of tenants that are removed in one transaction with the group that they are in.
const OWNED: usize = 8;
/// The most effects that remove assignments and locks of the cluster and of its node resource group in one
/// transaction.
const GRANTS: usize = 8;

/// Removes all records of the cluster, and ends its operations. If these are too many for one transaction,
/// some are ended first; the next plan continues.
pub(super) async fn forget(
    deps: &ControllerDeps,
    mut txn: Txn,
    basis: &Basis,
    plan: &Plan,
    now: Timestamp,
    done: &mut Committed,
) -> Result<Txn, CommitError> {
    let cluster = &basis.cluster.value;
    let operations = basis.all_operations().count();
    for operation in basis.all_operations().take(ENDED) {
        let (status, error) = if operation.value.deletes {
            (OperationStatus::Succeeded, None)
        } else {
            let error = OperationError {
                code: OPERATION_PREEMPTED.to_owned(),
                message: format!(
                    "The cluster '{}' was deleted, which overtook this operation.",
                    cluster.name
                ),
            };
            (OperationStatus::Canceled, Some(error))
        };
        txn = end(txn, operation, status, error, now);
    }
    let (children, _) = deps.store.list(&child::all(&cluster.uid)).await?;
    for (key, _) in children.iter().take(CHILDREN) {
        txn = txn.delete(key);
    }
    if operations > ENDED || children.len() > CHILDREN {
        return Ok(txn);
    }
    // Role assignments and locks are removed before the cluster, so that a later cluster of its name begins
    // without them.
    let group = key::group(&cluster.subscription, &cluster.spec().node_resource_group);
    let own_group = get_record::<GroupRecord>(&*deps.store, &group)
        .await?
        .and_then(|found| found.value.managed_by)
        .is_some_and(|managed_by| names(&managed_by, cluster));
    let mut gone = vec![cluster_id(cluster)];
    if own_group {
        gone.push(arm_ids::group_id(
            &cluster.subscription,
            &cluster.spec().node_resource_group,
        ));
    }
    for id in gone {
        let scope = Scope::parse(&id).map_err(|error| StoreError::Corrupt {
            key: key::desired(&cluster.uid),
            why: error.to_string(),
        })?;
        let (removals, whole) = access::removals_below(&*deps.store, &scope, GRANTS).await?;
        txn.ops.extend(removals);
        if !whole {
            return Ok(txn);
        }
    }
    if own_group {
        let (subscription, group) = (&cluster.subscription, &cluster.spec().node_resource_group);
        let (removed, none) = remove_of_group(&*deps.store, txn, subscription, group, OWNED, now).await?;
        txn = removed;
        if !none {
            return Ok(txn);
        }
    }
    // The cluster's identities are removed.
    for identity in of_cluster(cluster.body()) {
        let id = cluster_id(cluster);
        let (removals, whole) =
            identity_directory::removals(&*deps.store, &identity.object_id, &id, GRANTS).await?;
        txn.compare.extend(removals.compare);
        txn.ops.extend(removals.ops);
        if !whole {
            return Ok(txn);
        }
    }
    done.forgotten = true;
    let desired = key::desired(&cluster.uid);
    let pki = get_record::<PkiRecord>(&*deps.store, &key::pki(&cluster.uid)).await?;
    txn = txn
        .at(&desired, basis.cluster.revision)
        .delete(&desired)
        .delete(cluster.name_key())
        .with(unknown::removed(
            Kind::Network,
            network_id(&cluster.uid).as_str(),
            now,
        ))
        .with(unknown::removed(Kind::Backup, &cluster.uid, now))
        .delete(key::observed(&cluster.uid))
        .delete(key::pki(&cluster.uid))
        .with(put_record(
            key::deleted(&cluster.uid),
            &DeletedRecord {
                v: 3,
                uid: cluster.uid.clone(),
                subscription: cluster.subscription.clone(),
                resource_group: cluster.resource_group.clone(),
                name: cluster.name.clone(),
                created_at: cluster.created_at,
                deleted_at: now,
                last: Some(Box::new(ClusterRecord {
                    requests: Requests::default(),
                    ..ClusterRecord::clone(cluster)
                })),
                pki: pki.map(|pki| pki.value),
            },
        ));
    let owner = format!("cluster/{}/", cluster.uid);
    let observed = &plan.observed;
    let leases = [
        ("vips", observed.vip),
        ("machines", observed.uplink),
        ("machines", observed.control_plane_address),
    ];
    // The sweep finds all others.
    for (pool, address) in leases {
        let Some(key) = address.map(|address| key::lease(pool, address)) else {
            continue;
        };
        let lease = get_record::<LeaseRecord>(&*deps.store, &key).await?;
        if lease.is_some_and(|lease| lease.value.owner.starts_with(&owner)) {
            txn = txn.delete(key);
        }
    }
    // Its amounts no longer count as used.
    let (was, nothing) = (Amounts::of(cluster.spec()), Amounts::default());
    txn = Usage::read(&*deps.store)
        .await?
        .change(txn, &cluster.subscription, &was, &nothing);
    // The cluster's node resource group is deleted with it, if it was made for it.
    if own_group {
        txn = txn.delete(group);
    }
    Ok(txn)
}

/// Whether an ARM id is this cluster's, ignoring case as ARM does.
fn names(id: &str, cluster: &ClusterRecord) -> bool {
    id.to_lowercase() == cluster_id(cluster).to_lowercase()
}
