//! Two years of windows, to the minute, against what the words of the configurations say of each day.

use std::time::Duration;

use jiff::{
    Timestamp,
    civil::{Date, Weekday, date},
    tz::Offset,
};
use serde_json::{Value, json};

use crate::{
    Calendar, Start,
    tests::{calendar, t},
};

const MINUTES: i64 = 2 * 366 * 24 * 60;

/// The minutes of two years, from the beginning of 2027 on, in which a calendar is open.
fn open(calendar: &Calendar) -> Vec<bool> {
    let begin = t("2027-01-01");
    let mut minutes = vec![false; usize::try_from(MINUTES).unwrap()];
    for window in calendar.windows(begin) {
        let from = minute(window.begin).max(0);
        let to = minute(window.end).min(MINUTES);
        if from >= MINUTES {
            break;
        }
        for open in &mut minutes[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()] {
            assert!(!*open, "windows do not overlap");
            *open = true;
        }
    }
    minutes
}

fn minute(at: Timestamp) -> i64 {
    (at.as_second() - t("2027-01-01").as_second()).div_euclid(60)
}

/// What is said of the days: whether a window begins on one, the minute of the day, minutes long, east of Greenwich.
struct Said<'a> {
    begins: &'a dyn Fn(Date) -> bool,
    at: i64,
    minutes: i64,
    offset_hours: i8,
    forbidden: &'a [(Date, Date)],
}

fn told(said: &Said<'_>) -> Vec<bool> {
    let offset = Offset::from_seconds(i32::from(said.offset_hours) * 3600).unwrap();
    let at = |date: Date| minute(offset.to_timestamp(date.at(0, 0, 0, 0)).unwrap());
    let mut minutes = vec![false; usize::try_from(MINUTES).unwrap()];
    let mut set = |from: i64, to: i64, open: bool| {
        for minute in from.max(0)..to.min(MINUTES) {
            minutes[usize::try_from(minute).unwrap()] = open;
        }
    };
    let mut day = date(2026, 12, 1);
    while day < date(2029, 1, 10) {
        if (said.begins)(day) {
            let begin = at(day) + said.at;
            set(begin, begin + said.minutes, true);
        }
        day = day.tomorrow().unwrap();
    }
    for (first, last) in said.forbidden {
        set(at(*first), at(last.tomorrow().unwrap()), false);
    }
    minutes
}

fn agree(schedule: &Value, more: &Value, said: &Said<'_>) {
    let calendar = calendar(schedule, more);
    let (ours, theirs) = (open(&calendar), told(said));
    let differs = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
    if let Some(minute) = differs {
        let at = t("2027-01-01")
            .checked_add(Duration::from_secs(60 * u64::try_from(minute).unwrap()))
            .unwrap();
        panic!("{schedule} {more}: {at} is open: {}", ours[minute]);
    }
    assert!(ours.iter().any(|open| *open), "{schedule}");
}

fn days_from(first: Date, day: Date) -> i64 {
    i64::from((day - first).get_days())
}

#[test]
fn two_years_to_the_minute() {
    let made = date(2026, 12, 1);
    let plain = Said {
        begins: &|_| true,
        at: 90,
        minutes: 240,
        offset_hours: 0,
        forbidden: &[],
    };
    agree(&json!({ "daily": { "intervalDays": 1 } }), &json!({}), &plain);
    agree(
        &json!({ "daily": { "intervalDays": 5 } }),
        &json!({ "startTime": "22:10", "durationHours": 9, "utcOffset": "+09:00" }),
        &Said {
            begins: &|day| days_from(made, day) >= 0 && days_from(made, day) % 5 == 0,
            at: 22 * 60 + 10,
            minutes: 9 * 60,
            offset_hours: 9,
            ..plain
        },
    );
    let leave = (date(2027, 12, 20), date(2028, 1, 9));
    agree(
        &json!({ "weekly": { "intervalWeeks": 1, "dayOfWeek": "Sunday" } }),
        &json!({ "durationHours": 24, "utcOffset": "-07:00", "notAllowedDates": [{ "start": "2027-12-20", "end": "2028-01-09" }] }),
        &Said {
            begins: &|day| day.weekday() == Weekday::Sunday,
            minutes: 24 * 60,
            offset_hours: -7,
            forbidden: &[leave],
            ..plain
        },
    );
    agree(
        &json!({ "weekly": { "intervalWeeks": 4, "dayOfWeek": "Monday" } }),
        &json!({ "startDate": "2027-02-03" }),
        &Said {
            // The first Monday after it is 8 February.
            begins: &|day| {
                let days = days_from(date(2027, 2, 8), day);
                days >= 0 && days % 28 == 0
            },
            ..plain
        },
    );
    agree(
        &json!({ "absoluteMonthly": { "intervalMonths": 1, "dayOfMonth": 30 } }),
        &json!({}),
        &Said {
            begins: &|day| day.day() == day.days_in_month().min(30),
            ..plain
        },
    );
    agree(
        &json!({ "absoluteMonthly": { "intervalMonths": 3, "dayOfMonth": 7 } }),
        &json!({ "startDate": "2027-01-08" }),
        &Said {
            // That of January is over: February, May, August, November.
            begins: &|day| day.day() == 7 && day >= date(2027, 2, 7) && (day.month() + 1) % 3 == 0,
            ..plain
        },
    );
    agree(
        &json!({ "relativeMonthly": { "intervalMonths": 1, "weekIndex": "Last", "dayOfWeek": "Friday" } }),
        &json!({ "startTime": "23:59" }),
        &Said {
            begins: &|day| day.weekday() == Weekday::Friday && day.day() + 7 > day.days_in_month(),
            at: 24 * 60 - 1,
            ..plain
        },
    );
    agree(
        &json!({ "relativeMonthly": { "intervalMonths": 2, "weekIndex": "Second", "dayOfWeek": "Wednesday" } }),
        &json!({}),
        &Said {
            begins: &|day| {
                let second = (8..=14).contains(&day.day()) && day.weekday() == Weekday::Wednesday;
                second && day.month() % 2 == 0
            },
            ..plain
        },
    );
}

#[test]
fn each_window_of_two_years_is_used_once_and_at_its_minute() {
    let friday = calendar(
        &json!({ "relativeMonthly": { "intervalMonths": 1, "weekIndex": "Last", "dayOfWeek": "Friday" } }),
        &json!({}),
    );
    let (mut now, mut begun) = (t("2027-01-01"), Vec::new());
    while now < t("2029-01-01") {
        match Start::of(&friday, "0123456789", crate::LEAST_FOR_UPGRADE, now) {
            Start::Now => {
                begun.push(now);
                let window = friday.open(now).unwrap();
                now = window.end;
            }
            Start::At(at) => now = at,
            Start::Never => break,
        }
    }
    assert_eq!(begun.len(), 24);
    let minutes: Vec<i64> = begun
        .iter()
        .map(|at| at.as_second().rem_euclid(24 * 60 * 60) / 60 - 90)
        .collect();
    assert!((0..=30).contains(&minutes[0]));
    assert!(minutes.iter().all(|minute| *minute == minutes[0]), "{minutes:?}");
    let apart = |pair: &[Timestamp]| pair[1].duration_since(pair[0]).as_secs() / (24 * 60 * 60);
    assert!(begun.windows(2).map(apart).all(|days| days == 28 || days == 35));
}
