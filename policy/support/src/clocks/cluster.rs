//! The clocks of one cluster.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    ARCHIVE, Act, Deadline, Deed, IDLE, STOPPED_NO_UPDATES, STOPPED_NOT_LATEST, STOPPED_UNSUPPORTED,
    SUSPENDED, UNSUPPORTED, after, before, leads, preserved_until,
};
use crate::Profile;

/// What happens to a cluster, or to its subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// Somebody has stopped it.
    Stopped,
    /// Somebody has started it.
    Started,
    /// The last of its nodes was deallocated by hand.
    Deallocated,
    /// One of them runs again.
    Allocated,
    /// No node is Ready, and none of their machines runs.
    Idle,
    /// One is, or does.
    Busy,
    /// It is out of support, by another rule than these.
    LeftSupport,
    /// A PUT has brought it back.
    BackInSupport,
    /// Its subscription was suspended.
    Suspended,
    /// Its subscription was deleted.
    SubscriptionDeleted,
    /// Its subscription was reinstated.
    Reinstated,
    /// Somebody has deleted it.
    Deleted,
}

/// What a cluster is in, as far as clocks go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It runs.
    Running,
    /// Its nodes were deallocated by hand.
    Deallocated,
    /// None of its nodes is Ready, and none of their machines runs.
    Idle,
    /// It is stopped.
    Stopped,
    /// Its control plane is archived.
    Archived,
    /// It is gone.
    Deleted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subscription {
    Active,
    Suspended(Timestamp),
    Deleted(Timestamp),
}

impl Subscription {
    /// Since when it is neither active.
    fn away(self) -> Option<Timestamp> {
        match self {
            Self::Active => None,
            Self::Suspended(since) | Self::Deleted(since) => Some(since),
        }
    }
}

/// The notices of a deadline so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) begun: Timestamp,
    /// When the first was given.
    pub(super) first: Timestamp,
    /// How many of them are behind.
    pub(super) count: usize,
}

