//! Which rules say something about a cluster at an instant: findings, without words yet, and the dates at which that changes.

mod course;
mod managed;
mod running;
mod versions;

use std::time::Duration;

use jiff::Timestamp;

use crate::{Advisory, Area, Change, Facts, Issue, Minor, Plugin, Profile, Reboot, State};

/// How long before a version or a platform goes out of support that is told.
pub const NOTICE: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// What one rule says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Finding<'a> {
    pub(crate) rule: &'static str,
    pub(crate) state: State,
    /// `None`: the whole cluster.
    pub(crate) area: Option<Area>,
    pub(crate) says: Says<'a>,
    /// By when something is to be done.
    pub(crate) by: Option<Timestamp>,
    /// Since when the fact is one.
    pub(crate) since: Option<Timestamp>,
}

impl Finding<'_> {
    /// Where it stands among reasons of one state: those with a date first, in the order of their dates.
    pub(crate) fn rank(&self) -> Timestamp {
        self.by.unwrap_or(Timestamp::MAX)
    }
}

/// A part of a cluster with a version.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Part<'a> {
    ControlPlane,
    Pool(&'a str),
}

/// What is to be said, with what it rests on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Says<'a> {
    VersionEnds(Part<'a>, Minor),
    VersionEnded(Part<'a>, Minor, Timestamp),
    StillWorks(Minor),
    NoUpdates(Minor),
    Lags(Minor),
    PlatformEnds,
    PlatformEnded,
    EngineBehind(u32),
    Alpha(&'a str, bool),
    Preview(&'a str),
    ImageOld(&'a str, Timestamp),
    Reverted(&'a Change),
    Standing(&'a Change),
    NodeChanged(&'a Change),
    NotKept(&'a Change),
    MetadataChanged(&'a Change),
    GroupChanged(&'a Change),
    RulesChanged(&'a Change),
    Extension(&'a Change),
    NodeBroken(&'a Change),
    OwnerChanged(&'a Change),
    Plugin(Plugin),
    Problem(&'a str),
    Failed(&'a str),
    Behind,
    Repairing(&'a str),
    Fix(&'a Advisory),
    Young(&'a Advisory),
    Guidance(&'a Advisory),
    Foreign(&'a Advisory),
    Reboots(&'a Reboot),
    Kept(Timestamp),
    Deallocated,
    StopsIdle(Option<u32>),
    Archivable,
    Archived,
    StoppedLong(Timestamp),
    NoLatest,
    NoUpdate,
    Disconnecting(Timestamp),
    Disconnected(Timestamp),
    AirGapped,
    Suspended(Timestamp),
    Deleted,
    Leaving(Timestamp, bool),
    Left(bool),
    TooSmall(u32, u32),
    Basic(Plugin),
    Issue(&'a Issue),
    Unsupported(&'a str),
}

/// Findings of an instant, and later instants at which others may be found.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) findings: Vec<Finding<'a>>,
    now: Timestamp,
    next: Option<Timestamp>,
    /// Since when the cluster is out of support by what was found so far.
    out: Option<Timestamp>,
}

impl<'a> Found<'a> {
    /// The first later instant at which something else may be found.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.next
    }

    /// Whether an instant has come; it is noted where it has not.
    fn has_come(&mut self, at: Timestamp) -> bool {
        if at <= self.now {
            return true;
        }
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
        false
    }

    fn say(&mut self, rule: &'static str, state: State, says: Says<'a>) -> &mut Finding<'a> {
        self.findings.push(Finding {
            rule,
            state,
            area: None,
            says,
            by: None,
            since: None,
        });
        let last = self.findings.len().saturating_sub(1);
        &mut self.findings[last]
    }

    /// The cluster is out of support, since then.
    fn out(&mut self, since: Timestamp) {
        self.out = Some(self.out.map_or(since, |out| out.min(since)));
    }
}

impl Finding<'_> {
    fn of(&mut self, area: Area) -> &mut Self {
        self.area = Some(area);
        self
    }

    fn by(&mut self, by: Timestamp) -> &mut Self {
        self.by = Some(by);
        self
    }

    fn since(&mut self, since: impl Into<Option<Timestamp>>) -> &mut Self {
        self.since = since.into();
        self
    }
}

/// Goes over the facts with all rules of a profile.
pub(crate) fn find(facts: &Facts, profile: Profile, now: Timestamp) -> Found<'_> {
    let mut found = timeless(facts, profile, now);
    // Last: what is archived goes by since when it is out of support.
    course::find(facts, profile, &mut found);
    found
}

/// Since when a cluster is out of support by other rules than those of deadlines, and the next instant at which these may say something else.
pub(crate) fn out(facts: &Facts, profile: Profile, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
    let found = timeless(facts, profile, now);
    (found.out, found.next)
}

/// Goes over the facts with all rules but those of deadlines.
fn timeless(facts: &Facts, profile: Profile, now: Timestamp) -> Found<'_> {
    let mut found = Found {
        findings: Vec::with_capacity(8),
        now,
        next: None,
        out: None,
    };
    versions::find(facts, profile, &mut found);
    managed::find(facts, profile, &mut found);
    running::find(facts, profile, &mut found);
    found
}
