//! Permissions, and the activity log.

use std::time::Duration;

use control_records::activity::{self, ActivityStatus};
use http::StatusCode;
use serde_json::json;

use crate::fixture::{APPLICATION, Answer, DISABLED, SUBSCRIPTION, Stamp, VERSION, group, thing};

#[tokio::test(start_paused = true)]
async fn a_request_without_permission_does_not_reach_its_provider_and_learns_nothing() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    stamp.guard.forbidden.lock().unwrap().extend([
        "Microsoft.Test/things/read",
        "Microsoft.Test/things/write",
        "Microsoft.Test/things/poke/action",
        "Microsoft.Test/register/action",
    ]);
    let missing = thing("things/t").replace("/resourceGroups/g/", "/resourceGroups/none/");
    for (method, path) in [
        ("GET", thing("things/t")),
        ("GET", thing("things")),
        ("PUT", thing("things/t")),
        ("POST", thing("things/t/poke")),
        // Not even that the group does not exist.
        ("GET", missing),
    ] {
        let body = (method != "GET").then(|| json!({}));
        let answer = stamp.arm(method, &path, body).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::FORBIDDEN, "AuthorizationFailed"),
            "{method} {path}"
        );
    }
    assert_eq!(
        stamp.arm("DELETE", &thing("things/t"), None).await.status,
        StatusCode::OK
    );
    let register = format!(
        "/subscriptions/{}/providers/Microsoft.Test/register?{}",
        crate::fixture::SUBSCRIPTION,
        crate::fixture::VERSION
    );
    assert_eq!(
        stamp.arm("POST", &register, None).await.code(),
        "AuthorizationFailed"
    );
}

