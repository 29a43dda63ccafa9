//! The state of support: from records to answers, the warning of writes, the scope.
#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

use std::{sync::Arc, time::Duration};

use arm_kernel::{AccessControl, Call, Provider as _, routes};
use cluster_versions::Offered;
use control_records::{
    Event, EventKind, MachineRecord, OperationError, OperationRecord, OperationStatus, SubscriptionRecord,
    SubscriptionState, events, key,
};
use control_store::{Txn, get_record, put_record};
use jiff::Timestamp;
use policy_support::Profile;
use providers_containerservice::{HistoryApi, NodeImages, Support, built_on};
use serde_json::{Value, json};

use crate::stamp::{Answer, SUBSCRIPTION, Stamp, answer, least};

const DAY: u64 = 24 * 60 * 60;

/// Two builds of every version: of the first day of the clock, and one that was made at this time.
struct Built(Timestamp);

/// The builds that it has.
const BUILDS: [&str; 2] = ["2026.01.02", "2026.01.01"];

impl NodeImages for Built {
    fn builds(&self, _: &str) -> Vec<String> {
        BUILDS.map(str::to_owned).to_vec()
    }

    fn built_at(&self, _: &str, build: &str) -> Option<Timestamp> {
        if build == BUILDS[0] {
            Some(self.0)
        } else {
            built_on(build)
        }
    }
}

async fn ask_of(stamp: &Stamp, api: HistoryApi, name: &str, path: &str) -> Answer {
    let route = routes::<HistoryApi>()
        .into_iter()
        .find(|route| route.name == name)
        .unwrap();
    let call = Call::new(
        stamp.request("GET", path, Value::Null),
        AccessControl::allow_all(),
    );
    answer(api.handle(&route, &call).await)
}

fn api(stamp: &Stamp) -> HistoryApi {
    HistoryApi::new(stamp.env.clone(), stamp.store.clone())
}

/// The state of `c`, by a query such as `profile=arc&at=…`.
async fn ask(stamp: &Stamp, query: &str) -> Answer {
    let path = format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/Landfall.ContainerService/managedClusters/c/supportState?{query}"
    );
    ask_of(stamp, api(stamp), "SupportState_Get", &path).await
}

async fn state(stamp: &Stamp, query: &str) -> Value {
    let answer = ask(stamp, query).await;
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    answer.body
}

/// The reason by a rule.
fn reason<'a>(state: &'a Value, rule: &str) -> Option<&'a Value> {
    let mut reasons = state["reasons"].as_array().unwrap().iter();
    reasons.find(|reason| reason["rule"] == rule)
}

fn area<'a>(state: &'a Value, area: &str) -> &'a str {
    let mut areas = state["areas"].as_array().unwrap().iter();
    let found = areas.find(|found| found["area"] == area).unwrap();
    found["state"].as_str().unwrap()
}

async fn days(stamp: &Stamp, days: u64) {
    stamp.env.clock.sleep(Duration::from_secs(days * DAY)).await;
}

fn later(stamp: &Stamp, days: u64) -> String {
    let later = stamp.env.clock.now().checked_add(Duration::from_secs(days * DAY));
    later.unwrap().to_string()
}

async fn standing(profile: Profile, body: Value) -> Stamp {
    let stamp = Stamp::supporting(profile).await;
    stamp.create("c", body).await;
    stamp.reach("c").await;
    stamp
}

