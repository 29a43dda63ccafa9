//! Filters, pages, selections, and objects by their ids.

use arm_wire::PrincipalKind;
use serde_json::{Value, json};

use crate::stamp::Stamp;

#[tokio::test(start_paused = true)]
async fn lists_are_filtered_and_come_in_pages() {
    let stamp = Stamp::new().await;
    for number in 0..5 {
        let group = json!({ "displayName": format!("Team {number}"), "mailNickname": format!("t{number}"),
                            "mailEnabled": false, "securityEnabled": true });
        assert_eq!(stamp.post("/groups", group).await.status, 201);
    }
    let mut names = Vec::new();
    let mut next = "/groups?$top=2&$count=true&$select=displayName,id".to_owned();
    let mut pages = 0;
    loop {
        let page = stamp.get(&next).await;
        assert_eq!(page.body["@odata.count"], 5, "{page:?}");
        for item in page.body["value"].as_array().unwrap() {
            assert_eq!(item.as_object().unwrap().len(), 2, "{item}");
            names.push(item["displayName"].as_str().unwrap().to_owned());
        }
        pages += 1;
        let Some(link) = page.body["@odata.nextLink"].as_str() else {
            break;
        };
        next = link
            .strip_prefix("https://arm.example.test/graph/v1.0")
            .unwrap()
            .to_owned();
    }
    names.sort();
    assert_eq!((pages, names.len(), names[4].as_str()), (3, 5, "Team 4"));
    for (filter, count) in [
        ("displayName eq 'team 1'", 1),
        ("startswith(displayName,'Team')", 5),
        ("startswith(displayName,'Team') and mailNickname eq 't3'", 1),
        ("securityEnabled eq true", 5),
        ("displayName eq 'it''s'", 0),
    ] {
        let found = stamp.get(&format!("/groups?$filter={filter}")).await;
        assert_eq!(found.body["value"].as_array().unwrap().len(), count, "{filter}");
    }
    for wrong in [
        "$filter=displayName ne 'x'",
        "$filter=atScope()",
        "$top=0",
        "$top=x",
        "$skiptoken=%25",
        "$orderby=id",
        "$search=x",
    ] {
        let answer = stamp.get(&format!("/groups?{wrong}")).await;
        assert_eq!(
            (answer.status, answer.code()),
            (400, "Request_UnsupportedQuery"),
            "{wrong}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn service_principals_are_found_by_every_name() {
    let stamp = Stamp::new().await;
    let app = json!({ "displayName": "shop", "identifierUris": ["api://shop"] });
    let app = stamp.post("/applications", app).await;
    let body = json!({ "appId": app.text("appId") });
    let principal = stamp.post("/servicePrincipals", body).await.text("id");
    for name in [app.text("appId"), "api://shop".to_owned()] {
        let filter = format!("servicePrincipalNames/any(c:c eq '{name}')");
        let found = stamp.get(&format!("/servicePrincipals?$filter={filter}")).await;
        assert_eq!(found.all("id"), [principal.as_str()], "{name}");
    }
    let found = stamp
        .get("/applications?$filter=identifierUris/any(s:s eq 'api://shop')")
        .await;
    assert_eq!(found.all("id"), [app.text("id")]);
}

#[tokio::test(start_paused = true)]
async fn objects_by_their_ids_are_those_that_one_may_see() {
    let stamp = Stamp::new().await;
    let bob = stamp.somebody(PrincipalKind::User, "bob@example.test").await;
    let group =
        json!({ "displayName": "g", "mailNickname": "g", "mailEnabled": false, "securityEnabled": true });
    let group = stamp.post("/groups", group).await.text("id");
    let unknown = "0a0a0a0a-0000-4000-8000-000000000000";
    let ids = json!({ "ids": [bob.id, group, stamp.owner.id, unknown] });
    let all = stamp.post("/directoryObjects/getByIds", ids.clone()).await;
    assert_eq!(
        all.all("@odata.type"),
        [
            "#microsoft.graph.group",
            "#microsoft.graph.servicePrincipal",
            "#microsoft.graph.user"
        ]
    );
    let mut users: Value = ids.clone();
    users["types"] = json!(["user"]);
    assert_eq!(
        stamp.post("/directoryObjects/getByIds", users).await.all("id"),
        [bob.id.as_str()]
    );
    let own = stamp
        .ask(&bob, "POST", "/directoryObjects/getByIds", Some(ids))
        .await;
    assert_eq!(own.all("id"), [bob.id.as_str()]);
    let many: Vec<&str> = vec![unknown; 1001];
    assert_eq!(
        stamp
            .post("/directoryObjects/getByIds", json!({ "ids": many }))
            .await
            .status,
        400
    );
}
