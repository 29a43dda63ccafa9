//! A catalogue with a signature (Ed25519), in one file, and the keys for it.
//!
//! ```text
//! landfall-catalogue-1
//! key: BASE64 of the 32 bytes of the public key
//! signature: BASE64 of 64 bytes
//! bytes: NUMBER
//!
//! the catalogue, so many bytes
//! ```
//!
//! What is signed begins with the first line, so that a signature for something else is none for a catalogue. Keys are files as `openssl genpkey -algorithm
//! ed25519` and `openssl pkey -pubout` write them (PKCS#8, SubjectPublicKeyInfo; PEM).
//!
//! Always true: a text is given out only when a trusted key has signed all of it.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::MOST;

/// The first line.
const HEAD: &str = "landfall-catalogue-1";
/// The most bytes before the catalogue.
const HEADER: usize = 512;
/// The largest file, bytes.
pub const MOST_FILE: usize = MOST + HEADER;
/// The length of a public key, bytes.
const KEY: usize = 32;
/// What comes before a public key in its file: an Ed25519 key follows (RFC 8410).
const SPKI: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Why a file is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// Too long.
    #[error("the file has {bytes} bytes; at most {MOST_FILE} are read")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Another file.
    #[error("this is no signed catalogue: its first line is not {HEAD}")]
    NotSigned,
    /// A part of the header is missing or unreadable.
    #[error("the signed catalogue has no readable {part}")]
    Header {
        /// Which.
        part: &'static str,
    },
    /// Cut off, or longer than when it was signed.
    #[error(
        "the signed catalogue is to have {wanted} bytes after its header and has {found}: the file is not whole"
    )]
    Length {
        /// As the header says.
        wanted: usize,
        /// As it is.
        found: usize,
    },
    /// No key is trusted at all.
    #[error("no key is trusted, and this catalogue is signed with {key}")]
    NoKey {
        /// The file's.
        key: PublicKey,
    },
    /// The key is not among the trusted ones.
    #[error("this catalogue is signed with {key}, which is not trusted here")]
    Untrusted {
        /// The file's.
        key: PublicKey,
    },
    /// The signature is not the key's, or not of this text.
    #[error("the signature is not that of {key} for this text: the file was changed after it was signed")]
    Signature {
        /// The file's.
        key: PublicKey,
    },
    /// Something that is no text.
    #[error("the signed catalogue is not UTF-8")]
    NotText,
    /// A file of a key that cannot be used.
    #[error("this is no {what} of Ed25519 in PEM")]
    BadKey {
        /// Which of the two.
        what: &'static str,
    },
}

/// A public key. Shown in base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY]);

impl PublicKey {
    /// A key as it is shown.
    ///
    /// # Errors
    /// [`SignedError::BadKey`].
    pub fn shown(text: &str) -> Result<Self, SignedError> {
        let bytes = STANDARD.decode(text).ok();
        let key = bytes.and_then(|bytes| <[u8; KEY]>::try_from(bytes).ok());
        key.map(Self).ok_or(SignedError::BadKey { what: "public key" })
    }

    /// A key from its file.
    ///
    /// # Errors
    /// [`SignedError::BadKey`].
    pub fn of_pem(text: &str) -> Result<Self, SignedError> {
        let bad = SignedError::BadKey { what: "public key" };
        let der = pem(text, "PUBLIC KEY").ok_or(bad.clone())?;
        let key = der.strip_prefix(SPKI).ok_or(bad.clone())?;
        <[u8; KEY]>::try_from(key).map(Self).map_err(|_| bad)
    }

    /// Its file.
    pub fn to_pem(self) -> String {
        to_pem(&[SPKI, self.0.as_slice()].concat(), "PUBLIC KEY")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A private key. It is in no `Debug`.
pub struct PrivateKey(Ed25519KeyPair);

impl PrivateKey {
    /// A key from 32 bytes of chance.
    ///
    /// # Errors
    /// [`SignedError::BadKey`] when the library refuses it.
    pub fn of_seed(seed: &[u8; 32]) -> Result<Self, SignedError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed);
        pair.map(Self)
            .map_err(|_| SignedError::BadKey { what: "private key" })
    }

    /// A key from its file.
    ///
    /// # Errors
    /// [`SignedError::BadKey`].
    pub fn of_pem(text: &str) -> Result<Self, SignedError> {
        let bad = || SignedError::BadKey { what: "private key" };
        let der = Zeroizing::new(pem(text, "PRIVATE KEY").ok_or_else(bad)?);
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
        pair.map(Self).map_err(|_| bad())
    }

