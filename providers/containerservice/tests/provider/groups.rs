//! Clusters and the groups that they are in.

use arm_kernel::Provider as _;
use serde_json::json;

use crate::stamp::{SUBSCRIPTION, Stamp, least, names};

#[tokio::test(start_paused = true)]
async fn a_group_takes_its_clusters_along_and_a_node_group_stays_with_its_cluster() {
    let stamp = Stamp::new().await;
    stamp.create("c", least()).await;
    stamp.create("d", least()).await;
    let refused = stamp
        .provider
        .delete_resource_group(SUBSCRIPTION, "mc_RG1_c_local")
        .await
        .unwrap_err();
    assert_eq!(refused.code.code, "OperationNotAllowed");
    assert_eq!(
        stamp
            .provider
            .delete_resource_group(SUBSCRIPTION, "RG1")
            .await
            .unwrap(),
        2
    );
    assert!(stamp.record("c").await.unwrap().deleting && stamp.record("d").await.unwrap().deleting);
    let operations = stamp.operations().await.len();
    assert_eq!(
        stamp
            .provider
            .delete_resource_group(SUBSCRIPTION, "rg1")
            .await
            .unwrap(),
        2
    );
    assert_eq!(
        stamp.operations().await.len(),
        operations,
        "asking again changes nothing"
    );
    assert_eq!(
        stamp
            .provider
            .delete_resource_group(SUBSCRIPTION, "other")
            .await
            .unwrap(),
        0
    );
    let listed = stamp.provider.resources(SUBSCRIPTION, None).await.unwrap();
    assert_eq!(listed[0]["name"], "c");
    assert_eq!(listed.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn groups_decide_whether_a_cluster_may_be_made() {
    let stamp = Stamp::new().await;
    let path = |group: &str, name: &str| {
        format!(
            "/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.ContainerService/managedClusters/{name}"
        )
    };
    let answer = stamp.ask("PUT", &path("nogroup", "c"), least()).await;
    assert_eq!((answer.status, answer.code()), (404, "ResourceGroupNotFound"));
    stamp.add_group("going", true).await;
    let answer = stamp.ask("PUT", &path("going", "c"), least()).await;
    assert_eq!((answer.status, answer.code()), (409, "ResourceGroupBeingDeleted"));
    stamp.add_group("taken", false).await;
    let body = json!({ "location": "local", "properties": { "nodeResourceGroup": "Taken" } });
    let answer = stamp.ask("PUT", "managedClusters/c", body).await;
    assert_eq!((answer.status, answer.code()), (409, "Conflict"));
    assert!(stamp.record("c").await.is_none(), "nothing half made");
    stamp.create("B", least()).await;
    let answer = stamp.ask("PUT", &path("MC_rg1_B_local", "c"), least()).await;
    assert_eq!(
        (answer.status, answer.code()),
        (400, "OperationNotAllowed"),
        "it would go with the other cluster"
    );
    stamp.create("a", least()).await;
    for path in [
        "managedClusters".to_owned(),
        format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/managedClusters"),
    ] {
        let list = stamp.get(&path).await.body;
        let names = names(&list);
        assert_eq!(names, ["a", "B"]);
    }
    assert_eq!(
        stamp.get("managedClusters/b").await.body["name"],
        "B",
        "names compare without case"
    );
}
