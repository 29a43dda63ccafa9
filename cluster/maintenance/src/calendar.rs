//! The windows of a maintenance configuration.

use std::time::Duration;

use jiff::{
    Span, Timestamp,
    civil::{Date, Time, Weekday},
    tz::Offset,
};

/// An hour.
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
/// A window that begins later than so long after the instant that was asked about is none: about five years.
const HORIZON: Duration = Duration::from_secs(5 * 366 * 24 * 60 * 60);
/// Occurrences that touch each other are one window, up to so many: of a calendar that is always open, none ends.
const MOST_JOINED: usize = 200;

/// A stretch of time in which planned work may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// Its first instant.
    pub begin: Timestamp,
    /// The first instant after it.
    pub end: Timestamp,
}

impl Window {
    /// Whether an instant is in it.
    pub fn contains(self, at: Timestamp) -> bool {
        self.begin <= at && at < self.end
    }

    /// How long it is.
    pub fn length(self) -> Duration {
        self.end.duration_since(self.begin).unsigned_abs()
    }
}

/// The days on which windows begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// Every so many days, 1..=7, from the first day on.
    Daily { days: i64 },
    /// On this day of every so many weeks, 1..=4, from the first such day on.
    Weekly { weeks: i64, day: Weekday },
    /// On this day of every so many months, 1..=6; on the last day of a month that is shorter.
    Absolute { months: i64, day: i8 },
    /// On the first to fourth (1..=4) or the last (-1) such day of every so many months, 1..=6.
    Relative { months: i64, nth: i8, day: Weekday },
}

/// A `maintenanceWindow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recurring {
    pub(crate) schedule: Schedule,
    /// The earliest day of a window, and the day from which intervals count.
    pub(crate) first: Date,
    pub(crate) time: Time,
    /// 1..=24 hours.
    pub(crate) duration: Duration,
    /// Of all days and times here.
    pub(crate) offset: Offset,
    /// Days on which nothing is done, both included.
    pub(crate) forbidden: Vec<(Date, Date)>,
}

/// `timeInWeek` and `notAllowedTime`, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slots {
    /// By day of the week, from Monday on: a bit for each hour.
    pub(crate) hours: [u32; 7],
    pub(crate) forbidden: Vec<Window>,
}

/// A maintenance configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar(pub(crate) Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Recurring(Recurring),
    Slots(Slots),
}

impl Calendar {
    /// Windows of `hours` (1..=24) that begin at this minute of each day (0..1440), in UTC.
    pub fn daily(minute: u16, hours: u8) -> Self {
        let (hour, minute) = (minute / 60 % 24, minute % 60);
        Self(Kind::Recurring(Recurring {
            schedule: Schedule::Daily { days: 1 },
            first: Date::constant(1970, 1, 1),
            time: Time::new(
                i8::try_from(hour).unwrap_or_default(),
                i8::try_from(minute).unwrap_or_default(),
                0,
                0,
            )
            .unwrap_or_default(),
            duration: HOUR * u32::from(hours.clamp(1, 24)),
            offset: Offset::UTC,
            forbidden: Vec::new(),
        }))
    }

    /// The window that an instant is in, or the next one that begins; `None` where none does within five years.
    pub fn next(&self, now: Timestamp) -> Option<Window> {
        self.windows(now).next()
    }

    /// The window that an instant is in.
    pub fn open(&self, now: Timestamp) -> Option<Window> {
        self.next(now).filter(|window| window.contains(now))
    }

    /// All windows that end after an instant, in order. It ends where five years pass without one. Of windows that touch each other (those of
    /// a calendar that is always open), the first begins as the occurrence does that the instant is in.
    pub fn windows(&self, from: Timestamp) -> impl Iterator<Item = Window> + use<> {
        let mut pieces = self.pieces(from).into_iter();
        let mut own = Pieces {
            calendar: self.clone(),
            from,
            held: None,
            ended: false,
        };
        // What touches is one window.
        std::iter::from_fn(move || {
            let mut window = own.held.take().or_else(|| own.piece(&mut pieces))?;
            for _ in 0..MOST_JOINED {
                match own.piece(&mut pieces) {
                    Some(next) if next.begin <= window.end => window.end = window.end.max(next.end),
                    other => {
                        own.held = other;
                        break;
                    }
                }
            }
            Some(window)
        })
    }

