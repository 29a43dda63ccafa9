//! What becomes of a key that seals no more: pure.

use base_sealer::SealingKey;
use jiff::{SignedDuration, Timestamp};

/// A key that nothing is sealed with is kept for so long at least, for copies of the store that were taken elsewhere.
const KEPT: SignedDuration = SignedDuration::from_hours(15 * 24);
/// A copy may have been read from the store so long before the time that it tells.
const SLACK: SignedDuration = SignedDuration::from_secs(60);

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays as it is.
    Stays,
    /// It is noted since when nothing is sealed with it, or that something is.
    Note(Option<Timestamp>),
    /// It goes.
    Goes,
}

/// What becomes of a key that does not seal, when so many values are found that are sealed with it, and this is the oldest copy of the store.
pub(crate) fn fate(key: &SealingKey, sealed: u64, oldest_copy: Option<Timestamp>, now: Timestamp) -> Fate {
    match key.unused_since {
        _ if key.seals => Fate::Stays,
        None if sealed > 0 => Fate::Stays,
        None => Fate::Note(Some(now)),
        // A store was put back that is older.
        Some(_) if sealed > 0 => Fate::Note(None),
        Some(since) => {
            let is_kept_long = now.duration_since(since) >= KEPT;
            let is_in_a_copy = oldest_copy.is_some_and(|at| at.duration_since(since) <= SLACK);
            if is_kept_long && !is_in_a_copy {
                Fate::Goes
            } else {
                Fate::Stays
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: i64) -> Timestamp {
        Timestamp::from_second(day * 86_400).unwrap()
    }

    fn key(unused_since: Option<i64>) -> SealingKey {
        SealingKey {
            id: "k".to_owned(),
            made_at: None,
            seals: false,
            unused_since: unused_since.map(day),
        }
    }

    #[test]
    fn a_key_is_in_use_as_long_as_something_is_sealed_with_it() {
        assert_eq!(fate(&key(None), 1, None, day(100)), Fate::Stays);
        assert_eq!(fate(&key(None), 0, None, day(100)), Fate::Note(Some(day(100))));
        assert_eq!(
            fate(&key(Some(1)), 1, None, day(100)),
            Fate::Note(None),
            "an older store was put back"
        );
    }

    #[test]
    fn it_is_kept_for_two_weeks_and_for_each_copy_of_before() {
        assert_eq!(fate(&key(Some(10)), 0, None, day(24)), Fate::Stays);
        assert_eq!(fate(&key(Some(10)), 0, None, day(25)), Fate::Goes);
        for copy in [9, 10] {
            assert_eq!(fate(&key(Some(10)), 0, Some(day(copy)), day(99)), Fate::Stays);
        }
        assert_eq!(fate(&key(Some(10)), 0, Some(day(11)), day(99)), Fate::Goes);
    }

    #[test]
    fn the_key_that_seals_stays() {
        let seals = SealingKey {
            seals: true,
            ..key(None)
        };
        assert_eq!(fate(&seals, 0, None, day(999)), Fate::Stays);
    }
}
