//! The token service through the edge.

use std::time::Duration;

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use control_records::key;
use control_store::{Txn, put_record};
use http::StatusCode;
use identity::find_principal;
use serde_json::{Value, json};

use crate::fixture::{APPLICATION, AUDIENCE, Answer, SECRET, Stamp, TENANT, USER, VERSION};

const PASSWORD: &str = "username=ada@example.test&password=a+person's+password&client_id=cli";

fn claims(token: &Value) -> Value {
    let middle = token.as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(middle).unwrap()).unwrap()
}

async fn get(stamp: &Stamp, path: &str) -> Answer {
    stamp
        .send(
            http::Request::get(path)
                .header("host", "h:1")
                .body(Body::empty())
                .unwrap(),
        )
        .await
}

async fn subscriptions(stamp: &Stamp, token: &Value) -> Answer {
    let request = http::Request::get(format!("/subscriptions?{VERSION}"))
        .header("authorization", format!("Bearer {}", token.as_str().unwrap()))
        .body(Body::empty())
        .unwrap();
    stamp.send(request).await
}

#[tokio::test(start_paused = true)]
async fn discovery_leads_to_everything_in_both_shapes() {
    let stamp = Stamp::new().await;
    for (path, token, tenant) in [
        (
            "/adfs/.well-known/openid-configuration",
            "/adfs/oauth2/token",
            "adfs",
        ),
        (
            "/adfs/adfs/v2.0/.well-known/openid-configuration",
            "/adfs/oauth2/token",
            "adfs",
        ),
        // The scope that the Azure CLI requests for the tenant `adfs` of a stamp with the shape of AAD.
        (
            "/adfs/v2.0/.well-known/openid-configuration",
            "/adfs/oauth2/token",
            "adfs",
        ),
        (
            &format!("/{TENANT}/v2.0/.well-known/openid-configuration"),
            &format!("/{TENANT}/oauth2/v2.0/token"),
            TENANT,
        ),
        (
            &format!("/{TENANT}/.well-known/openid-configuration"),
            &format!("/{TENANT}/oauth2/token"),
            TENANT,
        ),
        (
            "/organizations/v2.0/.well-known/openid-configuration",
            "/organizations/oauth2/v2.0/token",
            TENANT,
        ),
        (
            "/common/v2.0/.well-known/openid-configuration",
            "/common/oauth2/v2.0/token",
            TENANT,
        ),
    ] {
        let document = get(&stamp, path).await;
        assert_eq!(
            (document.status, &document.body["token_endpoint"]),
            (StatusCode::OK, &json!(format!("https://h:1{token}"))),
            "{path}"
        );
        // The Azure CLI takes the tenant from this.
        assert_eq!(
            document.body["issuer"].as_str().unwrap().split('/').nth(3),
            Some(tenant)
        );
        for key in [
            "authorization_endpoint",
            "device_authorization_endpoint",
            "jwks_uri",
        ] {
            assert!(
                document.body[key].as_str().unwrap().starts_with("https://h:1/"),
                "{key}"
            );
        }
        let keys = get(
            &stamp,
            &document.body["jwks_uri"].as_str().unwrap()["https://h:1".len()..],
        )
        .await;
        assert_eq!(keys.body["keys"][0]["kty"], "RSA");
    }
    let realm = get(&stamp, "/common/userrealm/ada@example.test?api-version=1.0").await;
    assert_eq!(realm.body["account_type"], "Managed");
    let instance = get(&stamp, "/common/discovery/instance?api-version=1.1").await;
    assert_eq!(
        instance.body["tenant_discovery_endpoint"],
        format!("https://h:1/{TENANT}/v2.0/.well-known/openid-configuration")
    );
    assert_eq!(instance.body["metadata"][0]["aliases"], json!(["h:1"]));
    assert_eq!(get(&stamp, "/adfs/nothing").await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        get(&stamp, "/adfs/oauth2/token").await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert_eq!(
        get(&stamp, "/adfs/oauth2/authorize").await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test(start_paused = true)]
async fn bad_token_requests_are_answered_as_oauth_says() {
    let stamp = Stamp::new().await;
    let client = format!("client_id={APPLICATION}");
    let secret = SECRET.replace(' ', "+");
    for (form, status, error, code) in [
        (String::new(), 400, "invalid_request", 900_144),
        ("%zz".to_owned(), 400, "invalid_request", 0),
        (
            "grant_type=magic".to_owned(),
            400,
            "unsupported_grant_type",
            70_003,
        ),
        (
            "grant_type=client_credentials".to_owned(),
            400,
            "invalid_request",
            900_144,
        ),
        (
            format!("grant_type=client_credentials&{client}"),
            400,
            "invalid_request",
            900_144,
        ),
        (
            format!("grant_type=client_credentials&{client}&client_secret=zebra"),
            401,
            "invalid_client",
            7_000_215,
        ),
        (
            format!("grant_type=client_credentials&client_id=none&client_secret={secret}"),
            401,
            "invalid_client",
            7_000_215,
        ),
        (
            format!("grant_type=client_credentials&client_id={USER}&client_secret=a+person's+password"),
            401,
            "invalid_client",
            7_000_215,
        ),
        (
            format!("grant_type=client_credentials&{client}&client_assertion=x"),
            400,
            "invalid_request",
            900_144,
        ),
        (
            format!("grant_type=client_credentials&{client}&client_secret={secret}&scope=https://x/.default"),
            400,
            "invalid_resource",
            500_011,
        ),
        (
            "grant_type=password&client_id=cli&username=ada@example.test&password=zebra".to_owned(),
            400,
            "invalid_grant",
            50_126,
        ),
        (
            format!("grant_type=password&client_id=cli&username={APPLICATION}&password={secret}"),
            400,
            "invalid_grant",
            50_126,
        ),
        (
            format!("grant_type=password&client_id={AUDIENCE}&username=a&password=b"),
            400,
            "invalid_request",
            700_016,
        ),
        (
            "grant_type=refresh_token&client_id=cli&refresh_token=x".to_owned(),
            400,
            "invalid_grant",
            700_082,
        ),
        (
            "grant_type=device_code&client_id=cli&device_code=x".to_owned(),
            400,
            "expired_token",
            70_020,
        ),
    ] {
        let answer = stamp.form("/adfs/oauth2/token", &form).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body["error"].as_str().unwrap()),
            (status, error),
            "{form}: {}",
            answer.text
        );
        assert!(
            answer.body["error_description"]
                .as_str()
                .unwrap()
                .starts_with("AADSTS"),
            "{form}"
        );
        if code != 0 {
            assert_eq!(answer.body["error_codes"], json!([code]), "{form}");
        }
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(
            !answer.text.contains("zebra") && !answer.text.contains(SECRET),
            "{}",
            answer.text
        );
    }
    let long = stamp.form("/adfs/oauth2/token", &"a".repeat(100_000)).await;
    assert_eq!(long.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(start_paused = true)]
async fn applications_log_in_with_header_or_form() {
    let stamp = Stamp::new().await;
    let basic = base64::engine::general_purpose::STANDARD
        .encode(format!("{APPLICATION}:{}", SECRET.replace(' ', "+")));
    let request = http::Request::post(format!("/{TENANT}/oauth2/v2.0/token"))
        .header("authorization", format!("Basic {basic}"))
        .body(Body::from(
            "grant_type=client_credentials&scope=https://arm.example.test//.default",
        ))
        .unwrap();
    let answer = stamp.send(request).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let token = &answer.body["access_token"];
    let claims = claims(token);
    assert_eq!(
        (&claims["appid"], &claims["tid"], &claims["idtyp"]),
        (&json!(APPLICATION), &json!(TENANT), &json!("app"))
    );
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        3600
    );
    assert_eq!(subscriptions(&stamp, token).await.status, StatusCode::OK);
    // A deleted principal is refused, although its token is still valid.
    let record = find_principal(&*stamp.store, APPLICATION).await.unwrap().unwrap();
    stamp
        .store
        .txn(Txn::default().delete(key::principal(&record.object_id)))
        .await
        .unwrap();
    let refused = subscriptions(&stamp, token).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (401, "InvalidAuthenticationToken")
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_is_refused_is_told_where_to_get_a_token_and_to_come_again_if_that_helps() {
    let stamp = Stamp::new().await;
    let cp1 = "%7B%22access_token%22%3A%7B%22xms_cc%22%3A%7B%22values%22%3A%5B%22CP1%22%5D%7D%7D%7D";
    let form = format!("grant_type=password&{PASSWORD}&scope={AUDIENCE}/.default&claims={cp1}");
    let token = stamp.form("/adfs/oauth2/token", &form).await.body["access_token"].clone();
    assert_eq!(subscriptions(&stamp, &token).await.status, StatusCode::OK);
    let authority = format!("Bearer authorization_uri=\"https://arm.example.test/{TENANT}\"");
    let nobody = get(&stamp, &format!("/subscriptions?{VERSION}")).await;
    assert_eq!(
        nobody.header("www-authenticate"),
        format!("Bearer authorization_uri=\"https://h:1/{TENANT}\"")
    );

    let mut record = find_principal(&*stamp.store, USER).await.unwrap().unwrap();
    record.valid_from = Some(stamp.env.clock.now() + jiff::SignedDuration::from_secs(1));
    let write = async |record: &control_records::PrincipalRecord| {
        let own = key::principal(&record.object_id);
        stamp
            .store
            .txn(Txn::default().with(put_record(own, record)))
            .await
            .unwrap();
    };
    write(&record).await;
    let revoked = subscriptions(&stamp, &token).await;
    assert_eq!(
        (revoked.status.as_u16(), revoked.code()),
        (401, "InvalidAuthenticationToken")
    );
    let told = revoked.header("www-authenticate");
    assert!(
        told.starts_with(&format!("{authority}, error=\"insufficient_claims\""))
            && told.contains("claims=\""),
        "{told}"
    );
    record.valid_from = None;
    record.disabled = true;
    write(&record).await;
    let disabled = subscriptions(&stamp, &token).await;
    let told = disabled.header("www-authenticate");
    assert!(
        told.starts_with(&format!("{authority}, error=\"invalid_token\"")),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn people_get_id_tokens_and_refresh() {
    let stamp = Stamp::new().await;
    let form = format!(
        "grant_type=password&{PASSWORD}&client_info=1&scope={AUDIENCE}/.default+openid+offline_access"
    );
    let first = stamp.form("/adfs/oauth2/token", &form).await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.text);
    let id = claims(&first.body["id_token"]);
    assert_eq!(
        (&id["tid"], &id["upn"], &id["preferred_username"], &id["aud"]),
        (&json!(TENANT), &json!(USER), &json!(USER), &json!("cli"))
    );
    assert!(first.body["client_info"].is_string());
    stamp.env.clock.sleep(Duration::from_secs(7200)).await;
    assert_eq!(
        subscriptions(&stamp, &first.body["access_token"]).await.code(),
        "ExpiredAuthenticationToken"
    );
    let refresh = first.body["refresh_token"].as_str().unwrap();
    let form = format!("grant_type=refresh_token&client_id=cli&refresh_token={refresh}");
    let second = stamp.form("/adfs/oauth2/token", &form).await;
    assert_eq!(
        subscriptions(&stamp, &second.body["access_token"]).await.status,
        StatusCode::OK
    );
    for misused in ["id_token", "refresh_token"] {
        assert_eq!(
            subscriptions(&stamp, &second.body[misused]).await.code(),
            "InvalidAuthenticationToken"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_code_waits_for_a_person() {
    let stamp = Stamp::new().await;
    let started = stamp
        .form(
            "/adfs/oauth2/devicecode",
            &format!("client_id=cli&scope={AUDIENCE}/.default+openid"),
        )
        .await;
    let (device, user) = (
        started.body["device_code"].as_str().unwrap(),
        started.body["user_code"].as_str().unwrap(),
    );
    assert_eq!(
        started.body["verification_uri"],
        "https://arm.example.test/adfs/oauth2/deviceauth"
    );
    let poll =
        format!("grant_type=urn:ietf:params:oauth:grant-type:device_code&client_id=cli&device_code={device}");
    let waiting = stamp.form("/adfs/oauth2/token", &poll).await;
    assert_eq!(
        (waiting.status.as_u16(), &waiting.body["error"]),
        (400, &json!("authorization_pending"))
    );

    let page = "/adfs/oauth2/deviceauth";
    let shown = get(&stamp, page).await;
    assert!(
        shown
            .header("content-security-policy")
            .contains("default-src 'none'")
    );
    let asks = stamp
        .form(page, &format!("user_code={}", user.to_lowercase()))
        .await;
    assert_eq!(asks.status, StatusCode::OK, "{}", asks.text);
    let cookie = asks.header("set-cookie").split(';').next().unwrap().to_owned();
    let sealed = asks.text.split("name=\"request\" value=\"").nth(1).unwrap();
    let sealed = sealed.split('"').next().unwrap().to_owned();
    let answer = async |user: &str, password: &str, cookie: &str| {
        let form = format!("request={sealed}&username={user}&password={password}");
        let request = http::Request::post(page)
            .header("cookie", cookie)
            .body(Body::from(form))
            .unwrap();
        stamp.send(request).await
    };
    let secret = SECRET.replace(' ', "+");
    for (name, password, cookie, status) in [
        (USER, "a+person's+password", "", 400),
        (USER, "wrong", &*cookie, 401),
        (APPLICATION, &secret, &cookie, 401),
        (USER, "a+person's+password", &cookie, 200),
        (USER, "a+person's+password", &cookie, 400),
    ] {
        let answer = answer(name, password, cookie).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        assert!(!answer.text.contains("a person"), "{}", answer.text);
    }
    let done = stamp.form("/adfs/oauth2/token", &poll).await;
    assert_eq!(
        subscriptions(&stamp, &done.body["access_token"]).await.status,
        StatusCode::OK
    );
    assert_eq!(
        stamp.form("/adfs/oauth2/token", &poll).await.body["error"],
        "expired_token"
    );
}

#[tokio::test(start_paused = true)]
async fn guessing_is_slowed_down_and_the_right_secret_waits_too() {
    let stamp = Stamp::new().await;
    let wrong = format!("grant_type=client_credentials&client_id={APPLICATION}&client_secret=wrong");
    for _ in 0..5 {
        assert_eq!(
            stamp.form("/adfs/oauth2/token", &wrong).await.status,
            StatusCode::UNAUTHORIZED
        );
    }
    let right = format!(
        "grant_type=client_credentials&client_id={APPLICATION}&client_secret={}",
        SECRET.replace(' ', "+")
    );
    let slowed = stamp.form("/adfs/oauth2/token", &right).await;
    assert_eq!(
        (slowed.status, &slowed.body["error_codes"]),
        (StatusCode::TOO_MANY_REQUESTS, &json!([50_053]))
    );
    assert!(!slowed.header("retry-after").is_empty());
    stamp.env.clock.sleep(Duration::from_secs(2)).await;
    assert_eq!(
        stamp.form("/adfs/oauth2/token", &right).await.status,
        StatusCode::OK
    );
}

#[tokio::test(start_paused = true)]
async fn keys_change_on_command_and_what_is_revoked_is_refused() {
    const KEYS: &str = "/providers/Landfall.Identity/signingKeys";
    const OWN: &str = "api-version=2026-11-01";
    let mut stamp = Stamp::with_kept_keys().await;
    let act = async |stamp: &Stamp, name: &str, verb: &str| {
        stamp
            .arm("POST", &format!("{KEYS}/{name}/{verb}?{OWN}"), None)
            .await
    };
    let states = async |stamp: &Stamp| {
        let listed = stamp.get(&format!("{KEYS}?{OWN}")).await;
        assert_eq!(listed.status, StatusCode::OK, "{}", listed.text);
        let keys = listed.body["value"].as_array().unwrap().clone();
        keys.into_iter()
            .map(|key| key["properties"]["state"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(states(&stamp).await, ["signs"]);
    let rotated = act(&stamp, "default", "rotate").await;
    assert_eq!(rotated.status, StatusCode::OK, "{}", rotated.text);
    assert!(
        rotated.body["nextSignsFrom"].is_string(),
        "not known to everybody yet"
    );
    assert_eq!(states(&stamp).await, ["signs", "next"]);
    stamp.env.clock.sleep(Duration::from_secs(86_400)).await;
    stamp.token = stamp.login().await;
    assert_eq!(states(&stamp).await, ["ending", "signs"]);
    assert_eq!(act(&stamp, "other", "rotate").await.code(), "ResourceNotFound");
    let before = stamp.token.clone();
    assert_eq!(act(&stamp, "default", "revoke").await.status, StatusCode::OK);
    assert_eq!(
        subscriptions(&stamp, &json!(before)).await.code(),
        "InvalidAuthenticationToken"
    );
    stamp.token = stamp.login().await;
    assert_eq!(states(&stamp).await, ["signs", "next"]);
    *stamp.guard.forbidden.lock().unwrap() = vec!["Landfall.Identity/signingKeys/revoke/action"];
    assert_eq!(
        act(&stamp, "default", "revoke").await.code(),
        "AuthorizationFailed"
    );
}

#[tokio::test(start_paused = true)]
async fn the_key_that_seals_changes_on_command_and_is_not_shown() {
    const KEYS: &str = "/providers/Landfall.Identity/sealingKeys";
    const OWN: &str = "api-version=2026-11-01";
    let stamp = Stamp::new().await;
    let act = async |name: &str, verb: &str| {
        stamp
            .arm("POST", &format!("{KEYS}/{name}/{verb}?{OWN}"), None)
            .await
    };
    let keys = async || {
        let listed = stamp.get(&format!("{KEYS}?{OWN}")).await;
        assert_eq!(listed.status, StatusCode::OK, "{}", listed.text);
        // The key itself, in hexadecimal.
        assert!(!listed.text.contains(&"07".repeat(32)), "{}", listed.text);
        let keys = listed.body["value"].as_array().unwrap().clone();
        keys.into_iter()
            .map(|key| {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                (text(&key["name"]), text(&key["properties"]["state"]))
            })
            .collect::<Vec<_>>()
    };
    let first = keys().await;
    assert_eq!((first.len(), first[0].1.as_str()), (1, "seals"));
    for _ in 0..2 {
        // The second goes on with the first.
        let rotated = act("default", "rotate").await;
        assert_eq!(rotated.status, StatusCode::OK, "{}", rotated.text);
        let both = keys().await;
        let states: Vec<&str> = both.iter().map(|(_, state)| state.as_str()).collect();
        assert_eq!(
            (&both[0].0, &states[..]),
            (&first[0].0, &["retiring", "seals"][..])
        );
    }
    let both = keys().await;
    assert_eq!(act("other", "rotate").await.code(), "ResourceNotFound");
    assert_eq!(act("other", "drop").await.code(), "ResourceNotFound");
    // It has sealed until a moment ago; the other one does.
    assert_eq!(act(&both[0].0, "drop").await.code(), "Conflict");
    assert_eq!(act(&both[1].0, "drop").await.code(), "Conflict");
    stamp.env.clock.sleep(Duration::from_secs(120)).await;
    assert_eq!(act(&both[0].0, "drop").await.status, StatusCode::OK);
    assert_eq!(keys().await.len(), 1);
    *stamp.guard.forbidden.lock().unwrap() = vec!["Landfall.Identity/sealingKeys/rotate/action"];
    assert_eq!(act("default", "rotate").await.code(), "AuthorizationFailed");
}