    /// Pieces of occurrences that end after an instant: those of one occurrence at least, unless none is left.
    fn pieces(&self, from: Timestamp) -> Vec<Window> {
        let horizon = from.checked_add(HORIZON).unwrap_or(Timestamp::MAX);
        for occurrence in self.occurrences(from) {
            if occurrence.begin > horizon {
                break;
            }
            let mut pieces = without(occurrence, &self.forbidden_near(occurrence));
            pieces.retain(|piece| piece.end > from);
            if !pieces.is_empty() {
                return pieces;
            }
        }
        Vec::new()
    }

    /// Occurrences that end after an instant, in order, with what is forbidden in them.
    fn occurrences(&self, from: Timestamp) -> Box<dyn Iterator<Item = Window> + '_> {
        match &self.0 {
            Kind::Recurring(recurring) => Box::new(recurring.occurrences(from)),
            Kind::Slots(slots) => Box::new(slots.occurrences(from)),
        }
    }

    fn forbidden_near(&self, occurrence: Window) -> Vec<Window> {
        let overlaps = |other: &Window| other.begin < occurrence.end && other.end > occurrence.begin;
        match &self.0 {
            Kind::Recurring(recurring) => recurring.forbidden().filter(overlaps).collect(),
            Kind::Slots(slots) => slots.forbidden.iter().copied().filter(overlaps).collect(),
        }
    }
}

/// Pieces of occurrences, one after the other.
struct Pieces {
    calendar: Calendar,
    /// Pieces up to here are given already.
    from: Timestamp,
    /// One that was looked at and not given.
    held: Option<Window>,
    ended: bool,
}

impl Pieces {
    fn piece(&mut self, pieces: &mut std::vec::IntoIter<Window>) -> Option<Window> {
        if self.ended {
            return None;
        }
        if pieces.as_slice().is_empty() {
            *pieces = self.calendar.pieces(self.from).into_iter();
        }
        let piece = pieces.next();
        match piece {
            Some(piece) => self.from = piece.end,
            None => self.ended = true,
        }
        piece
    }
}

/// A window without what is forbidden.
fn without(window: Window, forbidden: &[Window]) -> Vec<Window> {
    let mut left = vec![window];
    for forbidden in forbidden {
        left = left
            .into_iter()
            .flat_map(|piece| {
                let before = Window {
                    begin: piece.begin,
                    end: piece.end.min(forbidden.begin),
                };
                let after = Window {
                    begin: piece.begin.max(forbidden.end),
                    end: piece.end,
                };
                [before, after]
            })
            .filter(|piece| piece.begin < piece.end)
            .collect();
    }
    left.sort_unstable();
    left
}

/// A day, counted from the beginning of 1970.
fn number(date: Date) -> Option<i64> {
    let midnight = Offset::UTC
        .to_timestamp(date.to_datetime(Time::midnight()))
        .ok()?;
    Some(midnight.as_second().div_euclid(24 * 60 * 60))
}

fn days_after(date: Date, days: i64) -> Option<Date> {
    date.checked_add(Span::new().try_days(days).ok()?).ok()
}

/// The months from year 0 on.
fn month_of(date: Date) -> i64 {
    i64::from(date.year()) * 12 + i64::from(date.month()) - 1
}

/// The first day of a month.
fn first_of(month: i64) -> Option<Date> {
    let year = i16::try_from(month.div_euclid(12)).ok()?;
    Date::new(year, i8::try_from(month.rem_euclid(12)).ok()? + 1, 1).ok()
}

