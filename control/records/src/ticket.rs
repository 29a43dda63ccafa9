//! Support tickets of clusters: `/c/{uid}/child/supporttickets/{name}`. Whether support may look into a cluster, by whose consent and until
//! when, and which credentials it was given for that.
//!
//! Always true: a credential under a ticket ([`CredentialRecord::ticket`](crate::credential::CredentialRecord::ticket)) is written in one
//! transaction with its line here, and ends no later than the consent. A consent that is changed or withdrawn, and a ticket that is closed,
//! take back in the same transaction all that was handed out: a credential belongs to one consent.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::child;

/// What tickets are called among children.
const KIND: &str = "supportTickets";
/// The longest consent, in hours.
pub const LONGEST_CONSENT: u32 = 24;
/// The longest that a credential works, whatever the consent.
pub const CREDENTIAL_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Credentials under one ticket, in all.
pub const MOST_CREDENTIALS: usize = 100;

/// A support ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TicketRecord {
    /// Format.
    pub v: u32,
    /// Its name, in the casing first given.
    pub name: String,
    /// What it is about.
    pub title: String,
    /// How urgent.
    pub severity: Severity,
    /// Object id of who opened it.
    pub opened_by: String,
    /// Its application id or user principal name.
    pub opened_by_name: String,
    /// When.
    pub opened_at: Timestamp,
    /// The consent given last, also where it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent: Option<Consent>,
    /// That it was closed. It is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Act>,
    /// The credentials that were handed out under it, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<Access>,
    /// Grows by one with each change.
    pub generation: u64,
}

/// How urgent a ticket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Little impact.
    Minimal,
    /// Some impact.
    Moderate,
    /// Critical impact.
    Critical,
}

impl Severity {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Minimal, Self::Moderate, Self::Critical];

    /// As in requests and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Moderate => "moderate",
            Self::Critical => "critical",
        }
    }
}

/// Who did something, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Act {
    /// Object id.
    pub by: String,
    /// Application id or user principal name.
    pub by_name: String,
    /// When.
    pub at: Timestamp,
}

/// That a tenant agrees to support looking into the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Consent {
    /// By whom and when.
    #[serde(flatten)]
    pub given: Act,
    /// Until when.
    pub until: Timestamp,
    /// That it was withdrawn before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Act>,
}

/// A credential that was handed out under a ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// The credential's id, part of its user's name in the cluster.
    pub credential: String,
    /// For which engineer, as the operator named them.
    pub engineer: String,
    /// When.
    pub issued_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// When it was taken back, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

impl Consent {
    /// Whether it is in force.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.withdrawn.is_none() && now < self.until
    }
}

impl TicketRecord {
    /// The prefix of a cluster's tickets.
    pub fn all(uid: &str) -> String {
        child::key(uid, KIND, "")
    }

    /// The key of one, in any casing.
    pub fn key(uid: &str, name: &str) -> String {
        child::key(uid, KIND, name)
    }

    /// The consent under which support may look into the cluster now; `None`: it may not.
    pub fn consented(&self, now: Timestamp) -> Option<&Consent> {
        let open = self.closed.is_none();
        self.consent.as_ref().filter(|consent| open && consent.holds(now))
    }

    /// When a credential that is handed out now ends; `None`: none is.
    pub fn access_until(&self, now: Timestamp) -> Option<Timestamp> {
        let consent = self.consented(now)?;
        let longest = now.checked_add(CREDENTIAL_LIFETIME).unwrap_or(consent.until);
        Some(longest.min(consent.until))
    }

    /// Notes that credentials were taken back: this one, or all.
    pub fn revoke(&mut self, credential: Option<&str>, now: Timestamp) {
        let wanted = |access: &Access| credential.is_none_or(|id| access.credential == id);
        for access in self.access.iter_mut().filter(|access| wanted(access)) {
            if access.expires_at > now {
                access.revoked_at.get_or_insert(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn act(second: i64) -> Act {
        Act {
            by: "o".to_owned(),
            by_name: "ada@x".to_owned(),
            at: at(second),
        }
    }

    fn ticket() -> TicketRecord {
        TicketRecord {
            v: 1,
            name: "T1".to_owned(),
            title: "Pods do not start".to_owned(),
            severity: Severity::Moderate,
            opened_by: "o".to_owned(),
            opened_by_name: "ada@x".to_owned(),
            opened_at: at(0),
            consent: None,
            closed: None,
            access: Vec::new(),
            generation: 1,
        }
    }

    #[test]
    fn a_ticket_is_a_child_of_its_cluster_by_its_name_in_any_casing() {
        assert_eq!(TicketRecord::key("u", "T1"), "/c/u/child/supporttickets/t1");
        assert!(TicketRecord::key("u", "T1").starts_with(&TicketRecord::all("u")));
    }

    #[test]
    fn access_needs_an_open_ticket_and_a_consent_that_holds_and_ends_with_it() {
        let mut ticket = ticket();
        assert_eq!(ticket.access_until(at(1)), None, "nobody consented");
        ticket.consent = Some(Consent {
            given: act(10),
            until: at(7200),
            withdrawn: None,
        });
        assert_eq!(ticket.access_until(at(10)), Some(at(3610)), "an hour");
        assert_eq!(
            ticket.access_until(at(7000)),
            Some(at(7200)),
            "never longer than the consent"
        );
        assert_eq!(ticket.access_until(at(7199)), Some(at(7200)));
        assert_eq!(ticket.access_until(at(7200)), None);
        let mut withdrawn = ticket.clone();
        withdrawn.consent.as_mut().unwrap().withdrawn = Some(act(20));
        assert_eq!(withdrawn.access_until(at(20)), None);
        ticket.closed = Some(act(30));
        assert_eq!(ticket.access_until(at(30)), None);
    }

    #[test]
    fn what_has_ended_by_itself_was_not_taken_back() {
        let mut ticket = ticket();
        for (credential, expires_at) in [("a", at(10)), ("b", at(100)), ("c", at(100))] {
            ticket.access.push(Access {
                credential: credential.to_owned(),
                engineer: "eve".to_owned(),
                issued_at: at(1),
                expires_at,
                revoked_at: None,
            });
        }
        ticket.revoke(Some("b"), at(20));
        ticket.revoke(None, at(30));
        let revoked: Vec<_> = ticket.access.iter().map(|access| access.revoked_at).collect();
        assert_eq!(revoked, [None, Some(at(20)), Some(at(30))]);
    }

    #[test]
    fn what_is_written_is_read_back_and_pinned() {
        let mut ticket = ticket();
        ticket.consent = Some(Consent {
            given: act(1),
            until: at(60),
            withdrawn: None,
        });
        let text = serde_json::to_string(&ticket).unwrap();
        assert_eq!(
            text,
            r#"{"v":1,"name":"T1","title":"Pods do not start","severity":"moderate","openedBy":"o","openedByName":"ada@x","openedAt":"1970-01-01T00:00:00Z","consent":{"by":"o","byName":"ada@x","at":"1970-01-01T00:00:01Z","until":"1970-01-01T00:01:00Z"},"generation":1}"#
        );
        assert_eq!(serde_json::from_str::<TicketRecord>(&text).unwrap(), ticket);
    }
}
