//! A simulation of nodes with their pods: pods are placed and removed here without an effect on the cluster.
//!
//! Always true: placements since a mark are reverted by [`World::undo`]; [`World::refusal`] alone decides
//! whether a node takes a pod, and each check is counted.
//!
//! If the rules of a pod concern no pods beyond its own node, a node that has refused it refuses every pod of
//! the same class until that node is in [`World::freed`]. These results are kept by class, so that thousands
//! of pods are not checked against hundreds of nodes each.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    model::Node,
    quantity::Resources,
    rules::{HOSTNAME, Port, Rules, Term},
};

/// A simulated node.
pub(crate) struct Host<'w> {
    node: Cow<'w, Node>,
    /// The sum of its pods' requests; it may exceed the node's resources.
    used: Resources,
    ports: Vec<&'w Port>,
    /// Whether new pods may be placed on it.
    open: bool,
}

impl Host<'_> {
    /// Whether new pods may be placed on it.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }
}

/// Pods with equal rules.
struct Class<'w> {
    rules: &'w Rules,
    /// Indexes of the counts that include it.
    counted: Vec<usize>,
    /// Indexes of the counts of its affinity, anti-affinity and spread terms.
    with: Vec<usize>,
    apart: Vec<usize>,
    spread: Vec<usize>,
    /// Indexes of the counts of other pods' anti-affinity that select it.
    repelled: Vec<usize>,
    /// Whether a refusal by a node stays valid; see [`World::is_steady`].
    steady: bool,
    known: Known,
}

/// Known refusals of nodes for a class.
#[derive(Default)]
struct Known {
    /// Nodes before this index refuse…
    next: usize,
    /// …except these, which were not checked, or may take a pod.
    later: BTreeSet<usize>,
    /// The length of the processed part of [`World::freed`].
    heard: usize,
}

/// Numbers of pods of a term, by the values of its topology key.
struct Count<'w> {
    term: &'w Term,
    /// Selected pods.
    there: BTreeMap<String, u64>,
    /// Pods with this term as anti-affinity.
    holders: BTreeMap<String, u64>,
    all: u64,
}

/// See the module.
pub(crate) struct World<'w> {
    pub(crate) hosts: Vec<Host<'w>>,
    classes: Vec<Class<'w>>,
    by_rules: BTreeMap<&'w Rules, usize>,
    counts: Vec<Count<'w>>,
    by_term: BTreeMap<&'w Term, usize>,
    /// Placements in order: class and host.
    placed: Vec<(usize, usize)>,
    /// Hosts that may take pods again (a pod was removed, or the host was opened), in order.
    freed: Vec<usize>,
    pub(crate) checks: u64,
}

impl<'w> World<'w> {
    /// A world with classes for all these rules, and no nodes.
    pub(crate) fn new(rules: impl Iterator<Item = &'w Rules>) -> Self {
        let mut world = Self {
            hosts: Vec::new(),
            classes: Vec::new(),
            by_rules: BTreeMap::new(),
            counts: Vec::new(),
            by_term: BTreeMap::new(),
            placed: Vec::new(),
            freed: Vec::new(),
            checks: 0,
        };
        for rules in rules {
            if world.by_rules.contains_key(rules) {
                continue;
            }
            world.by_rules.insert(rules, world.classes.len());
            let with = rules.with.iter().map(|term| world.count(term)).collect();
            let apart = rules.apart.iter().map(|term| world.count(term)).collect();
            let spread = rules.spread.iter().map(|own| world.count(&own.term)).collect();
            world.classes.push(Class {
                rules,
                counted: Vec::new(),
                with,
                apart,
                spread,
                repelled: Vec::new(),
                steady: false,
                known: Known::default(),
            });
        }
        let repelling: BTreeSet<usize> = world
            .classes
            .iter()
            .flat_map(|class| class.apart.clone())
            .collect();
        for class in &mut world.classes {
            let all = world.counts.iter().enumerate();
            class.counted = all
                .filter(|(_, count)| count.term.selects(class.rules))
                .map(|(index, _)| index)
                .collect();
            class.repelled = class
                .counted
                .iter()
                .copied()
                .filter(|index| repelling.contains(index))
                .collect();
            let mut far = class.apart.iter().chain(&class.repelled);
            class.steady = class.with.is_empty()
                && class.spread.is_empty()
                && far.all(|index| world.counts[*index].term.topology == HOSTNAME);
        }
        world
    }