/// The clocks of one cluster. Told what happens, it says what is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterClock {
    pub(super) profile: Profile,
    pub(super) stopped: Option<Timestamp>,
    pub(super) deallocated: Option<Timestamp>,
    pub(super) idle: Option<Timestamp>,
    pub(super) out: Option<Timestamp>,
    pub(super) archived: Option<Timestamp>,
    pub(super) subscription: Subscription,
    deleted: bool,
    pub(super) given: BTreeMap<(&'static str, Deed), Given>,
    /// Deeds that were done, by when their time began: each is done once.
    pub(super) done: BTreeMap<(&'static str, Deed), Timestamp>,
}

impl ClusterClock {
    /// Of a cluster that runs, with an active subscription.
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            stopped: None,
            deallocated: None,
            idle: None,
            out: None,
            archived: None,
            subscription: Subscription::Active,
            deleted: false,
            given: BTreeMap::new(),
            done: BTreeMap::new(),
        }
    }

    /// What it is in.
    pub fn phase(&self) -> Phase {
        if self.deleted {
            Phase::Deleted
        } else if self.archived.is_some() {
            Phase::Archived
        } else if self.stopped.is_some() {
            Phase::Stopped
        } else if self.deallocated.is_some() {
            Phase::Deallocated
        } else if self.idle.is_some() {
            Phase::Idle
        } else {
            Phase::Running
        }
    }

    /// Whether its subscription is suspended or deleted.
    pub fn is_suspended(&self) -> bool {
        self.subscription != Subscription::Active
    }

    /// Whether notice was given of something that is still to be done.
    pub fn is_warned(&self) -> bool {
        let mut running = self.deadlines().into_iter();
        running.any(|deadline| self.given(&deadline).is_some())
    }

    /// What will be done unless something happens, and when, in no order.
    pub fn deadlines(&self) -> Vec<Deadline> {
        let mut all = Vec::new();
        if self.deleted {
            return all;
        }
        let mut add = |rule, deed, begun: Timestamp, due| {
            let deadline = Deadline {
                rule,
                deed,
                begun,
                due,
            };
            if self.done.get(&(rule, deed)) != Some(&begun) {
                all.push(deadline);
            }
        };
        if self.profile == Profile::Aks {
            let running = self.stopped.is_none() && self.archived.is_none();
            if let Some(since) = self.deallocated.filter(|_| running) {
                add("L2", Deed::Stop, since, after(since, IDLE));
            }
            if let Some(since) = self.idle.filter(|_| running) {
                add("L3", Deed::Stop, since, after(since, IDLE));
            }
            if let Some(since) = self.stopped {
                add("L1", Deed::Delete, since, preserved_until(since));
            }
            if let Some(since) = self.out.filter(|_| self.archived.is_none()) {
                add("L4", Deed::Archive, since, after(since, ARCHIVE));
            }
            match self.subscription {
                Subscription::Active => {}
                Subscription::Suspended(since) => {
                    // Of what is archived nothing runs.
                    if running {
                        add("S1", Deed::Stop, since, since);
                    }
                    add("S1", Deed::Delete, since, after(since, SUSPENDED));
                }
                Subscription::Deleted(since) => add("S2", Deed::Delete, since, since),
            }
        }
        if self.profile.is_hybrid() {
            if let Some(since) = self.stopped {
                add("L5", Deed::LeaveSupport, since, after(since, STOPPED_UNSUPPORTED));
                if self.profile == Profile::Hci {
                    add("L5", Deed::RefuseLatest, since, after(since, STOPPED_NOT_LATEST));
                }
                add("L5", Deed::RefuseUpdates, since, after(since, STOPPED_NO_UPDATES));
            }
            if let Some(since) = self.subscription.away() {
                add("S3", Deed::LeaveSupport, since, after(since, UNSUPPORTED));
            }
            if let Subscription::Deleted(since) = self.subscription {
                add("S3", Deed::Unregister, since, since);
            }
        }
        all
    }

    pub(super) fn given(&self, deadline: &Deadline) -> Option<&Given> {
        let given = self.given.get(&(deadline.rule, deadline.deed));
        given.filter(|given| given.begun == deadline.begun)
    }

    /// When a deed is done: as the rule says, and never before all the time of its notices has gone by since the first.
    pub fn due(&self, deadline: &Deadline) -> Timestamp {
        let leads = leads(deadline.deed, deadline.whole());
        match (self.given(deadline), leads.first()) {
            (Some(given), Some(full)) if deadline.deed.takes() => deadline.due.max(after(given.first, *full)),
            _ => deadline.due,
        }
    }

    /// When a deadline is to be looked at next: its next notice, or itself.
    fn step(&self, deadline: &Deadline) -> (Timestamp, bool) {
        let leads = leads(deadline.deed, deadline.whole());
        let behind = self.given(deadline).map_or(0, |given| given.count);
        let due = self.due(deadline);
        match leads.get(behind) {
            Some(lead) => (before(due, *lead), true),
            None => (due, false),
        }
    }

    /// When it is to be looked at next, unless something happens before.
    pub fn next(&self) -> Option<Timestamp> {
        let deadlines = self.deadlines();
        deadlines.iter().map(|deadline| self.step(deadline).0).min()
    }

    /// What is to be done by now. Everything is done in the order in which it was due; at one instant, notices come first.
    pub fn pass(&mut self, now: Timestamp) -> Vec<Act> {
        let mut acts = Vec::new();
        loop {
            let deadlines = self.deadlines();
            let mut steps: Vec<((Timestamp, bool), &Deadline)> = deadlines
                .iter()
                .map(|deadline| (self.step(deadline), deadline))
                .filter(|((at, _), _)| *at <= now)
                .collect();
            steps.sort_by_key(|((at, notice), deadline)| (*at, !*notice, deadline.rule, deadline.deed));
            let Some(((_, notice), deadline)) = steps.first().copied() else {
                return acts;
            };
            let deadline = *deadline;
            if notice {
                acts.push(self.announce(&deadline, now));
            } else {
                acts.push(Act {
                    at: now,
                    rule: deadline.rule,
                    deed: deadline.deed,
                    notice: None,
                });
                self.does(&deadline, now);
            }
        }
    }

    /// Gives notice: once for all notices whose time has come.
    fn announce(&mut self, deadline: &Deadline, now: Timestamp) -> Act {
        let key = (deadline.rule, deadline.deed);
        let first = self.given(deadline).map_or(now, |given| given.first);
        let begun = deadline.begun;
        self.given.insert(
            key,
            Given {
                begun,
                first,
                count: 0,
            },
        );
        // Where the first notice is late, what it is of is late as well.
        let due = self.due(deadline);
        let leads = leads(deadline.deed, deadline.whole());
        let count = leads.iter().filter(|lead| before(due, **lead) <= now).count();
        self.given.insert(key, Given { begun, first, count });
        Act {
            at: now,
            rule: deadline.rule,
            deed: deadline.deed,
            notice: Some(due),
        }
    }

    fn does(&mut self, deadline: &Deadline, now: Timestamp) {
        self.done.insert((deadline.rule, deadline.deed), deadline.begun);
        match deadline.deed {
            Deed::Stop => {
                self.stopped.get_or_insert(now);
            }
            Deed::Archive => self.archived = Some(now),
            Deed::Delete => self.deleted = true,
            Deed::LeaveSupport
            | Deed::RefuseLatest
            | Deed::RefuseUpdates
            | Deed::Restore
            | Deed::Unregister => {}
        }
    }

    /// What these rules counted is over: when it comes about again, notices and deeds do, too.
    fn forget(&mut self, rules: &[&str]) {
        self.given.retain(|(rule, _), _| !rules.contains(rule));
        self.done.retain(|(rule, _), _| !rules.contains(rule));
    }

    /// Something happens: first what is due by now is done, then this, then what follows from it at once.
    pub fn happen(&mut self, what: Happening, now: Timestamp) -> Vec<Act> {
        let mut acts = self.pass(now);
        if self.deleted {
            return acts;
        }
        match what {
            Happening::Stopped => {
                self.stopped.get_or_insert(now);
            }
            // Nothing runs in a subscription that is not active.
            Happening::Started if self.is_suspended() && self.profile == Profile::Aks => {}
            // Its nodes start with it.
            Happening::Started => {
                self.stopped = None;
                self.deallocated = None;
                self.idle = None;
                self.forget(&["L1", "L2", "L3", "L5"]);
            }
            Happening::Deallocated => {
                self.deallocated.get_or_insert(now);
            }
            Happening::Allocated => {
                self.deallocated = None;
                self.forget(&["L2"]);
            }
            Happening::Idle => {
                self.idle.get_or_insert(now);
            }
            Happening::Busy => {
                self.idle = None;
                self.forget(&["L3"]);
            }
            Happening::LeftSupport => {
                self.out.get_or_insert(now);
            }
            Happening::BackInSupport => {
                self.out = None;
                self.forget(&["L4"]);
                if self.archived.take().is_some() {
                    // It comes back with its nodes.
                    self.deallocated = None;
                    self.idle = None;
                    self.forget(&["L2", "L3"]);
                    acts.push(Act {
                        at: now,
                        rule: "L4",
                        deed: Deed::Restore,
                        notice: None,
                    });
                }
            }
            Happening::Suspended => {
                if self.subscription == Subscription::Active {
                    self.subscription = Subscription::Suspended(now);
                }
            }
            Happening::SubscriptionDeleted => {
                if !matches!(self.subscription, Subscription::Deleted(_)) {
                    self.subscription = Subscription::Deleted(now);
                }
            }
            // What is deleted is not reinstated.
            Happening::Reinstated => {
                if matches!(self.subscription, Subscription::Suspended(_)) {
                    self.subscription = Subscription::Active;
                    self.forget(&["S1", "S3"]);
                }
            }
            Happening::Deleted => self.deleted = true,
        }
        acts.extend(self.pass(now));
        acts
    }
}
