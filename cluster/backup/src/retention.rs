//! Selects removable files of a backup: those older than the policy requires, and those above a budget.

use std::collections::{BTreeMap, BTreeSet};

use crate::{ObjectName, chain};

const HOUR: i64 = 60 * 60 * 1000;
const DAY: i64 = 24 * HOUR;

/// Retention periods, all in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Period in which every second can be restored.
    pub every_second: i64,
    /// Period with one base per hour.
    pub hourly: i64,
    /// Period with one base per day.
    pub daily: i64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            every_second: DAY,
            hourly: 2 * DAY,
            daily: 7 * DAY,
        }
    }
}

/// The files that may be removed. Never the newest base and the logs after it.
pub fn expired(names: &[ObjectName], policy: &Retention, now: i64) -> Vec<ObjectName> {
    let border = now.saturating_sub(policy.every_second);
    let mut keep: BTreeSet<ObjectName> = BTreeSet::new();
    // Every second since the border: younger files, and the chain that leads up to it.
    keep.extend(names.iter().filter(|name| name.until() >= border));
    for moment in [Some(border), None] {
        if let Ok(chain) = chain::select(names, moment) {
            keep.insert(chain.base);
            keep.extend(chain.logs);
        }
    }
    // The first base of each hour, of each day. The first base of a slot stays the first, so the selection is
    // stable.
    let mut slots: BTreeMap<(i64, i64), ObjectName> = BTreeMap::new();
    let mut bases: Vec<_> = names
        .iter()
        .copied()
        .filter(|name| matches!(name, ObjectName::Base { .. }))
        .collect();
    bases.sort_by_key(ObjectName::until);
    for base in bases {
        let at = base.until();
        for (length, back) in [(HOUR, policy.hourly), (DAY, policy.daily)] {
            if at >= now.saturating_sub(back) {
                slots.entry((length, at.div_euclid(length))).or_insert(base);
            }
        }
    }
    keep.extend(slots.into_values());
    names
        .iter()
        .copied()
        .filter(|name| !keep.contains(name))
        .collect()
}

/// Spacings of bases that are tried in order, while the rest is above the budget.
const SPACINGS: [i64; 3] = [HOUR, 3 * HOUR, 6 * HOUR];

/// The files to remove so that the rest fits into a budget (sizes and budget in bytes), with the least loss:
/// first bases between which the log is continuous (a restore takes longer, nothing is lost), then the oldest
/// files. The newest base and the logs after it always stay.
pub fn above_budget(objects: &[(ObjectName, u64)], budget: u64) -> Vec<ObjectName> {
    let mut left: Vec<(ObjectName, u64)> = objects.to_vec();
    left.sort_by_key(|(name, _)| (name.until(), *name));
    let mut gone = Vec::new();
    let fits = |left: &[(ObjectName, u64)]| {
        left.iter()
            .fold(0_u64, |sum, (_, size)| sum.saturating_add(*size))
            <= budget
    };
    let names = |left: &[(ObjectName, u64)]| left.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let Ok(newest) = chain::select(&names(objects), None) else {
        return gone;
    };
    for spacing in SPACINGS {
        for base in names(&left) {
            if fits(&left) {
                return gone;
            }
            if base == newest.base || !is_redundant(&names(&left), base, spacing) {
                continue;
            }
            left.retain(|(name, _)| *name != base);
            gone.push(base);
        }
    }
    while !fits(&left) {
        let oldest = left
            .iter()
            .position(|(name, _)| *name != newest.base && !newest.logs.contains(name));
        let Some(oldest) = oldest else { break };
        gone.push(left.remove(oldest).0);
    }
    gone
}

