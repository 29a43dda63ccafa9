//! Nodes: which there should be, their objects in the API, and how they leave.

pub(crate) mod places;

use std::collections::BTreeSet;

use cluster_spec::PoolSpec;
use control_records::Role;

use crate::{
    Draft, Effect, Machine, Presence, Reach, Subject, Write, after, members, places::Places, reach::joined,
    upgrade, wish_inputs,
};

/// Every node that the service makes has this prefix; a node with another one is somebody else's.
const NAME_PREFIX: &str = "aks-";

/// Brings the machine records to the pools: writes down what is missing, marks what is too much, highest index first.
pub(crate) fn records(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    let pools = &draft.desired.spec.pools;
    let mut places = Places::new(
        &draft.desired.uid,
        &draft.desired.spec,
        seen.machines.values(),
        seen.api.nodes.iter().map(|node| node.name.as_str()),
    );
    for pool in pools {
        let nodes = Nodes::of(draft, pool);
        let wanted = usize::try_from(pool.count).unwrap_or(usize::MAX);
        let allowed = upgrade::allows(draft, pool);
        let (marked, missing) = nodes.change(wanted, pool, allowed);
        if nodes.upgrading() && allowed {
            draft.wait(format!(
                "upgrading pool {} to Kubernetes {}: {} of {wanted} nodes",
                pool.name,
                pool.kubernetes_version,
                nodes.new.len().min(wanted)
            ));
        } else if !marked.is_empty() {
            draft.wait(format!("scaling pool {} down", pool.name));
        }
        for id in marked {
            draft.writes.push(Write::MarkMachine(id.to_owned()));
        }
        if !allowed {
            // What the control plane is waited for with is told where it is taken on.
            draft.unfinished |= missing > 0;
            continue;
        }
        if missing > 0 && members::formed(&seen.observed) && seen.api.reach != Reach::Ready {
            // Which names are free is not known.
            let unknown = seen.api.reach == Reach::Unknown;
            draft.wait_or_adopt(
                unknown,
                format!("waiting for the API server, to add nodes to pool {}", pool.name),
            );
            continue;
        }
        for _ in 0..missing {
            let Some(role) = places.next(pool) else {
                let way_out = if nodes.upgrading() {
                    "allow maxUnavailable in its upgradeSettings"
                } else {
                    "make the cluster anew with larger ranges"
                };
                draft.wait(format!(
                    "waiting for free addresses for pool {}: its subnet or the pods' range is full; scale down, or {way_out}",
                    pool.name
                ));
                break;
            };
            draft.wait("preparing machines");
            let image = pool.kubernetes_version.clone();
            draft.writes.push(Write::RecordMachine { role, image });
        }
    }
    for (id, machine) in &seen.machines {
        if let Some(Role::Node { pool, .. }) = machine.role()
            && !machine.record.deleting
            && !pools.iter().any(|spec| index_in(machine, spec).is_some())
        {
            draft.wait(format!("removing pool {pool}"));
            draft.writes.push(Write::MarkMachine(id.clone()));
        }
    }
}

/// A pool's machines that count, by id, in order of their numbers.
struct Nodes<'a> {
    /// With the version that the pool is to have.
    new: Vec<&'a str>,
    /// How many of these do their work.
    ready: usize,
    /// With another one.
    old: Vec<&'a str>,
    /// How many with another one are on their way out.
    leaving: usize,
}

