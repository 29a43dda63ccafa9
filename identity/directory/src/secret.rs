//! Secrets: generation, hashing, comparison.
//!
//! | secret | stored as | comparing costs |
//! |---|---|---|
//! | made by us, 256 random bits | `sha256$SALT$HASH`, hexadecimal | nothing worth counting |
//! | chosen by a person | argon2id, as a PHC string | 19 MiB, tens of milliseconds of a core |
//! | either, from before | `pbkdf2-sha256$ITERATIONS$SALT$HASH` | hundreds of milliseconds of a core |
//!
//! A slow hash protects secrets that can be guessed. 256 random bits cannot be guessed, so for them it would
//! only let clients without credentials use up our processor.

use std::num::NonZeroU32;

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use aws_lc_rs::{constant_time, digest, pbkdf2, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// More iterations in a stored hash would be an attack on our processor.
const MOST_ITERATIONS: u32 = 10_000_000;
/// The longest secret that is checked, in bytes.
pub const MAX_SECRET_BYTES: usize = 1024;

/// A secret to be stored.
#[derive(Clone, Copy)]
pub enum Secret<'a> {
    /// Random, with 256 bits, from [`generate_secret`] or equivalent.
    Generated(&'a str),
    /// Chosen by a person, or of unknown origin.
    Chosen(&'a str),
}

impl<'a> Secret<'a> {
    /// The secret as text.
    pub fn text(self) -> &'a str {
        match self {
            Self::Generated(text) | Self::Chosen(text) => text,
        }
    }
}

/// Bytes from the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the operating system's random source is there once it has booted");
    bytes
}

/// A new secret of 32 random bytes, as text. It does not begin with `-`: a program that takes it as a
/// separate argument, such as `az login --password`, would take it for an option.
pub fn generate_secret() -> String {
    loop {
        let secret = URL_SAFE_NO_PAD.encode(random::<32>());
        if !secret.starts_with('-') {
            return secret;
        }
    }
}

/// A salted hash to store.
pub fn hash_secret(secret: Secret<'_>) -> String {
    match secret {
        Secret::Generated(text) => {
            let salt = random::<16>();
            format!(
                "sha256${}${}",
                hex::encode(salt),
                hex::encode(sha256(&salt, text))
            )
        }
        Secret::Chosen(text) => Argon2::default()
            .hash_password(text.as_bytes())
            .expect("the default parameters are valid, and there is a random source")
            .to_string(),
    }
}

fn sha256(salt: &[u8], secret: &str) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(salt);
    context.update(secret.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Whether comparing with this stored hash takes much processor time.
pub fn is_costly(stored: &str) -> bool {
    !stored.starts_with("sha256$")
}

/// Whether a secret matches a stored hash, in constant time. `false` for an invalid hash.
pub fn verify_secret(stored: &str, secret: &str) -> bool {
    if secret.len() > MAX_SECRET_BYTES {
        return false;
    }
    let parts: Vec<&str> = stored.split('$').collect();
    match parts.as_slice() {
        ["sha256", salt, hash] => {
            let (Ok(salt), Ok(hash)) = (hex::decode(salt), hex::decode(hash)) else {
                return false;
            };
            constant_time::verify_slices_are_equal(&sha256(&salt, secret), &hash).is_ok()
        }
        ["pbkdf2-sha256", iterations, salt, hash] => {
            let (Ok(iterations), Ok(salt), Ok(hash)) = (
                iterations.parse::<NonZeroU32>(),
                hex::decode(salt),
                hex::decode(hash),
            ) else {
                return false;
            };
            let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
            !hash.is_empty()
                && iterations.get() <= MOST_ITERATIONS
                && pbkdf2::verify(algorithm, iterations, &salt, secret.as_bytes(), &hash).is_ok()
        }
        ["", "argon2id", ..] => PasswordHash::new(stored).is_ok_and(|hash| {
            Argon2::default()
                .verify_password(secret.as_bytes(), &hash)
                .is_ok()
        }),
        _ => false,
    }
}

/// Whether a stored hash matches this secret, but has an outdated form.
pub fn is_outdated(stored: &str, secret: Secret<'_>) -> bool {
    matches!(secret, Secret::Generated(_)) && is_costly(stored) && verify_secret(stored, secret.text())
}

/// A hash that no secret matches, so that an unknown login costs as much time as a person's.
pub const DUMMY_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_secret_does_not_begin_like_an_option() {
        // One of 64 would.
        assert!((0..2_000).all(|_| !generate_secret().starts_with('-')));
    }

    #[test]
    fn only_the_secret_itself_matches() {
        let secret = generate_secret();
        for hash_of in [Secret::Generated, Secret::Chosen] {
            let hash = hash_secret(hash_of(&secret));
            assert!(verify_secret(&hash, &secret));
            assert!(!verify_secret(&hash, &format!("{secret}x")));
            assert!(!hash.contains(&secret));
            assert_ne!(hash, hash_secret(hash_of(&secret)), "salted");
        }
    }

    #[test]
    fn what_is_chosen_costs_and_what_is_random_does_not() {
        assert!(is_costly(&hash_secret(Secret::Chosen("x"))));
        assert!(!is_costly(&hash_secret(Secret::Generated("x"))));
        assert!(is_costly("pbkdf2-sha256$600000$00$00"));
    }

    #[test]
    fn hashes_from_before_hold() {
        let (salt, mut hash) = ([7; 16], [0; 32]);
        let iterations = NonZeroU32::new(1000).unwrap();
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            &salt,
            b"of before",
            &mut hash,
        );
        let stored = format!("pbkdf2-sha256$1000${}${}", hex::encode(salt), hex::encode(hash));
        assert!(is_outdated(&stored, Secret::Generated("of before")));
        assert!(!is_outdated(&stored, Secret::Generated("of after")));
        assert!(!is_outdated(&stored, Secret::Chosen("of before")));
        assert!(verify_secret(&stored, "of before"));
        assert!(!verify_secret(&stored, "of after"));
    }

    #[test]
    fn what_is_no_hash_matches_nothing() {
        for stored in [
            "",
            "$",
            "plain",
            "sha256$00$",
            "sha256$zz$00",
            "sha256$00",
            "pbkdf2-sha256$0$00$00",
            "pbkdf2-sha256$1$zz$00",
            "pbkdf2-sha256$1$00$",
            "$argon2id$v=19",
            "$argon2id$v=19$m=19456,t=2,p=1$AAAA",
            "a$b$c$d$e",
        ] {
            assert!(!verify_secret(stored, ""), "{stored}");
        }
        assert!(!verify_secret(DUMMY_HASH, ""));
        PasswordHash::new(DUMMY_HASH).unwrap();
        assert!(!verify_secret(
            &hash_secret(Secret::Generated("x")),
            &"x".repeat(MAX_SECRET_BYTES + 1)
        ));
    }
}
