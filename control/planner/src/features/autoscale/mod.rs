//! The cluster autoscaler: sets the counts of pools with a range to the need of the cluster's pods.
//!
//! | step | growing | shrinking |
//! |---|---|---|
//! | 1 | unschedulable pods are observed | an unneeded node is observed; the time is recorded |
//! | 2 | the pool's count is written, with the growth in the memory | when it is due, the count is written, and the machine's id in the pool's removed machines |
//! | 3 | `nodes` makes the machines of the count | `nodes` drains and removes it, as any removed machine |
//! | 4 | events of pods, status | event of the node, status |
//!
//! The decision is made in `cluster/autoscaler`; this feature provides its input and carries it out. The
//! count is the pool's own in the desired record, so that all readers of the pool see it. A change is not a
//! request: generations and eTags stay. It is not planned work either: maintenance windows and an operator's
//! hold do not delay it.
//!
//! Always true: a pool with a change in progress, of itself or of its cluster, is not scaled until that is
//! reached, or has ended at nodes that could not be drained; a stopped pool is not scaled; an old look at pods
//! and nodes has no effect; the pods of a cluster are not read unless it has a pool with a range that is not
//! stopped.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use cluster_api::WorkNotes;
use cluster_autoscaler::{Decision, Memory, Node, Pool, State, Work, decide, events, rules::Taint, status};
use cluster_bootstrap::node_template;
use cluster_spec::{ClusterSpec, PoolSpec, taint};
use control_records::{EventKind, Part};

use crate::{
    ApiEffect, Draft, PoolSize, Reach, Write,
    feature::Feature,
    nodes::emptying,
    view::{
        autoscaled::is_let_go,
        machines::{counts, index_in, is_emptied},
    },
};

/// Pause between two looks at pods after a change; a second more for each [`PODS_A_SECOND`] pods, because all
/// are read each time.
const EAGER: Duration = Duration::from_secs(1);
const PODS_A_SECOND: usize = 500;
/// A look older than this and than three scan intervals is not used.
const OLD: Duration = Duration::from_secs(60);
/// Limit of events in one effect.
const EVENTS: usize = 50;

pub(crate) const FEATURE: Feature = Feature {
    record,
    act,
    ..Feature::named("autoscale")
};

fn record(draft: &mut Draft<'_>) {
    if !draft.desired.spec().is_scaled() {
        draft.observed.autoscaler = Memory::default();
        return;
    }
    let Some(decision) = decided(draft) else {
        return;
    };
    let changes = changes(draft, &decision);
    if !changes.is_empty() && !draft.has_room(2 + changes.len()) {
        return;
    }
    draft.observed.autoscaler = decision.memory.clone();
    if let Some(again) = decision.again.filter(|again| *again > draft.now) {
        draft.look_again_at(again);
    }
    if changes.is_empty() {
        return;
    }
    for (name, size) in &changes {
        let before = draft.desired.spec().pools.iter().find(|pool| pool.name == *name);
        let before = before.map_or(0, |pool| pool.count);
        let count = size.count;
        let message = match count.cmp(&before) {
            Ordering::Greater => format!(
                "the autoscaler scales pool {name} from {before} to {count} nodes: pods are unschedulable"
            ),
            Ordering::Less => format!(
                "the autoscaler scales pool {name} from {before} to {count} nodes: the pods need fewer, or new ones \
                 did not become ready"
            ),
            Ordering::Equal => format!(
                "the autoscaler replaces nodes of pool {name} that did not become ready; it keeps {count} nodes"
            ),
        };
        draft.tell(EventKind::Autoscaled, name.clone(), message);
    }
    draft.write(Write::Scale(changes));
}

fn act(draft: &mut Draft<'_>) {
    if !draft.desired.spec().is_scaled() || draft.seen.api.reach != Reach::Ready {
        return;
    }
    look(draft);
    tell(draft);
}

