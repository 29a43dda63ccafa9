//! Tokens: their claims and their validity. JWTs, RS256.
//!
//! Always true: a token is signed by one of our keys, names our issuer, the tenant and an audience of ours, and is valid for an hour, unless
//! its principal is removed or disabled, or all earlier tokens of the principal were revoked.

use std::sync::Arc;

use arm_wire::{Principal, PrincipalKind};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use control_records::PrincipalRecord;
use control_store::StoreError;
use jiff::Timestamp;
use jsonwebtoken::{Header, Validation, decode, decode_header, encode};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{SigningKeys, TOKEN_LIFETIME, keys::ALGORITHM, secret::random, shape::Shape};

/// Longer tokens are refused unread.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Groups in a token. A token of a principal with more groups only states that there are some: a header must hold the token.
const MOST_GROUPS: usize = 150;
/// The capability that a client declares, and its tokens repeat, for being sent to fetch another token with a `claims` challenge.
pub(crate) const CAPABLE: &str = "cp1";

/// Why a token is not valid.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There is no `Authorization: Bearer` header.
    #[error("the Authorization header with a bearer token is missing")]
    Missing,
    /// Not a JWT of ours.
    #[error("the access token is malformed or was not signed by this stamp")]
    Malformed,
    /// Another audience.
    #[error("the access token is for another audience; ask for '{0}/.default'")]
    Audience(String),
    /// Another issuer.
    #[error("the access token is of another issuer")]
    Issuer,
    /// Expired.
    #[error("the access token expired at {0}")]
    Expired(Timestamp),
    /// Not valid yet.
    #[error("the access token is not valid before {0}")]
    NotYet(Timestamp),
    /// The principal does not exist any more.
    #[error("the principal of the access token does not exist any more")]
    Gone,
    /// The principal is disabled.
    #[error("the principal of the access token is disabled")]
    Disabled,
    /// Earlier tokens of the principal were revoked.
    #[error("the access token was revoked")]
    Revoked,
    /// The store failed.
    #[error("the principal of the access token cannot be read")]
    Store(#[from] StoreError),
}

impl TokenError {
    /// Whether another token may be valid where this one is not.
    fn is_mended_by_another(&self) -> bool {
        matches!(self, Self::Malformed | Self::Issuer | Self::Revoked)
    }
}

/// All claims that we issue and read.
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
    /// Id tokens only: the value that the client sent, to match the answer with its request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) nonce: String,
    /// Access tokens only: capabilities of the client.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) xms_cc: Vec<String>,
    /// Access tokens only: the groups of the principal, direct and nested.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) groups: Vec<String>,
    /// Access tokens only: there are more groups than fit; clients read them from Graph.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) hasgroups: bool,
}

/// Number of tokens whose verified signature is remembered: a verification takes longer than all other work of a small request.
/// Only tokens of ours are remembered, so other callers cannot displace them.
const MOST_VERIFIED: usize = 1024;

/// A token with a verified signature.
#[derive(Debug)]
pub(crate) struct Signed {
    /// The id of the signing key.
    key: String,
    /// Its claims.
    pub(crate) claims: Claims,
}

/// The SHA-256 of a token, so that the memory of the service holds no token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Digest([u8; 32]);

impl Digest {
    fn of(token: &str) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

/// Tokens with a verified signature. Their validity is decided at each use.
#[derive(Debug)]
pub(crate) struct Verified(Cache<Digest, Arc<Signed>>);

impl Default for Verified {
    fn default() -> Self {
        Self(Cache::new(MOST_VERIFIED))
    }
}

/// The subject of tokens.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The principal.
    pub(crate) to: &'a PrincipalRecord,
    /// The shape of the request.
    pub(crate) shape: Shape,
    /// The client of the request.
    pub(crate) client: &'a str,
    /// Whether the client understands a `claims` challenge.
    pub(crate) capable: bool,
    /// The groups of the principal, direct and nested.
    pub(crate) groups: &'a [String],
}

/// Signs and checks tokens. Pure but for the randomness of `uti`.
pub(crate) struct Tokens {
    pub(crate) keys: SigningKeys,
    /// Claims of tokens with a verified signature.
    pub(crate) verified: Verified,
    /// The issuers of AAD's shape, and of AD FS's.
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

