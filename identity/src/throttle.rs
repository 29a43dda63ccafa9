//! Slows guessing down, and limits its cost. In memory only: a restart resets it.
//!
//! | bound | of | how much |
//! |---|---|---|
//! | failures | one login from one address | five free, then a wait that doubles with each, up to a minute |
//! | attempts that cost the processor | one address | 30 at once, then one a second; 4 under way at a time |
//! | attempts that cost the processor | the service | 16 waiting or under way, one at a time hashed |
//!
//! An address is an IPv4 address or the /64 of an IPv6 one.
//!
//! Always true: an attempt is counted before it costs work; counting takes constant time and bounded memory,
//! however many logins and addresses are tried; no client can delay clients at other addresses.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Failures without a wait: people mistype.
const FREE: u32 = 5;
/// The longest wait after a failure.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// After this long without a failure, earlier ones are forgotten.
const ENTRY_LIFETIME: Duration = Duration::from_secs(900);
/// Logins, and addresses, that are remembered: at least this many, at most twice as many.
const ENTRIES: usize = 10_000;

/// Attempts that an address has initially.
const BURST: u32 = 30;
/// Time after which another attempt is added.
const REFILL: Duration = Duration::from_secs(1);
/// Concurrent attempts of an address.
const MAX_CONCURRENT: u32 = 4;
/// Attempts of all addresses that wait or run.
const MAX_QUEUED: usize = 16;
/// Interval of log lines about refusals.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Where attempts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Origin(Option<IpAddr>);

impl Origin {
    pub(crate) fn of(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            address => address,
        }))
    }
}

/// A map of recently used entries, in bounded memory and constant time: an entry that is not used while
/// [`ENTRIES`] others are is removed.
pub(crate) struct LruMap<K, V> {
    now: HashMap<K, V>,
    before: HashMap<K, V>,
}

impl<K: Hash + Eq + Clone, V> LruMap<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            now: HashMap::new(),
            before: HashMap::new(),
        }
    }

    pub(crate) fn entry(&mut self, key: &K, new: impl FnOnce() -> V) -> &mut V {
        if !self.now.contains_key(key) {
            if self.now.len() >= ENTRIES {
                self.before = std::mem::take(&mut self.now);
            }
            let value = self.before.remove(key).unwrap_or_else(new);
            self.now.insert(key.clone(), value);
        }
        self.now.get_mut(key).expect("it was put there")
    }

    fn get(&mut self, key: &K) -> Option<&mut V> {
        match self.now.get_mut(key) {
            Some(value) => Some(value),
            None => self.before.get_mut(key),
        }
    }
}

#[derive(Default, Clone, Copy)]
struct Failures {
    count: u32,
    last: Duration,
}

#[derive(Clone, Copy)]
struct Budget {
    left: u32,
    /// The time up to which attempts were added.
    since: Duration,
    under_way: u32,
}

struct State {
    logins: LruMap<(Origin, String), Failures>,
    origins: LruMap<Origin, Budget>,
}

/// Times are of a monotonic clock.
pub(crate) struct Throttle {
    state: Mutex<State>,
    queued: AtomicUsize,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                logins: LruMap::new(),
                origins: LruMap::new(),
            }),
            queued: AtomicUsize::new(0),
        }
    }
}

/// Permission for the work of an attempt; returned when it is dropped.
pub(crate) struct Permit<'a> {
    throttle: &'a Throttle,
    origin: Origin,
}

impl Throttle {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds this lock")
    }

    /// Counts an attempt as failed until it succeeds; or gives the time that this login from there has to
    /// wait.
    pub(crate) fn attempt(&self, origin: Origin, login: &str, now: Duration) -> Result<(), Duration> {
        let mut state = self.state();
        let entry = state
            .logins
            .entry(&(origin, login.to_lowercase()), Failures::default);
        if now.saturating_sub(entry.last) >= ENTRY_LIFETIME {
            entry.count = 0;
        }
        if let Some(over) = entry.count.checked_sub(FREE) {
            let until = entry.last + Duration::from_secs(1_u64 << over.min(6)).min(MAX_DELAY);
            if let Some(left) = until.checked_sub(now).filter(|left| !left.is_zero()) {
                return Err(left);
            }
        }
        entry.count = entry.count.saturating_add(1);
        entry.last = now;
        Ok(())
    }

    /// The attempt was not made.
    pub(crate) fn retract(&self, origin: Origin, login: &str) {
        if let Some(entry) = self.state().logins.get(&(origin, login.to_lowercase())) {
            entry.count = entry.count.saturating_sub(1);
        }
    }

    /// The attempt succeeded: resets the count of this login.
    pub(crate) fn succeeded(&self, origin: Origin, login: &str) {
        if let Some(entry) = self.state().logins.get(&(origin, login.to_lowercase())) {
            *entry = Failures::default();
        }
    }

    /// Permission for an attempt with a slow hash; or the time to wait for one.
    pub(crate) fn permit(&self, origin: Origin, now: Duration) -> Result<Permit<'_>, Duration> {
        let mut state = self.state();
        let budget = state.origins.entry(&origin, || Budget {
            left: BURST,
            since: now,
            under_way: 0,
        });
        let passed = now.saturating_sub(budget.since);
        let more = u32::try_from(passed.as_secs() / REFILL.as_secs()).unwrap_or(u32::MAX);
        budget.left = budget.left.saturating_add(more).min(BURST);
        budget.since += REFILL.saturating_mul(more);
        if budget.left == 0 || budget.under_way >= MAX_CONCURRENT {
            return Err(REFILL);
        }
        let queued = self
            .queued
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |queued| {
                (queued < MAX_QUEUED).then_some(queued + 1)
            });
        if queued.is_err() {
            return Err(REFILL);
        }
        budget.left -= 1;
        budget.under_way += 1;
        Ok(Permit {
            throttle: self,
            origin,
        })
    }
}

