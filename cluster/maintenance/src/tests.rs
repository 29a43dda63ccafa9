//! Windows of each kind of schedule, and when planned work begins in them.

use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{Calendar, LEAST_FOR_UPGRADE, Start, Window};

pub(crate) fn t(text: &str) -> Timestamp {
    let full = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        _ => text.to_owned(),
    };
    full.parse().unwrap()
}

/// A configuration with this schedule from 01:30 on for four hours, made on Tuesday, 1 December 2026; `more` changes it.
pub(crate) fn calendar(schedule: &Value, more: &Value) -> Calendar {
    let mut window =
        json!({ "schedule": schedule, "startTime": "01:30", "durationHours": 4, "utcOffset": "+00:00" });
    for (name, value) in more.as_object().into_iter().flatten() {
        window[name] = value.clone();
    }
    let properties = json!({ "maintenanceWindow": window });
    Calendar::parse(&properties, t("2026-12-01T12:00:00Z")).unwrap()
}

fn next(calendar: &Calendar, now: &str) -> (String, String) {
    let window = calendar
        .next(t(now))
        .unwrap_or_else(|| panic!("no window of {calendar:?} after {now}"));
    (window.begin.to_string(), window.end.to_string())
}

fn between(begin: &str, end: &str) -> (String, String) {
    (t(begin).to_string(), t(end).to_string())
}

#[test]
fn the_next_window_of_each_kind_of_schedule() {
    let plain = json!({});
    let daily = |days: u8| json!({ "daily": { "intervalDays": days } });
    let weekly = |weeks: u8, day: &str| json!({ "weekly": { "intervalWeeks": weeks, "dayOfWeek": day } });
    let absolute =
        |months: u8, day: u8| json!({ "absoluteMonthly": { "intervalMonths": months, "dayOfMonth": day } });
    let relative = |months: u8, index: &str, day: &str| json!({ "relativeMonthly": { "intervalMonths": months, "weekIndex": index, "dayOfWeek": day } });
    for (schedule, more, now, begin, end) in [
        // The day on which it was made counts, also where its window was over by then.
        (
            daily(1),
            &plain,
            "2026-12-01",
            "2026-12-01T01:30",
            "2026-12-01T05:30",
        ),
        (
            daily(1),
            &plain,
            "2026-12-01T05:30",
            "2026-12-02T01:30",
            "2026-12-02T05:30",
        ),
        (
            daily(1),
            &plain,
            "2026-12-01T05:29",
            "2026-12-01T01:30",
            "2026-12-01T05:30",
        ),
        (
            daily(3),
            &plain,
            "2026-12-02",
            "2026-12-04T01:30",
            "2026-12-04T05:30",
        ),
        (
            daily(7),
            &plain,
            "2027-02-27",
            "2027-03-02T01:30",
            "2027-03-02T05:30",
        ),
        // Before it was made there was none.
        (
            daily(1),
            &plain,
            "2025-01-01",
            "2026-12-01T01:30",
            "2026-12-01T05:30",
        ),
        (
            weekly(1, "Friday"),
            &plain,
            "2026-12-01",
            "2026-12-04T01:30",
            "2026-12-04T05:30",
        ),
        (
            weekly(1, "Tuesday"),
            &plain,
            "2026-12-01",
            "2026-12-01T01:30",
            "2026-12-01T05:30",
        ),
        (
            weekly(3, "Friday"),
            &plain,
            "2026-12-05",
            "2026-12-25T01:30",
            "2026-12-25T05:30",
        ),
        (
            weekly(4, "Monday"),
            &plain,
            "2026-12-08",
            "2027-01-04T01:30",
            "2027-01-04T05:30",
        ),
        (
            absolute(1, 15),
            &plain,
            "2026-12-16",
            "2027-01-15T01:30",
            "2027-01-15T05:30",
        ),
        // The last day of a month that is shorter, and the leap day of 2028.
        (
            absolute(1, 31),
            &plain,
            "2027-02-01",
            "2027-02-28T01:30",
            "2027-02-28T05:30",
        ),
        (
            absolute(1, 30),
            &plain,
            "2028-02-01",
            "2028-02-29T01:30",
            "2028-02-29T05:30",
        ),
        (
            absolute(1, 31),
            &plain,
            "2027-04-01",
            "2027-04-30T01:30",
            "2027-04-30T05:30",
        ),
        (
            absolute(6, 1),
            &plain,
            "2026-12-02",
            "2027-06-01T01:30",
            "2027-06-01T05:30",
        ),
        (
            relative(1, "Last", "Friday"),
            &plain,
            "2026-12-01",
            "2026-12-25T01:30",
            "2026-12-25T05:30",
        ),
        (
            relative(1, "Last", "Friday"),
            &plain,
            "2027-01-01",
            "2027-01-29T01:30",
            "2027-01-29T05:30",
        ),
        (
            relative(1, "First", "Tuesday"),
            &plain,
            "2026-12-02",
            "2027-01-05T01:30",
            "2027-01-05T05:30",
        ),
        // The first Tuesday is the day on which it was made, so months count from then.
        (
            relative(2, "First", "Tuesday"),
            &plain,
            "2026-12-02",
            "2027-02-02T01:30",
            "2027-02-02T05:30",
        ),
        // The fourth is not always the last.
        (
            relative(1, "Fourth", "Thursday"),
            &plain,
            "2026-12-25",
            "2027-01-28T01:30",
            "2027-01-28T05:30",
        ),
    ] {
        let calendar = calendar(&schedule, more);
        assert_eq!(
            next(&calendar, now),
            between(begin, end),
            "{schedule} {more} at {now}"
        );
    }
}

