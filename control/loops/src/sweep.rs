//! Removes what nobody owns: machines and networks without a record, records without a cluster, operations that ended
//! long ago, and what is told of clusters that were deleted long ago.
//!
//! Always true: the fabric is listed *before* the records are read. What is made is written down first and its record is
//! removed last, so something listed that has no record afterwards is left over, whatever happens at the same time.

use std::collections::BTreeSet;

use control_planner::OPERATION_PREEMPTED;
use control_records::{
    DeletedRecord, LeaseRecord, OperationError, OperationRecord, OperationStatus, events, key,
};
use control_store::{StoreError, Stored, Txn, get_record, list_records, put_record};
use fabric_api::{FabricError, MachineId};

use crate::{
    cluster_loop::Shared,
    hints::{ClusterHint, MachineHint, OperationHint},
    recipes::network_id,
};

/// How much is swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// Operations.
    Records,
    /// The fabric as well.
    All,
}

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fabric(#[from] FabricError),
}

/// Sweeps once. What does not work is told to the log and left for the next time.
pub(crate) async fn sweep(shared: &Shared, scope: Scope) {
    let result = async {
        if scope == Scope::All {
            fabric(shared).await?;
        }
        operations(shared).await?;
        histories(shared).await
    };
    if let Err(error) = result.await {
        tracing::warn!("the sweep was not finished: {error}");
    }
}

/// The uids of all clusters.
async fn clusters(shared: &Shared) -> Result<BTreeSet<String>, StoreError> {
    let (found, _) = list_records::<ClusterHint>(&*shared.deps.store, "/clusters/").await?;
    Ok(found.into_iter().map(|(_, cluster)| cluster.value.uid).collect())
}

/// Machines, networks, and the records of both.
async fn fabric(shared: &Shared) -> Result<(), SweepError> {
    let deps = &shared.deps;
    let store = &*deps.store;
    let inventory = shared.inventory.listed_after(shared.inventory.mark()).await?;
    let (machines, _) = list_records::<MachineHint>(store, "/machines/").await?;
    let (leases, _) = list_records::<LeaseRecord>(store, "/leases/").await?;
    // Read last: whatever the records above belong to was there before them.
    let uids = clusters(shared).await?;

    let mut orphans: BTreeSet<String> = inventory
        .machines
        .iter()
        .map(|machine| machine.id.0.clone())
        .collect();
    let mut vanished = Vec::new();
    let mut serving = Vec::new();
    for (_, machine) in machines {
        if inventory.kept_disks.iter().any(|id| id.0 == machine.value.id) && machine.value.is_well() {
            serving.push(MachineId(machine.value.id.clone()));
        }
        match machine.value.cluster() {
            Some(cluster) if !uids.contains(cluster) => vanished.push(machine.value.id),
            _ => {
                orphans.remove(&machine.value.id);
            }
        }
    }
    orphans.extend(vanished.iter().cloned());
    for id in &orphans {
        tracing::warn!(machine = id, "removing a machine that belongs to no cluster");
        match bounded(shared, deps.fabric.delete_machine(&MachineId::from(id.as_str()))).await {
            Ok(()) => deps.agents.forget(id),
            Err(error) => {
                tracing::warn!(
                    machine = id,
                    "a machine that belongs to no cluster stays for now: {error}"
                );
                vanished.retain(|left| left != id);
            }
        }
    }
    for id in vanished {
        store
            .txn(
                Txn::default()
                    .delete(key::machine(&id))
                    .delete(key::machine_config(&id)),
            )
            .await?;
    }
    for id in serving {
        // It was made anew and has served for a while: what it had before is not needed any more.
        tracing::info!(
            machine = id.as_str(),
            "deleting the kept disk of a machine that serves again"
        );
        if let Err(error) = bounded(shared, deps.fabric.delete_kept_disk(&id)).await {
            tracing::warn!(machine = id.as_str(), "a kept disk stays for now: {error}");
        }
    }
    let wanted: BTreeSet<_> = uids.iter().map(|uid| network_id(uid)).collect();
    for id in inventory.networks.iter().filter(|id| !wanted.contains(id)) {
        tracing::warn!(
            network = id.as_str(),
            "removing a network that belongs to no cluster"
        );
        if let Err(error) = bounded(shared, deps.fabric.delete_network(id)).await {
            tracing::warn!(
                network = id.as_str(),
                "a network that belongs to no cluster stays for now: {error}"
            );
        }
    }
    for (key, lease) in leases {
        let owner = lease
            .value
            .owner
            .strip_prefix("cluster/")
            .and_then(|rest| rest.split('/').next());
        if owner.is_some_and(|uid| !uids.contains(uid)) {
            tracing::warn!(key, "releasing an address that belongs to no cluster");
            store
                .txn(Txn::default().at(&key, lease.revision).delete(&key))
                .await?;
        }
    }
    Ok(())
}