/// Plans the look at the cluster's pods: at each interval, and soon after a change.
fn look(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    let Some(work) = &seen.api.work else {
        draft.act_quietly(ApiEffect::LookAtWork);
        return;
    };
    let scan = Duration::from_secs(draft.desired.spec().autoscaler.scan);
    let more = u32::try_from(work.work.pods.len() / PODS_A_SECOND).unwrap_or(u32::MAX);
    let eager = EAGER.saturating_mul(more.saturating_add(1)).min(scan);
    let pause = if work.change < seen.api.change {
        eager
    } else {
        scan
    };
    let next = crate::after(work.at, pause);
    if next <= draft.now {
        draft.act_quietly(ApiEffect::LookAtWork);
    } else {
        draft.look_again_at(next);
    }
}

/// Plans status and events of a decision, after it is written.
fn tell(draft: &mut Draft<'_>) {
    let seen = draft.seen;
    let (Some(decision), Some(work)) = (decided(draft), &seen.api.work) else {
        return;
    };
    let done = decision.sizes.is_empty() && decision.remove.is_empty();
    if !done || decision.memory != seen.observed.autoscaler {
        return;
    }
    let scene = Scene::of(draft, &work.work);
    let state = scene.state(&work.work, &seen.observed.autoscaler);
    let going = seen
        .machines
        .iter()
        .filter(|(id, machine)| is_let_go(draft, id, machine));
    let going: BTreeSet<String> = going
        .filter_map(|(_, machine)| machine.node_name().map(str::to_owned))
        .collect();
    let status = status(state, &decision);
    let mut events = events(state, &decision, &going);
    events.retain(|event| seen.api.work_told.get(&event.uid) != Some(&event.note.message));
    events.truncate(EVENTS);
    let status = Some(status).filter(|status| seen.api.work_status.as_ref() != Some(status));
    if status.is_some() || !events.is_empty() {
        draft.act_quietly(ApiEffect::TellWork(WorkNotes { status, events }));
    }
}

/// The decision from a recent look at the cluster's pods; computed once for each plan.
fn decided(draft: &Draft<'_>) -> Option<Rc<Decision>> {
    let decision = draft.autoscaled.get_or_init(|| {
        let api = &draft.seen.api;
        let work = api.work.as_ref().filter(|_| api.reach == Reach::Ready)?;
        let profile = &draft.desired.spec().autoscaler;
        let old = OLD.max(Duration::from_secs(3 * profile.scan));
        if crate::after(work.at, old) < draft.now {
            return None;
        }
        let scene = Scene::of(draft, &work.work);
        if scene.pools.is_empty() {
            return None;
        }
        let state = scene.state(&work.work, &draft.seen.observed.autoscaler);
        Some(Rc::new(decide(state, profile, draft.now)))
    });
    decision.clone()
}

/// The changed counts of pools, with the machines to remove.
fn changes(draft: &Draft<'_>, decision: &Decision) -> BTreeMap<String, PoolSize> {
    let seen = draft.seen;
    let mut changes = BTreeMap::new();
    for pool in &draft.desired.spec().pools {
        let own = seen
            .machines
            .iter()
            .filter(|(_, machine)| index_in(machine, pool).is_some());
        let go = own.filter(|(_, machine)| {
            let node = machine.node_name();
            node.is_some_and(|node| decision.remove.contains(node))
        });
        let go: BTreeSet<String> = go.map(|(id, _)| id.clone()).collect();
        let count = decision.sizes.get(&pool.name).copied().unwrap_or(pool.count);
        if go.is_empty() && count == pool.count {
            continue;
        }
        // Ids of machines that no longer exist are dropped here.
        let there = pool.removed.iter().filter(|id| seen.machines.contains_key(*id));
        let removed = there.cloned().chain(go).collect();
        changes.insert(pool.name.clone(), PoolSize { count, removed });
    }
    changes
}

/// The input of the decision besides pods and nodes.
struct Scene {
    pools: Vec<Pool>,
    leaving: BTreeSet<String>,
    kept: BTreeSet<String>,
}

