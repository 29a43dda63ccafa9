//! Budgets of requests, as Azure Resource Manager has them: reads, writes and deletes of each principal in
//! each subscription, of all principals of a subscription together, and of each principal outside of
//! subscriptions. A client that passes one is told when to come back, and loses time only.
//!
//! Always true: a request is counted before its permission is looked up and before its body is read; it is
//! taken from both of its buckets or from none; memory is bounded, and a bucket that is full is forgotten
//! sooner or later, which changes nothing; a lock is held for no longer than it takes to find a bucket. In
//! memory only: a restart fills all buckets.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher as _, Hasher as _},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use arm_wire::{ArmError, ErrorCode};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

pub use crate::bucket::Budget;

/// All principals of a subscription have so many times the budget of one.
const ALL_PRINCIPALS: u32 = 15;
/// Parts of the table, each with its lock.
const SHARDS: usize = 16;
/// A part with fewer entries is not searched for those that are full.
const FEW: usize = 64;
/// The most entries of a part.
const MOST: usize = 1024;

/// What a request is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Delete,
}

/// The number of kinds.
pub(crate) const KINDS: usize = 3;

impl Kind {
    /// In the order of their counters.
    pub(crate) const ALL: [Self; KINDS] = [Self::Read, Self::Write, Self::Delete];

    /// As in ARM, by the method alone: a POST is a write, also one that only reads.
    pub(crate) fn of(method: &Method) -> Self {
        match *method {
            Method::GET | Method::HEAD | Method::OPTIONS => Self::Read,
            Method::DELETE => Self::Delete,
            _ => Self::Write,
        }
    }

    /// In messages.
    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
        }
    }

    /// In metrics and names of headers.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Read => "reads",
            Self::Write => "writes",
            Self::Delete => "deletes",
        }
    }
}

/// The budgets of a principal in a subscription; without one, requests of that kind are not counted. All
/// principals of a subscription together have 15 times as much, and a principal has as much again for what is
/// in no subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// GET, HEAD and OPTIONS.
    pub reads: Option<Budget>,
    /// PUT, PATCH and POST.
    pub writes: Option<Budget>,
    /// DELETE.
    pub deletes: Option<Budget>,
}

impl Budgets {
    /// Azure's figures since 2024.
    pub const AZURE: Self = Self {
        reads: Some(Budget::of(250, 25)),
        writes: Some(Budget::of(200, 10)),
        deletes: Some(Budget::of(200, 10)),
    };
    /// Nothing is counted.
    pub const OFF: Self = Self {
        reads: None,
        writes: None,
        deletes: None,
    };
    /// So much that no budget ever ends here, and everything is counted: for measurements.
    pub const VAST: Self = Self {
        reads: Some(Budget::of(Budget::MOST, Budget::MOST)),
        writes: Some(Budget::of(Budget::MOST, Budget::MOST)),
        deletes: Some(Budget::of(Budget::MOST, Budget::MOST)),
    };

    fn of(&self, kind: Kind) -> Option<Budget> {
        match kind {
            Kind::Read => self.reads,
            Kind::Write => self.writes,
            Kind::Delete => self.deletes,
        }
    }
}

impl Default for Budgets {
    /// Ten to forty times Azure's: a protection against loops that run away, not a limit of what a stamp is
    /// used for. A thousand GETs a second take a tenth of a core.
    fn default() -> Self {
        Self {
            reads: Some(Budget::of(10_000, 1000)),
            writes: Some(Budget::of(2000, 100)),
            deletes: Some(Budget::of(2000, 100)),
        }
    }
}

/// Whose bucket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// A principal's in a subscription.
    Principal,
    /// All principals' of a subscription.
    Subscription,
    /// A principal's, of what is in no subscription.
    Tenant,
}

/// The number of kinds of holders.
pub(crate) const HOLDERS: usize = 3;

impl Whose {
    /// In the order of their counters.
    pub(crate) const ALL: [Self; HOLDERS] = [Self::Principal, Self::Subscription, Self::Tenant];

    /// In metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Subscription => "subscription",
            Self::Tenant => "tenant",
        }
    }
}

/// The names of the headers, by holder and kind.
static HEADERS: [[HeaderName; KINDS]; HOLDERS] = [
    [
        HeaderName::from_static("x-ms-ratelimit-remaining-subscription-reads"),
        HeaderName::from_static("x-ms-ratelimit-remaining-subscription-writes"),
        HeaderName::from_static("x-ms-ratelimit-remaining-subscription-deletes"),
    ],
    [
        HeaderName::from_static("x-ms-ratelimit-remaining-subscription-global-reads"),
        HeaderName::from_static("x-ms-ratelimit-remaining-subscription-global-writes"),
        HeaderName::from_static("x-ms-ratelimit-remaining-subscription-global-deletes"),
    ],
    [
        HeaderName::from_static("x-ms-ratelimit-remaining-tenant-reads"),
        HeaderName::from_static("x-ms-ratelimit-remaining-tenant-writes"),
        HeaderName::from_static("x-ms-ratelimit-remaining-tenant-deletes"),
    ],
];

