//! Fold against a model: a map that is changed step by step.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    Change,
    base::BaseWriter,
    chain::{self, end_of_second},
    log::{LogWriter, extent, merge},
    names::ObjectName,
};

type Model = BTreeMap<Vec<u8>, Entry>;

/// One step of a history: the time since the previous one, and the changes of one transaction.
type Step = (u16, Vec<(u8, Option<Vec<u8>>)>);

struct History {
    /// After each revision: its time, and the state.
    states: Vec<(i64, i64, Model)>,
    changes: Vec<Change>,
}

fn history(steps: &[Step]) -> History {
    let (mut model, mut seen) = (Model::new(), 1_000_000);
    let mut history = History {
        states: vec![(1, seen, model.clone())],
        changes: Vec::new(),
    };
    for (index, (later, changes)) in steps.iter().enumerate() {
        let revision = i64::try_from(index).unwrap() + 2;
        seen += i64::from(*later);
        for (key, value) in changes {
            let key = format!("/registry/configmaps/default/{key:03}").into_bytes();
            let lease = i64::from(key[key.len() - 1] % 3);
            history.changes.push(Change {
                revision,
                seen,
                key: key.clone(),
                now: value.clone().map(|value| (value, lease)),
            });
            match value {
                Some(value) => {
                    let value = value.clone();
                    model.insert(
                        key.clone(),
                        Entry {
                            key,
                            value,
                            revision,
                            lease,
                        },
                    );
                }
                None => {
                    model.remove(&key);
                }
            }
        }
        history.states.push((revision, seen, model.clone()));
    }
    history
}

fn base_of(state: &(i64, i64, Model)) -> Vec<u8> {
    let mut writer = BaseWriter::new(state.0, state.1);
    let mut bytes = Vec::new();
    for entry in state.2.values() {
        bytes.extend(writer.add(entry).unwrap().unwrap_or_default());
    }
    let leases = [Lease { id: 1, ttl: 60 }, Lease { id: 2, ttl: 3600 }];
    bytes.extend(writer.finish(&leases).unwrap().0);
    bytes
}

/// The log after a revision, a frame at least every `every` changes.
fn log_of(history: &History, after: usize, every: usize) -> Vec<u8> {
    let (revision, seen, _) = &history.states[after];
    let mut writer = LogWriter::after(*revision, *seen);
    let (mut bytes, mut count) = (Vec::new(), 0);
    for change in history
        .changes
        .iter()
        .filter(|change| change.revision > *revision)
    {
        if count >= every && change.revision > writer.last() {
            bytes.extend(writer.flush().unwrap().1);
            count = 0;
        }
        if count == 0 {
            // A lease comes before the change that uses it.
            writer.lease(Lease { id: 1, ttl: 60 });
        }
        writer.add(change).unwrap();
        count += 1;
    }
    if !writer.is_empty() {
        bytes.extend(writer.flush().unwrap().1);
    }
    bytes
}

fn fold(
    base: &[u8],
    revision: i64,
    logs: &[&[u8]],
    cut: Option<i64>,
) -> Result<(Model, Folded), BackupError> {
    let mut fold = Fold::onto(revision, cut);
    for log in logs {
        fold.log(*log)?;
    }
    let mut model = Model::new();
    let mut order = Vec::new();
    let folded = fold.finish(base, |entry| {
        order.push(entry.key.clone());
        model.insert(entry.key.clone(), entry.clone());
        Ok(())
    })?;
    assert!(order.is_sorted());
    assert_eq!(order.len(), model.len());
    Ok((model, folded))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = proptest::option::weighted(0.7, proptest::collection::vec(any::<u8>(), 0..40));
    let changes = proptest::collection::btree_map(0..20u8, value, 1..4)
        .prop_map(|changes| changes.into_iter().collect::<Vec<_>>());
    proptest::collection::vec((0..900u16, changes), 1..60)
}

