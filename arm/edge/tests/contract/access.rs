//! Who may do what, and what is kept of it.

use http::StatusCode;
use serde_json::json;

use crate::fixture::{Stamp, thing};

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
        // Not even that the group is not there.
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
        // Between two pages, one of the first goes and another comes before it.
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
