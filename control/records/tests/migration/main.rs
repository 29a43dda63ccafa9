//! Stores of every earlier format are opened by this release: nothing is lost, nothing is left behind under old keys, and a
//! migration may be cut short anywhere.

#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

mod clusters;
mod rights;

use std::{collections::BTreeMap, pin::Pin, sync::Mutex};

use async_trait::async_trait;
use base_sealer::Sealer;
use control_records::{
    ClusterRecord, DeletedRecord, EventRecord, FormatRecord, MachineRecord, MigrateError, NameRecord,
    ObservedRecord, OperationRecord, OperationStatus, Owner, OwnerRecord, SealedRecord, directory, events,
    key, migrate, migrate::FORMAT, sealed,
};
use control_store::{
    Changes, Op, Revision, Store, StoreError, Txn, Versioned, get_record, list_records, put_record,
};
use serde_json::{Value, json};
use storage_redb::MemoryStore;

/// What a stamp of the simulator had in its store when this was the format: clusters at rest, being made and deleted, a pool
/// on its way out, operations that ended and that did not. The second has parts that were reached and aborted (one is a pool
/// called `base`), a repair and an upgrade under way, and a state that was restored as well. The third has every kind of network, a
/// cluster that is stopped and one on its way there, labels and taints, a cluster made from another's backup, and what a member was
/// upgraded to. The fourth is the third as releases of that format kept it, with its clusters' fences and a person; of the machines'
/// configurations, which no step reads, it has one. The fifth has roles, assignments, a lock, credentials and a sign-in as well.
const SNAPSHOTS: [&str; 5] = [
    include_str!("../formats/1.json"),
    include_str!("../formats/2.json"),
    include_str!("../formats/3.json"),
    include_str!("../formats/4.json"),
    include_str!("../formats/5.json"),
];
const SUBSCRIPTION: &str = "5a0e2b6c-93d1-4b6f-8d0a-1c2d3e4f5a6b";

async fn snapshot(text: &str) -> MemoryStore {
    let records: BTreeMap<String, Value> = serde_json::from_str(text).unwrap();
    let store = MemoryStore::new();
    for (key, value) in records {
        store
            .txn(Txn::default().with(put_record(key, &value)))
            .await
            .unwrap();
    }
    store
}

/// A moment.
const AT: &str = "2026-01-01T00:10:00Z";

type Opening = Pin<Box<dyn Future<Output = MemoryStore>>>;

/// A store of format 2, and what only happens to a cluster in distress.
async fn second() -> MemoryStore {
    let store = snapshot(SNAPSHOTS[1]).await;
    for (key, value) in of::<Value>(&store, "observed").await {
        let mut value = value;
        // A pool of c6 that is gone, in the generation before its last; and one that nothing knows of any more.
        if value["reached"] == json!({ "": 4 }) {
            value["reached"]["-57532080"] = json!(3);
            value["reached"]["-00000000"] = json!(2);
            value["milestones"]["etcd_lost:"] = json!(AT);
        }
        if value["reached"] == json!({ "np3": 4 }) {
            value["milestones"]["etcd_lost:r1"] = json!(AT);
            value["milestones"]["backup_behind"] = json!(AT);
        }
        // One that was halted since.
        if value["reached"] == json!({ "": 3 }) {
            value["restored"] = json!("r2");
        }
        store
            .txn(Txn::default().with(put_record(key, &value)))
            .await
            .unwrap();
    }
    let mut repaired = 0;
    for (key, mut value) in of::<Value>(&store, "machine").await {
        if value["repair"]["pending"] == json!(true) {
            // Another one, whose upgrade it interrupts.
            repaired += 1;
            let interrupted = json!({ "repair": value["repair"], "upgrading": AT });
            let other = of::<Value>(&store, "machine")
                .await
                .into_iter()
                .find(|(other, machine)| {
                    *other != key && machine["upgrading"].is_null() && machine["repair"]["rung"] == "None"
                });
            let (key, mut other) = other.unwrap();
            other["repair"] = interrupted["repair"].clone();
            other["upgrading"] = interrupted["upgrading"].clone();
            value = other;
            store
                .txn(Txn::default().with(put_record(key, &value)))
                .await
                .unwrap();
        }
    }
    assert_eq!(repaired, 1);
    store
}

