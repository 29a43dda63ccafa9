use super::*;
use base_env::Env;
use base_sealer::Sealer;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use storage_redb::MemoryStore;

use crate::{SigningKey, Wish};

fn tokens() -> Tokens {
    Tokens {
        keys: SigningKey::generate().unwrap().into(),
        verified: Verified::default(),
        issuers: ["https://h/t/v2.0", "https://h/adfs"].map(str::to_owned),
        tenant_id: "t".to_owned(),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn ada() -> PrincipalRecord {
    PrincipalRecord {
        login: "ada@local".to_owned(),
        kind: "User".to_owned(),
        display_name: "Ada".to_owned(),
        ..PrincipalRecord::new("o", at(0))
    }
}

fn subject(to: &PrincipalRecord) -> Subject<'_> {
    Subject {
        to,
        shape: Shape::Aad,
        client: "cli",
        capable: false,
        groups: &[],
    }
}

#[test]
fn a_token_names_groups_as_long_as_they_fit() {
    let (tokens, ada) = (tokens(), ada());
    let groups: Vec<String> = (0..=MOST_GROUPS)
        .map(|group| format!("{group:08}-0000-4000-8000-000000000000"))
        .collect();
    let of = |groups| {
        let subject = Subject {
            groups,
            ..subject(&ada)
        };
        let token = tokens.access(subject, "https://a", at(1000));
        assert!(
            tokens.id(subject, None, at(1000)).len() < 1500,
            "an id token names none"
        );
        let signed = tokens.check(&token, &["https://a".to_owned()], at(1000));
        signed.unwrap().claims.clone()
    };
    let (all, more) = (of(&groups[1..]), of(&groups));
    assert_eq!((all.groups.len(), all.hasgroups), (MOST_GROUPS, false));
    assert_eq!((more.groups.len(), more.hasgroups), (0, true));
}

#[test]
fn a_token_holds_for_its_audience_and_its_hour_in_both_shapes() {
    let (tokens, ada) = (tokens(), ada());
    let arm = ["https://a".to_owned()];
    for (shape, issuer) in [(Shape::Aad, "https://h/t/v2.0"), (Shape::AdFs, "https://h/adfs")] {
        let asked = Subject {
            shape,
            ..subject(&ada)
        };
        let token = tokens.access(asked, "https://a/", at(1000));
        let signed = tokens.check(&token, &arm, at(1000)).unwrap();
        let claims = &signed.claims;
        assert_eq!((claims.oid.as_str(), claims.iss.as_str()), ("o", issuer));
        assert!(tokens.check(&token, &arm, at(4599)).is_ok());
        assert!(matches!(
            tokens.check(&token, &arm, at(4600)),
            Err(TokenError::Expired(_))
        ));
        assert!(matches!(
            tokens.check(&token, &arm, at(999)),
            Err(TokenError::NotYet(_))
        ));
        assert!(matches!(
            tokens.check(&token, &["https://b".to_owned()], at(1000)),
            Err(TokenError::Audience(_))
        ));
    }
}

#[test]
fn foreign_changed_unsigned_and_misused_tokens_do_not_hold() {
    let (tokens, stranger, ada) = (tokens(), tokens(), ada());
    let arm = ["https://a".to_owned()];
    let token = tokens.access(subject(&ada), "https://a", at(1000));
    let parts: Vec<&str> = token.split('.').collect();
    let kid = decode_header(&token).unwrap().kid.unwrap();
    let none = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(json!({ "alg": "none", "typ": "JWT", "kid": kid }).to_string()),
        parts[1]
    );
    let changed = format!(
        "{}.{}.{}",
        parts[0],
        URL_SAFE_NO_PAD.encode(r#"{"aud":"https://a"}"#),
        parts[2]
    );
    let long = "a".repeat(MAX_TOKEN_BYTES + 1);
    let foreign = stranger.access(subject(&ada), "https://a", at(1000));
    for bad in ["", "x", "a.b.c", &none, &changed, &long, &foreign] {
        assert!(
            matches!(tokens.check(bad, &arm, at(1000)), Err(TokenError::Malformed)),
            "{bad}"
        );
    }
    let id = tokens.id(subject(&ada), None, at(1000));
    assert!(tokens.check(&id, &arm, at(1000)).is_err());
    let elsewhere = Tokens {
        issuers: ["https://x/t/v2.0", "https://x/adfs"].map(str::to_owned),
        ..tokens
    };
    assert!(matches!(
        elsewhere.check(&token, &arm, at(1000)),
        Err(TokenError::Issuer)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_seen_before_holds_no_longer_than_its_key() {
    let env = Env::simulated(1);
    let sealer = Arc::new(Sealer::from_key(&[7; 32]));
    let keys = SigningKeys::open(&env, Arc::new(MemoryStore::new()), sealer, None);
    let tokens = Tokens {
        keys: keys.await.unwrap(),
        ..tokens()
    };
    let (arm, now) = (["https://a".to_owned()], env.clock.now());
    let token = tokens.access(subject(&ada()), "https://a", now);
    for _ in 0..2 {
        assert!(tokens.check(&token, &arm, now).is_ok());
    }
    let elsewhere = ["https://b".to_owned()];
    assert!(matches!(
        tokens.check(&token, &elsewhere, now),
        Err(TokenError::Audience(_))
    ));
    tokens.keys.rotate(Wish::Revoke).await.unwrap();
    assert!(matches!(
        tokens.check(&token, &arm, now),
        Err(TokenError::Malformed)
    ));
}

#[test]
fn what_was_given_before_a_revocation_does_not_hold_and_what_after_it_does() {
    let (tokens, mut ada) = (tokens(), ada());
    let arm = ["https://a".to_owned()];
    let at = |millis| Timestamp::from_millisecond(millis).unwrap();
    let given = |ada: &PrincipalRecord, at| {
        let token = tokens.access(subject(ada), "https://a", at);
        tokens.check(&token, &arm, at).unwrap().claims.iat
    };
    let before = given(&ada, at(10_300));
    ada.valid_from = Some(at(10_400));
    assert!(matches!(admits(&ada, before), Err(TokenError::Revoked)));
    assert!(
        admits(&ada, given(&ada, at(10_500))).is_ok(),
        "in the same second"
    );
    ada.disabled = true;
    assert!(matches!(
        admits(&ada, given(&ada, at(20_000))),
        Err(TokenError::Disabled)
    ));
}

#[test]
fn who_understands_it_is_told_to_come_with_another_token() {
    let (tokens, ada) = (tokens(), ada());
    let capable = Subject {
        capable: true,
        ..subject(&ada)
    };
    let (can, cannot) = (
        tokens.access(capable, "https://a", at(1000)),
        tokens.access(subject(&ada), "https://a", at(1000)),
    );
    let told =
        |problem: &TokenError, token: &str| tokens.challenge("https://h/t", problem, Some(token), at(2000));
    let again = told(&TokenError::Revoked, &can);
    assert!(again.starts_with("Bearer authorization_uri=\"https://h/t\", error=\"insufficient_claims\""));
    let claims = again.split("claims=\"").nth(1).unwrap().trim_end_matches('"');
    let claims: serde_json::Value = serde_json::from_slice(&STANDARD.decode(claims).unwrap()).unwrap();
    assert_eq!(
        claims["access_token"]["nbf"],
        json!({ "essential": true, "value": "2000" })
    );
    for plain in [
        told(&TokenError::Revoked, &cannot),
        told(&TokenError::Disabled, &can),
        told(&TokenError::Malformed, "x"),
    ] {
        assert!(plain.contains("error=\"invalid_token\""), "{plain}");
    }
    assert_eq!(
        tokens.challenge("https://h/t", &TokenError::Missing, None, at(0)),
        "Bearer authorization_uri=\"https://h/t\""
    );
}
