//! Names of copies, and the choice of copies to keep. Pure.

use std::{collections::BTreeSet, fmt, str::FromStr};

use control_records::Epoch;
use control_store::Revision;
use jiff::Timestamp;

/// The number of newest copies that are kept, …
const NEWEST: usize = 10;
/// … and of hours of which the newest copy is kept, …
const HOURS: usize = 24;
/// … and of days.
const DAYS: usize = 14;
/// The most bytes of all copies of a store. The newest two are kept in any case.
const BUDGET: u64 = 8 * 1024 * 1024 * 1024;
/// The suffix of each name.
const END: &str = ".copy";

/// A copy's name: names are ordered like their times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CopyName {
    /// When it was made, milliseconds since 1970.
    pub at: i64,
    /// The store's epoch.
    pub epoch: Epoch,
    /// The store's revision.
    pub revision: Revision,
}

impl CopyName {
    /// When it was made.
    pub fn time(&self) -> Timestamp {
        Timestamp::from_millisecond(self.at).unwrap_or_default()
    }
}

impl fmt::Display for CopyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:015}-{}-{}{END}", self.at, self.epoch.0, self.revision.0)
    }
}

impl FromStr for CopyName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.strip_suffix(END)?.split('-');
            let (at, epoch, revision) = (parts.next()?, parts.next()?, parts.next()?);
            let name = Self {
                at: at.parse().ok()?,
                epoch: Epoch(epoch.parse().ok()?),
                revision: Revision(revision.parse().ok()?),
            };
            // One name for one copy.
            (parts.next().is_none() && name.to_string() == text).then_some(name)
        };
        parse().ok_or_else(|| format!("{text:?} is not the name of a copy of a store"))
    }
}

/// The copies of a store, with their sizes, that need not be kept.
pub fn expired(copies: &[(CopyName, u64)]) -> Vec<CopyName> {
    let mut newest_first = copies.to_vec();
    newest_first.sort_unstable_by_key(|(name, _)| std::cmp::Reverse(*name));
    let (mut hours, mut days) = (BTreeSet::new(), BTreeSet::new());
    let mut bytes = 0_u64;
    let mut expired = Vec::new();
    for (number, (name, size)) in newest_first.into_iter().enumerate() {
        let hour = name.at.div_euclid(3_600_000);
        let day = hour.div_euclid(24);
        let of_hour = hours.len() < HOURS && hours.insert(hour);
        let of_day = days.len() < DAYS && days.insert(day);
        bytes = bytes.saturating_add(size);
        let wanted = number < NEWEST || of_hour || of_day;
        if number >= 2 && (!wanted || bytes > BUDGET) {
            bytes = bytes.saturating_sub(size);
            expired.push(name);
        }
    }
    expired
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn copy(minutes: i64) -> CopyName {
        CopyName {
            at: minutes * 60_000,
            epoch: Epoch(1),
            revision: Revision(7),
        }
    }

    #[test]
    fn a_name_comes_back_and_sorts_as_its_time_does() {
        let (early, late) = (copy(9), copy(29_000_000));
        for name in [early, late] {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        assert!(early.to_string() < late.to_string());
        for wrong in [
            "",
            "key",
            "1-2-3.copy",
            "000000000540000-1-7",
            "000000000540000-1-7-8.copy",
        ] {
            assert!(wrong.parse::<CopyName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_newest_ones_of_hours_and_of_days_are_kept() {
        // A copy each minute for 20 days.
        let all: Vec<_> = (0..20 * 24 * 60).map(|minute| (copy(minute), 1)).collect();
        let gone: BTreeSet<_> = expired(&all).into_iter().collect();
        let kept: Vec<_> = all.iter().filter(|(name, _)| !gone.contains(name)).collect();
        assert_eq!(kept.len(), NEWEST + (HOURS - 1) + (DAYS - 1), "{kept:?}");
        assert_eq!(kept.last().map(|(name, _)| *name), Some(copy(20 * 24 * 60 - 1)));
    }

    #[test]
    fn within_the_budget_and_two_in_any_case() {
        let all: Vec<_> = (0..9).map(|minute| (copy(minute), BUDGET / 3)).collect();
        assert_eq!(expired(&all).len(), 6);
        let all: Vec<_> = (0..9).map(|minute| (copy(minute), BUDGET * 2)).collect();
        assert_eq!(expired(&all).len(), 7);
    }

    proptest! {
        #[test]
        fn the_newest_copy_never_expires_and_expiry_comes_to_rest(minutes in prop::collection::btree_set(0_i64..100_000, 1..200)) {
            let all: Vec<_> = minutes.iter().map(|minute| (copy(*minute), 5)).collect();
            let gone = expired(&all);
            prop_assert!(!gone.contains(&all[all.len() - 1].0));
            let left: Vec<_> = all.into_iter().filter(|(name, _)| !gone.contains(name)).collect();
            prop_assert!(expired(&left).is_empty());
        }
    }
}
