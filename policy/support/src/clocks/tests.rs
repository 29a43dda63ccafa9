use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::Profile;

fn t(text: &str) -> Timestamp {
    let text = if text.len() == 10 {
        format!("{text}T00:00:00Z")
    } else {
        text.to_owned()
    };
    text.parse().unwrap()
}

/// Looks at a clock as often as it wants to be looked at, until `end`.
fn run(clock: &mut ClusterClock, end: &str) -> Vec<(String, &'static str, &'static str, bool)> {
    let mut told = Vec::new();
    while let Some(at) = clock.next().filter(|at| *at <= t(end)) {
        for act in clock.pass(at) {
            let day = act.at.to_string();
            told.push((day, act.rule, act.deed.as_str(), act.notice.is_some()));
        }
    }
    told
}

fn deeds<'a>(
    told: &'a [(String, &'static str, &'static str, bool)],
) -> Vec<(&'a str, &'static str, &'static str)> {
    let done = told.iter().filter(|(_, _, _, notice)| !notice);
    done.map(|(at, rule, deed, _)| (at.as_str(), *rule, *deed))
        .collect()
}

#[test]
fn l1_a_stopped_cluster_is_kept_for_twelve_months_of_the_calendar() {
    for (stopped, gone) in [
        ("2027-01-15T10:30:00Z", "2028-01-15T10:30:00Z"),
        // That of the next year has no such day.
        ("2028-02-29T23:59:00Z", "2029-02-28T23:59:00Z"),
    ] {
        let mut clock = ClusterClock::new(Profile::Aks);
        assert_eq!(clock.happen(Happening::Stopped, t(stopped)), []);
        let told = run(&mut clock, "2030-01-01");
        assert_eq!(deeds(&told), [(gone, "L1", "delete")]);
        let notices: Vec<Timestamp> = told[..4].iter().map(|(at, ..)| at.parse().unwrap()).collect();
        let left: Vec<u64> = notices
            .iter()
            .map(|at| t(gone).duration_since(*at).unsigned_abs().as_secs() / DAY.as_secs())
            .collect();
        assert_eq!(left, [60, 30, 7, 1]);
        assert_eq!(clock.phase(), Phase::Deleted);
    }
}

#[test]
fn l1_a_start_ends_it_and_the_next_stop_begins_anew() {
    let mut clock = ClusterClock::new(Profile::Aks);
    clock.happen(Happening::Stopped, t("2027-01-01"));
    assert!(!clock.is_warned());
    assert_eq!(run(&mut clock, "2027-12-20").len(), 2, "60 and 30 days before");
    assert!(clock.is_warned());
    clock.happen(Happening::Started, t("2027-12-31T23:59:00Z"));
    assert_eq!((clock.next(), clock.is_warned()), (None, false));
    clock.happen(Happening::Stopped, t("2028-01-02"));
    assert_eq!(
        deeds(&run(&mut clock, "2029-12-31")),
        [("2029-01-02T00:00:00Z", "L1", "delete")]
    );
}

#[test]
fn l2_and_l3_nodes_that_do_not_run_stop_the_cluster_which_is_then_kept_like_any_other() {
    for (what, rule) in [(Happening::Deallocated, "L2"), (Happening::Idle, "L3")] {
        let mut clock = ClusterClock::new(Profile::Aks);
        clock.happen(what, t("2027-01-01"));
        assert_eq!(
            deeds(&run(&mut clock, "2028-12-31")),
            [
                ("2027-01-31T00:00:00Z", rule, "stop"),
                ("2028-01-31T00:00:00Z", "L1", "delete")
            ]
        );
    }
    // Nodes that come back in time.
    let mut clock = ClusterClock::new(Profile::Aks);
    clock.happen(Happening::Deallocated, t("2027-01-01"));
    clock.happen(Happening::Allocated, t("2027-01-30T23:59:00Z"));
    assert_eq!(clock.next(), None);
    // A start brings its nodes: what was before is not counted on.
    clock.happen(Happening::Deallocated, t("2027-02-01"));
    assert_eq!(run(&mut clock, "2027-04-01").len(), 4);
    clock.happen(Happening::Started, t("2027-04-01"));
    assert_eq!((clock.phase(), clock.next()), (Phase::Running, None));
}

#[test]
fn l4_a_put_that_brings_it_back_restores_what_was_archived() {
    let mut clock = ClusterClock::new(Profile::Aks);
    clock.happen(Happening::LeftSupport, t("2027-03-01"));
    assert_eq!(
        deeds(&run(&mut clock, "2027-12-31")),
        [("2027-03-31T00:00:00Z", "L4", "archive")]
    );
    assert_eq!(clock.phase(), Phase::Archived);
    let acts = clock.happen(Happening::BackInSupport, t("2028-01-01"));
    assert_eq!(acts[0].deed, Deed::Restore);
    assert_eq!((clock.phase(), clock.next()), (Phase::Running, None));
}

