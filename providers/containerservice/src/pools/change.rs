//! Decisions that change one pool of a cluster. Pure.

use arm_kernel::{quote, schema::Problems};
use arm_wire::{ArmError, ErrorCode};
use cluster_spec::PoolMode;
use control_records::{ClusterRecord, DesiredPool, Part};
use serde_json::Value;

use super::decide::{Surroundings, decide};
use crate::{
    clusters::{
        body::{POOLS, check_count, not_an_object},
        draft::{Context, Draft, Name, advance},
        hooks::refuse_change,
        network, requests, soak,
        subnets::Place,
    },
    conversion::from_client,
    formats::is_pool_name,
    properties::POOL,
};

/// Decides a PUT of a pool.
pub(crate) fn put_pool(
    context: &Context<'_>,
    name: &Name<'_>,
    pool: &str,
    present: &ClusterRecord,
    body: &Value,
) -> Result<Draft, ArmError> {
    if !is_pool_name(pool) {
        let message = format!(
            "The pool name {} must have 1 to 12 lower-case letters and digits, beginning with a letter.",
            quote(pool)
        );
        return Err(ArmError::new(ErrorCode::INVALID_RESOURCE_NAME, message).target("name"));
    }
    refuse_change(present)?;
    if !body.is_object() {
        return Err(not_an_object());
    }
    let mut problems = Problems::default();
    let mut pools = present.state.pools();
    let place = pools.iter().position(|there| there.spec().name == pool);
    let there = place.map(|place| serde_json::json!({ "properties": pools[place].body() }));
    let mut cleaned = from_client(&POOL, body, there.as_ref(), context.api_version, &mut problems);
    let draft = match cleaned.body.remove("properties") {
        Some(Value::Object(properties)) => properties,
        _ => serde_json::Map::new(),
    };
    let control_plane = present
        .spec()
        .kubernetes_version
        .parse()
        .map_err(ArmError::internal)?;
    let soaking = soak::soaking(present);
    let subnets = Place::of(context.vnets, Some(present), None);
    let around = Surroundings {
        place: &subnets,
        offered: &context.config.offered,
        control_plane: soaking.as_ref().map_or(control_plane, |soaking| soaking.from),
        plugin: present.spec().network.plugin,
        ids: context.ids,
        mode: PoolMode::User,
        snapshots: context.snapshots,
        shown_stopped: context.shown_stopped,
        alone: true,
        images: context.images,
        now: context.now,
        upgrades_itself: soak::upgrades_itself(present.body()),
        emulates: soaking.is_some(),
    };
    let before = place.map(|place| &pools[place]);
    let decided = decide(pool, draft, before, &around, "properties", &mut problems)?;
    match place {
        Some(place) => pools[place] = decided,
        None => pools.push(decided),
    }
    if !pools.iter().any(|pool| pool.spec().mode == PoolMode::System) {
        problems.add(
            ErrorCode::OPERATION_NOT_ALLOWED,
            "properties.mode",
            format!(
                "{} is the cluster's last system pool; it must stay one.",
                quote(pool)
            ),
        );
    }
    check_count(pools.len(), &mut problems);
    network::check_room(&present.spec().network, &pools, "properties.count", &mut problems);
    subnets.check_room(&pools, "properties.count", &mut problems);
    problems.into_result()?;
    let vnet = subnets.decided(&pools);
    let state = present.state.with(|_, decided| decided.vnet = vnet);
    let state = state.and_then(|state| state.with_pools(pools));
    let state = state.map_err(ArmError::internal)?;
    advance(
        context,
        name,
        Some(present),
        state,
        "AgentPools_CreateOrUpdate",
        Some(pool),
    )
}

/// Decides a DELETE of a pool that is there.
pub(crate) fn delete_pool(
    context: &Context<'_>,
    name: &Name<'_>,
    pool: &str,
    present: &ClusterRecord,
) -> Result<Draft, ArmError> {
    refuse_change(present)?;
    let mut pools = present.state.pools();
    let incarnation = pools
        .iter()
        .find(|there| there.spec().name == pool)
        .map(|there| there.spec().incarnation.clone());
    pools.retain(|there| there.spec().name != pool);
    if !pools.iter().any(|pool| pool.spec().mode == PoolMode::System) {
        let message = format!(
            "{} is the cluster's last system pool and cannot be deleted; add another system pool first, or delete the cluster.",
            quote(pool)
        );
        return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message).target(POOLS));
    }
    let mut draft = with_pools(context, name, present, pools, requests::POOL_DELETE, pool)?;
    // Not the pool of that name, which may be made anew before this one is gone.
    draft.operation.part = incarnation.map(|incarnation| Part::Leaving {
        pool: pool.to_owned(),
        incarnation,
    });
    Ok(draft)
}

pub(super) fn with_pools(
    context: &Context<'_>,
    name: &Name<'_>,
    present: &ClusterRecord,
    pools: Vec<DesiredPool>,
    operation: &str,
    pool: &str,
) -> Result<Draft, ArmError> {
    let state = present.state.with_pools(pools).map_err(ArmError::internal)?;
    advance(context, name, Some(present), state, operation, Some(pool))
}
