//! Removes orphans: machines, networks and volumes that were this store's and have no record any more,
//! records without a cluster, operations that ended long ago, and the history of clusters that were deleted
//! long ago. Machines, networks and volumes that this store does not know are kept and recorded as unknown.
//!
//! Always true: the fabric is listed *before* the records are read. The record of an object is written before
//! it is made and removed after it, so a listed object without a record is an orphan, whatever happens
//! concurrently.

use std::collections::{BTreeMap, BTreeSet};

use control_records::{
    DeletedRecord, LeaseRecord, OwnerRecord, RepairStep, directory,
    disk::{DISK_LABEL, DiskRecord},
    events, key,
    unknown::{self, Kind, is_removed},
    volume::VolumeRecord,
};
use control_store::{LARGEST_TXN, Store, StoreError, Stored, Txn, get_record, list_records};
use fabric_api::{FabricError, Inventory, MachineId};
use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    cluster_loop::Shared,
    index::{CLUSTER_LABEL, Unknown},
    recipes::network_id,
};

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fabric(#[from] FabricError),
}

/// Sweeps once. Failures are logged, and tried again the next time.
pub(crate) async fn sweep(shared: &Shared) {
    let result = async {
        fabric(shared).await?;
        operations(shared).await?;
        histories(shared).await
    };
    if let Err(error) = result.await {
        tracing::warn!("the sweep was not finished: {error}");
    }
}

/// The uids of all clusters.
async fn clusters(shared: &Shared) -> Result<BTreeSet<String>, StoreError> {
    let (names, _) = directory::cluster_names(&*shared.deps.store, None, None).await?;
    Ok(names.into_iter().map(|name| name.uid).collect())
}

