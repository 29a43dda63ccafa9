//! Requests for another version of Kubernetes: offered versions, accepted ones, and the effect of an abort.
#![expect(clippy::unwrap_used, reason = "the helpers of these tests panic as tests do")]

use cluster_versions::Offered;
use control_records::ObservedRecord;
use serde_json::{Value, json};

use crate::stamp::{Stamp, least, sent_back};

const C: &str = "managedClusters/c";
const POOL: &str = "managedClusters/c/agentPools/nodepool1";

async fn stamp() -> Stamp {
    let versions = ["1.34.2", "1.35.1", "1.35.4", "1.36.3", "1.37.1"];
    Stamp::offering(Offered::new(versions, Some("1.35.1")).unwrap()).await
}

/// The PUT of `az aks upgrade`: the cluster is read, its versions are changed, it is sent back.
async fn upgrade(stamp: &Stamp, control_plane: &str, pools: Option<&str>) -> crate::stamp::Answer {
    let mut body = sent_back(&stamp.get(C).await.body);
    body["properties"]["kubernetesVersion"] = json!(control_plane);
    if let Some(version) = pools {
        for pool in body["properties"]["agentPoolProfiles"].as_array_mut().unwrap() {
            pool["orchestratorVersion"] = json!(version);
        }
    }
    stamp.ask("PUT", C, body).await
}

async fn abort(stamp: &Stamp) {
    let answer = stamp.ask("POST", "managedClusters/c/abort", Value::Null).await;
    assert_eq!(answer.status, 202, "{:#}", answer.body);
}

async fn versions(stamp: &Stamp) -> (String, String) {
    let spec = stamp.record("c").await.unwrap().spec().clone();
    (spec.kubernetes_version, spec.pools[0].kubernetes_version.clone())
}

