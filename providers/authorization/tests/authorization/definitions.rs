//! Role definitions through the API.

use serde_json::{Value, json};

use crate::stamp::{
    GROUPS, OTHER, ROLES, Stamp, assignment, assignment_path, group_id, role_id, subscription_id,
};

const ID: &str = "0b0b0b0b-0000-4000-8000-000000000001";
const ID_2: &str = "0b0b0b0b-0000-4000-8000-000000000002";

fn definition(scope: &str, id: &str) -> String {
    format!(
        "{}/providers/Microsoft.Authorization/roleDefinitions/{id}?{ROLES}",
        scope.trim_end_matches('/')
    )
}

fn definitions(scope: &str, filter: &str) -> String {
    let filter = filter.replace(' ', "+").replace('\'', "%27");
    format!(
        "{}/providers/Microsoft.Authorization/roleDefinitions?api-version=2022-05-01-preview&$filter={filter}",
        scope.trim_end_matches('/')
    )
}

fn role(name: &str, actions: &[&str], scopes: &[&str]) -> Value {
    json!({ "properties": {
        "roleName": name, "description": "", "type": "CustomRole",
        "permissions": [{ "actions": actions, "notActions": [], "dataActions": [], "notDataActions": [] }],
        "assignableScopes": scopes,
    } })
}

#[tokio::test(start_paused = true)]
async fn roles_are_found_by_name_and_by_scope() {
    let stamp = Stamp::new().await;
    let owner = &stamp.owner;
    let found = stamp
        .get(
            owner,
            &definitions(&group_id("g"), "roleName eq 'network contributor'"),
        )
        .await;
    assert_eq!(found.names(), ["4d97b98b-1d4f-4787-a291-c67834d212e7"]);
    let role_found = &found.body["value"][0];
    assert_eq!(
        role_found["id"],
        json!(format!(
            "{}/providers/Microsoft.Authorization/roleDefinitions/4d97b98b-1d4f-4787-a291-c67834d212e7",
            subscription_id()
        ))
    );
    assert_eq!(role_found["properties"]["type"], "BuiltInRole");
    for (filter, count) in [
        ("type eq 'BuiltInRole'", arm_access::built_in_roles().len()),
        ("type eq 'CustomRole'", 0),
        ("atScopeAndBelow()", arm_access::built_in_roles().len()),
        ("atScopeAndBelow() and roleName eq 'Owner'", 1),
        ("", arm_access::built_in_roles().len()),
    ] {
        let found = stamp.get(owner, &definitions("/", filter)).await;
        assert_eq!(found.names().len(), count, "{filter}");
    }
    let body = role(
        "Clusters, seen",
        &["Microsoft.ContainerService/*/read"],
        &[&group_id("g")],
    );
    let made = stamp
        .arm(owner, "PUT", &definition(&group_id("g"), ID), Some(body))
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    for (scope, filter, seen) in [
        (group_id("g"), "type eq 'CustomRole'", true),
        (group_id("h"), "type eq 'CustomRole'", false),
        (subscription_id(), "type eq 'CustomRole'", false),
        (
            subscription_id(),
            "type eq 'CustomRole' and atScopeAndBelow()",
            true,
        ),
        (
            format!("/subscriptions/{OTHER}"),
            "type eq 'CustomRole' and atScopeAndBelow()",
            false,
        ),
    ] {
        let found = stamp.get(owner, &definitions(&scope, filter)).await;
        assert_eq!(found.names().len(), usize::from(seen), "{scope} {filter}");
    }
    assert_eq!(stamp.get(owner, &definition("/", ID)).await.status, 200);
    assert_eq!(
        stamp.get(owner, &definition(&group_id("h"), ID)).await.code(),
        "RoleDefinitionDoesNotExist"
    );
    let wrong = stamp.get(owner, &definitions("/", "colour eq 'red'")).await;
    assert_eq!(wrong.code(), "BadRequest");
}