impl<'a> Nodes<'a> {
    fn of(draft: &Draft<'a>, pool: &PoolSpec) -> Self {
        let mut numbered: Vec<_> = draft
            .seen
            .machines
            .iter()
            .filter_map(|(id, machine)| Some((index_in(machine, pool)?, id, machine)))
            .collect();
        numbered.sort_unstable_by_key(|(index, id, _)| (*index, *id));
        let mut nodes = Self {
            new: Vec::new(),
            ready: 0,
            old: Vec::new(),
            leaving: 0,
        };
        for (_, id, machine) in numbered {
            if machine.record.deleting {
                nodes.leaving += usize::from(machine.record.image != pool.kubernetes_version);
            } else if !counts(machine, pool) {
                // Another one is added beside it.
            } else if machine.record.image == pool.kubernetes_version {
                nodes.new.push(id);
                nodes.ready += usize::from(machine.node_name().is_some_and(|name| joined(draft, name)));
            } else {
                nodes.old.push(id);
            }
        }
        nodes
    }

    fn upgrading(&self) -> bool {
        !self.old.is_empty() || self.leaving > 0
    }

    /// Which are to go, and how many are to come. A node of the old version goes when a new one has taken its place, but for
    /// as many as may be unavailable; of the new version there are never more at a time than the surge allows.
    fn change(&self, wanted: usize, pool: &PoolSpec, allowed: bool) -> (Vec<&'a str>, usize) {
        let size = |nodes: u32| usize::try_from(nodes).unwrap_or(usize::MAX);
        // As long as nothing can take its place, nobody goes.
        let unavailable = if allowed { size(pool.unavailable) } else { 0 };
        let excess = self.new.iter().skip(wanted).copied();
        if !self.upgrading() {
            return (excess.collect(), wanted.saturating_sub(self.new.len()));
        }
        let new = self.new.len().min(wanted);
        let needed = wanted.saturating_sub(self.ready.saturating_add(unavailable));
        let old = self.old.len().min(needed);
        let marked = excess.chain(self.old.iter().skip(old).copied()).collect();
        // Whoever is marked in this very transaction is still there.
        let there = self.new.len() + self.old.len() + self.leaving;
        let room = wanted.saturating_add(size(pool.surge)).saturating_sub(there);
        (marked, (wanted - new).min(room))
    }
}

/// Whether a machine is one of the nodes that its pool is to have. One that healing has given up is not, nor one that is kept
/// as evidence and has another version.
pub(crate) fn counts(machine: &Machine, pool: &PoolSpec) -> bool {
    let repair = &machine.record.repair;
    let evidence = repair.preserve.is_some() && machine.record.image != pool.kubernetes_version;
    !repair.given_up() && !evidence
}

/// The number of a machine in this very incarnation of the pool.
fn index_in(machine: &Machine, spec: &PoolSpec) -> Option<u32> {
    match machine.role()? {
        Role::Node {
            pool,
            incarnation,
            index,
            ..
        } if *pool == spec.name && *incarnation == spec.incarnation => Some(*index),
        _ => None,
    }
}

/// Node objects of machines that stay: joined, and as wished.
pub(crate) fn objects(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    for (id, machine) in &seen.machines {
        let Some(name) = machine.node_name().filter(|_| !machine.record.deleting) else {
            continue;
        };
        if !joined(draft, name) {
            let unknown = seen.api.reach == Reach::Unknown;
            draft.wait_or_adopt(unknown, format!("waiting for node {name}"));
        }
        if seen.api.reach == Reach::Ready && seen.api.node(name).is_some() {
            let inputs = wish_inputs(&draft.desired.spec, &machine.record);
            let before = seen.api.set.get(id);
            if before != Some(&inputs) {
                draft.act_or_adopt(
                    before.is_none(),
                    Effect::SetNode {
                        machine: id.clone(),
                        node: name.to_owned(),
                        inputs,
                    },
                    format!("labelling node {name}"),
                );
            }
        }
    }
    if seen.api.reach == Reach::Ready {
        let ours: BTreeSet<_> = seen.machines.values().filter_map(Machine::node_name).collect();
        for node in &seen.api.nodes {
            // A machine's record goes last, so a node without one has no machine any more.
            if node.name.starts_with(NAME_PREFIX) && !ours.contains(node.name.as_str()) {
                draft.act(
                    Effect::DeleteNode(node.name.clone()),
                    format!("removing node {}", node.name),
                );
            }
        }
    }
}