/// A store of format 3.
async fn third() -> MemoryStore {
    snapshot(SNAPSHOTS[2]).await
}

/// A store of format 4.
async fn fourth() -> MemoryStore {
    snapshot(SNAPSHOTS[3]).await
}

/// A store of format 5.
async fn fifth() -> MemoryStore {
    snapshot(SNAPSHOTS[4]).await
}

/// A store of format 1, and a group that is being deleted in it.
async fn first() -> MemoryStore {
    let store = snapshot(SNAPSHOTS[0]).await;
    let deletion = json!({
        "v": 1, "id": "0b6f7d7e-3f55-4c4d-9a2b-0a1b2c3d4e5f", "name": "ResourceGroups_Delete",
        "resourceId": format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/Old"), "cluster": "",
        "generation": 0, "pool": null, "creates": false, "deletes": true, "status": "InProgress",
        "startedAt": "2026-01-01T00:00:00Z", "endedAt": null, "error": null,
    });
    let key = format!("/operations/{}", deletion["id"].as_str().unwrap());
    store
        .txn(Txn::default().with(put_record(key, &deletion)))
        .await
        .unwrap();
    store
}

async fn all(store: &dyn Store) -> BTreeMap<String, Vec<u8>> {
    let (found, _) = store.list("/").await.unwrap();
    found
        .into_iter()
        .map(|(key, found)| (key, found.value.to_vec()))
        .collect()
}

async fn of<T: serde::de::DeserializeOwned>(store: &dyn Store, kind: &str) -> BTreeMap<String, T> {
    let mut records = BTreeMap::new();
    for (key, value) in all(store).await {
        if let Some((_, rest)) = key::of_cluster(&key)
            && (rest == kind || rest.strip_prefix(kind).is_some_and(|rest| rest.starts_with('/')))
        {
            let record = serde_json::from_slice(&value);
            records.insert(
                key.clone(),
                record.unwrap_or_else(|error| panic!("{key}: {error}")),
            );
        }
    }
    records
}

#[tokio::test]
async fn every_record_of_the_first_format_is_found_by_its_owner() {
    let store = first().await;
    let before = all(&store).await;
    let count = |prefix: &str| before.keys().filter(|key| key.starts_with(prefix)).count();
    let done = migrate(&store).await.unwrap();
    assert_eq!(done.from, 1);
    let old = [
        "/clusters/",
        "/observed/",
        "/pki/",
        "/machines/",
        "/machine-configs/",
        "/operations/",
        "/events/",
    ];
    let moved = old.iter().map(|prefix| count(prefix)).sum::<usize>();
    assert!(done.records >= moved, "{} of {moved}", done.records);
    let after = all(&store).await;
    for prefix in old {
        assert!(count(prefix) > 0, "the snapshot has nothing of {prefix}");
        assert!(
            !after.keys().any(|key| key.starts_with(prefix)),
            "{prefix} is left"
        );
    }
    for kept in ["/groups/", "/leases/", "/principals/", "/subscriptions/"] {
        let of = |all: &BTreeMap<String, Vec<u8>>| {
            all.iter()
                .filter(|(key, _)| key.starts_with(kept))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&before), of(&after), "{kept}");
        assert!(!of(&before).is_empty(), "the snapshot has nothing of {kept}");
    }

    let clusters = of::<ClusterRecord>(&store, "desired").await;
    assert_eq!(clusters.len(), count("/clusters/"));
    for cluster in clusters.values() {
        let named = directory::cluster_named(
            &store,
            &cluster.subscription,
            &cluster.resource_group,
            &cluster.name,
        );
        assert_eq!(&named.await.unwrap().unwrap().value, cluster);
        let name = get_record::<NameRecord>(&store, &cluster.name_key())
            .await
            .unwrap();
        assert_eq!(name.unwrap().value.uid, cluster.uid);
        // What a loop goes by is where it looks.
        let owner = Owner::cluster(cluster.uid.as_str());
        let last = store.get(&owner.operation(&cluster.operation)).await.unwrap();
        assert!(last.is_some(), "{}", cluster.name);
        assert!(
            !directory::machines(&store, &cluster.uid)
                .await
                .unwrap()
                .is_empty()
        );
    }
    assert_eq!(
        of::<ObservedRecord>(&store, "observed").await.len(),
        count("/observed/")
    );
    let machines = of::<MachineRecord>(&store, "machine").await;
    assert_eq!(machines.len(), count("/machines/"));
    for (key, machine) in &machines {
        let found = directory::machine(&store, &machine.id).await.unwrap().unwrap();
        assert_eq!((&found.0, &found.1.value), (key, machine));
    }
    let operations = of::<OperationRecord>(&store, "op").await;
    assert_eq!(operations.len() + 1, count("/operations/"));
    assert!(
        operations
            .values()
            .any(|found| found.status == OperationStatus::InProgress)
    );
    let group = directory::operation(&store, "0b6f7d7e-3f55-4c4d-9a2b-0a1b2c3d4e5f")
        .await
        .unwrap();
    assert_eq!(group.unwrap().value.owner, Owner::group(SUBSCRIPTION, "old"));
    let told = of::<EventRecord>(&store, "event").await;
    assert_eq!(told.len(), count("/events/"));
    // Of deleted clusters too.
    let (deleted, _) = list_records::<DeletedRecord>(&store, key::DELETED).await.unwrap();
    let now = deleted[0].1.value.deleted_at;
    assert!(
        !events::history(&store, &deleted[0].1.value.uid, now)
            .await
            .unwrap()
            .is_empty()
    );
    let (owners, _) = list_records::<OwnerRecord>(&store, "/owners/").await.unwrap();
    assert_eq!(owners.len(), count("/machines/") + count("/operations/"));
}

