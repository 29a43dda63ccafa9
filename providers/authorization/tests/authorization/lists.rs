//! Lists show only items that the caller may see.

use serde_json::json;

use crate::stamp::{GROUPS, OTHER, SUBSCRIPTION, Stamp, cluster_id, group_id, subscription_id};

#[tokio::test(start_paused = true)]
async fn lists_show_what_their_reader_may_read_instead_of_failing() {
    let stamp = Stamp::new().await;
    let ada = stamp.principal("ada").await;
    let nobody = stamp.principal("nobody").await;
    stamp.grant(&ada, "Reader", &group_id("h")).await;
    let subscriptions = format!("/subscriptions?{GROUPS}");
    let groups = format!("{}/resourceGroups?{GROUPS}", subscription_id());
    let resources = format!("{}/resources?{GROUPS}", subscription_id());
    let of_group = format!("{}/resources?{GROUPS}", group_id("h"));
    let ids = |answer: &crate::stamp::Answer| -> Vec<String> {
        let items = answer.body["value"].as_array().unwrap();
        let of = |item: &serde_json::Value| item["subscriptionId"].as_str().unwrap().to_owned();
        items.iter().map(of).collect()
    };
    assert_eq!(ids(&stamp.get(&stamp.owner, &subscriptions).await).len(), 2);
    assert_eq!(ids(&stamp.get(&ada, &subscriptions).await), [SUBSCRIPTION]);
    assert!(ids(&stamp.get(&nobody, &subscriptions).await).is_empty());
    for (path, all, hers) in [
        (&groups, vec!["g", "h"], vec!["h"]),
        (&resources, vec!["c-g", "c-h"], vec!["c-h"]),
        (&of_group, vec!["c-h"], vec!["c-h"]),
    ] {
        assert_eq!(stamp.get(&stamp.owner, path).await.names(), all, "{path}");
        assert_eq!(stamp.get(&ada, path).await.names(), hers, "{path}");
        let refused = stamp.get(&nobody, path).await;
        assert_eq!(refused.code(), "AuthorizationFailed", "{path}");
        let other = path.replace(SUBSCRIPTION, OTHER);
        assert_eq!(
            stamp.get(&ada, &other).await.code(),
            "AuthorizationFailed",
            "{path}"
        );
    }
    // A caller with a role in a part of a subscription sees that the subscription exists, and its locations.
    for (path, status) in [
        (format!("{}?{GROUPS}", subscription_id()), 200),
        (format!("{}/locations?{GROUPS}", subscription_id()), 200),
        (format!("{}/providers?{GROUPS}", subscription_id()), 200),
        (format!("/subscriptions/{OTHER}?{GROUPS}"), 403),
    ] {
        assert_eq!(stamp.get(&ada, &path).await.status, status, "{path}");
        assert_eq!(stamp.get(&nobody, &path).await.status, 403, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_sees_what_they_may_themselves() {
    let stamp = Stamp::new().await;
    let ada = stamp.principal("ada").await;
    stamp.grant(&ada, "Reader", &group_id("g")).await;
    stamp.grant(&ada, "Tag Contributor", &group_id("g")).await;
    let permissions =
        |scope: &str| format!("{scope}/providers/Microsoft.Authorization/permissions?api-version=2015-07-01");
    let own = stamp.get(&ada, &permissions(&group_id("g"))).await;
    let own = own.body["value"].as_array().unwrap();
    assert_eq!(own.len(), 2);
    assert!(own.iter().any(|one| one["actions"] == json!(["*/read"])));
    // At a resource of it as well.
    let below = stamp.get(&ada, &permissions(&cluster_id("g"))).await;
    assert_eq!(below.body["value"].as_array().unwrap().len(), 2);
    assert_eq!(stamp.get(&ada, &permissions(&group_id("h"))).await.status, 403);
}