/// Nodes on their way out of a cluster that stays: drain within bounds, remove the object, remove the machine, forget it.
pub(crate) fn removals(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    for (id, machine) in &seen.machines {
        if !machine.record.deleting {
            continue;
        }
        if machine.presence == Presence::Gone {
            forget_machine(draft, id, machine);
            continue;
        }
        match leave(draft, id, machine) {
            Leave::Ready => draft.act(
                Effect::DeleteMachine(id.clone()),
                format!("removing {}", machine.label()),
            ),
            Leave::DeleteNode(node) => {
                let why = format!("removing node {node}");
                draft.act(Effect::DeleteNode(node), why);
            }
            Leave::Drain(node) => {
                let why = format!("draining node {node}");
                let machine = id.clone();
                draft.act(Effect::Drain { machine, node }, why);
            }
            Leave::Wait(why) => draft.wait(why),
        }
    }
}

/// Removes the record of a machine that is gone. Not before an effect that may still write its configuration has ended.
pub(crate) fn forget_machine(draft: &mut Draft<'_>, id: &str, machine: &Machine) {
    draft.wait(format!("removing {}", machine.label()));
    if !draft.seen.busy.contains(&Subject::Config(id.to_owned())) {
        draft.writes.push(Write::RemoveMachine(id.to_owned()));
    }
}

/// What is next for a node that is to go.
enum Leave {
    Wait(String),
    Drain(String),
    DeleteNode(String),
    Ready,
}

fn leave(draft: &mut Draft<'_>, id: &str, machine: &Machine) -> Leave {
    let api = &draft.seen.api;
    let Some(name) = machine.node_name() else {
        return if members::may_leave(draft, id, machine) {
            Leave::Ready
        } else {
            Leave::Wait(format!("waiting for etcd to let {} go", machine.label()))
        };
    };
    // A machine that never ran, or whose cluster never answered, has no pods to care for.
    let never_worked = !draft.seen.observed.milestones.contains_key("api_ready") && api.reach != Reach::Ready;
    if never_worked || machine.presence == Presence::Absent {
        return match api.node(name) {
            Some(_) if api.reach == Reach::Ready => Leave::DeleteNode(name.to_owned()),
            _ => Leave::Ready,
        };
    }
    let since = machine.drain.map_or(draft.now, |drain| drain.since);
    let deadline = after(since, draft.policy.drain_bound);
    let out_of_time = draft.now >= deadline;
    if !out_of_time {
        draft.look_again_at(deadline);
    }
    if api.reach != Reach::Ready {
        // The sweep of stray node objects removes what stays behind.
        return if out_of_time {
            Leave::Ready
        } else {
            Leave::Wait(format!("waiting for the API server, to drain node {name}"))
        };
    }
    if api.node(name).is_none() {
        return Leave::Ready;
    }
    match machine.drain.and_then(|drain| drain.left) {
        // Its pods were asked, and nobody is there to hear it. It goes before its node object does: nothing that ran on it
        // starts elsewhere while it may still run here.
        Some(_) if machine.record.repair.given_up() && !machine.heard() => Leave::Ready,
        Some((0, _)) if !out_of_time => Leave::DeleteNode(name.to_owned()),
        // Twice the bound: the API refuses to remove the node, for whatever reason. The machine goes all the same.
        _ if draft.now >= after(deadline, draft.policy.drain_bound) => Leave::Ready,
        _ if out_of_time => Leave::DeleteNode(name.to_owned()),
        Some((left, at)) => {
            let next = after(at, draft.policy.drain_pause);
            if next <= draft.now {
                Leave::Drain(name.to_owned())
            } else {
                draft.look_again_at(next);
                Leave::Wait(format!("draining node {name}: {left} pods to go"))
            }
        }
        None => Leave::Drain(name.to_owned()),
    }
}
