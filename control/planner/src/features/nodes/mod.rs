//! Nodes: which there should be, their objects in the API, and how they leave.

pub(crate) mod emptying;
pub(crate) mod placement;
mod removal;

use std::collections::{BTreeMap, BTreeSet};

use cluster_spec::PoolSpec;
use control_records::{Milestone, Part, Role};

use crate::{
    ApiEffect, Draft, Machine, Reach, Subject, UnknownMachines, Write,
    checks::{Checks, Stage},
    disturb::Disturb,
    feature::Feature,
    features::images::brought,
    view::{
        control_plane::allows_nodes_of,
        machines::{counts, given_up, index_in, is_current, is_emptied, joined, part_of},
        recorded::formed,
    },
    wish_inputs,
};

use placement::{NAME_PREFIX, NodePlacement};
pub(crate) use removal::remove_at_once;

pub(crate) const FEATURE: Feature = Feature {
    record,
    act,
    observe: ready_nodes,
    checks,
    ..Feature::named("nodes")
};

/// Brings the machine records to the pools: writes down what is missing, marks what is too much, highest index first.
fn record(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    let pools = &draft.desired.spec().pools;
    let mut places = NodePlacement::new(
        &draft.desired.uid,
        draft.desired.spec(),
        seen.machines.values(),
        seen.api.nodes.iter().map(|node| node.name.as_str()),
        &seen.kept,
        &seen.neighbours,
        &seen.balancers,
    );
    for pool in pools {
        emptying::turn_round(draft, pool);
        let nodes = Nodes::of(draft, pool);
        let wanted = usize::try_from(pool.wanted()).unwrap_or(usize::MAX);
        let allowed = allows_nodes_of(draft, pool);
        let Change {
            marked,
            emptied,
            missing,
        } = nodes.change(wanted, pool, allowed);
        if nodes.upgrading() && allowed && !pool.stopped {
            let done = nodes.new.len().min(wanted);
            let what = if nodes.upgrades {
                format!(
                    "upgrading pool {} to Kubernetes {}",
                    pool.name, pool.kubernetes_version
                )
            } else {
                format!("bringing pool {} to the newest node image", pool.name)
            };
            draft.wait(format!("{what}: {done} of {wanted} nodes"));
        } else if !marked.is_empty() {
            draft.wait(going(pool));
        }
        for id in marked {
            if !draft.has_room(2) {
                break;
            }
            draft.mark(Disturb::Retire { id });
        }
        for id in emptied {
            if !draft.has_room(4) {
                break;
            }
            emptying::begin(draft, id, pool);
        }
        if !allowed {
            // What the control plane is waited for with is told where it is taken on.
            draft.unfinished |= missing > 0;
            continue;
        }
        if missing > 0 && formed(&seen.observed) && seen.api.reach != Reach::Ready {
            // Which names are free is not known.
            let unknown = seen.api.reach == Reach::Unknown;
            draft.wait_or_adopt(
                unknown,
                format!("waiting for the API server, to add nodes to pool {}", pool.name),
            );
            continue;
        }
        if missing > 0 && draft.waits_for_look() {
            continue;
        }
        for _ in 0..missing {
            if !draft.has_room(3) {
                break;
            }
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
            draft.write(Write::RecordMachine { role, image });
        }
    }
    for (id, machine) in &seen.machines {
        if let Some(Role::Node { pool, .. }) = machine.role()
            && !machine.record.deleting
            && !pools.iter().any(|spec| index_in(machine, spec).is_some())
        {
            draft.wait(format!("removing pool {pool}"));
            if draft.has_room(2) {
                draft.mark(Disturb::Retire { id });
            }
        }
    }
}

/// What is said while nodes of a pool go that are more than it is to have.
fn going(pool: &PoolSpec) -> String {
    if pool.stopped {
        format!("stopping pool {}", pool.name)
    } else {
        format!("scaling pool {} down", pool.name)
    }
}

