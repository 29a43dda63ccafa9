//! Tokens that applications sign, or get from other issuers. Pure.

use std::sync::LazyLock;

use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize, date_time_ymd};
use serde_json::json;

use super::*;
use crate::SigningKey;

const CLIENT: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
const ENDPOINT: &str = "https://h/t/oauth2/v2.0/token";
const NOW: i64 = 1_800_000_000;

/// A key and its certificate.
pub(crate) struct Certified {
    pub(crate) key: EncodingKey,
    pub(crate) der: Vec<u8>,
}

pub(crate) fn certified(until: i32) -> Certified {
    let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.not_before = date_time_ymd(1975, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    Certified {
        der: params.self_signed(&pair).unwrap().der().to_vec(),
        key: EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap(),
    }
}

/// Making RSA keys takes a while.
pub(crate) static OWN: LazyLock<Certified> = LazyLock::new(|| certified(2100));
static OTHER: LazyLock<Certified> = LazyLock::new(|| certified(2100));

pub(crate) fn credential(proof: Proof) -> Credential {
    Credential {
        id: "k".to_owned(),
        display_name: String::new(),
        created_at: at(0),
        expires_at: None,
        proof,
    }
}

pub(crate) fn certificate(of: &Certified) -> Credential {
    credential(Proof::Certificate {
        der: STANDARD.encode(&of.der),
    })
}

pub(crate) fn federated() -> Credential {
    credential(Proof::Federated {
        name: "ci".to_owned(),
        issuer: "https://ci.example.com".to_owned(),
        subject: "repo:a:main".to_owned(),
        audiences: vec!["api://AzureADTokenExchange".to_owned()],
    })
}

fn application(credentials: Vec<Credential>) -> PrincipalRecord {
    PrincipalRecord {
        login: CLIENT.to_owned(),
        kind: "Application".to_owned(),
        credentials,
        ..PrincipalRecord::new("o", at(0))
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn thumbprint(of: &Certified, header: &mut Header, sha256: bool) {
    if sha256 {
        header.x5t_s256 = Some(URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &of.der)));
    } else {
        // As the Azure CLI's library pads it.
        let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &of.der);
        header.x5t = Some(format!("{}=", URL_SAFE_NO_PAD.encode(sha1)));
    }
}

/// Claims as the Azure CLI sends them: with times that are no integers.
fn claims() -> Value {
    json!({ "aud": ENDPOINT, "iss": CLIENT, "sub": CLIENT, "jti": "1",
            "iat": 1_800_000_000.25, "exp": 1_800_000_600.75 })
}

fn signed(claims: &Value, algorithm: Algorithm, sha256: bool) -> String {
    let mut header = Header::new(algorithm);
    thumbprint(&OWN, &mut header, sha256);
    encode(&header, claims, &OWN.key).unwrap()
}

fn check(token: &str, application: &PrincipalRecord, now: i64) -> Result<(), u32> {
    let shown = read(token).map_err(|refusal| refusal.code)?;
    assert!(shown.is_own(CLIENT) || shown.claims.iss != CLIENT);
    shown
        .check_certificate(application, |audience| audience == ENDPOINT, at(now))
        .map_err(|refusal| refusal.code)
}

#[test]
fn a_certificate_proves_its_application_with_both_algorithms_and_thumbprints() {
    let application = application(vec![federated(), certificate(&OTHER), certificate(&OWN)]);
    for algorithm in [Algorithm::RS256, Algorithm::PS256] {
        for sha256 in [false, true] {
            let token = signed(&claims(), algorithm, sha256);
            assert_eq!(check(&token, &application, NOW + 1), Ok(()));
        }
    }
    // Some libraries name the certificate by the key's id.
    let mut header = Header::new(Algorithm::RS256);
    let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &OWN.der);
    header.kid = Some(hex::encode_upper(sha1));
    let token = encode(&header, &claims(), &OWN.key).unwrap();
    assert_eq!(check(&token, &application, NOW), Ok(()));
}

