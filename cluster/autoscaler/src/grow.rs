//! Growth: the pool that grows for unschedulable pods, and its number of new nodes.
//!
//! As upstream, one pool grows at a time (or a group of similar pools, evenly): the next decision includes
//! its upcoming nodes, and handles the remaining pods.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use base_seed::Seed;
use cluster_spec::Expander;

use crate::{
    decide::Making,
    model::{Growth, Node, Outcome, Verdict},
    rules::HOSTNAME,
};

/// Labels that are ignored in the comparison of pools.
const NAMES: [&str; 5] = [
    HOSTNAME,
    "agentpool",
    "kubernetes.azure.com/agentpool",
    "kubernetes.azure.com/mode",
    "kubernetes.azure.com/scaleset",
];

/// The estimated growth of a pool.
struct Choice {
    pool: usize,
    nodes: u32,
    /// Its pods, as indexes.
    pods: BTreeSet<usize>,
    /// The unused part of the new nodes: thousandths of cores plus thousandths of memory.
    waste: u64,
}

/// Chooses a pool that grows for these pods. Returns whether one grows.
pub(crate) fn grow(making: &mut Making<'_>, waiting: &[usize]) -> bool {
    if waiting.is_empty() {
        return false;
    }
    let mut closed = BTreeMap::new();
    let mut choices = Vec::new();
    for (index, pool) in making.state.pools.iter().enumerate() {
        let room = pool.max.saturating_sub(pool.count);
        if room == 0 {
            closed.insert(index, "max node group size reached");
        } else if let Some(backoff) = making.backoff_of(&pool.name) {
            closed.insert(index, "in backoff after failed scale-up");
            making.again_at(backoff);
        } else {
            let choice = estimate(making, index, room, waiting);
            choices.extend(Some(choice).filter(|choice| !choice.pods.is_empty()));
        }
    }
    let possible: BTreeSet<usize> = choices
        .iter()
        .flat_map(|choice| choice.pods.iter().copied())
        .collect();
    let chosen = choose(making, choices);
    let mut known = BTreeMap::<usize, BTreeMap<String, u32>>::new();
    for pod in waiting {
        let outcome = match &chosen {
            Some(choice) if choice.pods.contains(pod) => {
                Outcome::Comes(making.state.pools[choice.pool].name.clone())
            }
            // The next decision handles it, with the new nodes of the chosen pool included.
            _ if possible.contains(pod) => Outcome::NotYet,
            _ => {
                let class = making.world.class(&making.state.work.pods[*pod].rules);
                let reasons = known
                    .entry(class)
                    .or_insert_with(|| reasons(making, class, &closed));
                Outcome::Nowhere(reasons.clone())
            }
        };
        making.decision.verdicts.push(Verdict { pod: *pod, outcome });
    }
    let Some(choice) = chosen else { return false };
    for (pool, nodes) in shares(making, &choice) {
        let own = &making.state.pools[pool];
        let to = own.count + nodes;
        making.decision.sizes.insert(own.name.clone(), to);
        let before = making.decision.memory.growing.get(&own.name);
        let growth = Growth {
            from: before.map_or(own.count, |before| before.from),
            to,
            since: making.now,
        };
        making.decision.memory.growing.insert(own.name.clone(), growth);
    }
    making.decision.memory.added_at = Some(making.now);
    true
}

/// Estimates the number of new nodes of a pool, at most `most`, for the pods that fit on such nodes: each pod
/// is placed on the first new node that takes it.
fn estimate(making: &mut Making<'_>, pool: usize, most: u32, waiting: &[usize]) -> Choice {
    let (mark, base) = (making.world.mark(), making.world.hosts.len());
    let mut pods = BTreeSet::new();
    let (mut cpu, mut memory) = (0_u64, 0_u64);
    // By class: nodes before this index refuse. A class that an empty node refuses is refused by all.
    let mut next = BTreeMap::<usize, usize>::new();
    let mut hopeless = BTreeSet::new();
    for index in waiting {
        let rules = &making.state.work.pods[*index].rules;
        let class = making.world.class(rules);
        if hopeless.contains(&class) {
            continue;
        }
        let steady = making.world.is_steady(class);
        let mut host = next.get(&class).copied().filter(|_| steady).unwrap_or(base);
        while host < making.world.hosts.len() && making.world.refusal(class, host).is_some() {
            host += 1;
        }
        if host == making.world.hosts.len() {
            if host - base >= most as usize {
                next.insert(class, host);
                continue;
            }
            let name = format!("{}-new-{}", making.state.pools[pool].name, host - base);
            let node = making.new_node(pool, &name);
            making.world.add(Cow::Owned(node), true);
            if making.world.refusal(class, host).is_some() {
                making.world.truncate(host);
                if steady {
                    hopeless.insert(class);
                }
                continue;
            }
        }
        next.insert(class, host);
        making.world.put(class, host);
        pods.insert(*index);
        cpu = cpu.saturating_add(rules.request.cpu);
        memory = memory.saturating_add(rules.request.memory);
    }
    let nodes = making.world.hosts.len() - base;
    making.world.undo(mark);
    making.world.truncate(base);
    let room = &making.templates[pool].room;
    let left = |each: u64, used: u64| {
        let all = each.saturating_mul(nodes as u64);
        let left = u128::from(all.saturating_sub(used)) * 1000;
        u64::try_from(left.checked_div(u128::from(all)).unwrap_or(0)).unwrap_or(1000)
    };
    Choice {
        pool,
        nodes: u32::try_from(nodes).unwrap_or(most),
        pods,
        waste: left(room.cpu, cpu) + left(room.memory, memory),
    }
}