#[tokio::test]
async fn what_was_sealed_can_still_be_unsealed() {
    let store = first().await;
    migrate(&store).await.unwrap();
    let sealer = Sealer::from_key(&[7; 32]);
    for (key, record) in of::<SealedRecord>(&store, "pki").await {
        let (uid, _) = key::of_cluster(&key).unwrap();
        sealer.unseal(&key::sealed::pki(uid), &record.sealed).unwrap();
    }
    for (key, record) in of::<SealedRecord>(&store, "machine-config").await {
        let id = key.rsplit('/').next().unwrap();
        sealer
            .unseal(&key::sealed::machine_config(id), &record.sealed)
            .unwrap();
    }
    for machine in of::<MachineRecord>(&store, "machine").await.values() {
        let name = key::sealed::machine_token(&machine.id);
        sealer.unseal(&name, &machine.token_sealed).unwrap();
    }
}

/// How many values are sealed in a record, by the names of its members.
fn sealed_in(value: &Value) -> usize {
    let one = |value: &Value| match value {
        Value::String(text) => usize::from(!text.is_empty()),
        Value::Array(bytes) => usize::from(!bytes.is_empty()),
        // By path.
        Value::Object(members) => members.len(),
        _ => 0,
    };
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| match name.as_str() {
                "sealed" | "tokenSealed" => one(value),
                _ => sealed_in(value),
            })
            .sum(),
        Value::Array(items) => items.iter().map(sealed_in).sum(),
        _ => 0,
    }
}

#[tokio::test]
async fn all_that_is_sealed_is_found_and_is_as_it_was_when_nothing_else_is_given_for_it() {
    let mut total = 0;
    for text in SNAPSHOTS {
        let store = snapshot(text).await;
        migrate(&store).await.unwrap();
        for (name, found) in store.list("/").await.unwrap().0 {
            let value: Value = serde_json::from_slice(&found.value).unwrap();
            let mut shown = 0;
            let op = sealed::rewrite::<StoreError>(&name, &found, &mut |_, sealed| {
                shown += usize::from(!sealed.is_empty());
                Ok(Some(sealed.to_vec()))
            });
            let op = op.unwrap();
            assert_eq!(shown, sealed_in(&value), "{name}");
            total += shown;
            if let Some(Op::Put(_, bytes)) = op {
                let again: Value = serde_json::from_slice(&bytes).unwrap();
                assert_eq!(sealed_in(&again), shown, "{name}");
            }
        }
    }
    assert!(total > 100, "{total}");
}

