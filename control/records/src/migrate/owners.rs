//! Format 1 to 2: from keys by kind (`/machines/{id}`) to keys by owner (`/c/{uid}/machine/{id}`), with names and owners as
//! indexes. What is sealed stays as it is: the names under which it is sealed did not change.

use control_store::{Op, Store, Txn, get_record, put_record};
use serde_json::Value;

use super::{
    change::BATCH,
    format::{self, MigrateError},
};
use crate::{
    directory::{NameRecord, OwnerRecord},
    key::{self, Owner},
    unknown::{self, Kind},
};

/// Moves everything. Returns how many records were moved.
pub(super) async fn run(store: &dyn Store) -> Result<usize, MigrateError> {
    let mut moved = 0;
    moved += each(store, "/clusters/", async |key, value| {
        let uid = text(key, &value, "/uid")?;
        let name = format!("{}{}", key::names(key::MANAGED_CLUSTERS), rest(key, "/clusters/"));
        let record = NameRecord {
            v: 1,
            uid: uid.clone(),
        };
        Ok(vec![
            put_record(key::desired(&uid), &value),
            put_record(name, &record),
        ])
    })
    .await?;
    moved += each(store, "/observed/", async |key, value| {
        Ok(vec![put_record(key::observed(rest(key, "/observed/")), &value)])
    })
    .await?;
    moved += each(store, "/pki/", async |key, value| {
        Ok(vec![put_record(key::pki(rest(key, "/pki/")), &value)])
    })
    .await?;
    moved += each(store, "/machines/", async |key, value| {
        let id = rest(key, "/machines/");
        // No release ever gave a machine to nobody.
        let uid = text(key, &value, "/assignment/cluster")?;
        Ok(vec![
            put_record(key::machine(&uid, id), &value),
            owned(key::machine_owner(id), Owner::cluster(uid)),
        ])
    })
    .await?;
    moved += each(store, "/machine-configs/", async |key, value| {
        let id = rest(key, "/machine-configs/");
        // Machines were moved before. A configuration without a machine is of one that is gone.
        let owner = get_record::<OwnerRecord>(store, &key::machine_owner(id)).await?;
        Ok(match owner.as_ref().and_then(|owner| owner.value.owner.uid()) {
            Some(uid) => vec![put_record(key::machine_config(uid, id), &value)],
            None => Vec::new(),
        })
    })
    .await?;
    moved += each(store, "/operations/", async |key, mut value| {
        let id = rest(key, "/operations/");
        let owner = operation_owner(key, &value)?;
        if let Some(members) = value.as_object_mut() {
            members.remove("cluster");
            members.insert("owner".to_owned(), Value::String(owner.to_string()));
        }
        Ok(vec![
            put_record(owner.operation(id), &value),
            owned(key::operation_owner(id), owner),
        ])
    })
    .await?;
    moved += each(store, "/events/", async |key, value| {
        let event = rest(key, "/events/");
        let (uid, id) = event
            .split_once('/')
            .ok_or_else(|| damaged(key, "it names no event"))?;
        Ok(vec![put_record(format!("{}{id}", key::events(uid)), &value)])
    })
    .await?;
    // Of clusters that were deleted, backups are there as long as these records; from now on something says that they may go.
    let (deleted, _) = store.list(key::DELETED).await?;
    for some in deleted.chunks(BATCH) {
        let mut txn = Txn::default();
        for (key, record) in some {
            let value: Value =
                serde_json::from_slice(&record.value).map_err(|error| damaged(key, &error.to_string()))?;
            let at = text(key, &value, "/deletedAt")?;
            let at = at.parse().map_err(|_| damaged(key, "/deletedAt is no time"))?;
            for kind in [Kind::Network, Kind::Backup] {
                txn = txn.with(unknown::removed(kind, rest(key, key::DELETED), at));
            }
        }
        store.txn(txn).await?;
    }
    Ok(moved)
}

/// Replaces each record with a prefix by others.
async fn each(
    store: &dyn Store,
    prefix: &str,
    replace: impl AsyncFn(&str, Value) -> Result<Vec<Op>, MigrateError>,
) -> Result<usize, MigrateError> {
    let (found, _) = store.list(prefix).await?;
    for batch in found.chunks(BATCH) {
        let mut txn = Txn::default();
        for (key, record) in batch {
            let value =
                serde_json::from_slice(&record.value).map_err(|error| damaged(key, &error.to_string()))?;
            txn.ops.extend(replace(key, value).await?);
            txn = txn.at(key, record.revision).delete(key);
        }
        store.txn(txn).await?;
    }
    Ok(found.len())
}

/// An operation belongs to its cluster; without one, to the group that its resource is.
fn operation_owner(key: &str, value: &Value) -> Result<Owner, MigrateError> {
    let cluster = value["cluster"].as_str().unwrap_or_default();
    if !cluster.is_empty() {
        return Ok(Owner::cluster(cluster));
    }
    let resource = text(key, value, "/resourceId")?;
    let parts: Vec<&str> = resource.split('/').collect();
    match parts.as_slice() {
        ["", subscriptions, subscription, groups, name, ..]
            if subscriptions.eq_ignore_ascii_case("subscriptions")
                && groups.eq_ignore_ascii_case("resourceGroups") =>
        {
            Ok(Owner::group(subscription, name))
        }
        _ => Err(damaged(key, "it is about neither a cluster nor a group")),
    }
}

fn owned(key: String, owner: Owner) -> Op {
    put_record(key, &OwnerRecord { v: 1, owner })
}

fn rest<'a>(key: &'a str, prefix: &str) -> &'a str {
    key.strip_prefix(prefix).unwrap_or(key)
}

fn text(key: &str, value: &Value, pointer: &str) -> Result<String, MigrateError> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found
        .map(str::to_owned)
        .ok_or_else(|| damaged(key, &format!("{pointer} is missing")))
}

fn damaged(key: &str, why: &str) -> MigrateError {
    format::damaged(key, 1, why)
}
