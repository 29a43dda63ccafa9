//! Any path and any body has an answer, and it is never a 500.

use axum::body::Body;
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};

use crate::fixture::{SUBSCRIPTION, Stamp};

fn path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        3 => Just("subscriptions".to_owned()),
        3 => Just(SUBSCRIPTION.to_owned()),
        3 => Just("resourceGroups".to_owned()),
        2 => Just("g".to_owned()),
        3 => Just("providers".to_owned()),
        2 => Just("Microsoft.Test".to_owned()),
        2 => Just("Microsoft.Resources".to_owned()),
        2 => Just("things".to_owned()),
        1 => Just("deployments".to_owned()),
        1 => Just("locations".to_owned()),
        1 => Just("operationresults".to_owned()),
        1 => Just("resources".to_owned()),
        1 => Just("register".to_owned()),
        1 => Just("adfs".to_owned()),
        1 => Just("oauth2".to_owned()),
        1 => Just("token".to_owned()),
        1 => Just(String::new()),
        2 => "[%a-zA-Z0-9._~!$&'()*+,;=:@-]{1,12}",
    ];
    let query = prop_oneof![
        4 => Just("api-version=2024-11-01".to_owned()),
        2 => Just("api-version=2026-01-01".to_owned()),
        1 => "[%a-zA-Z0-9._~!$&'()*+,;=:@/?-]{0,40}",
    ];
    let extra = "(&[$a-z]{1,8}=[%a-zA-Z0-9'+]{0,20}){0,3}";
    (proptest::collection::vec(segment, 0..9), query, extra)
        .prop_map(|(segments, query, extra)| format!("/{}?{query}{extra}", segments.join("/")))
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        Just(b"{\"location\":\"local\"}".to_vec()),
        "[\\[\\]{}\",:a-z0-9 \\\\]{0,60}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..60),
    ]
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_sent_ends_in_a_500() {
    let stamp = Stamp::new().await;
    stamp.group("g").await;
    let mut runner = TestRunner::new(Config::default());
    let strategy = (
        prop::sample::select(vec![
            "GET", "PUT", "PATCH", "POST", "DELETE", "HEAD", "OPTIONS", "PROPFIND",
        ]),
        path(),
        body(),
        prop::sample::select(vec![
            "application/json",
            "text/plain",
            "application/json; charset=x",
            "application/x-www-form-urlencoded",
            "",
        ]),
    );
    for _ in 0..3000 {
        let (method, path, body, kind) = strategy.new_tree(&mut runner).unwrap().current();
        let Ok(request) = http::Request::builder()
            .method(method)
            .uri(&path)
            .header("authorization", format!("Bearer {}", stamp.token))
            .header("content-type", kind)
            .body(Body::from(body.clone()))
        else {
            continue;
        };
        let answer = stamp.send(request).await;
        let status = answer.status.as_u16();
        assert!(
            status != 500 && status != 503,
            "{method} {path} {kind} {body:?}: {}",
            answer.text
        );
        if method != "HEAD" && answer.status.is_client_error() {
            let code = &answer.body["error"];
            assert!(
                code["code"].is_string() || code.is_string() || answer.text.starts_with("<!doctype"),
                "{method} {path}: {}",
                answer.text
            );
        }
    }
}
