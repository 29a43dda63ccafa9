//! A fair queue for limited places. Pure: no clock, no I/O, no tokio.
//!
//! There are [`Lane`]s, each with a number of places. A *tenant* is a subscription. In each lane, the tenant
//! with the least service so far is next (start-time fair queueing: its effects are counted at their cost,
//! and a tenant that returns is counted from the present state of the others, so that idle time gives no
//! credit); a tenant's clusters take turns.
//!
//! Always true:
//! * no place is free while an entry may take it;
//! * of two waiting tenants, neither gets more than one entry's cost ahead of the other;
//! * a tenant holds less than [`SHARE`] times the free places: however long its queue, another tenant finds a
//!   place;
//! * a tenant with [`BACKLOG`] waiting effects makes no further plans: its own memory use is bounded.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// A single tenant gets three quarters of a lane, two get three sevenths each, and so on: some places are
/// always free.
const SHARE: u32 = 3;
/// Effects that may wait for one tenant before its loops stop planning more.
const BACKLOG: usize = 256;

/// A kind of places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Reading, planning and committing: this process's own work.
    Pass,
    /// Making and removing machines and networks: the host's work.
    Host,
    /// All other effects: looks, configurations, calls to clusters' APIs.
    Call,
}

/// All of them.
pub(crate) const LANES: [Lane; 3] = [Lane::Pass, Lane::Host, Lane::Call];

impl Lane {
    /// Its name in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Host => "host",
            Self::Call => "call",
        }
    }
}

/// The tenant and cluster of an entry: entries of one flow share its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flow {
    /// A subscription.
    pub(crate) tenant: Arc<str>,
    /// The key of a cluster's name.
    pub(crate) cluster: Arc<str>,
}

impl Flow {
    /// The key of a cluster's name begins with its subscription: `/n/managedclusters/{s}/{group}/{name}`.
    pub(crate) fn of(name: &str) -> Self {
        Self {
            tenant: name.split('/').nth(3).unwrap_or_default().into(),
            cluster: name.into(),
        }
    }
}

/// The queues of all lanes. `T` is the handle to notify a waiting entry.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    lanes: [LaneState; LANES.len()],
    tenants: BTreeMap<Arc<str>, [Queue<T>; LANES.len()]>,
    /// Names entries, to take one out again.
    tickets: u64,
}

#[derive(Debug)]
struct LaneState {
    free: u32,
    /// The service of the tenant that was last served, at that time.
    now: u64,
    /// Waiting tenants, by their service so far.
    order: BTreeSet<(u64, Arc<str>)>,
}

/// A tenant in a lane.
#[derive(Debug)]
struct Queue<T> {
    /// Its service so far, in cost.
    got: u64,
    /// LaneState that it holds.
    held: u32,
    waiting: usize,
    /// Clusters that wait, next first.
    round: VecDeque<Arc<str>>,
    clusters: BTreeMap<Arc<str>, VecDeque<Entry<T>>>,
}

#[derive(Debug)]
struct Entry<T> {
    ticket: u64,
    cost: u32,
    item: T,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            got: 0,
            held: 0,
            waiting: 0,
            round: VecDeque::new(),
            clusters: BTreeMap::new(),
        }
    }
}

impl<T> FairQueue<T> {
    /// Empty queues. `places` are those of [`Lane::Pass`], [`Lane::Host`] and [`Lane::Call`]; at least one
    /// each.
    pub(crate) fn new(places: [u32; LANES.len()]) -> Self {
        Self {
            lanes: places.map(|free| LaneState {
                free: free.max(1),
                now: 0,
                order: BTreeSet::new(),
            }),
            tenants: BTreeMap::new(),
            tickets: 0,
        }
    }

    /// Joins a queue. `cost` is how much of its tenant's share the entry takes, at least 1. Returns its ticket.
    pub(crate) fn join(&mut self, lane: Lane, flow: &Flow, cost: u32, item: T) -> u64 {
        self.tickets += 1;
        let entry = Entry {
            ticket: self.tickets,
            cost: cost.max(1),
            item,
        };
        let state = &mut self.lanes[lane as usize];
        let queue = &mut self.tenants.entry(Arc::clone(&flow.tenant)).or_default()[lane as usize];
        if queue.waiting == 0 {
            queue.got = queue.got.max(state.now);
            state.order.insert((queue.got, Arc::clone(&flow.tenant)));
        }
        queue.waiting += 1;
        let cluster = queue.clusters.entry(Arc::clone(&flow.cluster)).or_default();
        if cluster.is_empty() {
            queue.round.push_back(Arc::clone(&flow.cluster));
        }
        cluster.push_back(entry);
        self.tickets
    }