impl Schedule {
    /// The day of a month; nothing where the months are not what is counted.
    fn in_month(self, month: i64) -> Option<Date> {
        let first = first_of(month)?;
        match self {
            Self::Absolute { day, .. } => {
                Date::new(first.year(), first.month(), day.clamp(1, first.days_in_month())).ok()
            }
            Self::Relative { nth, day, .. } => first.nth_weekday_of_month(nth, day).ok(),
            Self::Daily { .. } | Self::Weekly { .. } => None,
        }
    }

    /// The first day of a window that is not before `first`, and how many days, or months, it is to the next.
    fn base(self, first: Date) -> Option<(Date, i64)> {
        match self {
            Self::Daily { days } => Some((first, days.max(1))),
            Self::Weekly { weeks, day } => {
                let ahead = i64::from(day.since(first.weekday()));
                Some((days_after(first, ahead)?, weeks.max(1) * 7))
            }
            Self::Absolute { months, .. } | Self::Relative { months, .. } => {
                let month = month_of(first);
                let here = self.in_month(month)?;
                let base = if here >= first {
                    here
                } else {
                    self.in_month(month + 1)?
                };
                Some((base, months.max(1)))
            }
        }
    }

    fn by_months(self) -> bool {
        matches!(self, Self::Absolute { .. } | Self::Relative { .. })
    }

    /// The `index`-th day, from 0.
    fn day(self, base: Date, step: i64, index: i64) -> Option<Date> {
        if self.by_months() {
            self.in_month(month_of(base).checked_add(step.checked_mul(index)?)?)
        } else {
            days_after(base, step.checked_mul(index)?)
        }
    }

    /// The index of the last day that is not after `date`; 0 where all are.
    fn index(self, base: Date, step: i64, date: Date) -> Option<i64> {
        let passed = if self.by_months() {
            month_of(date) - month_of(base)
        } else {
            number(date)? - number(base)?
        };
        Some(passed.div_euclid(step).max(0))
    }
}

impl Recurring {
    fn at(&self, date: Date, time: Time) -> Option<Timestamp> {
        self.offset.to_timestamp(date.to_datetime(time)).ok()
    }

    fn occurrences(&self, from: Timestamp) -> impl Iterator<Item = Window> + '_ {
        // A window that began the day before may still be open.
        let local = self.offset.to_datetime(from).date();
        let earliest = days_after(local, -2).unwrap_or(local);
        let base = self.schedule.base(self.first);
        let first = base.and_then(|(base, step)| self.schedule.index(base, step, earliest));
        let days = (first.unwrap_or_default()..).map_while(move |index| {
            let (base, step) = base?;
            self.schedule.day(base, step, index)
        });
        let windows = days.map_while(move |date| {
            let begin = self.at(date, self.time)?;
            let end = begin.checked_add(self.duration).ok()?;
            Some(Window { begin, end })
        });
        windows.filter(move |window| window.end > from)
    }

    fn forbidden(&self) -> impl Iterator<Item = Window> + '_ {
        self.forbidden.iter().filter_map(move |(first, last)| {
            Some(Window {
                begin: self.at(*first, Time::midnight())?,
                end: self.at(days_after(*last, 1)?, Time::midnight())?,
            })
        })
    }
}

impl Slots {
    fn occurrences(&self, from: Timestamp) -> impl Iterator<Item = Window> + '_ {
        const SECONDS: i64 = 60 * 60;
        let first = from.as_second().div_euclid(SECONDS);
        let hours = (first..).map_while(|hour| {
            let begin = Timestamp::from_second(hour.checked_mul(SECONDS)?).ok()?;
            let end = begin.checked_add(HOUR).ok()?;
            Some(Window { begin, end })
        });
        // Without any hour there is none to be found.
        let some = self.hours.iter().any(|hours| *hours != 0);
        let hours = hours.take_while(move |_| some);
        hours.filter(move |window| {
            let at = Offset::UTC.to_datetime(window.begin);
            let day = usize::try_from(at.date().weekday().to_monday_zero_offset()).unwrap_or_default();
            self.hours[day] & (1 << at.hour()) != 0
        })
    }
}
