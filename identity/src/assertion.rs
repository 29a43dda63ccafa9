//! Signed tokens that an application presents instead of a secret: signed with its own certificate, or by
//! another issuer that its record trusts (a cluster, a CI system).
//!
//! Always true: decisions depend only on the token, the records and the keys, without I/O; before its
//! signature is verified, a token is used only to find the key.
//!
//! Times in tokens may have fractions: the Azure CLI's have.

use std::sync::Mutex;

use aws_lc_rs::{constant_time, digest};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use control_records::{Credential, PrincipalRecord, Proof};
use jiff::Timestamp;
use jsonwebtoken::{
    Algorithm, DecodingKey, Header, decode,
    jwk::{Jwk, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;
use x509_parser::{oid_registry::OID_PKCS1_RSAENCRYPTION, parse_x509_certificate};

use crate::{
    refusal::Refusal,
    throttle::{LruMap, Origin},
    tokens::signature_only,
};

/// The value of `client_assertion_type`.
pub(crate) const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Longer tokens are refused.
const MAX_BYTES: usize = 16 * 1024;
/// The largest error of clients' clocks, in seconds.
const SKEW: f64 = 300.0;
/// The longest validity of a token that an application signs itself, in seconds.
const LONGEST: f64 = 86_400.0;
/// How often a token may be presented: libraries present the same one for each resource, as long as it is
/// valid.
const MOST_USES: u32 = 64;

/// The audience of a token that is presented by way of an identity binding, followed by the client id. The
/// cluster's API server issues one only for a service account that may use the identity.
const BINDING: &str = "api://AKSIdentityBinding/";
/// Prefix of the subjects of service accounts.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// The claims that are used. All others are ignored.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Claims {
    #[serde(default)]
    pub(crate) iss: String,
    #[serde(default)]
    pub(crate) sub: String,
    #[serde(default)]
    aud: Audience,
    exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Audience {
    fn any(&self, is_ours: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::One(one) => is_ours(one),
            Self::Many(all) => all.iter().any(|one| is_ours(one)),
        }
    }
}

/// A token before its signature is checked.
#[derive(Debug)]
pub(crate) struct Shown<'a> {
    text: &'a str,
    pub(crate) header: Header,
    pub(crate) claims: Claims,
}

fn refused(code: u32, text: impl Into<String>) -> Refusal {
    Refusal::new("invalid_client", code, text)
}

/// Reads a token.
pub(crate) fn read(text: &str) -> Result<Shown<'_>, Refusal> {
    let malformed = || {
        refused(
            50_027,
            "the client assertion is not a signed JWT with the claims that it needs",
        )
    };
    if text.len() > MAX_BYTES {
        return Err(malformed());
    }
    let read = jsonwebtoken::dangerous::insecure_decode::<Claims>(text).map_err(|_| malformed())?;
    Ok(Shown {
        text,
        header: read.header,
        claims: read.claims,
    })
}

