//! The draining of nodes that are replaced. Pods have the pool's drain timeout to leave; a drained node is kept for the pool's soak time and
//! then removed. A node that is not drained in time is not removed: it is uncordoned or quarantined, by the pool's setting.
//!
//! Always true: a node that is replaced is not marked for removal before it is drained; the time of the first eviction is recorded, so that a
//! restart of the service does not extend the timeout; a node that was given up is drained again only after a later request. Nodes that are
//! removed without a replacement (a smaller or stopped pool, machines removed by their ids, also by the autoscaler) are not drained here but
//! in [`super::removal`], within its bounds.

use std::time::Duration;

use cluster_spec::{PoolSpec, Undrainable};
use control_records::{Emptying, EventKind, GivenUp, Inherited, Part};
use jiff::Timestamp;

use crate::{
    ApiEffect, Draft, Machine, Presence, Reach, Write,
    checks::{Checks, Stage},
    disturb::Disturb,
    view::{
        complaints::undrained,
        machines::{counts, given_up, index_in, is_current, is_emptied, joined},
        recorded::formed,
        rotation,
    },
};

/// The unit of the pools' settings.
const MINUTE: Duration = Duration::from_secs(60);
/// The longest pause between two evictions.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The generation of the last request for a pool. A request for the cluster is one for each of its pools.
pub(super) fn asked(draft: &Draft<'_>, pool: &PoolSpec) -> u64 {
    let own = draft.desired.pool_generations.get(&pool.name).copied();
    own.unwrap_or_default().max(draft.desired.requests.generation)
}

/// Ends the draining of nodes that are to stay, and restarts it for nodes that were given up before the last request.
pub(super) fn turn_round(draft: &mut Draft<'_>, pool: &PoolSpec) {
    let seen = draft.seen;
    let asked = asked(draft, pool);
    for (id, machine) in &seen.machines {
        let Some(emptying) = &machine.record.emptying else {
            continue;
        };
        if index_in(machine, pool).is_none() || machine.record.deleting {
            continue;
        }
        let next = if is_current(machine, pool) {
            None
        } else {
            match &emptying.given_up {
                Some(given_up) if given_up.generation < asked => {
                    // A quarantined node is already replaced, so its draining begins at once.
                    given_up.quarantined.then(|| Emptying::begun(draft.now))
                }
                Some(given_up) => {
                    draft.wait(undrained(machine, given_up));
                    continue;
                }
                None => continue,
            }
        };
        if !draft.has_room(2) {
            return;
        }
        write(draft, id, next);
    }
}

/// Begins to drain a node. Labels, annotations and taints that users set on it are copied to a new node, so that pods that depend on them can
/// be scheduled there.
pub(super) fn begin(draft: &mut Draft<'_>, id: &str, pool: &PoolSpec) {
    write(draft, id, Some(Emptying::begun(draft.now)));
    let seen = draft.seen;
    let node = seen.machines.get(id).and_then(Machine::node_name);
    let Some(node) = node.and_then(|name| seen.api.node(name)) else {
        return;
    };
    if node.marks.is_empty() {
        return;
    }
    let taken = |id: &String| {
        let mut writes = draft.writes.iter();
        writes.any(|write| matches!(write, Write::Inherit { machine, .. } if machine == id))
    };
    let heir = seen.machines.iter().find(|(id, machine)| {
        let stays = index_in(machine, pool).is_some() && !machine.record.deleting;
        let there = machine.node_name().is_some_and(|name| joined(draft, name));
        let free = machine.record.inherited.is_none() && !taken(id) && !draft.is_marked(id);
        stays && there && is_current(machine, pool) && free
    });
    if let Some((heir, _)) = heir {
        draft.write(Write::Inherit {
            machine: heir.clone(),
            inherited: Inherited {
                from: node.name.clone(),
                labels: node.marks.labels.clone(),
                annotations: node.marks.annotations.clone(),
                taints: node.marks.taints.clone(),
            },
        });
    }
}

fn write(draft: &mut Draft<'_>, id: &str, emptying: Option<Emptying>) {
    let begins = emptying
        .as_ref()
        .is_some_and(|emptying| emptying.since == draft.now);
    let disturb = if begins {
        Disturb::Retire { id }
    } else {
        Disturb::Proceed { id }
    };
    let label = draft.seen.machines.get(id).map_or(id, Machine::label);
    match draft.may(disturb) {
        Ok(machine) => {
            draft.wait(format!("draining node {label}"));
            draft.write(Write::Empty { machine, emptying });
        }
        Err(obstacle) => draft.wait(format!("draining node {label}: {obstacle}")),
    }
}

/// The next step for a node that is drained.
enum Next {
    Wait(String),
    Ask(String),
    /// Record the state of the draining.
    Note(Emptying),
    /// Mark the node for removal.
    Go,
}

/// Drains the nodes that are replaced.
pub(super) fn act(draft: &mut Draft<'_>) {
    let desired = draft.desired;
    let seen = draft.seen;
    for pool in &desired.spec().pools {
        for (id, machine) in &seen.machines {
            let own = index_in(machine, pool).is_some() && !machine.record.deleting && !draft.is_marked(id);
            let Some(emptying) = machine
                .record
                .emptying
                .as_ref()
                .filter(|_| own && is_emptied(machine))
            else {
                continue;
            };
            if is_current(machine, pool) {
                continue;
            }
            match next(draft, machine, emptying, pool) {
                Next::Wait(why) => draft.wait(why),
                Next::Ask(node) => {
                    let why = format!("draining node {node}");
                    draft.disturb(
                        Disturb::Drain { id },
                        |machine| ApiEffect::Drain { machine, node },
                        why,
                    );
                }
                Next::Note(emptying) => {
                    if !draft.has_room(2) {
                        return;
                    }
                    if let Some(given_up) = &emptying.given_up {
                        let message = format!(
                            "could not be drained within {} minutes: {}",
                            pool.drain_minutes, given_up.why
                        );
                        draft.tell(EventKind::Upgrade, machine.label(), message);
                    }
                    write(draft, id, Some(emptying));
                }
                Next::Go => {
                    if !draft.has_room(2) {
                        return;
                    }
                    draft.wait(format!("removing {}", machine.label()));
                    draft.mark(Disturb::Proceed { id });
                }
            }
        }
    }
}

