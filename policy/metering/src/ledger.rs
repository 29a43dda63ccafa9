//! Holdings over time.

use std::collections::{BTreeMap, BTreeSet};

use control_records::metering::{DAY, HOUR, Meters, UsageDayRecord};
use jiff::Timestamp;

use crate::Holding;

/// A longer time between two looks is counted for nobody: the stamp was down, or its host asleep.
pub const LONGEST_GAP: i64 = 2 * HOUR;

/// What a cluster has, and of which subscription it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    /// GUID, lower case.
    subscription: String,
    holding: Holding,
}

/// The holdings of all clusters, and what they came to so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    clusters: BTreeMap<String, Held>,
    /// By subscription, of those that have anything.
    sums: BTreeMap<String, Holding>,
    /// Up to when everything is counted, seconds since 1970.
    through: i64,
    /// By subscription: what was written before this process counted on, seconds since 1970.
    written: BTreeMap<String, i64>,
    /// By subscription and day: the days that are being counted.
    days: BTreeMap<(String, i64), UsageDayRecord>,
    changed: BTreeSet<(String, i64)>,
}

impl Ledger {
    /// One that goes on from what is kept: `through` is up to when everything was written, seconds since 1970; `days` are the newest records of
    /// each subscription; `now` is the present. The time since then is counted with the holdings that are set first, unless it is a long one.
    pub fn resume(
        through: Option<i64>,
        days: impl IntoIterator<Item = UsageDayRecord>,
        now: Timestamp,
    ) -> Self {
        let days: BTreeMap<(String, i64), UsageDayRecord> = days
            .into_iter()
            .map(|day| ((day.subscription.clone(), day.day), day))
            .collect();
        let mut written: BTreeMap<String, i64> = BTreeMap::new();
        for record in days.values() {
            let through = written.entry(record.subscription.clone()).or_insert(i64::MIN);
            *through = record.through.max(*through);
        }
        let now = now.as_second();
        let last = through.unwrap_or(now).min(now);
        Self {
            clusters: BTreeMap::new(),
            sums: BTreeMap::new(),
            through: if now - last > LONGEST_GAP { now } else { last },
            written,
            days,
            changed: BTreeSet::new(),
        }
    }

    /// Up to when everything is counted, seconds since 1970.
    pub fn through(&self) -> i64 {
        self.through
    }

    /// A cluster has this from `now` on; `None`: it is gone. Gives whether that is a change.
    pub fn set(&mut self, uid: &str, held: Option<(&str, Holding)>, now: Timestamp) -> bool {
        let held = held
            .filter(|(_, holding)| !holding.is_nothing())
            .map(|(subscription, holding)| Held {
                subscription: subscription.to_ascii_lowercase(),
                holding,
            });
        if self.clusters.get(uid) == held.as_ref() {
            return false;
        }
        self.count(now);
        match held {
            Some(held) => self.clusters.insert(uid.to_owned(), held),
            None => self.clusters.remove(uid),
        };
        self.sums.clear();
        for held in self.clusters.values() {
            let sum = self.sums.entry(held.subscription.clone()).or_default();
            *sum = sum.plus(held.holding);
        }
        true
    }

    /// The holdings that there are from the beginning: nothing is counted meanwhile.
    pub fn begin(&mut self, uid: &str, subscription: &str, holding: Holding) {
        let through = Timestamp::from_second(self.through).unwrap_or(Timestamp::MIN);
        self.set(uid, Some((subscription, holding)), through);
    }

    /// Counts up to `now`.
    pub fn count(&mut self, now: Timestamp) {
        let now = now.as_second();
        if now <= self.through {
            return;
        }
        let from = self.through;
        self.through = now;
        if now - from > LONGEST_GAP {
            return;
        }
        for (subscription, holding) in &self.sums {
            // A write may have been cut in half: of this subscription more is written than of others.
            let mut from = self
                .written
                .get(subscription)
                .map_or(from, |written| from.max(*written));
            while from < now {
                let (day, second) = (from.div_euclid(DAY), from.rem_euclid(DAY));
                let until = now.min(from - from.rem_euclid(HOUR) + HOUR);
                let key = (subscription.clone(), day);
                let record = self
                    .days
                    .entry(key.clone())
                    .or_insert_with(|| UsageDayRecord::new(subscription, day));
                let hour = u8::try_from(second / HOUR).unwrap_or(23);
                add(record.hours.entry(hour).or_default(), holding, until - from);
                record.through = until;
                self.changed.insert(key);
                from = until;
            }
        }
    }