#[test]
fn l5_hybrid_clusters_that_are_stopped_lose_support_then_updates() {
    let mut clock = ClusterClock::new(Profile::Hci);
    clock.happen(Happening::Stopped, t("2027-01-01"));
    assert_eq!(
        deeds(&run(&mut clock, "2029-01-01")),
        [
            ("2027-01-31T00:00:00Z", "L5", "leave support"),
            ("2027-03-02T00:00:00Z", "L5", "no update to the latest version"),
            ("2027-04-01T00:00:00Z", "L5", "no update"),
        ]
    );
    let mut clock = ClusterClock::new(Profile::Arc);
    clock.happen(Happening::Stopped, t("2027-01-01"));
    assert_eq!(deeds(&run(&mut clock, "2029-01-01")).len(), 2);
}

#[test]
fn s1_and_s2_a_subscription_that_is_suspended_stops_its_clusters_at_once() {
    let mut clock = ClusterClock::new(Profile::Aks);
    let acts = clock.happen(Happening::Suspended, t("2027-01-01"));
    assert_eq!((acts.len(), acts[0].deed, acts[0].rule), (1, Deed::Stop, "S1"));
    // Nobody starts one there.
    clock.happen(Happening::Started, t("2027-01-02"));
    assert_eq!(clock.phase(), Phase::Stopped);
    let mut reinstated = clock.clone();
    assert_eq!(
        deeds(&run(&mut clock, "2029-01-01")),
        [("2027-04-01T00:00:00Z", "S1", "delete")]
    );
    reinstated.happen(Happening::Reinstated, t("2027-03-31T23:59:00Z"));
    assert_eq!(
        deeds(&run(&mut reinstated, "2029-01-01")),
        [("2028-01-01T00:00:00Z", "L1", "delete")],
        "it stays stopped until somebody starts it"
    );
    let mut clock = ClusterClock::new(Profile::Aks);
    let acts = clock.happen(Happening::SubscriptionDeleted, t("2027-01-01"));
    assert_eq!((acts.len(), acts[0].deed, acts[0].rule), (1, Deed::Delete, "S2"));
}

#[test]
fn s3_hybrid_clusters_are_out_of_support_and_keep_running() {
    let mut clock = ClusterClock::new(Profile::Arc);
    clock.happen(Happening::Suspended, t("2027-01-01"));
    assert_eq!(
        deeds(&run(&mut clock, "2029-01-01")),
        [("2027-03-02T00:00:00Z", "S3", "leave support")]
    );
    assert_eq!(clock.phase(), Phase::Running);
    let acts = clock.happen(Happening::SubscriptionDeleted, t("2029-01-01"));
    assert_eq!(acts[0].deed, Deed::Unregister);
}

#[test]
fn a_deletion_whose_notice_is_late_is_late_itself() {
    let mut clock = ClusterClock::new(Profile::Aks);
    clock.happen(Happening::Stopped, t("2027-01-01"));
    // Nobody has looked at it for years.
    let now = t("2030-06-01");
    let due = after(now, DAY * 60);
    let acts = clock.pass(now);
    assert_eq!(acts.len(), 1);
    assert_eq!(acts[0].notice, Some(due));
    // The other notices are given, too.
    let told = run(&mut clock.clone(), "2030-12-31");
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(deeds(&told), [(due.to_string().as_str(), "L1", "delete")]);
    let acts = clock.pass(before(due, Duration::from_secs(1)));
    assert_eq!((acts.len(), acts[0].notice), (1, Some(due)));
    // A start in that time is in time.
    let mut started = clock.clone();
    started.happen(Happening::Started, before(due, Duration::from_secs(1)));
    assert_eq!(started.next(), None);
    let acts = clock.pass(due);
    assert_eq!((acts[0].deed, acts[0].notice), (Deed::Delete, None));
}

/// What a service that is killed after each look writes down, and does.
fn looks(standing: &Standing, from: &str, end: &str) -> Vec<Act> {
    let mut noticed = Vec::new();
    let mut all = Vec::new();
    let mut at = t(from);
    while at <= t(end) {
        let mut clock = ClusterClock::resume(Profile::Aks, standing, &noticed);
        all.extend(clock.pass(at));
        noticed = clock.noticed(&[]);
        let Some(next) = clock.next() else { break };
        assert!(next > at, "it is looked at for nothing at {at}");
        at = next;
    }
    all
}

