//! Registries as resources.

use std::time::Duration;

use control_records::{RemovedRegistryRecord, key};
use control_store::list_records;
use serde_json::{Value, json};

use crate::stamp::{BYTES, SUBSCRIPTION, Stamp};

const VERSION: &str = "api-version=2026-09-01-preview";

fn in_group(group: &str, rest: &str) -> String {
    let group = arm_ids::group_id(SUBSCRIPTION, group);
    format!("{group}/providers/Microsoft.ContainerRegistry/registries{rest}?{VERSION}")
}

fn of(rest: &str) -> String {
    in_group("g", rest)
}

fn body(sku: &str) -> Option<Value> {
    Some(json!({
        "location": "local", "tags": { "a": "b" }, "sku": { "name": sku },
        "properties": { "adminUserEnabled": false },
    }))
}

async fn available(stamp: &Stamp, name: &str) -> Value {
    let path = format!(
        "{}/providers/Microsoft.ContainerRegistry/checkNameAvailability?{VERSION}",
        arm_ids::subscription_id(SUBSCRIPTION)
    );
    let asked = json!({ "name": name, "type": "Microsoft.ContainerRegistry/registries" });
    let answer = stamp.ask("POST", &path, Some(asked)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

#[tokio::test(start_paused = true)]
async fn a_registry_is_made_changed_and_deleted() {
    let stamp = Stamp::new(true).await;
    assert_eq!(available(&stamp, "acme1").await, json!({ "nameAvailable": true }));
    assert_eq!(available(&stamp, "ac-me").await["reason"], "Invalid");
    let made = stamp.ask("PUT", &of("/Acme1"), body("Basic")).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.body["name"], "acme1");
    assert_eq!(made.body["properties"]["loginServer"], "127.0.0.1:8443/acme1");
    assert_eq!(made.body["properties"]["provisioningState"], "Succeeded");
    // What was read may be sent back.
    let again = stamp.ask("PUT", &of("/acme1"), Some(made.body.clone())).await;
    assert_eq!((again.status, &again.body), (200, &made.body));
    assert_eq!(available(&stamp, "ACME1").await["reason"], "AlreadyExists");
    // The name is taken in the whole stamp.
    let other = stamp.ask("PUT", &in_group("h", "/acme1"), body("Basic")).await;
    assert_eq!((other.status, other.code()), (409, "Conflict"), "{other:?}");
    let changed = stamp
        .ask(
            "PATCH",
            &of("/acme1"),
            Some(json!({ "sku": { "name": "Premium" } })),
        )
        .await;
    assert_eq!(
        (
            changed.status,
            &changed.body["sku"]["name"],
            &changed.body["tags"]
        ),
        (200, &json!("Premium"), &json!({ "a": "b" })),
        "{changed:?}"
    );
    let usage = stamp.ask("GET", &of("/acme1/listUsages"), None).await;
    assert_eq!(usage.body["value"][0]["currentValue"], BYTES, "{usage:?}");
    for list in [
        of(""),
        format!(
            "{}/resources?api-version=2024-11-01",
            arm_ids::group_id(SUBSCRIPTION, "g")
        ),
    ] {
        assert_eq!(stamp.ask("GET", &list, None).await.names(), ["acme1"], "{list}");
    }
    assert_eq!(stamp.ask("DELETE", &of("/acme1"), None).await.status, 200);
    assert_eq!(stamp.ask("DELETE", &of("/acme1"), None).await.status, 204);
    // Its images are to go, and the name is free: another registry has none of them.
    let (removed, _) = list_records::<RemovedRegistryRecord>(&*stamp.store, key::REMOVED_REGISTRIES)
        .await
        .unwrap();
    assert_eq!(removed.len(), 1);
    assert_eq!(removed[0].1.value.name, "acme1");
    let anew = stamp.ask("PUT", &in_group("h", "/acme1"), body("Basic")).await;
    assert_eq!(anew.status, 201, "{anew:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_refused_by_name() {
    let stamp = Stamp::new(false).await;
    for (path, body, status, code) in [
        ("/acme", json!({}), 400, "InvalidResourceName"),
        ("/subscriptions", json!({}), 400, "InvalidResourceName"),
        (
            "/acme1",
            json!({ "location": "local" }),
            400,
            "MissingRequiredParameter",
        ),
        (
            "/acme1",
            json!({ "location": "mars", "sku": { "name": "Basic" } }),
            400,
            "LocationNotAvailableForResourceType",
        ),
        (
            "/acme1",
            json!({ "location": "local", "sku": { "name": "Basic" }, "properties": { "adminUserEnabled": true } }),
            400,
            "PropertyNotSupported",
        ),
    ] {
        let answer = stamp.ask("PUT", &of(path), Some(body)).await;
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{path}: {answer:?}"
        );
    }
    let patched = stamp.ask("PATCH", &of("/acme1"), Some(json!({}))).await;
    assert_eq!(patched.code(), "ResourceNotFound", "{patched:?}");
    let made = stamp.ask("PUT", &of("/acme1"), body("Basic")).await;
    assert_eq!(made.status, 201, "{made:?}");
    for later in ["listCredentials", "regenerateCredential", "importImage"] {
        let answer = stamp.ask("POST", &of(&format!("/acme1/{later}")), None).await;
        assert_eq!(answer.status, 501, "{answer:?}");
    }
    // Without images there is no usage.
    let usage = stamp.ask("GET", &of("/acme1/listUsages"), None).await;
    assert_eq!(usage.status, 501, "{usage:?}");
}

#[tokio::test(start_paused = true)]
async fn registries_go_with_their_group() {
    let stamp = Stamp::new(true).await;
    stamp.ask("PUT", &of("/acme1"), body("Basic")).await;
    let reaper = stamp.reaper();
    let group = format!("{}?api-version=2024-11-01", arm_ids::group_id(SUBSCRIPTION, "g"));
    assert_eq!(stamp.ask("DELETE", &group, None).await.status, 202);
    for _ in 0..100 {
        if available(&stamp, "acme1").await == json!({ "nameAvailable": true }) {
            break;
        }
        stamp.env.clock.sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(available(&stamp, "acme1").await, json!({ "nameAvailable": true }));
    reaper.abort();
}
