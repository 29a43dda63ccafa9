//! Locks through the API.

use serde_json::{Value, json};

use crate::stamp::{Answer, GROUPS, LOCKS, Stamp, cluster_id, group_id, subscription_id};

fn lock(scope: &str, name: &str) -> String {
    let scope = scope.trim_end_matches('/');
    format!("{scope}/providers/Microsoft.Authorization/locks/{name}?{LOCKS}")
}

fn level(level: &str) -> Value {
    json!({ "properties": { "level": level, "notes": "why" } })
}

async fn put(stamp: &Stamp, scope: &str, name: &str, of: &str) -> Answer {
    stamp
        .arm(&stamp.owner, "PUT", &lock(scope, name), Some(level(of)))
        .await
}

#[tokio::test(start_paused = true)]
async fn a_lock_holds_for_everybody_until_it_is_deleted() {
    let stamp = Stamp::new().await;
    let owner = &stamp.owner;
    let group = format!("{}?{GROUPS}", group_id("g"));
    let body = || Some(json!({ "location": "local" }));
    let made = put(&stamp, &group_id("g"), "Keep", "CanNotDelete").await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.body["properties"]["level"], "CanNotDelete");
    assert_eq!(
        put(&stamp, &group_id("g"), "keep", "CanNotDelete").await.status,
        200
    );
    let refused = stamp.arm(owner, "DELETE", &group, None).await;
    assert_eq!((refused.status, refused.code()), (409, "ScopeLocked"));
    assert_eq!(
        refused.message(),
        format!(
            "The scope '{}' cannot perform delete operation because following scope(s) are locked: '{}'. Please remove the lock and try \
             again.",
            group_id("g"),
            group_id("g")
        )
    );
    // The group can still be changed, also the resources in it.
    assert_eq!(stamp.arm(owner, "PUT", &group, body()).await.status, 200);
    let cluster = format!("{}?api-version=2026-06-01", cluster_id("g"));
    assert_eq!(
        stamp.arm(owner, "DELETE", &cluster, None).await.code(),
        "ScopeLocked"
    );
    assert_eq!(stamp.arm(owner, "PUT", &cluster, body()).await.status, 200);

    assert_eq!(
        put(&stamp, &subscription_id(), "still", "ReadOnly").await.status,
        201
    );
    for (method, path) in [
        ("PUT", group.clone()),
        ("PATCH", group.clone()),
        ("DELETE", group.clone()),
        ("PUT", cluster.clone()),
        (
            "POST",
            format!(
                "{}/listClusterUserCredential?api-version=2026-06-01",
                cluster_id("g")
            ),
        ),
    ] {
        let body = (method != "DELETE").then(|| json!({ "location": "local" }));
        let refused = stamp.arm(owner, method, &path, body).await;
        assert_eq!(
            (refused.status, refused.code()),
            (409, "ScopeLocked"),
            "{method} {path}"
        );
    }
    assert_eq!(stamp.get(owner, &group).await.status, 200);
    // Other subscriptions are not concerned; locks are not locked.
    let names = async |path: String| {
        let answer = stamp.get(owner, &path).await;
        let mut names: Vec<String> = answer.names().iter().map(|name| (*name).to_owned()).collect();
        names.sort();
        names
    };
    let all = |scope: &str, filter: &str| lock(scope, "x").replace("/locks/x?", &format!("/locks?{filter}"));
    assert_eq!(names(all(&subscription_id(), "")).await, ["keep", "still"]);
    assert_eq!(names(all(&group_id("g"), "")).await, ["keep"]);
    assert_eq!(
        names(all(&group_id("g"), "$filter=atScope()&")).await,
        ["keep", "still"]
    );
    for (scope, name) in [(subscription_id(), "STILL"), (group_id("g"), "keep")] {
        let gone = stamp.arm(owner, "DELETE", &lock(&scope, name), None).await;
        assert_eq!(gone.status, 200, "{gone:?}");
        let gone = stamp.arm(owner, "DELETE", &lock(&scope, name), None).await;
        assert_eq!(gone.status, 204);
        assert_eq!(stamp.get(owner, &lock(&scope, name)).await.code(), "LockNotFound");
    }
    assert_eq!(stamp.arm(owner, "DELETE", &group, None).await.status, 202);
}

#[tokio::test(start_paused = true)]
async fn what_has_something_locked_in_it_is_not_deleted() {
    let stamp = Stamp::new().await;
    let owner = &stamp.owner;
    // Resources of other providers are not known here, so any may be locked.
    let resource = format!("{}/providers/Microsoft.Network/virtualNetworks/v", group_id("g"));
    assert_eq!(put(&stamp, &resource, "l", "ReadOnly").await.status, 201);
    let group = format!("{}?{GROUPS}", group_id("g"));
    let refused = stamp.arm(owner, "DELETE", &group, None).await;
    assert_eq!(refused.code(), "ScopeLocked");
    assert!(refused.message().contains(&resource), "{refused:?}");
    let body = json!({ "location": "local" });
    assert_eq!(stamp.arm(owner, "PUT", &group, Some(body)).await.status, 200);
    // A caller without permission does not learn of locks.
    let nobody = stamp.principal("nobody").await;
    assert_eq!(
        stamp.arm(&nobody, "DELETE", &group, None).await.code(),
        "AuthorizationFailed"
    );
    let contributor = stamp.principal("contributor").await;
    stamp.grant(&contributor, "Contributor", &subscription_id()).await;
    let unlock = stamp
        .arm(&contributor, "DELETE", &lock(&resource, "l"), None)
        .await;
    assert_eq!(unlock.code(), "AuthorizationFailed");
    assert_eq!(stamp.get(&contributor, &lock(&resource, "l")).await.status, 200);
    // The resource's own lock is deleted with its group.
    assert_eq!(
        stamp
            .arm(owner, "DELETE", &lock(&resource, "l"), None)
            .await
            .status,
        200
    );
    assert_eq!(stamp.arm(owner, "DELETE", &group, None).await.status, 202);
    assert_eq!(
        put(&stamp, &resource, "l", "ReadOnly").await.code(),
        "ResourceGroupBeingDeleted"
    );
}

#[tokio::test(start_paused = true)]
async fn wrong_locks_are_refused() {
    let stamp = Stamp::new().await;
    for (name, body, code) in [
        ("l", json!({ "properties": {} }), "MissingRequiredParameter"),
        ("l", level("Never"), "InvalidParameter"),
        (
            "l",
            json!({ "properties": { "level": "ReadOnly", "owners": "me" } }),
            "InvalidParameter",
        ),
        ("l", json!([]), "InvalidRequestContent"),
        ("a%3Ab", level("ReadOnly"), "InvalidResourceName"),
    ] {
        let answer = stamp.arm(&stamp.owner, "PUT", &lock("/", name), Some(body)).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{name} {answer:?}");
    }
    assert_eq!(
        put(&stamp, &cluster_id("g"), "l", "ReadOnly").await.code(),
        "ResourceNotFound"
    );
}