impl Scene {
    fn of(draft: &Draft<'_>, work: &Work) -> Self {
        let spec = draft.desired.spec();
        let mut scene = Self {
            pools: Vec::new(),
            leaving: BTreeSet::new(),
            kept: BTreeSet::new(),
        };
        let mut staying = BTreeSet::new();
        for pool in &spec.pools {
            let mut nodes = BTreeMap::new();
            for (id, machine) in &draft.seen.machines {
                let healing = &machine.record.healing;
                let goes = pool.stopped
                    || machine.record.deleting
                    || pool.removed.contains(id)
                    || draft.is_marked(id)
                    || is_emptied(machine)
                    || healing.given_up();
                let (Some(_), Some(name)) = (index_in(machine, pool), machine.node_name()) else {
                    continue;
                };
                if goes {
                    continue;
                }
                if !counts(machine, pool) {
                    // It is preserved or quarantined: it stays with its pods, and another node replaces it.
                    staying.insert(name);
                    continue;
                }
                if healing.off || healing.preserve.is_some() {
                    scene.kept.insert(name.to_owned());
                }
                staying.insert(name);
                nodes.insert(name.to_owned(), machine.record.created_at);
            }
            let Some(range) = pool.autoscale.filter(|_| may_be_scaled(draft, pool)) else {
                continue;
            };
            scene.pools.extend(template(spec, pool).map(|template| Pool {
                name: pool.name.clone(),
                min: range.min,
                max: range.max,
                count: pool.count,
                nodes,
                template,
            }));
        }
        // A node of a machine that does not stay, or of no machine, is being removed.
        let ours = |node: &&Node| node.labels.contains_key("kubernetes.azure.com/cluster");
        let gone = work.nodes.iter().filter(ours).map(|node| &node.name);
        scene.leaving = gone
            .filter(|name| !staying.contains(name.as_str()))
            .cloned()
            .collect();
        scene
    }

    fn state<'s>(&'s self, work: &'s Work, memory: &'s Memory) -> State<'s> {
        State {
            work,
            pools: &self.pools,
            leaving: &self.leaving,
            kept: &self.kept,
            memory,
        }
    }
}

/// Whether a pool with a range is not stopped, and has no change in progress.
fn may_be_scaled(draft: &Draft<'_>, pool: &PoolSpec) -> bool {
    let part = Part::pool(&pool.name);
    let own = draft.desired.part_generation(&part);
    let aborted = draft.desired.requests.aborted.get(&part);
    // A cluster that starts has nodes that are not ready yet, even if its pools' own changes were reached
    // before.
    let whole = draft.seen.observed.generation >= draft.desired.requests.generation;
    let complete = whole && has_reached(draft, &part) || has_ended(draft);
    pool.is_scaled() && complete && (aborted.is_none() || aborted != own.as_ref())
}

/// Whether the last change of a part was reached.
fn has_reached(draft: &Draft<'_>, part: &Part) -> bool {
    let own = draft.desired.part_generation(part);
    own.is_none_or(|own| draft.seen.observed.has_reached(part, own))
}

/// Whether the last change of the cluster is complete except for pools whose nodes could not be drained. It is
/// never reached without a later request, which may come much later.
fn has_ended(draft: &Draft<'_>) -> bool {
    let pools = &draft.desired.spec().pools;
    let complete =
        |pool: &PoolSpec| has_reached(draft, &Part::pool(&pool.name)) || emptying::has_ended(draft, pool);
    pools.iter().any(|pool| emptying::has_ended(draft, pool))
        && has_reached(draft, &Part::Base)
        && pools.iter().all(complete)
}

/// A new node of a pool.
fn template(spec: &ClusterSpec, pool: &PoolSpec) -> Option<Node> {
    let known = node_template(spec, pool)?;
    let mut node = Node {
        labels: known.labels,
        taints: pool
            .taints
            .iter()
            .filter_map(|text| taint(text))
            .map(|(key, value, effect)| Taint {
                key: key.to_owned(),
                value: value.to_owned(),
                effect: effect.to_owned(),
            })
            .collect(),
        ready: true,
        ..Node::default()
    };
    node.room.cpu = known.cpu_millis;
    node.room.memory = known.memory_bytes;
    node.room.pods = u64::from(pool.max_pods);
    if let Some(volumes) = known.volumes {
        let name = format!("attachable-volumes-csi-{}", cluster_volumes::DRIVER);
        node.room.others.insert(name, u64::from(volumes));
    }
    Some(node)
}
