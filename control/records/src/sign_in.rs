//! What the token service remembers: the keys it signs with, and who is signed in.
//!
//! | key | record |
//! |---|---|
//! | `/tokens/keys` | [`SigningKeysRecord`] |
//! | `/tokens/refresh/{object id}/{family}` | [`RefreshRecord`]: a sign-in that is renewed without its password |
//!
//! Always true: of what clients hold only hashes are kept; private keys are sealed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// All keys that tokens are or were signed with and can still be checked with, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SigningKeysRecord {
    /// Format.
    pub v: u32,
    /// The keys.
    pub keys: Vec<SigningKeyRecord>,
}

/// A key that signs tokens, signed them, or will.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SigningKeyRecord {
    /// The `kid` of its tokens.
    pub id: String,
    /// The private key in PEM, sealed, in hexadecimal.
    pub sealed: String,
    /// Since when clients can read it.
    pub published_at: Timestamp,
    /// From when on it signs; `None`: when it is its turn.
    pub signs_from: Option<Timestamp>,
    /// When its last token has ended, and it is forgotten; `None`: it signs, or will.
    pub ends_at: Option<Timestamp>,
}

/// A sign-in of a person with a client. Each use of its refresh token gives another one in the place of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefreshRecord {
    /// Format.
    pub v: u32,
    /// Object id of the person.
    pub principal: String,
    /// The client that it was given to.
    pub client: String,
    /// SHA-256 of what all its tokens have in common, in hexadecimal.
    pub family_hash: String,
    /// SHA-256 of the token that is good now, in hexadecimal.
    pub token_hash: String,
    /// Changes with the person's password.
    pub fingerprint: String,
    /// When the person signed in.
    pub created_at: Timestamp,
    /// When the token that is good now was given.
    pub renewed_at: Timestamp,
}
