//! Whether planned work may begin, and if not, when.

use std::time::Duration;

use base_seed::Seed;
use jiff::Timestamp;

use crate::calendar::{Calendar, HOUR, Window};

/// An upgrade does not begin with less of its window left.
pub const LEAST_FOR_UPGRADE: Duration = HOUR;
/// Clusters with the same window begin within this after its begin, each at a minute of its own.
const SPREAD: u64 = 30;
/// Without a window, an upgrade begins within so many hours after a cluster's own minute of the day.
const WITHOUT_WINDOW: u8 = 4;

/// Whether planned work may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It may.
    Now,
    /// Not before this.
    At(Timestamp),
    /// Within five years there is no window for it.
    Never,
}

impl Start {
    /// Of work of the cluster with this uid that needs at least so much of a window.
    ///
    /// It begins at a minute of the cluster's own, at most half an hour after the begin of the window and never so late that less than
    /// `least` is left; from then on it may begin until less is left. Windows that are shorter are passed over.
    pub fn of(calendar: &Calendar, uid: &str, least: Duration, now: Timestamp) -> Self {
        for window in calendar.windows(now) {
            let Some(last) = last_begin(window, least) else {
                continue;
            };
            let first = window
                .begin
                .checked_add(delay(window, uid, least))
                .unwrap_or(last);
            if now < first {
                return Self::At(first);
            }
            if now <= last {
                return Self::Now;
            }
        }
        Self::Never
    }

    /// The same of an upgrade of a cluster that has no window for it: at any day, from the cluster's own minute of the day on.
    pub fn without_window(uid: &str, now: Timestamp) -> Self {
        let minute = Seed::new(0).child(uid).child("day").draw(0) % (24 * 60);
        let calendar = Calendar::daily(u16::try_from(minute).unwrap_or_default(), WITHOUT_WINDOW);
        // Its window is its own: nothing else begins with it.
        match calendar.next(now) {
            Some(window) if window.contains(now) => Self::Now,
            Some(window) => Self::At(window.begin),
            None => Self::Never,
        }
    }

    /// Whether it is now.
    pub fn is_now(self) -> bool {
        self == Self::Now
    }
}

/// The last instant of a window at which work may begin that needs so much of it.
fn last_begin(window: Window, least: Duration) -> Option<Timestamp> {
    let last = window.end.checked_sub(least).ok()?;
    // The end itself is no part of a window.
    let last = last.min(window.end.checked_sub(Duration::from_secs(1)).ok()?);
    (last >= window.begin).then_some(last)
}

/// How long after the begin of a window a cluster begins: whole minutes, the same for each window of this length.
fn delay(window: Window, uid: &str, least: Duration) -> Duration {
    let room = window.length().saturating_sub(least).as_secs() / 60 / 2;
    let spread = SPREAD.min(room);
    let minute = Seed::new(0).child(uid).child("window").draw(0) % (spread + 1);
    Duration::from_secs(minute * 60)
}