#[tokio::test(start_paused = true)]
async fn a_custom_role_gives_what_it_says_as_long_as_it_says_so() {
    let stamp = Stamp::new().await;
    let owner = &stamp.owner;
    let ada = stamp.principal("ada").await;
    let put = async |actions: &[&str]| {
        let body = role("Groups", actions, &[&subscription_id()]);
        stamp
            .arm(owner, "PUT", &definition(&subscription_id(), ID), Some(body))
            .await
    };
    assert_eq!(
        put(&["Microsoft.Resources/subscriptions/resourceGroups/*"])
            .await
            .status,
        201
    );
    let path = assignment_path(&group_id("g"), ID_2);
    let body = assignment(&definition("/", ID).replace(&format!("?{ROLES}"), ""), &ada.id);
    let made = stamp.arm(owner, "PUT", &path, Some(body.clone())).await;
    assert_eq!(made.status, 201, "{made:?}");
    let elsewhere = assignment_path(&format!("/subscriptions/{OTHER}"), ID);
    let elsewhere = stamp.arm(owner, "PUT", &elsewhere, Some(body)).await;
    assert_eq!(elsewhere.code(), "RoleDefinitionDoesNotExist");

    let group = format!("{}?{GROUPS}", group_id("g"));
    let tag = async || {
        let tags = json!({ "tags": { "a": "b" } });
        stamp.arm(&ada, "PATCH", &group, Some(tags)).await.status
    };
    assert_eq!(tag().await, 200);
    assert_eq!(
        put(&["Microsoft.Resources/subscriptions/resourceGroups/read"])
            .await
            .status,
        201
    );
    assert_eq!((tag().await, stamp.get(&ada, &group).await.status), (403, 200));

    let delete = async || stamp.arm(owner, "DELETE", &definition("/", ID), None).await;
    let in_use = delete().await;
    assert_eq!(
        (in_use.status, in_use.code()),
        (400, "RoleDefinitionHasAssignments")
    );
    assert_eq!(stamp.arm(owner, "DELETE", &path, None).await.status, 200);
    assert_eq!(delete().await.status, 200);
    assert_eq!(delete().await.status, 204);
    // Its name is free again.
    let again = role("groups", &["*/read"], &["/"]);
    assert_eq!(
        stamp
            .arm(owner, "PUT", &definition("/", ID_2), Some(again))
            .await
            .status,
        201
    );
}

#[tokio::test(start_paused = true)]
async fn wrong_roles_are_refused() {
    let stamp = Stamp::new().await;
    let owner = &stamp.owner;
    let put = async |id: &str, body: Value| {
        let answer = stamp.arm(owner, "PUT", &definition("/", id), Some(body)).await;
        (answer.status, answer.code().to_owned())
    };
    let refused = |status: u16, code: &str| (status, code.to_owned());
    let built_in = role_id("Reader");
    let built_in = built_in.rsplit('/').next().unwrap();
    assert_eq!(
        put(built_in, role("Reader 2", &["*"], &["/"])).await,
        refused(403, "CannotUpdateBuiltInRoleDefinition")
    );
    let gone = stamp.arm(owner, "DELETE", &definition("/", built_in), None).await;
    assert_eq!(gone.code(), "CannotUpdateBuiltInRoleDefinition");
    assert_eq!(put(ID, role("One", &["*/read"], &["/"])).await.0, 201);
    for (id, body, status, code) in [
        (
            ID_2,
            role("one", &["*/read"], &["/"]),
            409,
            "RoleDefinitionWithSameNameExists",
        ),
        (
            ID_2,
            role("reader", &["*/read"], &["/"]),
            409,
            "RoleDefinitionWithSameNameExists",
        ),
        (ID_2, role("Two", &["read"], &["/"]), 400, "InvalidParameter"),
        (ID_2, role("Two", &[], &["/"]), 400, "InvalidParameter"),
        (ID_2, role("Two", &["*/read"], &[]), 400, "InvalidParameter"),
        (
            ID_2,
            role("Two", &["*/read"], &["everywhere"]),
            400,
            "InvalidParameter",
        ),
        (
            ID_2,
            role("", &["*/read"], &["/"]),
            400,
            "MissingRequiredParameter",
        ),
        (ID_2, json!({ "properties": [] }), 400, "InvalidRequestContent"),
        (
            "two",
            role("Two", &["*/read"], &["/"]),
            400,
            "InvalidResourceName",
        ),
    ] {
        assert_eq!(put(id, body.clone()).await, refused(status, code), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_role_is_changed_by_who_may_it_wherever_it_can_be_assigned() {
    let stamp = Stamp::new().await;
    let ada = stamp.principal("ada").await;
    stamp.grant(&ada, "Owner", &group_id("g")).await;
    let put = async |scopes: &[&str]| {
        let path = definition(&group_id("g"), ID);
        let body = role("Hers", &["*"], scopes);
        stamp.arm(&ada, "PUT", &path, Some(body)).await.status
    };
    let (own, other) = (group_id("g"), group_id("h"));
    // The caller needs permission at the scopes of the body, not only at that of the path.
    assert_eq!(put(&[&own, &other]).await, 403);
    assert_eq!(put(&["/"]).await, 403);
    assert_eq!(put(&[&own]).await, 201);
    // The owner makes the role assignable at another scope: then she cannot change it any more.
    let body = role("Hers", &["*/read"], &[&own, &other]);
    let widened = stamp
        .arm(&stamp.owner, "PUT", &definition("/", ID), Some(body))
        .await;
    assert_eq!(widened.status, 201);
    assert_eq!(put(&[&own]).await, 403);
    let delete = stamp.arm(&ada, "DELETE", &definition(&own, ID), None).await;
    assert_eq!(delete.status, 403);
}
