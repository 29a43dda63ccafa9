//! The decision: growth, removals, and the time of the next decision.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cluster_spec::AutoscalerProfile;
use jiff::Timestamp;

use crate::{
    grow,
    model::{Backoff, Decision, Node, Outcome, Pod, Pool, State, Verdict, Work},
    rules::HOSTNAME,
    shrink,
    world::World,
};

/// Pods of a lower priority use existing room only; no node is made for them. Upstream's default.
const EXPENDABLE: i64 = -10;
/// Seconds without growth of a pool after its node failed to become ready. Doubled at each further failure,
/// up to [`LONGEST_BACKOFF`]. Upstream's values.
const BACKOFF: u64 = 5 * 60;
const LONGEST_BACKOFF: u64 = 30 * 60;

/// This number of seconds after `at`; at most the largest timestamp.
pub(crate) fn later(at: Timestamp, seconds: u64) -> Timestamp {
    at.checked_add(Duration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}

/// A decision being made.
pub(crate) struct Making<'w> {
    pub(crate) state: State<'w>,
    pub(crate) profile: &'w AutoscalerProfile,
    pub(crate) now: Timestamp,
    pub(crate) world: World<'w>,
    /// By name: the host of a joined node.
    pub(crate) hosts: BTreeMap<&'w str, usize>,
    /// By pool: a new node, with the requests of its DaemonSets already subtracted.
    pub(crate) templates: Vec<Node>,
    /// By host of an upcoming node: its pool.
    pub(crate) upcoming: BTreeMap<usize, usize>,
    /// By host: classes of pods that are expected there, and not there yet.
    pub(crate) expected: BTreeMap<usize, Vec<usize>>,
    /// By node: the indexes of its pods.
    pub(crate) pods_of: BTreeMap<&'w str, Vec<usize>>,
    pub(crate) decision: Decision,
}

/// Decides on the pools' counts and on nodes to remove. Pure: the same input gives the same decision.
///
/// After a decision is in effect ([`Pool::count`], [`State::leaving`]) and its memory is kept, the next one
/// changes nothing for the same pods.
pub fn decide(state: State<'_>, profile: &AutoscalerProfile, now: Timestamp) -> Decision {
    let mut making = Making::new(state, profile, now);
    making.settle_growth();
    if making.is_unhealthy() {
        making.decision.unhealthy = true;
        making.decision.memory.unneeded.clear();
        return making.finish();
    }
    if !making.decision.sizes.is_empty() {
        // Failed growth is given up first.
        return making.finish();
    }
    making.populate();
    let waiting = making.place_pending();
    let grows = grow::grow(&mut making, &waiting);
    if !grows {
        making.place_evicted();
        shrink::shrink(&mut making);
    }
    making.finish()
}

impl<'w> Making<'w> {
    fn new(state: State<'w>, profile: &'w AutoscalerProfile, now: Timestamp) -> Self {
        let mut memory = state.memory.clone();
        let known = |pool: &String| state.pools.iter().any(|own| own.name == *pool);
        memory.growing.retain(|pool, _| known(pool));
        memory
            .backoff
            .retain(|pool, backoff| known(pool) && later(backoff.until, LONGEST_BACKOFF) > now);
        let mut pods_of = BTreeMap::<&str, Vec<usize>>::new();
        for (index, pod) in state.work.pods.iter().enumerate() {
            if let Some(node) = &pod.node {
                pods_of.entry(node).or_default().push(index);
            }
        }
        let mut making = Self {
            world: World::new(state.work.pods.iter().map(|pod| &pod.rules)),
            state,
            profile,
            now,
            hosts: BTreeMap::new(),
            templates: Vec::new(),
            upcoming: BTreeMap::new(),
            expected: BTreeMap::new(),
            pods_of,
            decision: Decision {
                memory,
                ..Decision::default()
            },
        };
        making.templates = state.pools.iter().map(|pool| making.template(pool)).collect();
        making
    }

    /// The end of a pool's backoff, if it is in one.
    pub(crate) fn backoff_of(&self, pool: &str) -> Option<Timestamp> {
        let backoff = self.decision.memory.backoff.get(pool)?;
        (backoff.until > self.now).then_some(backoff.until)
    }

