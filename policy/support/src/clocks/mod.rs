//! The clocks of clusters and stamps: what is stopped, deallocated, idle, out of support, suspended or disconnected for how long, which notices
//! are due, and what is then to be done (rules L1 to L7, S1 to S3).
//!
//! [`ClusterClock`] is told what happens to a cluster and its subscription, and says what is to be done at which instant; [`StampClock`] is
//! a stamp's connection to its registration. Days are 24 hours; 12 months are of the calendar, in UTC.
//!
//! Always true: each deed with a deadline is announced before it, the last time at least [`LEAST_NOTICE`] before. A stop, an archive and a
//! deletion are never done before all the time of their notices has gone by since the first, also where the clock was not looked at when that
//! was due: then they are late.
//! What is to be done at once (a suspension's stop, the deletion of a deleted subscription's clusters) has no notice: it follows from what a
//! person has just done.
//!
//! [`Standing`] is where a cluster stands by its facts: a clock begins there again whenever it is looked at, with the notices that were
//! written down ([`ClusterClock::resume`]). Nothing here stops, archives or deletes anything: who looks does that, or only tells of it.

mod cluster;
mod resume;
mod stamp;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_years;

use std::time::Duration;

use jiff::{Span, Timestamp, tz::TimeZone};

pub use cluster::{ClusterClock, Happening, Phase};
pub use resume::{Noticed, Standing};
pub use stamp::{Allowed, Link, Mode, StampClock};

/// A day.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The last notice of a deed comes no later than this before it.
pub const LEAST_NOTICE: Duration = DAY;

/// Nodes were deallocated by hand, or none is ready and none runs, before the service stops the cluster (L2, L3).
pub const IDLE: Duration = days(30);
/// A cluster is out of support before its control plane may be archived (L4).
pub const ARCHIVE: Duration = days(30);
/// A cluster is stopped before its control plane is out of support (L5).
pub const STOPPED_UNSUPPORTED: Duration = days(30);
/// A cluster is stopped before it cannot be updated to the latest version any more (L5, hci).
pub const STOPPED_NOT_LATEST: Duration = days(60);
/// A cluster is stopped before it cannot be updated at all any more (L5).
pub const STOPPED_NO_UPDATES: Duration = days(90);
/// A stamp is not connected before day-2 operations end (L6).
pub const DISCONNECTED: Duration = days(30);
/// A subscription is suspended before its clusters are deleted (S1).
pub const SUSPENDED: Duration = days(90);
/// A subscription is suspended or deleted before its clusters are out of support (S3).
pub const UNSUPPORTED: Duration = days(60);

const fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 60 * 60)
}

/// So much later, or the end of time.
pub fn after(at: Timestamp, wait: Duration) -> Timestamp {
    at.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// So much earlier, or the beginning of time.
pub fn before(at: Timestamp, lead: Duration) -> Timestamp {
    at.checked_sub(lead).unwrap_or(Timestamp::MIN)
}

/// So many months later by the calendar, in UTC: on the same day of the month, or on its last where it has no such day.
pub fn months_after(at: Timestamp, months: i64) -> Timestamp {
    let later = at
        .to_zoned(TimeZone::UTC)
        .checked_add(Span::new().months(months.clamp(0, 12_000)));
    later.map_or(Timestamp::MAX, |later| later.timestamp())
}

/// When the state of a cluster that was stopped then is deleted (L1).
pub fn preserved_until(stopped: Timestamp) -> Timestamp {
    months_after(stopped, 12)
}

/// Something that is done to a cluster when its time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// Its machines are stopped; its data is kept.
    Stop,
    /// It is out of support from now on.
    LeaveSupport,
    /// It is not updated to the latest version any more.
    RefuseLatest,
    /// It is not updated at all any more.
    RefuseUpdates,
    /// Its control plane is put into a sealed backup, and its machines go.
    Archive,
    /// It comes back from its archive.
    Restore,
    /// Its connection cannot be recovered: it has to be deployed anew to have one.
    Unregister,
    /// It and everything of it goes.
    Delete,
}

impl Deed {
    /// How long before a deadline there are notices, the first one first.
    pub fn leads(self, whole: Duration) -> &'static [Duration] {
        const LONG: &[Duration] = &[days(60), days(30), days(7), days(1)];
        const MIDDLE: &[Duration] = &[days(30), days(7), days(1)];
        const SHORT: &[Duration] = &[days(14), days(7), days(1)];
        if whole >= days(180) {
            LONG
        } else if whole >= days(60) {
            MIDDLE
        } else {
            SHORT
        }
    }

    /// Whether it takes something from its owner: machines that run, disks, everything. What only says how a cluster is supported takes nothing.
    pub fn takes(self) -> bool {
        matches!(self, Self::Stop | Self::Archive | Self::Delete)
    }

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::LeaveSupport => "leave support",
            Self::RefuseLatest => "no update to the latest version",
            Self::RefuseUpdates => "no update",
            Self::Archive => "archive",
            Self::Restore => "restore",
            Self::Unregister => "unregister",
            Self::Delete => "delete",
        }
    }
}

/// What a clock says is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    /// When it was said.
    pub at: Timestamp,
    /// The rule.
    pub rule: &'static str,
    /// What is done, or announced.
    pub deed: Deed,
    /// `Some`: only a notice, and when the deed is due.
    pub notice: Option<Timestamp>,
}

/// Something that will be done unless something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// The rule.
    pub rule: &'static str,
    /// What.
    pub deed: Deed,
    /// When its time began.
    pub begun: Timestamp,
    /// When it is due.
    pub due: Timestamp,
}

impl Deadline {
    /// How long it runs in all.
    pub fn whole(&self) -> Duration {
        let whole = self.due.duration_since(self.begun);
        if whole.is_positive() {
            whole.unsigned_abs()
        } else {
            Duration::ZERO
        }
    }
}

/// The notices of a deed whose time runs for so long: those that fall into it.
pub(crate) fn leads(deed: Deed, whole: Duration) -> &'static [Duration] {
    let all = deed.leads(whole);
    let skipped = all.iter().take_while(|lead| **lead >= whole).count();
    all.get(skipped..).unwrap_or_default()
}
