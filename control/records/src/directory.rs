//! Finding records: clusters by their names, machines and operations by their ids, and all of a kind.
//!
//! Always true: what is found is what the store holds at that moment; something that is removed between two readings is not
//! found, rather than found in part.

use control_store::{Op, Revision, Store, StoreError, Stored, Txn, get_record, list_records, put_record};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    ClusterRecord, MachineRecord, OperationRecord,
    key::{self, Owner},
    unknown::{self, Kind},
};

/// Which uid has a name, `/n/{type}/{subscription}/{group}/{name}`. Written and removed with what has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NameRecord {
    /// Format.
    pub v: u32,
    /// The uid.
    pub uid: String,
}

/// Whose a machine or an operation is. Written and removed with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerRecord {
    /// Format.
    pub v: u32,
    /// The owner.
    pub owner: Owner,
}

/// A name in the index, and what has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its key.
    pub key: String,
    /// The uid.
    pub uid: String,
}

/// Names of clusters: of the stamp, of a subscription, of a group; in order.
///
/// # Errors
/// What the store says.
pub async fn cluster_names(
    store: &dyn Store,
    subscription: Option<&str>,
    group: Option<&str>,
) -> Result<(Vec<Named>, Revision), StoreError> {
    let prefix = match (subscription, group) {
        (None, _) => key::names(key::MANAGED_CLUSTERS),
        (Some(subscription), None) => key::names_of(key::MANAGED_CLUSTERS, subscription),
        (Some(subscription), Some(group)) => key::cluster_name(subscription, group, ""),
    };
    let (found, revision) = list_records::<NameRecord>(store, &prefix).await?;
    let names = found
        .into_iter()
        .map(|(key, name)| Named {
            key,
            uid: name.value.uid,
        })
        .collect();
    Ok((names, revision))
}

/// The groups and names of clusters of a subscription, or of a group of it, in lower case; in order. Nothing is read of the clusters.
///
/// # Errors
/// What the store says.
pub async fn cluster_places(
    store: &dyn Store,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<(String, String)>, StoreError> {
    let all = key::names_of(key::MANAGED_CLUSTERS, subscription);
    let prefix = match group {
        Some(group) => key::cluster_name(subscription, group, ""),
        None => all.clone(),
    };
    let (found, _) = store.list(&prefix).await?;
    let places = found.iter().filter_map(|(key, _)| {
        let (group, name) = key.strip_prefix(&all)?.split_once('/')?;
        Some((group.to_owned(), name.to_owned()))
    });
    Ok(places.collect())
}

/// What a cluster is to be, by its uid.
///
/// # Errors
/// What the store says.
pub async fn cluster(store: &dyn Store, uid: &str) -> Result<Option<Stored<ClusterRecord>>, StoreError> {
    get_record(store, &key::desired(uid)).await
}

/// The cluster of that name.
///
/// # Errors
/// What the store says.
pub async fn cluster_named(
    store: &dyn Store,
    subscription: &str,
    group: &str,
    name: &str,
) -> Result<Option<Stored<ClusterRecord>>, StoreError> {
    let key = key::cluster_name(subscription, group, name);
    match get_record::<NameRecord>(store, &key).await? {
        Some(name) => cluster(store, &name.value.uid).await,
        None => Ok(None),
    }
}

/// All clusters: of the stamp, of a subscription, of a group; in the order of their names.
///
/// # Errors
/// What the store says.
pub async fn clusters(
    store: &dyn Store,
    subscription: Option<&str>,
    group: Option<&str>,
) -> Result<Vec<Stored<ClusterRecord>>, StoreError> {
    let (names, _) = cluster_names(store, subscription, group).await?;
    let mut clusters = Vec::with_capacity(names.len());
    for name in names {
        clusters.extend(cluster(store, &name.uid).await?);
    }
    Ok(clusters)
}

/// A cluster's machines, in the order of their ids.
///
/// # Errors
/// What the store says.
pub async fn machines(store: &dyn Store, uid: &str) -> Result<Vec<MachineRecord>, StoreError> {
    let (found, _) = list_records::<MachineRecord>(store, &key::machines(uid)).await?;
    Ok(found.into_iter().map(|(_, machine)| machine.value).collect())
}

async fn owner(store: &dyn Store, key: &str) -> Result<Option<Owner>, StoreError> {
    let found = get_record::<OwnerRecord>(store, key).await?;
    Ok(found.map(|found| found.value.owner))
}

/// The machine with that id and its key.
///
/// # Errors
/// What the store says.
pub async fn machine(
    store: &dyn Store,
    id: &str,
) -> Result<Option<(String, Stored<MachineRecord>)>, StoreError> {
    let Some(Owner::Cluster(uid)) = owner(store, &key::machine_owner(id)).await? else {
        return Ok(None);
    };
    let key = key::machine(&uid, id);
    Ok(get_record(store, &key).await?.map(|found| (key, found)))
}

/// The operation with that id.
///
/// # Errors
/// What the store says.
pub async fn operation(store: &dyn Store, id: &str) -> Result<Option<Stored<OperationRecord>>, StoreError> {
    match owner(store, &key::operation_owner(id)).await? {
        Some(owner) => get_record(store, &owner.operation(id)).await,
        None => Ok(None),
    }
}

/// An owner's operations, in the order of their ids.
///
/// # Errors
/// What the store says.
pub async fn operations(store: &dyn Store, owner: &Owner) -> Result<Vec<OperationRecord>, StoreError> {
    let (found, _) = list_records::<OperationRecord>(store, &owner.operations()).await?;
    Ok(found.into_iter().map(|(_, operation)| operation.value).collect())
}

fn put_owner(key: String, owner: &Owner) -> Op {
    put_record(
        key,
        &OwnerRecord {
            v: 1,
            owner: owner.clone(),
        },
    )
}

/// Adds a new operation and its place in the index.
#[must_use]
pub fn new_operation(txn: Txn, operation: &OperationRecord) -> Txn {
    let key = operation.key();
    txn.absent(&key)
        .with(put_record(key, operation))
        .with(put_owner(key::operation_owner(&operation.id), &operation.owner))
}

/// Adds a new machine of a cluster and its place in the index.
#[must_use]
pub fn new_machine(txn: Txn, uid: &str, machine: &MachineRecord) -> Txn {
    let key = key::machine(uid, &machine.id);
    txn.absent(&key)
        .with(put_record(key, machine))
        .with(put_owner(key::machine_owner(&machine.id), &Owner::cluster(uid)))
}

/// Removes a machine with its configuration and its place in the index. What is left of it may be removed wherever it is found.
#[must_use]
pub fn remove_machine(txn: Txn, uid: &str, id: &str, now: Timestamp) -> Txn {
    txn.delete(key::machine(uid, id))
        .delete(key::machine_config(uid, id))
        .delete(key::machine_owner(id))
        .with(unknown::removed(Kind::Machine, id, now))
}

/// Adds a new cluster and its name, which must be free.
#[must_use]
pub fn new_cluster(txn: Txn, cluster: &ClusterRecord) -> Txn {
    let name = cluster.name_key();
    let record = NameRecord {
        v: 1,
        uid: cluster.uid.clone(),
    };
    txn.absent(&name)
        .with(put_record(name, &record))
        .with(put_record(key::desired(&cluster.uid), cluster))
}
