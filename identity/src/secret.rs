//! Secrets: made, hashed, compared.

use std::num::NonZeroU32;

use aws_lc_rs::{pbkdf2, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// What OWASP advises for PBKDF2 with HMAC-SHA-256.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).expect("a constant above 0");
/// More than this in a stored hash would be an attack on our processor.
const MOST_ITERATIONS: u32 = 10_000_000;
/// The longest secret that is looked at, in bytes.
pub(crate) const MAX_SECRET_BYTES: usize = 1024;

/// Bytes from the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the operating system's random source is there once it has booted");
    bytes
}

/// A new secret of 32 random bytes, as text.
pub fn generate_secret() -> String {
    URL_SAFE_NO_PAD.encode(random::<32>())
}

/// A salted hash to store: `pbkdf2-sha256${iterations}${salt hex}${hash hex}`. Takes a few hundred milliseconds of one core.
pub fn hash_secret(secret: &str) -> String {
    let salt = random::<16>();
    let mut hash = [0; 32];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        ITERATIONS,
        &salt,
        secret.as_bytes(),
        &mut hash,
    );
    format!(
        "pbkdf2-sha256${ITERATIONS}${}${}",
        hex::encode(salt),
        hex::encode(hash)
    )
}

/// Whether a secret is the one behind a stored hash, in constant time. `false` for a hash that is none.
pub fn verify_secret(stored: &str, secret: &str) -> bool {
    let mut parts = stored.split('$');
    let (Some("pbkdf2-sha256"), Some(iterations), Some(salt), Some(hash), None) = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) else {
        return false;
    };
    let (Ok(iterations), Ok(salt), Ok(hash)) = (
        iterations.parse::<NonZeroU32>(),
        hex::decode(salt),
        hex::decode(hash),
    ) else {
        return false;
    };
    !hash.is_empty()
        && iterations.get() <= MOST_ITERATIONS
        && secret.len() <= MAX_SECRET_BYTES
        && pbkdf2::verify(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            &salt,
            secret.as_bytes(),
            &hash,
        )
        .is_ok()
}

/// A hash that no secret has, so that an unknown login costs as much time as a known one.
pub(crate) fn nobody() -> String {
    format!(
        "pbkdf2-sha256${ITERATIONS}${}${}",
        hex::encode([0; 16]),
        hex::encode([0; 32])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_itself_matches() {
        let secret = generate_secret();
        let hash = hash_secret(&secret);
        assert!(verify_secret(&hash, &secret));
        assert!(!verify_secret(&hash, &format!("{secret}x")));
        assert!(!hash.contains(&secret));
        assert_ne!(hash, hash_secret(&secret), "salted");
    }

    #[test]
    fn what_is_no_hash_matches_nothing() {
        for stored in [
            "",
            "$",
            "plain",
            "pbkdf2-sha256$0$00$00",
            "pbkdf2-sha256$1$zz$00",
            "pbkdf2-sha256$1$00$",
            "a$b$c$d$e",
        ] {
            assert!(!verify_secret(stored, ""), "{stored}");
        }
        assert!(!verify_secret(&nobody(), ""));
    }
}