    /// What is to be written: each record whole. Writing it twice does no harm.
    pub fn changed(&self) -> Vec<UsageDayRecord> {
        let changed = self.changed.iter();
        changed.filter_map(|key| self.days.get(key).cloned()).collect()
    }

    /// These were written. Days that are over are forgotten.
    pub fn written(&mut self, records: &[UsageDayRecord]) {
        for record in records {
            let key = (record.subscription.clone(), record.day);
            // It may have been counted on meanwhile.
            if self.days.get(&key) == Some(record) {
                self.changed.remove(&key);
            }
        }
        let today = self.through.div_euclid(DAY);
        let changed = &self.changed;
        self.days.retain(|key, _| key.1 >= today || changed.contains(key));
    }

    /// When the present hour ends.
    pub fn hour_ends(now: Timestamp) -> Timestamp {
        let second = now.as_second();
        let ends = second - second.rem_euclid(HOUR) + HOUR;
        Timestamp::from_second(ends).unwrap_or(Timestamp::MAX)
    }
}

/// A holding of so many seconds.
fn add(meters: &mut Meters, holding: &Holding, seconds: i64) {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    meters.seconds = meters.seconds.saturating_add(seconds);
    for (sum, held) in [
        (&mut meters.core_seconds, holding.cores),
        (&mut meters.memory_mib_seconds, holding.memory_mib),
        (&mut meters.disk_gib_seconds, holding.disk_gib),
        (&mut meters.address_seconds, holding.addresses),
    ] {
        *sum = sum.saturating_add(held.saturating_mul(seconds));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Midnight of a day.
    const BEGIN: i64 = 20_000 * DAY;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(BEGIN + second).unwrap()
    }

    fn cores(cores: u64) -> Holding {
        Holding {
            cores,
            ..Holding::default()
        }
    }

    /// By hour since the begin: core-seconds of a subscription.
    fn used(records: &[UsageDayRecord], subscription: &str) -> Vec<(i64, u64)> {
        let own = records
            .iter()
            .filter(|record| record.subscription == subscription);
        own.flat_map(|record| {
            let hours = record.hours.iter();
            hours.map(|(hour, meters)| ((record.day - 20_000) * 24 + i64::from(*hour), meters.core_seconds))
        })
        .collect()
    }

    #[test]
    fn a_holding_is_added_up_over_its_time_and_split_at_hours_and_days() {
        let mut ledger = Ledger::resume(None, [], at(DAY - 5_400));
        assert!(ledger.set("a", Some(("S", cores(2))), at(DAY - 5_400)));
        assert!(
            !ledger.set("a", Some(("s", cores(2))), at(DAY - 5_399)),
            "no change"
        );
        // Half an hour of 2, then of 5 until half past midnight, and of another subscription.
        ledger.set("b", Some(("s", cores(3))), at(DAY - 3_600));
        ledger.set("c", Some(("t", cores(1))), at(DAY));
        ledger.set("a", None, at(DAY + 1_800));
        ledger.set("b", None, at(DAY + 1_800));
        ledger.count(at(DAY + 3_600));
        let records = ledger.changed();
        assert_eq!(
            used(&records, "s"),
            [(22, 2 * 1_800), (23, 5 * 3_600), (24, 5 * 1_800)]
        );
        assert_eq!(used(&records, "t"), [(24, 3_600)]);
        ledger.written(&records);
        assert!(ledger.changed().is_empty());
        assert!(
            ledger.days.keys().all(|(_, day)| *day == 20_001),
            "days that are over are forgotten"
        );
    }

    #[test]
    fn a_service_that_died_goes_on_where_it_had_written() {
        let mut ledger = Ledger::resume(None, [], at(0));
        ledger.set("a", Some(("s", cores(2))), at(0));
        ledger.count(at(600));
        let written = ledger.changed();
        // What it counted after that is lost with it, and counted again by the next one.
        ledger.count(at(900));
        let mut next = Ledger::resume(Some(BEGIN + 600), written.clone(), at(1_000));
        next.begin("a", "s", cores(2));
        next.count(at(1_200));
        assert_eq!(used(&next.changed(), "s"), [(0, 2 * 1_200)]);
        // A stamp that was down for long used nothing meanwhile.
        let mut late = Ledger::resume(Some(BEGIN + 600), written, at(600 + LONGEST_GAP + 1));
        late.begin("a", "s", cores(2));
        late.count(at(600 + LONGEST_GAP + 11));
        assert_eq!(used(&late.changed(), "s"), [(0, 2 * 600), (2, 20)]);
    }

    #[test]
    fn a_write_that_was_cut_in_half_counts_nothing_twice() {
        let mut ledger = Ledger::resume(None, [], at(0));
        ledger.set("a", Some(("s", cores(1))), at(0));
        ledger.set("b", Some(("t", cores(1))), at(0));
        ledger.count(at(60));
        let older = ledger.changed();
        ledger.count(at(120));
        let newer = ledger.changed();
        // Of s the newer record was written, of t the older one.
        let kept = [newer[0].clone(), older[1].clone()];
        assert_eq!((&*kept[0].subscription, &*kept[1].subscription), ("s", "t"));
        let mut next = Ledger::resume(Some(BEGIN + 60), kept, at(130));
        next.begin("a", "s", cores(1));
        next.begin("b", "t", cores(1));
        next.count(at(180));
        let records = next.changed();
        assert_eq!(used(&records, "s"), [(0, 180)]);
        assert_eq!(used(&records, "t"), [(0, 180)]);
    }

    #[test]
    fn a_clock_that_jumps_counts_nothing_twice() {
        let mut ledger = Ledger::resume(None, [], at(0));
        ledger.set("a", Some(("s", cores(1))), at(0));
        ledger.count(at(100));
        ledger.count(at(40));
        ledger.set("a", Some(("s", cores(9))), at(50));
        ledger.count(at(100));
        assert_eq!(used(&ledger.changed(), "s"), [(0, 100)]);
        ledger.count(at(100 + LONGEST_GAP + 1));
        assert_eq!(used(&ledger.changed(), "s"), [(0, 100)], "nobody has looked");
    }

    #[test]
    fn an_hour_ends_when_the_next_one_begins() {
        assert_eq!(Ledger::hour_ends(at(0)), at(3_600));
        assert_eq!(Ledger::hour_ends(at(3_599)), at(3_600));
        assert_eq!(Ledger::hour_ends(at(3_600)), at(7_200));
    }

    proptest! {
        /// However changes, looks and deaths of the service fall: what is counted is the integral of what was held, as long as everything
        /// counted was written before each death.
        #[test]
        fn what_is_counted_is_what_was_held(
            acts in proptest::collection::vec((0_i64..4_000, 0_usize..3, 0_u64..5, any::<bool>()), 1..60),
        ) {
            let (mut now, mut held) = (0_i64, [0_u64; 3]);
            let mut expected = 0_u64;
            let mut ledger = Ledger::resume(None, [], at(0));
            let mut kept: BTreeMap<(String, i64), UsageDayRecord> = BTreeMap::new();
            for (pause, cluster, size, dies) in acts {
                expected += held.iter().sum::<u64>() * u64::try_from(pause).unwrap();
                now += pause;
                ledger.count(at(now));
                held[cluster] = size;
                let uid = format!("c{cluster}");
                ledger.set(&uid, Some(("s", cores(size))), at(now));
                let records = ledger.changed();
                ledger.written(&records);
                for record in records {
                    kept.insert((record.subscription.clone(), record.day), record);
                }
                if dies {
                    ledger = Ledger::resume(Some(BEGIN + now), kept.values().cloned(), at(now));
                    for (number, size) in held.iter().enumerate() {
                        ledger.begin(&format!("c{number}"), "s", cores(*size));
                    }
                }
            }
            let sum: u64 = kept.values().flat_map(|record| record.hours.values()).map(|meters| meters.core_seconds).sum();
            prop_assert_eq!(sum, expected);
            let seconds = kept.values().flat_map(|record| record.hours.values()).map(|meters| meters.seconds);
            prop_assert!(seconds.max().unwrap_or(0) <= 3_600);
        }
    }
}
