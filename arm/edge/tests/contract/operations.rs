//! Operation status and results.

use control_records::{OperationError, OperationRecord, OperationStatus, Output, Owner, directory};
use control_store::Txn;
use http::StatusCode;
use identity::find_principal;
use serde_json::json;

use crate::fixture::{APPLICATION, SUBSCRIPTION, Stamp, THINGS};

async fn put(stamp: &Stamp, id: &str, change: impl FnOnce(&mut OperationRecord)) {
    let now = stamp.env.clock.now();
    let thing = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/g/providers/Microsoft.Test/things/t");
    let owner = Owner::group(SUBSCRIPTION, "g");
    let mut record = OperationRecord::accepted(id, "Things_CreateOrUpdate", thing, owner, 1, now);
    change(&mut record);
    let txn = directory::new_operation(Txn::default(), &record);
    stamp.store.txn(txn).await.unwrap();
}

fn path(kind: &str, id: &str) -> String {
    format!("/subscriptions/{SUBSCRIPTION}/providers/microsoft.test/locations/LOCAL/{kind}/{id}?{THINGS}")
}

#[tokio::test(start_paused = true)]
async fn status_is_always_200_and_results_are_what_the_request_would_have_answered() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    let ended = Some(stamp.env.clock.now());
    let failed = OperationError {
        code: "QuotaExceeded".to_owned(),
        message: "too many".to_owned(),
    };
    put(&stamp, "running", |op| {
        op.progress.percent = 40;
        op.progress.step = "waiting for node n".to_owned();
    })
    .await;
    put(&stamp, "made", |op| {
        (op.status, op.ended_at) = (OperationStatus::Succeeded, ended)
    })
    .await;
    put(&stamp, "gone", |op| {
        (op.status, op.ended_at, op.deletes) = (OperationStatus::Succeeded, ended, true)
    })
    .await;
    put(&stamp, "poked", |op| {
        (op.status, op.ended_at, op.name) = (OperationStatus::Succeeded, ended, "Things_Poke".to_owned());
    })
    .await;
    let output = Output::try_from(json!({ "exitCode": 0, "logs": "done" })).unwrap();
    put(&stamp, "printed", |op| {
        (op.status, op.ended_at, op.result) = (OperationStatus::Succeeded, ended, Some(output));
    })
    .await;
    put(&stamp, "failed", |op| {
        (op.status, op.ended_at, op.error) = (OperationStatus::Failed, ended, Some(failed))
    })
    .await;
    put(&stamp, "canceled", |op| {
        (op.status, op.ended_at) = (OperationStatus::Canceled, ended)
    })
    .await;

    for (id, status, retry, result) in [
        ("running", "InProgress", "1", 202),
        ("made", "Succeeded", "", 200),
        ("gone", "Succeeded", "", 204),
        ("poked", "Succeeded", "", 204),
        ("printed", "Succeeded", "", 200),
        ("failed", "Failed", "", 400),
        ("canceled", "Canceled", "", 409),
    ] {
        let answer = stamp.get(&path("operations", id)).await;
        assert_eq!(
            (answer.status, &answer.body["status"]),
            (StatusCode::OK, &json!(status)),
            "{id}"
        );
        assert_eq!(
            (answer.header("retry-after"), &answer.body["name"]),
            (retry, &json!(id))
        );
        assert_eq!(answer.body["endTime"].is_string(), status != "InProgress", "{id}");
        let percent = match id {
            "running" => 40,
            "made" | "gone" | "poked" | "printed" => 100,
            _ => 0,
        };
        assert_eq!(answer.body["percentComplete"], percent, "{id}");
        if id == "running" {
            assert_eq!(answer.body["properties"]["step"], "waiting for node n");
            assert_eq!(answer.body["properties"]["operation"], "Things_CreateOrUpdate");
        }
        assert_eq!(
            answer.body["error"].is_object(),
            matches!(id, "failed" | "canceled"),
            "{id}"
        );
        let answer = stamp.get(&path("operationresults", id)).await;
        assert_eq!(answer.status.as_u16(), result, "{id}: {}", answer.text);
        match id {
            "running" => assert_eq!(answer.header("retry-after"), "1"),
            "made" => assert_eq!(answer.body["operation"], "Things_Get"),
            "printed" => assert_eq!(answer.body, json!({ "exitCode": 0, "logs": "done" })),
            "failed" => assert_eq!(answer.code(), "QuotaExceeded"),
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_seen_in_its_own_subscription_and_namespace_only() {
    let stamp = Stamp::new().await;
    put(&stamp, "other", |op| {
        op.resource_id = op.resource_id.replace(SUBSCRIPTION, "other")
    })
    .await;
    put(&stamp, "group", |op| {
        op.resource_id = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/g")
    })
    .await;
    for id in ["other", "group"] {
        assert_eq!(
            stamp.get(&path("operations", id)).await.code(),
            "OperationNotFound",
            "{id}"
        );
    }
    let own = format!(
        "/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Resources/locations/local/operations/group?api-version=2024-11-01"
    );
    assert_eq!(stamp.get(&own).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn what_an_operation_gives_is_said_by_its_row() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    for (id, name, status) in [
        // An action, although its name begins like that of another operation.
        ("linked", "Things_CreateLink", 204),
        ("made", "Things_CreateOrUpdate", 200),
        // Of a release that had another row.
        ("old", "Things_CreateOnce", 204),
    ] {
        put(&stamp, id, |op| {
            (op.status, op.name) = (OperationStatus::Succeeded, name.to_owned());
        })
        .await;
        let answer = stamp.get(&path("operationresults", id)).await;
        assert_eq!(answer.status.as_u16(), status, "{name}");
    }
    // The result is the resource: a caller that may not read the resource does not get it this way either.
    stamp
        .guard
        .forbidden
        .lock()
        .unwrap()
        .push("Microsoft.Test/things/read");
    assert_eq!(
        stamp.get(&path("operationresults", "made")).await.code(),
        "AuthorizationFailed"
    );
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_followed_by_who_asked_for_it_and_by_who_may_read_what_it_is_about() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    let caller = find_principal(&*stamp.store, APPLICATION).await.unwrap().unwrap();
    let output = Output::try_from(json!({ "logs": "for the asker" })).unwrap();
    for (id, by) in [("mine", caller.object_id.as_str()), ("theirs", "somebody else")] {
        put(&stamp, id, |op| {
            op.status = OperationStatus::Succeeded;
            op.asked_by = Some(by.to_owned());
            op.result = Some(output.clone());
        })
        .await;
    }
    let forbid = |action| stamp.guard.forbidden.lock().unwrap().push(action);
    let get = async |kind, id| {
        let answer = stamp.get(&path(kind, id)).await;
        (answer.status.as_u16(), answer.text)
    };
    // A caller that may read operations, or the resource, does not get the output; a caller that may start it
    // does.
    assert_eq!(get("operationresults", "theirs").await.0, 200);
    forbid("Microsoft.Test/things/write");
    assert_eq!(get("operations", "theirs").await.0, 200);
    assert_eq!(get("operationresults", "theirs").await.0, 403);
    for action in [
        "microsoft.test/locations/operations/read",
        "microsoft.test/locations/operationresults/read",
    ] {
        forbid(action);
    }
    assert_eq!(get("operations", "theirs").await.0, 200, "the thing may be read");
    forbid("Microsoft.Test/things/read");
    let (status, told) = get("operations", "theirs").await;
    let (nothing, told_of_nothing) = get("operations", "nothing").await;
    assert_eq!((status, nothing), (403, 403));
    assert_eq!(told.replace("theirs", "nothing"), told_of_nothing);
    for kind in ["operations", "operationresults"] {
        assert_eq!(get(kind, "mine").await.0, 200, "{kind}");
    }
}