#[tokio::test(start_paused = true)]
async fn v1_v2_v4_a_minor_ends_and_writes_carry_a_warning() {
    let stamp = standing(Profile::Arc, least()).await;
    let now = state(&stamp, "").await;
    assert_eq!(
        (&now["state"], &now["profile"]),
        (&json!("Supported"), &json!("aks"))
    );
    assert_eq!(
        now["type"],
        "Landfall.ContainerService/managedClusters/supportState"
    );
    // 1.36 was released on 22 April 2026.
    let now = state(&stamp, "profile=arc").await;
    assert_eq!(
        now["until"], "2027-02-21T00:00:00Z",
        "60 days before a year is over"
    );
    let then = state(&stamp, "profile=arc&at=2027-04-22T00:00:00Z").await;
    assert_eq!(
        (&then["state"], &then["replay"]["of"]),
        (&json!("OutOfSupport"), &json!("future"))
    );
    let v4 = reason(&then, "V4").unwrap();
    assert!(v4["remedy"].as_str().unwrap().contains("az aks upgrade"), "{v4}");
    assert!(reason(&then, "V2").is_some() && reason(&then, "V3").is_some());
    assert_eq!(area(&then, "etcd"), "OutOfSupport");
    assert_eq!(
        state(&stamp, "at=2027-04-22T00:00:00Z").await["state"],
        "Supported"
    );

    let put = async |path: &str, body: Value| {
        let answer = stamp.ask("PUT", path, body).await;
        assert!(answer.status < 300, "{:#}", answer.body);
        answer.header("warning").map(str::to_owned)
    };
    assert_eq!(put("managedClusters/c", least()).await, None);
    days(&stamp, 500).await;
    let warning = put("managedClusters/c", least()).await.unwrap();
    assert!(
        warning.starts_with("299 landfall \"V4: Kubernetes 1.36 of"),
        "{warning}"
    );
    assert!(warning.len() < 400 && warning.ends_with('"'), "{warning}");
    let pool = json!({ "properties": { "count": 2 } });
    let pool = put("managedClusters/c/agentPools/nodepool1", pool).await;
    assert!(pool.is_some(), "scaling is possible, with a warning");
    let newer = json!({ "location": "local", "properties": { "kubernetesVersion": "1.37.1" } });
    assert_eq!(
        put("managedClusters/c", newer).await,
        None,
        "it comes back into support"
    );
}

#[tokio::test(start_paused = true)]
async fn v10_nodes_are_older_than_the_newest_image() {
    let stamp = standing(Profile::Aks, least()).await;
    let uid = stamp.record("c").await.unwrap().uid;
    stamp.add_node(&uid, "n1", "nodepool1", 0).await;
    let incarnation = stamp.record("c").await.unwrap().spec().pools[0]
        .incarnation
        .clone();
    machine(&stamp, "n1", |machine| {
        let role = &mut machine.assignment.as_mut().unwrap().role;
        if let control_records::Role::Node { incarnation: own, .. } = role {
            own.clone_from(&incarnation);
        }
    })
    .await;
    days(&stamp, 1).await;
    let built = stamp.env.clock.now();
    let ask = async |query: &str| {
        let api = api(&stamp).supporting(Support {
            profile: Profile::Aks,
            offered: Offered::pinned(),
            images: Arc::new(Built(built)),
        });
        let path = format!(
            "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/Landfall.ContainerService/managedClusters/c/supportState?{query}"
        );
        ask_of(&stamp, api, "SupportState_Get", &path).await.body
    };
    assert_eq!(area(&ask("").await, "nodes"), "Supported");
    let week = format!("at={}", later(&stamp, 7));
    let old = ask(&week).await;
    assert_eq!(
        (area(&old, "nodes"), &old["state"]),
        ("Warning", &json!("Supported"))
    );
    let v10 = reason(&old, "V10").unwrap();
    assert!(
        v10["remedy"].as_str().unwrap().contains("--node-image-only"),
        "{v10}"
    );
    assert_eq!(
        area(&ask(&format!("{week}&profile=hci")).await, "nodes"),
        "Supported"
    );
    // A node with the newest build is not old, although its record is older than that; one that was made later with the build before is.
    machine(&stamp, "n1", |machine| machine.build = Some(BUILDS[0].to_owned())).await;
    assert_eq!(area(&ask(&week).await, "nodes"), "Supported");
    let made = stamp.env.clock.now();
    machine(&stamp, "n1", |machine| {
        machine.build = Some(BUILDS[1].to_owned());
        machine.created_at = made;
    })
    .await;
    assert_eq!(area(&ask(&week).await, "nodes"), "Warning");
}

