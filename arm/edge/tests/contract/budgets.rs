//! Budgets of requests: what is counted, what a client that is too fast is told, and what it does not cost
//! others.

use std::time::Duration;

use arm_edge::{Budget, Budgets};
use base_metrics::Page;
use http::StatusCode;
use serde_json::json;

use crate::fixture::{AUDIENCE, Answer, SUBSCRIPTION, Stamp, VERSION, group, thing};

const OWN: &str = "x-ms-ratelimit-remaining-subscription-reads";
const ALL: &str = "x-ms-ratelimit-remaining-subscription-global-reads";
const TENANT_WIDE: &str = "x-ms-ratelimit-remaining-tenant-reads";

/// Three reads and two writes at once, and one more a second of each; deletes without a limit.
async fn small() -> Stamp {
    Stamp::with_budgets(Budgets {
        reads: Budget::new(3, 1),
        writes: Budget::new(2, 1),
        deletes: None,
    })
    .await
}

fn own_subscription() -> String {
    format!("/subscriptions/{SUBSCRIPTION}?{VERSION}")
}

fn told(answer: &Answer) -> (StatusCode, &str) {
    (answer.status, answer.code())
}

const THROTTLED: (StatusCode, &str) = (StatusCode::TOO_MANY_REQUESTS, "SubscriptionRequestsThrottled");

#[tokio::test(start_paused = true)]
async fn a_client_that_is_too_fast_is_told_when_to_come_back_and_is_served_then() {
    let stamp = small().await;
    let path = own_subscription();
    for left in ["2", "1", "0"] {
        let answer = stamp.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        assert_eq!(answer.header(OWN), left);
        assert_eq!(answer.header(TENANT_WIDE), "");
    }
    for _ in 0..10 {
        let refused = stamp.get(&path).await;
        assert_eq!(told(&refused), THROTTLED);
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!((refused.header(OWN), refused.header(ALL)), ("0", "42"));
        assert!(!refused.header("x-ms-request-id").is_empty());
        let message = refused.body["error"]["message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!(
                "Number of 'read' requests for subscription '{SUBSCRIPTION}' actor '"
            )) && message.ends_with("exceeded. Please try again after '1' seconds."),
            "{message}"
        );
    }
    // Each kind has its own, and what has no budget is served without a word of it.
    let written = stamp
        .arm("PUT", &group("g"), Some(json!({ "location": "local" })))
        .await;
    assert_eq!(written.status, StatusCode::CREATED, "{}", written.text);
    assert_eq!(
        (
            written.header("x-ms-ratelimit-remaining-subscription-writes"),
            written.header("x-ms-ratelimit-remaining-subscription-global-writes"),
            written.header(OWN)
        ),
        ("1", "29", "")
    );
    for _ in 0..5 {
        let deleted = stamp.arm("DELETE", &thing("things/t"), None).await;
        assert_eq!(deleted.status, StatusCode::OK, "{}", deleted.text);
        assert_eq!(
            deleted.header("x-ms-ratelimit-remaining-subscription-deletes"),
            ""
        );
    }
    let mut page = Page::new();
    stamp.edge.measure(&mut page);
    let page = page.finish();
    let line = "landfall_arm_throttled_total{budget=\"principal\",kind=\"reads\"} 10";
    assert!(page.lines().any(|own| own == line), "{page}");

    stamp.env.clock.sleep(Duration::from_secs(1)).await;
    assert_eq!(stamp.get(&path).await.status, StatusCode::OK);
    assert_eq!(told(&stamp.get(&path).await), THROTTLED);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_another_principal_and_what_needs_no_token_is_not_counted() {
    let mut stamp = small().await;
    let form = format!(
        "grant_type=password&username=ada@example.test&password=a+person's+password&client_id=cli&scope={AUDIENCE}/.default"
    );
    let answer = stamp.form("/adfs/oauth2/token", &form).await;
    let ada = answer.body["access_token"].as_str().unwrap().to_owned();
    let path = own_subscription();
    for _ in 0..3 {
        assert_eq!(stamp.get(&path).await.status, StatusCode::OK);
    }
    assert_eq!(told(&stamp.get(&path).await), THROTTLED);
    for public in ["/healthz", "/metadata/endpoints?api-version=2022-09-01"] {
        for _ in 0..5 {
            let answer = stamp.get(public).await;
            assert_eq!(answer.status, StatusCode::OK, "{public}");
            assert_eq!(answer.header(OWN), "");
        }
    }
    let application = std::mem::replace(&mut stamp.token, "nobody's".to_owned());
    for _ in 0..5 {
        assert_eq!(stamp.get(&path).await.status, StatusCode::UNAUTHORIZED);
    }
    stamp.token = ada;
    let answer = stamp.get(&path).await;
    assert_eq!(
        (answer.status, answer.header(OWN), answer.header(ALL)),
        (StatusCode::OK, "2", "41")
    );
    stamp.token = application;
    assert_eq!(told(&stamp.get(&path).await), THROTTLED);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_not_looked_at_and_leaves_no_trace() {
    let stamp = small().await;
    stamp.group("g").await;
    stamp.arm("PUT", &thing("things/t"), Some(json!({}))).await;
    let logged = stamp.guard.activities.lock().unwrap().len();
    stamp
        .guard
        .forbidden
        .lock()
        .unwrap()
        .extend(["Microsoft.Test/things/write", "Microsoft.Test/things/poke/action"]);
    for (method, path, body) in [
        // Neither its permission nor its body nor its api-version was asked for.
        ("PUT", thing("things/t"), Some(json!(["no object"]))),
        ("POST", thing("things/t/poke"), None),
        ("PUT", group("other"), Some(json!({ "location": "local" }))),
        (
            "PUT",
            format!("/subscriptions/{SUBSCRIPTION}/resourcegroups/other"),
            None,
        ),
    ] {
        let refused = stamp.arm(method, &path, body).await;
        assert_eq!(told(&refused), THROTTLED, "{method} {path}");
    }
    assert_eq!(stamp.guard.activities.lock().unwrap().len(), logged);
    assert!(!stamp.has_group("other").await);
}

#[tokio::test(start_paused = true)]
async fn made_up_subscriptions_have_no_budgets_of_their_own() {
    let stamp = small().await;
    for (number, left) in ["2", "1", "0"].into_iter().enumerate() {
        let path = format!("/subscriptions/00000000-0000-4000-8000-00000000000{number}?{VERSION}");
        let answer = stamp.get(&path).await;
        assert_eq!(answer.code(), "SubscriptionNotFound", "{}", answer.text);
        assert_eq!((answer.header(TENANT_WIDE), answer.header(OWN)), (left, ""));
    }
    // Nor has a path that cannot be understood.
    for path in [
        format!("/subscriptions/elsewhere?{VERSION}"),
        format!("/subscriptions?{VERSION}"),
        format!("/subscriptions/%zz?{VERSION}"),
    ] {
        let refused = stamp.get(&path).await;
        assert_eq!(
            told(&refused),
            (StatusCode::TOO_MANY_REQUESTS, "TenantRequestsThrottled"),
            "{path}"
        );
    }
    assert_eq!(stamp.get(&own_subscription()).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn without_budgets_nothing_is_counted() {
    let stamp = Stamp::new().await;
    for _ in 0..100 {
        let answer = stamp.get(&own_subscription()).await;
        assert_eq!((answer.status, answer.header(OWN)), (StatusCode::OK, ""));
    }
}
