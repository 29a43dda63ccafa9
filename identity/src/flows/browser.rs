//! People in front of a browser: the authorization code with PKCE, and device codes.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Method, header};
use serde_json::json;

use super::{ADA, APPLICATION, ARM, OTHER, PASSWORD, Stand, TENANT, Told, claims};

/// A client's address, its challenge and the secret behind it.
const REDIRECT: &str = "http%3A%2F%2Flocalhost%3A4000";
const VERIFIER: &str = "a-verifier-of-forty-three-characters-or-more";

fn authorize(more: &str) -> String {
    let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, VERIFIER.as_bytes()));
    format!(
        "/{TENANT}/oauth2/v2.0/authorize?client_id=cli&response_type=code&redirect_uri={REDIRECT}&state=s%20t\
         &scope={ARM}/.default+openid+offline_access&nonce=n&code_challenge={challenge}&code_challenge_method=S256{more}"
    )
}

fn redeem(code: &str) -> String {
    format!(
        "grant_type=authorization_code&client_id=cli&code={code}&redirect_uri={REDIRECT}&code_verifier={VERIFIER}"
    )
}

impl Stand {
    /// Signs Ada in in a browser; gives the parameters of the redirect.
    async fn browse(&self, more: &str) -> Told {
        let page = self.send(Method::GET, &authorize(more), "", None, 1).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let form = format!("request={}&username={ADA}&password={PASSWORD}", page.sealed());
        let path = format!("/{TENANT}/oauth2/v2.0/authorize");
        self.send(Method::POST, &path, &form, Some(&page.cookie()), 1)
            .await
    }

