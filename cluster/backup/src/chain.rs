//! Selects the files that restore a moment, and lists restorable moments.

use serde::{Deserialize, Serialize};

use crate::ObjectName;

/// A base and the log parts after it, in order, without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The base.
    pub base: ObjectName,
    /// The log parts after it.
    pub logs: Vec<ObjectName>,
    /// The last moment they cover, milliseconds since 1970.
    pub until: i64,
    /// The last revision.
    pub last: i64,
}

/// Restorable moments, milliseconds since 1970, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// The first.
    pub from: i64,
    /// The last.
    pub until: i64,
}

/// The reason why a moment cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCovered {
    /// No base at all.
    #[error("there is no backup yet")]
    Nothing,
    /// Before the first, in a gap, or not yet backed up.
    #[error("that moment is not in the backup")]
    Outside {
        /// The nearest restorable moment before it.
        before: Option<i64>,
        /// The nearest restorable moment after it.
        after: Option<i64>,
    },
}

/// The end of the second of a moment: all changes seen in that second belong to it.
pub fn end_of_second(milliseconds: i64) -> i64 {
    milliseconds
        .div_euclid(1000)
        .saturating_mul(1000)
        .saturating_add(999)
}

/// The chain for the state after all changes seen until `cut`; without it, for the newest state.
///
/// # Errors
/// When the moment is not covered.
pub fn select(names: &[ObjectName], cut: Option<i64>) -> Result<Chain, NotCovered> {
    let bases = bases(names);
    let logs = logs(names);
    let mut newest_first = bases
        .iter()
        .rev()
        .filter(|base| cut.is_none_or(|cut| base.until() <= cut));
    let found = match cut {
        None => newest_first.next().map(|base| follow(*base, &logs, None).0),
        Some(cut) => newest_first.find_map(|base| {
            let (chain, beyond) = follow(*base, &logs, Some(cut));
            // Without a later part, its last change is the last of its second.
            (beyond || end_of_second(chain.until) >= cut).then_some(chain)
        }),
    };
    found.ok_or_else(|| match cut {
        Some(cut) if !bases.is_empty() => {
            let spans = spans(names);
            NotCovered::Outside {
                before: spans
                    .iter()
                    .map(|span| span.until)
                    .filter(|until| *until < cut)
                    .max(),
                after: spans
                    .iter()
                    .map(|span| span.from)
                    .filter(|from| *from > cut)
                    .min(),
            }
        }
        _ => NotCovered::Nothing,
    })
}

/// All restorable moments, in order.
pub fn spans(names: &[ObjectName]) -> Vec<Span> {
    let logs = logs(names);
    let mut spans: Vec<Span> = Vec::new();
    for base in bases(names) {
        let span = Span {
            from: base.until(),
            until: follow(base, &logs, None).0.until,
        };
        match spans.last_mut() {
            Some(before) if span.from <= before.until => before.until = before.until.max(span.until),
            _ => spans.push(span),
        }
    }
    spans
}

/// Bases in order of time.
fn bases(names: &[ObjectName]) -> Vec<ObjectName> {
    let mut bases: Vec<_> = names
        .iter()
        .copied()
        .filter(|name| matches!(name, ObjectName::Base { .. }))
        .collect();
    bases.sort_by_key(|name| match name {
        ObjectName::Base { revision, at } => (*at, *revision),
        ObjectName::Log { .. } => (0, 0),
    });
    bases.dedup();
    bases
}

/// Parts of logs by their start: (previous, last, first seen, last seen).
fn logs(names: &[ObjectName]) -> Vec<(i64, i64, i64, i64)> {
    let mut logs: Vec<_> = names
        .iter()
        .filter_map(|name| match *name {
            ObjectName::Log {
                previous,
                last,
                first_seen,
                last_seen,
            } => Some((previous, last, first_seen, last_seen)),
            ObjectName::Base { .. } => None,
        })
        .collect();
    logs.sort_unstable();
    logs
}

