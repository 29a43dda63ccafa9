//! Two years of clusters in all states, with random acts of tenants and operators, and a service that is sometimes away for long: what the
//! deadlines of the support policies take, and when.
//!
//! Each cluster is looked at as the service looks at it: a clock begins again from facts and the notices that were written down, at the instant
//! that was named last and whenever something changes. What has to hold is computed here once more, from the acts alone:
//!
//! * what is due is done in its minute, unless the service was away, held up, or had given its first notice late for that;
//! * nothing is taken before all the time of its notices has gone by since the first that said so;
//! * what is deleted had been stopped for 12 months, or its subscription suspended for 90 days;
//! * a stamp that only tells takes nothing.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use base_env::Seed;
use jiff::Timestamp;
use policy_support::{
    Profile,
    clocks::{Act, ClusterClock, DAY, Deed, Noticed, SUSPENDED, Standing, after, preserved_until},
};

/// 2027-01-01T00:00:00Z.
const BEGIN: i64 = 1_798_761_600;
const MINUTES: u64 = 2 * 365 * 24 * 60;

/// What happens to a cluster, or to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happening {
    Stopped,
    Started,
    Deallocated,
    Allocated,
    Idle,
    Busy,
    LeftSupport,
    /// A PUT, which brings an archived cluster back.
    Put,
    Suspended,
    Reinstated,
    /// The service ends, for so long.
    Away(Duration),
    Held,
    LetGo,
    Acts,
    Tells,
}

/// What came of all clusters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How many there were.
    pub clusters: u64,
    /// Notices that were given.
    pub notices: u64,
    /// Deeds by kind.
    pub stops: u64,
    /// See [`Self::stops`].
    pub archives: u64,
    /// See [`Self::stops`].
    pub deletions: u64,
    /// Deeds that were done in the very minute that the rule names.
    pub on_time: u64,
}

fn at(minute: u64) -> Timestamp {
    let second = i64::try_from(minute * 60).unwrap_or(i64::MAX);
    Timestamp::from_second(BEGIN.saturating_add(second)).unwrap_or(Timestamp::MAX)
}

/// What happens to one cluster and to the service that it is of, by minute.
fn course(seed: Seed) -> BTreeMap<u64, Happening> {
    const TENANTS: [Happening; 11] = [
        Happening::Stopped,
        Happening::Stopped,
        Happening::Started,
        Happening::Deallocated,
        Happening::Allocated,
        Happening::Idle,
        Happening::Busy,
        Happening::LeftSupport,
        Happening::Put,
        Happening::Suspended,
        Happening::Reinstated,
    ];
    let mut course = BTreeMap::new();
    let minute = |kind: &str, number: u64| seed.child(kind).draw(number) % MINUTES;
    for number in 0..3 + seed.draw(0) % 9 {
        let dice = seed.child("what").draw(number) % 11;
        course.insert(
            minute("minute", number),
            TENANTS[usize::try_from(dice).unwrap_or_default()],
        );
    }
    for number in 0..seed.draw(1) % 3 {
        // Some hours, or most of a year.
        let hours = [5, 24, 24 * 40, 24 * 200]
            [usize::try_from(seed.child("away").draw(number) % 4).unwrap_or_default()];
        course.insert(
            minute("away", number),
            Happening::Away(Duration::from_secs(hours * 60 * 60)),
        );
    }
    if seed.draw(2).is_multiple_of(3) {
        let held = minute("held", 0);
        course.insert(held, Happening::Held);
        course.insert(held + 1 + seed.draw(3) % (60 * 24 * 60), Happening::LetGo);
    }
    // Most stamps act from the beginning, some later, and some go back to telling.
    match seed.draw(4) % 4 {
        0 => {
            course.insert(minute("acts", 0), Happening::Acts);
        }
        1 => {
            course.insert(0, Happening::Acts);
            course.insert(1 + minute("tells", 0), Happening::Tells);
        }
        _ => {
            course.insert(0, Happening::Acts);
        }
    }
    course.retain(|minute, _| *minute < MINUTES);
    course
}

