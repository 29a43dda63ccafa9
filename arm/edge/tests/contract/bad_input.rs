//! Bad input as data: each row has its status, code and target, and none is a 500.

use axum::body::Body;
use http::StatusCode;
use serde_json::Value;

use crate::fixture::{DISABLED, SUBSCRIPTION, Stamp};

/// method, path, token, content type, body, status, code, target, words; `-` for an absent value
const TABLE: &str = include_str!("bad_input.tsv");

fn body(text: &str) -> Body {
    match text {
        "" => Body::empty(),
        "<5MB>" => Body::from(format!("{{\"a\":\"{}\"}}", "x".repeat(5 * 1024 * 1024))),
        "<deep>" => Body::from(format!("{}{}", "{\"a\":".repeat(1000), "1")),
        "<not utf-8>" => Body::from(b"{\"a\":\"\xff\"}".to_vec()),
        text => Body::from(text.to_owned()),
    }
}

#[tokio::test(start_paused = true)]
async fn every_bad_request_has_its_status_code_and_target() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    stamp.disabled().await;
    let old = stamp.token.clone();
    stamp.env.clock.sleep(std::time::Duration::from_secs(3600)).await;
    let good = stamp.login().await;
    let form = "grant_type=password&client_id=cli&username=ada@example.test&password=a+person's+password\
                &resource=https://graph.example.test";
    let graph = stamp.form("/adfs/oauth2/token", form).await;
    let for_graph = graph.body["access_token"].as_str().unwrap();
    let rows: Vec<&str> = TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    assert!(rows.len() >= 80, "{}", rows.len());
    for row in rows {
        let cells: Vec<&str> = row
            .split('\t')
            .map(|cell| if cell == "-" { "" } else { cell })
            .collect();
        let [method, path, token, kind, text, status, code, target, words] = cells[..] else {
            panic!("not a row: {row}")
        };
        let status: u16 = status.parse().unwrap();
        let mut request = http::Request::builder()
            .method(method)
            .uri(path.replace("{s}", SUBSCRIPTION).replace("{d}", DISABLED))
            .header("host", "arm.example.test");
        request = match token {
            "none" => request,
            "good" => request.header("authorization", format!("Bearer {good}")),
            "old" => request.header("authorization", format!("Bearer {old}")),
            "graph" => request.header("authorization", format!("Bearer {for_graph}")),
            literal => request.header("authorization", literal.strip_prefix('=').unwrap()),
        };
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        let answer = stamp.send(request.body(body(text)).unwrap()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, code),
            "{row}: {}",
            answer.text
        );
        assert_eq!(
            answer.body["error"]["target"].as_str().unwrap_or_default(),
            target,
            "{row}: {}",
            answer.text
        );
        let message = answer.body["error"]["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty() && message.contains(words), "{row}: {message}");
        match answer.status {
            StatusCode::UNAUTHORIZED => {
                assert!(answer.header("www-authenticate").starts_with("Bearer "), "{row}")
            }
            StatusCode::METHOD_NOT_ALLOWED => assert!(!answer.header("allow").is_empty(), "{row}"),
            _ => {}
        }
        assert!(!answer.header("x-ms-request-id").is_empty(), "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_say_what_to_do() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    let message = |answer: &Value| answer["error"]["message"].as_str().unwrap_or_default().to_owned();
    let version = stamp
        .get("/subscriptions/x/providers/Microsoft.Test/things?api-version=1")
        .await;
    assert!(
        message(&version.body).contains("'2026-01-01,2025-01-01'"),
        "{}",
        version.text
    );
    let request = http::Request::put(format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/g/providers/Microsoft.Test/things/t?api-version=2026-01-01"
    ))
    .header("authorization", format!("Bearer {}", stamp.token))
    .header("content-type", "application/json")
    .body(Body::from("{\n  \"a\": }"))
    .unwrap();
    let json = stamp.send(request).await;
    assert!(message(&json.body).contains("line 2 column 8"), "{}", json.text);
    let method = stamp.arm("PATCH", &crate::fixture::thing("things/t"), None).await;
    assert_eq!(method.header("allow"), "DELETE, GET, PUT");
}

#[tokio::test(start_paused = true)]
async fn faults_of_a_provider_stay_inside() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    for path in ["broken/b", "panics/p"] {
        let answer = stamp.get(&crate::fixture::thing(path)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (500, "InternalServerError")
        );
        assert!(
            !answer.text.contains("secret") && !answer.text.contains("purpose"),
            "{}",
            answer.text
        );
    }
    let slow = stamp.get(&crate::fixture::thing("slow/s")).await;
    assert_eq!((slow.status.as_u16(), slow.code()), (503, "ServiceUnavailable"));
    assert!(!slow.header("retry-after").is_empty());
    // And the edge still works.
    assert_eq!(
        stamp.get(&crate::fixture::thing("things/t")).await.status,
        StatusCode::OK
    );
}
