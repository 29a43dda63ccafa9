//! Nodes with the pods on them, as they would be: pods are put on nodes and taken off again without anything happening to the cluster.
//!
//! Always true: what was put somewhere since a mark is taken back by [`World::undo`]; whether a node takes a pod is decided by
//! [`World::refusal`] alone, and each time is counted.
//!
//! For pods whose rules ask for nothing of their neighbours beyond their own node, a node that has refused one refuses each that is alike, as
//! long as nothing is taken off it. What is known of that way is kept by class, so that thousands of pods do not ask hundreds of nodes each.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    model::Node,
    quantity::Resources,
    rules::{HOSTNAME, Port, Rules, Term},
};

/// A node as it would be.
pub(crate) struct Host<'w> {
    node: Cow<'w, Node>,
    /// What its pods take together; it may be more than it has.
    used: Resources,
    ports: Vec<&'w Port>,
    /// Whether pods may come to it.
    open: bool,
}

impl Host<'_> {
    /// Whether pods may come to it.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }
}

/// Pods of the same rules.
struct Class<'w> {
    rules: &'w Rules,
    /// Counts that it is counted in.
    counted: Vec<usize>,
    /// Those that it is to be near to, far from, and spread by.
    with: Vec<usize>,
    apart: Vec<usize>,
    spread: Vec<usize>,
    /// Those of others that are to be far from it.
    repelled: Vec<usize>,
    /// Whether a node that refuses one goes on refusing.
    steady: bool,
    known: Known,
}

/// What is known of nodes for a class.
#[derive(Default)]
struct Known {
    /// Nodes before this one refuse…
    next: usize,
    /// …but for these, which were not asked or take some.
    later: BTreeSet<usize>,
    /// How much of the log of nodes that something was taken off is dealt with.
    heard: usize,
}

/// Pods of a term, by the values of its topology.
struct Count<'w> {
    term: &'w Term,
    /// Those that it selects.
    there: BTreeMap<String, u64>,
    /// Those that are to be far from what it selects.
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
    /// What was put where, in order.
    placed: Vec<(usize, usize)>,
    /// Nodes that something was taken off, in order.
    freed: Vec<usize>,
    pub(crate) checks: u64,
}

impl<'w> World<'w> {
    /// A world with classes of all these rules, and no nodes.
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

    /// The count of a term.
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

    /// The class of these rules, which it was made with.
    pub(crate) fn class(&self, rules: &Rules) -> usize {
        self.by_rules.get(rules).copied().unwrap_or_default()
    }

    /// Whether a node that refuses a pod of this class goes on refusing, as long as nothing is taken off it.
    pub(crate) fn is_steady(&self, class: usize) -> bool {
        self.classes[class].steady
    }

    /// What a pod of a class takes.
    pub(crate) fn request(&self, class: usize) -> &Resources {
        &self.classes[class].rules.request
    }

    /// Adds a node; gives its index. `open`: whether pods may come to it.
    pub(crate) fn add(&mut self, node: Cow<'w, Node>, open: bool) -> usize {
        self.hosts.push(Host {
            used: Resources::default(),
            ports: Vec::new(),
            open,
            node,
        });
        self.hosts.len() - 1
    }

    /// Forgets the nodes from this one on. Nothing is on them any more.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.hosts.truncate(length);
        for class in &mut self.classes {
            class.known.next = class.known.next.min(length);
            class.known.later.retain(|host| *host < length);
        }
    }

    /// Whether pods may come to a node from now on.
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

    /// Puts a pod on a node, whether that takes it or not.
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

    /// Takes a pod off a node for good. Nothing that was put before is undone after that.
    pub(crate) fn take_off(&mut self, class: usize, host: usize) {
        self.change(class, host, false);
        self.freed.push(host);
    }

    /// To come back to.
    pub(crate) fn mark(&self) -> usize {
        self.placed.len()
    }

    /// Takes back what was put somewhere since a mark.
    pub(crate) fn undo(&mut self, mark: usize) {
        while self.placed.len() > mark {
            if let Some((class, host)) = self.placed.pop() {
                self.change(class, host, false);
                self.freed.push(host);
            }
        }
    }

    /// Why a node does not take a pod of a class; `None`: it does.
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
            // The first of those that want to be together may be anywhere that has a name.
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

    /// How many pods of a count are in the place that has the fewest, of those that the pod's node rules let it be in.
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

    /// Whether a node is open, is another than `but`, and takes a pod of a class.
    fn takes(&mut self, class: usize, host: usize, but: Option<usize>) -> bool {
        Some(host) != but && self.hosts[host].open && self.refusal(class, host).is_none()
    }

    /// The first open node that takes a pod of a class, another than `but`.
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
                // It may take the next one as well.
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