/// The choice of the profile's expander; among equal ones, a random one. The random number is derived from
/// the pods, so that the result is the same each time.
fn choose(making: &Making<'_>, choices: Vec<Choice>) -> Option<Choice> {
    let name = |choice: &Choice| making.state.pools[choice.pool].name.as_str();
    let priority = |choice: &Choice| {
        let mut all = making.state.work.priorities.iter();
        let found = all.find(|(_, patterns)| patterns.iter().any(|pattern| names(pattern, name(choice))));
        found.map(|(priority, _)| *priority)
    };
    // The larger, the better.
    let value = |choice: &Choice| -> (Option<u64>, u64) {
        match making.profile.expander {
            Expander::Random => (None, 0),
            Expander::LeastWaste => (None, u64::MAX - choice.waste),
            Expander::MostPods => (None, choice.pods.len() as u64),
            Expander::Priority => (priority(choice), 0),
        }
    };
    let best = choices.iter().map(value).max()?;
    let mut equal: Vec<Choice> = choices
        .into_iter()
        .filter(|choice| value(choice) == best)
        .collect();
    let first = equal.iter().filter_map(|choice| choice.pods.first()).min()?;
    let lot = Seed::new(0).child(&making.state.work.pods[*first].uid).draw(0);
    let lot = usize::try_from(lot % equal.len() as u64).unwrap_or(0);
    Some(equal.swap_remove(lot))
}

/// Whether a pattern of the ConfigMap matches a pool. Patterns are parts of names; `.*`, `^` and `$` at their
/// ends have their meaning in regular expressions.
pub(crate) fn names(pattern: &str, pool: &str) -> bool {
    let from_start = pattern.starts_with('^') && !pattern.starts_with("^.*");
    let to_end = pattern.ends_with('$') && !pattern.ends_with(".*$");
    let part = pattern.trim_start_matches('^').trim_end_matches('$');
    let part = part.trim_start_matches(".*").trim_end_matches(".*");
    match (from_start, to_end) {
        (true, true) => pool == part,
        (true, false) => pool.starts_with(part),
        (false, true) => pool.ends_with(part),
        (false, false) => pool.contains(part),
    }
}

/// The number of new nodes by pool: all for the chosen one, or, with `balance-similar-node-groups`,
/// distributed over the similar pools, smallest first.
fn shares(making: &Making<'_>, choice: &Choice) -> BTreeMap<usize, u32> {
    let pools = making.state.pools;
    let is_like = |index: &usize| {
        *index == choice.pool
            || making.profile.balance_similar
                && making.backoff_of(&pools[*index].name).is_none()
                && alike(&making.templates[*index], &making.templates[choice.pool])
    };
    let group: Vec<usize> = (0..pools.len()).filter(is_like).collect();
    let mut sizes: BTreeMap<usize, u32> = group.iter().map(|index| (*index, pools[*index].count)).collect();
    for _ in 0..choice.nodes {
        let open = sizes.iter().filter(|(index, size)| **size < pools[**index].max);
        let Some(smallest) = open
            .min_by_key(|(index, size)| (**size, **index))
            .map(|(index, _)| *index)
        else {
            break;
        };
        if let Some(size) = sizes.get_mut(&smallest) {
            *size += 1;
        }
    }
    let grown = sizes
        .into_iter()
        .map(|(index, size)| (index, size - pools[index].count));
    grown.filter(|(_, more)| *more > 0).collect()
}

/// Whether new nodes of two pools are equal for all pods.
fn alike(one: &Node, other: &Node) -> bool {
    let labels = |node: &Node| {
        let mut labels = node.labels.clone();
        labels.retain(|name, _| !NAMES.contains(&name.as_str()));
        labels
    };
    one.room == other.room && one.taints == other.taints && labels(one) == labels(other)
}

/// The reasons why no pool provides a node for a class of pods, with the number of pools for each.
fn reasons(
    making: &mut Making<'_>,
    class: usize,
    closed: &BTreeMap<usize, &'static str>,
) -> BTreeMap<String, u32> {
    let mut reasons = BTreeMap::new();
    for (index, pool) in making.state.pools.iter().enumerate() {
        let node = making.new_node(index, &format!("{}-new-0", pool.name));
        let host = making.world.add(Cow::Owned(node), true);
        let refusal = making.world.refusal(class, host);
        making.world.truncate(host);
        // A refusal by the node is more specific than a pool that cannot grow.
        let why = refusal.or_else(|| closed.get(&index).map(|why| (*why).to_owned()));
        let why = why.unwrap_or_else(|| "its new nodes are taken by other pods".to_owned());
        *reasons.entry(why).or_default() += 1;
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn patterns_name_pools_as_people_write_them() {
        for (pattern, pool, named) in [
            (".*", "np1", true),
            (".*spot.*", "myspot1", true),
            ("spot", "myspot1", true),
            ("^spot", "myspot1", false),
            ("^my.*", "myspot1", true),
            ("spot1$", "myspot1", true),
            ("^np1$", "np10", false),
            ("other", "np1", false),
        ] {
            assert_eq!(names(pattern, pool), named, "{pattern} {pool}");
        }
    }
}