/// What is left after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remaining {
    kind: Kind,
    left: Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Of the principal's in the subscription, and of all principals'.
    Subscription(u32, u32),
    Tenant(u32),
}

impl Remaining {
    /// Writes it to the headers of a response.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        let mut put = |whose: Whose, left: u32| {
            let name = HEADERS[whose as usize][self.kind as usize].clone();
            headers.insert(name, HeaderValue::from(left));
        };
        match self.left {
            Left::Subscription(own, all) => {
                put(Whose::Principal, own);
                put(Whose::Subscription, all);
            }
            Left::Tenant(own) => put(Whose::Tenant, own),
        }
    }
}

/// A request that passes a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) whose: Whose,
    pub(crate) kind: Kind,
    pub(crate) remaining: Remaining,
    /// When to come back, seconds.
    pub(crate) retry_after: u64,
}

impl Passed {
    /// Codes and sentences are Azure's: clients tell by them that they are too fast.
    pub(crate) fn error(&self, principal: &str, subscription: Option<&str>) -> ArmError {
        let (kind, seconds) = (self.kind.as_str(), self.retry_after);
        let whose = match (self.whose, subscription) {
            (Whose::Principal, Some(subscription)) => {
                format!("subscription '{subscription}' actor '{principal}'")
            }
            (Whose::Subscription, Some(subscription)) => format!("subscription '{subscription}'"),
            _ => format!("tenant actor '{principal}'"),
        };
        let code = match self.whose {
            Whose::Principal | Whose::Subscription => ErrorCode::SUBSCRIPTION_REQUESTS_THROTTLED,
            Whose::Tenant => ErrorCode::TENANT_REQUESTS_THROTTLED,
        };
        ArmError::new(
            code,
            format!(
                "Number of '{kind}' requests for {whose} exceeded. Please try again after '{seconds}' seconds."
            ),
        )
    }
}

/// When the buckets of one holder are full again, by kind: nanoseconds of the monotonic clock.
type Moments = [u64; KINDS];

#[derive(Default)]
struct Shard {
    entries: HashMap<u64, Moments>,
    /// At so many entries, those that are full are dropped.
    sweep_at: usize,
}

/// The buckets in use.
pub(crate) struct Buckets {
    budgets: Budgets,
    seed: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

impl Buckets {
    pub(crate) fn new(budgets: Budgets) -> Self {
        Self {
            budgets,
            seed: RandomState::new(),
            shards: Default::default(),
        }
    }

    /// Whether requests of a kind are counted.
    pub(crate) fn counts(&self, kind: Kind) -> bool {
        self.budgets.of(kind).is_some()
    }

    /// Whether there are buckets of this subscription: then it exists, or did a moment ago.
    pub(crate) fn knows(&self, subscription: &str) -> bool {
        let key = self.key(None, Some(subscription));
        self.shard(key).entries.contains_key(&key)
    }

    /// Takes a request from the buckets of a principal, in an existing subscription or outside of all;
    /// `None` where such requests are not counted.
    pub(crate) fn charge(
        &self,
        kind: Kind,
        principal: &str,
        subscription: Option<&str>,
        now: Duration,
    ) -> Option<Result<Remaining, Passed>> {
        let budget = self.budgets.of(kind)?;
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let own = self.key(Some(principal), subscription);
        let (taken, own_left) = self.with(own, kind, now, |full_at| {
            let taken = budget.take(full_at, now);
            (taken, budget.left(*full_at, now))
        });
        if subscription.is_none() {
            let remaining = Remaining {
                kind,
                left: Left::Tenant(own_left),
            };
            return Some(taken.map(|()| remaining).map_err(|wait| Passed {
                whose: Whose::Tenant,
                kind,
                remaining,
                retry_after: budget.come_back(wait),
            }));
        }
        let together = budget.times(ALL_PRINCIPALS);
        let all = self.key(None, subscription);
        let (all_taken, all_left) = self.with(all, kind, now, |full_at| {
            let all_taken = match taken {
                Ok(()) => together.take(full_at, now),
                Err(_) => Ok(()),
            };
            (all_taken, together.left(*full_at, now))
        });
        let remaining = |own_left| Remaining {
            kind,
            left: Left::Subscription(own_left, all_left),
        };
        let passed = |whose, own_left, retry_after| Passed {
            whose,
            kind,
            remaining: remaining(own_left),
            retry_after,
        };
        Some(match (taken, all_taken) {
            (Ok(()), Ok(())) => Ok(remaining(own_left)),
            (Err(wait), _) => Err(passed(Whose::Principal, own_left, budget.come_back(wait))),
            (Ok(()), Err(wait)) => {
                self.with(own, kind, now, |full_at| budget.put_back(full_at));
                let own_left = own_left.saturating_add(1);
                Err(passed(Whose::Subscription, own_left, together.come_back(wait)))
            }
        })
    }

