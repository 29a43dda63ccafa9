//! Two years of clusters in all states, with random acts of tenants and operators, against the rules written down a second time: minute by
//! minute, in counters, without a date but for the twelve months.

use std::{collections::BTreeMap, time::Duration};

use base_seed::Seed;
use jiff::Timestamp;

use super::{Act, ClusterClock, Deed, Happening, LEAST_NOTICE, Phase, after};
use crate::Profile;

/// 2027-01-01T00:00:00Z.
const BEGIN: i64 = 1_798_761_600;
const MINUTES: u32 = 2 * 365 * 24 * 60;
const DAY: u32 = 24 * 60;
/// Clusters that are also gone through minute by minute.
const COMPARED: u64 = 40;
const CLUSTERS: u64 = 1000;

fn at(minute: u32) -> Timestamp {
    Timestamp::from_second(BEGIN + i64::from(minute) * 60).unwrap()
}

fn minute(at: Timestamp) -> u32 {
    let seconds = at.as_second() - BEGIN;
    assert_eq!(seconds % 60, 0, "deadlines fall on minutes: {at}");
    u32::try_from(seconds / 60).unwrap()
}

/// What people do with a cluster and its subscription: a few things a year, at minutes of their own.
fn course(seed: Seed) -> Vec<(u32, Happening)> {
    const ALL: [Happening; 12] = [
        Happening::Stopped,
        Happening::Stopped,
        Happening::Started,
        Happening::Deallocated,
        Happening::Allocated,
        Happening::Idle,
        Happening::Busy,
        Happening::LeftSupport,
        Happening::BackInSupport,
        Happening::Suspended,
        Happening::Reinstated,
        Happening::SubscriptionDeleted,
    ];
    let mut course = BTreeMap::new();
    for number in 0..4 + seed.draw(0) % 10 {
        let minute = u32::try_from(seed.child("minute").draw(number) % u64::from(MINUTES)).unwrap();
        let dice = seed.child("what").draw(number);
        let what = ALL[usize::try_from(dice % 12).unwrap()];
        // A subscription is rarely deleted: there would be nothing left to look at.
        let what = if what == Happening::SubscriptionDeleted && !(dice / 12).is_multiple_of(4) {
            Happening::Started
        } else {
            what
        };
        course.insert(minute, what);
    }
    course.into_iter().collect()
}

