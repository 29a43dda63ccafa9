//! Nodes: which there should be, their objects in the API, and how they leave.

use std::collections::BTreeSet;

use cluster_spec::PoolSpec;
use control_records::Role;

use super::{
    Draft, Effect, Machine, Presence, Reach, Subject, Write, after, members, places::Places, reach::joined,
    wish_inputs,
};

/// Every node that the service makes has this prefix; a node with another one is somebody else's.
const NAME_PREFIX: &str = "aks-";

/// Brings the machine records to the pools: writes down what is missing, marks what is too much, highest index first.
pub(super) fn records(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    let pools = &draft.desired.spec.pools;
    let mut places = Places::new(&draft.desired.uid, &draft.desired.spec, seen.machines.values());
    for pool in pools {
        let mut present: Vec<_> = seen
            .machines
            .iter()
            // One that is preserved and given up does not count: another is added beside it.
            .filter(|(_, machine)| !machine.record.deleting && !machine.record.repair.given_up())
            .filter_map(|(id, machine)| Some((index_in(machine, pool)?, id)))
            .collect();
        present.sort_unstable();
        let wanted = usize::try_from(pool.count).unwrap_or(usize::MAX);
        for (_, id) in present.iter().skip(wanted) {
            draft.wait(format!("scaling pool {} down", pool.name));
            draft.writes.push(Write::MarkMachine((*id).clone()));
        }
        for _ in present.len()..wanted {
            let Some(role) = places.next(pool) else {
                draft.wait(format!(
                    "waiting for free addresses for pool {}: its subnet or the pods' range is full; scale down, or make the \
                     cluster anew with larger ranges",
                    pool.name
                ));
                break;
            };
            draft.wait("preparing machines");
            draft.writes.push(Write::RecordMachine(role));
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
pub(super) fn objects(draft: &mut Draft<'_>) {
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
pub(super) fn removals(draft: &mut Draft<'_>) {
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
pub(super) fn forget_machine(draft: &mut Draft<'_>, id: &str, machine: &Machine) {
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
