//! Which parts of a cluster an operation is about, and which of them have got there. An operation about one part ends when that
//! part is there, whatever goes on in the others.

use control_records::{Milestone, OperationRecord, Part};

use crate::{Draft, checks::Checks};

/// Notes that all of the cluster has got there.
pub(crate) fn generation(draft: &mut Draft<'_>, checks: &Checks) {
    if !checks.all_done() || !draft.writes.is_empty() || draft.reached_before() {
        return;
    }
    draft.observed.generation = draft.desired.generation;
    if draft.observed.renderers.is_none() {
        draft.observed.renderers = Some(draft.seen.renderers.clone());
    }
    draft.observed.came_about(Milestone::Converged, draft.now);
    for pool in &draft.desired.spec().pools {
        draft.observed.ready_nodes.entry(pool.name.clone()).or_insert(0);
    }
}

/// Notes which parts have got there before all of the cluster has.
pub(crate) fn reached(draft: &mut Draft<'_>, checks: &Checks) {
    if draft.observed.generation >= draft.desired.generation {
        draft.observed.reached.clear();
        return;
    }
    if !draft.served {
        return;
    }
    let leaving = &draft.desired.requests.leaving;
    let pools = draft.desired.pool_generations.iter();
    let parts = std::iter::once((Part::Base, draft.desired.requests.generation))
        .chain(pools.map(|(pool, own)| (Part::pool(pool), *own)))
        .chain(leaving.iter().map(|pool| (pool.part(), pool.generation)));
    let parts: Vec<_> = parts.collect();
    for (part, own) in &parts {
        let there = checks.part_done(part);
        let before = draft.observed.reached.get(part).copied();
        if there && *own > 0 && before.is_none_or(|before| before < *own) && draft.observed.generation < *own
        {
            draft
                .observed
                .reached
                .insert(part.clone(), draft.desired.generation);
        }
    }
    let known = |part: &Part| parts.iter().any(|(other, _)| other == part);
    draft.observed.reached.retain(|part, _| known(part));
}

/// Which parts an operation is about.
pub(crate) fn scope(draft: &Draft<'_>, operation: &OperationRecord) -> Vec<Part> {
    let desired = draft.desired;
    let pools = |most: u64| {
        let changed = desired
            .pool_generations
            .iter()
            .filter(move |(_, own)| **own <= most);
        changed.map(|(pool, _)| Part::pool(pool))
    };
    match &operation.part {
        _ if operation.deletes => std::iter::once(Part::Base).chain(pools(u64::MAX)).collect(),
        Some(part) => vec![part.clone()],
        None => std::iter::once(Part::Base)
            .chain(pools(operation.generation))
            .collect(),
    }
}

/// Whether what an operation asked for is there.
pub(crate) fn is_reached(draft: &Draft<'_>, operation: &OperationRecord) -> bool {
    let observed = &draft.observed;
    observed.generation >= operation.generation
        || scope(draft, operation).iter().all(|part| {
            // A pool that has vanished from the records is no operation's to wait for alone.
            let own = draft.desired.part_generation(part);
            let own = match part {
                // What nobody keeps as on its way out any more is gone.
                Part::Leaving { .. } if own.is_none() => return true,
                Part::Base => Some(operation.generation),
                _ if operation.part.is_some() => Some(operation.generation),
                _ => own,
            };
            own.is_some_and(|own| observed.has_reached(part, own))
        })
}
