//! Applications that present a signed token instead of a secret.

use std::{sync::Arc, time::Duration};

use control_records::{PrincipalRecord, Proof};
use control_store::{Store as _, Txn};
use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::{ADA, APPLICATION, OTHER, Stand, TENANT, claims};
use crate::{
    IssuerError, Issuers, SigningKey,
    assertion::tests::{OWN, certificate, federated, thumbprint},
};

const ASSERTION: &str =
    "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";

fn signed(client: &str, now: i64, jti: &str) -> String {
    signed_for("https://h", client, now, jti)
}

fn signed_for(base: &str, client: &str, now: i64, jti: &str) -> String {
    let mut header = Header::new(Algorithm::PS256);
    thumbprint(&OWN, &mut header, true);
    #[expect(
        clippy::cast_precision_loss,
        reason = "a time in seconds needs 31 of the 53 bits"
    )]
    let claims = json!({ "aud": format!("{base}/{TENANT}/oauth2/v2.0/token"), "iss": client, "sub": client,
                         "jti": jti, "iat": now as f64 + 0.25, "exp": now as f64 + 600.75 });
    encode(&header, &claims, &OWN.key).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_application_shows_a_token_that_it_signed() {
    let stand = Stand::new().await;
    stand
        .change(APPLICATION, |record| record.credentials.push(certificate(&OWN)))
        .await;
    let ask = |client: &str, token: &str| {
        format!("grant_type=client_credentials&client_id={client}&{ASSERTION}&client_assertion={token}")
    };
    let own = signed(APPLICATION, stand.now(), "1");
    let told = stand.token(&ask(APPLICATION, &own)).await;
    assert_eq!(told.status, 200, "{}", told.text);
    assert_eq!(claims(&told.field("access_token"))["appid"], APPLICATION);
    // Libraries present one for each resource that they need a token for.
    assert_eq!(stand.token(&ask(APPLICATION, &own)).await.status, 200);
    let path = format!("/{TENANT}/oauth2/v2.0/token");
    let overheard = stand
        .send(Method::POST, &path, &ask(APPLICATION, &own), None, 2)
        .await;
    assert_eq!(overheard.refusal(), (401, 700_027));

    for (form, refusal) in [
        (ask(OTHER, &own), (401, 700_211)),
        (ask(OTHER, &signed(OTHER, stand.now(), "2")), (401, 700_027)),
        (ask("nobody", &own), (400, 700_016)),
        (ask(ADA, &signed(ADA, stand.now(), "3")), (400, 700_016)),
        (ask(APPLICATION, "x"), (401, 50_027)),
        (
            format!("grant_type=client_credentials&client_id={APPLICATION}&client_assertion={own}"),
            (400, 900_144),
        ),
        (
            format!(
                "grant_type=client_credentials&client_id={APPLICATION}&client_assertion_type=saml&client_assertion={own}"
            ),
            (400, 50_027),
        ),
    ] {
        assert_eq!(stand.token(&form).await.refusal(), refusal, "{form}");
    }
    // Issued for another server, and presented to us with its `Host`.
    let elsewhere = "https://evil.example.com";
    let stolen = signed_for(elsewhere, APPLICATION, stand.now(), "7");
    let shown = stand
        .send_to(
            elsewhere,
            Method::POST,
            &path,
            &ask(APPLICATION, &stolen),
            None,
            1,
        )
        .await;
    assert_eq!(shown.refusal(), (401, 700_023));
    let here = signed_for("https://localhost:8443", APPLICATION, stand.now(), "8");
    let shown = stand
        .send_to(
            "https://localhost:8443",
            Method::POST,
            &path,
            &ask(APPLICATION, &here),
            None,
            1,
        )
        .await;
    assert_eq!(shown.status, 200, "{}", shown.text);
    let late = signed(APPLICATION, stand.now(), "4");
    stand.env.clock.sleep(Duration::from_secs(901)).await;
    assert_eq!(
        stand.token(&ask(APPLICATION, &late)).await.refusal(),
        (401, 700_024)
    );
    stand.change(APPLICATION, |record| record.disabled = true).await;
    let disabled = signed(APPLICATION, stand.now(), "5");
    assert_eq!(
        stand.token(&ask(APPLICATION, &disabled)).await.refusal(),
        (400, 7_000_112)
    );
    stand
        .change(APPLICATION, |record| {
            record.disabled = false;
            record.credentials.clear();
        })
        .await;
    let gone = signed(APPLICATION, stand.now(), "6");
    assert_eq!(
        stand.token(&ask(APPLICATION, &gone)).await.refusal(),
        (401, 700_027)
    );
}

/// A source with one issuer.
struct One(Value);

#[async_trait::async_trait]
impl Issuers for One {
    async fn keys(
        &self,
        issuer: &str,
        _: &(dyn for<'a> Fn(&'a Value) -> bool + Sync),
    ) -> Result<Option<Value>, IssuerError> {
        match issuer {
            "https://ci.example.com" => Ok(Some(self.0.clone())),
            "https://away.example.com" => Err(IssuerError::Unreachable("it is away".to_owned())),
            "https://10.0.0.1" => Err(IssuerError::Refused("it is out of reach".to_owned())),
            _ => Ok(None),
        }
    }

    async fn binds(&self, issuer: &str, principal: &str) -> Result<bool, IssuerError> {
        Ok(issuer == "https://ci.example.com" && principal == BOUND)
    }
}

/// The object id of whom the issuer is bound to.
const BOUND: &str = "0b0a0a0a-0000-4000-8000-000000000001";