#[test]
fn offsets_first_days_and_forbidden_days() {
    let daily = json!({ "daily": { "intervalDays": 1 } });
    let friday = json!({ "weekly": { "intervalWeeks": 2, "dayOfWeek": "Friday" } });
    for (schedule, more, now, begin, end) in [
        // 01:30 at +05:30 is 20:00 the day before.
        (
            &daily,
            json!({ "utcOffset": "+05:30" }),
            "2026-12-05",
            "2026-12-05T20:00",
            "2026-12-06",
        ),
        // 23:00 at -08:00 is 07:00 the day after; it ends there after midnight.
        (
            &daily,
            json!({ "utcOffset": "-08:00", "startTime": "23:00" }),
            "2026-12-05T08:00",
            "2026-12-05T07:00",
            "2026-12-05T11:00",
        ),
        // Across midnight, the end of the year and the end of February.
        (
            &daily,
            json!({ "startTime": "22:00", "durationHours": 6 }),
            "2027-01-01T03:00",
            "2026-12-31T22:00",
            "2027-01-01T04:00",
        ),
        (
            &daily,
            json!({ "startTime": "22:00", "durationHours": 6 }),
            "2028-03-01T03:00",
            "2028-02-29T22:00",
            "2028-03-01T04:00",
        ),
        (
            &daily,
            json!({ "startDate": "2027-03-01" }),
            "2026-12-05",
            "2027-03-01T01:30",
            "2027-03-01T05:30",
        ),
        // Intervals count from it, and in its offset.
        (
            &friday,
            json!({ "startDate": "2026-12-11" }),
            "2026-12-12",
            "2026-12-25T01:30",
            "2026-12-25T05:30",
        ),
        (
            &friday,
            json!({ "startDate": "2026-12-12", "utcOffset": "+02:00" }),
            "2026-12-01",
            "2026-12-17T23:30",
            "2026-12-18T03:30",
        ),
        // One long ago counts all the same.
        (
            &friday,
            json!({ "startDate": "2000-01-07" }),
            "2026-12-01",
            "2026-12-04T01:30",
            "2026-12-04T05:30",
        ),
        // Both days of a span are forbidden, from midnight to midnight at the offset.
        (
            &daily,
            json!({ "notAllowedDates": [{ "start": "2026-12-23", "end": "2027-01-03" }] }),
            "2026-12-22T06:00",
            "2027-01-04T01:30",
            "2027-01-04T05:30",
        ),
        (
            &daily,
            json!({ "startTime": "22:00", "durationHours": 6,
                    "notAllowedDates": [{ "start": "2026-12-23", "end": "2026-12-23" }] }),
            "2026-12-22T06:00",
            "2026-12-22T22:00",
            "2026-12-23",
        ),
        (
            &daily,
            json!({ "startTime": "22:00", "durationHours": 6,
                    "notAllowedDates": [{ "start": "2026-12-23", "end": "2026-12-23" }] }),
            "2026-12-23",
            "2026-12-24",
            "2026-12-24T04:00",
        ),
        (
            &daily,
            json!({ "startTime": "00:00", "durationHours": 24, "utcOffset": "+02:00",
                    "notAllowedDates": [{ "start": "2022-12-23", "end": "2023-01-03" },
                                        { "start": "2026-12-23", "end": "2027-01-03" }] }),
            "2026-12-23",
            "2027-01-03T22:00",
            // Two hundred days, joined.
            "2027-07-23T22:00",
        ),
    ] {
        let calendar = calendar(schedule, &more);
        let window = calendar
            .next(t(now))
            .unwrap_or_else(|| panic!("no window of {calendar:?} after {now}"));
        assert_eq!(window.begin, t(begin), "{schedule} {more} at {now}");
        if window.length() <= Duration::from_secs(24 * 60 * 60) {
            assert_eq!(window.end, t(end), "{schedule} {more} at {now}");
        } else {
            assert!(window.end >= t(end), "{schedule} {more} at {now}: {window:?}");
        }
    }
}

