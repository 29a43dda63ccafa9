//! Resource groups, from creation to cascading deletion.

use std::{sync::atomic::Ordering, time::Duration};

use http::StatusCode;
use serde_json::json;

use crate::fixture::{SUBSCRIPTION, Stamp, VERSION, group, thing};

#[tokio::test(start_paused = true)]
async fn a_group_is_made_read_changed_and_listed() {
    let stamp = Stamp::new().await;
    let made = stamp
        .arm(
            "PUT",
            &group("Grp"),
            Some(json!({ "location": "Local Region", "tags": { "a": "b" } })),
        )
        .await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(
        made.body["id"],
        format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/Grp")
    );
    assert_eq!(made.body["location"], "local");
    assert_eq!(made.body["properties"]["provisioningState"], "Succeeded");
    let again = stamp
        .arm("PUT", &group("GRP"), Some(json!({ "location": "LOCAL" })))
        .await;
    assert_eq!(
        (again.status, &again.body["name"], &again.body["tags"]),
        (StatusCode::OK, &json!("GRP"), &json!({}))
    );
    let patched = stamp
        .arm("PATCH", &group("grp"), Some(json!({ "tags": { "x": "y" } })))
        .await;
    assert_eq!(patched.body["tags"], json!({ "x": "y" }));
    let kept = stamp.arm("PATCH", &group("grp"), Some(json!({}))).await;
    assert_eq!(kept.body["tags"], json!({ "x": "y" }));
    let read = stamp.get(&group("grp")).await;
    assert_eq!(read.body, kept.body);
    // A body that was read may be sent back.
    assert_eq!(
        stamp.arm("PUT", &group("grp"), Some(read.body)).await.status,
        StatusCode::OK
    );
    let head = stamp.arm("HEAD", &group("grp"), None).await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::NO_CONTENT, ""));
    let none = stamp.arm("HEAD", &group("none"), None).await;
    assert_eq!((none.status, none.text.as_str()), (StatusCode::NOT_FOUND, ""));
    stamp.group("second").await;
    let list = |query: &str| format!("/subscriptions/{SUBSCRIPTION}/resourcegroups?{VERSION}{query}");
    assert_eq!(
        stamp.get(&list("")).await.body["value"].as_array().unwrap().len(),
        2
    );
    assert_eq!(
        stamp.get(&list("&$top=1")).await.body["value"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let tagged = stamp
        .get(&list("&$filter=tagName%20eq%20'x'%20and%20tagValue%20eq%20'y'"))
        .await;
    assert_eq!(tagged.body["value"][0]["name"], "grp");
    assert_eq!(tagged.body["value"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_waits_until_every_provider_has_emptied_the_group() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    stamp.things.left.store(3, Ordering::Relaxed);
    let deleted = stamp.arm("DELETE", &group("g"), None).await;
    assert_eq!(
        (deleted.status, deleted.header("retry-after")),
        (StatusCode::ACCEPTED, "1")
    );
    let (status, location) = (deleted.header("azure-asyncoperation"), deleted.header("location"));
    assert!(
        status.starts_with("https://arm.example.test/subscriptions/")
            && location.contains("/operationresults/")
    );

    // Marked, and closed for new resources, although the reaper has not yet begun.
    assert_eq!(
        stamp.get(&group("g")).await.body["properties"]["provisioningState"],
        "Deleting"
    );
    for (path, body) in [
        (group("g"), json!({ "location": "local" })),
        (thing("things/t"), json!({})),
    ] {
        let refused = stamp.arm("PUT", &path, Some(body)).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code()),
            (409, "ResourceGroupBeingDeleted")
        );
    }
    let running = stamp.get(location).await;
    assert_eq!(
        (running.status, running.header("retry-after")),
        (StatusCode::ACCEPTED, "1")
    );
    assert!(running.header("location").contains("/operationresults/"));
    let running = stamp.get(status).await;
    assert_eq!(
        (running.status, &running.body["status"]),
        (StatusCode::OK, &json!("InProgress"))
    );
    assert_eq!(running.header("retry-after"), "1");

    // Killed half-way and started again.
    let reaper = stamp.reaper();
    stamp.env.clock.sleep(Duration::from_secs(1)).await;
    reaper.abort();
    assert!(stamp.has_group("g").await);
    assert!(stamp.things.asked.load(Ordering::Relaxed) >= 1);
    // A second request for the same is the first.
    let second = stamp.arm("DELETE", &group("G"), None).await;
    assert_eq!(second.status, StatusCode::ACCEPTED);
    assert_eq!(second.header("azure-asyncoperation"), status);
    let reaper = stamp.reaper();
    stamp.env.clock.sleep(Duration::from_secs(20)).await;
    reaper.abort();

    assert!(!stamp.has_group("g").await);
    for polled in [status, second.header("azure-asyncoperation")] {
        let done = stamp.get(polled).await;
        assert_eq!(done.body["status"], "Succeeded", "{}", done.text);
        assert!(done.body["endTime"].is_string() && done.body["error"].is_null());
    }
    assert_eq!(stamp.get(location).await.status, StatusCode::NO_CONTENT);
    assert_eq!(stamp.get(&group("g")).await.status, StatusCode::NOT_FOUND);
    stamp.group("g").await;
}

#[tokio::test(start_paused = true)]
async fn a_running_reaper_notices_at_once() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    let reaper = stamp.reaper();
    stamp.env.clock.sleep(Duration::from_secs(10)).await;
    assert_eq!(stamp.things.asked.load(Ordering::Relaxed), 0, "nothing is to go");
    assert_eq!(
        stamp.arm("DELETE", &group("g"), None).await.status,
        StatusCode::ACCEPTED
    );
    stamp.env.clock.sleep(Duration::from_secs(1)).await;
    assert!(!stamp.has_group("g").await);
    reaper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_cannot_end_says_so_in_time_and_goes_on() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    stamp.things.left.store(usize::MAX, Ordering::Relaxed);
    let deleted = stamp.arm("DELETE", &group("g"), None).await;
    let status = deleted.header("azure-asyncoperation").to_owned();
    let reaper = stamp.reaper();
    stamp.env.clock.sleep(Duration::from_secs(19 * 60)).await;
    assert_eq!(stamp.get(&status).await.body["status"], "InProgress");
    stamp.env.clock.sleep(Duration::from_secs(4 * 60)).await;
    let failed = stamp.get(&status).await;
    assert_eq!(failed.body["status"], "Failed");
    assert_eq!(failed.body["error"]["code"], "OperationTimedOut");
    let message = failed.body["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("It still has Microsoft.Test/things 't'."),
        "{message}"
    );
    // As soon as the obstacle is gone, so is the group, and a repeated request gets that response.
    let again = stamp.arm("DELETE", &group("g"), None).await;
    let status = again.header("azure-asyncoperation").to_owned();
    stamp.things.left.store(0, Ordering::Relaxed);
    stamp.env.clock.sleep(Duration::from_secs(10)).await;
    assert!(!stamp.has_group("g").await);
    assert_eq!(stamp.get(&status).await.body["status"], "Succeeded");
    reaper.abort();
}