    /// Assigns the next place, if there is one and an entry may take it. To be called until it gives `None`.
    pub(crate) fn next(&mut self) -> Option<T> {
        LANES.into_iter().find_map(|lane| self.next_of(lane))
    }

    fn next_of(&mut self, lane: Lane) -> Option<T> {
        let free = self.lanes[lane as usize].free;
        if free == 0 {
            return None;
        }
        let may = |queues: &[Queue<T>; LANES.len()]| {
            queues[lane as usize].held < SHARE.saturating_mul(free)
                && (lane != Lane::Pass
                    || queues[Lane::Host as usize].waiting + queues[Lane::Call as usize].waiting < BACKLOG)
        };
        let (got, tenant) = self.lanes[lane as usize]
            .order
            .iter()
            .find(|(_, tenant)| self.tenants.get(tenant).is_some_and(may))
            .cloned()?;
        let queue = &mut self.tenants.get_mut(&tenant)?[lane as usize];
        let cluster = queue.round.pop_front()?;
        let entries = queue.clusters.get_mut(&cluster)?;
        let entry = entries.pop_front()?;
        if entries.is_empty() {
            queue.clusters.remove(&cluster);
        } else {
            queue.round.push_back(cluster);
        }
        queue.waiting -= 1;
        queue.held += 1;
        queue.got = got + u64::from(entry.cost);
        let state = &mut self.lanes[lane as usize];
        state.free -= 1;
        state.now = state.now.max(got);
        state.order.remove(&(got, Arc::clone(&tenant)));
        if queue.waiting > 0 {
            state.order.insert((queue.got, tenant));
        }
        Some(entry.item)
    }

    /// Returns a place.
    pub(crate) fn leave(&mut self, lane: Lane, tenant: &Arc<str>) {
        if let Some(queues) = self.tenants.get_mut(tenant) {
            queues[lane as usize].held -= 1;
            self.lanes[lane as usize].free += 1;
            self.forget(tenant);
        }
    }

    /// Removes a waiting entry. No effect if the place was assigned already.
    pub(crate) fn withdraw(&mut self, lane: Lane, flow: &Flow, ticket: u64) {
        let Some(queues) = self.tenants.get_mut(&flow.tenant) else {
            return;
        };
        let queue = &mut queues[lane as usize];
        let Some(entries) = queue.clusters.get_mut(&flow.cluster) else {
            return;
        };
        let before = entries.len();
        entries.retain(|entry| entry.ticket != ticket);
        queue.waiting -= before - entries.len();
        if entries.is_empty() {
            queue.clusters.remove(&flow.cluster);
            queue.round.retain(|cluster| *cluster != flow.cluster);
        }
        if queue.waiting == 0 {
            self.lanes[lane as usize]
                .order
                .remove(&(queue.got, Arc::clone(&flow.tenant)));
        }
        self.forget(&flow.tenant);
    }

    /// Removes a tenant without waiting entries and places: it has no service to be remembered.
    fn forget(&mut self, tenant: &Arc<str>) {
        let unused = |queue: &Queue<T>| queue.waiting == 0 && queue.held == 0;
        if self
            .tenants
            .get(tenant)
            .is_some_and(|queues| queues.iter().all(unused))
        {
            self.tenants.remove(tenant);
        }
    }

    /// How many wait.
    pub(crate) fn waiting(&self, lane: Lane) -> usize {
        self.tenants
            .values()
            .map(|queues| queues[lane as usize].waiting)
            .sum()
    }

    /// The handles of those that wait in a lane, in no order.
    pub(crate) fn items(&self, lane: Lane) -> impl Iterator<Item = &T> {
        let queues = self.tenants.values().map(move |queues| &queues[lane as usize]);
        let entries = queues.flat_map(|queue| queue.clusters.values().flatten());
        entries.map(|entry| &entry.item)
    }
}

#[cfg(test)]
#[path = "fair_queue_tests.rs"]
mod tests;
