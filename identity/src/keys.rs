//! A key that signs tokens.

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    jwk::{Jwk, ThumbprintHash},
};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

/// RSA: every OIDC client accepts RS256 by default (kube-apiserver by default accepts no other).
pub(crate) const ALGORITHM: Algorithm = Algorithm::RS256;

/// The reason why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key could not be made.
    #[error("the token signing key cannot be made")]
    Generate(#[source] rcgen::Error),
    /// The PEM is not an RSA private key.
    #[error("the token signing key is not an RSA private key in PEM; remove it and all clients log in again")]
    Pem(#[source] jsonwebtoken::errors::Error),
}

/// An RSA 2048 key pair and its JWK.
pub struct SigningKey {
    pub(crate) encoding: EncodingKey,
    pub(crate) decoding: DecodingKey,
    pub(crate) id: String,
    jwk: Value,
    pem: String,
}

impl SigningKey {
    /// A new key. Takes up to a second.
    ///
    /// # Errors
    /// When the cryptographic library refuses.
    pub fn generate() -> Result<Self, KeyError> {
        let pair =
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).map_err(KeyError::Generate)?;
        Self::from_pem(&pair.serialize_pem())
    }

    /// The key that [`SigningKey::to_pem`] gave.
    ///
    /// # Errors
    /// When the text is not an RSA private key in PEM.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let encoding = EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(KeyError::Pem)?;
        let jwk = Jwk::from_encoding_key(&encoding, ALGORITHM).map_err(KeyError::Pem)?;
        let decoding = DecodingKey::from_jwk(&jwk).map_err(KeyError::Pem)?;
        let id = jwk.thumbprint(ThumbprintHash::SHA256).map_err(KeyError::Pem)?;
        let mut jwk = serde_json::to_value(&jwk).map_err(|error| KeyError::Pem(error.into()))?;
        jwk["kid"] = json!(id);
        jwk["use"] = json!("sig");
        Ok(Self {
            encoding,
            decoding,
            id,
            jwk,
            pem: pem.to_owned(),
        })
    }

    /// The private key, PKCS #8 in PEM. A secret.
    pub fn to_pem(&self) -> &str {
        &self.pem
    }

    /// The public half as a JSON Web Key.
    pub(crate) fn jwk(&self) -> &Value {
        &self.jwk
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_pem_and_shows_only_its_public_half() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_pem(key.to_pem()).unwrap();
        assert_eq!(key.id, again.id);
        let jwk = key.jwk();
        assert_eq!(jwk["kty"], "RSA");
        assert_eq!(jwk["alg"], "RS256");
        assert!(jwk["n"].as_str().unwrap().len() > 300);
        for private in ["d", "p", "q", "dp", "dq", "qi"] {
            assert!(jwk.get(private).is_none(), "{private}");
        }
        assert!(!format!("{key:?}").contains("PRIVATE"));
        assert!(SigningKey::from_pem("no key").is_err());
    }
}
