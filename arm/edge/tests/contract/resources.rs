//! Subscriptions, tenants, locations, providers, lists of resources.

use std::sync::atomic::Ordering;

use http::StatusCode;
use serde_json::{Value, json};

use crate::fixture::{SUBSCRIPTION, Stamp, TENANT, VERSION, thing};

fn at(rest: &str) -> String {
    format!("/subscriptions/{SUBSCRIPTION}{rest}?{VERSION}")
}

#[tokio::test(start_paused = true)]
async fn what_a_login_reads() {
    let stamp = Stamp::new().await;
    let all = stamp.get("/subscriptions?api-version=2022-12-01").await;
    let one = &all.body["value"][0];
    assert_eq!(one["id"], format!("/subscriptions/{SUBSCRIPTION}"));
    assert_eq!(
        (&one["state"], &one["displayName"], &one["tenantId"]),
        (&json!("Enabled"), &json!("Example"), &json!(TENANT))
    );
    assert_eq!(&stamp.get(&at("")).await.body, one);
    let tenants = stamp.get("/tenants?api-version=2022-12-01").await;
    assert_eq!(tenants.body["value"][0]["tenantId"], TENANT);
    let locations = stamp.get(&at("/locations")).await;
    assert_eq!(locations.body["value"][0]["name"], "local");
    assert_eq!(locations.body["value"][0]["displayName"], "Local Region");
}