/// A call that hangs must not be the end of all sweeping.
async fn bounded(
    shared: &Shared,
    call: impl Future<Output = Result<(), FabricError>>,
) -> Result<(), FabricError> {
    let bound = shared.deps.settings.fabric_bound;
    let ended = shared.deps.env.clock.timeout(bound, call).await;
    ended.unwrap_or_else(|elapsed| Err(FabricError::failed("remove it", elapsed)))
}

/// Operations without a cluster end; operations that ended long ago go.
async fn operations(shared: &Shared) -> Result<(), SweepError> {
    let store = &*shared.deps.store;
    let now = shared.deps.env.clock.now();
    let (operations, _) = list_records::<OperationHint>(store, "/operations/").await?;
    // Read afterwards: an operation is written together with its cluster, never before.
    let uids = clusters(shared).await?;
    for (key, Stored { revision, value }) in operations {
        let txn = Txn::default().at(&key, revision);
        let txn = match value.ended_at {
            Some(ended_at)
                if now.duration_since(ended_at).unsigned_abs() > shared.deps.settings.operation_retention =>
            {
                txn.delete(key)
            }
            None if value.status == OperationStatus::InProgress
                && !value.cluster.is_empty()
                && !uids.contains(&value.cluster) =>
            {
                let Some(Stored { value, .. }) = get_record::<OperationRecord>(store, &key).await? else {
                    continue;
                };
                let ended = if value.deletes {
                    OperationRecord {
                        status: OperationStatus::Succeeded,
                        ended_at: Some(now),
                        ..value
                    }
                } else {
                    OperationRecord {
                        status: OperationStatus::Canceled,
                        ended_at: Some(now),
                        error: Some(OperationError {
                            code: OPERATION_PREEMPTED.to_owned(),
                            message: "The cluster was deleted, which overtook this operation.".to_owned(),
                        }),
                        ..value
                    }
                };
                txn.with(put_record(key, &ended))
            }
            _ => continue,
        };
        retry_later(store.txn(txn).await)?;
    }
    Ok(())
}

/// The events of clusters that were deleted long ago go.
async fn histories(shared: &Shared) -> Result<(), SweepError> {
    let store = &*shared.deps.store;
    let now = shared.deps.env.clock.now();
    let (deleted, _) = list_records::<DeletedRecord>(store, "/deleted/").await?;
    for (key, Stored { revision, value }) in deleted {
        if now.duration_since(value.deleted_at).unsigned_abs() <= events::KEPT_AFTER_DELETION {
            continue;
        }
        let mut txn = Txn::default().at(&key, revision).delete(key);
        let (told, _) = store.list(&key::events(&value.uid)).await?;
        for (key, _) in told {
            txn = txn.delete(key);
        }
        retry_later(store.txn(txn).await)?;
    }
    Ok(())
}

/// A record that changed meanwhile is news by itself, and the sweep that it brings decides anew.
fn retry_later<T>(result: Result<T, StoreError>) -> Result<(), StoreError> {
    match result {
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
