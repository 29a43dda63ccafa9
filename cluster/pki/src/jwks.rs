//! The public keys of a cluster's service accounts as others read them: a JSON Web Key Set, as the API server publishes it.

use aws_lc_rs::digest;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use crate::{ClusterPki, PkiError};

/// The prefix of the point in the `SubjectPublicKeyInfo` of a P-256 key, the only curve of [`ClusterPki`]'s
/// keys.
const P256: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// The algorithm of service accounts' tokens.
pub const SERVICE_ACCOUNT_ALGORITHM: &str = "ES256";

impl ClusterPki {
    /// PEM of the keys that service accounts' tokens are checked with: of the one that signs first, then of those that are to come or were there.
    pub fn service_account_public_keys(&self) -> impl Iterator<Item = &str> {
        let next = self.next_service_account_key.as_ref();
        std::iter::once(self.service_account_public_key.as_str())
            .chain(next.map(|next| next.public_key.as_str()))
            .chain(self.former_service_account_key.as_deref())
    }

    /// The keys that service accounts' tokens are checked with, each under the id that the API server writes into them.
    ///
    /// # Errors
    /// When a key is not one that this release makes.
    pub fn service_account_jwks(&self) -> Result<Value, PkiError> {
        let keys: Result<Vec<Value>, PkiError> = self.service_account_public_keys().map(jwk).collect();
        Ok(json!({ "keys": keys? }))
    }
}

fn jwk(pem: &str) -> Result<Value, PkiError> {
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .map(str::trim)
        .collect();
    let der = STANDARD.decode(body).map_err(|_| PkiError::PublicKey)?;
    let point = der.strip_prefix(&P256).ok_or(PkiError::PublicKey)?;
    let (x, y) = point.split_at_checked(32).ok_or(PkiError::PublicKey)?;
    if y.len() != 32 {
        return Err(PkiError::PublicKey);
    }
    let id = digest::digest(&digest::SHA256, &der);
    Ok(json!({
        "use": "sig", "kty": "EC", "crv": "P-256", "alg": SERVICE_ACCOUNT_ALGORITHM,
        "kid": URL_SAFE_NO_PAD.encode(id),
        "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
    }))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    /// Made with `openssl ecparam -name prime256v1 -genkey | openssl pkey -pubout`; point and digest read with openssl as well.
    const KNOWN: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEN1yPtjWDB29oY0e4F8ehzjG/eeFK\nA3JhcYUzw5wYZjN2xtyHbYvlTGTa9R0EvZfmUQLkZXy6HXoIkECF3UAW0g==\n-----END PUBLIC KEY-----\n";

    #[test]
    fn a_known_key_has_the_coordinates_and_the_id_that_others_see() {
        let mut pki = ClusterPki::generate(Timestamp::UNIX_EPOCH).unwrap();
        KNOWN.clone_into(&mut pki.service_account_public_key);
        let key = pki.service_account_jwks().unwrap()["keys"][0].clone();
        assert_eq!(key["x"], "N1yPtjWDB29oY0e4F8ehzjG_eeFKA3JhcYUzw5wYZjM");
        assert_eq!(key["y"], "dsbch22L5Uxk2vUdBL2X5lEC5GV8uh16CJBAhd1AFtI");
        assert_eq!(key["kid"], "6tpZV3NGMC5bYR-eJc8cHv8Uj1MuDumaxJH18vk7eBg");
        assert!(key.get("d").is_none());
    }

    #[test]
    fn every_cluster_has_a_key_of_its_own_and_what_is_none_is_told() {
        let mut pki = ClusterPki::generate(Timestamp::UNIX_EPOCH).unwrap();
        let other = ClusterPki::generate(Timestamp::UNIX_EPOCH).unwrap();
        assert_ne!(
            pki.service_account_jwks().unwrap(),
            other.service_account_jwks().unwrap()
        );
        for bad in [
            "",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "?",
        ] {
            bad.clone_into(&mut pki.service_account_public_key);
            assert!(
                matches!(pki.service_account_jwks(), Err(PkiError::PublicKey)),
                "{bad}"
            );
        }
    }
}