#[tokio::test(start_paused = true)]
async fn preconditions_hold_for_groups_too() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    for (method, name, header, value, status) in [
        ("PUT", "g", "if-none-match", "*", 412),
        ("PUT", "new", "if-match", "*", 412),
        ("PATCH", "g", "if-match", "\"other\"", 412),
        ("DELETE", "g", "if-match", "\"other\"", 412),
        ("PATCH", "g", "if-match", "*", 200),
        ("PUT", "new", "if-none-match", "*", 201),
    ] {
        let request = http::Request::builder()
            .method(method)
            .uri(group(name))
            .header("authorization", format!("Bearer {}", stamp.token))
            .header(header, value)
            .body(
                json!({ "location": "local", "tags": { "a": "b" } })
                    .to_string()
                    .into(),
            )
            .unwrap();
        let answer = stamp.send(request).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {name}: {}", answer.text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_patch_changes_tags_and_nothing_else() {
    let stamp = Stamp::new().await;
    let body = json!({ "location": "local", "tags": { "a": "b" } });
    stamp.arm("PUT", &group("g"), Some(body)).await;
    for (patch, tags) in [
        (json!({ "tags": null }), json!({ "a": "b" })),
        // A body that was read may be sent back.
        (
            json!({ "id": "x", "name": "g", "type": "t", "location": "Local", "properties": {}, "managedBy": "" }),
            json!({ "a": "b" }),
        ),
        (json!({ "tags": { "c": "", "gone": null } }), json!({ "c": "" })),
        (json!({ "tags": {} }), json!({})),
    ] {
        let answer = stamp.arm("PATCH", &group("g"), Some(patch)).await;
        assert_eq!(
            (answer.status, &answer.body["tags"]),
            (StatusCode::OK, &tags),
            "{}",
            answer.text
        );
        assert_eq!(stamp.get(&group("g")).await.body["tags"], tags);
    }
    let wrong =
        json!({ "tags": { "a": 1, "b<": "" }, "managedBy": "somebody", "colour": "red", "location": "mars" });
    let answer = stamp.arm("PATCH", &group("g"), Some(wrong)).await;
    let mut targets: Vec<&str> = answer.body["error"]["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|detail| detail["target"].as_str().unwrap())
        .collect();
    targets.sort_unstable();
    assert_eq!(targets, ["colour", "location", "managedBy", "tags.a", "tags.b<"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_moves_and_the_answer_says_why() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    stamp.group("other").await;
    let of = |action: &str| format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/g/{action}?{VERSION}");
    let thing = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/g/providers/Microsoft.Test/things/t");
    let target = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/other");
    let body = |ids: &[&str], target: &str| json!({ "resources": ids, "targetResourceGroup": target });
    for action in ["moveResources", "validateMoveResources"] {
        let answer = stamp
            .arm("POST", &of(action), Some(body(&[&thing], &target)))
            .await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::CONFLICT, "ResourceMoveNotSupported")
        );
        assert!(answer.text.contains("'Microsoft.Test/things'"), "{}", answer.text);
    }
    let missing = thing.replace("things/t", "things/none");
    let answer = stamp
        .arm(
            "POST",
            &of("moveResources"),
            Some(body(&[&thing, &missing], &target)),
        )
        .await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::NOT_FOUND, "ResourceNotFound")
    );
    let elsewhere = thing.replace("/g/", "/other/");
    for wrong in [
        json!({}),
        body(&[], &target),
        body(&[&elsewhere], &target),
        body(&["x"], &target),
        body(&[&thing], "x"),
    ] {
        let answer = stamp.arm("POST", &of("moveResources"), Some(wrong.clone())).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}: {}", answer.text);
    }
}