#[test]
fn a_clock_that_begins_again_at_each_look_gives_the_same_notices_and_does_the_same() {
    let since = |text: &str| Some(t(text));
    let idle = Standing {
        idle: since("2027-01-01"),
        ..Standing::default()
    };
    let stopped = Standing {
        stopped: since("2027-01-01"),
        ..Standing::default()
    };
    let out = Standing {
        out: since("2027-01-01"),
        ..Standing::default()
    };
    let suspended = Standing {
        stopped: since("2027-01-01"),
        suspended: since("2027-01-01"),
        ..Standing::default()
    };
    for (standing, rule, deed, due, notices) in [
        (idle, "L3", Deed::Stop, "2027-01-31", 3),
        (stopped, "L1", Deed::Delete, "2028-01-01", 4),
        (out, "L4", Deed::Archive, "2027-01-31", 3),
        (suspended, "S1", Deed::Delete, "2027-04-01", 3),
    ] {
        let of_rule = |acts: Vec<Act>| -> Vec<Act> {
            let own = acts.into_iter();
            own.filter(|act| (act.rule, act.deed) == (rule, deed)).collect()
        };
        let acts = of_rule(looks(&standing, "2027-01-01", "2028-12-31"));
        assert_eq!(acts.len(), notices + 1, "{rule}: {acts:?}");
        let done = acts.last().unwrap();
        assert_eq!((done.at, done.notice), (t(due), None), "{rule}");
        // The service slept for years: it gives notice first, and waits.
        let late = of_rule(looks(&standing, "2031-01-01", "2031-12-31"));
        assert_eq!(late.len(), notices + 1, "{rule}: {late:?}");
        let (first, last) = (late[0], *late.last().unwrap());
        assert_eq!(
            (first.at, first.notice),
            (t("2031-01-01"), Some(last.at)),
            "{rule}"
        );
        assert!(last.at >= after(first.at, DAY * 14), "{rule}");
    }
}

#[test]
fn notices_of_another_time_do_not_count() {
    let stopped = |at: &str| Standing {
        stopped: Some(t(at)),
        ..Standing::default()
    };
    let mut clock = ClusterClock::resume(Profile::Aks, &stopped("2027-01-01"), &[]);
    clock.pass(t("2027-12-31"));
    let noticed = clock.noticed(&[]);
    assert!(noticed[0].first.is_some());
    let clock = ClusterClock::resume(Profile::Aks, &stopped("2027-06-01"), &noticed);
    assert!(!clock.is_warned());
    assert_eq!(clock.next(), Some(before(t("2028-06-01"), DAY * 60)));
}

#[test]
fn what_is_left_undone_is_due_again_and_what_is_told_is_told_once() {
    let idle = Standing {
        idle: Some(t("2027-01-01")),
        ..Standing::default()
    };
    let mut clock = ClusterClock::resume(Profile::Aks, &idle, &[]);
    clock.pass(t("2027-01-20"));
    let given = clock.noticed(&[]);
    // The first notice was late by some days.
    let due = t("2027-02-03");
    let mut clock = ClusterClock::resume(Profile::Aks, &idle, &given);
    let acts = clock.pass(due);
    assert!(
        acts.iter()
            .any(|act| act.deed == Deed::Stop && act.notice.is_none())
    );
    let again = ClusterClock::resume(Profile::Aks, &idle, &clock.noticed(&[("L3", Deed::Stop)])).pass(due);
    assert!(
        again
            .iter()
            .any(|act| act.deed == Deed::Stop && act.notice.is_none())
    );
    let told = ClusterClock::resume(Profile::Aks, &idle, &clock.noticed(&[])).pass(due);
    assert_eq!(told, []);
}

#[test]
fn l6_a_stamp_that_is_not_reached_loses_day_two_and_gets_it_back() {
    let mut stamp = StampClock::new(Mode::Duty, t("2027-01-01")).windows(DISCONNECTED, DAY * 45);
    assert_eq!(stamp.link(t("2027-01-16")), Link::Registered);
    assert_eq!(stamp.link(t("2027-01-17")), Link::Warned);
    let due = t("2027-01-31");
    let minute = Duration::from_secs(60);
    assert!(stamp.allows(before(due, minute)).day2 && !stamp.allows(due).day2);
    assert!(stamp.allows(due).machines && !stamp.allows(t("2027-02-15")).machines);
    assert_eq!(stamp.link(due), Link::Disconnected);
    let mut notices = 0;
    while let Some(at) = stamp.next() {
        notices += stamp
            .pass(at)
            .iter()
            .filter(|act| act.notice == Some(due))
            .count();
    }
    assert_eq!(notices, 3);
    stamp.reached(t("2027-03-01"));
    assert_eq!(
        stamp.allows(t("2027-03-30")),
        Allowed {
            day2: true,
            machines: true
        }
    );
    stamp.unregister();
    assert_eq!(
        (stamp.link(t("2027-03-02")), stamp.next()),
        (Link::Unregistered, None)
    );
}

#[test]
fn l7_a_stamp_without_duty_is_never_disconnected() {
    for mode in [Mode::AirGapped, Mode::Exempt] {
        let stamp = StampClock::new(mode, t("2027-01-01"));
        assert_eq!(
            (stamp.link(t("2040-01-01")), stamp.next()),
            (Link::Registered, None)
        );
        assert!(stamp.allows(t("2040-01-01")).day2);
    }
}
