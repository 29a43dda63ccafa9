//! How a request relates to those before it: what it takes the place of, what an abort returns to. Pure.
//!
//! Requests are never refused because another one is under way. The last request wins, per resource: an operation ends as
//! soon as what *it* asked for is there, and at once, as `Canceled`, when a later request about the same resource asks for
//! something else. Creations are never overtaken by a change: what they asked for is that the resource be there.

use std::collections::BTreeSet;

use arm_kernel::quote;
use arm_wire::{ArmError, ErrorCode};
use cluster_spec::{ClusterSpec, PoolSpec, node_image_version};
use cluster_versions::Version;
use control_records::{
    ClusterRecord, DesiredPool, Event, EventKind, Leaving, ObservedRecord, OperationError, OperationRecord,
    OperationStatus, Part, Reached, Requests, times::StepTimes,
};
use serde_json::json;

use super::draft::{ClusterChange, Context, Draft, Name, advance};

/// The name of the operation that deletes a pool.
pub(crate) const POOL_DELETE: &str = "AgentPools_Delete";
/// The name of the operation that aborts what runs for a cluster.
pub(crate) const ABORT: &str = "ManagedClusters_AbortLatestOperation";
/// The name of the operation that aborts what runs for a pool.
pub(crate) const ABORT_POOL: &str = "AgentPools_AbortLatestOperation";
/// So many operations of one cluster may run. One more ends the oldest.
const MOST_RUNNING: usize = 64;

/// A cluster as it was when a request came.
#[derive(Clone, Copy)]
pub(crate) struct Current<'a> {
    pub(crate) record: &'a ClusterRecord,
    pub(crate) observed: Option<&'a ObservedRecord>,
    /// Its operations that have not ended, oldest first.
    pub(crate) running: &'a [OperationRecord],
    /// How long steps of upgrades take here.
    pub(crate) times: &'a StepTimes,
}

impl Current<'_> {
    fn reached(&self) -> bool {
        self.observed
            .is_some_and(|observed| observed.generation >= self.record.generation)
    }

    /// The state to return to: the present one if it is reached.
    pub(crate) fn last_reached(&self) -> Result<Option<Reached>, ArmError> {
        let record = self.record;
        if self.reached() && !record.requests.halted && !record.deleting {
            return Ok(Some(Reached {
                generation: record.generation,
                state: record.state.clone(),
                sealed: record.sealed.clone(),
            }));
        }
        let Some(reached) = record.requests.reached.as_deref() else {
            return Ok(None);
        };
        let mut reached = reached.clone();
        // A pool that got there while others are still on their way has got there.
        let there = record.state.pools().into_iter();
        let there = there.filter(|pool| self.pool_reached(&pool.spec().name));
        let mut pools = reached.state.pools();
        for pool in there {
            match pools.iter_mut().find(|old| old.spec().name == pool.spec().name) {
                Some(old) => *old = pool,
                None => pools.push(pool),
            }
        }
        reached.state = reached.state.with_pools(pools).map_err(ArmError::internal)?;
        Ok(Some(reached))
    }

    fn pool_reached(&self, pool: &str) -> bool {
        let own = self.record.pool_generations.get(pool);
        let reached = self
            .observed
            .and_then(|observed| observed.reached.get(&Part::pool(pool)));
        matches!((own, reached), (Some(own), Some(reached)) if reached >= own)
    }
}

/// Whether a deleted pool is gone, as far as seen.
pub(crate) fn is_gone(leaving: &Leaving, observed: Option<&ObservedRecord>) -> bool {
    observed.is_some_and(|observed| observed.has_reached(&leaving.part(), leaving.generation))
}

impl Draft {
    /// Whether it asks for nothing that is not so already, by what was seen: then nothing is written.
    pub(crate) fn is_so(&self, before: Option<Current<'_>>) -> bool {
        let Some(before) = before else { return false };
        let requests = &before.record.requests;
        let settled = before.reached() && !requests.halted && requests.aborted.is_empty();
        settled && self.secrets.is_empty() && self.record.state.asks_the_same(&before.record.state)
    }

    /// The change, with what it makes of the requests before it: the last step of every decision.
    pub(crate) fn follow(mut self, before: Option<Current<'_>>) -> Result<ClusterChange, ArmError> {
        let expected = before.map(|before| before.times.upgrade(before.record.spec(), self.record.spec()));
        self.operation.progress.expected = expected.filter(|expected| *expected > 0);
        let (ended, events) = follow(&mut self.record, &self.operation, before)?;
        Ok(ClusterChange {
            record: self.record,
            operation: self.operation,
            secrets: self.secrets,
            makes_groups: self.makes_groups,
            ended,
            events,
        })
    }
}

