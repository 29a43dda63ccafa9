//! Shrinking: the unneeded nodes, the time since which they are not needed, and those to remove now.
//!
//! Always true: no node is removed with a pod that has no controller, keeps data on the node, is protected by
//! a disruption budget, or fits on no other node; each pool keeps its minimum.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    decide::{Making, later},
    model::{Node, Pod},
    rules::all_hold,
};

/// The namespace of the cluster's own components.
const SYSTEM: &str = "kube-system";

/// A node that may be unneeded.
struct Candidate<'w> {
    node: &'w Node,
    pool: usize,
    host: usize,
    /// Its utilization, thousandths: the larger of cores and memory.
    used: u64,
}

/// An unneeded node.
struct Unneeded<'w> {
    name: &'w str,
    pool: usize,
    /// The time from which it may be removed.
    due: Timestamp,
    /// Whether its removal moves no pod.
    empty: bool,
}

/// Records the unneeded nodes, and removes those that are due.
pub(crate) fn shrink(making: &mut Making<'_>) {
    let unneeded = unneeded(making);
    let (now, profile) = (making.now, making.profile);
    let names: Vec<&str> = unneeded.iter().map(|own| own.name).collect();
    let memory = &mut making.decision.memory;
    memory.unneeded.retain(|name, _| names.contains(&name.as_str()));
    for name in names {
        memory.unneeded.entry(name.to_owned()).or_insert(now);
    }
    if unneeded.is_empty() {
        return;
    }
    let rests = [
        memory.added_at.map(|at| later(at, profile.after_add)),
        memory.deleted_at.map(|at| later(at, profile.after_delete)),
        memory.failed_at.map(|at| later(at, profile.after_failure)),
    ];
    if let Some(rest) = rests.into_iter().flatten().max().filter(|rest| *rest > now) {
        making.again_at(rest);
        return;
    }
    for own in unneeded.iter().filter(|own| own.due > now) {
        making.again_at(own.due);
    }
    let due: Vec<&Unneeded<'_>> = unneeded.iter().filter(|own| own.due <= now).collect();
    let at_once = usize::try_from(profile.empty_at_once).unwrap_or(usize::MAX);
    let mut go: Vec<&Unneeded<'_>> = due
        .iter()
        .copied()
        .filter(|own| own.empty)
        .take(at_once)
        .collect();
    if go.is_empty() && making.state.leaving.is_empty() {
        // One at a time: moved pods are observed on their new nodes before the next removal.
        go.extend(due.iter().copied().find(|own| !own.empty));
    }
    for own in go {
        let pool = &making.state.pools[own.pool];
        let size = making
            .decision
            .sizes
            .entry(pool.name.clone())
            .or_insert(pool.count);
        *size = size.saturating_sub(1);
        making.decision.remove.insert(own.name.to_owned());
        making.decision.memory.unneeded.remove(own.name);
        making.decision.memory.deleted_at = Some(now);
    }
}

/// The unneeded nodes; nodes that were unneeded before come first.
fn unneeded<'w>(making: &mut Making<'w>) -> Vec<Unneeded<'w>> {
    let mut candidates = candidates(making);
    let before = &making.decision.memory.unneeded;
    candidates.sort_by_cached_key(|own| {
        (
            !before.contains_key(&own.node.name),
            own.used,
            own.node.name.clone(),
        )
    });
    let mut spare: Vec<u32> = making
        .state
        .pools
        .iter()
        .map(|pool| pool.count.saturating_sub(pool.min))
        .collect();
    let mut budgets: Vec<u32> = making
        .state
        .work
        .budgets
        .iter()
        .map(|budget| budget.allowed)
        .collect();
    let mut found = Vec::new();
    for own in candidates {
        if spare[own.pool] == 0 {
            keep(making, own.node, "its pool is at its minimum".to_owned());
            continue;
        }
        match removable(making, &own, &mut budgets) {
            Ok(empty) => {
                spare[own.pool] -= 1;
                let (profile, memory) = (making.profile, &making.decision.memory);
                let since = memory.unneeded.get(&own.node.name).copied().unwrap_or(making.now);
                let due = if own.node.ready {
                    later(since, profile.unneeded)
                } else {
                    later(own.node.since.unwrap_or(since), profile.unready)
                };
                found.push(Unneeded {
                    name: &own.node.name,
                    pool: own.pool,
                    due,
                    empty,
                });
            }
            Err(why) => keep(making, own.node, why),
        }
    }
    found
}

fn keep(making: &mut Making<'_>, node: &Node, why: String) {
    making.decision.kept.insert(node.name.clone(), why);
}