    /// The index of a term's count.
    fn count(&mut self, term: &'w Term) -> usize {
        if let Some(index) = self.by_term.get(term) {
            return *index;
        }
        let index = self.counts.len();
        self.by_term.insert(term, index);
        self.counts.push(Count {
            term,
            there: BTreeMap::new(),
            holders: BTreeMap::new(),
            all: 0,
        });
        index
    }

    /// The class of these rules; they must be among those of [`Self::new`].
    pub(crate) fn class(&self, rules: &Rules) -> usize {
        self.by_rules.get(rules).copied().unwrap_or_default()
    }

    /// Whether a node that has refused a pod of this class refuses the next one too, until a pod is removed
    /// from that node.
    pub(crate) fn is_steady(&self, class: usize) -> bool {
        self.classes[class].steady
    }

    /// The requests of a pod of a class.
    pub(crate) fn request(&self, class: usize) -> &Resources {
        &self.classes[class].rules.request
    }

    /// Adds a node and returns its index. `open`: whether new pods may be placed on it.
    pub(crate) fn add(&mut self, node: Cow<'w, Node>, open: bool) -> usize {
        self.hosts.push(Host {
            used: Resources::default(),
            ports: Vec::new(),
            open,
            node,
        });
        self.hosts.len() - 1
    }

