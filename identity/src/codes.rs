//! Authorization codes: a completed sign-in in a browser, until the client redeems it. Kept in memory: after
//! a restart a person signs in again.
//!
//! Always true: a code is valid once, for two minutes, and only with the client, the address and the client's
//! secret that it was issued for; an attempt with others uses it up.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use aws_lc_rs::{constant_time, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::secret::random;

/// Validity of a code.
pub(crate) const LIFETIME: Duration = Duration::from_secs(120);
/// How long a used code is remembered: a second use shows that it was stolen.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Most codes at a time; each belongs to a person who has just signed in.
const ENTRIES: usize = 10_000;

/// The sign-in of a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) object_id: String,
    pub(crate) client: String,
    /// The address that the code was sent to.
    pub(crate) redirect_uri: String,
    /// SHA-256 of the client's secret, in base64.
    pub(crate) challenge: String,
    pub(crate) scope: Option<String>,
    pub(crate) resource: Option<String>,
    pub(crate) nonce: Option<String>,
}

/// The values that a client presents with a code.
#[derive(Clone, Copy)]
pub(crate) struct Brought<'a> {
    pub(crate) client: &'a str,
    pub(crate) redirect_uri: &'a str,
    pub(crate) verifier: &'a str,
}

/// The result of redeeming a code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Redeemed {
    /// Valid, for this sign-in.
    Good(Box<Granted>),
    /// It was used before: the sign-in that resulted from it is not safe.
    Spent { object_id: String, family: String },
    /// Not valid.
    Bad,
}

struct Entry {
    until: Duration,
    state: State,
}

enum State {
    Waits(Box<Granted>),
    /// Used; with the principal and the sign-in that it led to, once there is one.
    Spent(Option<(String, String)>),
}

/// Unused codes, by their hash. Times are of a monotonic clock.
#[derive(Default)]
pub(crate) struct Codes(Mutex<HashMap<[u8; 32], Entry>>);

fn hash(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    hash
}

/// Whether a client's secret has the required form.
fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

/// Whether a text is a SHA-256 hash in base64.
pub(crate) fn is_challenge(text: &str) -> bool {
    text.len() == 43 && URL_SAFE_NO_PAD.decode(text).is_ok()
}

impl Granted {
    fn is_for(&self, brought: Brought<'_>) -> bool {
        let proof = URL_SAFE_NO_PAD.encode(hash(brought.verifier));
        self.client == brought.client
            && self.redirect_uri == brought.redirect_uri
            && is_verifier(brought.verifier)
            && constant_time::verify_slices_are_equal(proof.as_bytes(), self.challenge.as_bytes()).is_ok()
    }
}

impl Codes {
    fn entries(&self) -> MutexGuard<'_, HashMap<[u8; 32], Entry>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }

    /// A new code; `None` when there are too many.
    pub(crate) fn issue(&self, granted: Granted, now: Duration) -> Option<String> {
        let mut entries = self.entries();
        if entries.len() >= ENTRIES {
            entries.retain(|_, entry| entry.until > now);
        }
        if entries.len() >= ENTRIES {
            return None;
        }
        let code = URL_SAFE_NO_PAD.encode(random::<32>());
        let entry = Entry {
            until: now + LIFETIME,
            state: State::Waits(Box::new(granted)),
        };
        entries.insert(hash(&code), entry);
        Some(code)
    }

    /// Uses a code.
    pub(crate) fn redeem(&self, code: &str, brought: Brought<'_>, now: Duration) -> Redeemed {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&hash(code)) else {
            return Redeemed::Bad;
        };
        if entry.until <= now {
            return Redeemed::Bad;
        }
        match std::mem::replace(&mut entry.state, State::Spent(None)) {
            State::Waits(granted) => {
                entry.until = now + REMEMBERED;
                if granted.is_for(brought) {
                    Redeemed::Good(granted)
                } else {
                    Redeemed::Bad
                }
            }
            State::Spent(Some((object_id, family))) => Redeemed::Spent { object_id, family },
            State::Spent(None) => Redeemed::Bad,
        }
    }

    /// Records the sign-in that resulted from a used code.
    pub(crate) fn became(&self, code: &str, object_id: &str, family: &str) {
        if let Some(entry) = self.entries().get_mut(&hash(code)) {
            entry.state = State::Spent(Some((object_id.to_owned(), family.to_owned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "a-verifier-of-forty-three-characters-or-more";

    fn granted() -> Granted {
        Granted {
            object_id: "ada".to_owned(),
            client: "cli".to_owned(),
            redirect_uri: "http://localhost:1".to_owned(),
            challenge: URL_SAFE_NO_PAD.encode(hash(VERIFIER)),
            scope: None,
            resource: None,
            nonce: None,
        }
    }

    const RIGHT: Brought<'static> = Brought {
        client: "cli",
        redirect_uri: "http://localhost:1",
        verifier: VERIFIER,
    };

    #[test]
    fn a_code_is_good_once_and_names_what_came_of_it_when_it_comes_again() {
        let (codes, second) = (Codes::default(), Duration::from_secs);
        let code = codes.issue(granted(), second(0)).unwrap();
        assert_eq!(
            codes.redeem(&code, RIGHT, second(1)),
            Redeemed::Good(Box::new(granted()))
        );
        assert_eq!(codes.redeem(&code, RIGHT, second(1)), Redeemed::Bad);
        codes.became(&code, "ada", "f");
        let spent = Redeemed::Spent {
            object_id: "ada".to_owned(),
            family: "f".to_owned(),
        };
        assert_eq!(codes.redeem(&code, RIGHT, second(300)), spent);
        assert_eq!(codes.redeem("another", RIGHT, second(1)), Redeemed::Bad);
        let late = codes.issue(granted(), second(0)).unwrap();
        assert_eq!(codes.redeem(&late, RIGHT, LIFETIME), Redeemed::Bad);
    }

    #[test]
    fn a_code_with_anything_else_beside_it_is_bad_and_spent() {
        for wrong in [
            Brought {
                client: "other",
                ..RIGHT
            },
            Brought {
                redirect_uri: "http://localhost:2",
                ..RIGHT
            },
            Brought {
                verifier: "another-verifier-of-forty-three-characters",
                ..RIGHT
            },
            Brought {
                verifier: "",
                ..RIGHT
            },
        ] {
            let codes = Codes::default();
            let code = codes.issue(granted(), Duration::ZERO).unwrap();
            assert_eq!(codes.redeem(&code, wrong, Duration::ZERO), Redeemed::Bad);
            assert_eq!(codes.redeem(&code, RIGHT, Duration::ZERO), Redeemed::Bad, "spent");
        }
    }

    #[test]
    fn codes_are_bounded() {
        let codes = Codes::default();
        for _ in 0..ENTRIES {
            assert!(codes.issue(granted(), Duration::ZERO).is_some());
        }
        assert!(codes.issue(granted(), Duration::ZERO).is_none());
        assert!(codes.issue(granted(), LIFETIME).is_some(), "they end");
    }

    #[test]
    fn what_clients_send_has_its_form() {
        assert!(is_challenge(&granted().challenge));
        for bad in ["", "short", &"a".repeat(42), &"!".repeat(43)] {
            assert!(!is_challenge(bad), "{bad}");
        }
        assert!(is_verifier(VERIFIER) && !is_verifier("short") && !is_verifier(&"a".repeat(129)));
    }
}