fn offered(profile: &Value) -> Vec<&str> {
    let upgrades = profile["upgrades"].as_array().unwrap();
    upgrades
        .iter()
        .map(|upgrade| upgrade["kubernetesVersion"].as_str().unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_offered_is_what_is_accepted() {
    let stamp = stamp().await;
    stamp.create("c", least()).await;
    stamp.reach("c").await;
    let profile = stamp.get("managedClusters/c/upgradeProfiles/default").await.body;
    let profile = &profile["properties"];
    assert_eq!(offered(&profile["controlPlaneProfile"]), ["1.35.4", "1.36.3"]);
    assert_eq!(profile["controlPlaneProfile"]["kubernetesVersion"], "1.35.1");
    assert_eq!(profile["agentPoolProfiles"][0]["name"], "nodepool1");
    assert_eq!(
        offered(&profile["agentPoolProfiles"][0]),
        [""; 0],
        "nodes follow the control plane"
    );

    let answer = upgrade(&stamp, "1.36.3", None).await;
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    assert_eq!(versions(&stamp).await, ("1.36.3".to_owned(), "1.35.1".to_owned()));
    assert_eq!(answer.body["properties"]["kubernetesVersion"], "1.36.3");
    assert_eq!(
        answer.body["properties"]["currentKubernetesVersion"], "1.35.1",
        "until it serves"
    );
    assert_eq!(answer.body["properties"]["provisioningState"], "Updating");
    stamp.reach("c").await;
    assert_eq!(
        stamp.get(C).await.body["properties"]["currentKubernetesVersion"],
        "1.36.3"
    );

    let profile = stamp.get(&format!("{POOL}/upgradeProfiles/default")).await.body;
    assert_eq!(offered(&profile["properties"]), ["1.35.4", "1.36.3"]);
    let answer = stamp
        .ask(
            "PUT",
            POOL,
            json!({ "properties": { "orchestratorVersion": "1.36" } }),
        )
        .await;
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    assert_eq!(versions(&stamp).await.1, "1.36.3");
    assert_eq!(answer.body["properties"]["orchestratorVersion"], "1.36");
    assert_eq!(answer.body["properties"]["currentOrchestratorVersion"], "1.35.1");
    stamp.reach("c").await;
    assert_eq!(
        stamp.get(POOL).await.body["properties"]["currentOrchestratorVersion"],
        "1.36.3"
    );

    // Both at once, and once more during the upgrade: read, and sent back.
    let answer = upgrade(&stamp, "1.37.1", Some("1.37.1")).await;
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    assert_eq!(versions(&stamp).await, ("1.37.1".to_owned(), "1.37.1".to_owned()));
    let again = sent_back(&stamp.get(C).await.body);
    assert_eq!(stamp.ask("PUT", C, again).await.status, 200);
    assert_eq!(versions(&stamp).await, ("1.37.1".to_owned(), "1.37.1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused_with_a_way_out() {
    let stamp = stamp().await;
    stamp.create("c", least()).await;
    stamp.reach("c").await;
    let cases = [
        (
            "1.37.1",
            None,
            "properties.kubernetesVersion",
            "minor versions cannot be skipped; from there it can go to 1.35.4 or 1.36.3.",
        ),
        (
            "1.34.2",
            None,
            "properties.kubernetesVersion",
            "a control plane cannot go back to 1.34.2",
        ),
        ("1.35.9", None, "properties.kubernetesVersion", "not offered here"),
        (
            "1.35.1",
            Some("1.36.3"),
            "properties.agentPoolProfiles[0].orchestratorVersion",
            "never newer",
        ),
        (
            "1.35.1",
            Some("1.34.2"),
            "properties.agentPoolProfiles[0].orchestratorVersion",
            "nodes cannot go back to 1.34.2",
        ),
    ];
    for (control_plane, pools, target, message) in cases {
        let answer = upgrade(&stamp, control_plane, pools).await;
        assert_eq!(answer.status, 400, "{:#}", answer.body);
        assert_eq!(answer.body["error"]["target"], target, "{:#}", answer.body);
        assert!(answer.message().contains(message), "{}", answer.message());
    }
    assert_eq!(versions(&stamp).await, ("1.35.1".to_owned(), "1.35.1".to_owned()));

    // A running upgrade does not count as a step towards the next one.
    assert_eq!(upgrade(&stamp, "1.36.3", None).await.status, 200);
    let answer = upgrade(&stamp, "1.37.1", None).await;
    assert_eq!(answer.status, 400, "{:#}", answer.body);
    assert!(answer.message().contains("The control plane runs 1.35.1"));
}

#[tokio::test(start_paused = true)]
async fn nodes_may_not_fall_too_far_behind() {
    let versions = ["1.33.1", "1.34.2", "1.35.4", "1.36.3", "1.37.1"];
    let stamp = Stamp::offering(Offered::new(versions, Some("1.33.1")).unwrap()).await;
    stamp.create("c", least()).await;
    for version in ["1.34.2", "1.35.4", "1.36.3"] {
        stamp.reach("c").await;
        assert_eq!(upgrade(&stamp, version, None).await.status, 200);
    }
    stamp.reach("c").await;
    let answer = upgrade(&stamp, "1.37.1", None).await;
    assert_eq!(
        answer.code(),
        "NodePoolMcVersionIncompatible",
        "{:#}",
        answer.body
    );
    assert_eq!(upgrade(&stamp, "1.37.1", Some("1.34.2")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn settings_of_an_upgrade_become_numbers_of_nodes() {
    let stamp = stamp().await;
    stamp.create("c", least()).await;
    let cases = [
        (5, json!({}), (1, 0)),
        (25, json!({}), (3, 0)),
        (0, json!({}), (1, 0)),
        (5, json!({ "maxSurge": "33%" }), (2, 0)),
        (5, json!({ "maxSurge": "4" }), (4, 0)),
        (5, json!({ "maxSurge": "0", "maxUnavailable": "1%" }), (0, 1)),
    ];
    for (count, settings, expected) in cases {
        let body = json!({ "properties": { "count": count, "mode": "User", "upgradeSettings": settings } });
        let answer = stamp.ask("PUT", "managedClusters/c/agentPools/np2", body).await;
        assert!(answer.status < 300, "{:#}", answer.body);
        let spec = stamp.record("c").await.unwrap().spec().pools[1].clone();
        assert_eq!((spec.surge, spec.unavailable), expected, "{settings}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_takes_back_what_can_be_taken_back() {
    let stamp = stamp().await;
    stamp.create("c", least()).await;
    stamp.reach("c").await;
    upgrade(&stamp, "1.36.3", Some("1.36.3")).await;
    abort(&stamp).await;
    assert_eq!(versions(&stamp).await, ("1.35.1".to_owned(), "1.35.1".to_owned()));

    stamp.reach("c").await;
    upgrade(&stamp, "1.36.3", Some("1.36.3")).await;
    // The control plane is complete, its nodes are not.
    let serves = |observed: &mut ObservedRecord| observed.kubernetes_version = Some("1.36.3".to_owned());
    stamp.observe("c", serves).await;
    abort(&stamp).await;
    assert_eq!(versions(&stamp).await, ("1.36.3".to_owned(), "1.35.1".to_owned()));
    let shown = stamp.get(C).await.body;
    assert_eq!(shown["properties"]["kubernetesVersion"], "1.36.3");

    // Begun, and no new member serves yet: it goes on all the same.
    stamp.reach("c").await;
    upgrade(&stamp, "1.37.1", None).await;
    let begun = |observed: &mut ObservedRecord| observed.upgrading_to = Some("1.37.1".to_owned());
    stamp.observe("c", begun).await;
    abort(&stamp).await;
    assert_eq!(versions(&stamp).await.0, "1.37.1");
}
