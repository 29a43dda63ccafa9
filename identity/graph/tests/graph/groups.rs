//! Groups and their members.

use arm_wire::PrincipalKind;
use serde_json::json;

use crate::stamp::Stamp;

#[tokio::test(start_paused = true)]
async fn members_come_and_go_and_are_found_from_both_sides() {
    let stamp = Stamp::new().await;
    let bob = stamp.somebody(PrincipalKind::User, "bob@example.test").await;
    let group = |name: &str| json!({ "displayName": name, "mailNickname": name, "mailEnabled": false, "securityEnabled": true, "description": "x" });
    let inner = stamp.post("/groups", group("inner")).await;
    assert_eq!(inner.status, 201, "{inner:?}");
    let (inner, outer) = (
        inner.text("id"),
        stamp.post("/groups", group("outer")).await.text("id"),
    );
    let taken = stamp.post("/groups", group("INNER")).await;
    assert_eq!(taken.status, 400, "{taken:?}");
    let link = |id: &str| json!({ "@odata.id": format!("https://any/v1.0/directoryObjects/{id}") });
    for (into, member) in [(&inner, &bob.id), (&outer, &inner)] {
        let added = stamp
            .post(&format!("/groups/{into}/members/$ref"), link(member))
            .await;
        assert_eq!(added.status, 204, "{added:?}");
    }
    let twice = stamp
        .post(&format!("/groups/{inner}/members/$ref"), link(&bob.id))
        .await;
    assert!(twice.message().contains("already exist"), "{twice:?}");
    let unknown = "0a0a0a0a-0000-4000-8000-000000000000";
    assert_eq!(
        stamp
            .post(&format!("/groups/{inner}/members/$ref"), link(unknown))
            .await
            .status,
        404
    );
    assert_eq!(
        stamp
            .post(&format!("/groups/{inner}/members/$ref"), link("x"))
            .await
            .status,
        400
    );
    let listed = stamp.get(&format!("/groups/{inner}/members")).await;
    assert_eq!(listed.all("@odata.type"), ["#microsoft.graph.user"]);
    let all = stamp.get(&format!("/groups/{outer}/transitiveMembers")).await;
    assert_eq!(all.body["value"].as_array().unwrap().len(), 2);
    // A principal may read its own groups.
    for (path, names) in [
        ("memberOf", vec!["inner"]),
        ("transitiveMemberOf", vec!["inner", "outer"]),
    ] {
        let own = stamp.ask(&bob, "GET", &format!("/me/{path}"), None).await;
        assert_eq!(own.all("displayName"), names);
    }
    let check = json!({ "groupIds": [outer, unknown] });
    let path = format!("/directoryObjects/{}/checkMemberGroups", bob.id);
    let found = stamp.ask(&bob, "POST", &path, Some(check)).await;
    assert_eq!(found.body["value"], json!([outer]), "{found:?}");
    let path = format!("/users/{}/getMemberGroups", bob.login);
    let found = stamp.post(&path, json!({ "securityEnabledOnly": false })).await;
    assert_eq!(found.body["value"].as_array().unwrap().len(), 2);
    assert_eq!(
        stamp
            .delete(&format!("/groups/{outer}/members/{inner}/$ref"))
            .await
            .status,
        204
    );
    assert_eq!(
        stamp
            .delete(&format!("/groups/{outer}/members/{inner}/$ref"))
            .await
            .status,
        404
    );
    assert_eq!(
        stamp
            .patch(&format!("/groups/{inner}"), json!({ "displayName": "renamed" }))
            .await
            .status,
        204
    );
    assert_eq!(
        stamp.post("/groups", group("inner")).await.status,
        201,
        "the name is free"
    );
    assert_eq!(stamp.delete(&format!("/groups/{inner}")).await.status, 204);
    let own = stamp.ask(&bob, "GET", "/me/transitiveMemberOf", None).await;
    assert_eq!(own.body["value"], json!([]));
}
