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
        "managedClusters/c/trustedAccessRoleBindings",
        "managedClusters/c/identityBindings",
        "snapshots",
        &format!("{location}/trustedAccessRoles"),
        &format!("{location}/meshRevisionProfiles"),
        &format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/snapshots"),
    ] {
        let answer = stamp.get(list).await;
        assert_eq!(
            (answer.status, &answer.body["value"]),
            (200, &json!([])),
            "{list}"
        );
    }
    for (parent, kind) in [
        ("managedClusters/c/", "privateEndpointConnections"),
        ("managedClusters/c/", "trustedAccessRoleBindings"),
        ("managedClusters/c/", "identityBindings"),
        ("", "snapshots"),
    ] {
        let one = format!("{parent}{kind}/x");
        let missing = stamp.get(&one).await;
        assert_eq!(
            (missing.status, missing.code()),
            (404, "ResourceNotFound"),
            "{one}"
        );
        assert_eq!(stamp.ask("DELETE", &one, Value::Null).await.status, 204, "{one}");
        // What it hangs on is not there.
        let other = one.replace("managedClusters/c/", "managedClusters/nobody/");
        assert_eq!(
            stamp.ask("DELETE", &other, Value::Null).await.status,
            if parent.is_empty() { 204 } else { 404 }
        );
    }
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
