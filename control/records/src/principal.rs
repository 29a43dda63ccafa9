//! Who can be known to a stamp: people, service principals and managed identities, the groups they are in, and what they prove
//! themselves with.
//!
//! Always true: of a secret only a hash is kept; an object id, once given, is never given to another.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Somebody who can log in, at `/principals/{object id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrincipalRecord {
    /// Format.
    pub v: u32,
    /// GUID.
    pub object_id: String,
    /// GUID of the application (service principals, managed identities) or the user principal name (users).
    pub login: String,
    /// `Application`, `ManagedIdentity` or `User`.
    pub kind: String,
    /// For people.
    pub display_name: String,
    /// Salted hash of the first secret or of the password: `pbkdf2-sha256${iterations}${salt hex}${hash hex}`, or as argon2id writes
    /// it; empty when there is none.
    pub secret_hash: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Gets no token, and tokens that it has are good for nothing.
    #[serde(default)]
    pub disabled: bool,
    /// What it can prove itself with beside `secret_hash`.
    #[serde(default)]
    pub credentials: Vec<Credential>,
    /// Tokens and refresh tokens issued before are good for nothing: set when everything that somebody holds is revoked.
    #[serde(default)]
    pub valid_from: Option<Timestamp>,
    /// Where an application's sign-ins in a browser may end, beside the host of whoever signs in: exactly these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirect_uris: Vec<String>,
}

impl PrincipalRecord {
    /// One without a name, that cannot prove itself with anything yet.
    #[must_use]
    pub fn new(object_id: &str, now: Timestamp) -> Self {
        Self {
            v: 1,
            object_id: object_id.to_owned(),
            login: String::new(),
            kind: String::new(),
            display_name: String::new(),
            secret_hash: String::new(),
            created_at: now,
            disabled: false,
            credentials: Vec::new(),
            valid_from: None,
            redirect_uris: Vec::new(),
        }
    }
}

/// Something that a principal can prove itself with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// GUID: the `keyId` of Graph.
    pub id: String,
    /// For people.
    pub display_name: String,
    /// When it was added.
    pub created_at: Timestamp,
    /// Until when it is good; `None`: until it is removed.
    pub expires_at: Option<Timestamp>,
    /// What it is.
    pub proof: Proof,
}

/// What a credential is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Proof {
    /// A secret.
    #[serde(rename_all = "camelCase")]
    Secret {
        /// As [`PrincipalRecord::secret_hash`].
        hash: String,
        /// Its first three characters: the `hint` of Graph.
        hint: String,
    },
    /// Whoever has the private key of this certificate.
    #[serde(rename_all = "camelCase")]
    Certificate {
        /// The certificate, DER in base64.
        der: String,
    },
    /// Whoever has a token of another issuer: a service account of a cluster, a job of a CI system.
    #[serde(rename_all = "camelCase")]
    Federated {
        /// Unique among those of its principal.
        name: String,
        /// The `iss` of the token, exactly.
        issuer: String,
        /// The `sub` of the token, exactly.
        subject: String,
        /// One of them has to be the token's `aud`: `api://AzureADTokenExchange`.
        audiences: Vec<String>,
    },
}

/// A group of principals, at `/groups/{object id}`. What is assigned to it, its members have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrincipalGroupRecord {
    /// Format.
    pub v: u32,
    /// GUID.
    pub object_id: String,
    /// For people; unique in the stamp, ignoring case.
    pub display_name: String,
    /// For people.
    pub description: String,
    /// Object ids of principals and of other groups.
    pub members: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
}
