//! The tags API on resource groups, and on resources without tags.

use http::StatusCode;
use serde_json::{Value, json};

use crate::fixture::{Answer, SUBSCRIPTION, Stamp, VERSION, group, thing};

/// Path and query of the tags of a scope in the subscription.
fn tags(of: &str) -> String {
    format!("/subscriptions/{SUBSCRIPTION}/{of}/providers/Microsoft.Resources/tags/default?{VERSION}")
}

fn wish(tags: Value) -> Option<Value> {
    Some(json!({ "properties": { "tags": tags } }))
}

fn patch(operation: &str, tags: Value) -> Option<Value> {
    Some(json!({ "operation": operation, "properties": { "tags": tags } }))
}

fn refused(answer: &Answer, status: StatusCode, code: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.text);
}

#[tokio::test(start_paused = true)]
async fn tags_of_a_group_are_replaced_merged_removed_and_cleared() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    let of = tags("resourceGroups/g");
    let many: serde_json::Map<String, Value> = (0..50).map(|n| (format!("t{n}"), json!("v"))).collect();
    for (method, body, expected) in [
        ("GET", None, json!({})),
        (
            "PUT",
            wish(json!({ "a": "1", "B": "2" })),
            json!({ "a": "1", "B": "2" }),
        ),
        (
            "PUT",
            wish(json!({ "a": "1", "c": "3" })),
            json!({ "a": "1", "c": "3" }),
        ),
        // Names ignore case; the casing that was given last is kept.
        (
            "PATCH",
            patch("Merge", json!({ "A": "4", "d": "" })),
            json!({ "A": "4", "c": "3", "d": "" }),
        ),
        // By name and value, or by name alone.
        (
            "PATCH",
            patch("delete", json!({ "a": "4", "C": "other", "d": "" })),
            json!({ "c": "3" }),
        ),
        (
            "PATCH",
            patch("Delete", json!({ "C": "", "none": "x" })),
            json!({}),
        ),
        (
            "PATCH",
            patch("Replace", json!({ "x": "y" })),
            json!({ "x": "y" }),
        ),
        (
            "PUT",
            wish(Value::Object(many.clone())),
            Value::Object(many.clone()),
        ),
    ] {
        let answer = stamp.arm(method, &of, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{method}: {}", answer.text);
        let id = format!(
            "/subscriptions/{SUBSCRIPTION}/resourceGroups/g/providers/Microsoft.Resources/tags/default"
        );
        let shown = json!({
            "id": id, "name": "default", "type": "Microsoft.Resources/tags", "properties": { "tags": expected },
        });
        assert_eq!(answer.body, shown);
        assert_eq!(stamp.get(&of).await.body, shown);
        assert_eq!(stamp.get(&group("g")).await.body["tags"], expected);
    }
    let more = stamp
        .arm("PATCH", &of, patch("Merge", json!({ "one": "more" })))
        .await;
    refused(&more, StatusCode::BAD_REQUEST, "InvalidParameter");
    let cleared = stamp.arm("DELETE", &of, None).await;
    assert_eq!((cleared.status, cleared.text.as_str()), (StatusCode::OK, ""));
    assert_eq!(stamp.get(&group("g")).await.body["tags"], json!({}));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_wish_about_tags_is_refused() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    let of = tags("resourceGroups/g");
    for (method, body, code) in [
        ("PUT", None, "InvalidRequestContent"),
        (
            "PUT",
            Some(json!({ "tags": { "a": "b" } })),
            "InvalidRequestContent",
        ),
        ("PUT", wish(json!({ "a<": "b" })), "InvalidParameter"),
        ("PUT", wish(json!([])), "InvalidParameter"),
        ("PATCH", wish(json!({ "a": "b" })), "InvalidParameter"),
        ("PATCH", patch("Forget", json!({ "a": "b" })), "InvalidParameter"),
        (
            "PATCH",
            Some(json!({ "operation": "Merge" })),
            "InvalidRequestContent",
        ),
        ("PATCH", Some(json!([])), "InvalidRequestContent"),
    ] {
        let answer = stamp.arm(method, &of, body.clone()).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, code),
            "{method} {body:?}: {}",
            answer.text
        );
    }
    let other = stamp.get(&of.replace("/default?", "/other?")).await;
    refused(&other, StatusCode::NOT_FOUND, "NotFound");
    let none = stamp.get(&tags("resourceGroups/none")).await;
    refused(&none, StatusCode::NOT_FOUND, "ResourceGroupNotFound");
    let nowhere = tags("resourceGroups/g/providers/Microsoft.Nowhere/things/t");
    refused(
        &stamp.get(&nowhere).await,
        StatusCode::NOT_FOUND,
        "InvalidResourceNamespace",
    );
    // A type whose resources have no tags.
    let things = tags("resourceGroups/g/providers/Microsoft.Test/things/t");
    let answer = stamp.arm("PUT", &things, wish(json!({ "a": "b" }))).await;
    refused(&answer, StatusCode::BAD_REQUEST, "OperationNotAllowed");
    // The tags of a subscription are not implemented, nor is any other extension of a resource.
    let own = format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Resources/tags/default?{VERSION}");
    refused(
        &stamp.get(&own).await,
        StatusCode::NOT_IMPLEMENTED,
        "NotImplemented",
    );
    let below = thing("things/t/providers/Microsoft.Test/things/u");
    assert_eq!(stamp.get(&below).await.status, StatusCode::NOT_FOUND);
    let provider = format!(
        "/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Test/things/t/providers/Microsoft.Test?{VERSION}"
    );
    assert_eq!(stamp.get(&provider).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_tags_needs_its_permission_and_is_logged() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    let of = tags("resourceGroups/g");
    stamp
        .guard
        .forbidden
        .lock()
        .unwrap()
        .push("Microsoft.Resources/tags/write");
    let forbidden = stamp.arm("PUT", &of, wish(json!({ "a": "b" }))).await;
    refused(&forbidden, StatusCode::FORBIDDEN, "AuthorizationFailed");
    assert_eq!(stamp.get(&of).await.body["properties"]["tags"], json!({}));
    stamp.guard.forbidden.lock().unwrap().clear();
    stamp.guard.activities.lock().unwrap().clear();
    let changed = stamp.arm("PUT", &of, wish(json!({ "a": "b" }))).await;
    assert_eq!(changed.status, StatusCode::OK);
    let activities = stamp.guard.activities.lock().unwrap().clone();
    let [activity] = activities.as_slice() else {
        panic!("{activities:?}");
    };
    assert_eq!(
        (activity.action.as_str(), activity.method.as_str()),
        ("Microsoft.Resources/tags/write", "PUT")
    );
    assert!(activity.logged, "with the change itself");
}
