//! People.

use arm_wire::PrincipalKind;
use serde_json::{Value, json};

use crate::stamp::{ARM, GRAPH, PASSWORD, Stamp};

fn ada() -> Value {
    json!({
        "userPrincipalName": "ada@example.test", "displayName": "Ada Lovelace", "mailNickname": "ada",
        "accountEnabled": true, "passwordProfile": { "password": PASSWORD, "forceChangePasswordNextSignIn": false },
    })
}

#[tokio::test(start_paused = true)]
async fn a_user_is_made_logs_in_and_is_refused_once_disabled() {
    let stamp = Stamp::new().await;
    let made = stamp.post("/users", ada()).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert!(!made.body.to_string().contains(PASSWORD));
    let id = made.text("id");
    for path in [
        format!("/users/{id}"),
        "/users/ADA@example.test".to_owned(),
        format!("/users('{id}')"),
    ] {
        let shown = stamp.get(&path).await;
        assert_eq!(
            (shown.status, shown.text("displayName").as_str()),
            (200, "Ada Lovelace")
        );
    }
    let token = stamp
        .password_token("ada@example.test", PASSWORD, GRAPH)
        .await
        .unwrap();
    let me = stamp.with_token(&token, "GET", "/graph/v1.0/me", None).await;
    assert_eq!(me.text("userPrincipalName"), "ada@example.test");
    let path = format!("/users/{id}");
    assert_eq!(
        stamp
            .patch(&path, json!({ "accountEnabled": false }))
            .await
            .status,
        204
    );
    let refused = stamp.with_token(&token, "GET", "/graph/v1.0/me", None).await;
    assert_eq!(
        (refused.status, refused.code()),
        (401, "InvalidAuthenticationToken")
    );
    assert!(
        stamp
            .password_token("ada@example.test", PASSWORD, GRAPH)
            .await
            .is_none()
    );
    assert_eq!(
        stamp.patch(&path, json!({ "accountEnabled": true })).await.status,
        204
    );
    assert_eq!(
        stamp
            .with_token(&token, "GET", "/graph/v1.0/me", None)
            .await
            .status,
        200
    );
    assert_eq!(stamp.delete(&path).await.status, 204);
    assert_eq!(
        stamp
            .with_token(&token, "GET", "/graph/v1.0/me", None)
            .await
            .status,
        401
    );
    assert_eq!(stamp.get(&path).await.status, 404);
    // The line of the log is written with the change, and once.
    let users: Vec<_> = stamp.log().await;
    let count = |action: &str| {
        users
            .iter()
            .filter(|(own, status)| own == action && *status == "Succeeded")
            .count()
    };
    assert_eq!(
        (
            count("Landfall.Directory/users/write"),
            count("Landfall.Directory/users/delete")
        ),
        (3, 1),
        "{users:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn everybody_changes_their_own_password_and_nobody_elses() {
    let stamp = Stamp::new().await;
    let bob = stamp.somebody(PrincipalKind::User, "bob@example.test").await;
    let other = stamp.somebody(PrincipalKind::User, "eve@example.test").await;
    let new = "Another horse 2";
    let change = |current: &str| json!({ "currentPassword": current, "newPassword": new });
    let wrong = stamp
        .ask(&bob, "POST", "/me/changePassword", Some(change("no")))
        .await;
    assert_eq!(
        (wrong.status, wrong.code()),
        (400, "Request_BadRequest"),
        "{wrong:?}"
    );
    let elses = format!("/users/{}/changePassword", other.id);
    for who in [&bob, &stamp.owner] {
        assert_eq!(
            stamp
                .ask(who, "POST", &elses, Some(change(PASSWORD)))
                .await
                .status,
            403
        );
    }
    let weak = json!({ "currentPassword": PASSWORD, "newPassword": "short" });
    let weak = stamp.ask(&bob, "POST", "/me/changePassword", Some(weak)).await;
    assert_eq!(weak.body["error"]["details"][0]["target"], "newPassword");
    assert_eq!(
        stamp
            .ask(&bob, "POST", "/me/changePassword", Some(change(PASSWORD)))
            .await
            .status,
        204
    );
    assert!(stamp.password_token(&bob.login, PASSWORD, ARM).await.is_none());
    assert!(stamp.password_token(&bob.login, new, ARM).await.is_some());
    // Guessing a password with a stolen token is stopped.
    let mut last = 0;
    for _ in 0..6 {
        last = stamp
            .ask(&other, "POST", "/me/changePassword", Some(change("no")))
            .await
            .status;
    }
    assert_eq!(last, 429);
}

#[tokio::test(start_paused = true)]
async fn an_owner_sets_a_password_and_ends_sessions() {
    let stamp = Stamp::new().await;
    let bob = stamp.somebody(PrincipalKind::User, "bob@example.test").await;
    let path = format!("/users/{}", bob.id);
    let before = stamp.get(&path).await.text("signInSessionsValidFromDateTime");
    let set = json!({ "passwordProfile": { "password": "Another horse 2" } });
    assert_eq!(stamp.patch(&path, set).await.status, 204);
    assert!(stamp.password_token(&bob.login, PASSWORD, ARM).await.is_none());
    let after = stamp.get(&path).await.text("signInSessionsValidFromDateTime");
    tokio::time::advance(std::time::Duration::from_secs(5)).await;
    let revoked = stamp
        .post(&format!("{path}/revokeSignInSessions"), json!({}))
        .await;
    assert_eq!(
        (revoked.status, &revoked.body["value"]),
        (200, &json!(true)),
        "{revoked:?}"
    );
    let last = stamp.get(&path).await.text("signInSessionsValidFromDateTime");
    assert!(
        before <= after && after <= last && before != last,
        "{before} {after} {last}"
    );
}

#[tokio::test(start_paused = true)]
async fn all_that_is_wrong_with_a_user_is_told_at_once() {
    let stamp = Stamp::new().await;
    let wrong = json!({
        "userPrincipalName": "no address", "displayName": 1, "accountEnabled": "yes", "colour": "red",
        "passwordProfile": { "password": "short", "forceChangePasswordNextSignIn": true },
    });
    let answer = stamp.post("/users", wrong).await;
    assert_eq!((answer.status, answer.code()), (400, "Request_BadRequest"));
    let details = answer.body["error"]["details"].as_array().unwrap();
    let mut targets: Vec<&str> = details
        .iter()
        .map(|one| one["target"].as_str().unwrap())
        .collect();
    targets.sort_unstable();
    assert_eq!(
        targets,
        [
            "accountEnabled",
            "colour",
            "displayName",
            "mailNickname",
            "passwordProfile.forceChangePasswordNextSignIn",
            "passwordProfile.password",
            "userPrincipalName"
        ]
    );
    assert_eq!(stamp.post("/users", ada()).await.status, 201);
    let again = stamp.post("/users", ada()).await;
    assert!(
        again.message().starts_with("Another object with the same value"),
        "{again:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_who_could_give_rights_stays() {
    let stamp = Stamp::new().await;
    let own = format!("/servicePrincipals/{}", stamp.owner.id);
    for answer in [
        stamp.delete(&own).await,
        stamp.patch(&own, json!({ "accountEnabled": false })).await,
        stamp
            .post(
                &format!("{own}/removePassword"),
                json!({ "keyId": stamp.owner.id }),
            )
            .await,
    ] {
        assert_eq!(
            (answer.status, answer.code()),
            (403, "Authorization_RequestDenied"),
            "{answer:?}"
        );
    }
}