/// Fills in how the record relates to the requests before; gives the operations that it ends and what is to be told.
fn follow(
    record: &mut ClusterRecord,
    operation: &OperationRecord,
    before: Option<Current<'_>>,
) -> Result<(Vec<OperationRecord>, Vec<Event>), ArmError> {
    let reached = match before {
        Some(before) => before.last_reached()?.map(Box::new),
        None => None,
    };
    let mut events = vec![accepted(record, operation, before)];
    let old = before.map(|before| &before.record.requests);
    let mut ended = Vec::new();
    let mut running = Vec::new();
    for other in before.iter().flat_map(|before| before.running) {
        match before.and_then(|before| overtaken(other, before.record, record, operation)) {
            Some(error) => ended.push(end(other, operation, error)),
            None => running.push(other),
        }
    }
    let too_many = (running.len() + 1).saturating_sub(MOST_RUNNING);
    for other in running.drain(..too_many) {
        ended.push(end(other, operation, preempted(operation)));
    }
    for other in &ended {
        let message = other.error.as_ref().map_or("", |error| error.message.as_str());
        let told = Event::new(
            if [ABORT, ABORT_POOL].contains(&operation.name.as_str()) {
                EventKind::Aborted
            } else {
                EventKind::Superseded
            },
            other.pool().unwrap_or_default(),
            format!("{}: {message}", other.name),
        );
        events.push(told.of(other.id.clone()));
    }
    let generation = record.generation;
    let aborts = operation.name == ABORT || operation.name == ABORT_POOL;
    if old.is_some_and(|old| old.halted) && !aborts && !operation.deletes {
        // Whatever it asks for, it makes all of a stopped creation begin again.
        record
            .pool_generations
            .values_mut()
            .for_each(|own| *own = generation);
    }
    record.requests = Requests {
        running: running
            .into_iter()
            .map(|other| other.id.clone())
            .chain([operation.id.clone()])
            .collect(),
        generation: match (&operation.part, old) {
            (Some(_), Some(old)) => old.generation,
            _ => generation,
        },
        pool_operations: record
            .pool_generations
            .iter()
            .filter_map(|(pool, own)| {
                let id = if *own == generation {
                    Some(&operation.id)
                } else {
                    old.and_then(|old| old.pool_operations.get(pool))
                };
                Some((pool.clone(), id?.clone()))
            })
            .collect(),
        reached,
        // What an abort says of itself, it has said already; what earlier ones said holds for pools that stay as they are.
        aborted: record
            .requests
            .aborted
            .iter()
            .filter(|(part, own)| match part {
                Part::Base => **own == generation,
                // A request about the cluster as a whole is one about each of its pools.
                part => (aborts || operation.part.is_some()) && record.part_generation(part) == Some(**own),
            })
            .map(|(part, own)| (part.clone(), *own))
            .collect(),
        halted: record.requests.halted && (operation.name == ABORT || operation.deletes),
        leaving: leaving(record, operation, before),
    };
    Ok((ended, events))
}

/// Pools on their way out after the change.
fn leaving(record: &ClusterRecord, operation: &OperationRecord, before: Option<Current<'_>>) -> Vec<Leaving> {
    let Some(before) = before else {
        return Vec::new();
    };
    let here: BTreeSet<&str> = record
        .spec()
        .pools
        .iter()
        .map(|pool| pool.incarnation.as_str())
        .collect();
    let there = before.record.state.pools().into_iter();
    let removed = there
        .filter(|pool| !here.contains(pool.spec().incarnation.as_str()))
        .map(|pool| Leaving {
            pool,
            generation: record.generation,
            operation: operation.id.clone(),
        });
    let earlier = before.record.requests.leaving.iter();
    earlier
        .filter(|leaving| !is_gone(leaving, before.observed))
        .cloned()
        .chain(removed)
        .collect()
}

/// Why an operation that runs cannot reach any more what it asked for, if so.
fn overtaken(
    running: &OperationRecord,
    before: &ClusterRecord,
    after: &ClusterRecord,
    by: &OperationRecord,
) -> Option<OperationError> {
    if after.deleting {
        return (!running.deletes).then(|| preempted_by_delete(by));
    }
    if running.name == POOL_DELETE {
        // A pool of the same name that is made meanwhile is another one.
        return None;
    }
    if by.name == ABORT || (by.name == ABORT_POOL && running.part == by.part) {
        return Some(OperationError {
            code: ErrorCode::OPERATION_CANCELED.code.to_owned(),
            message: format!("The operation was aborted on request (operation {}).", by.id),
        });
    }
    // What is asked of any pool waits for its nodes, which come or go with this.
    let power = before.spec().stopped != after.spec().stopped;
    match running.pool() {
        Some(pool) => match (pool_of(before.spec(), pool), pool_of(after.spec(), pool)) {
            (Some(_), None) => Some(preempted_by_delete(by)),
            (Some(old), Some(new)) if !running.creates && (power || old != new) => Some(preempted(by)),
            _ => None,
        },
        None if running.creates || by.part.is_some() => None,
        None => {
            let frame = |spec: &ClusterSpec| ClusterSpec {
                pools: Vec::new(),
                // What is replaced under a cluster takes nobody's place.
                rotations: Default::default(),
                // It concerns later requests only.
                forced_until: None,
                ..spec.clone()
            };
            let kept = before
                .spec()
                .pools
                .iter()
                .all(|old| pool_of(after.spec(), &old.name).is_none_or(|new| new == old));
            (frame(before.spec()) != frame(after.spec()) || !kept).then(|| preempted(by))
        }
    }
}