fn slots(properties: &Value) -> Calendar {
    Calendar::parse(properties, t("2026-12-01")).unwrap()
}

#[test]
fn hours_of_the_week_are_in_utc_and_those_that_touch_are_one_window() {
    let own = slots(&json!({
        "timeInWeek": [{ "day": "Monday", "hourSlots": [1, 2, 23] }, { "day": "Tuesday", "hourSlots": [0] },
                       { "day": "Monday", "hourSlots": [5] }],
        "notAllowedTime": [{ "start": "2026-12-07T01:30:00Z", "end": "2026-12-07T04:00:00Z" }],
    }));
    // 7 December 2026 is a Monday.
    for (now, begin, end) in [
        ("2026-12-05", "2026-12-07T01:00", "2026-12-07T01:30"),
        ("2026-12-07T01:30", "2026-12-07T05:00", "2026-12-07T06:00"),
        ("2026-12-07T06:00", "2026-12-07T23:00", "2026-12-08T01:00"),
        ("2026-12-08T01:00", "2026-12-14T01:00", "2026-12-14T03:00"),
    ] {
        assert_eq!(next(&own, now), between(begin, end), "at {now}");
    }
    // Only what is forbidden is said.
    let forbidden = slots(&json!({
        "notAllowedTime": [{ "start": "2026-12-05T00:00:00Z", "end": "2026-12-06T12:30:00Z" }],
    }));
    assert!(forbidden.open(t("2026-12-05T10:00")).is_none());
    assert_eq!(
        next(&forbidden, "2026-12-05T10:00").0,
        t("2026-12-06T12:30").to_string()
    );
    assert!(forbidden.open(t("2026-12-06T12:30")).is_some());
    // Nothing is ever allowed.
    let never = slots(&json!({ "timeInWeek": [{ "day": "Monday", "hourSlots": [] }] }));
    assert_eq!(never.next(t("2026-12-05")), None);
    let closed = slots(&json!({
        "notAllowedTime": [{ "start": "2026-01-01T00:00:00Z", "end": "9000-01-01T00:00:00Z" }],
    }));
    assert_eq!(closed.next(t("2026-12-05")), None);
}

#[test]
fn what_is_no_configuration_is_no_calendar() {
    for properties in [
        json!({ "maintenanceWindow": {} }),
        json!({ "maintenanceWindow": { "startTime": "01:30", "schedule": {} } }),
        json!({ "maintenanceWindow": { "startTime": "01:30", "schedule": { "daily": {} } } }),
        json!({ "maintenanceWindow": { "schedule": { "daily": { "intervalDays": 1 } } } }),
        json!({ "maintenanceWindow": { "startTime": "01:30", "utcOffset": "02:00", "schedule": { "daily": { "intervalDays": 1 } } } }),
        json!({ "maintenanceWindow": { "startTime": "01:30", "durationHours": 25, "schedule": { "daily": { "intervalDays": 1 } } } }),
        json!({ "timeInWeek": [{ "day": "Sabbath", "hourSlots": [1] }] }),
    ] {
        let error = Calendar::parse(&properties, t("2026-12-01")).unwrap_err();
        assert!(error.to_string().contains("malformed"), "{properties}: {error}");
    }
}