impl Shown<'_> {
    /// Whether the token claims to be signed by the application itself.
    pub(crate) fn is_own(&self, client: &str) -> bool {
        self.claims.iss.eq_ignore_ascii_case(client) && self.claims.sub.eq_ignore_ascii_case(client)
    }

    /// Identifies this token among all others.
    fn digest(&self) -> [u8; 32] {
        let signed = self.text.rsplit_once('.').map_or(self.text, |(signed, _)| signed);
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, signed.as_bytes()).as_ref());
        hash
    }

    fn check_times(&self, now: Timestamp, longest: Option<f64>) -> Result<(), Refusal> {
        let Claims { exp, nbf, iat, .. } = self.claims;
        #[expect(
            clippy::cast_precision_loss,
            reason = "a time in seconds needs 31 of the 53 bits"
        )]
        let now = now.as_second() as f64;
        let finite = [Some(exp), nbf, iat].into_iter().flatten().all(f64::is_finite);
        if !finite || exp + SKEW <= now {
            return Err(refused(700_024, "the client assertion is expired"));
        }
        if [nbf, iat].into_iter().flatten().any(|from| from > now + SKEW) {
            return Err(refused(700_024, "the client assertion is not valid yet"));
        }
        if longest.is_some_and(|longest| exp > now + longest + SKEW) {
            return Err(refused(
                700_024,
                "the client assertion is valid for too long; a day is the most",
            ));
        }
        Ok(())
    }

    fn is_signed_by(&self, key: &DecodingKey, algorithms: &[Algorithm]) -> bool {
        decode::<Value>(self.text, key, &signature_only(algorithms)).is_ok()
    }

    /// Verifies a token that an application signed with a certificate in its record.
    pub(crate) fn check_certificate(
        &self,
        application: &PrincipalRecord,
        is_token_endpoint: impl Fn(&str) -> bool,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let not_found = || {
            refused(
                700_027,
                "the client assertion has no valid signature: the application has no certificate of this thumbprint",
            )
        };
        let named = thumbprint_named(&self.header).ok_or_else(|| {
            refused(
                700_027,
                "the client assertion names no certificate: its header needs x5t or x5t#S256",
            )
        })?;
        let certificate = application
            .credentials
            .iter()
            .find_map(|credential| match &credential.proof {
                Proof::Certificate { der } => {
                    let der = STANDARD.decode(der).ok()?;
                    named.is_of(&der).then_some((credential, der))
                }
                _ => None,
            });
        let (credential, der) = certificate.ok_or_else(not_found)?;
        let key = public_key(credential, &der, now)?;
        if !self.is_signed_by(&key, &[Algorithm::RS256, Algorithm::PS256]) {
            return Err(refused(
                700_027,
                "the client assertion has no valid signature: it was not signed with the key of the certificate",
            ));
        }
        self.check_times(now, Some(LONGEST))?;
        if !self.claims.aud.any(is_token_endpoint) {
            return Err(refused(
                700_023,
                "the client assertion is for another audience; it has to be the token endpoint",
            ));
        }
        Ok(())
    }

    /// The credential of an application that trusts this token, if its signature is valid.
    pub(crate) fn federated<'a>(
        &self,
        application: &'a PrincipalRecord,
        now: Timestamp,
    ) -> Result<&'a Credential, Refusal> {
        let mut best = (700_211, "issuer");
        for credential in &application.credentials {
            let Proof::Federated {
                issuer,
                subject,
                audiences,
                ..
            } = &credential.proof
            else {
                continue;
            };
            if credential.expires_at.is_some_and(|until| until <= now) || *issuer != self.claims.iss {
                continue;
            }
            if *subject != self.claims.sub {
                best = (700_213, "subject");
            } else if !self.claims.aud.any(|one| audiences.iter().any(|own| own == one)) {
                best = (700_212, "audience");
            } else {
                return Ok(credential);
            }
        }
        let (code, what) = best;
        Err(refused(
            code,
            format!("the application has no federated credential for the {what} of the client assertion"),
        ))
    }

    /// Whether this is a token that a cluster issued to a service account for this managed identity
    /// ([`BINDING`]).
    pub(crate) fn is_by_binding(&self, identity: &PrincipalRecord) -> bool {
        let audience = format!("{BINDING}{}", identity.login);
        identity.resource.is_some()
            && self.claims.sub.starts_with(SERVICE_ACCOUNT)
            && self.claims.aud.any(|one| one == audience)
    }

    /// Verifies a token of another issuer, with its keys.
    pub(crate) fn check_federated(&self, keys: &Value, now: Timestamp) -> Result<(), Refusal> {
        let kid = self.header.kid.as_deref();
        let keys = keys["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        // Keys of unknown kinds are skipped.
        let known = keys
            .iter()
            .filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok());
        let is_signed = known
            .filter(|key| kid.is_none() || key.common.key_id.as_deref() == kid)
            .filter(|key| !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption)))
            .any(|key| {
                DecodingKey::from_jwk(&key).is_ok_and(|key| {
                    let algorithms: Vec<Algorithm> = SIGNATURES
                        .iter()
                        .copied()
                        .filter(|algorithm| algorithm.family() == key.family())
                        .collect();
                    self.is_signed_by(&key, &algorithms)
                })
            });
        if !is_signed {
            return Err(refused(
                700_027,
                "the client assertion has no valid signature: its issuer has no such key",
            ));
        }
        self.check_times(now, None)
    }

    /// Whether its issuer's keys contain the one that it names.
    pub(crate) fn is_in(&self, keys: &Value) -> bool {
        let Some(kid) = &self.header.kid else { return true };
        let keys = keys["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        keys.iter().any(|key| key["kid"] == *kid.as_str())
    }
}