#[test]
fn a_signed_token_that_is_not_quite_right_proves_nothing() {
    let with = application(vec![certificate(&OWN)]);
    let changed = |change: fn(&mut Value)| {
        let mut claims = claims();
        change(&mut claims);
        signed(&claims, Algorithm::RS256, false)
    };
    let right = signed(&claims(), Algorithm::RS256, false);
    let forged = {
        let mut header = Header::new(Algorithm::RS256);
        thumbprint(&OWN, &mut header, false);
        encode(&header, &claims(), &OTHER.key).unwrap()
    };
    let nameless = encode(&Header::new(Algorithm::RS256), &claims(), &OWN.key).unwrap();
    let parts: Vec<&str> = right.split('.').collect();
    let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), parts[1]);
    let public = {
        let mut header = Header::new(Algorithm::HS256);
        thumbprint(&OWN, &mut header, false);
        encode(&header, &claims(), &EncodingKey::from_secret(&OWN.der)).unwrap()
    };
    for (token, code) in [
        (changed(|claims| claims["exp"] = json!(1_799_999_000.5)), 700_024),
        (changed(|claims| claims["nbf"] = json!(1_800_000_301.5)), 700_024),
        (changed(|claims| claims["iat"] = json!(1_800_000_400)), 700_024),
        (changed(|claims| claims["exp"] = json!(1_800_090_000)), 700_024),
        (
            changed(|claims| claims["aud"] = json!("https://elsewhere/token")),
            700_023,
        ),
        (changed(|claims| claims["aud"] = json!([])), 700_023),
        (
            changed(|claims| drop(claims.as_object_mut().unwrap().remove("aud"))),
            700_023,
        ),
        (
            changed(|claims| drop(claims.as_object_mut().unwrap().remove("exp"))),
            50_027,
        ),
        (changed(|claims| claims["exp"] = json!("soon")), 50_027),
        (forged, 700_027),
        (nameless, 700_027),
        (public, 700_027),
        (none, 50_027),
        ("a.b.c".to_owned(), 50_027),
        (String::new(), 50_027),
        ("a".repeat(MAX_BYTES + 1), 50_027),
    ] {
        assert_eq!(check(&token, &with, NOW), Err(code), "{token}");
    }
    assert_eq!(
        check(&right, &application(vec![certificate(&OTHER)]), NOW),
        Err(700_027)
    );
    assert_eq!(check(&right, &application(Vec::new()), NOW), Err(700_027));
    let over = Credential {
        expires_at: Some(at(NOW)),
        ..certificate(&OWN)
    };
    assert_eq!(check(&right, &application(vec![over]), NOW), Err(7_000_222));
    let one = changed(|claims| claims["aud"] = json!(["x", ENDPOINT]));
    assert_eq!(check(&one, &with, NOW), Ok(()), "one audience of several");
}

#[test]
fn a_certificate_ends_with_its_own_time_and_has_to_be_rsa() {
    let old = certified(2020);
    let mut header = Header::new(Algorithm::RS256);
    thumbprint(&old, &mut header, true);
    let token = encode(&header, &claims(), &old.key).unwrap();
    assert_eq!(
        check(&token, &application(vec![certificate(&old)]), NOW),
        Err(7_000_222)
    );
    let curve = {
        let pair = KeyPair::generate().unwrap();
        let params = CertificateParams::new(Vec::new()).unwrap();
        params.self_signed(&pair).unwrap().der().to_vec()
    };
    let curve = Certified {
        der: curve,
        key: EncodingKey::from_rsa_pem(SigningKey::generate().unwrap().to_pem().as_bytes()).unwrap(),
    };
    thumbprint(&curve, &mut header, true);
    let token = encode(&header, &claims(), &curve.key).unwrap();
    assert_eq!(
        check(&token, &application(vec![certificate(&curve)]), NOW),
        Err(700_027)
    );
    let damaged = credential(Proof::Certificate {
        der: STANDARD.encode("no certificate"),
    });
    assert_eq!(
        check(
            &signed(&claims(), Algorithm::RS256, true),
            &application(vec![damaged]),
            NOW
        ),
        Err(700_027)
    );
}