proptest! {
    #[test]
    fn at_any_second_the_fold_is_what_was(steps in steps(), start in any::<prop::sample::Index>(), every in 1..9usize) {
        let history = history(&steps);
        let start = start.index(history.states.len());
        let base = base_of(&history.states[start]);
        let log = log_of(&history, start, every);
        let (first, last) = (history.states[start].1, history.states.last().unwrap().1);
        let mut moment = end_of_second(first);
        while moment <= end_of_second(last) {
            let (model, folded) = fold(&base, history.states[start].0, &[&log], Some(moment)).unwrap();
            let (revision, _, expected) =
                history.states.iter().rev().find(|(_, seen, _)| *seen <= moment).unwrap();
            prop_assert_eq!(&model, expected);
            // Transactions without a change are not in a log.
            prop_assert!(folded.revision <= *revision);
            moment += 1000;
        }
    }

    #[test]
    fn a_later_base_and_the_fold_up_to_it_say_the_same(steps in steps(), every in 1..9usize) {
        let history = history(&steps);
        let last = history.states.last().unwrap();
        let (_, folded) = fold(&base_of(&history.states[0]), 1, &[&log_of(&history, 0, every)], None).unwrap();
        let end = base::read(base_of(last).as_slice(), |_| Ok(())).unwrap();
        prop_assert_eq!(folded.totals, end.totals);
        prop_assert_eq!(folded.revision, end.revision);
    }

    #[test]
    fn frames_follow_each_other_in_time(steps in steps(), every in 1..9usize) {
        let history = history(&steps);
        let log = log_of(&history, 0, every);
        prop_assert_eq!(extent(log.as_slice()).bytes, log.len() as u64);
        let mut seen = Vec::new();
        for frame in Frames::new(log.as_slice()) {
            log::items(&frame.unwrap(), |item| {
                if let Item::Change(change) = item {
                    seen.push((change.revision, change.seen));
                }
                Ok(())
            }).unwrap();
        }
        let told: Vec<_> = history.changes.iter().map(|change| (change.revision, change.seen)).collect();
        prop_assert_eq!(seen, told);
    }

    #[test]
    fn at_any_revision_the_fold_is_what_was(steps in steps(), at in any::<prop::sample::Index>()) {
        let history = history(&steps);
        let (revision, _, expected) = &history.states[at.index(history.states.len())];
        let mut fold = Fold::onto(1, None).until_revision(*revision);
        fold.log(log_of(&history, 0, 3).as_slice()).unwrap();
        let mut model = Model::new();
        let base = base_of(&history.states[0]);
        fold.finish(base.as_slice(), |entry| {
            model.insert(entry.key.clone(), entry.clone());
            Ok(())
        }).unwrap();
        prop_assert_eq!(&model, expected);
    }

    #[test]
    fn merged_parts_are_the_same_log(steps in steps(), split in any::<prop::sample::Index>()) {
        let history = history(&steps);
        let split = split.index(history.states.len());
        let (early, late) = (log_of(&history, 0, 1), log_of(&history, split, 1));
        // Changes before `split`, exactly.
        let mut parts = Vec::new();
        for frame in Frames::new(early.as_slice()) {
            let frame = frame.unwrap();
            if frame.head.last <= history.states[split].0 {
                parts.push(crate::frame::write(&frame.head, &frame.payload).unwrap());
            }
        }
        parts.push(late);
        let merged = merge(parts.iter().map(Vec::as_slice)).unwrap();
        let base = base_of(&history.states[0]);
        let (model, _) = fold(&base, 1, &[&merged], None).unwrap();
        prop_assert_eq!(&model, &history.states.last().unwrap().2);
    }

    #[test]
    fn a_torn_log_gives_the_state_of_its_last_whole_frame(steps in steps(), cut in any::<prop::sample::Index>()) {
        let history = history(&steps);
        let log = log_of(&history, 0, 2);
        let torn = &log[..cut.index(log.len() + 1)];
        let whole = extent(torn);
        prop_assert!(whole.bytes <= torn.len() as u64);
        let kept = &torn[..usize::try_from(whole.bytes).unwrap()];
        let (model, _) = fold(&base_of(&history.states[0]), 1, &[kept], None).unwrap();
        let reached = whole.covers.map_or(1, |(_, last, ..)| last);
        let expected = &history.states[usize::try_from(reached).unwrap() - 1].2;
        prop_assert_eq!(&model, expected);
        // Unless it was cut between two frames, reading on is an error, never a silently shorter state.
        let strict = fold(&base_of(&history.states[0]), 1, &[torn], None);
        prop_assert_eq!(strict.is_ok(), torn.len() as u64 == whole.bytes);
    }

    #[test]
    fn bytes_of_anything_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = fold(&bytes, 1, &[&bytes], None);
        let _ = extent(bytes.as_slice());
    }
}