#[tokio::test(start_paused = true)]
async fn each_write_and_each_refusal_of_one_is_kept() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    stamp.get(&thing("things/t")).await;
    stamp.arm("PUT", &thing("things/t"), Some(json!({}))).await;
    stamp.arm("PUT", &thing("nothings/t"), Some(json!({}))).await;
    stamp
        .guard
        .forbidden
        .lock()
        .unwrap()
        .push("Microsoft.Test/things/delete");
    stamp.arm("DELETE", &thing("things/t"), None).await;
    let kept = stamp.guard.activities.lock().unwrap();
    let kept: Vec<_> = kept
        .iter()
        .map(|one| {
            (
                one.action.as_str(),
                one.status,
                one.code,
                one.scope.rsplit('/').next().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        kept,
        [
            (
                "Microsoft.Resources/subscriptions/resourceGroups/write",
                201,
                "",
                "g"
            ),
            ("Microsoft.Test/things/write", 200, "", "t"),
            ("Microsoft.Test/things/delete", 403, "AuthorizationFailed", "t"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_store_has_what_was_changed_and_what_was_refused() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    // In the transaction of the change: with the group, not after it.
    let before = stamp.store.list("/").await.unwrap().1;
    let put = stamp
        .arm("PUT", &group("h"), Some(json!({ "location": "local" })))
        .await;
    assert_eq!(
        stamp.store.list("/").await.unwrap().1.0,
        before.0 + 1,
        "one commit"
    );
    let deleted = stamp.arm("DELETE", &group("h"), None).await;
    stamp.arm("POST", &thing("things/t/poke"), None).await;
    stamp
        .arm("PUT", &group("bad*name"), Some(json!({ "location": "local" })))
        .await;
    // No log is kept for a subscription that does not exist.
    let elsewhere = group("g").replace(SUBSCRIPTION, "0a0a0a0a-0000-4000-8000-000000000000");
    assert_eq!(
        stamp.arm("DELETE", &elsewhere, None).await.code(),
        "SubscriptionNotFound"
    );
    stamp.get(&group("g")).await;

    let log = activity::log(&*stamp.store, Some(SUBSCRIPTION)).await.unwrap();
    let find = |answer: &Answer| {
        let id = answer.header("x-ms-request-id");
        let found = log.iter().find(|(_, record)| record.request_id == id);
        found.map(|(_, record)| record.clone()).unwrap()
    };
    let made = find(&put);
    assert_eq!(
        (made.action.as_str(), made.status, made.principal_name.as_str()),
        (
            "Microsoft.Resources/subscriptions/resourceGroups/write",
            ActivityStatus::Succeeded,
            APPLICATION
        )
    );
    assert!(
        made.scope.to_lowercase().ends_with("/resourcegroups/h"),
        "{}",
        made.scope
    );
    let gone = find(&deleted);
    assert_eq!(gone.status, ActivityStatus::Accepted);
    let operation = gone.operation.unwrap();
    assert!(deleted.header("azure-asyncoperation").contains(&operation));
    let mut rest: Vec<_> = log
        .iter()
        .map(|(_, record)| (record.http_status, record.code.as_deref(), record.status))
        .collect();
    // All of it happened at one moment of the virtual clock.
    rest.sort_by_key(|(http, _, status)| (*http, status.as_str()));
    assert_eq!(
        rest,
        [
            (None, None, ActivityStatus::Accepted),
            (None, None, ActivityStatus::Succeeded),
            (None, None, ActivityStatus::Succeeded),
            (Some(200), None, ActivityStatus::Succeeded),
            (Some(400), Some("InvalidResourceName"), ActivityStatus::Failed),
        ]
    );
    let nowhere = activity::log(&*stamp.store, None).await.unwrap();
    assert_eq!(nowhere.len(), 1);
    assert_eq!(nowhere[0].1.code.as_deref(), Some("SubscriptionNotFound"));
}

#[tokio::test(start_paused = true)]
async fn refusals_that_come_too_fast_do_not_cost_a_commit_each() {
    let stamp = Stamp::new().await;
    for _ in 0..150 {
        let refused = stamp
            .arm("PUT", &group("bad*name"), Some(json!({ "location": "local" })))
            .await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    }
    let log = async || {
        activity::log(&*stamp.store, Some(SUBSCRIPTION))
            .await
            .unwrap()
            .len()
    };
    assert_eq!(log().await, 100);
    // Requests that are permitted are logged meanwhile.
    stamp.group("g").await;
    assert_eq!(log().await, 101);
    stamp.env.clock.sleep(Duration::from_secs(11)).await;
    stamp.arm("PUT", &group("bad*name"), Some(json!({}))).await;
    assert_eq!(log().await, 102);
}

#[tokio::test(start_paused = true)]
async fn in_a_disabled_subscription_nothing_is_made_or_changed() {
    let stamp = Stamp::new().await;
    stamp.disabled().await;
    stamp.group("g").await;
    let of = |path: &str| path.replace(SUBSCRIPTION, DISABLED);
    let state = async |id: &str| {
        let found = stamp.get(&format!("/subscriptions/{id}?{VERSION}")).await;
        let listed = stamp.get(&format!("/subscriptions?{VERSION}")).await;
        let listed = listed.body["value"].as_array().unwrap().clone();
        assert!(listed.contains(&found.body), "{listed:?}");
        found.body["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(DISABLED).await, "Disabled");
    // Every verb, and whether it goes on.
    for (method, path, goes_on) in [
        ("GET", group("g"), true),
        ("HEAD", group("g"), true),
        ("PUT", group("g"), false),
        ("PATCH", group("g"), false),
        ("GET", thing("things"), true),
        ("GET", thing("things/t"), true),
        ("PUT", thing("things/t"), false),
        ("POST", thing("things/t/poke"), false),
        // An action that must not be mistaken for one that deletes a credential.
        ("POST", thing("things/t/link"), false),
        ("DELETE", thing("things/t"), true),
        ("DELETE", group("g"), true),
    ] {
        let body = matches!(method, "PUT" | "PATCH").then(|| json!({ "location": "local" }));
        let enabled = stamp.arm(method, &path, body.clone()).await;
        assert!(enabled.status.is_success(), "{method} {path}: {}", enabled.text);
        let answer = stamp.arm(method, &of(&path), body).await;
        if goes_on {
            assert_eq!(answer.status, enabled.status, "{method} {path}: {}", answer.text);
            continue;
        }
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::CONFLICT, "ReadOnlyDisabledSubscription"),
            "{method} {path}"
        );
        assert_eq!(
            answer.body["error"]["message"],
            format!(
                "The subscription '{DISABLED}' is disabled and therefore marked as read only. You cannot perform any write actions on this \
                 subscription until it is re-enabled."
            )
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_not_write_does_not_learn_that_a_subscription_is_disabled() {
    let stamp = Stamp::new().await;
    stamp.disabled().await;
    let forbidden = "Microsoft.Test/things/write";
    stamp.guard.forbidden.lock().unwrap().push(forbidden);
    let path = thing("things/t").replace(SUBSCRIPTION, DISABLED);
    let answer = stamp.arm("PUT", &path, Some(json!({}))).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::FORBIDDEN, "AuthorizationFailed")
    );
    assert!(!answer.text.contains("disabled"), "{}", answer.text);
}

#[tokio::test(start_paused = true)]
async fn an_operator_disables_a_subscription_and_enables_it_again() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    let say = async |word: &str| {
        let path = format!(
            "/providers/Landfall.Subscription/subscriptions/{SUBSCRIPTION}/{word}?api-version=2026-11-01"
        );
        stamp.arm("POST", &path, None).await
    };
    // A repeated request has the same outcome, and changes no record.
    for (word, state, status) in [
        ("enable", "Enabled", StatusCode::OK),
        ("disable", "Disabled", StatusCode::CONFLICT),
        ("disable", "Disabled", StatusCode::CONFLICT),
        ("enable", "Enabled", StatusCode::OK),
    ] {
        let said = say(word).await;
        assert_eq!(
            (said.status, &said.body["state"]),
            (StatusCode::OK, &json!(state)),
            "{}",
            said.text
        );
        let read = stamp
            .get(&format!("/subscriptions/{SUBSCRIPTION}?{VERSION}"))
            .await;
        assert_eq!(read.body["state"], state);
        let put = stamp.arm("PUT", &thing("things/t"), Some(json!({}))).await;
        assert_eq!(put.status, status, "{word}: {}", put.text);
    }
    let forbidden = "Landfall.Subscription/subscriptions/enable/action";
    stamp.guard.forbidden.lock().unwrap().push(forbidden);
    assert_eq!(say("enable").await.code(), "AuthorizationFailed");
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages() {
    let stamp = Stamp::new().await;
    for name in ["c", "a", "B", "d", "e"] {
        stamp.group(name).await;
    }
    let mut link = format!(
        "/subscriptions/{}/resourcegroups?{}&$top=2&$filter=location+eq+'local'",
        crate::fixture::SUBSCRIPTION,
        crate::fixture::VERSION
    );
    let mut names = Vec::new();
    loop {
        let page = stamp.get(&link).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        for group in page.body["value"].as_array().unwrap() {
            names.push(group["name"].as_str().unwrap().to_owned());
        }
        let Some(next) = page.body["nextLink"].as_str() else {
            break;
        };
        // Between two pages, a group is added before all others.
        link = next.strip_prefix(crate::fixture::BASE).unwrap().to_owned();
        if names.len() == 2 {
            stamp.group("0").await;
        }
    }
    assert_eq!(names, ["a", "B", "c", "d", "e"]);
    let wrong = format!(
        "/subscriptions/{}/resourcegroups?{}&$skiptoken=%21",
        crate::fixture::SUBSCRIPTION,
        crate::fixture::VERSION
    );
    assert_eq!(stamp.get(&wrong).await.code(), "BadRequest");
}