    /// The key of a holder. Two of them have the same with a chance that is not worth a longer one, and which
    /// nobody can raise who does not know the seed; they would share a budget.
    fn key(&self, principal: Option<&str>, subscription: Option<&str>) -> u64 {
        let mut hasher = self.seed.build_hasher();
        for part in [principal, subscription] {
            // Without regard to case, as ids in paths are compared.
            for byte in part.unwrap_or_default().bytes() {
                hasher.write_u8(byte.to_ascii_lowercase());
            }
            // No text in UTF-8 has this byte: it ends the part.
            hasher.write_u8(if part.is_some() { 0xff } else { 0xfe });
        }
        hasher.finish()
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Shard> {
        let at = usize::try_from(key % SHARDS as u64).unwrap_or_default();
        self.shards[at]
            .lock()
            .expect("nothing panics while it holds this lock")
    }

    /// Does something with a bucket, which is full if it is not known.
    fn with<T>(&self, key: u64, kind: Kind, now: u64, act: impl FnOnce(&mut u64) -> T) -> T {
        let mut shard = self.shard(key);
        if shard.entries.len() >= shard.sweep_at.max(FEW) && !shard.entries.contains_key(&key) {
            shard.sweep(now);
        }
        act(&mut shard.entries.entry(key).or_default()[kind as usize])
    }

    /// The number of entries.
    #[cfg(test)]
    fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| shard.lock().unwrap().entries.len()).sum()
    }
}