/// Nodes of pools with a low utilization, or not ready after their provision time.
fn candidates<'w>(making: &mut Making<'w>) -> Vec<Candidate<'w>> {
    let mut found = Vec::new();
    for (index, pool) in making.state.pools.iter().enumerate() {
        for (name, made) in &pool.nodes {
            let (Some(node), Some(host)) = (making.joined(name), making.hosts.get(name.as_str()).copied())
            else {
                continue;
            };
            if !node.ready && later(*made, making.profile.provision) > making.now {
                // It is upcoming.
                continue;
            }
            if node.kept {
                keep(
                    making,
                    node,
                    "it has the annotation scale-down-disabled".to_owned(),
                );
                continue;
            }
            if making.state.kept.contains(name) {
                let why = "it is preserved or turned off";
                keep(making, node, why.to_owned());
                continue;
            }
            let used = used(making, node, host);
            if node.ready && used >= u64::from(making.profile.threshold) {
                continue;
            }
            found.push(Candidate {
                node,
                pool: index,
                host,
                used,
            });
        }
    }
    found
}

/// The utilization of a node, thousandths.
fn used(making: &Making<'_>, node: &Node, host: usize) -> u64 {
    let (mut cpu, mut memory) = (0_u64, 0_u64);
    let pods = making.pods_of.get(node.name.as_str()).into_iter().flatten();
    let pods = pods.map(|index| &making.state.work.pods[*index]);
    let counted = pods.filter(|pod| !(making.profile.ignore_daemons && pod.stays.daemon));
    let expected = making.expected.get(&host).into_iter().flatten();
    let requests = counted
        .map(|pod| &pod.rules.request)
        .chain(expected.map(|class| making.world.request(*class)));
    for request in requests {
        cpu = cpu.saturating_add(request.cpu);
        memory = memory.saturating_add(request.memory);
    }
    let share = |used: u64, all: u64| {
        let share = (u128::from(used) * 1000)
            .checked_div(u128::from(all))
            .unwrap_or(0);
        u64::try_from(share).unwrap_or(u64::MAX)
    };
    share(cpu, node.room.cpu).max(share(memory, node.room.memory))
}

/// Whether a node is unneeded; if so, `true` if its removal moves no pod. Its pods are then expected on other
/// nodes, and their budgets are reduced. The error is the reason why it stays.
fn removable(making: &mut Making<'_>, own: &Candidate<'_>, budgets: &mut [u32]) -> Result<bool, String> {
    let work = making.state.work;
    let pods = making
        .pods_of
        .get(own.node.name.as_str())
        .cloned()
        .unwrap_or_default();
    let mut moving = Vec::new();
    let mut needed = BTreeMap::<usize, u32>::new();
    for index in pods {
        let pod = &work.pods[index];
        if pod.stays.mirror || pod.stays.daemon || pod.leaving {
            continue;
        }
        let held: Vec<usize> = (0..work.budgets.len())
            .filter(|budget| {
                let budget = &work.budgets[*budget];
                budget.namespace == pod.namespace && all_hold(&budget.selector, &pod.rules.labels)
            })
            .collect();
        if let Some(why) = blocks(making, pod, !held.is_empty()) {
            return Err(format!("pod {}/{} {why}", pod.namespace, pod.name));
        }
        for budget in held {
            *needed.entry(budget).or_default() += 1;
            if needed[&budget] > budgets[budget] {
                return Err(format!(
                    "a disruption budget protects pod {}/{}",
                    pod.namespace, pod.name
                ));
            }
        }
        moving.push(making.world.class(&pod.rules));
    }
    let empty = moving.is_empty();
    let expected = making.expected.remove(&own.host).unwrap_or_default();
    let all: Vec<usize> = moving.iter().chain(&expected).copied().collect();
    let was_open = making.world.hosts[own.host].is_open();
    making.world.set_open(own.host, false);
    for class in &all {
        making.world.take_off(*class, own.host);
    }
    let mark = making.world.mark();
    let mut places = Vec::new();
    for class in &all {
        let Some(host) = making.world.find(*class, Some(own.host)) else {
            break;
        };
        making.world.put(*class, host);
        places.push((*class, host));
    }
    if places.len() < all.len() {
        making.world.undo(mark);
        for class in &all {
            making.world.put(*class, own.host);
        }
        making.world.set_open(own.host, was_open);
        if !expected.is_empty() {
            making.expected.insert(own.host, expected);
        }
        return Err("its pods fit on no other nodes".to_owned());
    }
    for (class, host) in places {
        making.expected.entry(host).or_default().push(class);
    }
    for (budget, count) in needed {
        budgets[budget] -= count;
    }
    Ok(empty)
}

/// The reason why a pod keeps its node, by upstream's rules.
fn blocks(making: &Making<'_>, pod: &Pod, budgeted: bool) -> Option<&'static str> {
    match pod.stays.safe {
        Some(true) => return None,
        Some(false) => return Some("is annotated as not safe to evict"),
        None => {}
    }
    if !pod.stays.replicated {
        return Some("has no controller that replaces it");
    }
    if making.profile.skip_system_pods && pod.namespace == SYSTEM && !budgeted {
        return Some("is one of kube-system without a disruption budget");
    }
    if making.profile.skip_local_storage && pod.stays.local_storage {
        return Some("keeps data on the node's disk");
    }
    None
}
