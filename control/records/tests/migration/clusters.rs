//! What loops go by of clusters and machines, after a migration.

use std::collections::{BTreeMap, BTreeSet};

use cluster_spec::{ClusterSpec, PoolSpec};
use control_records::{
    ClusterRecord, EtcdLost, MachineRecord, ObservedRecord, OperationRecord, OperationStatus, Owner, Part,
    Work, directory, key, migrate,
};
use control_store::get_record;
use serde::Deserialize as _;
use serde_json::{Value, json};
use storage_redb::MemoryStore;

use crate::{AT, SUBSCRIPTION, all, fifth, first, fourth, of, second, third};

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