/// Whether the chain of an earlier base continues past this one, and the bases around it are no further apart
/// than `spacing`.
fn is_redundant(names: &[ObjectName], base: ObjectName, spacing: i64) -> bool {
    let ObjectName::Base { revision, at } = base else {
        return false;
    };
    let others: Vec<ObjectName> = names.iter().copied().filter(|name| *name != base).collect();
    let after = others
        .iter()
        .filter(|name| matches!(name, ObjectName::Base { .. }) && name.until() >= at)
        .map(ObjectName::until)
        .min();
    let Ok(chain) = chain::select(&others, Some(at)) else {
        return false;
    };
    chain.last >= revision && after.is_some_and(|after| after - chain.base.until() <= spacing)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sized(names: &[ObjectName], base: u64, log: u64) -> Vec<(ObjectName, u64)> {
        let size = |name: &ObjectName| match name {
            ObjectName::Base { .. } => base,
            ObjectName::Log { .. } => log,
        };
        names.iter().map(|name| (*name, size(name))).collect()
    }

    #[test]
    fn within_the_budget_nothing_goes() {
        let objects = sized(&backup(24), 100, 1);
        assert!(above_budget(&objects, 48 * 100 + 144).is_empty());
        assert!(above_budget(&[], 0).is_empty());
    }

    #[test]
    fn bases_go_first_and_every_second_stays() {
        let names = backup(24);
        let gone = above_budget(&sized(&names, 1000, 1), 10 * 1000);
        let left: Vec<ObjectName> = names
            .iter()
            .copied()
            .filter(|name| !gone.contains(name))
            .collect();
        assert!(gone.iter().all(|name| matches!(name, ObjectName::Base { .. })));
        assert!(left.len() < names.len());
        assert_eq!(chain::spans(&left), chain::spans(&names));
    }

    #[test]
    fn then_what_is_oldest_goes_and_the_newest_never() {
        let names = backup(24);
        let gone = above_budget(&sized(&names, 1000, 1), 2500);
        let left: Vec<ObjectName> = names
            .iter()
            .copied()
            .filter(|name| !gone.contains(name))
            .collect();
        let before = chain::spans(&names)[0];
        assert_eq!(chain::spans(&left).last().unwrap().until, before.until);
        let none = above_budget(&sized(&names, 1000, 1), 0);
        let newest = chain::select(&names, None).unwrap();
        assert_eq!(none.len(), names.len() - 1 - newest.logs.len());
        assert!(!none.contains(&newest.base));
    }

    proptest! {
        #[test]
        fn the_rest_fits_or_is_the_newest_and_nothing_goes_twice(
            hours in 1_i64..12,
            base in 1_u64..5000,
            log in 1_u64..500,
            budget in 0_u64..60_000,
        ) {
            let names = backup(hours);
            let objects = sized(&names, base, log);
            let gone = above_budget(&objects, budget);
            let left: Vec<_> = objects.iter().copied().filter(|(name, _)| !gone.contains(name)).collect();
            prop_assert_eq!(left.len() + gone.len(), objects.len());
            let newest = chain::select(&names, None).unwrap();
            let sum: u64 = left.iter().map(|(_, size)| size).sum();
            prop_assert!(sum <= budget || left.len() == 1 + newest.logs.len());
            let kept: Vec<_> = left.iter().map(|(name, _)| *name).collect();
            prop_assert_eq!(chain::select(&kept, None).unwrap(), newest);
            prop_assert!(above_budget(&left, budget).is_empty() || sum > budget);
        }
    }

    /// Two bases an hour and a log part every ten minutes, for this many hours.
    fn backup(hours: i64) -> Vec<ObjectName> {
        let mut names = Vec::new();
        for step in 0..hours * 6 {
            let at = step * HOUR / 6;
            if step % 3 == 0 {
                names.push(ObjectName::Base {
                    revision: step * 10,
                    at,
                });
            }
            names.push(ObjectName::Log {
                previous: step * 10,
                last: step * 10 + 10,
                first_seen: at + 1,
                last_seen: at + HOUR / 6 - 1,
            });
        }
        names
    }

    fn after(names: &[ObjectName], now: i64) -> Vec<ObjectName> {
        let gone = expired(names, &Retention::default(), now);
        names
            .iter()
            .copied()
            .filter(|name| !gone.contains(name))
            .collect()
    }

    #[test]
    fn every_second_of_a_day_then_hours_then_days() {
        let now = 240 * HOUR;
        let names = backup(240);
        let kept = after(&names, now);
        for back in 0..DAY / 1000 / 60 {
            chain::select(&kept, Some(now - 1 - back * 60_000)).unwrap();
        }
        let bases = |from: i64, until: i64| {
            kept.iter()
                .filter(|name| matches!(name, ObjectName::Base { at, .. } if (from..until).contains(at)))
                .count()
        };
        assert_eq!(bases(now - 2 * DAY, now - DAY - HOUR), 23);
        assert_eq!(bases(now - 7 * DAY, now - 2 * DAY), 5);
        assert_eq!(bases(0, now - 7 * DAY), 0);
        let old_logs = kept
            .iter()
            .filter(|name| matches!(name, ObjectName::Log { last_seen, .. } if *last_seen < now - DAY - HOUR))
            .count();
        assert_eq!(old_logs, 0);
    }

    #[test]
    fn applied_again_nothing_more_goes() {
        let now = 240 * HOUR;
        let kept = after(&backup(240), now);
        assert_eq!(after(&kept, now), kept);
    }

    #[test]
    fn the_newest_is_kept_however_old_it_is() {
        let names = backup(2);
        let kept = after(&names, 10_000 * HOUR);
        let chain = chain::select(&kept, None).unwrap();
        assert_eq!(chain.until, names.last().unwrap().until());
        assert_eq!(kept.len(), 1 + chain.logs.len());
    }
}
