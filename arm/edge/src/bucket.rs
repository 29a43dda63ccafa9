//! A bucket of tokens, pure: each request takes one, and they come back at a steady rate.
//!
//! Its whole state is one moment: when it is full again if nothing more is taken. Always true: a bucket that
//! is full is like one that was never used, so it need not be kept; a refused request takes nothing; time
//! that goes backwards gives nothing back.

use std::time::Duration;

const NANOS: u64 = 1_000_000_000;
/// The part of a bucket that is to be full again before a refused client comes back.
const PART: u64 = 8;
/// The longest that a client is told to wait beyond the next token.
const MOST_PATIENCE: Duration = Duration::from_secs(10);

/// How many requests at once, and how many more each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    size: u32,
    refill: u32,
}

impl Budget {
    /// The largest size, and the largest refill in a second.
    pub const MOST: u32 = 100_000;

    /// A budget of `size` requests at once and `refill` more each second, both from 1 to [`Self::MOST`].
    pub const fn new(size: u32, refill: u32) -> Option<Self> {
        if size == 0 || size > Self::MOST || refill == 0 || refill > Self::MOST {
            return None;
        }
        Some(Self { size, refill })
    }

    /// Without the check: for figures of this crate.
    pub(crate) const fn of(size: u32, refill: u32) -> Self {
        Self { size, refill }
    }

    /// So many requests at once.
    pub const fn size(self) -> u32 {
        self.size
    }

    /// So many more each second.
    pub const fn refill(self) -> u32 {
        self.refill
    }

    /// So many times as much.
    pub(crate) const fn times(self, factor: u32) -> Self {
        Self {
            size: self.size.saturating_mul(factor),
            refill: self.refill.saturating_mul(factor),
        }
    }

    /// The time in which one token comes back, nanoseconds.
    fn step(self) -> u64 {
        NANOS / u64::from(self.refill)
    }

    /// The time in which an empty bucket fills, nanoseconds.
    fn whole(self) -> u64 {
        self.step().saturating_mul(u64::from(self.size))
    }

    /// Takes a token at `now` (nanoseconds of a monotonic clock) from the bucket that is full at `full_at`;
    /// or gives the time until there is one.
    pub(crate) fn take(self, full_at: &mut u64, now: u64) -> Result<(), Duration> {
        let missing = full_at.saturating_sub(now).saturating_add(self.step());
        if let Some(over) = missing.checked_sub(self.whole()).filter(|over| *over > 0) {
            return Err(Duration::from_nanos(over));
        }
        *full_at = now.saturating_add(missing);
        Ok(())
    }

    /// Puts a token back that was taken for a request which is refused after all.
    pub(crate) fn put_back(self, full_at: &mut u64) {
        *full_at = full_at.saturating_sub(self.step());
    }

