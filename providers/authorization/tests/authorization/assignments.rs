//! Assignments through the API.

use identity_directory as directory;
use serde_json::{Value, json};

use crate::stamp::{
    GROUPS, OTHER, ROLES, Stamp, assignment, assignment_path, group_id, role_id, subscription_id,
};

const NAME: &str = "0a0a0a0a-0000-4000-8000-000000000001";
const NAME_2: &str = "0a0a0a0a-0000-4000-8000-000000000002";

fn list(scope: &str, filter: &str) -> String {
    let filter = if filter.is_empty() {
        String::new()
    } else {
        format!("&$filter={}", filter.replace(' ', "+").replace('\'', "%27"))
    };
    format!(
        "{}/providers/Microsoft.Authorization/roleAssignments?{ROLES}{filter}",
        scope.trim_end_matches('/')
    )
}

#[tokio::test(start_paused = true)]
async fn what_is_given_holds_at_once_and_what_is_taken_away_does_not() {
    let stamp = Stamp::new().await;
    let ada = stamp.principal("ada").await;
    let group = format!("{}?{GROUPS}", group_id("g"));
    let refused = stamp.get(&ada, &group).await;
    assert_eq!((refused.status, refused.code()), (403, "AuthorizationFailed"));
    assert_eq!(
        refused.message(),
        format!(
            "The client 'ada' with object id '{}' does not have authorization to perform action \
             'Microsoft.Resources/subscriptions/resourceGroups/read' over scope '{}' or the scope is invalid. If access was recently \
             granted, please refresh your credentials.",
            ada.id,
            group_id("g")
        )
    );
    let path = stamp.grant(&ada, "Reader", &group_id("g")).await;
    assert_eq!(stamp.get(&ada, &group).await.status, 200);
    let tags = json!({ "tags": { "a": "b" } });
    assert_eq!(stamp.arm(&ada, "PATCH", &group, Some(tags)).await.status, 403);
    assert_eq!(stamp.get(&ada, &group.replace("/g?", "/h?")).await.status, 403);
    // She sees her own assignment, and cannot give more.
    let own = stamp.get(&ada, &path).await;
    assert_eq!(own.body["properties"]["principalId"], json!(ada.id));
    assert_eq!(own.body["properties"]["principalType"], json!("ServicePrincipal"));
    let more = assignment(&role_id("Owner"), &ada.id);
    let more = stamp
        .arm(&ada, "PUT", &assignment_path(&group_id("g"), NAME), Some(more))
        .await;
    assert_eq!(more.code(), "AuthorizationFailed");

    let gone = stamp.arm(&stamp.owner, "DELETE", &path, None).await;
    assert_eq!((gone.status, &gone.body), (200, &own.body));
    assert_eq!(stamp.get(&ada, &group).await.status, 403);
    assert_eq!(stamp.arm(&stamp.owner, "DELETE", &path, None).await.status, 204);
    assert_eq!(
        stamp.get(&stamp.owner, &path).await.code(),
        "RoleAssignmentNotFound"
    );
}