    /// Makes the next decision at this time at the latest.
    pub(crate) fn again_at(&mut self, at: Timestamp) {
        let again = self.decision.again.map_or(at, |before| before.min(at));
        self.decision.again = Some(again);
    }

    /// The node of this name, if it has joined.
    pub(crate) fn joined(&self, name: &str) -> Option<&'w Node> {
        let work: &'w Work = self.state.work;
        let place = work
            .nodes
            .binary_search_by(|node| node.name.as_str().cmp(name))
            .ok()?;
        work.nodes.get(place)
    }

    fn is_ready(&self, name: &str) -> bool {
        self.joined(name).is_some_and(|node| node.ready)
    }

    /// A new node of a pool: with the resources of a ready node of the pool if there is one, minus the
    /// requests of each DaemonSet that would run on it.
    fn template(&self, pool: &Pool) -> Node {
        let mut template = pool.template.clone();
        template.ready = true;
        let real = pool
            .nodes
            .keys()
            .find_map(|name| self.joined(name).filter(|node| node.ready));
        if let Some(real) = real {
            template.room = real.room.clone();
        }
        let mut seen = BTreeSet::new();
        for pod in &self.state.work.pods {
            let owner = pod.owner.as_deref().unwrap_or(&pod.uid);
            let goes_along = pod.stays.daemon && seen.insert(owner);
            if goes_along && pod.rules.refused_by(&template.labels, &template.taints).is_none() {
                template.room.take(&pod.rules.request);
            }
        }
        template
    }

    /// A new node of a pool with this name.
    pub(crate) fn new_node(&self, pool: usize, name: &str) -> Node {
        let mut node = self.templates[pool].clone();
        node.labels.insert(HOSTNAME.to_owned(), name.to_owned());
        node.name = name.to_owned();
        node
    }

    /// Ends completed growth, and gives up nodes that were not ready in time.
    fn settle_growth(&mut self) {
        let provision = self.profile.provision;
        for pool in self.state.pools {
            let Some(growth) = self.decision.memory.growing.get(&pool.name).copied() else {
                if pool.count < pool.min {
                    self.decision.sizes.insert(pool.name.clone(), pool.min);
                }
                continue;
            };
            let to = growth.to.min(pool.count);
            let ready = pool.nodes.keys().filter(|name| self.is_ready(name)).count();
            if ready as u64 >= u64::from(to) {
                self.decision.memory.growing.remove(&pool.name);
                self.decision.memory.backoff.remove(&pool.name);
                continue;
            }
            let deadline = later(growth.since, provision);
            if deadline > self.now {
                self.again_at(deadline);
                continue;
            }
            // Only nodes made since the growth began are late: an older node that is not ready has another
            // cause.
            let late: Vec<&String> = pool
                .nodes
                .iter()
                .filter(|(name, made)| {
                    **made >= growth.since && !self.is_ready(name) && later(**made, provision) <= self.now
                })
                .map(|(name, _)| name)
                .collect();
            let staying = pool.nodes.len() - late.len();
            if late.is_empty() && staying as u64 >= u64::from(pool.count) {
                self.decision.memory.growing.remove(&pool.name);
                continue;
            }
            let left = u32::try_from(staying).unwrap_or(u32::MAX);
            let left = left.min(pool.count).max(pool.min);
            self.decision.remove.extend(late.into_iter().cloned());
            self.decision.sizes.insert(pool.name.clone(), left);
            let memory = &mut self.decision.memory;
            memory.growing.remove(&pool.name);
            memory.failed_at = Some(self.now);
            let times = memory.backoff.get(&pool.name).map_or(0, |backoff| backoff.times) + 1;
            let pause = (BACKOFF << (times - 1).min(8)).min(LONGEST_BACKOFF);
            let until = later(self.now, pause);
            memory.backoff.insert(pool.name.clone(), Backoff { until, times });
        }
    }

    /// Whether more nodes are not ready than the profile permits. New nodes within their provision time do
    /// not count as not ready.
    fn is_unhealthy(&self) -> bool {
        let (mut all, mut unready) = (0_u64, 0_u64);
        for (name, made) in self.state.pools.iter().flat_map(|pool| &pool.nodes) {
            if let Some(node) = self.joined(name) {
                all += 1;
                let old = later(*made, self.profile.provision) <= self.now;
                unready += u64::from(!node.ready && old);
            }
        }
        unready > u64::from(self.profile.unready_count)
            && unready * 100 > u64::from(self.profile.unready_share) * all
    }

    /// Fills the world with the existing nodes and pods, and with upcoming nodes.
    fn populate(&mut self) {
        let work = self.state.work;
        for node in &work.nodes {
            let open = node.ready && !node.cordoned && !self.state.leaving.contains(&node.name);
            let host = self.world.add(Cow::Borrowed(node), open);
            self.hosts.insert(&node.name, host);
        }
        for pod in &work.pods {
            let host = pod.node.as_deref().and_then(|node| self.hosts.get(node));
            if let Some(host) = host.copied() {
                let class = self.world.class(&pod.rules);
                self.world.put(class, host);
            }
        }
        for (index, pool) in self.state.pools.iter().enumerate() {
            let comes = |(name, made): &(&String, &Timestamp)| {
                !self.is_ready(name) && later(**made, self.profile.provision) > self.now
            };
            let unready: Vec<&String> = pool.nodes.iter().filter(comes).map(|(name, _)| name).collect();
            let unwritten = u64::from(pool.count).saturating_sub(pool.nodes.len() as u64);
            let unwritten = (0..unwritten).map(|number| format!("{}-upcoming-{number}", pool.name));
            let names: Vec<String> = unready.into_iter().cloned().chain(unwritten).collect();
            for name in names {
                let node = self.new_node(index, &name);
                let host = self.world.add(Cow::Owned(node), true);
                self.upcoming.insert(host, index);
            }
        }
    }

    /// Places unschedulable pods on nodes with room, existing or upcoming; returns the others. Pods of higher
    /// priority and larger requests come first.
    fn place_pending(&mut self) -> Vec<usize> {
        let pods: &'w [Pod] = &self.state.work.pods;
        let waits = |pod: &Pod| pod.node.is_none() && pod.unschedulable && !pod.leaving;
        let mut pending: Vec<usize> = (0..pods.len()).filter(|index| waits(&pods[*index])).collect();
        pending.sort_by(|one, other| {
            let key = |index: &usize| {
                let pod = &pods[*index];
                (pod.priority, pod.rules.request.cpu, pod.rules.request.memory)
            };
            key(other).cmp(&key(one)).then(one.cmp(other))
        });
        let mut waiting = Vec::new();
        for index in pending {
            let pod = &pods[index];
            let old_enough = later(pod.created_at, self.profile.new_pods);
            let outcome = if pod.priority < EXPENDABLE {
                Outcome::NotYet
            } else if old_enough > self.now {
                self.again_at(old_enough);
                Outcome::NotYet
            } else if let Some(why) = &pod.blocked {
                Outcome::Nowhere(BTreeMap::from([(why.clone(), 1)]))
            } else {
                let class = self.world.class(&pod.rules);
                let Some(host) = self.world.find(class, None) else {
                    waiting.push(index);
                    continue;
                };
                self.expect(class, host);
                match self.upcoming.get(&host) {
                    Some(pool) => Outcome::Comes(self.state.pools[*pool].name.clone()),
                    None => Outcome::Fits,
                }
            };
            self.decision.verdicts.push(Verdict { pod: index, outcome });
        }
        waiting
    }

    /// Places a pod that is expected on a host.
    pub(crate) fn expect(&mut self, class: usize, host: usize) {
        self.world.put(class, host);
        self.expected.entry(host).or_default().push(class);
    }

    /// Reserves room on other nodes for the pods of nodes that are being removed.
    fn place_evicted(&mut self) {
        for node in self.state.leaving {
            let pods = self.pods_of.get(node.as_str()).cloned().unwrap_or_default();
            for index in pods {
                let pod = &self.state.work.pods[index];
                if pod.stays.mirror || pod.stays.daemon || pod.leaving {
                    continue;
                }
                let class = self.world.class(&pod.rules);
                if let Some(host) = self.world.find(class, None) {
                    self.expect(class, host);
                }
            }
        }
    }

    fn finish(mut self) -> Decision {
        self.decision.verdicts.sort_by_key(|verdict| verdict.pod);
        self.decision.checks = self.world.checks;
        self.decision
    }
}