    /// Removes the nodes from this index on. They must be empty.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.hosts.truncate(length);
        for class in &mut self.classes {
            class.known.next = class.known.next.min(length);
            class.known.later.retain(|host| *host < length);
        }
    }

    /// Sets whether new pods may be placed on a node.
    pub(crate) fn set_open(&mut self, host: usize, open: bool) {
        self.hosts[host].open = open;
        if open {
            self.freed.push(host);
        }
    }

    fn value(&self, host: usize, count: usize) -> Option<&String> {
        self.hosts[host]
            .node
            .labels
            .get(&self.counts[count].term.topology)
    }

    /// Places a pod on a node, without a check.
    pub(crate) fn put(&mut self, class: usize, host: usize) {
        self.change(class, host, true);
        self.placed.push((class, host));
    }

    fn change(&mut self, class: usize, host: usize, put: bool) {
        let step = |map: &mut BTreeMap<String, u64>, value: &String| {
            let own = map.entry(value.clone()).or_default();
            *own = if put { *own + 1 } else { own.saturating_sub(1) };
        };
        let rules: &'w Rules = self.classes[class].rules;
        let Class { counted, apart, .. } = &self.classes[class];
        let Host {
            node, used, ports, ..
        } = &mut self.hosts[host];
        for index in counted {
            let count = &mut self.counts[*index];
            if let Some(value) = node.labels.get(&count.term.topology) {
                step(&mut count.there, value);
                count.all = if put {
                    count.all + 1
                } else {
                    count.all.saturating_sub(1)
                };
            }
        }
        for index in apart {
            let count = &mut self.counts[*index];
            if let Some(value) = node.labels.get(&count.term.topology) {
                step(&mut count.holders, value);
            }
        }
        if put {
            used.add(&rules.request);
            ports.extend(&rules.ports);
        } else {
            used.take(&rules.request);
            for port in &rules.ports {
                if let Some(place) = ports.iter().position(|own| *own == port) {
                    ports.swap_remove(place);
                }
            }
        }
    }

    /// Removes a pod from a node permanently. Earlier placements must not be reverted after that.
    pub(crate) fn take_off(&mut self, class: usize, host: usize) {
        self.change(class, host, false);
        self.freed.push(host);
    }

    /// A mark for [`Self::undo`].
    pub(crate) fn mark(&self) -> usize {
        self.placed.len()
    }

    /// Reverts all placements since a mark.
    pub(crate) fn undo(&mut self, mark: usize) {
        while self.placed.len() > mark {
            if let Some((class, host)) = self.placed.pop() {
                self.change(class, host, false);
                self.freed.push(host);
            }
        }
    }

    /// The reason why a node does not take a pod of a class; `None`: it takes it.
    pub(crate) fn refusal(&mut self, class: usize, host: usize) -> Option<String> {
        self.checks += 1;
        let own = &self.classes[class];
        let Host {
            node, used, ports, ..
        } = &self.hosts[host];
        if let Some(lacking) = node.room.lacks(used, &own.rules.request) {
            return Some(if lacking == "pods" {
                "Too many pods".to_owned()
            } else {
                format!("Insufficient {lacking}")
            });
        }
        if let Some(why) = own.rules.refused_by(&node.labels, &node.taints) {
            return Some(why);
        }
        if own.rules.clashes(ports.iter().copied()) {
            return Some("node(s) didn't have free ports for the requested pod ports".to_owned());
        }
        let there = |count: usize| {
            let value = self.value(host, count)?;
            Some(self.counts[count].there.get(value).copied().unwrap_or(0))
        };
        for count in &own.with {
            // The first pod with an affinity to its own kind may be on any node with the topology key.
            let first = self.counts[*count].all == 0 && own.counted.contains(count);
            let near = there(*count).is_some_and(|near| near > 0 || first);
            if !near {
                return Some("node(s) didn't match pod affinity rules".to_owned());
            }
        }
        if own
            .apart
            .iter()
            .any(|count| there(*count).is_some_and(|near| near > 0))
        {
            return Some("node(s) didn't match pod anti-affinity rules".to_owned());
        }
        let repels = |count: &usize| {
            let holders = self
                .value(host, *count)
                .and_then(|value| self.counts[*count].holders.get(value));
            holders.is_some_and(|holders| *holders > 0)
        };
        if own.repelled.iter().any(repels) {
            return Some("node(s) didn't satisfy existing pods anti-affinity rules".to_owned());
        }
        for (spread, count) in own.rules.spread.iter().zip(&own.spread) {
            let Some(near) = there(*count) else {
                return Some(
                    "node(s) didn't match pod topology spread constraints (missing required label)"
                        .to_owned(),
                );
            };
            let self_counted = u64::from(own.counted.contains(count));
            if near + self_counted > self.emptiest(own.rules, *count, spread.places) + spread.most {
                return Some("node(s) didn't match pod topology spread constraints".to_owned());
            }
        }
        None
    }

    /// The smallest number of pods of a count in a topology domain, among the domains that the pod's node
    /// rules permit.
    fn emptiest(&self, rules: &Rules, count: usize, places: u64) -> u64 {
        let topology = &self.counts[count].term.topology;
        let mut values = BTreeSet::new();
        for host in self.hosts.iter().filter(|host| host.open) {
            if let Some(value) = host.node.labels.get(topology)
                && !values.contains(value)
                && rules.refused_by(&host.node.labels, &[]).is_none()
            {
                values.insert(value);
            }
        }
        if (values.len() as u64) < places {
            return 0;
        }
        let there = &self.counts[count].there;
        let all = values.iter().map(|value| there.get(*value).copied().unwrap_or(0));
        all.min().unwrap_or(0)
    }

    /// Whether a node is open, is not `but`, and takes a pod of a class.
    fn takes(&mut self, class: usize, host: usize, but: Option<usize>) -> bool {
        Some(host) != but && self.hosts[host].open && self.refusal(class, host).is_none()
    }

    /// The first open node except `but` that takes a pod of a class.
    pub(crate) fn find(&mut self, class: usize, but: Option<usize>) -> Option<usize> {
        if !self.classes[class].steady {
            return (0..self.hosts.len()).find(|host| self.takes(class, *host, but));
        }
        let length = self.hosts.len();
        let mut known = std::mem::take(&mut self.classes[class].known);
        for host in &self.freed[known.heard.min(self.freed.len())..] {
            if *host < known.next {
                known.later.insert(*host);
            }
        }
        known.heard = self.freed.len();
        let mut found = None;
        let asked: Vec<usize> = known.later.iter().copied().collect();
        for host in asked {
            if self.takes(class, host, but) {
                found = Some(host);
                break;
            }
            if Some(host) != but {
                known.later.remove(&host);
            }
        }
        while found.is_none() && known.next < length {
            let host = known.next;
            if self.takes(class, host, but) {
                // It may take the next pod as well.
                found = Some(host);
                break;
            }
            if Some(host) == but {
                known.later.insert(host);
            }
            known.next += 1;
        }
        self.classes[class].known = known;
        found
    }
}