    /// Its file.
    ///
    /// # Errors
    /// [`SignedError::BadKey`] when the library cannot write it.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, SignedError> {
        let document = self.0.to_pkcs8v1();
        let document = document.map_err(|_| SignedError::BadKey { what: "private key" })?;
        Ok(Zeroizing::new(to_pem(document.as_ref(), "PRIVATE KEY")))
    }

    /// The key that others need.
    pub fn public(&self) -> PublicKey {
        let mut key = [0; KEY];
        let bytes: &[u8] = self.0.public_key().as_ref();
        for (to, from) in key.iter_mut().zip(bytes) {
            *to = *from;
        }
        PublicKey(key)
    }
}

/// The bytes of a PEM file with one entry of this kind.
fn pem(text: &str, kind: &str) -> Option<Vec<u8>> {
    // A key is short; nothing else is looked through.
    let text = (text.len() <= 4096).then_some(text)?;
    let rest = text.split_once(&format!("-----BEGIN {kind}-----"))?.1;
    let body = rest.split_once(&format!("-----END {kind}-----"))?.0;
    let body: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    STANDARD.decode(body.as_bytes()).ok()
}

fn to_pem(der: &[u8], kind: &str) -> String {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut text = format!("-----BEGIN {kind}-----\n");
    for (index, c) in body.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        text.push(c);
    }
    text.push_str(&format!("\n-----END {kind}-----\n"));
    text
}

/// What the signature is of.
fn message(catalogue: &[u8]) -> Vec<u8> {
    [HEAD.as_bytes(), b"\n".as_slice(), catalogue].concat()
}

/// The file of a catalogue that `key` signs.
///
/// # Errors
/// [`SignedError::TooLarge`], and [`SignedError::BadKey`] when the library refuses the key.
pub fn sign(catalogue: &str, key: &PrivateKey) -> Result<String, SignedError> {
    if catalogue.len() > MOST {
        return Err(SignedError::TooLarge {
            bytes: catalogue.len(),
        });
    }
    let signature = key.0.try_sign(&message(catalogue.as_bytes()));
    let signature = signature.map_err(|_| SignedError::BadKey { what: "private key" })?;
    Ok(format!(
        "{HEAD}\nkey: {}\nsignature: {}\nbytes: {}\n\n{catalogue}",
        key.public(),
        STANDARD.encode(signature),
        catalogue.len()
    ))
}

/// The catalogue of a file, and the key that has signed it, which is one of `trusted`.
///
/// # Errors
/// As [`SignedError`] says, at the first fault.
pub fn open<'a>(file: &'a [u8], trusted: &[PublicKey]) -> Result<(&'a str, PublicKey), SignedError> {
    if file.len() > MOST_FILE {
        return Err(SignedError::TooLarge { bytes: file.len() });
    }
    let rest = file.strip_prefix(HEAD.as_bytes()).ok_or(SignedError::NotSigned)?;
    let rest = rest.strip_prefix(b"\n").ok_or(SignedError::NotSigned)?;
    let (key, rest) = member(rest, "key")?;
    let (signature, rest) = member(rest, "signature")?;
    let (bytes, rest) = member(rest, "bytes")?;
    let catalogue = rest.strip_prefix(b"\n").ok_or(SignedError::Header {
        part: "end of the header",
    })?;
    let key = PublicKey::shown(key).map_err(|_| SignedError::Header { part: "key" })?;
    let signature = STANDARD.decode(signature);
    let signature = signature.map_err(|_| SignedError::Header { part: "signature" })?;
    let wanted: usize = bytes.parse().map_err(|_| SignedError::Header { part: "bytes" })?;
    if catalogue.len() != wanted {
        return Err(SignedError::Length {
            wanted,
            found: catalogue.len(),
        });
    }
    if trusted.is_empty() {
        return Err(SignedError::NoKey { key });
    }
    if !trusted.contains(&key) {
        return Err(SignedError::Untrusted { key });
    }
    let verified = UnparsedPublicKey::new(&ED25519, &key.0).verify(&message(catalogue), &signature);
    verified.map_err(|_| SignedError::Signature { key })?;
    let text = std::str::from_utf8(catalogue).map_err(|_| SignedError::NotText)?;
    Ok((text, key))
}