#[tokio::test(start_paused = true)]
async fn wrong_assignments_are_refused_in_arms_words() {
    let stamp = Stamp::new().await;
    let ada = stamp.principal("ada").await;
    let bob = stamp.principal("bob").await;
    let reader = role_id("Reader");
    let put = async |scope: &str, name: &str, body: Value| {
        let answer = stamp
            .arm(&stamp.owner, "PUT", &assignment_path(scope, name), Some(body))
            .await;
        (answer.status, answer.code().to_owned())
    };
    let refused = |status: u16, code: &str| (status, code.to_owned());
    let scope = group_id("g");
    let unknown = "0d0d0d0d-0000-4000-8000-000000000000";

    assert_eq!(put(&scope, NAME, assignment(&reader, &ada.id)).await.0, 201);
    // Repeating the request changes nothing; only the description can change.
    assert_eq!(put(&scope, NAME, assignment(&reader, &ada.id)).await.0, 200);
    let mut described = assignment(&reader, &ada.id);
    described["properties"]["description"] = json!("why");
    assert_eq!(put(&scope, NAME, described).await.0, 200);
    for (body, wanted) in [
        (assignment(&reader, &bob.id), "RoleAssignmentUpdateNotPermitted"),
        (
            assignment(&role_id("Owner"), &ada.id),
            "RoleAssignmentUpdateNotPermitted",
        ),
    ] {
        assert_eq!(put(&scope, NAME, body).await, refused(400, wanted));
    }
    // A name is unique in the stamp.
    assert_eq!(
        put(&group_id("h"), NAME, assignment(&reader, &ada.id)).await,
        refused(400, "RoleAssignmentUpdateNotPermitted")
    );
    assert_eq!(
        put(
            &scope.to_uppercase(),
            NAME_2,
            assignment(&reader.to_uppercase(), &ada.id.to_uppercase())
        )
        .await,
        refused(409, "RoleAssignmentExists")
    );
    for (body, status, code) in [
        (
            assignment(&reader.replace("acdd", "acde"), &ada.id),
            404,
            "RoleDefinitionDoesNotExist",
        ),
        (assignment(&reader, unknown), 400, "PrincipalNotFound"),
        (assignment("Reader", &ada.id), 400, "InvalidParameter"),
        (assignment(&reader, "ada"), 400, "InvalidParameter"),
        (json!({}), 400, "ValidationError"),
        (
            json!({ "properties": { "colour": "red" } }),
            400,
            "ValidationError",
        ),
        (
            json!({ "properties": { "roleDefinitionId": reader, "principalId": ada.id, "principalType": "User" } }),
            400,
            "UnmatchedPrincipalType",
        ),
        (
            json!({ "properties": { "roleDefinitionId": reader, "principalId": ada.id, "principalType": "Robot" } }),
            400,
            "InvalidParameter",
        ),
        (
            json!({ "properties": { "roleDefinitionId": reader, "principalId": ada.id, "condition": "x" } }),
            400,
            "PropertyNotSupported",
        ),
    ] {
        assert_eq!(
            put(&scope, NAME_2, body.clone()).await,
            refused(status, code),
            "{body}"
        );
    }
    assert_eq!(put(&scope, "name", assignment(&reader, &ada.id)).await.0, 400);
    for (scope, code) in [
        (group_id("none"), "ResourceGroupNotFound"),
        (
            "/subscriptions/0e0e0e0e-0000-4000-8000-000000000000".to_owned(),
            "SubscriptionNotFound",
        ),
        (
            "/providers/Microsoft.Management/managementGroups/m".to_owned(),
            "BadRequest",
        ),
        (
            format!("{scope}/providers/Microsoft.ContainerService/managedClusters/none"),
            "ResourceNotFound",
        ),
    ] {
        assert_eq!(
            put(&scope, NAME_2, assignment(&reader, &ada.id)).await.1,
            code,
            "{scope}"
        );
    }
    // With its type given, the principal may be made later.
    let later = json!({ "properties": { "roleDefinitionId": reader, "principalId": unknown, "principalType": "ServicePrincipal" } });
    assert_eq!(put(&scope, NAME_2, later).await.0, 201);
}

