//! Permissions, and unknown paths.

use arm_wire::PrincipalKind;
use serde_json::{Value, json};

use crate::stamp::{Stamp, Who};

/// Every route, with a body that could be of it.
fn routes(id: &str) -> Vec<(&'static str, String)> {
    let mut routes = Vec::new();
    for collection in ["users", "groups", "servicePrincipals", "applications"] {
        routes.push(("GET", format!("/{collection}")));
        routes.push(("POST", format!("/{collection}")));
        for method in ["GET", "PATCH", "DELETE"] {
            routes.push((method, format!("/{collection}/{id}")));
        }
    }
    for (method, path) in [
        ("POST", "users/{id}/changePassword"),
        ("POST", "users/{id}/revokeSignInSessions"),
        ("GET", "users/{id}/memberOf"),
        ("POST", "users/{id}/getMemberGroups"),
        ("GET", "groups/{id}/members"),
        ("POST", "groups/{id}/members/$ref"),
        ("DELETE", "groups/{id}/members/{id}/$ref"),
        ("POST", "groups/{id}/getMemberGroups"),
        ("POST", "servicePrincipals/{id}/addPassword"),
        ("POST", "servicePrincipals/{id}/removePassword"),
        ("POST", "servicePrincipals/{id}/revokeSignInSessions"),
        ("POST", "applications/{id}/addPassword"),
        ("POST", "applications/{id}/removePassword"),
        ("GET", "applications/{id}/federatedIdentityCredentials"),
        ("POST", "applications/{id}/federatedIdentityCredentials"),
        ("DELETE", "applications/{id}/federatedIdentityCredentials/x"),
        ("GET", "directoryObjects/{id}"),
        ("POST", "directoryObjects/{id}/checkMemberGroups"),
    ] {
        routes.push((method, format!("/{}", path.replace("{id}", id))));
    }
    routes
}

#[tokio::test(start_paused = true)]
async fn owners_change_it_readers_read_it_others_neither() {
    let stamp = Stamp::new().await;
    let person = async |name: &str| {
        stamp
            .somebody(PrincipalKind::User, &format!("{name}@example.test"))
            .await
    };
    let (target, nobody, reader, contributor) = (
        person("target").await,
        person("nobody").await,
        person("reader").await,
        person("contributor").await,
    );
    stamp.with_role(&reader, "Reader").await;
    stamp.with_role(&contributor, "Contributor").await;
    let unknown = "0a0a0a0a-0000-4000-8000-000000000000";
    for id in [target.id.as_str(), unknown] {
        for (method, path) in routes(id) {
            let asks = method == "GET" || path.contains("MemberGroups");
            let body = matches!(method, "POST" | "PATCH").then(|| json!({}));
            let ask = async |who: &Who| -> u16 { stamp.ask(who, method, &path, body.clone()).await.status };
            assert_eq!(ask(&nobody).await, 403, "{method} {path}");
            for who in [&reader, &contributor] {
                // A caller that may not assign roles may not take over a principal that may.
                assert_eq!(ask(who).await == 403, !asks, "{method} {path}");
            }
        }
    }
    // A refusal is logged.
    let refused = stamp
        .log()
        .await
        .into_iter()
        .filter(|(_, status)| *status == "Failed")
        .count();
    assert!(refused > 20, "{refused}");
    for (method, path) in routes(unknown) {
        let body: Option<Value> = matches!(method, "POST" | "PATCH").then(|| json!({}));
        let answer = stamp.ask(&stamp.owner, method, &path, body).await;
        assert!(
            [200, 204, 400, 404].contains(&answer.status),
            "{method} {path}: {answer:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_of_one_api_are_good_for_nothing_at_the_other() {
    let stamp = Stamp::new().await;
    let owner = stamp.owner.clone();
    let at_graph = stamp
        .with_token(&owner.arm, "GET", "/graph/v1.0/users", None)
        .await;
    assert_eq!(
        (at_graph.status, at_graph.code()),
        (401, "InvalidAuthenticationToken")
    );
    let graph = stamp
        .client_token("owner", "an application's secret", crate::stamp::GRAPH)
        .await
        .unwrap();
    let at_arm = stamp
        .with_token(&graph, "GET", "/subscriptions?api-version=2022-12-01", None)
        .await;
    assert_eq!(at_arm.status, 401);
    // Clients reach a stamp by more than one address, and request tokens of Graph by the address that they
    // use.
    for (resource, holds) in [
        ("https://10.0.0.1:8443/graph", true),
        ("https://10.0.0.1:8443/graph/", true),
        ("https://10.0.0.1:8443", false),
        ("https://10.0.0.1:8443/other", false),
        ("http://10.0.0.1:8443/graph", false),
    ] {
        let token = stamp
            .client_token("owner", "an application's secret", resource)
            .await;
        assert_eq!(token.is_some(), holds, "{resource}");
        if let Some(token) = token {
            assert_eq!(
                stamp
                    .with_token(&token, "GET", "/graph/v1.0/users", None)
                    .await
                    .status,
                200
            );
        }
    }
    let none = stamp.with_token("", "GET", "/graph/v1.0/users", None).await;
    assert_eq!((none.status, none.code()), (401, "InvalidAuthenticationToken"));
    assert!(none.body["error"]["innerError"]["request-id"].is_string());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_says_so() {
    let stamp = Stamp::new().await;
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/oauth2PermissionGrants", 501),
        ("GET", "/groups/x/owners", 404),
        ("PUT", "/users", 405),
        ("DELETE", "/users", 405),
        ("GET", "/me", 400),
        ("GET", "/users/%2e%2e%2fstamp", 404),
        ("GET", "/users/%ff", 404),
    ] {
        let answer = stamp.ask(&stamp.owner, method, path, None).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(!answer.code().is_empty() && !answer.message().is_empty());
    }
    let beta = stamp.with_token("x", "GET", "/graph", None).await;
    assert_eq!(beta.status, 401, "nothing is told before it is known who asks");
    let group =
        json!({ "displayName": "g", "mailNickname": "g", "mailEnabled": false, "securityEnabled": true });
    let id = stamp.post("/groups", group).await.text("id");
    let owners = stamp.post(&format!("/groups/{id}/owners/$ref"), json!({})).await;
    assert_eq!((owners.status, owners.code()), (501, "NotImplemented"));
    assert_eq!(
        stamp.get(&format!("/groups/{id}/owners")).await.body["value"],
        json!([])
    );
}
