//! Credentials of clusters that were handed out, among their children: `/c/{uid}/child/credentials/{id}`.
//!
//! A record says that somebody may; that somebody can follows from it: the cluster's loop grants in the cluster what the records say, and
//! takes away what they do not say any more ([`ObservedRecord::credentials`](crate::ObservedRecord::credentials) is what it has granted).
//! Always true: it is written before the credential is handed out. Its certificate and key are kept beside it, sealed
//! (`/c/{uid}/child/credentialcertificates/{id}`), as long as it is good, so that who asks again gets the same.

use std::{net::IpAddr, time::Duration};

use cluster_spec::CredentialKind;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::child;

/// What credentials are called among children.
const KIND: &str = "credentials";

/// A credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialRecord {
    /// Format.
    pub v: u32,
    /// Its identity, lower-case letters and digits.
    pub id: String,
    /// Whose rights it has.
    pub kind: CredentialKind,
    /// The managed namespace that its rights are in; `None`: they are the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The support ticket that it was handed out under; it works no longer than the consent there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// Object id of who asked for it.
    pub asked_by: String,
    /// Its application id or user principal name.
    pub asked_by_name: String,
    /// From where, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// When it was handed out.
    pub issued_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// The round of the cluster's CAs that its certificate is of: [`crate::Rotation::round`]. It ends with them.
    #[serde(default, skip_serializing_if = "is_first")]
    pub round: u32,
    /// That it was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revoked>,
}

/// That a credential was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revoked {
    /// When.
    pub at: Timestamp,
    /// By whom, as in [`CredentialRecord::asked_by_name`]; `None`: local accounts were disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Whether a round is that of CAs that were never replaced; also that of records of earlier releases.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_first(round: &u32) -> bool {
    *round == 0
}

impl CredentialRecord {
    /// The prefix of a cluster's credentials.
    pub fn all(uid: &str) -> String {
        child::key(uid, KIND, "")
    }

    /// Its key.
    pub fn key(uid: &str, id: &str) -> String {
        child::key(uid, KIND, id)
    }

    /// The key of its certificate, a [`SealedRecord`](crate::SealedRecord).
    pub fn certificate_key(uid: &str, id: &str) -> String {
        child::key(uid, "credentialcertificates", id)
    }

    /// Whether a key, without the cluster's prefix, is a credential's.
    pub fn is_key(rest: &str) -> bool {
        rest.starts_with("child/credentials/")
    }

    /// Whether it has ended by itself.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at <= now
    }

    /// Whether who asks again gets this one and no other: it is good for more than half of its time, and for no longer than one that is
    /// handed out now.
    pub fn is_handed_out_again(&self, asked_by: &str, now: Timestamp, lifetime: Duration) -> bool {
        let (left, all) = (
            self.expires_at.duration_since(now),
            self.expires_at.duration_since(self.issued_at),
        );
        self.asked_by == asked_by
            && self.is_good(now)
            && left > all / 2
            && left <= SignedDuration::try_from(lifetime).unwrap_or(SignedDuration::MAX)
    }

    /// Whether it is to work, as far as its record says.
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && !self.has_expired(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key;

    fn record() -> CredentialRecord {
        CredentialRecord {
            v: 1,
            id: "a1".to_owned(),
            kind: CredentialKind::User,
            namespace: None,
            ticket: None,
            asked_by: "o".to_owned(),
            asked_by_name: "ada@x".to_owned(),
            address: Some([127, 0, 0, 1].into()),
            issued_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::from_second(60).unwrap(),
            round: 0,
            revoked: None,
        }
    }

    #[test]
    fn a_credential_is_a_child_of_its_cluster() {
        let name = CredentialRecord::key("u", "a1");
        assert!(name.starts_with(&CredentialRecord::all("u")) && name.starts_with(&child::all("u")));
        let (uid, rest) = key::of_cluster(&name).unwrap();
        assert!(uid == "u" && CredentialRecord::is_key(rest));
        assert!(!CredentialRecord::is_key("child/commands/a1"));
    }

    #[test]
    fn who_asks_again_gets_the_same_for_half_of_its_time() {
        let (mut record, at) = (record(), |second| Timestamp::from_second(second).unwrap());
        let minute = Duration::from_secs(60);
        assert!(record.is_handed_out_again("o", at(0), minute));
        assert!(record.is_handed_out_again("o", at(29), minute));
        assert!(!record.is_handed_out_again("o", at(30), minute));
        assert!(!record.is_handed_out_again("another", at(0), minute));
        // The operator has shortened the hours.
        assert!(!record.is_handed_out_again("o", at(0), minute / 2));
        record.revoked = Some(Revoked { at: at(1), by: None });
        assert!(!record.is_handed_out_again("o", at(2), minute));
    }

    #[test]
    fn it_is_good_until_it_ends_or_is_taken_back() {
        let (mut record, at) = (record(), |second| Timestamp::from_second(second).unwrap());
        assert!(record.is_good(at(59)) && !record.is_good(at(60)) && record.has_expired(at(60)));
        record.revoked = Some(Revoked { at: at(1), by: None });
        assert!(!record.is_good(at(2)) && !record.has_expired(at(2)));
    }

    #[test]
    fn what_is_written_is_read_back_and_pinned() {
        let text = serde_json::to_string(&record()).unwrap();
        assert_eq!(
            text,
            r#"{"v":1,"id":"a1","kind":"user","askedBy":"o","askedByName":"ada@x","address":"127.0.0.1","issuedAt":"1970-01-01T00:00:00Z","expiresAt":"1970-01-01T00:01:00Z"}"#
        );
        assert_eq!(serde_json::from_str::<CredentialRecord>(&text).unwrap(), record());
    }
}