    async fn code(&self) -> String {
        let sent = self.browse("").await;
        assert_eq!(sent.status, 303, "{}", sent.text);
        let location = sent.headers[header::LOCATION].to_str().unwrap();
        assert!(location.starts_with("http://localhost:4000?code="), "{location}");
        assert!(location.ends_with("&state=s%20t"), "{location}");
        let code = location.split("code=").nth(1).unwrap().split('&').next().unwrap();
        arm_ids::decode(code).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_person_signs_in_in_a_browser() {
    let stand = Stand::new().await;
    let code = stand.code().await;
    let told = stand.token(&redeem(&code)).await;
    assert_eq!(told.status, 200, "{}", told.text);
    stand.holds(&told.field("access_token")).await.unwrap();
    let id = claims(&told.field("id_token"));
    assert_eq!(
        (&id["nonce"], &id["aud"], &id["upn"]),
        (&json!("n"), &json!("cli"), &json!(ADA))
    );
    // A code is valid once. A second use shows that it was stolen, and ends its sign-in.
    assert_eq!(stand.token(&redeem(&code)).await.refusal(), (400, 70_008));
    let refresh = format!(
        "grant_type=refresh_token&client_id=cli&refresh_token={}",
        told.field("refresh_token")
    );
    assert_eq!(stand.token(&refresh).await.refusal(), (400, 700_082));

    let posted = stand.browse("&response_mode=form_post").await;
    assert_eq!(posted.status, 200);
    assert!(
        posted.text.contains("action=\"http://localhost:4000\"") && posted.text.contains("name=\"code\"")
    );
    let policy = posted.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(
        policy.contains("form-action 'self' http://localhost:4000;"),
        "{policy}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_code_is_worth_nothing_to_others_and_soon_to_nobody() {
    let stand = Stand::new().await;
    for wrong in [
        ("client_id=cli", "client_id=other"),
        (REDIRECT, "http%3A%2F%2Flocalhost%3A4001"),
        (VERIFIER, "another-verifier-of-forty-three-characters"),
    ] {
        let code = stand.code().await;
        let form = redeem(&code).replace(wrong.0, wrong.1);
        assert_eq!(stand.token(&form).await.refusal(), (400, 70_008), "{form}");
        assert_eq!(
            stand.token(&redeem(&code)).await.refusal(),
            (400, 70_008),
            "it is spent"
        );
    }
    let code = stand.code().await;
    for missing in ["code", "redirect_uri", "code_verifier", "client_id"] {
        let form: Vec<String> = redeem(&code)
            .split('&')
            .filter(|field| !field.starts_with(&format!("{missing}=")))
            .map(str::to_owned)
            .collect();
        assert_eq!(
            stand.token(&form.join("&")).await.refusal(),
            (400, 900_144),
            "{missing}"
        );
    }
    stand.env.clock.sleep(Duration::from_secs(121)).await;
    assert_eq!(
        stand.token(&redeem(&code)).await.refusal(),
        (400, 70_008),
        "too late"
    );
    let code = stand.code().await;
    stand.change(ADA, |record| record.disabled = true).await;
    assert_eq!(stand.token(&redeem(&code)).await.refusal(), (400, 50_057));
}

#[tokio::test(start_paused = true)]
async fn a_browser_is_sent_nowhere_but_to_its_own_host_or_what_is_registered() {
    let stand = Stand::new().await;
    let at = async |address: &str, client: &str| {
        let path = authorize("")
            .replace(REDIRECT, &arm_ids::encode(address))
            .replace("client_id=cli", &format!("client_id={client}"));
        stand.send(Method::GET, &path, "", None, 1).await
    };
    let shop = "https://shop.example.com/back";
    for address in [
        "https://evil.example.com",
        "http://localhost@evil.example.com",
        "http://evil.example.com",
        shop,
        "",
    ] {
        let told = at(address, APPLICATION).await;
        assert_eq!(told.status, 400, "{address}");
        assert!(
            !told.headers.contains_key(header::LOCATION) && told.text.contains("not its own"),
            "{}",
            told.text
        );
    }
    stand
        .change(APPLICATION, |record| record.redirect_uris.push(shop.to_owned()))
        .await;
    assert_eq!(at(shop, APPLICATION).await.status, 200);
    for (address, client) in [
        (shop, OTHER),
        ("https://shop.example.com/back/", APPLICATION),
        ("https://shop.example.com/back?x", APPLICATION),
    ] {
        assert_eq!(at(address, client).await.status, 400, "{address}");
    }
    // An application with a secret has to present it, too.
    let path = authorize("")
        .replace(REDIRECT, &arm_ids::encode(shop))
        .replace("client_id=cli", &format!("client_id={APPLICATION}"));
    let form = |secret: &str, code: &str| {
        redeem(code)
            .replace(REDIRECT, &arm_ids::encode(shop))
            .replace("client_id=cli", &format!("client_id={APPLICATION}{secret}"))
    };
    for (secret, status) in [
        (String::new(), (401, 7_000_218)),
        ("&client_secret=wrong".to_owned(), (401, 7_000_215)),
        (format!("&client_secret={}", stand.secret), (200, 0)),
    ] {
        let page = stand.send(Method::GET, &path, "", None, 1).await;
        let typed = format!("request={}&username={ADA}&password={PASSWORD}", page.sealed());
        let sent = stand
            .send(Method::POST, &path, &typed, Some(&page.cookie()), 1)
            .await;
        let location = sent.headers[header::LOCATION].to_str().unwrap().to_owned();
        let code = location
            .split("code=")
            .nth(1)
            .unwrap()
            .split('&')
            .next()
            .unwrap()
            .to_owned();
        let told = stand
            .token(&form(&secret, &arm_ids::decode(&code).unwrap()))
            .await;
        assert_eq!(told.refusal(), status, "{}", told.text);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_client_asks_wrongly_it_is_told_at_its_address() {
    let stand = Stand::new().await;
    for (wrong, error) in [
        (
            authorize("").replace("response_type=code", "response_type=token"),
            "unsupported_response_type",
        ),
        (
            authorize("").replace("method=S256", "method=plain"),
            "invalid_request",
        ),
        (
            authorize("").replace("&code_challenge_method=S256", ""),
            "invalid_request",
        ),
        (
            authorize("").replace("code_challenge=", "code_challenge=x"),
            "invalid_request",
        ),
        (authorize("&response_mode=web_message"), "invalid_request"),
        (authorize("&prompt=none"), "login_required"),
        (
            authorize("").replace(ARM, "https://x.example.com"),
            "invalid_resource",
        ),
    ] {
        let told = stand.send(Method::GET, &wrong, "", None, 1).await;
        assert_eq!(told.status, 303, "{wrong}: {}", told.text);
        let location = told.headers[header::LOCATION].to_str().unwrap();
        assert!(location.starts_with("http://localhost:4000?error="), "{location}");
        let said = location
            .split("error=")
            .nth(1)
            .unwrap()
            .split('&')
            .next()
            .unwrap();
        assert_eq!(arm_ids::decode(said).unwrap(), error);
        assert!(location.ends_with("&state=s%20t"), "{location}");
    }
    let nobody = authorize("").replace("client_id=cli&", "");
    assert_eq!(stand.send(Method::GET, &nobody, "", None, 1).await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn a_form_that_another_page_sends_or_that_is_wrong_signs_nobody_in() {
    let stand = Stand::new().await;
    let path = format!("/{TENANT}/oauth2/v2.0/authorize");
    let page = stand
        .send(Method::GET, &authorize("&login_hint=ada"), "", None, 1)
        .await;
    assert!(page.text.contains("value=\"ada\"") && page.text.contains("http://localhost:4000"));
    let (sealed, cookie) = (page.sealed(), page.cookie());
    let other = stand
        .send(Method::GET, &authorize(""), "", None, 1)
        .await
        .cookie();
    let right = format!("request={sealed}&username={ADA}&password={PASSWORD}");
    for (form, cookie) in [
        (right.as_str(), None),
        (right.as_str(), Some(other.as_str())),
        (&right.replace("request=", "request=x"), Some(cookie.as_str())),
        ("username=a&password=b", Some(cookie.as_str())),
    ] {
        let told = stand.send(Method::POST, &path, form, cookie, 1).await;
        assert_eq!(told.status, 400, "{form}");
        assert!(!told.headers.contains_key(header::LOCATION));
    }
    let wrong = format!("request={sealed}&username={ADA}&password=zebra");
    let told = stand.send(Method::POST, &path, &wrong, Some(&cookie), 1).await;
    assert_eq!(told.status, 401);
    assert!(
        told.text.contains("is wrong") && !told.text.contains("zebra"),
        "{}",
        told.text
    );
    let cancelled = format!("request={sealed}&cancel=1");
    let told = stand
        .send(Method::POST, &path, &cancelled, Some(&cookie), 1)
        .await;
    assert!(
        told.headers[header::LOCATION]
            .to_str()
            .unwrap()
            .contains("error=access%5Fdenied")
    );
    stand.env.clock.sleep(Duration::from_secs(901)).await;
    assert_eq!(
        stand
            .send(Method::POST, &path, &right, Some(&cookie), 1)
            .await
            .status,
        400
    );
}

#[tokio::test(start_paused = true)]
async fn a_device_says_who_asks_from_where_and_since_when() {
    let stand = Stand::new().await;
    let page = format!("/{TENANT}/oauth2/v2.0/deviceauth");
    let start = async || {
        let path = format!("/{TENANT}/oauth2/v2.0/devicecode");
        let form =
            format!("client_id=04b07795-8ddb-461a-bbee-02f9e1bf7b46&scope={ARM}/.default+offline_access");
        let told = stand.send(Method::POST, &path, &form, None, 7).await;
        (told.field("device_code"), told.field("user_code"))
    };
    let poll = |code: &str| {
        format!(
            "grant_type=urn:ietf:params:oauth:grant-type:device_code&client_id=04b07795-8ddb-461a-bbee-02f9e1bf7b46&device_code={code}"
        )
    };
    let (device, user) = start().await;
    assert_eq!(stand.token(&poll(&device)).await.refusal(), (400, 70_016));
    stand.env.clock.sleep(Duration::from_secs(130)).await;
    let link = stand
        .send(Method::GET, &format!("{page}?user_code={user}"), "", None, 1)
        .await;
    assert!(!link.text.contains(&user), "a link fills nothing in");
    let asks = stand
        .send(
            Method::POST,
            &page,
            &format!("user_code={}", user.to_lowercase()),
            None,
            1,
        )
        .await;
    assert_eq!(asks.status, 200);
    for said in ["Azure CLI", "10.0.0.7", "2 minutes ago"] {
        assert!(asks.text.contains(said), "{said}: {}", asks.text);
    }
    let (sealed, cookie) = (asks.sealed(), asks.cookie());
    let right = format!("request={sealed}&username={ADA}&password={PASSWORD}");
    assert_eq!(
        stand.send(Method::POST, &page, &right, None, 1).await.status,
        400,
        "of another page"
    );
    let all_at_once = format!("user_code={user}&username={ADA}&password={PASSWORD}");
    assert_eq!(
        stand
            .send(Method::POST, &page, &all_at_once, None, 1)
            .await
            .status,
        200,
        "only asks"
    );
    assert_eq!(stand.token(&poll(&device)).await.refusal(), (400, 70_016));
    let wrong = right.replace(PASSWORD, "zebra");
    let told = stand.send(Method::POST, &page, &wrong, Some(&cookie), 1).await;
    assert!(told.status == 401 && told.text.contains("Azure CLI") && !told.text.contains("zebra"));
    assert_eq!(
        stand
            .send(Method::POST, &page, &right, Some(&cookie), 1)
            .await
            .status,
        200
    );
    assert_eq!(
        stand
            .send(Method::POST, &page, &right, Some(&cookie), 1)
            .await
            .status,
        400,
        "once"
    );
    let other = poll(&device).replace("04b07795", "14b07795");
    assert_eq!(
        stand.token(&other).await.refusal(),
        (400, 70_020),
        "another client's"
    );
    let told = stand.token(&poll(&device)).await;
    stand.holds(&told.field("access_token")).await.unwrap();
    assert!(told.json()["refresh_token"].is_string());
    assert_eq!(stand.token(&poll(&device)).await.refusal(), (400, 70_020));

    let (device, user) = start().await;
    let asks = stand
        .send(
            Method::POST,
            &page,
            &format!("user_code={user}"),
            Some(&cookie),
            1,
        )
        .await;
    let no = format!("request={}&cancel=1", asks.sealed());
    let told = stand.send(Method::POST, &page, &no, Some(&cookie), 1).await;
    assert!(told.text.contains("Refused"));
    assert_eq!(stand.token(&poll(&device)).await.refusal(), (400, 70_018));

    let (device, _) = start().await;
    stand.env.clock.sleep(Duration::from_secs(900)).await;
    assert_eq!(
        stand.token(&poll(&device)).await.refusal(),
        (400, 70_020),
        "too old"
    );
}

#[tokio::test(start_paused = true)]
async fn looking_for_codes_is_slowed_down() {
    let stand = Stand::new().await;
    let page = format!("/{TENANT}/oauth2/v2.0/deviceauth");
    let mut waits = 0;
    for _ in 0..100 {
        let told = stand
            .send(Method::POST, &page, "user_code=BCDFGHJKL", None, 1)
            .await;
        waits += u32::from(told.status == 429);
    }
    assert_eq!(waits, 95);
    let elsewhere = stand
        .send(Method::POST, &page, "user_code=BCDFGHJKL", None, 2)
        .await;
    assert_eq!(elsewhere.status, 400);
}
