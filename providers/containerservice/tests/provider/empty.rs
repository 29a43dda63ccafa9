//! What a stamp has none of: lists that are empty and true.

use serde_json::{Value, json};

use crate::stamp::{SUBSCRIPTION, Stamp, least};

#[tokio::test(start_paused = true)]
async fn there_is_none_and_it_says_so() {
    let mut stamp = Stamp::new().await;
    stamp.api_version = "2026-08-01";
    stamp.create("c", least()).await;
    let location =
        format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/locations/local");
    for list in [
        "managedClusters/c/privateEndpointConnections",
        "managedClusters/c/privateLinkResources",
        "managedClusters/c/outboundNetworkDependenciesEndpoints",
        "managedClusters/c/meshUpgradeProfiles",
        &format!("{location}/meshRevisionProfiles"),
    ] {
        let answer = stamp.get(list).await;
        assert_eq!(
            (answer.status, &answer.body["value"]),
            (200, &json!([])),
            "{list}"
        );
    }
    let one = "managedClusters/c/privateEndpointConnections/x";
    let missing = stamp.get(one).await;
    assert_eq!((missing.status, missing.code()), (404, "ResourceNotFound"));
    assert_eq!(stamp.ask("DELETE", one, Value::Null).await.status, 204);
    // Its cluster is not there.
    let other = one.replace("managedClusters/c/", "managedClusters/nobody/");
    assert_eq!(stamp.ask("DELETE", &other, Value::Null).await.status, 404);
    assert_eq!(
        stamp
            .get("managedClusters/c/meshUpgradeProfiles/istio")
            .await
            .status,
        404
    );
    assert_eq!(
        stamp
            .get(&format!("{location}/meshRevisionProfiles/istio"))
            .await
            .status,
        404
    );
    let elsewhere = location.replace("/local", "/westeurope");
    for list in [
        "trustedAccessRoles",
        "meshRevisionProfiles",
        "meshRevisionProfiles/istio",
    ] {
        let refused = stamp.get(&format!("{elsewhere}/{list}")).await;
        assert_eq!(
            (refused.status, refused.code()),
            (400, "LocationNotAvailableForResourceType"),
            "{list}"
        );
    }
    let resolve = stamp
        .ask(
            "POST",
            "managedClusters/c/resolvePrivateLinkServiceId",
            json!({ "name": "management" }),
        )
        .await;
    assert_eq!(resolve.status, 404);
    assert!(
        resolve.message().contains("no private link service"),
        "{}",
        resolve.message()
    );
    let put = stamp
        .ask("PUT", "managedClusters/c/privateEndpointConnections/x", json!({}))
        .await;
    assert_eq!(put.status, 404);
}