/// A pool's machines that count, by id, in order of their numbers.
struct Nodes<'a> {
    /// To go, whatever their number.
    removed: Vec<&'a str>,
    /// Made as the pool is to have them.
    new: Vec<&'a str>,
    /// How many of these do their work.
    ready: usize,
    /// Made otherwise.
    old: Vec<&'a str>,
    /// Made otherwise, and could not be drained; they take pods.
    stuck: Vec<&'a str>,
    /// Made otherwise, and not marked for removal: they are drained, or are quarantined.
    unmarked: Vec<&'a str>,
    /// The number of nodes made otherwise that are drained or removed now.
    leaving: usize,
    /// Whether any of these is of another version.
    upgrades: bool,
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
            removed: Vec::new(),
            new: Vec::new(),
            ready: 0,
            old: Vec::new(),
            stuck: Vec::new(),
            unmarked: Vec::new(),
            leaving: 0,
            upgrades: false,
        };
        for (_, id, machine) in numbered {
            let other = machine.record.image != pool.kubernetes_version;
            nodes.upgrades |= other && (machine.record.deleting || counts(machine, pool));
            if machine.record.deleting {
                nodes.leaving += usize::from(!is_current(machine, pool));
            } else if pool.removed.contains(id) {
                nodes.removed.push(id);
            } else if !counts(machine, pool) {
                // Another one is added beside it.
                if given_up(machine).is_some() {
                    nodes.unmarked.push(id);
                }
            } else if is_current(machine, pool) {
                nodes.new.push(id);
                nodes.ready += usize::from(machine.node_name().is_some_and(|name| joined(draft, name)));
            } else if is_emptied(machine) {
                nodes.unmarked.push(id);
                nodes.leaving += 1;
            } else if given_up(machine).is_some() {
                nodes.stuck.push(id);
            } else {
                nodes.old.push(id);
            }
        }
        nodes
    }

    fn upgrading(&self) -> bool {
        !self.old.is_empty() || !self.stuck.is_empty() || self.leaving > 0
    }

    /// The change of a pool's nodes. A node of the old version is drained when a new one is ready in its place; the permitted number of
    /// unavailable nodes is drained without that. There are never more nodes than the count and the surge. If a node could not be drained
    /// and takes pods, no other node is replaced.
    fn change(&self, wanted: usize, pool: &PoolSpec, allowed: bool) -> Change<'a> {
        let size = |nodes: u32| usize::try_from(nodes).unwrap_or(usize::MAX);
        // While no new node can be added, no node is removed.
        let unavailable = if allowed { size(pool.unavailable) } else { 0 };
        let excess = self.removed.iter().chain(self.new.iter().skip(wanted)).copied();
        if wanted == 0 {
            let unmarked = self.unmarked.iter().chain(&self.stuck).chain(&self.old).copied();
            return Change {
                marked: excess.chain(unmarked).collect(),
                ..Change::default()
            };
        }
        if !self.upgrading() {
            return Change {
                marked: excess.collect(),
                missing: wanted.saturating_sub(self.new.len()),
                ..Change::default()
            };
        }
        if !self.stuck.is_empty() {
            return self.halted(wanted);
        }
        // Surplus nodes of a pool that has become smaller are not replaced.
        let staying = self.old.len().min(wanted);
        let new = self.new.len().min(wanted);
        let needed = wanted.saturating_sub(self.ready.saturating_add(unavailable));
        let old = staying.min(needed);
        // Nodes that are marked in this transaction still count.
        let there = self.new.len() + self.old.len() + self.leaving;
        let room = wanted.saturating_add(size(pool.surge)).saturating_sub(there);
        Change {
            marked: excess.chain(self.old[staying..].iter().copied()).collect(),
            emptied: self.old[old..staying].to_vec(),
            missing: (wanted - new).min(room),
        }
    }

    /// The change of a pool whose upgrade has ended at a node that could not be drained: the pool keeps its count with nodes of both
    /// versions, and nodes that were added for the upgrade are removed.
    fn halted(&self, wanted: usize) -> Change<'a> {
        let there = self.new.len() + self.old.len() + self.stuck.len();
        let surplus = there.saturating_sub(wanted);
        let others = self.old.iter().rev().chain(&self.stuck);
        let superfluous = self.new.iter().rev().chain(others).take(surplus);
        Change {
            marked: self.removed.iter().chain(superfluous).copied().collect(),
            emptied: Vec::new(),
            missing: wanted.saturating_sub(there + self.leaving),
        }
    }
}