impl Shard {
    /// Drops all entries whose buckets are full; if the part is as large as it may be, also the one that is
    /// full first.
    fn sweep(&mut self, now: u64) {
        self.entries
            .retain(|_, full_at| full_at.iter().any(|at| *at > now));
        if self.entries.len() >= MOST {
            let first = self
                .entries
                .iter()
                .min_by_key(|(_, full_at)| full_at.iter().max().copied());
            if let Some(first) = first.map(|(key, _)| *key) {
                self.entries.remove(&first);
            }
        }
        // Twice as many, so that the search is paid for by what came since.
        self.sweep_at = (self.entries.len() * 2).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBSCRIPTION: &str = "5A0E2B6C-93d1-4b6f-8d0a-1c2d3e4f5a6b";

    fn of(size: u32, refill: u32) -> Budgets {
        Budgets {
            reads: Some(Budget::of(size, refill)),
            writes: Some(Budget::of(1, 1)),
            deletes: None,
        }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn headers(remaining: Remaining) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        remaining.write(&mut headers);
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let mut headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), text(value)))
            .collect();
        headers.sort();
        headers
    }

    #[test]
    fn methods_are_counted_as_azure_counts_them() {
        for (method, kind) in [
            (Method::GET, Kind::Read),
            (Method::HEAD, Kind::Read),
            (Method::OPTIONS, Kind::Read),
            (Method::PUT, Kind::Write),
            (Method::PATCH, Kind::Write),
            (Method::POST, Kind::Write),
            (Method::TRACE, Kind::Write),
            (Method::DELETE, Kind::Delete),
        ] {
            assert_eq!(Kind::of(&method), kind, "{method}");
        }
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
            for (holder, whose) in Whose::ALL.into_iter().enumerate() {
                assert_eq!(whose as usize, holder);
                let name = HEADERS[holder][place].as_str();
                assert!(name.ends_with(kind.plural()), "{name}");
            }
        }
    }

    #[test]
    fn principals_subscriptions_and_kinds_have_budgets_of_their_own() {
        let buckets = Buckets::new(of(2, 1));
        let read = |who: &str, subscription: Option<&str>| {
            let charged = buckets.charge(Kind::Read, who, subscription, at(0)).unwrap();
            charged.map_err(|passed| passed.whose)
        };
        let one = read("a", Some(SUBSCRIPTION)).unwrap();
        assert_eq!(
            headers(one),
            [
                (
                    "x-ms-ratelimit-remaining-subscription-global-reads".to_owned(),
                    "29".to_owned()
                ),
                (
                    "x-ms-ratelimit-remaining-subscription-reads".to_owned(),
                    "1".to_owned()
                ),
            ]
        );
        // However the subscription is written.
        assert!(read("a", Some(SUBSCRIPTION.to_lowercase().as_str())).is_ok());
        assert_eq!(read("a", Some(SUBSCRIPTION)), Err(Whose::Principal));
        let other = read("b", Some(SUBSCRIPTION)).unwrap();
        assert_eq!(other.left, Left::Subscription(1, 27));
        assert!(read("a", Some("another")).is_ok());
        let tenant = read("a", None).unwrap();
        assert_eq!(
            headers(tenant),
            [("x-ms-ratelimit-remaining-tenant-reads".to_owned(), "1".to_owned())]
        );
        assert!(read("a", None).is_ok());
        assert_eq!(read("a", None), Err(Whose::Tenant));
        let write = buckets.charge(Kind::Write, "a", Some(SUBSCRIPTION), at(0));
        assert_eq!(write.unwrap().unwrap().left, Left::Subscription(0, 14));
        assert_eq!(buckets.charge(Kind::Delete, "a", None, at(0)), None);
    }

    #[test]
    fn all_principals_share_the_subscription_and_who_is_refused_there_keeps_his_own() {
        let buckets = Buckets::new(of(2, 1));
        let read = |who: &str, millis| buckets.charge(Kind::Read, who, Some(SUBSCRIPTION), at(millis));
        for who in 0..15 {
            for _ in 0..2 {
                assert!(read(&who.to_string(), 0).unwrap().is_ok());
            }
        }
        let passed = read("16", 0).unwrap().unwrap_err();
        assert_eq!(passed.whose, Whose::Subscription);
        assert_eq!(passed.remaining.left, Left::Subscription(2, 0));
        assert_eq!(passed.retry_after, 1);
        let error = passed.error("16", Some("s"));
        assert_eq!(error.code, ErrorCode::SUBSCRIPTION_REQUESTS_THROTTLED);
        assert_eq!(
            error.message,
            "Number of 'read' requests for subscription 's' exceeded. Please try again after '1' seconds."
        );
        // Asking again costs nothing; who comes back as told is served.
        assert_eq!(read("16", 0).unwrap().unwrap_err(), passed);
        assert!(read("16", 1000).unwrap().is_ok());
    }

    #[test]
    fn an_error_names_who_was_too_fast_and_when_to_come_back() {
        let buckets = Buckets::new(of(1, 1));
        for (subscription, words) in [
            (Some("s"), "subscription 's' actor 'a'"),
            (None, "tenant actor 'a'"),
        ] {
            let write = || buckets.charge(Kind::Write, "a", subscription, at(0)).unwrap();
            assert!(write().is_ok());
            let error = write().unwrap_err().error("a", subscription);
            assert_eq!(error.status().as_u16(), 429);
            assert_eq!(
                error.message,
                format!(
                    "Number of 'write' requests for {words} exceeded. Please try again after '1' seconds."
                )
            );
        }
    }

    #[test]
    fn buckets_that_are_full_are_forgotten_and_those_in_use_are_not() {
        let buckets = Buckets::new(of(2, 1));
        let read = |who: &str, millis| buckets.charge(Kind::Read, who, None, at(millis)).unwrap();
        assert!(!buckets.knows("s"));
        assert!(buckets.charge(Kind::Read, "a", Some("s"), at(0)).unwrap().is_ok());
        assert!(buckets.knows("S"));
        // Ten thousand principals, one after the other.
        for number in 0..10_000 {
            assert!(read(&number.to_string(), number * 1000).is_ok());
        }
        assert!(buckets.len() <= SHARDS * FEW, "{}", buckets.len());
        // One that is too fast is remembered, however many others come.
        let now = 10_000_000;
        while read("busy", now).is_ok() {}
        for number in 0..5000 {
            assert!(read(&format!("new {number}"), now).is_ok());
        }
        assert!(read("busy", now + 500).is_err());
        assert!(read("busy", now + 1000).is_ok());
    }

    #[test]
    fn memory_is_bounded_when_all_are_in_use_at_the_same_moment() {
        let buckets = Buckets::new(of(2, 1));
        for number in 0..SHARDS * (MOST + 50) {
            let read = buckets.charge(Kind::Read, &number.to_string(), None, at(0));
            assert!(read.unwrap().is_ok());
        }
        assert!(buckets.len() <= SHARDS * MOST, "{}", buckets.len());
    }

    #[test]
    fn the_figures_are_those_of_the_guide() {
        let figures = |budgets: Budgets| {
            Kind::ALL.map(|kind| {
                let budget = budgets.of(kind).unwrap();
                assert_eq!(Budget::new(budget.size(), budget.refill()), Some(budget));
                (budget.size(), budget.refill())
            })
        };
        assert_eq!(figures(Budgets::AZURE), [(250, 25), (200, 10), (200, 10)]);
        assert_eq!(
            figures(Budgets::default()),
            [(10_000, 1000), (2000, 100), (2000, 100)]
        );
        assert_eq!(figures(Budgets::VAST), [(Budget::MOST, Budget::MOST); KINDS]);
        assert!(Kind::ALL.iter().all(|kind| Budgets::OFF.of(*kind).is_none()));
    }
}