fn next(draft: &mut Draft<'_>, machine: &Machine, emptying: &Emptying, pool: &PoolSpec) -> Next {
    let api = &draft.seen.api;
    let Some(name) = machine.node_name() else {
        return Next::Go;
    };
    let off = machine.record.healing.off && machine.presence == Presence::Stopped;
    let never_worked = !formed(&draft.seen.observed) && api.reach != Reach::Ready;
    if off || never_worked || matches!(machine.presence, Presence::Absent | Presence::Gone) {
        return Next::Go;
    }
    if api.reach != Reach::Ready {
        return Next::Wait(format!("waiting for the API server, to drain node {name}"));
    }
    if api.node(name).is_none() {
        return Next::Go;
    }
    if let Some(empty) = emptying.empty {
        let until = draft.after(empty, MINUTE * pool.soak_minutes);
        if draft.now >= until {
            return Next::Go;
        }
        draft.look_again_at(until);
        return Next::Wait(format!("node {name} is empty; it is kept until {until}"));
    }
    let drain = machine.drain.as_ref();
    let held = drain.and_then(|drain| drain.held.as_deref());
    match drain.and_then(|drain| drain.left) {
        Some((0, _)) if pool.soak_minutes == 0 => return Next::Go,
        Some((0, _)) => {
            return Next::Note(Emptying {
                empty: Some(draft.now),
                ..emptying.clone()
            });
        }
        // Its pods were evicted, but its machine no longer responds.
        Some(_) if !machine.heard() && !joined(draft, name) => return Next::Go,
        _ => {}
    }
    let patience = MINUTE * pool.drain_minutes;
    let deadline = draft.after(emptying.since, patience);
    // If no eviction was possible before the timeout, pods have at least the drain bound from the first one.
    let first = drain.and_then(|drain| drain.asked);
    let first = first.map(|first| draft.after(first, draft.policy.drain_bound.min(patience)));
    let deadline = first.map_or(deadline, |first| first.max(deadline));
    // The last eviction is after the timeout: the result of an earlier one may be outdated.
    let last = drain.and_then(|drain| drain.left).map(|(_, at)| at);
    if last.is_some_and(|last| last >= deadline) {
        return Next::Note(Emptying {
            given_up: Some(GivenUp {
                at: draft.now,
                generation: asked(draft, pool),
                quarantined: pool.undrainable == Undrainable::Cordon,
                why: match held {
                    Some(why) => why.to_owned(),
                    None => "its pods have not ended".to_owned(),
                },
            }),
            ..emptying.clone()
        });
    }
    if draft.now < deadline {
        draft.look_again_at(deadline);
    }
    match drain.and_then(|drain| drain.left) {
        None if rotation::gets_connections(draft, machine) => {
            Next::Wait(format!("taking node {name} out of load balancing"))
        }
        None => Next::Ask(name.to_owned()),
        Some((left, at)) => {
            let again = draft.after(at, pause(draft, emptying.since, at));
            if again <= draft.now || draft.now >= deadline {
                return Next::Ask(name.to_owned());
            }
            draft.look_again_at(again);
            let why = held.map(|why| format!("; {why}")).unwrap_or_default();
            Next::Wait(format!("draining node {name}: {left} pods to go{why}"))
        }
    }
}

/// The pause between two evictions: it grows with the time since the first one.
fn pause(draft: &Draft<'_>, since: Timestamp, at: Timestamp) -> Duration {
    let so_far = at.duration_since(since).unsigned_abs();
    draft.policy.drain_pause.max((so_far / 60).min(LONGEST_PAUSE))
}

/// A quarantined node is still to be removed from its pool, although another node replaces it.
pub(super) fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    for pool in &draft.desired.spec().pools {
        for (machine, given_up) in undrained_of(draft, pool) {
            if given_up.quarantined {
                let what = undrained(machine, given_up);
                checks.part(&Part::pool(&pool.name), Stage::Membership, what, false);
            }
        }
    }
}

/// Whether the replacement of a pool's nodes has ended at nodes that could not be drained: without a later request, no
/// further node is replaced.
pub(crate) fn has_ended(draft: &Draft<'_>, pool: &PoolSpec) -> bool {
    let mut undrained = undrained_of(draft, pool).peekable();
    if undrained.peek().is_none() {
        return false;
    }
    if undrained.any(|(_, given_up)| !given_up.quarantined) {
        return true;
    }
    let mut machines = draft.seen.machines.values();
    machines.all(|machine| {
        let own = index_in(machine, pool).is_some() && !machine.record.deleting;
        !own || !counts(machine, pool) || is_current(machine, pool)
    })
}

/// The nodes of a pool that were given up since the last request.
pub(crate) fn undrained_of<'a>(
    draft: &Draft<'a>,
    pool: &PoolSpec,
) -> impl Iterator<Item = (&'a Machine, &'a GivenUp)> {
    let asked = asked(draft, pool);
    let machines = draft.seen.machines.values();
    machines.filter_map(move |machine| {
        let stays = index_in(machine, pool).is_some() && !machine.record.deleting;
        let given_up = given_up(machine).filter(|given_up| stays && given_up.generation >= asked)?;
        (!is_current(machine, pool)).then_some((machine, given_up))
    })
}