#[tokio::test(start_paused = true)]
async fn providers_are_listed_from_their_tables_and_registered() {
    let stamp = Stamp::new().await;
    let list = stamp.get(&at("/providers")).await;
    let names: Vec<&str> = list.body["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["namespace"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Microsoft.Test", "Microsoft.Resources"]);
    let test = stamp.get(&at("/providers/microsoft.test")).await.body;
    assert_eq!(test["registrationState"], "Registered");
    let things = test["resourceTypes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|kind| kind["resourceType"] == "things")
        .unwrap();
    assert_eq!(things["apiVersions"], json!(["2026-01-01", "2025-01-01"]));
    let used = at("/providers/Microsoft.Test/unregister");
    let used = stamp.arm("POST", &used, None).await;
    assert_eq!((used.status, used.code()), (StatusCode::CONFLICT, "Conflict"));
    assert!(used.text.contains("/things/t'"), "{}", used.text);
    let free = at("/providers/Microsoft.Resources/unregister");
    assert_eq!(stamp.arm("POST", &free, None).await.code(), "OperationNotAllowed");
    stamp.things.none.store(true, Ordering::Relaxed);
    for (action, state) in [
        ("register", "Registered"),
        ("unregister", "Unregistered"),
        ("unregister", "Unregistered"),
        ("register", "Registered"),
        ("unregister", "Unregistered"),
    ] {
        let done = stamp
            .arm("POST", &at(&format!("/providers/Microsoft.Test/{action}")), None)
            .await;
        assert_eq!(
            (done.status, &done.body["registrationState"]),
            (StatusCode::OK, &json!(state))
        );
        assert_eq!(
            stamp.get(&at("/providers/Microsoft.Test")).await.body["registrationState"],
            state
        );
    }
    // Until it is registered again, no resource is made or changed; reads and deletions go on.
    stamp.group("g").await;
    for (method, path, refused) in [
        ("PUT", "things/x", true),
        ("POST", "things/x/poke", true),
        ("GET", "things/x", false),
        ("GET", "things", false),
        ("DELETE", "things/x", false),
    ] {
        let body = (method == "PUT").then(|| json!({}));
        let answer = stamp.arm(method, &thing(path), body).await;
        assert_eq!(
            answer.status == StatusCode::CONFLICT,
            refused,
            "{method} {path}: {}",
            answer.text
        );
        if refused {
            let error = &answer.body["error"];
            assert_eq!(error["code"], "MissingSubscriptionRegistration");
            // As the Azure CLI reads it out.
            let named = error["message"].as_str().unwrap().rsplit_once('\'').unwrap().0;
            assert_eq!(named.split_once('\'').unwrap().1, "Microsoft.Test");
            assert_eq!(error["details"][0]["target"], "Microsoft.Test");
        }
    }
    let tenant = stamp
        .get(&format!("/providers/Microsoft.Test?{VERSION}"))
        .await
        .body;
    assert_eq!(
        (&tenant["id"], &tenant["registrationState"]),
        (&json!("/providers/Microsoft.Test"), &Value::Null)
    );
    assert_eq!(
        stamp.get(&format!("/providers?{VERSION}")).await.body["value"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn resources_are_listed_and_filtered() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    let count = async |path: &str| stamp.get(path).await.body["value"].as_array().unwrap().len();
    assert_eq!(count(&at("/resources")).await, 2);
    assert_eq!(
        count(&format!(
            "{}&$expand=createdTime,changedTime&$filter=resourceGroup%20eq%20'G'",
            at("/resources")
        ))
        .await,
        1
    );
    assert_eq!(
        count(&format!(
            "{}&$filter=resourceType+eq+'microsoft.test/THINGS'",
            at("/resources")
        ))
        .await,
        2
    );
    assert_eq!(
        count(&format!("{}&$filter=resourceType+eq+'a/b'", at("/resources"))).await,
        0
    );
    assert_eq!(count(&format!("{}&$top=1", at("/resources"))).await, 1);
    assert_eq!(count(&at("/resourcegroups/g/resources")).await, 1);
}

#[tokio::test(start_paused = true)]
async fn parameters_that_an_operation_does_not_have_are_refused_by_name() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    for (path, target) in [
        (format!("{}&$orderby=name", at("/resources")), "$orderby"),
        (format!("{}&$expand=tags", at("/resources")), "$expand"),
        (
            format!("{}&$expand=createdTime,tags", at("/resources")),
            "$expand",
        ),
        (
            format!("{}&$expand=createdTime", at("/resourcegroups")),
            "$expand",
        ),
        (format!("{}&$filter=name+eq+'a'", at("/locations")), "$filter"),
        (format!("{}&$top=1", at("/resourcegroups/g")), "$top"),
        (crate::fixture::thing("things/t?$select=name"), "$select"),
    ] {
        let answer = stamp.get(&path).await;
        assert_eq!(
            (answer.status, answer.code(), &answer.body["error"]["target"]),
            (StatusCode::BAD_REQUEST, "BadRequest", &json!(target)),
            "{path}: {}",
            answer.text
        );
    }
    // An empty parameter has no effect; an operation that is not implemented says so before its parameters
    // are checked.
    let empty = format!("{}&$expand=&$filter=", at("/resourcegroups"));
    assert_eq!(stamp.get(&empty).await.status, StatusCode::OK);
    let planned = stamp
        .arm("POST", &crate::fixture::thing("things/t/stop?$expand=x"), None)
        .await;
    assert_eq!(planned.status, StatusCode::NOT_IMPLEMENTED);
}

#[tokio::test(start_paused = true)]
async fn what_is_expanded_is_shown() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    let shown = async |expand: &str| {
        let path = format!("{}{expand}", at("/resources"));
        let resource = stamp.get(&path).await.body["value"][0].clone();
        ["createdTime", "changedTime", "provisioningState"].map(|name| resource[name].is_string())
    };
    assert_eq!(shown("").await, [false, false, false]);
    assert_eq!(shown("&$expand=CREATEDTIME").await, [true, false, false]);
    assert_eq!(
        shown("&$expand=createdTime,%20changedTime,provisioningState").await,
        [true, true, true]
    );
    let aliases = format!(
        "{}&$expand=resourceTypes/aliases",
        at("/providers/Microsoft.Test")
    );
    let expanded = stamp.get(&aliases).await.body;
    assert_eq!(expanded["resourceTypes"][0]["aliases"], json!([]));
    let plain = stamp.get(&at("/providers/Microsoft.Test")).await.body;
    assert!(plain["resourceTypes"][0]["aliases"].is_null());
}
