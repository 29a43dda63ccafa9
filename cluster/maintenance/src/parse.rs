//! A maintenance configuration as its canonical properties say it.

use std::fmt;

use jiff::{
    Timestamp,
    civil::{Date, Time, Weekday},
    tz::Offset,
};
use serde_json::Value;

use crate::calendar::{Calendar, HOUR, Kind, Recurring, Schedule, Slots, Window};

/// Properties that are no maintenance configuration. What a client sends is checked before it is kept, so this is a fault of the service, or of the
/// store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The property.
    pub path: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the maintenance configuration is malformed: {} is missing or of another form",
            self.path
        )
    }
}

impl std::error::Error for Malformed {}

fn bad<T>(found: Option<T>, path: &'static str) -> Result<T, Malformed> {
    found.ok_or(Malformed { path })
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    let found = value.get(name).and_then(Value::as_array);
    found.map(Vec::as_slice).unwrap_or_default()
}

fn weekday(text: &str) -> Option<Weekday> {
    Some(match text {
        "Monday" => Weekday::Monday,
        "Tuesday" => Weekday::Tuesday,
        "Wednesday" => Weekday::Wednesday,
        "Thursday" => Weekday::Thursday,
        "Friday" => Weekday::Friday,
        "Saturday" => Weekday::Saturday,
        "Sunday" => Weekday::Sunday,
        _ => return None,
    })
}

/// `+05:30` or `-08:00`.
fn offset(text: &str) -> Option<Offset> {
    let (sign, time) = match text.split_at_checked(1)? {
        ("+", time) => (1, time),
        ("-", time) => (-1, time),
        _ => return None,
    };
    let time: Time = time.parse().ok()?;
    let seconds = i32::from(time.hour()) * 3600 + i32::from(time.minute()) * 60;
    Offset::from_seconds(sign * seconds).ok()
}

impl Calendar {
    /// The calendar of a configuration's canonical properties (newest api-version, defaults filled in). `made`: when the configuration was
    /// made first; intervals count from that day where there is no `startDate`.
    ///
    /// # Errors
    /// When a property is missing or of another form.
    pub fn parse(properties: &Value, made: Timestamp) -> Result<Self, Malformed> {
        match properties.get("maintenanceWindow") {
            Some(window) => recurring(window, made).map(|recurring| Self(Kind::Recurring(recurring))),
            None => slots(properties).map(|slots| Self(Kind::Slots(slots))),
        }
    }
}

fn recurring(window: &Value, made: Timestamp) -> Result<Recurring, Malformed> {
    let offset = bad(
        offset(text(window, "utcOffset").unwrap_or("+00:00")),
        "maintenanceWindow.utcOffset",
    )?;
    let first = match text(window, "startDate") {
        Some(date) => bad(date.parse::<Date>().ok(), "maintenanceWindow.startDate")?,
        None => offset.to_datetime(made).date(),
    };
    let time = text(window, "startTime").and_then(|time| time.parse::<Time>().ok());
    let hours = match window.get("durationHours") {
        Some(hours) => hours.as_u64().and_then(|hours| u32::try_from(hours).ok()),
        None => Some(24),
    };
    let hours = hours.filter(|hours| (1..=24).contains(hours));
    let mut forbidden = Vec::new();
    for span in list(window, "notAllowedDates") {
        let date = |name: &str| text(span, name)?.parse::<Date>().ok();
        let path = "maintenanceWindow.notAllowedDates";
        forbidden.push((bad(date("start"), path)?, bad(date("end"), path)?));
    }
    Ok(Recurring {
        schedule: bad(
            window.get("schedule").and_then(schedule),
            "maintenanceWindow.schedule",
        )?,
        first,
        time: bad(time, "maintenanceWindow.startTime")?,
        duration: HOUR * bad(hours, "maintenanceWindow.durationHours")?,
        offset,
        forbidden,
    })
}

fn schedule(schedule: &Value) -> Option<Schedule> {
    let number = |of: &Value, name: &str| of.get(name)?.as_i64().filter(|number| (1..=31).contains(number));
    let day = |of: &Value| weekday(text(of, "dayOfWeek")?);
    if let Some(daily) = schedule.get("daily") {
        let days = number(daily, "intervalDays")?;
        return Some(Schedule::Daily { days });
    }
    if let Some(weekly) = schedule.get("weekly") {
        let weeks = number(weekly, "intervalWeeks")?;
        return Some(Schedule::Weekly {
            weeks,
            day: day(weekly)?,
        });
    }
    if let Some(monthly) = schedule.get("absoluteMonthly") {
        let months = number(monthly, "intervalMonths")?;
        let day = i8::try_from(number(monthly, "dayOfMonth")?).ok()?;
        return Some(Schedule::Absolute { months, day });
    }
    let monthly = schedule.get("relativeMonthly")?;
    Some(Schedule::Relative {
        months: number(monthly, "intervalMonths")?,
        nth: match text(monthly, "weekIndex")? {
            "First" => 1,
            "Second" => 2,
            "Third" => 3,
            "Fourth" => 4,
            "Last" => -1,
            _ => return None,
        },
        day: day(monthly)?,
    })
}

fn slots(properties: &Value) -> Result<Slots, Malformed> {
    let days = list(properties, "timeInWeek");
    // Who only says when nothing may be done allows the rest.
    let mut hours = if days.is_empty() {
        [(1_u32 << 24) - 1; 7]
    } else {
        [0_u32; 7]
    };
    for slot in days {
        let day = text(slot, "day").and_then(weekday);
        let day = bad(day, "timeInWeek.day")?.to_monday_zero_offset();
        for hour in list(slot, "hourSlots") {
            let hour = bad(hour.as_u64().filter(|hour| *hour < 24), "timeInWeek.hourSlots")?;
            hours[usize::try_from(day).unwrap_or_default()] |= 1_u32 << hour;
        }
    }
    let mut forbidden = Vec::new();
    for span in list(properties, "notAllowedTime") {
        let at = |name: &str| text(span, name)?.parse::<Timestamp>().ok();
        let (begin, end) = (
            bad(at("start"), "notAllowedTime.start")?,
            bad(at("end"), "notAllowedTime.end")?,
        );
        forbidden.push(Window { begin, end });
    }
    Ok(Slots { hours, forbidden })
}
