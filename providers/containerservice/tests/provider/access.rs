//! Access to the API server: valid settings are in the spec, invalid ones are refused by name.

use cluster_spec::ApiAccess;
use serde_json::{Value, json};

use crate::stamp::{Stamp, least, sent_back};

const C: &str = "managedClusters/c";

fn with(profile: Value) -> Value {
    let mut body = least();
    body["properties"]["apiServerAccessProfile"] = profile;
    body
}

async fn access(stamp: &Stamp) -> ApiAccess {
    stamp.record("c").await.unwrap().spec().access.clone()
}

#[tokio::test(start_paused = true)]
async fn ranges_are_set_changed_and_taken_away() {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    assert_eq!(access(&stamp).await, ApiAccess::Open);
    let ranges = json!(["203.0.113.7", "198.51.100.9/24"]);
    let mut body = sent_back(&stamp.get(C).await.body);
    body["properties"]["apiServerAccessProfile"] = json!({ "authorizedIPRanges": ranges });
    let answer = stamp.ask("PUT", C, body).await;
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    // Shown as it was sent; the spec has its meaning.
    assert_eq!(
        answer.body["properties"]["apiServerAccessProfile"]["authorizedIPRanges"],
        ranges
    );
    let meant = ["203.0.113.7/32", "198.51.100.0/24"].map(|range| range.parse().unwrap());
    assert_eq!(access(&stamp).await, ApiAccess::Ranges(meant.to_vec()));
    for open in [json!([]), json!(["203.0.113.7", "0.0.0.0/0"]), Value::Null] {
        let mut body = sent_back(&stamp.get(C).await.body);
        body["properties"]["apiServerAccessProfile"]["authorizedIPRanges"] = open;
        assert_eq!(stamp.ask("PUT", C, body).await.status, 200);
        assert_eq!(access(&stamp).await, ApiAccess::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn a_private_cluster_is_one_from_the_beginning() {
    let stamp = Stamp::new().await;
    let created = stamp
        .create("c", with(json!({ "enablePrivateCluster": true })))
        .await;
    assert_eq!(access(&stamp).await, ApiAccess::Private);
    let properties = &created["properties"];
    assert_eq!(properties["privateFQDN"], properties["fqdn"]);
    assert_eq!(properties["apiServerAccessProfile"]["privateDNSZone"], "system");
    let mut body = sent_back(&created);
    body["properties"]["apiServerAccessProfile"] = Value::Null;
    assert_eq!(stamp.ask("PUT", C, body).await.status, 200);
    assert_eq!(
        access(&stamp).await,
        ApiAccess::Private,
        "it can only be set at creation, and stays"
    );
    stamp.create("open", least()).await;
    for (path, profile, target) in [
        (
            C,
            json!({ "enablePrivateCluster": false }),
            "enablePrivateCluster",
        ),
        (
            C,
            json!({ "authorizedIPRanges": ["203.0.113.0/24"] }),
            "authorizedIPRanges",
        ),
        (
            "managedClusters/open",
            json!({ "enablePrivateCluster": true }),
            "enablePrivateCluster",
        ),
        (
            "managedClusters/open",
            json!({ "privateDNSZone": "none" }),
            "privateDNSZone",
        ),
        (
            "managedClusters/open",
            json!({ "authorizedIPRanges": ["203.0.113.0/24", "::1"] }),
            "authorizedIPRanges[1]",
        ),
        (
            "managedClusters/open",
            json!({ "authorizedIPRanges": vec!["203.0.113.0/24"; 201] }),
            "authorizedIPRanges",
        ),
    ] {
        let refused = stamp.ask("PUT", path, with(profile.clone())).await;
        assert_eq!(refused.status, 400, "{profile}");
        let target = format!("properties.apiServerAccessProfile.{target}");
        assert_eq!(refused.body["error"]["target"], json!(target), "{profile}");
    }
    // A request that only repeats the default is always accepted.
    let answer = stamp
        .ask(
            "PUT",
            "managedClusters/open",
            with(json!({ "enablePrivateCluster": false })),
        )
        .await;
    assert_eq!(answer.status, 200, "{:#}", answer.body);
}
