//! Sign-ins that wait for approval on another device. Kept in memory: after a restart the client requests a
//! new code.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{secret::random, throttle::Origin};

/// Validity of a code.
pub(crate) const LIFETIME: Duration = Duration::from_secs(900);
/// How many may wait at a time.
const ENTRIES: usize = 1000;
/// How many of them from one address.
const MAX_PER_ORIGIN: usize = 50;
/// No vowels (no words), and no characters that are easily mistaken for others.
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// State of a device code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Poll {
    /// Not yet approved.
    Pending,
    /// Approved with this object id; the code is used up.
    Approved { object_id: String, scope: String },
    /// Denied by a person; the code is used up.
    Refused,
    /// Unknown, used, or too old.
    Expired,
}

struct Entry {
    user_code: String,
    address: Option<IpAddr>,
    client: String,
    scope: String,
    until: Duration,
    answer: Option<Answer>,
}

/// The decision of a person.
enum Answer {
    Approved(String),
    Refused,
}

/// A pending sign-in, for the page that asks for approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) client: String,
    /// The address of the request.
    pub(crate) address: Option<IpAddr>,
    /// How long ago.
    pub(crate) age: Duration,
}

/// The waiting sign-ins by device code. Times are of a monotonic clock.
#[derive(Default)]
pub(crate) struct Devices(Mutex<HashMap<String, Entry>>);

impl Devices {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }

    /// A new pair of device code and user code; `None` when there are too many, in total or from this
    /// address.
    pub(crate) fn start(
        &self,
        client: &str,
        scope: &str,
        address: Option<IpAddr>,
        now: Duration,
    ) -> Option<(String, String)> {
        let mut entries = self.entries();
        entries.retain(|_, entry| entry.until > now);
        let origin = Origin::of(address);
        let from_there = entries
            .values()
            .filter(|entry| Origin::of(entry.address) == origin)
            .count();
        if entries.len() >= ENTRIES || from_there >= MAX_PER_ORIGIN {
            return None;
        }
        let device_code = URL_SAFE_NO_PAD.encode(random::<32>());
        let user_code: String = random::<9>()
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
            .collect();
        let entry = Entry {
            user_code: user_code.clone(),
            address,
            client: client.to_owned(),
            scope: scope.to_owned(),
            until: now + LIFETIME,
            answer: None,
        };
        entries.insert(device_code.clone(), entry);
        Some((device_code, user_code))
    }

    /// The pending sign-in of a user code, in any spelling.
    pub(crate) fn waiting(&self, user_code: &str, now: Duration) -> Option<Waiting> {
        let wanted = normal(user_code);
        let entries = self.entries();
        let entry = entries
            .values()
            .find(|entry| entry.user_code == wanted && entry.until > now && entry.answer.is_none())?;
        Some(Waiting {
            client: entry.client.clone(),
            address: entry.address,
            age: LIFETIME.saturating_sub(entry.until.saturating_sub(now)),
        })
    }

    /// Approves a user code; `false` when it does not wait (any more).
    pub(crate) fn approve(&self, user_code: &str, object_id: &str, now: Duration) -> bool {
        self.answer(user_code, Answer::Approved(object_id.to_owned()), now)
    }

    /// Refuses a user code; `false` when it does not wait (any more).
    pub(crate) fn refuse(&self, user_code: &str, now: Duration) -> bool {
        self.answer(user_code, Answer::Refused, now)
    }

    fn answer(&self, user_code: &str, answer: Answer, now: Duration) -> bool {
        let wanted = normal(user_code);
        let mut entries = self.entries();
        let found = entries
            .values_mut()
            .find(|entry| entry.user_code == wanted && entry.until > now && entry.answer.is_none());
        let Some(entry) = found else { return false };
        entry.answer = Some(answer);
        true
    }

    /// The state of a device code. An approval is given out once.
    pub(crate) fn poll(&self, device_code: &str, client: &str, now: Duration) -> Poll {
        let mut entries = self.entries();
        match entries.get(device_code) {
            Some(entry) if entry.until > now && entry.client == client => {
                if entry.answer.is_none() {
                    return Poll::Pending;
                }
            }
            _ => return Poll::Expired,
        }
        match entries
            .remove(device_code)
            .map(|entry| (entry.answer, entry.scope))
        {
            Some((Some(Answer::Approved(object_id)), scope)) => Poll::Approved { object_id, scope },
            Some((Some(Answer::Refused), _)) => Poll::Refused,
            _ => Poll::Expired,
        }
    }
}

/// People type codes in lower case and with blanks or dashes.
fn normal(user_code: &str) -> String {
    user_code
        .chars()
        .filter(char::is_ascii_alphabetic)
        .map(|char| char.to_ascii_uppercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_approved_once_and_given_out_once() {
        let (devices, second) = (Devices::default(), Duration::from_secs);
        let (device, user) = devices.start("c", "s", None, second(0)).unwrap();
        assert_eq!(devices.poll(&device, "c", second(1)), Poll::Pending);
        assert_eq!(
            devices.poll(&device, "other", second(1)),
            Poll::Expired,
            "bound to its client"
        );
        let typed = format!(" {}-{}", user[..4].to_lowercase(), &user[4..]);
        let waiting = Waiting {
            client: "c".to_owned(),
            address: None,
            age: second(1),
        };
        assert_eq!(devices.waiting(&typed, second(1)), Some(waiting));
        assert!(devices.approve(&typed, "ada", second(2)));
        assert!(!devices.approve(&user, "eve", second(2)) && !devices.refuse(&user, second(2)));
        assert_eq!(devices.waiting(&typed, second(2)), None);
        let approved = Poll::Approved {
            object_id: "ada".to_owned(),
            scope: "s".to_owned(),
        };
        assert_eq!(devices.poll(&device, "c", second(3)), approved);
        assert_eq!(devices.poll(&device, "c", second(3)), Poll::Expired);
    }

    #[test]
    fn a_code_that_somebody_refuses_is_over() {
        let devices = Devices::default();
        let (device, user) = devices.start("c", "s", None, Duration::ZERO).unwrap();
        assert!(devices.refuse(&user, Duration::ZERO));
        assert!(!devices.approve(&user, "ada", Duration::ZERO));
        assert_eq!(devices.poll(&device, "c", Duration::ZERO), Poll::Refused);
        assert_eq!(devices.poll(&device, "c", Duration::ZERO), Poll::Expired);
    }

    #[test]
    fn codes_end_and_are_bounded() {
        let devices = Devices::default();
        let (device, user) = devices.start("c", "s", None, Duration::ZERO).unwrap();
        assert!(!devices.approve(&user, "ada", LIFETIME));
        assert_eq!(devices.poll(&device, "c", LIFETIME), Poll::Expired);
        let from = |host: usize| Some(IpAddr::from([10, 0, 0, u8::try_from(host).unwrap()]));
        for index in 0..ENTRIES {
            let host = index / MAX_PER_ORIGIN;
            assert!(devices.start("c", "s", from(host), LIFETIME).is_some());
        }
        assert!(devices.start("c", "s", from(200), LIFETIME).is_none());
        let later = LIFETIME + LIFETIME;
        for _ in 0..MAX_PER_ORIGIN {
            assert!(devices.start("c", "s", from(1), later).is_some());
        }
        assert!(devices.start("c", "s", from(1), later).is_none());
        assert!(devices.start("c", "s", from(2), later).is_some(), "others go on");
    }
}