fn pool_of<'a>(spec: &'a ClusterSpec, name: &str) -> Option<&'a PoolSpec> {
    spec.pools.iter().find(|pool| pool.name == name)
}

fn preempted(by: &OperationRecord) -> OperationError {
    OperationError {
        code: ErrorCode::PREEMPTED.code.to_owned(),
        message: format!(
            "A later request asks for something else and took this one's place: {} (operation {}).",
            by.name, by.id
        ),
    }
}

fn preempted_by_delete(by: &OperationRecord) -> OperationError {
    OperationError {
        code: ErrorCode::PREEMPTED_BY_DELETE.code.to_owned(),
        message: format!("The operation was superseded by the deletion {}.", by.id),
    }
}

fn end(operation: &OperationRecord, by: &OperationRecord, error: OperationError) -> OperationRecord {
    OperationRecord {
        status: OperationStatus::Canceled,
        ended_at: Some(by.started_at),
        error: Some(error),
        ..operation.clone()
    }
}

fn accepted(record: &ClusterRecord, operation: &OperationRecord, before: Option<Current<'_>>) -> Event {
    let mut parts = Vec::new();
    let old = before
        .map(|before| before.record.spec().pools.as_slice())
        .unwrap_or_default();
    let version = &record.spec().kubernetes_version;
    let from = before.map_or(version, |before| &before.record.spec().kubernetes_version);
    if from != version {
        parts.push(format!("the control plane from Kubernetes {from} to {version}"));
    }
    for pool in &record.spec().pools {
        match old.iter().find(|old| old.name == pool.name) {
            None => parts.push(format!("pool {} with {} nodes", pool.name, pool.count)),
            Some(old) if old.stopped != pool.stopped => {
                let done = if pool.stopped { "stopped" } else { "started" };
                parts.push(format!("pool {} {done}", pool.name));
            }
            Some(old) if old.count != pool.count => {
                parts.push(format!(
                    "pool {} from {} to {} nodes",
                    pool.name, old.count, pool.count
                ));
            }
            Some(old) if old.kubernetes_version != pool.kubernetes_version => parts.push(format!(
                "pool {} from Kubernetes {} to {}",
                pool.name, old.kubernetes_version, pool.kubernetes_version
            )),
            Some(old) if old.image != pool.image && pool.image.is_some() => {
                let name =
                    |pool: &PoolSpec| node_image_version(&pool.kubernetes_version, pool.image.as_deref());
                parts.push(format!("pool {} from {} to {}", pool.name, name(old), name(pool)));
            }
            Some(old) if old != pool => parts.push(format!("pool {} changed", pool.name)),
            Some(_) => {}
        }
    }
    let gone = old
        .iter()
        .filter(|old| pool_of(record.spec(), &old.name).is_none());
    parts.extend(gone.map(|old| format!("pool {} removed", old.name)));
    let what = if parts.is_empty() || operation.deletes {
        String::new()
    } else {
        format!(": {}", parts.join(", "))
    };
    Event::new(
        EventKind::Accepted,
        operation.pool().unwrap_or_default(),
        format!("{} by {}{what}", operation.name, record.modified_by),
    )
    .of(operation.id.clone())
}

/// What can be aborted at all: everything that runs and is neither a deletion nor an abort itself.
fn abortable(operation: &OperationRecord) -> bool {
    !operation.deletes
        && operation.name != POOL_DELETE
        && operation.name != ABORT
        && operation.name != ABORT_POOL
}