/// Signature algorithms of other issuers: only asymmetric ones.
const SIGNATURES: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The certificate of a signature, as the token's header names it.
enum Thumbprint {
    Sha1(Vec<u8>),
    Sha256(Vec<u8>),
}

fn thumbprint_named(header: &Header) -> Option<Thumbprint> {
    // Some libraries pad it.
    let bytes = |text: &String| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
    let sha256 = header.x5t_s256.as_ref().and_then(bytes).map(Thumbprint::Sha256);
    let sha1 = || header.x5t.as_ref().and_then(bytes).map(Thumbprint::Sha1);
    // And some have it as the key's id, in hexadecimal.
    let kid = || {
        let kid = hex::decode(header.kid.as_ref()?).ok()?;
        Some(if kid.len() == 20 {
            Thumbprint::Sha1(kid)
        } else {
            Thumbprint::Sha256(kid)
        })
    };
    sha256.or_else(sha1).or_else(kid)
}

impl Thumbprint {
    fn is_of(&self, der: &[u8]) -> bool {
        let (named, algorithm) = match self {
            Self::Sha1(named) => (named, &digest::SHA1_FOR_LEGACY_USE_ONLY),
            Self::Sha256(named) => (named, &digest::SHA256),
        };
        constant_time::verify_slices_are_equal(digest::digest(algorithm, der).as_ref(), named).is_ok()
    }
}

/// The key of a certificate that is valid now.
fn public_key(credential: &Credential, der: &[u8], now: Timestamp) -> Result<DecodingKey, Refusal> {
    let unusable = || {
        refused(
            700_027,
            "the certificate of the application has no RSA key that can be used",
        )
    };
    let (_, certificate) = parse_x509_certificate(der).map_err(|_| unusable())?;
    let (from, until) = (
        certificate.validity().not_before.timestamp(),
        certificate.validity().not_after.timestamp(),
    );
    let is_over = credential.expires_at.is_some_and(|until| until <= now);
    if is_over || now.as_second() < from || now.as_second() > until {
        return Err(refused(
            7_000_222,
            "the certificate is expired, or not valid yet; give the application another",
        ));
    }
    let key = certificate.public_key();
    if key.algorithm.algorithm != OID_PKCS1_RSAENCRYPTION {
        return Err(unusable());
    }
    Ok(DecodingKey::from_rsa_der(&key.subject_public_key.data))
}

/// Tokens that were presented. They limit the use of a stolen token: it is valid from one address only, and a
/// number of times.
pub(crate) struct Uses(Mutex<LruMap<[u8; 32], Use>>);

#[derive(Clone, Copy)]
struct Use {
    origin: Origin,
    count: u32,
}

impl Default for Uses {
    fn default() -> Self {
        Self(Mutex::new(LruMap::new()))
    }
}

impl Uses {
    /// Counts a use of a token whose signature was verified.
    pub(crate) fn count(&self, shown: &Shown<'_>, origin: Origin) -> Result<(), Refusal> {
        let mut uses = self.0.lock().expect("nothing panics while it holds this lock");
        let one = uses.entry(&shown.digest(), || Use { origin, count: 0 });
        one.count = one.count.saturating_add(1);
        if one.origin != origin {
            return Err(refused(
                700_027,
                "the client assertion was used from another address; sign a new one",
            ));
        }
        if one.count > MOST_USES {
            return Err(refused(
                700_027,
                "the client assertion was used too often; sign a new one",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "assertion_tests.rs"]
pub(crate) mod tests;
