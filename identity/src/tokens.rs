//! Tokens: what they say, how they are issued, when they hold.

use std::time::Duration;

use arm_wire::{Principal, PrincipalKind};
use control_records::PrincipalRecord;
use control_store::StoreError;
use jiff::Timestamp;
use jsonwebtoken::{Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use crate::{SigningKey, keys::ALGORITHM, secret::random, shape::Shape};

/// How long an access token or id token is good.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// How long a refresh token is good.
const REFRESH_LIFETIME: Duration = Duration::from_secs(14 * 86_400);
/// Longer ones are not looked at.
const MAX_TOKEN_BYTES: usize = 8192;

/// Why a token does not hold.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There is no `Authorization: Bearer` header.
    #[error("the Authorization header with a bearer token is missing")]
    Missing,
    /// Not a JWT of ours.
    #[error("the access token is malformed or was signed by somebody else")]
    Malformed,
    /// For somebody else.
    #[error("the access token is for another audience; ask for '{0}/.default'")]
    Audience(String),
    /// Of somebody else.
    #[error("the access token is of another issuer")]
    Issuer,
    /// Too old.
    #[error("the access token expired at {0}")]
    Expired(Timestamp),
    /// Too young.
    #[error("the access token is not valid before {0}")]
    NotYet(Timestamp),
    /// Its principal is gone.
    #[error("the principal of the access token does not exist any more")]
    Gone,
    /// The store failed.
    #[error("the principal of the access token cannot be read")]
    Store(#[from] StoreError),
}

/// All claims we issue and read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Claims {
    pub(crate) aud: String,
    pub(crate) iss: String,
    pub(crate) iat: i64,
    pub(crate) nbf: i64,
    pub(crate) exp: i64,
    pub(crate) sub: String,
    pub(crate) oid: String,
    pub(crate) tid: String,
    pub(crate) ver: String,
    pub(crate) uti: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) appid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) idtyp: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) upn: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) unique_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) preferred_username: String,
    /// Refresh tokens only: which secret they were given for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) fingerprint: String,
}

/// Signs and checks. Pure but for the randomness of `uti`.
pub(crate) struct Tokens {
    pub(crate) key: SigningKey,
    /// Of AAD's shape, and of AD FS's.
    pub(crate) issuers: [String; 2],
    pub(crate) tenant_id: String,
}

impl Tokens {
    fn issuer(&self, shape: Shape) -> &str {
        let [aad, adfs] = &self.issuers;
        match shape {
            Shape::Aad => aad,
            Shape::AdFs => adfs,
        }
    }

    fn claims(
        &self,
        to: &PrincipalRecord,
        shape: Shape,
        audience: &str,
        now: Timestamp,
        lifetime: Duration,
    ) -> Claims {
        let now = now.as_second();
        let mut claims = Claims {
            aud: audience.to_owned(),
            iss: self.issuer(shape).to_owned(),
            iat: now,
            nbf: now,
            exp: now.saturating_add_unsigned(lifetime.as_secs()),
            sub: to.object_id.clone(),
            oid: to.object_id.clone(),
            tid: self.tenant_id.clone(),
            ver: "1.0".to_owned(),
            uti: hex::encode(random::<16>()),
            ..Claims::default()
        };
        if kind(to) == PrincipalKind::User {
            claims.name.clone_from(&to.display_name);
            claims.upn.clone_from(&to.login);
            claims.unique_name.clone_from(&to.login);
            claims.preferred_username.clone_from(&to.login);
            claims.idtyp = "user".to_owned();
        } else {
            claims.appid.clone_from(&to.login);
            claims.idtyp = "app".to_owned();
        }
        claims
    }

    fn sign(&self, claims: &Claims) -> String {
        let mut header = Header::new(ALGORITHM);
        header.kid = Some(self.key.id.clone());
        encode(&header, claims, &self.key.encoding)
            .expect("the key was used for its own JWK when it was loaded")
    }

    /// An access token.
    pub(crate) fn access(
        &self,
        to: &PrincipalRecord,
        shape: Shape,
        client: &str,
        audience: &str,
        now: Timestamp,
    ) -> String {
        let mut claims = self.claims(to, shape, audience, now, TOKEN_LIFETIME);
        client.clone_into(&mut claims.appid);
        self.sign(&claims)
    }

    /// An id token for the client.
    pub(crate) fn id(&self, to: &PrincipalRecord, shape: Shape, client: &str, now: Timestamp) -> String {
        self.sign(&self.claims(to, shape, client, now, TOKEN_LIFETIME))
    }

    /// A refresh token; worthless after the secret changed.
    pub(crate) fn refresh(&self, to: &PrincipalRecord, client: &str, now: Timestamp) -> String {
        let mut claims = self.claims(to, Shape::AdFs, &self.refresh_audience(), now, REFRESH_LIFETIME);
        client.clone_into(&mut claims.appid);
        claims.fingerprint = fingerprint(to);
        self.sign(&claims)
    }

    fn refresh_audience(&self) -> String {
        format!("{}/refresh", self.issuer(Shape::AdFs))
    }