    fn claims(&self, subject: Subject<'_>, audience: &str, now: Timestamp) -> Claims {
        let (to, from) = (subject.to, now.as_second());
        let mut claims = Claims {
            aud: audience.to_owned(),
            iss: self.issuer(subject.shape).to_owned(),
            // Claims have seconds only: a token issued within the second of a revocation, after it, counts as issued at the end of that second.
            iat: to.valid_from.map_or(from, |valid| from.max(ceil(valid))),
            nbf: from,
            exp: from.saturating_add_unsigned(TOKEN_LIFETIME.as_secs()),
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

    /// Claims as a token, signed.
    pub(crate) fn sign<T: Serialize>(&self, claims: &T, now: Timestamp) -> String {
        let key = self.keys.signer(now);
        let mut header = Header::new(ALGORITHM);
        header.kid = Some(key.id.clone());
        encode(&header, claims, &key.encoding).expect("the key was used for its own JWK when it was loaded")
    }

    /// An access token.
    pub(crate) fn access(&self, subject: Subject<'_>, audience: &str, now: Timestamp) -> String {
        let mut claims = self.claims(subject, audience, now);
        subject.client.clone_into(&mut claims.appid);
        if subject.capable {
            claims.xms_cc.push(CAPABLE.to_owned());
        }
        if subject.groups.len() > MOST_GROUPS {
            claims.hasgroups = true;
        } else {
            claims.groups = subject.groups.to_vec();
        }
        self.sign(&claims, now)
    }

    /// An id token for the client.
    pub(crate) fn id(&self, subject: Subject<'_>, nonce: Option<&str>, now: Timestamp) -> String {
        let mut claims = self.claims(subject, subject.client, now);
        claims.nonce = nonce.unwrap_or_default().to_owned();
        self.sign(&claims, now)
    }

    /// The claims of a token that one of our keys has signed; nothing else of it is checked.
    pub(crate) fn read<T: DeserializeOwned>(&self, token: &str, now: Timestamp) -> Option<T> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let id = decode_header(token).ok()?.kid?;
        let key = self.keys.find(&id, now)?;
        let read = decode::<T>(token, &key.decoding, &signature_only(&[ALGORITHM]));
        read.ok().map(|read| read.claims)
    }

    /// The claims of a token of ours for one of `audiences`.
    pub(crate) fn check(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Arc<Signed>, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let signed = self.signed(token, now)?;
        let claims = &signed.claims;
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
        Ok(signed)
    }

    /// The claims of a token that one of our keys has signed. The signature is verified once; whether the key is still ours, at each use.
    fn signed(&self, token: &str, now: Timestamp) -> Result<Arc<Signed>, TokenError> {
        let digest = Digest::of(token);
        if let Some(signed) = self.verified.0.get(&digest) {
            return match self.keys.find(&signed.key, now) {
                Some(_) => Ok(signed),
                None => Err(TokenError::Malformed),
            };
        }
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        let key = header
            .kid
            .and_then(|id| self.keys.find(&id, now))
            .ok_or(TokenError::Malformed)?;
        let claims = decode::<Claims>(token, &key.decoding, &signature_only(&[ALGORITHM]))
            .map_err(|_| TokenError::Malformed)?
            .claims;
        let signed = Arc::new(Signed {
            key: key.id.clone(),
            claims,
        });
        self.verified.0.insert(digest, Arc::clone(&signed));
        Ok(signed)
    }

    /// The challenge for a client whose token is not valid: the token endpoint, the reason, and, for clients with that capability, the request
    /// to fetch another token at once.
    pub(crate) fn challenge(
        &self,
        authority: &str,
        problem: &TokenError,
        token: Option<&str>,
        now: Timestamp,
    ) -> String {
        let mut challenge = format!("Bearer authorization_uri=\"{authority}\"");
        let token = token.filter(|token| token.len() <= MAX_TOKEN_BYTES);
        if matches!(problem, TokenError::Missing) {
            return challenge;
        }
        // The origin of the token is unknown here: the challenge only makes a client try again, which is always allowed.
        let claims = token.and_then(|token| jsonwebtoken::dangerous::insecure_decode::<Claims>(token).ok());
        let again = claims.is_some_and(|read| {
            read.claims.tid == self.tenant_id && read.claims.xms_cc.iter().any(|can| can == CAPABLE)
        });
        if again && problem.is_mended_by_another() {
            let wanted = json!({ "access_token": { "nbf": { "essential": true, "value": now.as_second().to_string() } } });
            let wanted = STANDARD.encode(wanted.to_string());
            challenge.push_str(&format!(
                ", error=\"insufficient_claims\", error_description=\"{problem}\", claims=\"{wanted}\""
            ));
        } else {
            challenge.push_str(&format!(
                ", error=\"invalid_token\", error_description=\"{problem}\""
            ));
        }
        challenge
    }
}

/// Verifies the signature only: callers check times, audience and issuer with their own clock, each with its
/// own error.
pub(crate) fn signature_only(algorithms: &[jsonwebtoken::Algorithm]) -> Validation {
    let mut validation = Validation {
        algorithms: algorithms.to_vec(),
        validate_exp: false,
        validate_nbf: false,
        validate_aud: false,
        ..Validation::default()
    };
    validation.required_spec_claims.clear();
    validation
}

/// The first whole second that is not earlier.
fn ceil(at: Timestamp) -> i64 {
    at.as_second() + i64::from(at.subsec_nanosecond() > 0)
}

/// Whether a token issued at this second is valid for this principal at all.
pub(crate) fn admits(record: &PrincipalRecord, iat: i64) -> Result<(), TokenError> {
    if record.disabled {
        return Err(TokenError::Disabled);
    }
    match record.valid_from {
        Some(from) if iat < ceil(from) => Err(TokenError::Revoked),
        _ => Ok(()),
    }
}

/// Resources compare without trailing slashes: clients add `/.default` to both forms.
pub(crate) fn same_resource(a: &str, b: &str) -> bool {
    a.trim_end_matches('/')
        .eq_ignore_ascii_case(b.trim_end_matches('/'))
}

/// Whether two resources are URLs with the same non-empty path, at any hosts.
pub(crate) fn same_path(a: &str, b: &str) -> bool {
    let path = |url: &str| {
        let rest = url.trim_end_matches('/').strip_prefix("https://")?;
        let (_, path) = rest.split_once('/')?;
        (!path.is_empty()).then(|| path.to_ascii_lowercase())
    };
    path(a).is_some() && path(a) == path(b)
}

/// A value that changes with the secret and does not reveal it.
pub(crate) fn fingerprint(record: &PrincipalRecord) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, record.secret_hash.as_bytes());
    hex::encode(&digest.as_ref()[..16])
}

/// The record's kind.
pub(crate) fn kind(record: &PrincipalRecord) -> PrincipalKind {
    if record.kind == PrincipalKind::User.as_str() {
        PrincipalKind::User
    } else {
        PrincipalKind::Application
    }
}

/// The record as the edge passes it to providers.
pub(crate) fn principal(record: &PrincipalRecord, tenant_id: &str) -> Principal {
    Principal {
        kind: kind(record),
        object_id: record.object_id.clone(),
        name: record.login.clone(),
        tenant_id: tenant_id.to_owned(),
    }
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