/// Changes the record of a machine.
async fn machine(stamp: &Stamp, id: &str, change: impl FnOnce(&mut MachineRecord)) {
    let uid = stamp.record("c").await.unwrap().uid;
    let own = key::machine(&uid, id);
    let found = get_record::<MachineRecord>(&*stamp.store, &own).await.unwrap();
    let mut record = found.unwrap().value;
    change(&mut record);
    stamp.write(put_record(own, &record)).await;
}

#[tokio::test(start_paused = true)]
async fn m9_the_state_of_the_network_is_the_tenants() {
    let body =
        json!({ "location": "local", "properties": { "networkProfile": { "networkPlugin": "none" } } });
    let stamp = standing(Profile::Aks, body).await;
    let now = state(&stamp, "").await;
    assert_eq!(
        (area(&now, "network"), area(&now, "nodes")),
        ("OutOfSupport", "Supported")
    );
    assert_eq!(now["state"], "Supported");
    assert!(reason(&now, "M9").is_some());
    // An engine's production has three of each.
    let engine = state(&stamp, "profile=hub-engine").await;
    assert_eq!(
        (&engine["state"], reason(&engine, "C5").is_some()),
        (&json!("Warning"), true)
    );
}

#[tokio::test(start_paused = true)]
async fn r1_a_failed_request_is_told() {
    let stamp = standing(Profile::Aks, least()).await;
    let pool = json!({ "properties": { "count": 5 } });
    stamp
        .ask("PUT", "managedClusters/c/agentPools/nodepool1", pool)
        .await;
    let record = stamp.record("c").await.unwrap();
    let mut operations = stamp.operations().await.into_iter();
    let operation = operations
        .find(|operation| operation.id == record.operation)
        .unwrap();
    let failed = OperationRecord {
        status: OperationStatus::Failed,
        ended_at: Some(stamp.env.clock.now()),
        error: Some(OperationError {
            code: "Timeout".to_owned(),
            message: "node n2 is silent".to_owned(),
        }),
        ..operation
    };
    stamp.write(put_record(failed.key(), &failed)).await;
    stamp
        .observe("c", |observed| observed.problem = Some("n2 is silent".to_owned()))
        .await;
    let told = [Event::new(EventKind::ProblemBegan, "n2", "it is silent")];
    let txn = events::append(
        &*stamp.store,
        Txn::default(),
        &record.uid,
        &told,
        stamp.env.clock.now(),
    );
    stamp.store.txn(txn.await.unwrap()).await.unwrap();
    let now = state(&stamp, "").await;
    assert_eq!(
        (&now["state"], area(&now, "controlPlane")),
        (&json!("Warning"), "Warning")
    );
    let told = now["reasons"].to_string();
    assert!(told.contains("node n2 is silent"), "{told}");
    let problem = now["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .find(|reason| reason["area"] == "controlPlane");
    assert_eq!(
        problem.unwrap()["fact"]["since"],
        stamp.env.clock.now().to_string()
    );
    stamp.reach("c").await;
    assert_eq!(
        state(&stamp, "").await["state"],
        "Supported",
        "it was reached all the same"
    );
}

#[tokio::test(start_paused = true)]
async fn l1_l5_a_stopped_cluster_counts_from_its_stop() {
    let stamp = standing(Profile::Aks, least()).await;
    days(&stamp, 10).await;
    let answer = stamp.ask("POST", "managedClusters/c/stop", Value::Null).await;
    assert_eq!(answer.status, 202, "{:#}", answer.body);
    stamp.reach("c").await;
    let stopped = stamp.env.clock.now();
    let now = state(&stamp, "").await;
    let l1 = reason(&now, "L1").unwrap();
    assert_eq!(l1["fact"]["since"], stopped.to_string());
    assert_eq!(
        (l1["by"].as_str().unwrap(), &now["state"]),
        ("2027-01-11T00:00:00Z", &json!("Supported"))
    );
    let of = async |days: u64, profile: &str| {
        let query = format!("profile={profile}&at={}", later(&stamp, days));
        state(&stamp, &query).await["state"].clone()
    };
    assert_eq!(of(29, "hci").await, "Warning");
    assert_eq!(of(30, "hci").await, "OutOfSupport");
    assert_eq!(of(30, "aks").await, "Supported");
    assert_eq!(of(310, "aks").await, "Warning");
    // Five days ago it ran.
    days(&stamp, 3).await;
    let ago = stopped.checked_sub(Duration::from_secs(2 * DAY)).unwrap();
    let then = state(&stamp, &format!("at={ago}")).await;
    assert!(reason(&then, "L1").is_none());
    assert_eq!(then["replay"]["of"], "past");
    for wrong in [
        "at=2020-01-01T00:00:00Z",
        "at=2099-01-01T00:00:00Z",
        "at=soon",
        "profile=none",
    ] {
        let answer = ask(&stamp, wrong).await;
        assert_eq!(
            (answer.status, answer.code()),
            (400, "InvalidParameter"),
            "{wrong}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn l2_all_nodes_deallocated_by_hand() {
    let stamp = standing(Profile::Aks, least()).await;
    let uid = stamp.record("c").await.unwrap().uid;
    stamp.add_node(&uid, "n1", "nodepool1", 0).await;
    let since = stamp.env.clock.now();
    machine(&stamp, "n1", |machine| {
        machine.healing.off = true;
        machine.healing.off_since = Some(since);
    })
    .await;
    let now = state(&stamp, "").await;
    assert_eq!(now["state"], "OutOfSupport");
    let l2 = reason(&now, "L2").unwrap();
    assert_eq!(
        (&l2["fact"]["since"], &l2["by"]),
        (&json!(since.to_string()), &json!(later(&stamp, 30)))
    );
    let archivable = state(&stamp, &format!("at={}", later(&stamp, 30))).await;
    assert!(reason(&archivable, "L4").is_some());
    machine(&stamp, "n1", |machine| machine.healing.off = false).await;
    assert_eq!(state(&stamp, "").await["state"], "Supported");
}

#[tokio::test(start_paused = true)]
async fn s1_s3_a_disabled_subscription_counts() {
    let stamp = standing(Profile::Aks, least()).await;
    let now = stamp.env.clock.now();
    let record = SubscriptionRecord {
        v: 1,
        id: SUBSCRIPTION.to_owned(),
        display_name: "tests".to_owned(),
        tenant_id: String::new(),
        registered: Vec::new(),
        unregistered: Vec::new(),
        state: SubscriptionState::Disabled,
        state_since: Some(now),
        created_at: now,
    };
    stamp
        .write(put_record(key::subscription(SUBSCRIPTION), &record))
        .await;
    let told = state(&stamp, "").await;
    assert_eq!(told["state"], "OutOfSupport");
    assert_eq!(reason(&told, "S1").unwrap()["by"], later(&stamp, 90));
    let told = state(&stamp, "profile=arc").await;
    assert_eq!(
        (&told["state"], &told["until"]),
        (&json!("Warning"), &json!(later(&stamp, 60)))
    );
}

#[tokio::test(start_paused = true)]
async fn c1_to_c6_the_scope_is_data() {
    let stamp = Stamp::new().await;
    let ask = async |query: &str| {
        let path = format!("/providers/Landfall.ContainerService/supportScope?{query}");
        ask_of(&stamp, api(&stamp), "SupportScope_Get", &path).await.body
    };
    let rules = async |profile: &str| {
        let scope = ask(&format!("profile={profile}")).await;
        let subjects = scope["value"].as_array().unwrap().clone();
        let mut rules: Vec<String> = subjects
            .iter()
            .map(|subject| subject["rule"].as_str().unwrap().to_owned())
            .collect();
        rules.dedup();
        rules
    };
    assert_eq!(rules("aks").await, ["C1", "C2", "C6"]);
    assert_eq!(rules("arc").await, ["C1", "C2", "C3", "C6"]);
    assert_eq!(rules("hub-engine").await, ["C1", "C2", "C4", "C5"]);
    assert_eq!(ask("").await["profile"], "aks");
}