#[tokio::test(start_paused = true)]
async fn an_application_shows_a_token_of_an_issuer_that_it_trusts() {
    let stand = Stand::new().await;
    let key = SigningKey::generate().unwrap();
    let pem = EncodingKey::from_rsa_pem(key.to_pem().as_bytes()).unwrap();
    let alone = crate::SigningKeys::from(key).jwks(stand.env.clock.now());
    let kid = alone["keys"][0]["kid"].as_str().unwrap().to_owned();
    let issued = |issuer: &str, now: i64| {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(kid.clone());
        let claims = json!({ "iss": issuer, "sub": "repo:a:main", "aud": "api://AzureADTokenExchange", "exp": now + 60 });
        encode(&header, &claims, &pem).unwrap()
    };
    let trusted = |issuer: &str| {
        let mut trusted = federated();
        let Proof::Federated { issuer: own, .. } = &mut trusted.proof else {
            unreachable!("it is one")
        };
        issuer.clone_into(own);
        trusted
    };
    stand
        .change(APPLICATION, |record| {
            record.credentials = vec![
                federated(),
                trusted("https://away.example.com"),
                trusted("https://10.0.0.1"),
                trusted("https://unknown.example.com"),
                trusted(&format!("https://h/{TENANT}/v2.0")),
            ];
        })
        .await;
    let ask = |token: &str| {
        format!("grant_type=client_credentials&client_id={APPLICATION}&{ASSERTION}&client_assertion={token}")
    };
    let ci = issued("https://ci.example.com", stand.now());
    assert_eq!(
        stand.token(&ask(&ci)).await.refusal(),
        (401, 700_211),
        "nobody else is asked"
    );
    stand.service.ask_first(Arc::new(One(alone)));
    let told = stand.token(&ask(&ci)).await;
    assert_eq!(told.status, 200, "{}", told.text);
    for (issuer, refusal) in [
        ("https://away.example.com", (503, 90_033)),
        ("https://10.0.0.1", (401, 700_211)),
        ("https://unknown.example.com", (401, 700_211)),
        ("https://stranger.example.com", (401, 700_211)),
    ] {
        let token = issued(issuer, stand.now());
        assert_eq!(stand.token(&ask(&token)).await.refusal(), refusal, "{issuer}");
    }
    // A token that claims to be of this stamp has to be signed by this stamp.
    let own = issued(&format!("https://h/{TENANT}/v2.0"), stand.now());
    assert_eq!(stand.token(&ask(&own)).await.refusal(), (401, 700_027));
    stand.env.clock.sleep(Duration::from_secs(361)).await;
    assert_eq!(stand.token(&ask(&ci)).await.refusal(), (401, 700_024));
}

#[tokio::test(start_paused = true)]
async fn a_service_account_is_an_identity_that_its_cluster_is_bound_to() {
    let stand = Stand::new().await;
    let key = SigningKey::generate().unwrap();
    let pem = EncodingKey::from_rsa_pem(key.to_pem().as_bytes()).unwrap();
    let alone = crate::SigningKeys::from(key).jwks(stand.env.clock.now());
    let kid = alone["keys"][0]["kid"].as_str().unwrap().to_owned();
    let issued = |issuer: &str, subject: &str, audience: &str, now: i64| {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(kid.clone());
        let claims = json!({ "iss": issuer, "sub": subject, "aud": [audience], "exp": now + 60 });
        encode(&header, &claims, &pem).unwrap()
    };
    let client = "0c0a0a0a-0000-4000-8000-000000000001";
    for (object_id, client, resource) in [
        (
            BOUND,
            client,
            Some("/subscriptions/s/resourceGroups/g/providers/x"),
        ),
        (
            "0b0a0a0a-0000-4000-8000-000000000002",
            "0c0a0a0a-0000-4000-8000-000000000002",
            Some("/y"),
        ),
    ] {
        let record = PrincipalRecord {
            login: client.to_owned(),
            kind: "ManagedIdentity".to_owned(),
            resource: resource.map(str::to_owned),
            ..PrincipalRecord::new(object_id, stand.env.clock.now())
        };
        let txn = identity_directory::made(Txn::default(), &record);
        stand.store.txn(txn).await.unwrap();
    }
    stand.service.ask_first(Arc::new(One(alone)));
    let ask = |client: &str, token: &str| {
        format!("grant_type=client_credentials&client_id={client}&{ASSERTION}&client_assertion={token}")
    };
    let (ci, account) = ("https://ci.example.com", "system:serviceaccount:default:shop");
    let audience = format!("api://AKSIdentityBinding/{client}");
    let good = issued(ci, account, &audience, stand.now());
    let told = stand.token(&ask(client, &good)).await;
    assert_eq!(told.status, 200, "{}", told.text);
    assert_eq!(claims(&told.field("access_token"))["oid"], BOUND);
    let other = "0c0a0a0a-0000-4000-8000-000000000002";
    let of_other = format!("api://AKSIdentityBinding/{other}");
    for (client, issuer, subject, audience) in [
        // A token for one identity is not valid for another; the other one is not bound, either.
        (other, ci, account, audience.as_str()),
        (other, ci, account, of_other.as_str()),
        (client, "https://unknown.example.com", account, audience.as_str()),
        (client, ci, "somebody", audience.as_str()),
        (client, ci, account, "api://AKSIdentityBinding/"),
        (client, ci, account, "api://AzureADTokenExchange"),
    ] {
        let token = issued(issuer, subject, audience, stand.now());
        let refused = stand.token(&ask(client, &token)).await;
        assert_eq!(
            refused.refusal(),
            (401, 700_211),
            "{client} {issuer} {subject} {audience}"
        );
    }
}
