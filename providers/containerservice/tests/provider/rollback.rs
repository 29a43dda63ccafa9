//! The ways back: of a pool to the version and node image that it had before, and of a control plane to the minor release that it emulates.
#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

use std::{sync::Arc, time::Duration};

use arm_kernel::{AccessControl, Call, Mode, Provider as _, routes};
use async_trait::async_trait;
use cluster_versions::Offered;
use control_records::usage::Limits;
use providers_containerservice::{ClusterReader, HistoryApi, Rehearsals, UpgradeGuard};
use serde_json::{Value, json};

use crate::stamp::{Answer, SUBSCRIPTION, Stamp, least, sent_back};

const C: &str = "managedClusters/c";
const POOL: &str = "managedClusters/c/agentPools/np2";
const PROFILE: &str = "managedClusters/c/agentPools/np2/upgradeProfiles/default";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A cluster of 1.36.3 with images of one day, which is what it is to be.
async fn standing() -> Stamp {
    let stamp = Stamp::offering(Offered::new(["1.36.3", "1.37.1", "1.38.0"], Some("1.36.3")).unwrap()).await;
    for version in ["1.36.3", "1.37.1"] {
        stamp.images.add(version, "2026.01.01");
    }
    let mut body = least();
    body["properties"] =
        json!({ "agentPoolProfiles": [{ "name": "np1", "mode": "System" }, { "name": "np2", "count": 2 }] });
    stamp.create("c", body).await;
    stamp.reach("c").await;
    stamp
}

impl Stamp {
    /// Goes to a version, control plane and both pools, and gets there.
    async fn upgrade(&self, version: &str) {
        let mut body = sent_back(&self.get(C).await.body);
        body["properties"]["kubernetesVersion"] = json!(version);
        for pool in body["properties"]["agentPoolProfiles"].as_array_mut().unwrap() {
            pool["orchestratorVersion"] = json!(version);
        }
        let answer = self.ask("PUT", C, body).await;
        assert_eq!(answer.status, 200, "{:#}", answer.body);
        self.reach("c").await;
    }

    /// What a pool can go back to, as an Azure CLI reads it.
    async fn can_go_back(&self) -> Value {
        self.get(PROFILE).await.body["properties"]["recentlyUsedVersions"].clone()
    }

    /// As `az aks nodepool rollback` does.
    async fn roll_back(&self) -> Answer {
        let used = self.can_go_back().await[0].clone();
        let mut body = sent_back(&self.get(POOL).await.body);
        body["properties"]["orchestratorVersion"] = used["orchestratorVersion"].clone();
        body["properties"]["nodeImageVersion"] = used["nodeImageVersion"].clone();
        self.ask("PUT", POOL, body).await
    }

    /// Version and build of `np2`.
    async fn nodes(&self) -> (String, Option<String>) {
        let spec = self.record("c").await.unwrap().spec().pools[1].clone();
        (spec.kubernetes_version, spec.image)
    }

    async fn own(&self, mode: Mode, name: &str, action: &str, body: Value) -> (u16, Value) {
        let guard = Arc::new(UpgradeGuard::new(Arc::new(Silent)));
        let api = HistoryApi::new(self.env.clone(), self.store.clone()).rehearsing(Rehearsals {
            guard,
            clusters: Arc::clone(&self.provider),
            offered: Offered::pinned(),
            limits: Limits::default(),
        });
        let route = routes::<HistoryApi>()
            .into_iter()
            .find(|route| route.name == name)
            .unwrap();
        let path = format!(
            "/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/Landfall.ContainerService/managedClusters/c/upgrades/default{action}"
        );
        let call = Call::new(
            self.request(route.verb.method(), &path, body),
            AccessControl::allow_all(),
        );
        let outcome = match mode {
            Mode::Commit => api.handle(&route, &call).await,
            Mode::Preview => api.preview(&route, &call).await,
        };
        match outcome {
            Ok(response) => (response.status.as_u16(), response.body.unwrap_or_default()),
            Err(error) => (error.status().as_u16(), error.body()),
        }
    }

    async fn soak(&self, body: Value) -> (u16, Value) {
        self.own(Mode::Commit, "ManagedClusters_SoakUpgrade", "/soak", body)
            .await
    }

    async fn finalize(&self) -> (u16, Value) {
        let name = "ManagedClusters_FinalizeUpgrade";
        self.own(Mode::Commit, name, "/finalize", Value::Null).await
    }