/// The value of the next line of the header, and what follows it.
fn member<'a>(rest: &'a [u8], part: &'static str) -> Result<(&'a str, &'a [u8]), SignedError> {
    let missing = || SignedError::Header { part };
    let end = rest.iter().take(HEADER).position(|byte| *byte == b'\n');
    let (line, rest) = rest.split_at(end.ok_or_else(missing)?);
    let line = std::str::from_utf8(line).map_err(|_| missing())?;
    let value = line.strip_prefix(part).and_then(|line| line.strip_prefix(": "));
    Ok((value.ok_or_else(missing)?, rest.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> PrivateKey {
        PrivateKey::of_seed(&[number; 32]).unwrap()
    }

    fn refused(file: &[u8], trusted: &[PublicKey]) -> SignedError {
        open(file, trusted).unwrap_err()
    }

    #[test]
    fn what_a_trusted_key_has_signed_is_given_out() {
        let file = sign("a catalogue\n", &key(1)).unwrap();
        let trusted = [key(2).public(), key(1).public()];
        let (text, by) = open(file.as_bytes(), &trusted).unwrap();
        assert_eq!((text, by), ("a catalogue\n", key(1).public()));
    }

    #[test]
    fn another_key_and_no_key_are_told_apart() {
        let file = sign("a catalogue\n", &key(1)).unwrap();
        let by = key(1).public();
        assert_eq!(refused(file.as_bytes(), &[]), SignedError::NoKey { key: by });
        assert_eq!(
            refused(file.as_bytes(), &[key(2).public()]),
            SignedError::Untrusted { key: by }
        );
        // A trusted key that has not signed it.
        let other = key(2).public();
        let file = file.replace(&by.to_string(), &other.to_string());
        assert_eq!(
            refused(file.as_bytes(), &[other]),
            SignedError::Signature { key: other }
        );
    }

    #[test]
    fn what_was_changed_cut_or_lengthened_is_refused() {
        let trusted = [key(1).public()];
        let file = sign("serial = 5\n", &key(1)).unwrap();
        let changed = file.replace("serial = 5", "serial = 6");
        assert_eq!(
            refused(changed.as_bytes(), &trusted),
            SignedError::Signature { key: trusted[0] }
        );
        let cut = &file.as_bytes()[..file.len() - 3];
        assert_eq!(
            refused(cut, &trusted),
            SignedError::Length { wanted: 11, found: 8 }
        );
        let longer = format!("{file}# more\n");
        assert!(matches!(
            refused(longer.as_bytes(), &trusted),
            SignedError::Length { .. }
        ));
        // Every place where it may end.
        for end in 0..file.len() {
            assert!(open(&file.as_bytes()[..end], &trusted).is_err(), "{end}");
        }
        assert_eq!(refused(b"serial = 5\n", &trusted), SignedError::NotSigned);
        assert_eq!(refused(b"", &trusted), SignedError::NotSigned);
        let large = vec![b'x'; MOST_FILE + 1];
        assert!(matches!(refused(&large, &trusted), SignedError::TooLarge { .. }));
        assert!(matches!(
            sign(&"x".repeat(MOST + 1), &key(1)),
            Err(SignedError::TooLarge { .. })
        ));
    }

    #[test]
    fn keys_are_files_of_the_usual_form() {
        let private = key(1).to_pem().unwrap();
        assert!(
            private.starts_with("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEI"),
            "{}",
            &private[..40]
        );
        assert_eq!(PrivateKey::of_pem(&private).unwrap().public(), key(1).public());
        let public = key(1).public().to_pem();
        assert!(
            public.starts_with("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA"),
            "{public}"
        );
        assert_eq!(PublicKey::of_pem(&public).unwrap(), key(1).public());
        assert_eq!(
            PublicKey::shown(&key(1).public().to_string()).unwrap(),
            key(1).public()
        );
        let other = public.replace("MCowBQYDK2VwAyEA", "MCowBQYDK2VwAyEB");
        for wrong in ["", "x", private.as_str(), other.as_str()] {
            let read = PublicKey::of_pem(wrong);
            assert_eq!(read, Err(SignedError::BadKey { what: "public key" }), "{wrong}");
        }
        assert!(PrivateKey::of_pem(&public).is_err());
        assert!(PublicKey::shown("AAAA").is_err());
    }

    proptest! {
        #[test]
        fn no_other_bytes_are_taken(place in 0_usize..200, byte in any::<u8>()) {
            let trusted = [key(1).public()];
            let mut file = sign("serial = 5\nissued = \"2026-11-30\"\n", &key(1)).unwrap().into_bytes();
            let place = place % file.len();
            if file[place] != byte {
                file[place] = byte;
                // Base64 has no second form of the same bytes here: every change is seen.
                prop_assert!(open(&file, &trusted).is_err());
            }
        }
    }
}