/// Counts refusals, so that the log has a line a minute of them and not one each.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<(Option<Duration>, u64)>);

impl Refusals {
    /// Counts a refusal. Gives the number since the last log line, when the next one is due.
    pub(crate) fn note(&self, now: Duration) -> Option<u64> {
        let mut refusals = self.0.lock().expect("nothing panics while it holds this lock");
        let (said, count) = &mut *refusals;
        *count += 1;
        if said.is_some_and(|said| now.saturating_sub(said) < LOG_INTERVAL) {
            return None;
        }
        *said = Some(now);
        Some(std::mem::take(count))
    }
}

impl Permit<'_> {
    /// The attempt succeeded: it does not count against the address.
    pub(crate) fn succeeded(&self) {
        if let Some(budget) = self.throttle.state().origins.get(&self.origin) {
            budget.left = budget.left.saturating_add(1).min(BURST);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.throttle.queued.fetch_sub(1, Ordering::Relaxed);
        if let Some(budget) = self.throttle.state().origins.get(&self.origin) {
            budget.under_way = budget.under_way.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn origin(last: u8) -> Origin {
        Origin::of(Some([10, 0, 0, last].into()))
    }

    #[test]
    fn waits_grow_end_and_are_forgotten() {
        let throttle = Throttle::default();
        let attempt = |login: &str, at: Duration| throttle.attempt(origin(1), login, at);
        for _ in 0..FREE {
            assert_eq!(attempt("a", SECOND), Ok(()));
        }
        assert_eq!(attempt("A", SECOND), Err(SECOND), "whatever the case");
        assert_eq!(attempt("b", SECOND), Ok(()), "others do not wait");
        assert_eq!(throttle.attempt(origin(2), "a", SECOND), Ok(()), "nor elsewhere");
        let mut at = SECOND;
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(attempt("a", at), Err(SECOND * wait));
            at += SECOND * wait;
            assert_eq!(attempt("a", at), Ok(()));
        }
        at += ENTRY_LIFETIME;
        for _ in 0..FREE {
            assert_eq!(attempt("a", at), Ok(()));
        }
        throttle.succeeded(origin(1), "a");
        assert_eq!(attempt("a", at), Ok(()));
    }

    #[test]
    fn an_address_has_a_budget_and_others_have_theirs() {
        let throttle = Throttle::default();
        for _ in 0..BURST {
            assert!(throttle.permit(origin(1), SECOND).is_ok());
        }
        assert!(throttle.permit(origin(1), SECOND).is_err());
        assert!(throttle.permit(origin(2), SECOND).is_ok());
        assert!(throttle.permit(origin(1), SECOND * 2).is_ok());
        assert!(throttle.permit(origin(1), SECOND * 2).is_err());
        // Successful attempts do not count.
        for _ in 0..2 * BURST {
            throttle.permit(origin(3), SECOND).unwrap().succeeded();
        }
    }

    #[test]
    fn what_is_under_way_is_bounded_for_an_address_and_for_all() {
        let throttle = Throttle::default();
        let mut permits = Vec::new();
        for address in 0..u8::try_from(MAX_QUEUED).unwrap() {
            while permits.len() < MAX_QUEUED
                && let Ok(permit) = throttle.permit(origin(address), SECOND)
            {
                permits.push(permit);
            }
            assert!(permits.len() <= (usize::from(address) + 1) * MAX_CONCURRENT as usize);
        }
        assert_eq!(permits.len(), MAX_QUEUED);
        assert!(throttle.permit(origin(200), SECOND).is_err());
        permits.pop();
        assert!(throttle.permit(origin(200), SECOND).is_ok());
    }

    #[test]
    fn memory_is_bounded_and_what_is_in_use_stays() {
        let throttle = Throttle::default();
        for _ in 0..FREE {
            throttle.attempt(origin(1), "in use", SECOND).unwrap();
        }
        for index in 0..5 * ENTRIES {
            throttle.attempt(origin(2), &index.to_string(), SECOND).unwrap();
            if index % (ENTRIES / 2) == 0 {
                assert!(throttle.attempt(origin(1), "in use", SECOND).is_err());
            }
        }
        let state = throttle.state();
        assert!(state.logins.now.len() + state.logins.before.len() <= 2 * ENTRIES + 1);
    }

    #[test]
    fn refusals_are_counted_and_said_now_and_then() {
        let refusals = Refusals::default();
        assert_eq!(refusals.note(SECOND), Some(1));
        for _ in 0..100 {
            assert_eq!(refusals.note(SECOND * 2), None);
        }
        assert_eq!(refusals.note(SECOND + LOG_INTERVAL), Some(101));
    }

    #[test]
    fn an_address_of_ipv6_is_its_network() {
        let of = |text: &str| Origin::of(Some(text.parse().unwrap()));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), origin(1));
    }
}
