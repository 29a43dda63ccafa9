//! How far the replacement of a cluster's CAs and keys is. In clear beside the keys ([`crate::PkiRecord`]) and changed with them, in one
//! transaction: who decides what is next need not read them.
//!
//! | phase | CAs | key of service accounts |
//! |---|---|---|
//! | [`Phase::Done`] | one is trusted and issues | one signs; tokens of the one before are taken until [`Rotation::former_until`] |
//! | [`Phase::Trusted`] | a new one is trusted, the old one issues | tokens of a new one are taken, the old one signs |
//! | [`Phase::Issued`] | the new one issues, the old one is trusted | |
//!
//! Always true: a step follows from the step before alone; the service may end after each, and goes on with the next.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rotation {
    /// Of the CAs.
    pub authorities: Turn,
    /// Of the key that signs service accounts' tokens.
    pub service_accounts: Turn,
    /// How often other CAs took the place of those before: certificates of an earlier round end with their CA.
    pub round: u32,
    /// Until when tokens are taken that were signed with the service account key before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub former_until: Option<Timestamp>,
}

/// How far one replacement is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Turn {
    /// The wish that was begun with last: milliseconds since 1970, as in [`cluster_spec::Rotations`]; 0 before the first.
    pub begun: i64,
    /// How far that is.
    pub phase: Phase,
}

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Nothing is being replaced.
    #[default]
    Done,
    /// The new one is known beside the old one.
    Trusted,
    /// The new one is used, and the old one still known.
    Issued,
}

/// A step of a replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyStep {
    /// New CAs are made and trusted.
    TrustAuthorities {
        /// The wish that it is for.
        asked: i64,
    },
    /// They issue from now on.
    IssueFromNewAuthorities,
    /// Those before are trusted no more.
    DropFormerAuthorities,
    /// New CAs that issue nothing yet are given up.
    WithdrawNewAuthorities {
        /// The wish that holds again.
        asked: i64,
    },
    /// A new key of service accounts is made, and its tokens are taken.
    TrustServiceAccountKey {
        /// The wish that it is for.
        asked: i64,
    },
    /// It signs from now on.
    SignWithNewServiceAccountKey {
        /// Until when tokens of the key before are taken.
        until: Timestamp,
    },
    /// Tokens of the key before are taken no more.
    DropFormerServiceAccountKey,
    /// A new key that signs nothing yet is given up.
    WithdrawNewServiceAccountKey {
        /// The wish that holds again.
        asked: i64,
    },
}

impl Rotation {
    /// Whether nothing was ever replaced.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// How far it is after a step.
    #[must_use]
    pub fn after(&self, step: &KeyStep) -> Self {
        let mut next = self.clone();
        let (authorities, service_accounts) = (&mut next.authorities, &mut next.service_accounts);
        let (begun, done) = (
            |begun| Turn {
                begun,
                phase: Phase::Trusted,
            },
            |begun| Turn {
                begun,
                phase: Phase::Done,
            },
        );
        match step {
            KeyStep::TrustAuthorities { asked } => *authorities = begun(*asked),
            KeyStep::IssueFromNewAuthorities => {
                authorities.phase = Phase::Issued;
                next.round = next.round.saturating_add(1);
            }
            KeyStep::DropFormerAuthorities => authorities.phase = Phase::Done,
            KeyStep::WithdrawNewAuthorities { asked } => *authorities = done(*asked),
            KeyStep::TrustServiceAccountKey { asked } => *service_accounts = begun(*asked),
            KeyStep::SignWithNewServiceAccountKey { until } => {
                service_accounts.phase = Phase::Done;
                next.former_until = Some(*until);
            }
            KeyStep::DropFormerServiceAccountKey => next.former_until = None,
            KeyStep::WithdrawNewServiceAccountKey { asked } => *service_accounts = done(*asked),
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_lead_from_done_to_done() {
        let until = Timestamp::UNIX_EPOCH;
        let mut rotation = Rotation::default();
        let mut phases = Vec::new();
        for step in [
            KeyStep::TrustAuthorities { asked: 7 },
            KeyStep::IssueFromNewAuthorities,
            KeyStep::DropFormerAuthorities,
            KeyStep::TrustServiceAccountKey { asked: 8 },
            KeyStep::SignWithNewServiceAccountKey { until },
            KeyStep::DropFormerServiceAccountKey,
        ] {
            rotation = rotation.after(&step);
            phases.push((rotation.authorities.phase, rotation.service_accounts.phase));
        }
        let done = Phase::Done;
        assert_eq!(
            phases,
            [
                (Phase::Trusted, done),
                (Phase::Issued, done),
                (done, done),
                (done, Phase::Trusted),
                (done, done),
                (done, done),
            ]
        );
        assert_eq!((rotation.round, rotation.former_until), (1, None));
        assert_eq!(
            (rotation.authorities.begun, rotation.service_accounts.begun),
            (7, 8)
        );
    }

    #[test]
    fn what_is_withdrawn_was_never_begun() {
        let before = Rotation::default();
        let begun = before.after(&KeyStep::TrustAuthorities { asked: 7 });
        assert_eq!(begun.after(&KeyStep::WithdrawNewAuthorities { asked: 0 }), before);
        let begun = before.after(&KeyStep::TrustServiceAccountKey { asked: 7 });
        assert_eq!(
            begun.after(&KeyStep::WithdrawNewServiceAccountKey { asked: 0 }),
            before
        );
    }
}