/// Fails each transaction after so many.
struct Broken<'a> {
    store: &'a MemoryStore,
    left: Mutex<usize>,
}

// `Store` is for what lives as long as the process, so the store that breaks is leaked in the test.
#[async_trait]
impl Store for Broken<'static> {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<(Vec<(String, Versioned)>, Revision), StoreError> {
        self.store.list(prefix).await
    }

    async fn txn(&self, txn: Txn) -> Result<Revision, StoreError> {
        {
            let mut left = self.left.lock().unwrap();
            if *left == 0 {
                return Err(StoreError::Io {
                    act: "commit".to_owned(),
                    why: "the power is gone".to_owned(),
                });
            }
            *left -= 1;
        }
        self.store.txn(txn).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Changes, StoreError> {
        self.store.watch(prefix, from).await
    }
}

#[tokio::test]
async fn a_migration_that_is_cut_short_anywhere_is_finished_by_the_next() {
    let stores: [fn() -> Opening; 5] = [
        || Box::pin(first()),
        || Box::pin(second()),
        || Box::pin(third()),
        || Box::pin(fourth()),
        || Box::pin(fifth()),
    ];
    for (open, least) in stores.into_iter().zip([8, 3, 1, 1, 1]) {
        let whole = open().await;
        migrate(&whole).await.unwrap();
        let wanted = all(&whole).await;
        let mut cut = 0;
        loop {
            let store: &'static MemoryStore = Box::leak(Box::new(open().await));
            let broken = Broken {
                store,
                left: Mutex::new(cut),
            };
            let whole = migrate(&broken).await.is_ok();
            migrate(store).await.unwrap();
            assert!(all(store).await == wanted, "cut after {cut} transactions");
            if whole {
                break;
            }
            cut += 1;
        }
        assert!(cut > least, "{cut} transactions");
    }
}

/// Everything of the present format can be read, in a store of any earlier one.
#[tokio::test]
async fn every_record_can_be_read() {
    for store in [
        first().await,
        second().await,
        third().await,
        fourth().await,
        fifth().await,
    ] {
        migrate(&store).await.unwrap();
        let clusters = of::<ClusterRecord>(&store, "desired").await;
        assert!(clusters.values().all(|record| record.v == 3));
        let observed = of::<ObservedRecord>(&store, "observed").await;
        assert!(observed.values().all(|record| record.v == 2));
        assert!(!of::<MachineRecord>(&store, "machine").await.is_empty());
        assert!(!of::<OperationRecord>(&store, "op").await.is_empty());
        let (deleted, _) = list_records::<DeletedRecord>(&store, key::DELETED).await.unwrap();
        assert!(deleted.iter().any(|(_, deleted)| deleted.value.last.is_some()));
    }
}

#[tokio::test]
async fn the_present_format_is_left_alone_and_a_newer_one_is_refused() {
    let store = MemoryStore::new();
    assert_eq!(migrate(&store).await.unwrap().from, FORMAT);
    let present = all(&store).await;
    assert_eq!(migrate(&store).await.unwrap().records, 0);
    assert_eq!(all(&store).await, present);

    let newer = put_record(key::FORMAT, &FormatRecord { format: FORMAT + 1 });
    store.txn(Txn::default().with(newer)).await.unwrap();
    let present = all(&store).await;
    let error = migrate(&store).await.unwrap_err();
    assert!(matches!(error, MigrateError::Newer { found } if found == FORMAT + 1));
    assert!(error.to_string().contains("newer"), "{error}");
    assert_eq!(all(&store).await, present);
}

#[tokio::test]
async fn a_damaged_record_is_named() {
    let store = MemoryStore::new();
    let txn = Txn::default().with(put_record("/clusters/s/g/c", &json!({ "name": "c" })));
    store.txn(txn).await.unwrap();
    let error = migrate(&store).await.unwrap_err().to_string();
    assert!(
        error.contains("/clusters/s/g/c") && error.contains("uid"),
        "{error}"
    );
}