    /// The claims of a token of ours for one of `audiences`.
    pub(crate) fn check(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let mut validation = Validation::new(ALGORITHM);
        // Times, audience and issuer are checked below: against the clock that was handed in, and each with its own error.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims = decode::<Claims>(token, &self.key.decoding, &validation)
            .map_err(|_| TokenError::Malformed)?
            .claims;
        if !self.issuers.contains(&claims.iss) || claims.tid != self.tenant_id {
            return Err(TokenError::Issuer);
        }
        if !audiences.iter().any(|own| same_resource(own, &claims.aud)) {
            return Err(TokenError::Audience(
                audiences.first().cloned().unwrap_or_default(),
            ));
        }
        let time = |seconds| Timestamp::from_second(seconds).map_err(|_| TokenError::Malformed);
        let (from, until) = (time(claims.nbf)?, time(claims.exp)?);
        if now >= until {
            return Err(TokenError::Expired(until));
        }
        if now < from {
            return Err(TokenError::NotYet(from));
        }
        Ok(claims)
    }

    /// The claims of a refresh token for this client.
    pub(crate) fn check_refresh(
        &self,
        token: &str,
        client: &str,
        now: Timestamp,
    ) -> Result<Claims, TokenError> {
        let claims = self.check(token, &[self.refresh_audience()], now)?;
        if claims.appid == client {
            Ok(claims)
        } else {
            Err(TokenError::Malformed)
        }
    }
}

/// Resources compare without trailing slashes: clients add `/.default` to both forms.
pub(crate) fn same_resource(a: &str, b: &str) -> bool {
    a.trim_end_matches('/')
        .eq_ignore_ascii_case(b.trim_end_matches('/'))
}

/// What changes when the secret does, and tells nothing about it.
pub(crate) fn fingerprint(record: &PrincipalRecord) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, record.secret_hash.as_bytes());
    hex::encode(&digest.as_ref()[..16])
}

/// A record's kind.
pub(crate) fn kind(record: &PrincipalRecord) -> PrincipalKind {
    if record.kind == PrincipalKind::User.as_str() {
        PrincipalKind::User
    } else {
        PrincipalKind::Application
    }
}

/// A record as the edge hands it to providers.
pub(crate) fn principal(record: PrincipalRecord, tenant_id: &str) -> Principal {
    Principal {
        kind: kind(&record),
        object_id: record.object_id,
        name: record.login,
        tenant_id: tenant_id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    fn tokens() -> Tokens {
        Tokens {
            key: SigningKey::generate().unwrap(),
            issuers: ["https://h/t/v2.0", "https://h/adfs"].map(str::to_owned),
            tenant_id: "t".to_owned(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ada() -> PrincipalRecord {
        PrincipalRecord {
            v: 1,
            object_id: "o".to_owned(),
            login: "ada@local".to_owned(),
            kind: "User".to_owned(),
            display_name: "Ada".to_owned(),
            secret_hash: "h".to_owned(),
            created_at: at(0),
            disabled: false,
            credentials: Vec::new(),
            valid_from: None,
        }
    }

    #[test]
    fn a_token_holds_for_its_audience_and_its_hour() {
        let tokens = tokens();
        let token = tokens.access(&ada(), Shape::Aad, "cli", "https://a/", at(1000));
        let arm = ["https://a".to_owned()];
        assert_eq!(tokens.check(&token, &arm, at(1000)).unwrap().oid, "o");
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
        let other = Tokens {
            issuers: ["https://x/t/v2.0", "https://x/adfs"].map(str::to_owned),
            key: SigningKey::from_pem(tokens.key.to_pem()).unwrap(),
            tenant_id: "t".to_owned(),
        };
        assert!(matches!(
            other.check(&token, &arm, at(1000)),
            Err(TokenError::Issuer)
        ));
    }

    #[test]
    fn foreign_changed_unsigned_and_misused_tokens_do_not_hold() {
        let (tokens, stranger) = (tokens(), tokens());
        let arm = ["https://a".to_owned()];
        let token = tokens.access(&ada(), Shape::Aad, "cli", "https://a", at(1000));
        let parts: Vec<&str> = token.split('.').collect();
        let none = format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#),
            parts[1]
        );
        let changed = format!(
            "{}.{}.{}",
            parts[0],
            URL_SAFE_NO_PAD.encode(r#"{"aud":"https://a"}"#),
            parts[2]
        );
        let long = "a".repeat(MAX_TOKEN_BYTES + 1);
        let foreign = stranger.access(&ada(), Shape::Aad, "cli", "https://a", at(1000));
        for bad in ["", "x", "a.b.c", &none, &changed, &long, &foreign] {
            assert!(
                matches!(tokens.check(bad, &arm, at(1000)), Err(TokenError::Malformed)),
                "{bad}"
            );
        }
        let refresh = tokens.refresh(&ada(), "cli", at(1000));
        assert!(matches!(
            tokens.check(&refresh, &arm, at(1000)),
            Err(TokenError::Audience(_))
        ));
        assert!(tokens.check_refresh(&refresh, "cli", at(100_000)).is_ok());
        assert!(tokens.check_refresh(&refresh, "other", at(1000)).is_err());
        assert!(tokens.check_refresh(&token, "cli", at(1000)).is_err());
        let id = tokens.id(&ada(), Shape::Aad, "cli", at(1000));
        assert!(tokens.check(&id, &arm, at(1000)).is_err());
    }
}