/// Machines, networks, and the records of both.
async fn fabric(shared: &Shared) -> Result<(), SweepError> {
    let deps = &shared.deps;
    let store = &*deps.store;
    let inventory = shared.inventory.listed_after(shared.inventory.mark()).await?;
    let (machines, _) = list_records::<OwnerRecord>(store, key::MACHINE_OWNERS).await?;
    let (leases, _) = list_records::<LeaseRecord>(store, key::LEASES).await?;
    // Read last: the clusters of the records above existed before the records.
    let uids = clusters(shared).await?;

    let mut orphans: BTreeSet<String> = inventory
        .machines
        .iter()
        .map(|machine| machine.id.0.clone())
        .collect();
    let mut vanished = BTreeMap::new();
    for (key, machine) in machines {
        let id = key.trim_start_matches(key::MACHINE_OWNERS).to_owned();
        match machine.value.owner.uid() {
            Some(uid) if !uids.contains(uid) => {
                vanished.insert(id, uid.to_owned());
            }
            _ => {
                orphans.remove(&id);
            }
        }
    }
    // Of objects without a record, only those known to be this store's are removed.
    let now = deps.env.clock.now();
    let mut kept = Unknown::default();
    let mut unknown = BTreeMap::new();
    for machine in &inventory.machines {
        let id = machine.id.as_str();
        if orphans.contains(id) && !vanished.contains_key(id) && !is_removed(store, Kind::Machine, id).await?
        {
            orphans.remove(id);
            let spec = deps.fabric.machine(&machine.id).await?;
            let cluster = machine.labels.get(CLUSTER_LABEL).map(String::as_str);
            kept.add_machine(id, cluster, spec.as_ref());
            unknown.insert(id.to_owned(), machine.labels.clone());
        }
    }
    let wanted: BTreeSet<_> = uids.iter().map(|uid| network_id(uid)).collect();
    let mut unknown_networks = BTreeMap::new();
    let strange = || inventory.networks.iter().filter(|id| !wanted.contains(id));
    for id in strange() {
        if is_removed(store, Kind::Network, id.as_str()).await? {
            continue;
        }
        if let Some(network) = deps.fabric.network(id).await? {
            kept.add_network(&network);
        }
        unknown_networks.insert(id.0.clone(), BTreeMap::new());
    }
    for uid in kept.clusters() {
        if let Some(network) = deps.fabric.network(&network_id(&uid)).await? {
            kept.add_routes(&uid, &network);
        }
    }
    shared.index.set_unknown(kept);
    tell_unknown(store, Kind::Machine, unknown, now).await?;
    tell_unknown(store, Kind::Network, unknown_networks, now).await?;
    volumes(shared, &inventory, now).await?;
    orphans.extend(vanished.keys().cloned());
    for id in &orphans {
        tracing::warn!(machine = id, "removing a machine that belongs to no cluster");
        match bounded(shared, deps.fabric.delete_machine(&MachineId::from(id.as_str()))).await {
            Ok(()) => deps.agents.forget(id),
            Err(error) => {
                tracing::warn!(
                    machine = id,
                    "a machine that belongs to no cluster stays for now: {error}"
                );
                vanished.remove(id);
            }
        }
    }
    for (id, uid) in vanished {
        store
            .txn(directory::remove_machine(Txn::default(), &uid, &id, now))
            .await?;
    }
    let mut serving = Vec::new();
    for disk in &inventory.kept_disks {
        if let Some((_, machine)) = directory::machine(store, disk.machine.as_str()).await?
            && machine.value.healing.step == RepairStep::None
        {
            serving.push(disk);
        }
    }
    for disk in serving {
        // It was made anew and has served for a while: its previous disk is not needed any more. Disks that
        // were set aside since the listing stay.
        let (machine, name) = (disk.machine.as_str(), disk.to_string());
        tracing::info!(
            machine,
            disk = name,
            "deleting a kept disk of a machine that serves again"
        );
        if let Err(error) = bounded(shared, deps.fabric.delete_kept_disk(disk)).await {
            tracing::warn!(machine, disk = name, "a kept disk stays for now: {error}");
        }
    }
    for id in strange() {
        // Checked again: it may have been released meanwhile.
        if !is_removed(store, Kind::Network, id.as_str()).await? {
            continue;
        }
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

/// Volumes of the listing: one without a record is removed only if it is known to be this store's.
async fn volumes(shared: &Shared, inventory: &Inventory, now: Timestamp) -> Result<(), SweepError> {
    let store = &*shared.deps.store;
    let fabric = &shared.deps.fabric;
    let (mut unknown, mut orphans) = (BTreeMap::new(), Vec::new());
    for volume in &inventory.volumes {
        let id = volume.id.as_str();
        let recorded = match (volume.labels.get(CLUSTER_LABEL), volume.labels.get(DISK_LABEL)) {
            (Some(uid), _) => store.get(&VolumeRecord::key(uid, id)).await?.is_some(),
            (None, Some(key)) => {
                let found = get_record::<DiskRecord>(store, key).await?;
                found.is_some_and(|found| found.value.volume() == id)
            }
            // A volume without an owner's label may well have a record.
            (None, None) => continue,
        };
        if recorded {
            continue;
        }
        if is_removed(store, Kind::Volume, id).await? {
            orphans.push(volume);
        } else {
            unknown.insert(id.to_owned(), volume.labels.clone());
        }
    }
    tell_unknown(store, Kind::Volume, unknown, now).await?;
    for volume in orphans {
        let id = volume.id.as_str();
        // Checked again: a volume of the same name may have been recorded meanwhile.
        if !is_removed(store, Kind::Volume, id).await? {
            continue;
        }
        tracing::warn!(volume = id, "removing a volume that belongs to nobody");
        let removal = async {
            if volume.attached.is_some() {
                fabric.detach_volume(&volume.id).await?;
            }
            fabric.delete_volume(&volume.id).await
        };
        if let Err(error) = bounded(shared, removal).await {
            tracing::warn!(
                volume = id,
                "a volume that belongs to nobody stays for now: {error}"
            );
        }
    }
    Ok(())
}

/// Records unknown items, and logs new ones.
async fn tell_unknown(
    store: &dyn Store,
    kind: Kind,
    present: BTreeMap<String, BTreeMap<String, String>>,
    now: Timestamp,
) -> Result<(), StoreError> {
    for id in unknown::found(store, kind, present, now).await? {
        tracing::error!(
            %kind,
            id,
            "it is in no record of this store, which may be new or older than what it describes: it is kept; see 'landfall \
             unknown list'"
        );
    }
    Ok(())
}

/// A call that hangs must not end all sweeping.
async fn bounded(
    shared: &Shared,
    call: impl Future<Output = Result<(), FabricError>>,
) -> Result<(), FabricError> {
    let bound = shared.deps.settings.fabric_bound;
    let ended = shared.deps.env.clock.timeout(bound, call).await;
    ended.unwrap_or_else(|elapsed| Err(FabricError::failed("remove it", elapsed)))
}

/// Removes operations that ended long ago, an owner at a time.
async fn operations(shared: &Shared) -> Result<(), SweepError> {
    let store = &*shared.deps.store;
    let now = shared.deps.env.clock.now();
    let old = |ended: Timestamp| {
        now.duration_since(ended).unsigned_abs() > shared.deps.settings.operation_retention
    };
    let (owners, _) = list_records::<OwnerRecord>(store, key::OPERATION_OWNERS).await?;
    for (index, owner) in owners {
        let id = index.trim_start_matches(key::OPERATION_OWNERS);
        let key = owner.value.owner.operation(id);
        let ended = get_record::<Ended>(store, &key).await?;
        let txn = match ended {
            Some(found) if found.value.ended_at.is_some_and(old) => {
                Txn::default().at(&key, found.revision).delete(key).delete(index)
            }
            _ => continue,
        };
        retry_later(store.txn(txn).await)?;
    }
    Ok(())
}

/// The needed members of an operation's record.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ended {
    ended_at: Option<Timestamp>,
}

/// Removes the events of clusters that were deleted long ago, and then the remaining records of these
/// clusters.
async fn histories(shared: &Shared) -> Result<(), SweepError> {
    let store = &*shared.deps.store;
    let now = shared.deps.env.clock.now();
    unknown::forget_removed(store, now).await?;
    let (deleted, _) = list_records::<DeletedRecord>(store, key::DELETED).await?;
    for (key, Stored { revision, value }) in deleted {
        if now.duration_since(value.deleted_at).unsigned_abs() <= events::KEPT_AFTER_DELETION {
            continue;
        }
        let (told, _) = store.list(&key::events(&value.uid)).await?;
        for batch in told.chunks(LARGEST_TXN) {
            let txn = batch.iter().fold(Txn::default(), |txn, (key, _)| txn.delete(key));
            store.txn(txn).await?;
        }
        // Last: as long as it exists, an interrupted sweep continues.
        retry_later(store.txn(Txn::default().at(&key, revision).delete(key)).await)?;
    }
    Ok(())
}

/// A record that changed meanwhile causes another sweep, which decides again.
fn retry_later<T>(result: Result<T, StoreError>) -> Result<(), StoreError> {
    match result {
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