#[test]
fn a_token_of_another_issuer_fits_a_credential_exactly() {
    let key = SigningKey::generate().unwrap();
    let keys = SigningKeysOf(&key).keys();
    let token = |claims: Value, kid: Option<&str>| {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = kid.map(str::to_owned);
        encode(&header, &claims, &key.encoding).unwrap()
    };
    let right = json!({ "iss": "https://ci.example.com", "sub": "repo:a:main", "aud": "api://AzureADTokenExchange",
                        "exp": NOW + 60 });
    let with = application(vec![certificate(&OWN), federated()]);
    let fits = |claims: &Value, application: &PrincipalRecord| -> Result<(), u32> {
        let token = token(claims.clone(), Some(&key.id));
        let shown = read(&token).map_err(|refusal| refusal.code)?;
        assert!(!shown.is_own(CLIENT));
        shown
            .federated(application, at(NOW))
            .map_err(|refusal| refusal.code)?;
        shown
            .check_federated(&keys, at(NOW))
            .map_err(|refusal| refusal.code)
    };
    assert_eq!(fits(&right, &with), Ok(()));
    let changed = |name: &str, value: Value| {
        let mut claims = right.clone();
        claims[name] = value;
        claims
    };
    for (claims, code) in [
        (changed("iss", json!("https://ci.example.com/")), 700_211),
        (changed("sub", json!("repo:a:main2")), 700_213),
        (changed("sub", json!("REPO:a:main")), 700_213),
        (changed("aud", json!("api://other")), 700_212),
        (changed("exp", json!(NOW - 301)), 700_024),
        (changed("nbf", json!(NOW + 301)), 700_024),
    ] {
        assert_eq!(fits(&claims, &with), Err(code), "{claims}");
    }
    let over = Credential {
        expires_at: Some(at(NOW)),
        ..federated()
    };
    assert_eq!(fits(&right, &application(vec![over])), Err(700_211));
    // Signed by another key, or by one that is not published.
    let text = token(right.clone(), Some("unknown"));
    let shown = read(&text).unwrap();
    assert!(!shown.is_in(&keys) && shown.check_federated(&keys, at(NOW)).is_err());
    let text = token(right.clone(), None);
    assert!(read(&text).unwrap().check_federated(&keys, at(NOW)).is_ok());
    let stranger = SigningKey::generate().unwrap();
    let keys_of_stranger = SigningKeysOf(&stranger).keys();
    assert!(
        read(&text)
            .unwrap()
            .check_federated(&keys_of_stranger, at(NOW))
            .is_err()
    );
    // A published key is no secret, so no signature with it as one is accepted.
    let secret = json!({ "keys": [{ "kty": "oct", "k": URL_SAFE_NO_PAD.encode("public"), "kid": "s" }] });
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("s".to_owned());
    let text = encode(&header, &right, &EncodingKey::from_secret(b"public")).unwrap();
    assert!(read(&text).unwrap().check_federated(&secret, at(NOW)).is_err());
    for junk in [
        json!({}),
        json!({ "keys": "x" }),
        json!({ "keys": [1, { "kty": "x" }] }),
        json!(null),
    ] {
        assert!(read(&text).unwrap().check_federated(&junk, at(NOW)).is_err());
    }
}

struct SigningKeysOf<'a>(&'a SigningKey);

impl SigningKeysOf<'_> {
    fn keys(&self) -> Value {
        json!({ "keys": [self.0.jwk()] })
    }
}

#[test]
fn a_signed_token_is_good_from_one_address_and_a_number_of_times() {
    let token = signed(&claims(), Algorithm::RS256, true);
    let shown = read(&token).unwrap();
    let from = |last: u8| Origin::of(Some([10, 0, 0, last].into()));
    let uses = Uses::default();
    for _ in 0..MOST_USES {
        assert!(uses.count(&shown, from(1)).is_ok());
    }
    assert!(uses.count(&shown, from(1)).is_err(), "too often");
    let mut again = claims();
    again["jti"] = json!("2");
    let again = signed(&again, Algorithm::RS256, true);
    let again = read(&again).unwrap();
    assert!(uses.count(&again, from(1)).is_ok(), "another one");
    assert!(uses.count(&again, from(2)).is_err(), "overheard");
    assert!(uses.count(&again, from(1)).is_ok(), "and still its owner's");
}
