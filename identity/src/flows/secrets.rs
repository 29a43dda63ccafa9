//! Secrets, passwords, refresh tokens, claims of tokens, and the keys that sign them.

use std::{sync::Arc, time::Duration};

use control_records::{Credential, Proof, key};
use control_store::{Store, get_record};
use http::Method;
use jiff::Timestamp;
use serde_json::json;
use storage_redb::MemoryStore;

use super::{ADA, APPLICATION, ARM, PASSWORD, Stand, TENANT, claims, config};
use crate::{
    Secret, TokenError, TokenService, Wish, assertion::tests::credential, find_principal, generate_secret,
    hash_secret, refresh,
};

#[tokio::test(start_paused = true)]
async fn both_versions_and_both_shapes_give_tokens_in_their_words() {
    let stand = Stand::new().await;
    let form = format!(
        "grant_type=client_credentials&client_id={APPLICATION}&client_secret={}",
        stand.secret
    );
    let aad = format!("https://h/{TENANT}/v2.0");
    for (path, more, issuer, seconds) in [
        (
            format!("/{TENANT}/oauth2/v2.0/token"),
            format!("&scope={ARM}/.default"),
            &*aad,
            json!(3600),
        ),
        (
            format!("/{TENANT}/oauth2/token"),
            format!("&resource={ARM}/"),
            &*aad,
            json!("3600"),
        ),
        (
            "/adfs/oauth2/token".to_owned(),
            format!("&resource={ARM}"),
            "https://h/adfs",
            json!(3600),
        ),
    ] {
        let told = stand
            .send(Method::POST, &path, &format!("{form}{more}"), None, 1)
            .await;
        assert_eq!(told.status, 200, "{}", told.text);
        let body = told.json();
        assert_eq!(body["expires_in"], seconds, "{path}");
        assert_eq!(body["expires_on"].is_string(), seconds.is_string());
        let token = told.field("access_token");
        assert_eq!(
            (claims(&token)["iss"].as_str(), claims(&token)["aud"].as_str()),
            (Some(issuer), Some(ARM))
        );
        stand.holds(&token).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn secrets_that_are_over_and_principals_that_are_disabled_are_told_to_who_has_the_secret() {
    let stand = Stand::new().await;
    let ask = |secret: &str| {
        format!("grant_type=client_credentials&client_id={APPLICATION}&client_secret={secret}")
    };
    let second = generate_secret();
    let hash = hash_secret(Secret::Generated(&second));
    let until = Timestamp::from_second(stand.now() + 60).unwrap();
    stand
        .change(APPLICATION, |record| {
            record.credentials.push(Credential {
                expires_at: Some(until),
                ..credential(Proof::Secret {
                    hash,
                    hint: "abc".to_owned(),
                })
            });
        })
        .await;
    assert_eq!(stand.token(&ask(&second)).await.status, 200);
    assert_eq!(
        stand.token(&ask(&stand.secret)).await.status,
        200,
        "the first is good beside it"
    );
    stand.env.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(stand.token(&ask(&second)).await.refusal(), (401, 7_000_222));
    assert_eq!(stand.token(&ask("wrong")).await.refusal(), (401, 7_000_215));

    let token = stand.token(&ask(&stand.secret)).await.field("access_token");
    stand.holds(&token).await.unwrap();
    stand.change(APPLICATION, |record| record.disabled = true).await;
    assert!(
        matches!(stand.holds(&token).await, Err(TokenError::Disabled)),
        "at once"
    );
    assert_eq!(stand.token(&ask(&stand.secret)).await.refusal(), (400, 7_000_112));
    assert_eq!(stand.token(&ask("wrong")).await.refusal(), (401, 7_000_215));
}

#[tokio::test(start_paused = true)]
async fn a_revocation_ends_tokens_and_sign_ins_and_nobody_is_locked_out() {
    let stand = Stand::new().await;
    let signed_in = stand.password().await;
    let (access, refresh) = (signed_in.field("access_token"), signed_in.field("refresh_token"));
    stand.env.clock.sleep(Duration::from_millis(1500)).await;
    let now = stand.env.clock.now();
    stand.change(ADA, |record| record.valid_from = Some(now)).await;
    assert!(matches!(stand.holds(&access).await, Err(TokenError::Revoked)));
    let again = stand
        .token(&format!(
            "grant_type=refresh_token&client_id=cli&refresh_token={refresh}"
        ))
        .await;
    assert_eq!(again.refusal(), (400, 700_082));
    let anew = stand.password().await;
    stand.holds(&anew.field("access_token")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_is_good_once() {
    let stand = Stand::new().await;
    let first = stand.password().await.field("refresh_token");
    let use_it = |token: &str, client: &str, more: &str| {
        let form = format!("grant_type=refresh_token&client_id={client}&refresh_token={token}{more}");
        let stand = &stand;
        async move { stand.token(&form).await }
    };
    assert_eq!(use_it(&first, "other", "").await.refusal(), (400, 700_082));
    let elsewhere = use_it(&first, "cli", "&scope=https://x/.default").await;
    assert_eq!(elsewhere.refusal(), (400, 500_011), "and it is not spent by that");
    let graph = use_it(&first, "cli", "&scope=https://graph.example.test/.default").await;
    assert_eq!(
        claims(&graph.field("access_token"))["aud"],
        "https://graph.example.test"
    );
    let second = graph.field("refresh_token");
    let third = use_it(&second, "cli", "").await;
    stand.holds(&third.field("access_token")).await.unwrap();
    assert_eq!(
        use_it(&second, "cli", "").await.refusal(),
        (400, 700_082),
        "spent"
    );
    let newest = third.field("refresh_token");
    assert_eq!(
        use_it(&newest, "cli", "").await.refusal(),
        (400, 700_082),
        "its sign-in is ended"
    );
    let without = stand
        .token(&format!(
            "grant_type=password&client_id=cli&username={ADA}&password={PASSWORD}&scope={ARM}/.default+openid"
        ))
        .await;
    assert!(
        without.json().get("refresh_token").is_none(),
        "nobody asked for one"
    );
}

#[tokio::test(start_paused = true)]
async fn a_password_of_before_is_kept_in_the_form_of_today_and_sign_ins_go_on() {
    use aws_lc_rs::pbkdf2;
    let stand = Stand::new().await;
    let (salt, mut hash) = ([7; 16], [0; 32]);
    let iterations = std::num::NonZeroU32::new(1000).unwrap();
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        iterations,
        &salt,
        PASSWORD.as_bytes(),
        &mut hash,
    );
    let before = format!("pbkdf2-sha256$1000${}${}", hex::encode(salt), hex::encode(hash));
    stand
        .change(ADA, |record| record.secret_hash.clone_from(&before))
        .await;
    let record = find_principal(&*stand.store, ADA).await.unwrap().unwrap();
    let (_, token) = refresh::begin(&*stand.store, &stand.env, &record, "cli")
        .await
        .unwrap();

    let wrong = format!("grant_type=password&client_id=cli&username={ADA}&password=wrong");
    assert_eq!(stand.token(&wrong).await.refusal(), (400, 50_126));
    let hash = async || {
        find_principal(&*stand.store, ADA)
            .await
            .unwrap()
            .unwrap()
            .secret_hash
    };
    assert_eq!(
        hash().await,
        before,
        "only a good login tells what is to be hashed"
    );
    assert_eq!(stand.password().await.status, 200);
    assert!(hash().await.starts_with("$argon2id$"));
    assert_eq!(stand.password().await.status, 200, "it is the same password");
    let form = format!("grant_type=refresh_token&client_id=cli&refresh_token={token}");
    assert_eq!(stand.token(&form).await.status, 200, "who was signed in stays so");
}

#[tokio::test(start_paused = true)]
async fn a_client_says_what_it_understands_and_its_tokens_say_it_of_it() {
    let stand = Stand::new().await;
    let ask = |claims: &str| {
        format!(
            "grant_type=client_credentials&client_id={APPLICATION}&client_secret={}&claims={}",
            stand.secret,
            arm_ids::encode(claims)
        )
    };
    // The Azure CLI's request.
    let cp1 = r#"{"access_token": {"xms_cc": {"values": ["CP1"]}}}"#;
    let told = stand.token(&ask(cp1)).await;
    assert_eq!(claims(&told.field("access_token"))["xms_cc"], json!(["cp1"]));
    // The Azure CLI's request after a claims challenge.
    let nbf =
        r#"{"access_token": {"nbf": {"essential": true, "value": "1"}, "xms_cc": {"values": ["CP1"]}}}"#;
    assert_eq!(stand.token(&ask(nbf)).await.status, 200);
    for plain in ["{}", r#"{"id_token": null, "access_token": null}"#] {
        let told = stand.token(&ask(plain)).await;
        assert!(claims(&told.field("access_token")).get("xms_cc").is_none());
    }
    for bad in ["x", "[]", r#"{"access_token": 1}"#, &" ".repeat(5000)] {
        assert_eq!(stand.token(&ask(bad)).await.refusal(), (400, 9_002_339), "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_change_and_no_token_is_refused_for_it() {
    let stand = Stand::new().await;
    let sealer = Arc::new(base_sealer::Sealer::from_key(&[7; 32]));
    let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&stand.store);
    let keys = crate::SigningKeys::open(&stand.env, Arc::clone(&store), sealer, None)
        .await
        .unwrap();
    let stand = Stand {
        service: TokenService::new(config(), keys, stand.env.clone(), store),
        ..stand
    };
    let published = async || {
        let path = format!("/{TENANT}/discovery/v2.0/keys");
        let told = stand.send(Method::GET, &path, "", None, 1).await.json();
        let keys = told["keys"].as_array().unwrap().clone();
        keys.iter()
            .map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let kid = |token: &str| jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    stand.service.rotate_keys(Wish::Time).await.unwrap();
    let before = published().await;
    assert_eq!(before.len(), 2, "the next is there before it signs");
    let old = stand.password().await.field("access_token");
    assert_eq!(kid(&old), before[0]);
    stand.env.clock.sleep(Duration::from_secs(86_400)).await;
    let old = stand.password().await.field("access_token");
    let rotated = stand.service.rotate_keys(Wish::Rotate).await.unwrap();
    assert_eq!(rotated.signs, before[1]);
    let new = stand.password().await.field("access_token");
    assert_eq!(kid(&new), before[1]);
    for token in [&old, &new] {
        stand.holds(token).await.unwrap();
        assert!(published().await.contains(&kid(token)));
    }
    // Revocation makes a stolen key useless, and every token invalid.
    stand.service.rotate_keys(Wish::Revoke).await.unwrap();
    for token in [&old, &new] {
        assert!(matches!(stand.holds(token).await, Err(TokenError::Malformed)));
    }
    stand
        .holds(&stand.password().await.field("access_token"))
        .await
        .unwrap();
    let record = get_record::<control_records::SigningKeysRecord>(&*stand.store, key::SIGNING_KEYS).await;
    assert_eq!(record.unwrap().unwrap().value.keys.len(), 2);
}
