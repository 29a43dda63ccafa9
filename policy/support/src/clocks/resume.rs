//! A clock that begins again where the facts and what was written down say that it stands.

use jiff::Timestamp;

use super::{
    ClusterClock, Deed,
    cluster::{Given, Subscription as Course},
};
use crate::{Facts, Profile, Subscription, find};

/// Where a cluster stands, as far as its deadlines go by it: since when it is what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Since when it is stopped.
    pub stopped: Option<Timestamp>,
    /// Since when all its nodes are deallocated by hand.
    pub deallocated: Option<Timestamp>,
    /// Since when none of its nodes is Ready, where none of their machines runs either.
    pub idle: Option<Timestamp>,
    /// Since when it is out of support, by other rules than those of deadlines.
    pub out: Option<Timestamp>,
    /// Since when it is archived.
    pub archived: Option<Timestamp>,
    /// Since when its subscription is suspended, where that is known.
    pub suspended: Option<Timestamp>,
    /// Since when its subscription is deleted.
    pub removed: Option<Timestamp>,
    /// When a date alone makes it another one.
    pub changes: Option<Timestamp>,
}

impl Standing {
    /// Where a cluster stands by its facts. One that came back from its archive then (`restored`) is out of support from then on at the
    /// earliest: who has brought it back has all the time again.
    pub fn of(facts: &Facts, profile: Profile, restored: Option<Timestamp>, now: Timestamp) -> Self {
        let (out, changes) = find::out(facts, profile, now);
        let subscription = |state: Subscription| {
            let is = facts.subscription.value == state;
            is.then_some(facts.subscription.since).flatten()
        };
        Self {
            stopped: facts.stopped,
            deallocated: facts.deallocated,
            // Where nobody knows whether machines run, they may.
            idle: facts.unready.filter(|_| facts.running == Some(0)),
            out: out.map(|out| restored.map_or(out, |restored| out.max(restored))),
            archived: facts.archived,
            suspended: subscription(Subscription::Suspended),
            removed: subscription(Subscription::Deleted),
            changes,
        }
    }
}

/// Notices of a deadline, as they are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noticed {
    /// The rule.
    pub rule: String,
    /// The deed ([`Deed::as_str`]).
    pub deed: String,
    /// When the time of the deadline began: notices of another time are of another deadline.
    pub begun: Timestamp,
    /// When the first was given; `None`: none was.
    pub first: Option<Timestamp>,
    /// How many of them are behind.
    pub count: usize,
    /// Whether it was told that the time has come, and nothing is left to be told.
    pub done: bool,
}

impl ClusterClock {
    /// The clock of a cluster that stands there, after these notices. Notices of what runs no more are forgotten.
    pub fn resume(profile: Profile, standing: &Standing, noticed: &[Noticed]) -> Self {
        let mut clock = Self::new(profile);
        clock.stopped = standing.stopped;
        clock.deallocated = standing.deallocated;
        clock.idle = standing.idle;
        clock.out = standing.out;
        clock.archived = standing.archived;
        clock.subscription = match (standing.removed, standing.suspended) {
            (Some(since), _) => Course::Deleted(since),
            (None, Some(since)) => Course::Suspended(since),
            (None, None) => Course::Active,
        };
        for deadline in clock.deadlines() {
            let key = (deadline.rule, deadline.deed);
            let same = |notice: &&Noticed| {
                notice.rule == deadline.rule
                    && notice.deed == deadline.deed.as_str()
                    && notice.begun == deadline.begun
            };
            let Some(notice) = noticed.iter().find(same) else {
                continue;
            };
            if let Some(first) = notice.first {
                let given = Given {
                    begun: notice.begun,
                    first,
                    count: notice.count,
                };
                clock.given.insert(key, given);
            }
            if notice.done {
                clock.done.insert(key, notice.begun);
            }
        }
        clock
    }

    /// What is to be written down of it. `left`: deeds whose time has come and that were not done, so that they are due again at the next look.
    pub fn noticed(&self, left: &[(&'static str, Deed)]) -> Vec<Noticed> {
        let given = self.given.iter().map(|(key, given)| (*key, given.begun));
        let done = self.done.iter().map(|(key, begun)| (*key, *begun));
        let mut all: Vec<_> = given.chain(done).collect();
        all.sort_unstable();
        all.dedup();
        let written = all.into_iter().map(|((rule, deed), begun)| {
            let given = self.given.get(&(rule, deed)).filter(|given| given.begun == begun);
            Noticed {
                rule: rule.to_owned(),
                deed: deed.as_str().to_owned(),
                begun,
                first: given.map(|given| given.first),
                count: given.map_or(0, |given| given.count),
                done: self.done.get(&(rule, deed)) == Some(&begun) && !left.contains(&(rule, deed)),
            }
        });
        written.collect()
    }
}