/// Starts at a base and follows parts without a gap, no further than `cut` needs. Also returns whether the
/// next part without a gap starts after `cut`: then no change happened in between.
fn follow(base: ObjectName, logs: &[(i64, i64, i64, i64)], cut: Option<i64>) -> (Chain, bool) {
    let ObjectName::Base { revision, at } = base else {
        let until = base.until();
        return (
            Chain {
                base,
                logs: Vec::new(),
                until,
                last: 0,
            },
            false,
        );
    };
    let mut chain = Chain {
        base,
        logs: Vec::new(),
        until: at,
        last: revision,
    };
    let mut rest = logs;
    loop {
        // Parts that start at or before the current position; the furthest of those that continue. Changes
        // seen before the base's time are in the base, or in an earlier history (etcd was restored or started
        // anew).
        let begun = rest.partition_point(|(previous, ..)| *previous <= chain.last);
        let best = rest[..begun]
            .iter()
            .filter(|(_, last, _, last_seen)| *last > chain.last && *last_seen >= chain.until)
            .max_by_key(|(_, last, ..)| *last);
        let Some((previous, last, first_seen, last_seen)) = best.copied() else {
            if begun == rest.len() || begun == 0 {
                return (chain, false);
            }
            // Only parts that start later are left.
            rest = &rest[begun..];
            if rest.first().is_some_and(|(previous, ..)| *previous > chain.last) {
                return (chain, false);
            }
            continue;
        };
        if cut.is_some_and(|cut| first_seen > cut) {
            return (chain, true);
        }
        chain.logs.push(ObjectName::Log {
            previous,
            last,
            first_seen,
            last_seen,
        });
        chain.last = last;
        chain.until = last_seen;
        if cut.is_some_and(|cut| last_seen > cut) {
            return (chain, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(revision: i64, at: i64) -> ObjectName {
        ObjectName::Base { revision, at }
    }

    fn log(previous: i64, last: i64, first_seen: i64, last_seen: i64) -> ObjectName {
        ObjectName::Log {
            previous,
            last,
            first_seen,
            last_seen,
        }
    }

    #[test]
    fn the_newest_base_before_the_moment_and_the_log_up_to_it() {
        let names = [
            log(20, 30, 250, 300),
            base(10, 100),
            log(10, 20, 110, 200),
            base(20, 210),
            log(30, 40, 310, 400),
        ];
        let chain = select(&names, Some(260)).unwrap();
        assert_eq!(
            (chain.base, chain.logs),
            (base(20, 210), vec![log(20, 30, 250, 300)])
        );
        let chain = select(&names, Some(205)).unwrap();
        assert_eq!(
            (chain.base, chain.logs),
            (base(10, 100), vec![log(10, 20, 110, 200)])
        );
        let newest = select(&names, None).unwrap();
        assert_eq!((newest.base, newest.last, newest.until), (base(20, 210), 40, 400));
        assert_eq!(
            spans(&names),
            [Span {
                from: 100,
                until: 400
            }]
        );
    }

    #[test]
    fn between_two_parts_without_a_gap_nothing_happened() {
        let names = [base(10, 100), log(10, 20, 150, 160), log(20, 21, 900, 901)];
        assert_eq!(select(&names, Some(500)).unwrap().logs.len(), 1);
        assert_eq!(select(&names, Some(120)).unwrap().logs.len(), 0);
    }

    #[test]
    fn a_gap_is_told_with_what_is_near() {
        let names = [
            base(10, 10_000),
            log(10, 20, 11_000, 20_000),
            base(90, 50_000),
            log(90, 95, 51_000, 60_000),
        ];
        let outside = |before, after| NotCovered::Outside { before, after };
        assert_eq!(
            select(&names, Some(30_000)),
            Err(outside(Some(20_000), Some(50_000)))
        );
        assert_eq!(select(&names, Some(5_000)), Err(outside(None, Some(10_000))));
        assert_eq!(select(&names, Some(70_000)), Err(outside(Some(60_000), None)));
        // The rest of the second of the last change.
        assert_eq!(select(&names, Some(end_of_second(60_000))).unwrap().last, 95);
        assert_eq!(select(&[], None), Err(NotCovered::Nothing));
        assert_eq!(spans(&names).len(), 2);
    }

    #[test]
    fn parts_may_overlap_and_a_bad_base_is_no_loss() {
        let names = [
            base(10, 100),
            log(5, 15, 90, 120),
            log(12, 30, 115, 300),
            log(12, 20, 115, 200),
        ];
        let chain = select(&names, Some(290)).unwrap();
        assert_eq!(chain.logs, [log(5, 15, 90, 120), log(12, 30, 115, 300)]);
    }

    #[test]
    fn a_history_that_began_anew_is_not_mixed_with_the_one_before() {
        // Revisions start at 1 again; the new base is the later one.
        let names = [
            base(1000, 1_000),
            log(1000, 2000, 1_100, 2_000),
            base(3, 5_000),
            log(3, 9, 5_100, 6_000),
        ];
        let chain = select(&names, None).unwrap();
        assert_eq!(
            (chain.base, chain.logs),
            (base(3, 5_000), vec![log(3, 9, 5_100, 6_000)])
        );
        assert_eq!(select(&names, Some(1_500)).unwrap().base, base(1000, 1_000));
        assert!(select(&names, Some(4_000)).is_err());
    }

    #[test]
    fn a_moment_means_its_whole_second() {
        assert_eq!(end_of_second(5_000), 5_999);
        assert_eq!(end_of_second(5_999), 5_999);
    }
}
