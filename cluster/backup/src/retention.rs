//! What of a backup may go.

use std::collections::{BTreeMap, BTreeSet};

use crate::{ObjectName, chain};

const HOUR: i64 = 60 * 60 * 1000;
const DAY: i64 = 24 * HOUR;

/// How long what is kept. All in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Every second of this time back can be restored.
    pub every_second: i64,
    /// A base an hour of this time back.
    pub hourly: i64,
    /// A base a day of this time back.
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

/// The files that may go. The newest base and what follows it never do.
pub fn expired(names: &[ObjectName], policy: &Retention, now: i64) -> Vec<ObjectName> {
    let border = now.saturating_sub(policy.every_second);
    let mut keep: BTreeSet<ObjectName> = BTreeSet::new();
    // Every second since the border: what is younger, and the chain that leads up to it.
    keep.extend(names.iter().filter(|name| name.until() >= border));
    for moment in [Some(border), None] {
        if let Ok(chain) = chain::select(names, moment) {
            keep.insert(chain.base);
            keep.extend(chain.logs);
        }
    }
    // The first base of each hour, of each day. Of a kept slot the same base stays the first, so nothing is kept by turns.
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

#[cfg(test)]
mod tests {
    use super::*;

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