#[test]
fn clusters_begin_at_minutes_of_their_own_and_never_too_late() {
    let daily = calendar(&json!({ "daily": { "intervalDays": 1 } }), &json!({}));
    let begin = t("2026-12-05T01:30");
    let mut minutes = std::collections::BTreeSet::new();
    for number in 0..200 {
        let uid = format!("cluster{number}");
        let of = |now: &str| Start::of(&daily, &uid, LEAST_FOR_UPGRADE, t(now));
        let Start::At(at) = of("2026-12-05") else {
            panic!("{:?}", of("2026-12-05"))
        };
        let late = at.duration_since(begin).as_secs();
        assert!((0..=30 * 60).contains(&late) && late % 60 == 0, "{late}");
        minutes.insert(late);
        assert_eq!(of(&at.to_string()), Start::Now);
        assert_eq!(of("2026-12-05T04:30"), Start::Now, "an hour is left");
        // Of the next window the same minute.
        let Start::At(next) = of("2026-12-05T04:31") else {
            panic!("it begins too late")
        };
        assert_eq!(next.duration_since(at).as_secs(), 24 * 60 * 60);
        let Start::At(own) = Start::without_window(&uid, t("2026-12-05")) else {
            continue;
        };
        assert!(Start::without_window(&uid, own).is_now());
    }
    assert!(minutes.len() > 20, "{minutes:?}");
}

#[test]
fn a_window_that_is_too_short_is_passed_over() {
    // Of the window of the 23rd, half an hour is left.
    let cut =
        json!({ "startTime": "23:30", "notAllowedDates": [{ "start": "2026-12-24", "end": "2026-12-26" }] });
    let daily = calendar(&json!({ "daily": { "intervalDays": 1 } }), &cut);
    let start = Start::of(&daily, "c", LEAST_FOR_UPGRADE, t("2026-12-23T12:00"));
    let Start::At(at) = start else { panic!("{start:?}") };
    assert!(at >= t("2026-12-27"), "{at}");
    // What needs nothing of it may begin in it.
    let start = Start::of(&daily, "c", Duration::ZERO, t("2026-12-23T23:59"));
    assert_eq!(start, Start::Now);
    let never = slots(&json!({ "timeInWeek": [{ "day": "Monday", "hourSlots": [] }] }));
    assert_eq!(
        Start::of(&never, "c", Duration::ZERO, t("2026-12-05")),
        Start::Never
    );
}

fn schedules() -> impl Strategy<Value = Value> {
    let days = prop::sample::select(vec!["Monday", "Wednesday", "Sunday"]);
    let index = prop::sample::select(vec!["First", "Third", "Last"]);
    prop_oneof![
        (1..=7_u8).prop_map(|days| json!({ "daily": { "intervalDays": days } })),
        (1..=4_u8, days.clone())
            .prop_map(|(weeks, day)| json!({ "weekly": { "intervalWeeks": weeks, "dayOfWeek": day } })),
        (1..=6_u8, 1..=31_u8).prop_map(
            |(months, day)| json!({ "absoluteMonthly": { "intervalMonths": months, "dayOfMonth": day } })
        ),
        (1..=6_u8, index, days).prop_map(|(months, index, day)| {
            json!({ "relativeMonthly": { "intervalMonths": months, "weekIndex": index, "dayOfWeek": day } })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn minute_by_minute_windows_are_as_they_were_foretold(
        schedule in schedules(),
        hours in 4..=24_u8,
        hour in 0..24_u8,
        from in 0..400_i64,
    ) {
        let more = json!({ "durationHours": hours, "startTime": format!("{hour:02}:15"), "utcOffset": "-03:30" });
        let calendar = calendar(&schedule, &more);
        let first = t("2026-12-01").checked_add(Duration::from_secs(from.unsigned_abs() * 24 * 60 * 60)).unwrap();
        let mut foretold: Option<Window> = None;
        for minute in 0..2 * 24 * 60 {
            let now = first.checked_add(Duration::from_secs(60 * minute)).unwrap();
            let next = calendar.next(now);
            let Some(window) = next else { continue };
            prop_assert!(window.begin < window.end && window.end > now);
            prop_assert_eq!(calendar.open(now).is_some(), window.contains(now));
            match foretold {
                // Until it is over, the window that was foretold is the next one.
                Some(before) if now < before.end => {
                    prop_assert!(window.begin == before.begin || window.contains(now) && before.contains(now));
                }
                // And then another one comes, which did not begin before.
                Some(before) => prop_assert!(window.begin >= before.end),
                None => {}
            }
            foretold = Some(window);
        }
    }
}