/// A cluster, as records have it.
struct Cluster {
    standing: Standing,
    noticed: Vec<Noticed>,
    acting: bool,
    held: bool,
    /// Since when the service has been there, acting and not held up.
    free: Timestamp,
    deleted: bool,
    /// The first notice of each deadline that said that it would be done.
    first: BTreeMap<(&'static str, &'static str, Timestamp), Timestamp>,
    outcome: Outcome,
}

impl Cluster {
    /// A look of the service; when to look again.
    fn look(&mut self, now: Timestamp) -> Result<Option<Timestamp>> {
        // What is done changes what is due.
        for _ in 0..8 {
            let mut clock = ClusterClock::resume(Profile::Aks, &self.standing, &self.noticed);
            let deadlines = clock.deadlines();
            let acts = clock.pass(now);
            let takes = |act: &&Act| act.notice.is_none() && act.deed.takes();
            let due: Vec<Act> = acts.iter().filter(takes).copied().collect();
            for act in acts.iter().filter(|act| act.notice.is_some()) {
                self.outcome.notices += 1;
                let of = deadlines
                    .iter()
                    .find(|deadline| (deadline.rule, deadline.deed) == (act.rule, act.deed));
                if let Some(of) = of.filter(|_| self.acting) {
                    let key = (act.rule, act.deed.as_str(), of.begun);
                    self.first.entry(key).or_insert(now);
                }
            }
            let left: Vec<_> = if self.acting {
                due.iter().map(|act| (act.rule, act.deed)).collect()
            } else {
                Vec::new()
            };
            self.noticed = clock.noticed(&left);
            let Some(act) = due.first().filter(|_| self.acting && !self.held) else {
                let clock = ClusterClock::resume(Profile::Aks, &self.standing, &self.noticed);
                return Ok(clock.next().filter(|next| *next > now));
            };
            self.does(act, now)?;
            if self.deleted {
                return Ok(None);
            }
        }
        anyhow::bail!("it is done again and again at {now}: {:?}", self.standing)
    }

    /// Does what is due, and asks whether it may be.
    fn does(&mut self, act: &Act, now: Timestamp) -> Result<()> {
        let standing = &self.standing;
        let (begun, due, full) = match (act.rule, act.deed) {
            ("L1", Deed::Delete) => (standing.stopped, standing.stopped.map(preserved_until), 60),
            ("L2", Deed::Stop) => (
                standing.deallocated,
                standing.deallocated.map(|at| after(at, DAY * 30)),
                14,
            ),
            ("L3", Deed::Stop) => (standing.idle, standing.idle.map(|at| after(at, DAY * 30)), 14),
            ("L4", Deed::Archive) => (standing.out, standing.out.map(|at| after(at, DAY * 30)), 14),
            ("S1", Deed::Stop) => (standing.suspended, standing.suspended, 0),
            ("S1", Deed::Delete) => (
                standing.suspended,
                standing.suspended.map(|at| after(at, SUSPENDED)),
                30,
            ),
            other => anyhow::bail!("nobody knows of {other:?}"),
        };
        let (Some(begun), Some(due)) = (begun, due) else {
            anyhow::bail!("{act:?} is of nothing that is so: {standing:?}");
        };
        ensure!(self.acting && !self.held, "{act:?} in a stamp that does nothing");
        ensure!(now >= due, "{act:?} is early: it is due at {due}");
        let full = DAY * full;
        if !full.is_zero() {
            let first = self.first.get(&(act.rule, act.deed.as_str(), begun));
            let Some(first) = first else {
                anyhow::bail!("{act:?} was not announced");
            };
            ensure!(
                now >= after(*first, full),
                "{act:?} was announced at {first} only"
            );
        }
        // Where nothing was in the way since before the first notice, it is done in its minute.
        let notice = due.checked_sub(full).unwrap_or(Timestamp::MIN);
        if self.free <= notice {
            ensure!(now == due, "{act:?} is late: it was due at {due}");
            self.outcome.on_time += 1;
        }
        match act.deed {
            Deed::Stop => {
                self.standing.stopped = Some(now);
                self.outcome.stops += 1;
            }
            Deed::Archive => {
                self.standing.archived = Some(now);
                self.outcome.archives += 1;
            }
            _ => {
                self.deleted = true;
                self.outcome.deletions += 1;
            }
        }
        Ok(())
    }