#[test]
fn a_missing_part_is_an_error_and_overlapping_ones_are_none() {
    let steps: Vec<Step> = (0..9u8).map(|n| (100, vec![(n, Some(vec![n]))])).collect();
    let history = history(&steps);
    let base = base_of(&history.states[0]);
    let (all, late) = (log_of(&history, 0, 1), log_of(&history, 5, 1));
    assert_eq!(
        fold(&base, 1, &[&late], None).unwrap_err(),
        BackupError::Gap { from: 1, to: 6 }
    );
    let (model, _) = fold(&base, 1, &[&all, &late, &all], None).unwrap();
    assert_eq!(model, history.states[9].2);
}

#[test]
fn an_unfinished_or_wrong_base_is_refused() {
    let steps: Vec<Step> = (0..9u8).map(|n| (100, vec![(n, Some(vec![n]))])).collect();
    let history = history(&steps);
    let base = base_of(&history.states[4]);
    let log = log_of(&history, 4, 1);
    let end = base.len() - 1;
    assert!(fold(&base[..end], 5, &[&log], None).is_err());
    let whole = extent(&[][..]).bytes;
    assert_eq!(whole, 0);
    // Another base than the one of the changes, and one after the moment.
    assert!(fold(&base, 4, &[&log_of(&history, 3, 1)], None).is_err());
    assert!(fold(&base, 5, &[], Some(history.states[4].1 - 1)).is_err());
    assert!(fold(&[], 1, &[], None).is_err());
}

#[test]
fn a_transaction_is_taken_as_a_whole() {
    // Seen a second apart, and still one transaction.
    let mut writer = LogWriter::after(1, 1000);
    for (key, seen) in [("a", 1500), ("b", 2500)] {
        writer
            .add(&Change {
                revision: 2,
                seen,
                key: key.into(),
                now: Some((vec![], 0)),
            })
            .unwrap();
    }
    let log = writer.flush().unwrap().1;
    let base = BaseWriter::new(1, 1000).finish(&[]).unwrap().0;
    assert_eq!(fold(&base, 1, &[&log], Some(1999)).unwrap().0.len(), 2);
    assert_eq!(fold(&base, 1, &[&log], Some(1499)).unwrap().0.len(), 0);
}

#[test]
fn leases_of_what_is_there_are_told() {
    let steps: Vec<Step> = vec![(1, vec![(b'1', Some(vec![])), (b'2', Some(vec![]))])];
    let history = history(&steps);
    let (_, folded) = fold(&base_of(&history.states[1]), 2, &[], None).unwrap();
    let used: Vec<_> = history.states[1]
        .2
        .values()
        .map(|entry| entry.lease)
        .filter(|id| *id > 0)
        .collect();
    assert_eq!(folded.leases.len(), used.len());
    assert!(folded.leases.iter().all(|lease| lease.ttl > 0));
}

#[test]
fn writers_refuse_a_wrong_order() {
    let entry = |key: &str| Entry {
        key: key.into(),
        value: vec![],
        revision: 1,
        lease: 0,
    };
    let mut base = BaseWriter::new(1, 0);
    base.add(&entry("b")).unwrap();
    assert!(base.add(&entry("a")).is_err());
    let change = |revision, seen| Change {
        revision,
        seen,
        key: vec![],
        now: None,
    };
    let mut log = LogWriter::after(5, 100);
    assert!(log.add(&change(5, 100)).is_err());
    log.add(&change(7, 100)).unwrap();
    assert!(log.add(&change(6, 100)).is_err());
    assert!(log.add(&change(8, 99)).is_err());
}

#[test]
fn names_lead_to_the_same_state_as_files() {
    let steps: Vec<Step> = (0..9u8).map(|n| (1000, vec![(n, Some(vec![n]))])).collect();
    let history = history(&steps);
    let covers = extent(log_of(&history, 0, 3).as_slice()).covers.unwrap();
    let names = [
        ObjectName::Base {
            revision: 1,
            at: history.states[0].1,
        },
        ObjectName::Log {
            previous: covers.0,
            last: covers.1,
            first_seen: covers.2,
            last_seen: covers.3,
        },
    ];
    assert_eq!(chain::spans(&names)[0].until, history.states[9].1);
}