    /// The tokens in the bucket.
    pub(crate) fn left(self, full_at: u64, now: u64) -> u32 {
        let missing = full_at.saturating_sub(now);
        let left = self.whole().saturating_sub(missing) / self.step();
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// The whole seconds after which a refused client is to come back, when the next token is there after
    /// `wait`.
    ///
    /// Not at the next token: the threads of a client would come back together, and all but one of them would
    /// use up one of their few tries (Azure's SDKs have three) for nothing.
    pub(crate) fn come_back(self, wait: Duration) -> u64 {
        let tokens = (u64::from(self.size) / PART).saturating_sub(1);
        let more = Duration::from_nanos(self.step().saturating_mul(tokens)).min(MOST_PATIENCE);
        let wait = wait.saturating_add(more);
        let begun = u64::from(wait.subsec_nanos() > 0);
        wait.as_secs().saturating_add(begun).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Budget = Budget::of(10, 4);

    /// The tokens that a bucket gives at a moment.
    fn drain(budget: Budget, full_at: &mut u64, now: u64) -> u32 {
        let mut given = 0;
        while budget.take(full_at, now).is_ok() {
            given += 1;
        }
        given
    }

    #[test]
    fn a_bucket_is_full_at_first_is_emptied_and_fills_at_its_rate() {
        let (mut full_at, now) = (0, 77 * NANOS);
        assert_eq!(SMALL.left(full_at, now), 10);
        assert_eq!(drain(SMALL, &mut full_at, now), 10);
        assert_eq!(SMALL.left(full_at, now), 0);
        // A token each quarter of a second, not a moment earlier.
        let quarter = NANOS / 4;
        assert_eq!(SMALL.take(&mut full_at, now), Err(Duration::from_millis(250)));
        assert_eq!(
            SMALL.take(&mut full_at, now + quarter - 1),
            Err(Duration::from_nanos(1))
        );
        assert_eq!(SMALL.take(&mut full_at, now + quarter), Ok(()));
        assert_eq!(drain(SMALL, &mut full_at, now + quarter), 0);
        assert_eq!(drain(SMALL, &mut full_at, now + quarter + NANOS), 4);
        // However long nobody asks: it does not hold more than its size.
        assert_eq!(drain(SMALL, &mut full_at, now + 3600 * NANOS), 10);
    }

    #[test]
    fn a_refused_request_takes_nothing_and_what_is_put_back_is_there_again() {
        let (mut full_at, now) = (0, NANOS);
        drain(SMALL, &mut full_at, now);
        let before = full_at;
        for _ in 0..100 {
            assert!(SMALL.take(&mut full_at, now).is_err());
        }
        assert_eq!(full_at, before);
        SMALL.put_back(&mut full_at);
        assert_eq!(
            (SMALL.left(full_at, now), drain(SMALL, &mut full_at, now)),
            (1, 1)
        );
    }

    #[test]
    fn a_clock_that_goes_backwards_gives_nothing() {
        let (mut full_at, now) = (0, 100 * NANOS);
        drain(SMALL, &mut full_at, now);
        assert!(SMALL.take(&mut full_at, now - NANOS).is_err());
        assert_eq!(SMALL.left(full_at, now - NANOS), 0);
        assert_eq!(drain(SMALL, &mut full_at, now + NANOS), 4);
    }

    #[test]
    fn over_any_time_no_more_is_given_than_size_and_refill_say() {
        for budget in [
            Budget::of(1, 1),
            Budget::of(250, 25),
            Budget::of(7, 3).times(15),
            Budget::of(2000, 9999),
        ] {
            let (mut full_at, mut given) = (0, 0);
            for tenth in 0..50 {
                given += u64::from(drain(budget, &mut full_at, tenth * NANOS / 10));
            }
            let most = u64::from(budget.size) + 49 * u64::from(budget.refill) / 10;
            // A step is a whole number of nanoseconds, which is shorter by less than one.
            let slack = most / 1000 + 1;
            assert!(
                given <= most + slack && given + slack >= most,
                "{budget:?}: {given} of {most}"
            );
        }
    }

    #[test]
    fn a_client_that_waits_as_told_finds_a_part_of_the_bucket() {
        for (budget, seconds, least) in [
            (Budget::of(250, 25), 2, 31),
            (Budget::of(200, 10), 3, 25),
            (Budget::of(1, 1), 1, 1),
            (Budget::of(10_000, 1000), 2, 1250),
            // Bounded, where that would take long.
            (Budget::of(100_000, 1), 11, 10),
        ] {
            let (mut full_at, now) = (0, 0);
            drain(budget, &mut full_at, now);
            let wait = budget.take(&mut full_at, now).unwrap_err();
            assert_eq!(budget.come_back(wait), seconds, "{budget:?}");
            assert!(budget.left(full_at, seconds * NANOS) >= least, "{budget:?}");
        }
    }

    #[test]
    fn figures_have_bounds() {
        assert_eq!(Budget::new(250, 25), Some(Budget::of(250, 25)));
        for (size, refill) in [(0, 1), (1, 0), (Budget::MOST + 1, 1), (1, Budget::MOST + 1)] {
            assert_eq!(Budget::new(size, refill), None);
        }
    }
}