/// Decides the abort of everything that runs for a cluster: desired returns to what was reached last. A cluster that never
/// was is emptied and stays visible; pools that are new since stay visible without nodes. Deletions go on.
pub(crate) fn abort(context: &Context<'_>, name: &Name<'_>, before: Current<'_>) -> Result<Draft, ArmError> {
    let present = before.record;
    if present.deleting {
        let message = format!(
            "The deletion of the cluster {} cannot be taken back (operation {}).",
            quote(&present.name),
            present.operation
        );
        return Err(ArmError::new(ErrorCode::CONFLICT, message));
    }
    if !before.running.iter().any(abortable) {
        return Err(nothing_to_abort(&format!("the cluster {}", quote(&present.name))));
    }
    let reached = before.last_reached()?;
    let state = match &reached {
        Some(reached) => {
            let pools = present.state.pools().into_iter();
            let pools = pools.map(|pool| returned(pool, Some(reached)));
            let pools = pools.collect::<Result<Vec<_>, _>>()?;
            // A control plane that has gone on, or has begun to, does not go back.
            let observed = before.observed.into_iter();
            let gone_on = observed.flat_map(|observed| {
                let serves = observed.kubernetes_version.iter();
                serves.chain(&observed.upgrading_to)
            });
            let version = |text: &String| text.parse::<Version>().ok();
            let newest = gone_on.max_by_key(|text| version(text));
            let frame = reached.state.with(|body, decided| {
                // What the state comes from stays: going back to an earlier restore would do that one again.
                decided.restore.clone_from(&present.state.decided().restore);
                // What emulates nothing any more may have stored what could not be read; and what emulates goes on to.
                decided.soak.clone_from(&present.state.decided().soak);
                // Who was archived and has begun to come back may have written: that is verified again before disks go.
                if let Some(archive) = &mut decided.archive
                    && present.state.decided().archive.as_ref() != Some(&*archive)
                {
                    archive.verified = None;
                }
                if let Some(newest) = newest
                    && version(newest) > version(&decided.kubernetes_version)
                {
                    decided.kubernetes_version.clone_from(newest);
                    body["properties"]["kubernetesVersion"] = json!(newest);
                }
            });
            frame
                .and_then(|frame| frame.with_pools(pools))
                .map_err(ArmError::internal)?
        }
        // Never reached: the wish stays as it is, for the next request to change and to continue from.
        None => present.state.clone(),
    };
    let mut draft = advance(context, name, Some(present), state, ABORT, None)?;
    let record = &mut draft.record;
    if let Some(reached) = &reached {
        record.sealed.clone_from(&reached.sealed);
    }
    record.requests.halted = reached.is_none();
    let generation = record.generation;
    let mut aborted = present.requests.aborted.clone();
    aborted.insert(Part::Base, generation);
    for (pool, own) in &mut record.pool_generations {
        if record.requests.halted {
            *own = generation;
        }
        if *own == generation {
            aborted.insert(Part::pool(pool.as_str()), generation);
        }
    }
    record.requests.aborted = aborted;
    Ok(draft)
}

/// Decides the abort of what runs for one pool.
pub(crate) fn abort_pool(
    context: &Context<'_>,
    name: &Name<'_>,
    pool: &str,
    before: Current<'_>,
) -> Result<Draft, ArmError> {
    let present = before.record;
    let runs = |operation: &OperationRecord| operation.pool() == Some(pool);
    if present.deleting || !before.running.iter().any(|other| runs(other) && abortable(other)) {
        return Err(nothing_to_abort(&format!("the pool {}", quote(pool))));
    }
    let reached = before.last_reached()?;
    let pools = present.state.pools().into_iter().map(|there| {
        if there.spec().name == pool {
            returned(there, reached.as_ref())
        } else {
            Ok(there)
        }
    });
    let pools = pools.collect::<Result<Vec<_>, _>>()?;
    let state = present.state.with_pools(pools).map_err(ArmError::internal)?;
    let mut draft = advance(context, name, Some(present), state, ABORT_POOL, Some(pool))?;
    let generation = draft.record.generation;
    draft.record.requests.aborted.insert(Part::pool(pool), generation);
    Ok(draft)
}

/// A pool as it was reached last; without nodes if it never was.
fn returned(pool: DesiredPool, reached: Option<&Reached>) -> Result<DesiredPool, ArmError> {
    let same = |old: &DesiredPool| {
        old.spec().name == pool.spec().name && old.spec().incarnation == pool.spec().incarnation
    };
    let before = reached.and_then(|reached| reached.state.pools().into_iter().find(same));
    match before {
        Some(before) => match (before.spec().autoscale, pool.spec().autoscale) {
            // The autoscaler's changes since then were not requests, and are kept.
            (Some(range), Some(_)) => {
                let now = pool.spec();
                let count = now.count.clamp(range.min, range.max);
                let kept = before.with(|body, decided| {
                    body["count"] = json!(count);
                    decided.removed.clone_from(&now.removed);
                });
                kept.map_err(ArmError::internal)
            }
            _ => Ok(before),
        },
        None => pool.emptied().map_err(ArmError::internal),
    }
}

fn nothing_to_abort(what: &str) -> ArmError {
    let message = format!(
        "No operation that can be aborted is running for {what}: it has ended already, or it is a deletion, which cannot be \
         taken back."
    );
    ArmError::new(ErrorCode::CONFLICT, message)
}