    fn happen(&mut self, what: Happening, now: Timestamp) {
        let standing = &mut self.standing;
        let runs = standing.stopped.is_none() && standing.archived.is_none();
        match what {
            Happening::Stopped if runs => standing.stopped = Some(now),
            // Nothing starts in a subscription that is disabled.
            Happening::Started | Happening::Put if standing.suspended.is_some() => {}
            Happening::Started | Happening::Put => {
                let archived = standing.archived.take().is_some();
                if archived || what == Happening::Started {
                    standing.stopped = None;
                    standing.deallocated = None;
                    standing.idle = None;
                }
                if what == Happening::Put {
                    standing.out = None;
                } else if archived {
                    // Still out of support: its time begins anew.
                    standing.out = standing.out.map(|_| now);
                }
            }
            Happening::Deallocated if runs => {
                standing.deallocated.get_or_insert(now);
            }
            Happening::Allocated => standing.deallocated = None,
            Happening::Idle if runs => {
                standing.idle.get_or_insert(now);
            }
            Happening::Busy => standing.idle = None,
            Happening::LeftSupport => {
                standing.out.get_or_insert(now);
            }
            Happening::Suspended => {
                standing.suspended.get_or_insert(now);
            }
            Happening::Reinstated => standing.suspended = None,
            Happening::Held => self.held = true,
            Happening::LetGo => {
                self.held = false;
                self.free = self.free.max(now);
            }
            Happening::Acts | Happening::Tells => {
                let acts = what == Happening::Acts;
                if self.acting != acts {
                    self.acting = acts;
                    self.free = self.free.max(now);
                    // Notices that said something else do not count.
                    self.noticed.clear();
                    self.first.clear();
                }
            }
            Happening::Away(_) | Happening::Stopped | Happening::Deallocated | Happening::Idle => {}
        }
    }
}

/// Plays one cluster.
fn one(seed: Seed) -> Result<Outcome> {
    let mut cluster = Cluster {
        standing: Standing::default(),
        noticed: Vec::new(),
        acting: false,
        held: false,
        free: at(0),
        deleted: false,
        first: BTreeMap::new(),
        outcome: Outcome {
            clusters: 1,
            ..Outcome::default()
        },
    };
    let mut next = cluster.look(at(0))?;
    let mut back = at(0);
    for (minute, what) in course(seed).into_iter().chain([(MINUTES, Happening::Busy)]) {
        let now = at(minute);
        // Until then it is looked at when it asked for that, or when the service is back.
        while let Some(due) = next.map(|next| next.max(back)).filter(|due| *due <= now) {
            if cluster.deleted {
                break;
            }
            next = cluster.look(due)?;
        }
        if cluster.deleted {
            break;
        }
        if let Happening::Away(long) = what {
            back = back.max(after(now, long));
            cluster.free = cluster.free.max(back);
            next = Some(back);
            continue;
        }
        cluster.happen(what, now);
        next = if now >= back {
            cluster.look(now)?
        } else {
            Some(back)
        };
    }
    Ok(cluster.outcome)
}

/// Plays so many clusters.
///
/// # Errors
/// When something that has to hold did not: for which cluster, and what.
pub fn play(seed: u64, clusters: u64) -> Result<Outcome> {
    let seed = Seed::new(seed).child("years");
    let mut all = Outcome::default();
    for number in 0..clusters {
        let own = seed.child(&number.to_string());
        let outcome =
            one(own).map_err(|error| error.context(format!("cluster {number}: {:?}", course(own))))?;
        all.clusters += outcome.clusters;
        all.notices += outcome.notices;
        all.stops += outcome.stops;
        all.archives += outcome.archives;
        all.deletions += outcome.deletions;
        all.on_time += outcome.on_time;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_years_of_some_clusters() {
        let outcome = play(1, 100).unwrap();
        assert_eq!(outcome.clusters, 100);
        let shown = [
            outcome.stops,
            outcome.archives,
            outcome.deletions,
            outcome.on_time,
        ];
        assert!(shown.iter().all(|count| *count > 0), "{outcome:?}");
        assert!(outcome.notices > 100, "{outcome:?}");
    }
}