/// The change of a pool's nodes.
#[derive(Default)]
struct Change<'a> {
    /// The nodes to mark for removal.
    marked: Vec<&'a str>,
    /// The nodes to drain before that.
    emptied: Vec<&'a str>,
    /// The number of nodes to add.
    missing: usize,
}

/// Node objects of machines that stay: joined, and as wished.
fn objects(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    for (id, machine) in &seen.machines {
        let Some(name) = machine.node_name().filter(|_| !machine.record.deleting) else {
            continue;
        };
        if !joined(draft, name) && !machine.record.healing.off {
            let unknown = seen.api.reach == Reach::Unknown;
            draft.wait_or_adopt(unknown, format!("waiting for node {name}"));
        }
        if seen.api.reach == Reach::Ready && seen.api.node(name).is_some() {
            let images = brought(draft, machine);
            let inputs = wish_inputs(draft.desired.spec(), &machine.record, &images);
            let before = seen.api.set.get(id);
            if before != Some(&inputs) {
                draft.act_or_adopt(
                    before.is_none(),
                    ApiEffect::SetNode {
                        machine: id.clone(),
                        node: name.to_owned(),
                        images,
                        inputs,
                    },
                    format!("labelling node {name}"),
                );
            }
        }
    }
    let strays = strays(draft);
    if !strays.is_empty() && seen.unknown_machines == UnknownMachines::NotLooked {
        draft.unfinished = true;
        draft.look_again_at(draft.after(draft.now, UnknownMachines::PAUSE));
    }
    for node in strays {
        if seen.unknown_machines != UnknownMachines::None {
            break;
        }
        let why = format!("removing node {node}");
        draft.act(ApiEffect::DeleteNode(node), why);
    }
}

fn act(draft: &mut Draft<'_>) {
    objects(draft);
    emptying::act(draft);
    removal::removals(draft);
}