    async fn take_back(&self) -> (u16, Value) {
        let name = "ManagedClusters_RollBackUpgrade";
        self.own(Mode::Commit, name, "/rollback", Value::Null).await
    }

    async fn state(&self) -> Value {
        self.own(Mode::Commit, "Upgrades_Get", "", Value::Null).await.1
    }

    /// Version of the control plane, and what it emulates.
    async fn control_plane(&self) -> (String, Option<String>) {
        let spec = self.record("c").await.unwrap().spec().clone();
        (spec.kubernetes_version, spec.emulated)
    }
}

/// Reads no cluster.
struct Silent;

#[async_trait]
impl ClusterReader for Silent {
    async fn text(&self, _: &str, _: &str) -> Result<String, String> {
        Err("it does not answer".to_owned())
    }
}

fn message(body: &Value) -> &str {
    body["error"]["message"].as_str().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_pool_goes_back_one_step_to_its_version_and_node_image() {
    let stamp = standing().await;
    assert_eq!(stamp.can_go_back().await, json!([]));
    assert_eq!(
        stamp.get(POOL).await.body["properties"]["nodeImageVersion"],
        "AKSDebian-2026.01.01"
    );
    stamp.upgrade("1.37.1").await;
    // Both are of one day: the versions tell them apart.
    let used = stamp.can_go_back().await;
    assert_eq!(used.as_array().unwrap().len(), 1);
    assert_eq!(used[0]["orchestratorVersion"], "1.36.3");
    assert_eq!(used[0]["nodeImageVersion"], "AKSDebian-2026.01.01");
    assert!(used[0]["timestamp"].as_str().unwrap().starts_with("2026-01-01T"));
    // What is read is sent back without a change.
    let same = sent_back(&stamp.get(POOL).await.body);
    assert_eq!(stamp.ask("PUT", POOL, same).await.status, 200);
    assert_eq!(stamp.nodes().await.0, "1.37.1");

    let answer = stamp.roll_back().await;
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    assert_eq!(
        stamp.nodes().await,
        ("1.36.3".to_owned(), Some("2026.01.01".to_owned()))
    );
    let spec = stamp.record("c").await.unwrap().spec().clone();
    assert_eq!(spec.kubernetes_version, "1.37.1");
    assert_eq!(spec.pools[0].kubernetes_version, "1.37.1", "the others stay");
    assert_eq!(stamp.can_go_back().await, json!([]), "there is one step");
    // It is a pool like any other afterwards.
    let on = json!({ "properties": { "orchestratorVersion": "1.37.1" } });
    assert_eq!(stamp.ask("PUT", POOL, on).await.status, 200);
    assert_eq!(stamp.nodes().await.0, "1.37.1");
}

#[tokio::test(start_paused = true)]
async fn a_node_image_goes_back_and_the_channel_leaves_it_alone() {
    let stamp = standing().await;
    stamp.images.add("1.36.3", "2026.01.08");
    let renew = format!("{POOL}/upgradeNodeImageVersion");
    assert_eq!(
        stamp.get(PROFILE).await.body["properties"]["latestNodeImageVersion"],
        "AKSDebian-2026.01.08"
    );
    assert_eq!(stamp.ask("POST", &renew, Value::Null).await.status, 202);
    assert_eq!(stamp.nodes().await.1.as_deref(), Some("2026.01.08"));
    stamp.reach("c").await;
    // Once more: nodes are made anew with the same, and that is no other version to go back to.
    let before = stamp.can_go_back().await;
    assert_eq!(stamp.ask("POST", &renew, Value::Null).await.status, 202);
    assert_eq!(stamp.can_go_back().await, before);
    stamp.reach("c").await;
    assert_eq!(stamp.roll_back().await.status, 200);
    assert_eq!(stamp.nodes().await.1.as_deref(), Some("2026.01.01"));
    let left = stamp.record("c").await.unwrap().state.pools()[1]
        .decided()
        .left
        .clone();
    assert_eq!(left.as_deref(), Some("2026.01.08"));
}

#[tokio::test(start_paused = true)]
async fn what_speaks_against_a_way_back_is_said() {
    // Its time is over.
    let stamp = standing().await;
    stamp.upgrade("1.37.1").await;
    let used = stamp.can_go_back().await[0].clone();
    let body = json!({ "properties": {
        "orchestratorVersion": used["orchestratorVersion"], "nodeImageVersion": used["nodeImageVersion"],
    } });
    stamp.env.clock.sleep(8 * DAY).await;
    assert_eq!(stamp.can_go_back().await, json!([]));
    let answer = stamp.ask("PUT", POOL, body.clone()).await;
    assert_eq!(answer.code(), "OperationNotAllowed");
    assert!(answer.message().contains("seven days"), "{}", answer.message());

    // A channel would take it on again.
    let stamp = standing().await;
    stamp.upgrade("1.37.1").await;
    let channel = json!({ "location": "local", "properties": { "autoUpgradeProfile": { "upgradeChannel": "stable" } } });
    assert_eq!(stamp.ask("PUT", C, channel).await.status, 200);
    let answer = stamp.ask("PUT", POOL, body.clone()).await;
    assert!(
        answer.message().contains("--auto-upgrade-channel none"),
        "{}",
        answer.message()
    );

    // Its image is gone.
    let stamp = standing().await;
    stamp.upgrade("1.37.1").await;
    stamp.images.add("1.36.3", "2026.01.08");
    stamp.images.remove("1.36.3", "2026.01.01");
    let answer = stamp.ask("PUT", POOL, body).await;
    assert!(
        answer.message().contains("no longer on this stamp"),
        "{}",
        answer.message()
    );
    assert_eq!(stamp.nodes().await.0, "1.37.1");

    // Another one cannot be chosen.
    let other = json!({ "properties": { "nodeImageVersion": "AKSDebian-2026.01.08" } });
    let answer = stamp.ask("PUT", POOL, other).await;
    assert_eq!(answer.code(), "PropertyNotSupported");
    assert!(
        answer.message().contains("az aks nodepool rollback"),
        "{}",
        answer.message()
    );
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_soaks_and_goes_back() {
    let stamp = standing().await;
    assert_eq!(stamp.state().await["state"], "None");
    let (status, body) = stamp
        .soak(json!({ "kubernetesVersion": "1.37", "hours": 24 }))
        .await;
    assert_eq!(status, 202, "{body:#}");
    let soaking = ("1.37.1".to_owned(), Some("1.36".to_owned()));
    assert_eq!(stamp.control_plane().await, soaking);
    let state = stamp.state().await;
    assert_eq!(state["state"], "Soaking");
    assert_eq!(state["rollbackTo"], "1.36.3");
    assert!(
        state["finalizesAt"].as_str().unwrap().starts_with("2026-01-02T"),
        "{state}"
    );
    // Asked twice, it is one; and it is not finalised before it is there.
    assert_eq!(stamp.soak(json!({ "kubernetesVersion": "1.37" })).await.0, 202);
    let (_, early) = stamp.finalize().await;
    assert!(message(&early).contains("everywhere yet"), "{early:#}");
    stamp.reach("c").await;

    // Nodes of the newer release come after it is finalised, and another upgrade too.
    let on = json!({ "properties": { "orchestratorVersion": "1.37.1" } });
    let answer = stamp.ask("PUT", POOL, on).await;
    assert_eq!(answer.code(), "NodePoolMcVersionIncompatible");
    assert!(
        answer.message().contains("landfall upgrade finalize"),
        "{}",
        answer.message()
    );
    let next = json!({ "location": "local", "properties": { "kubernetesVersion": "1.38.0" } });
    let answer = stamp.ask("PUT", C, next).await;
    assert!(
        answer.message().contains("is not finalised"),
        "{}",
        answer.message()
    );
    // Everything else is asked for as always, and changes nothing of that.
    let same = sent_back(&stamp.get(C).await.body);
    assert_eq!(stamp.ask("PUT", C, same).await.status, 200);
    let added = json!({ "properties": { "count": 1 } });
    let np3 = "managedClusters/c/agentPools/np3";
    assert_eq!(stamp.ask("PUT", np3, added).await.status, 201);
    let np3 = stamp.record("c").await.unwrap().spec().pools[2].clone();
    assert_eq!(np3.kubernetes_version, "1.36.3", "as its control plane emulates");
    assert_eq!(stamp.control_plane().await, soaking);
    stamp.reach("c").await;

    let (status, body) = stamp.take_back().await;
    assert_eq!(status, 202, "{body:#}");
    assert_eq!(stamp.control_plane().await.0, "1.36.3");
    assert_eq!(stamp.state().await["state"], "None");
    assert_eq!(
        stamp.get(C).await.body["properties"]["kubernetesVersion"],
        "1.36.3"
    );
    stamp.reach("c").await;
    // As before: a plain upgrade leaves no way back.
    stamp.upgrade("1.37.1").await;
    assert_eq!(stamp.control_plane().await, ("1.37.1".to_owned(), None));
    let (status, refused) = stamp.take_back().await;
    assert_eq!(status, 400, "{refused:#}");
    assert!(
        message(&refused).contains("form that an older one cannot read"),
        "{refused:#}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_finalised_stays_so_whatever_is_aborted() {
    let stamp = standing().await;
    assert_eq!(stamp.soak(json!({ "kubernetesVersion": "1.37.1" })).await.0, 202);
    stamp.reach("c").await;
    assert_eq!(stamp.finalize().await.0, 202);
    let done = ("1.37.1".to_owned(), None);
    assert_eq!(stamp.control_plane().await, done);
    // A member may have stored something since.
    assert_eq!(
        stamp.ask("POST", &format!("{C}/abort"), Value::Null).await.status,
        202
    );
    assert_eq!(stamp.control_plane().await, done);
    assert_eq!(stamp.finalize().await.0, 200, "there is nothing left to do");
    let (_, refused) = stamp.take_back().await;
    assert!(message(&refused).contains("was finalised"), "{refused:#}");
}

#[tokio::test(start_paused = true)]
async fn a_way_back_is_asked_for_as_it_can_be() {
    let stamp = standing().await;
    for (body, words) in [
        (json!({}), "must name the version"),
        (
            json!({ "kubernetesVersion": "1.38.0" }),
            "from there it can go to 1.37.1",
        ),
        (
            json!({ "kubernetesVersion": "1.36.3" }),
            "from there it can go to 1.37.1",
        ),
        (json!({ "kubernetesVersion": "9.9.9" }), "not offered"),
        (json!({ "kubernetesVersion": "1.37", "hours": 0 }), "1 to 168"),
        (
            json!({ "kubernetesVersion": "1.37", "for": 1 }),
            "no property 'for'",
        ),
        (json!([]), ""),
    ] {
        let (status, refused) = stamp.soak(body.clone()).await;
        assert_eq!(status, 400, "{body}: {refused:#}");
        let told = refused.to_string();
        assert!(told.contains(words), "{body}: {told}");
    }
    // A preview changes nothing.
    let name = "ManagedClusters_SoakUpgrade";
    let body = json!({ "kubernetesVersion": "1.37" });
    assert_eq!(stamp.own(Mode::Preview, name, "/soak", body.clone()).await.0, 202);
    assert_eq!(stamp.control_plane().await, ("1.36.3".to_owned(), None));
    // Pools that went on do not come back by themselves.
    assert_eq!(stamp.soak(body).await.0, 202);
    stamp.reach("c").await;
    let (status, _) = stamp.own(Mode::Commit, "Upgrades_Get", "", Value::Null).await;
    assert_eq!(status, 200);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_finalises_is_finalised_when_its_time_is_over() {
    let stamp = standing().await;
    assert_eq!(
        stamp
            .soak(json!({ "kubernetesVersion": "1.37", "hours": 48 }))
            .await
            .0,
        202
    );
    stamp.reach("c").await;
    let uid = stamp.record("c").await.unwrap().uid;
    for operation in stamp.operations().await {
        let ended = control_records::OperationRecord {
            status: control_records::OperationStatus::Succeeded,
            ended_at: Some(stamp.env.clock.now()),
            ..operation
        };
        stamp.write(control_store::put_record(ended.key(), &ended)).await;
    }
    let begun = stamp.env.clock.now();
    while stamp.control_plane().await.1.is_some() {
        let providers_containerservice::Next::At(at) = stamp.provider.follow(&uid).await.unwrap() else {
            break;
        };
        let left = at.duration_since(stamp.env.clock.now()).unsigned_abs();
        stamp.env.clock.sleep(left).await;
    }
    let took = stamp.env.clock.now().duration_since(begun).unsigned_abs();
    assert!((2 * DAY..=3 * DAY).contains(&took), "{took:?}");
    assert_eq!(stamp.control_plane().await, ("1.37.1".to_owned(), None));
}