#[tokio::test(start_paused = true)]
async fn lists_are_of_a_scope_with_those_above_and_below() {
    let stamp = Stamp::new().await;
    let ada = stamp.principal("ada").await;
    for scope in [group_id("g"), group_id("h"), subscription_id()] {
        stamp.grant(&ada, "Reader", &scope).await;
    }
    stamp
        .grant(&ada, "Contributor", &format!("/subscriptions/{OTHER}"))
        .await;
    let count = async |scope: &str, filter: &str| {
        let answer = stamp.get(&stamp.owner, &list(scope, filter)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.names().len()
    };
    // The owner's own is at the root.
    assert_eq!(count("/", "").await, 5);
    assert_eq!(count("/", "atScope()").await, 1);
    assert_eq!(count(&subscription_id(), "").await, 4);
    assert_eq!(count(&subscription_id(), "atScope()").await, 2);
    assert_eq!(count(&group_id("g"), "atScope()").await, 3);
    let of_ada = format!("principalId eq '{}'", ada.id);
    assert_eq!(count("/", &of_ada).await, 4);
    assert_eq!(count(&group_id("g"), &of_ada).await, 2);
    assert_eq!(
        count(&group_id("g"), &format!("atScope() and assignedTo('{}')", ada.id)).await,
        2
    );
    assert_eq!(
        count("/", "assignedTo('0d0d0d0d-0000-4000-8000-000000000000')").await,
        0
    );
    let wrong = stamp.get(&stamp.owner, &list("/", "startswith(name, 'a')")).await;
    assert_eq!((wrong.status, wrong.code()), (400, "BadRequest"));
}

#[tokio::test(start_paused = true)]
async fn somebody_is_left_who_can_give_rights() {
    let stamp = Stamp::new().await;
    let ada = stamp.principal("ada").await;
    let own = stamp
        .get(
            &stamp.owner,
            &list("/", &format!("principalId eq '{}'", stamp.owner.id)),
        )
        .await;
    let own = assignment_path("/", own.names()[0]);
    let delete = async || stamp.arm(&stamp.owner, "DELETE", &own, None).await;
    assert_eq!(delete().await.code(), "CannotDeleteLastRbacAdminAssignment");
    // Principals that cannot assign roles, can do so only in a part, or do not exist, do not count.
    stamp.grant(&ada, "Contributor", "/").await;
    stamp.grant(&ada, "Owner", &subscription_id()).await;
    let gone = stamp.principal("gone").await;
    stamp.grant(&gone, "Owner", "/").await;
    stamp.forget(&gone).await;
    assert_eq!(delete().await.code(), "CannotDeleteLastRbacAdminAssignment");
    let next = stamp.grant(&ada, "User Access Administrator", "/").await;
    assert_eq!(delete().await.status, 200);
    assert_eq!(delete().await.status, 403, "from the next request on");
    let last = stamp.arm(&ada, "DELETE", &next, None).await;
    assert_eq!(last.code(), "CannotDeleteLastRbacAdminAssignment");
}

#[tokio::test(start_paused = true)]
async fn rights_in_a_group_go_with_it_and_who_deleted_it_sees_it_end() {
    let stamp = Stamp::new().await;
    let ada = stamp.principal("ada").await;
    stamp.grant(&ada, "Owner", &group_id("g")).await;
    stamp.grant(&ada, "Reader", &group_id("h")).await;
    let bob = stamp.principal("bob").await;
    let group = format!("{}?{GROUPS}", group_id("g"));
    assert_eq!(stamp.arm(&ada, "DELETE", &group, None).await.status, 202);
    // No assignment is made at a group that is being deleted.
    let late = assignment(&role_id("Reader"), &bob.id);
    let late = stamp
        .arm(&ada, "PUT", &assignment_path(&group_id("g"), NAME), Some(late))
        .await;
    assert_eq!(late.code(), "ResourceGroupBeingDeleted");
    let (operations, _) = stamp.store.list("/owners/operation/").await.unwrap();
    let id = operations[0].0.rsplit('/').next().unwrap().to_owned();
    let poll = format!(
        "{}/providers/Microsoft.Resources/locations/local/operations/{id}?{GROUPS}",
        subscription_id()
    );
    // Other callers get the same response as for an operation that does not exist.
    let stranger = stamp.get(&bob, &poll).await;
    let nothing = stamp.get(&bob, &poll.replace(&id, "none")).await;
    assert_eq!((stranger.status, nothing.status), (403, 403));
    assert_eq!(stranger.message().replace(&id, "none"), nothing.message());
    let reaper = stamp.reaper();
    let ended = loop {
        stamp.env.clock.sleep(std::time::Duration::from_millis(100)).await;
        let answer = stamp.get(&ada, &poll).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        if answer.body["status"] != "InProgress" {
            break answer;
        }
    };
    reaper.abort();
    assert_eq!(ended.body["status"], "Succeeded");
    assert_eq!(stamp.get(&ada, &group).await.status, 403);
    // A later group of that name has no assignments.
    let again = json!({ "location": "local" });
    assert_eq!(
        stamp.arm(&stamp.owner, "PUT", &group, Some(again)).await.status,
        201
    );
    assert_eq!(stamp.get(&ada, &group).await.status, 403);
    assert_eq!(stamp.get(&ada, &group.replace("/g?", "/h?")).await.status, 200);
    assert_eq!(stamp.record(&ada).await.object_id, ada.id);
}

#[tokio::test(start_paused = true)]
async fn what_is_assigned_to_a_group_its_members_have_until_they_leave_it() {
    let stamp = Stamp::new().await;
    let who = stamp.principal("member").await;
    let inner = stamp.group_around(&who.id).await;
    let outer = stamp.group_around(&inner).await;
    let group = format!("{}?{GROUPS}", group_id("g"));
    assert_eq!(stamp.get(&who, &group).await.status, 403);
    let path = assignment_path(&group_id("g"), &stamp.env.ids.uuid().to_string());
    let mut body = assignment(&role_id("Reader"), &outer);
    body["properties"]["principalType"] = json!("User");
    let refused = stamp.arm(&stamp.owner, "PUT", &path, Some(body.clone())).await;
    assert_eq!(refused.code(), "UnmatchedPrincipalType", "{refused:?}");
    // Where the request does not name the principal's type, the response does.
    body["properties"]
        .as_object_mut()
        .unwrap()
        .remove("principalType");
    let made = stamp.arm(&stamp.owner, "PUT", &path, Some(body)).await;
    assert_eq!(
        (made.status, &made.body["properties"]["principalType"]),
        (201, &json!("Group"))
    );
    assert_eq!(stamp.get(&who, &group).await.status, 200);
    // Clients list a principal's assignments together with those of its groups.
    for (filter, count) in [("assignedTo", 1), ("principalId eq", 0)] {
        let filter = match filter {
            "assignedTo" => format!("assignedTo('{}')", who.id),
            _ => format!("principalId eq '{}'", who.id),
        };
        let listed = stamp.get(&stamp.owner, &list(&group_id("g"), &filter)).await;
        assert_eq!(listed.names().len(), count, "{listed:?}");
    }
    let permissions = format!(
        "{}/providers/Microsoft.Authorization/permissions?{ROLES}",
        group_id("g")
    );
    let permissions = stamp.get(&who, &permissions).await;
    assert_eq!(
        permissions.body["value"][0]["actions"],
        json!(["*/read"]),
        "{permissions:?}"
    );
    directory::remove_member(&stamp.writer(), &outer, &inner)
        .await
        .unwrap();
    assert_eq!(
        stamp.get(&who, &group).await.status,
        403,
        "from the next request on"
    );
}
