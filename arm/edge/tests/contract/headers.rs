//! Headers, the endpoints document, health, and the request as a provider sees it.

use arm_edge::{Called, Client};
use axum::body::Body;
use http::StatusCode;
use identity::Shape;
use serde_json::json;

use crate::fixture::{APPLICATION, AUDIENCE, SUBSCRIPTION, Stamp, THINGS, VERSION, thing};

#[tokio::test(start_paused = true)]
async fn request_ids_are_made_kept_and_echoed() {
    let stamp = Stamp::new().await;
    let send = |headers: Vec<(&'static str, &'static str)>| {
        let mut request = http::Request::get(format!("/subscriptions?{VERSION}"))
            .header("authorization", format!("Bearer {}", stamp.token));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        stamp.send(request.body(Body::empty()).unwrap())
    };
    let plain = send(vec![("x-ms-client-request-id", "c-1")]).await;
    assert_eq!(
        plain.header("x-ms-request-id"),
        plain.header("x-ms-correlation-request-id")
    );
    assert_eq!(plain.header("x-ms-client-request-id"), "");
    let echoed = send(vec![
        ("x-ms-client-request-id", "c-1"),
        ("x-ms-return-client-request-id", "True"),
        ("x-ms-correlation-request-id", "corr-1"),
    ])
    .await;
    assert_eq!(echoed.header("x-ms-client-request-id"), "c-1");
    assert_eq!(echoed.header("x-ms-correlation-request-id"), "corr-1");
    assert_ne!(echoed.header("x-ms-request-id"), plain.header("x-ms-request-id"));
    let strange = send(vec![
        ("x-ms-client-request-id", "<b>"),
        ("x-ms-return-client-request-id", "true"),
    ])
    .await;
    assert_eq!(strange.header("x-ms-client-request-id"), "");
    assert_eq!(strange.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn one_endpoints_document_serves_old_and_new_clients() {
    let stamp = Stamp::new().await;
    for path in [
        "/metadata/endpoints?api-version=2022-09-01",
        "/metadata/endpoints?api-version=2015-01-01",
        "//metadata/endpoints",
    ] {
        let request = http::Request::get(path)
            .header("host", "127.0.0.1:8443")
            .body(Body::empty())
            .unwrap();
        let answer = stamp.send(request).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let document = answer.body;
        // Terraform's azurerm requires these.
        assert_eq!(
            document["authentication"],
            json!({ "loginEndpoint": "https://127.0.0.1:8443", "audiences": [AUDIENCE], "tenant": "common",
                    "identityProvider": "AAD" })
        );
        for key in [
            "name",
            "suffixes",
            "graphEndpoint",
            "galleryEndpoint",
            "portalEndpoint",
            "resourceManager",
            "portal",
        ] {
            assert!(!document[key].is_null(), "{key}");
        }
    }
    let stack = Stamp::with_shape(Shape::AdFs).await;
    let request = http::Request::get("/metadata/endpoints").header("host", "h:1");
    let document = stack.send(request.body(Body::empty()).unwrap()).await.body;
    assert_eq!(
        document["authentication"],
        json!({ "loginEndpoint": "https://h:1/adfs", "audiences": [AUDIENCE], "tenant": "adfs",
                "identityProvider": "ADFS" })
    );
    let evil = http::Request::get("/metadata/endpoints")
        .header("host", "a@b")
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        stamp.send(evil).await.body["resourceManager"],
        "https://arm.example.test"
    );
}

#[tokio::test(start_paused = true)]
async fn health_needs_no_token() {
    let stamp = Stamp::new().await;
    for path in ["/healthz", "/readyz"] {
        let get = stamp
            .send(http::Request::get(path).body(Body::empty()).unwrap())
            .await;
        assert_eq!((get.status, get.body.is_object()), (StatusCode::OK, true));
        let head = stamp
            .send(http::Request::head(path).body(Body::empty()).unwrap())
            .await;
        assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_sees_the_request_decoded() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    let request = http::Request::put(format!(
        "/SUBSCRIPTIONS/{}/ResourceGroups/G/Providers/microsoft.test//THINGS/My%20Thing?Api-Version=2026-01-01&%66lag=a%20b",
        SUBSCRIPTION.to_uppercase()
    ))
    .header("host", "localhost:1")
    .header("authorization", format!("bearer {}", stamp.token))
    .header("content-type", "Application/JSON; charset=utf-8")
    .header("if-match", "\"tag\"")
    .header("if-none-match", "*")
    .body(Body::from("\u{feff}{\"a\":1}"))
    .unwrap();
    let seen = stamp.send(request).await.body;
    assert_eq!(seen["operation"], "Things_CreateOrUpdate");
    assert_eq!(seen["names"], json!(["My Thing"]));
    assert_eq!(seen["query"], json!([["flag", "a b"]]));
    assert_eq!(seen["body"], json!({ "a": 1 }));
    assert_eq!(
        (&seen["ifMatch"], &seen["ifNoneMatch"]),
        (&json!("tag"), &json!("*"))
    );
    assert_eq!(seen["principal"], APPLICATION);
    assert_eq!(seen["base"], "https://localhost:1");
}

#[tokio::test(start_paused = true)]
async fn shapes_lead_to_their_routes() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    for (method, path, name) in [
        ("GET", thing("things"), "Things_ListByResourceGroup"),
        ("GET", thing("things/t"), "Things_Get"),
        ("POST", thing("things/t/poke"), "Things_Poke"),
        ("POST", thing("THINGS/t/POKE"), "Things_Poke"),
        ("GET", thing("things/t/parts/p"), "Parts_Get"),
        (
            "GET",
            format!("/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Test/things?{THINGS}"),
            "Things_List",
        ),
        (
            "GET",
            format!("/providers/Microsoft.Test/operations?{THINGS}"),
            "Operations_List",
        ),
    ] {
        let answer = stamp.arm(method, &path, None).await;
        assert_eq!(answer.body["operation"], name, "{method} {path}: {}", answer.text);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_are_counted_by_operation_and_client() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    let ask = |method: &'static str, path: &str, client: &'static str| {
        let request = http::Request::builder()
            .method(method)
            .uri(thing(path))
            .header("authorization", format!("Bearer {}", stamp.token))
            .header("user-agent", client);
        stamp.send(request.body(Body::empty()).unwrap())
    };
    for (method, path, client, status) in [
        (
            "GET",
            "things/t",
            "AZURECLI/2.91.0 (PIP) azsdk-python-core/1.35.0",
            200,
        ),
        ("GET", "things/t", "azsdk-js-arm-things/1.0.0", 200),
        ("GET", "things/t", "azsdk-js-arm-things/1.0.0", 200),
        // Not implemented: its row says so, and no call of it is counted as done.
        ("POST", "things/t/stop", "curl/8.14.1", 501),
        // No operation at all.
        ("GET", "nothings/t", "curl/8.14.1", 404),
    ] {
        let answer = ask(method, path, client).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text);
    }
    stamp
        .guard
        .forbidden
        .lock()
        .unwrap()
        .push("Microsoft.Test/things/read");
    assert_eq!(
        ask("GET", "things/t", "curl/8.14.1").await.status,
        StatusCode::FORBIDDEN
    );
    let calls = stamp.edge.calls();
    let of = |operation: &str| {
        let mut all = calls.iter().filter(|calls| calls.namespace == "Microsoft.Test");
        all.find(|calls| calls.operation == operation).unwrap()
    };
    let called = |client, done| Called {
        client,
        done,
        missing: 0,
    };
    assert_eq!(
        of("Things_Get").called,
        [called(Client::Az, 1), called(Client::JavaScript, 2)]
    );
    assert!(of("Things_Get").works && !of("Things_Stop").works);
    assert!(of("Things_Stop").called.is_empty());
}