/// Counts ready nodes by pool. A pool is not named before its first node was ready: until then it is being made.
fn ready_nodes(draft: &mut Draft<'_>) {
    let api = &draft.seen.api;
    // Before the first look, what was seen before is the best guess.
    let looked = api.reach == Reach::Ready || !api.nodes.is_empty();
    let mut ready = BTreeMap::new();
    for pool in &draft.desired.spec().pools {
        let before = draft.seen.observed.ready_nodes.get(&pool.name);
        let now = draft.seen.machines.values().filter(|machine| {
            matches!(machine.role(), Some(Role::Node { pool: name, node_name, .. })
                if *name == pool.name && api.node(node_name).is_some_and(|node| node.ready))
        });
        let count = match before {
            Some(before) if !looked => *before,
            _ => u32::try_from(now.count()).unwrap_or(u32::MAX),
        };
        if count > 0 || before.is_some() {
            ready.insert(pool.name.clone(), count);
        }
    }
    let any = ready.values().any(|count| *count > 0);
    if any {
        draft.milestone(Milestone::NodeReady);
    }
    // None is missed in a cluster that never had a ready one, or is to have none.
    let had = draft
        .observed
        .milestones
        .contains_key(Milestone::NodeReady.as_str());
    let missed = !any && had && draft.desired.spec().pools.iter().any(|pool| pool.wanted() > 0);
    let since = draft.seen.observed.unready_since.unwrap_or(draft.now);
    draft.observed.unready_since = missed.then_some(since);
    draft.observed.ready_nodes = ready;
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    let seen = draft.seen;
    for (id, machine) in &seen.machines {
        let (Some(_), Some(name)) = (part_of(draft, id, machine), machine.node_name()) else {
            continue;
        };
        let wished = match seen.api.set.get(id) {
            Some(inputs) => {
                let images = brought(draft, machine);
                *inputs == wish_inputs(draft.desired.spec(), &machine.record, &images)
            }
            None => draft.reached_before(),
        };
        // One that is off is none that is waited for.
        let there = joined(draft, name) || machine.record.healing.off;
        let done = there && wished && draft.is_quiet(&Subject::Node(name.to_owned()));
        checks.machine(draft, id, machine, format!("waiting for node {name}"), done);
    }
    for pool in &draft.desired.spec().pools {
        pool_size(draft, pool, checks);
    }
    emptying::checks(draft, checks);
    // Pools that were deleted; their machines that are gone count as well.
    for leaving in &draft.desired.requests.leaving {
        let left = seen.machines.iter().filter(|(_, machine)| {
            matches!(machine.role(), Some(Role::Node { incarnation: own, .. }) if *own == leaving.spec().incarnation)
        });
        let of = usize::try_from(leaving.spec().wanted()).unwrap_or_default();
        checks.removed(&leaving.part(), left, of);
    }
    for machine in seen.machines.values() {
        if machine.node_name().is_some() && !of_a_part(draft, machine) {
            let what = format!("removing {}", machine.label());
            checks.routine(what, false);
        }
    }
    for node in strays(draft) {
        checks.routine(format!("removing node {node}"), false);
    }
}

/// Whether a node is of a pool that is to be, or of one that is known to be on its way out.
fn of_a_part(draft: &Draft<'_>, machine: &Machine) -> bool {
    let pools = &draft.desired.spec().pools;
    let leaving = draft
        .desired
        .requests
        .leaving
        .iter()
        .map(|leaving| leaving.spec());
    pools
        .iter()
        .chain(leaving)
        .any(|pool| index_in(machine, pool).is_some())
}

fn pool_size(draft: &Draft<'_>, spec: &PoolSpec, checks: &mut Checks) {
    let part = Part::pool(&spec.name);
    let (mut there, mut leaving) = (0, 0);
    for (id, machine) in &draft.seen.machines {
        if index_in(machine, spec).is_none() {
            continue;
        }
        if machine.record.deleting || draft.is_marked(id) {
            leaving += 1;
            checks.leaving_machine(
                &part,
                Stage::of(machine),
                id,
                format!("removing {}", machine.label()),
            );
        } else if counts(machine, spec) && !is_emptied(machine) {
            there += 1;
        }
    }
    for _ in there..spec.wanted() {
        checks.missing_machine(&part);
    }
    if there > spec.wanted() {
        checks.part(&part, Stage::Membership, going(spec), false);
    }
    // So that going down shows as well as going up.
    if leaving == 0 && there == 0 && spec.wanted() == 0 {
        let what = format!("removing the nodes of pool {}", spec.name);
        checks.part(&part, Stage::Membership, what, true);
    }
}

/// Node objects that no machine stands behind. A machine's record goes last, so a node without one has no machine any more,
/// unless the store is older than the cluster: then machines that are in no record are found in the fabric, and all stay.
fn strays(draft: &Draft<'_>) -> Vec<String> {
    let seen = draft.seen;
    if seen.api.reach != Reach::Ready || seen.unknown_machines == UnknownMachines::Some {
        return Vec::new();
    }
    let ours: BTreeSet<_> = seen.machines.values().filter_map(Machine::node_name).collect();
    let names = seen.api.nodes.iter().map(|node| &node.name);
    names
        .filter(|name| name.starts_with(NAME_PREFIX) && !ours.contains(name.as_str()))
        .cloned()
        .collect()
}
