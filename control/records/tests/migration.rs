//! Stores of every earlier format are opened by this release: nothing is lost, nothing is left behind under old keys, and a
//! migration may be cut short anywhere.

#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Mutex,
};

use async_trait::async_trait;
use base_sealer::Sealer;
use cluster_spec::{ClusterSpec, PoolSpec};
use control_records::{
    ClusterRecord, DeletedRecord, EtcdLost, EventRecord, FormatRecord, LoginRecord, MachineRecord,
    MigrateError, NameRecord, ObservedRecord, OperationRecord, OperationStatus, Owner, OwnerRecord, Part,
    PrincipalRecord, SealedRecord, SubscriptionRecord, SubscriptionState, Work, access,
    access::AssignmentRecord, directory, events, key, migrate, migrate::FORMAT, sealed,
};
use control_store::{
    Changes, Op, Revision, Store, StoreError, Txn, Versioned, get_record, list_records, put_record,
};
use serde::Deserialize as _;
use serde_json::{Value, json};
use storage_redb::MemoryStore;

/// What a stamp of the simulator had in its store when this was the format: clusters at rest, being made and deleted, a pool
/// on its way out, operations that ended and that did not. The second has parts that were reached and aborted (one is a pool
/// called `base`), a repair and an upgrade under way, and a state that was restored as well. The third has every kind of network, a
/// cluster that is stopped and one on its way there, labels and taints, a cluster made from another's backup, and what a member was
/// upgraded to. The fourth is the third as releases of that format kept it, with its clusters' fences and a person; of the machines'
/// configurations, which no step reads, it has one. The fifth has roles, assignments, a lock, credentials and a sign-in as well.
const SNAPSHOTS: [&str; 5] = [
    include_str!("formats/1.json"),
    include_str!("formats/2.json"),
    include_str!("formats/3.json"),
    include_str!("formats/4.json"),
    include_str!("formats/5.json"),
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

/// Until format 5 every principal might do everything.
#[tokio::test]
async fn every_principal_keeps_what_it_might_do_and_may_lose_it_later() {
    for store in [first().await, second().await, third().await, fourth().await] {
        migrate(&store).await.unwrap();
        let (principals, _) = list_records::<PrincipalRecord>(&store, "/principals/")
            .await
            .unwrap();
        assert!(!principals.is_empty());
        let (given, _) = list_records::<AssignmentRecord>(&store, access::ASSIGNMENTS)
            .await
            .unwrap();
        let mut given: Vec<_> = given.into_iter().map(|(_, given)| given.value).collect();
        let mut wanted: Vec<_> = principals
            .into_iter()
            .map(|(_, found)| found.value)
            .map(|found| access::owner_of_all(&found.object_id, &found.kind, found.created_at).unwrap())
            .collect();
        given.sort_by(|a, b| a.name.cmp(&b.name));
        wanted.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(given, wanted);
        // Each as if it had been made by this release: so it can be removed like any other.
        let removed = given.iter().flat_map(AssignmentRecord::removal);
        let txn = removed.fold(Txn::default(), Txn::with);
        store.txn(txn).await.unwrap();
        assert_eq!(store.list("/access/").await.unwrap().0, []);
        let again = migrate(&store).await.unwrap();
        assert_eq!((again.from, again.records), (FORMAT, 0), "it is not done twice");
        assert_eq!(store.list("/access/").await.unwrap().0, []);
    }
}

/// Since format 5 rights are what was given.
#[tokio::test]
async fn rights_of_the_fifth_format_are_left_as_they_are() {
    let store = fifth().await;
    let (before, _) = store.list("/access/").await.unwrap();
    let done = migrate(&store).await.unwrap();
    assert_eq!((done.from, done.records), (5, 2), "one login of each principal");
    assert_eq!(store.list("/access/").await.unwrap().0, before);
    let (given, _) = list_records::<AssignmentRecord>(&store, access::ASSIGNMENTS)
        .await
        .unwrap();
    assert_eq!(given.len(), 2);
    for (key, given) in given {
        assert_eq!(given.value.key(), key);
    }
    let (roles, _) = list_records::<access::RoleRecord>(&store, access::ROLES)
        .await
        .unwrap();
    assert_eq!(roles.len(), 1);
    let (locks, _) = list_records::<access::LockRecord>(&store, access::LOCKS)
        .await
        .unwrap();
    assert_eq!(locks[0].1.value.key(), locks[0].0);
    let (principals, _) = list_records::<PrincipalRecord>(&store, key::PRINCIPALS)
        .await
        .unwrap();
    let mut credentials = principals.iter().map(|(_, found)| &found.value.credentials);
    assert!(credentials.any(|credentials| !credentials.is_empty()));
}

/// Until format 6 a login was looked for among all principals.
#[tokio::test]
async fn every_login_is_found_by_the_index() {
    for store in [
        first().await,
        second().await,
        third().await,
        fourth().await,
        fifth().await,
    ] {
        let twice = json!({ "v": 1, "objectId": "ffffffff-ffff-4fff-8fff-ffffffffffff", "login": "A/B%", "kind": "User",
            "displayName": "", "secretHash": "", "createdAt": AT });
        let txn = Txn::default().with(put_record(
            "/principals/ffffffff-ffff-4fff-8fff-ffffffffffff",
            &twice,
        ));
        store.txn(txn).await.unwrap();
        migrate(&store).await.unwrap();
        let (principals, _) = list_records::<PrincipalRecord>(&store, key::PRINCIPALS)
            .await
            .unwrap();
        assert!(principals.len() > 1);
        for (_, found) in &principals {
            let index = get_record::<LoginRecord>(&store, &key::login(&found.value.login))
                .await
                .unwrap();
            assert_eq!(index.unwrap().value.principal, found.value.object_id);
        }
        let (logins, _) = store.list("/directory/login/").await.unwrap();
        assert_eq!(logins.len(), principals.len());
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

/// What the loops act on by uid, in records of any format: of the cluster, of what was reached last, of pools on their way out.
fn specs(all: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<Value>> {
    let mut specs = BTreeMap::new();
    for value in all.values() {
        let value: Value = serde_json::from_slice(value).unwrap();
        let record = value.get("last").unwrap_or(&value);
        let Some(uid) = record["uid"].as_str().filter(|_| record["course"].is_object()) else {
            continue;
        };
        let requests = &record["course"];
        let reached = Some(&requests["reached"]).filter(|reached| reached.is_object());
        let leaving = requests["leaving"].as_array().into_iter().flatten();
        let own: Vec<Value> = if record["spec"].is_object() {
            // As a release of that format read it.
            let cluster = |value: &Value| json!(ClusterSpec::deserialize(&value["spec"]).unwrap());
            let pool = |value: &Value| json!(PoolSpec::deserialize(&value["spec"]).unwrap());
            std::iter::once(cluster(record))
                .chain(reached.map(cluster))
                .chain(leaving.map(pool))
                .collect()
        } else {
            let record = ClusterRecord::deserialize(record).unwrap();
            let reached = record
                .requests
                .reached
                .iter()
                .map(|reached| json!(reached.state.spec()));
            let leaving = record
                .requests
                .leaving
                .iter()
                .map(|leaving| json!(leaving.spec()));
            std::iter::once(json!(record.spec()))
                .chain(reached)
                .chain(leaving)
                .collect()
        };
        specs.insert(uid.to_owned(), own);
    }
    specs
}

#[tokio::test]
async fn a_subscription_of_before_can_be_changed_in() {
    for store in [first().await, second().await, third().await] {
        migrate(&store).await.unwrap();
        let (all, _) = list_records::<SubscriptionRecord>(&store, key::SUBSCRIPTIONS)
            .await
            .unwrap();
        assert!(!all.is_empty());
        for (key, found) in all {
            assert_eq!(found.value.state, SubscriptionState::Enabled, "{key}");
        }
    }
    let disabled = SubscriptionState::Disabled;
    assert_eq!(json!(disabled), disabled.as_str());
}

#[tokio::test]
async fn the_loops_go_on_with_what_they_acted_on() {
    for store in [
        first().await,
        second().await,
        third().await,
        fourth().await,
        fifth().await,
    ] {
        let before = specs(&all(&store).await);
        assert!(before.len() > 3, "{} clusters", before.len());
        assert!(before.values().any(|specs| specs.len() > 1));
        migrate(&store).await.unwrap();
        let after = all(&store).await;
        assert_eq!(specs(&after), before);
        for (key, record) in of::<Value>(&store, "desired").await {
            let text = record.to_string();
            assert!(
                !text.contains("\"spec\""),
                "{key} still has a spec beside its body"
            );
        }
    }
    let store = third().await;
    migrate(&store).await.unwrap();
    let all = of::<ClusterRecord>(&store, "desired").await;
    let plugins: BTreeSet<_> = all
        .values()
        .map(|record| format!("{:?}", record.spec().network.plugin))
        .collect();
    assert!(plugins.len() >= 3, "{plugins:?}");
    assert!(all.values().any(|record| record.spec().stopped));
    assert!(all.values().any(|record| record.spec().restore.is_some()));
    let pools = || all.values().flat_map(|record| &record.spec().pools);
    assert!(pools().any(|pool| !pool.taints.is_empty() && !pool.labels.is_empty()));
}

/// The cluster of that name in the second snapshot.
async fn named(store: &MemoryStore, name: &str) -> (ClusterRecord, ObservedRecord) {
    let cluster = directory::cluster_named(store, SUBSCRIPTION, "rg", name)
        .await
        .unwrap();
    let cluster = cluster.unwrap().value;
    let observed = get_record(store, &key::observed(&cluster.uid)).await.unwrap();
    (cluster, observed.unwrap().value)
}

#[tokio::test]
async fn parts_have_their_types() {
    let store = second().await;
    migrate(&store).await.unwrap();
    let (c6, observed) = named(&store, "c6").await;
    assert_eq!(
        c6.requests.aborted,
        [(Part::Base, 4), (Part::pool("np1"), 4)].into()
    );
    // The pool `base` goes; the cluster without its pools is called so by now.
    let base = c6.requests.leaving[0].part();
    assert_eq!(base.pool_name(), Some("base"));
    assert_eq!(observed.reached[&Part::Base], 4);
    assert_eq!(observed.reached[&base], 3);
    let (c1, observed) = named(&store, "c1").await;
    assert_eq!(observed.reached, [(Part::pool("np3"), 4)].into());
    for (cluster, pools) in [(&c6, ["base"].as_slice()), (&c1, &["np1", "np2"])] {
        let owner = Owner::cluster(cluster.uid.as_str());
        let mut running = directory::operations(&store, &owner).await.unwrap();
        running.retain(|found| found.status == OperationStatus::InProgress);
        let leaving = &cluster.requests.leaving[0];
        let deletion = running.iter().find(|found| found.id == leaving.operation);
        assert_eq!(deletion.unwrap().part, Some(leaving.part()));
        let of_one: BTreeSet<_> = running.iter().filter_map(OperationRecord::pool).collect();
        assert!(of_one.iter().eq(pools), "{of_one:?}");
        let others = running.iter().filter(|found| found.id != leaving.operation);
        for found in others {
            assert_eq!(found.part, found.pool().map(Part::pool), "{}", found.name);
        }
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

#[tokio::test]
async fn no_decision_rests_on_milestones() {
    let store = second().await;
    migrate(&store).await.unwrap();
    let lost = |after: Option<&str>| {
        Some(EtcdLost {
            at: AT.parse().unwrap(),
            after: after.map(str::to_owned),
        })
    };
    let (_, c6) = named(&store, "c6").await;
    assert_eq!((c6.formed, c6.etcd_lost, c6.restored), (true, lost(None), None));
    let (_, c1) = named(&store, "c1").await;
    assert_eq!((c1.formed, c1.etcd_lost), (true, lost(Some("r1"))));
    assert_eq!(c1.backup_behind, Some(AT.parse().unwrap()));
    let (desired, c3) = named(&store, "c3").await;
    let restored = c3.restored.unwrap();
    assert_eq!(restored.id, desired.spec().restore.as_ref().unwrap().id);
    assert!(restored.at > desired.created_at);
    let (_, c2) = named(&store, "c2").await;
    assert_eq!(c2.restored.unwrap().id, "r2");
    // Its creation was aborted.
    let (_, c7) = named(&store, "c7").await;
    assert!(!c7.formed);
    for (key, observed) in of::<ObservedRecord>(&store, "observed").await {
        for name in observed.milestones.keys() {
            let known = ["accepted", "api_ready", "node_ready", "converged"];
            assert!(known.contains(&name.as_str()), "{key}: {name}");
        }
    }
}

#[tokio::test]
async fn a_machine_has_at_most_one_work() {
    let store = second().await;
    let before = of::<Value>(&store, "machine").await;
    migrate(&store).await.unwrap();
    let (mut repairs, mut upgrades) = (0, 0);
    for (key, machine) in of::<MachineRecord>(&store, "machine").await {
        let (repair, upgrading) = (&before[&key]["repair"], &before[&key]["upgrading"]);
        match &machine.work {
            Some(Work::Repair { step, since, .. }) => {
                repairs += 1;
                assert_eq!(repair["pending"], true);
                assert_eq!(repair["rung"], json!(step));
                assert_eq!(repair["at"], json!(since));
            }
            _ => assert_eq!(repair["pending"], false),
        }
        upgrades += usize::from(machine.upgrading().is_some());
        assert_eq!(&json!(machine.upgrading()), upgrading);
        assert_eq!(repair["rung"], json!(machine.healing.step));
        assert_eq!(repair["restarts"], json!(machine.healing.restarts));
    }
    // One of the upgrades is interrupted by a repair.
    assert_eq!((repairs, upgrades), (2, 2));
}