/// A deed, by minute, rule and what.
type Done = (u32, &'static str, Deed);

/// The clock, looked at when it says.
fn play(profile: Profile, course: &[(u32, Happening)]) -> Vec<Act> {
    let mut clock = ClusterClock::new(profile);
    let mut acts = Vec::new();
    let look = |clock: &mut ClusterClock, until: Timestamp, acts: &mut Vec<Act>| {
        while let Some(next) = clock.next().filter(|next| *next < until) {
            let new = clock.pass(next);
            assert!(!new.is_empty(), "it is looked at for nothing at {next}");
            acts.extend(new);
        }
    };
    for (minute, what) in course {
        look(&mut clock, at(*minute), &mut acts);
        acts.extend(clock.happen(*what, at(*minute)));
    }
    look(&mut clock, at(MINUTES), &mut acts);
    if clock.phase() == Phase::Deleted {
        assert_eq!(clock.next(), None);
    }
    acts
}

fn done(acts: &[Act]) -> Vec<Done> {
    let deeds = acts.iter().filter(|act| act.notice.is_none());
    deeds.map(|act| (minute(act.at), act.rule, act.deed)).collect()
}

/// Days of the months of a year.
fn months(year: u32) -> [u32; 12] {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    [
        31,
        if leap { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ]
}

/// The minute twelve months later: on the same day of the next year, which 29 February has not.
fn next_year(stopped: u32) -> u32 {
    let (mut day, mut year) = (stopped / DAY, 2027);
    while day >= months(year).iter().sum::<u32>() {
        day -= months(year).iter().sum::<u32>();
        year += 1;
    }
    let (mut month, mut of_month) = (0, day);
    while of_month >= months(year)[month] {
        of_month -= months(year)[month];
        month += 1;
    }
    let of_month = of_month.min(months(year + 1)[month] - 1);
    let before: u32 = (2027..=year).map(|year| months(year).iter().sum::<u32>()).sum();
    let days = before + months(year + 1)[..month].iter().sum::<u32>() + of_month;
    days * DAY + stopped % DAY
}

/// The rules, a minute at a time. Counters say for how many minutes something has been so.
fn oracle(profile: Profile, course: &[(u32, Happening)]) -> Vec<Done> {
    let aks = profile == Profile::Aks;
    let mut done: Vec<Done> = Vec::new();
    let mut acts = course.iter().peekable();
    let (mut stopped, mut deallocated, mut idle, mut out, mut away) = (None, None, None, None, None);
    let mut gone_at = 0;
    let (mut archived, mut deleted_subscription) = (false, false);
    for now in 0..MINUTES {
        // What is due is done before what happens in the same minute, in the order of rules; then once more, for what follows at once.
        for look in 0..2 {
            if aks {
                if stopped.is_some() && now == gone_at {
                    done.push((now, "L1", Deed::Delete));
                    return done;
                }
                if stopped.is_none() && !archived {
                    for (counter, rule) in [(&deallocated, "L2"), (&idle, "L3")] {
                        if *counter == Some(30 * DAY) && stopped.is_none() {
                            done.push((now, rule, Deed::Stop));
                            stopped = Some(0);
                            gone_at = next_year(now);
                        }
                    }
                }
                if out == Some(30 * DAY) && !archived {
                    done.push((now, "L4", Deed::Archive));
                    archived = true;
                }
                if deleted_subscription {
                    done.push((now, "S2", Deed::Delete));
                    return done;
                }
                if away == Some(90 * DAY) {
                    done.push((now, "S1", Deed::Delete));
                    return done;
                }
                if away.is_some() && stopped.is_none() && !archived {
                    done.push((now, "S1", Deed::Stop));
                    stopped = Some(0);
                    gone_at = next_year(now);
                }
            } else if look == 0 {
                for (days, deed) in [
                    (30, Deed::LeaveSupport),
                    (60, Deed::RefuseLatest),
                    (90, Deed::RefuseUpdates),
                ] {
                    let hci_only = deed == Deed::RefuseLatest;
                    if stopped == Some(days * DAY) && (!hci_only || profile == Profile::Hci) {
                        done.push((now, "L5", deed));
                    }
                }
                if away == Some(60 * DAY) {
                    done.push((now, "S3", Deed::LeaveSupport));
                }
            }
            let due = acts.peek().is_some_and(|(minute, _)| *minute == now);
            if look == 1 || !due {
                break;
            }
            let Some((_, what)) = acts.next() else { break };
            let begin = |counter: &mut Option<u32>| {
                counter.get_or_insert(0);
            };
            match what {
                Happening::Stopped => {
                    if stopped.is_none() {
                        stopped = Some(0);
                        gone_at = next_year(now);
                    }
                }
                Happening::Started => {
                    if !(aks && away.is_some()) {
                        (stopped, deallocated, idle) = (None, None, None);
                    }
                }
                Happening::Deallocated => begin(&mut deallocated),
                Happening::Allocated => deallocated = None,
                Happening::Idle => begin(&mut idle),
                Happening::Busy => idle = None,
                Happening::LeftSupport => begin(&mut out),
                Happening::BackInSupport => {
                    out = None;
                    if archived {
                        done.push((now, "L4", Deed::Restore));
                        archived = false;
                        (deallocated, idle) = (None, None);
                    }
                }
                Happening::Suspended => {
                    if !deleted_subscription {
                        begin(&mut away);
                    }
                }
                Happening::SubscriptionDeleted => {
                    if !deleted_subscription {
                        deleted_subscription = true;
                        away = Some(0);
                        if !aks {
                            done.push((now, "S3", Deed::Unregister));
                        }
                    }
                }
                Happening::Reinstated => {
                    if !deleted_subscription {
                        away = None;
                    }
                }
                Happening::Deleted => return done,
            }
        }
        for counter in [&mut stopped, &mut deallocated, &mut idle, &mut out, &mut away]
            .into_iter()
            .flatten()
        {
            *counter += 1;
        }
    }
    done
}

fn profile(number: u64) -> Profile {
    [Profile::Aks, Profile::Aks, Profile::Arc, Profile::Hci][usize::try_from(number % 4).unwrap()]
}

#[test]
fn two_years_to_the_minute_are_as_the_rules_say() {
    let seed = Seed::new(15);
    let mut kinds = BTreeMap::new();
    for number in 0..COMPARED {
        let profile = profile(number);
        let course = course(seed.child("cluster").child(&number.to_string()));
        // Within a minute the order of what is done at once is of no matter.
        let sorted = |mut deeds: Vec<Done>| {
            deeds.sort_unstable();
            deeds
        };
        let (ours, theirs) = (
            sorted(done(&play(profile, &course))),
            sorted(oracle(profile, &course)),
        );
        assert_eq!(ours, theirs, "cluster {number}, {profile}: {course:?}");
        for (_, rule, deed) in ours {
            *kinds.entry((rule, deed.as_str())).or_insert(0_u32) += 1;
        }
    }
    assert!(kinds.len() >= 7, "the courses show too little: {kinds:?}");
}

#[test]
fn each_deadline_is_announced_and_nothing_is_deleted_wrongly() {
    let seed = Seed::new(15);
    let (mut deletions, mut notices) = (0_u32, 0_u32);
    for number in 0..CLUSTERS {
        let profile = profile(number);
        let course = course(seed.child("cluster").child(&number.to_string()));
        let acts = play(profile, &course);
        notices += u32::try_from(acts.iter().filter(|act| act.notice.is_some()).count()).unwrap();
        for (place, act) in acts.iter().enumerate() {
            let at_once = matches!(
                (act.rule, act.deed),
                ("S1", Deed::Stop) | ("S2", Deed::Delete) | ("S3", Deed::Unregister) | ("L4", Deed::Restore)
            );
            if act.notice.is_some() || at_once {
                continue;
            }
            let last = acts[..place]
                .iter()
                .rev()
                .find(|before| (before.rule, before.deed) == (act.rule, act.deed) && before.notice.is_some());
            let last = last.unwrap_or_else(|| panic!("{number}: {act:?} was not announced"));
            assert_eq!(
                last.notice,
                Some(act.at),
                "{number}: it was announced for that moment"
            );
            assert!(
                act.at >= after(last.at, LEAST_NOTICE),
                "{number}: {act:?} after {last:?}"
            );
        }
        let deletion = acts
            .iter()
            .find(|act| act.notice.is_none() && act.deed == Deed::Delete);
        let Some(deletion) = deletion else { continue };
        deletions += 1;
        assert_eq!(
            acts.last(),
            Some(deletion),
            "{number}: nothing is done with what is gone"
        );
        // What a person did last before it was not to start it, nor to take the suspension back.
        let before = course.iter().rev().find(|(minute, what)| {
            at(*minute) < deletion.at
                && matches!(
                    (deletion.rule, what),
                    ("L1", Happening::Started) | ("S1", Happening::Reinstated | Happening::Suspended)
                )
        });
        match (deletion.rule, before) {
            ("L1", Some((minute, Happening::Started))) => {
                let kept = deletion.at.duration_since(at(*minute)).unsigned_abs();
                let suspended = course
                    .iter()
                    .any(|(other, what)| *what == Happening::Suspended && other < minute);
                let year = Duration::from_secs(365 * 24 * 60 * 60);
                // A start in a suspended subscription starts nothing.
                assert!(suspended || kept >= year, "{number}: {course:?}");
            }
            ("S1", Some((_, last))) => assert_eq!(*last, Happening::Suspended, "{number}: {course:?}"),
            _ => {}
        }
    }
    assert!(
        deletions > 100 && notices > 1000,
        "{deletions} deletions, {notices} notices"
    );
}
