//! Decisions that change one pool of a cluster. Pure.

use arm_kernel::{
    quote,
    schema::{Problems, clean},
};
use arm_wire::{ArmError, ErrorCode};
use cluster_spec::{ClusterSpec, PoolMode};
use control_records::{ClusterRecord, Part};
use serde_json::Value;

use super::decide::{Present, Surroundings, decide};
use crate::{
    clusters::{
        aspects::refuse_change,
        body::{POOLS, bodies_and_specs, check_count, not_an_object},
        draft::{Context, Draft, Name, advance},
        network, requests,
    },
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
    let mut cleaned = clean(&POOL, body, context.api_version, &mut problems);
    let draft = match cleaned.body.remove("properties") {
        Some(Value::Object(properties)) => properties,
        _ => serde_json::Map::new(),
    };
    let mut pools = bodies_and_specs(present);
    let place = pools.iter().position(|(_, spec)| spec.name == pool);
    let control_plane = present
        .spec
        .kubernetes_version
        .parse()
        .map_err(ArmError::internal)?;
    let around = Surroundings {
        offered: &context.config.offered,
        control_plane,
        plugin: present.spec.network.plugin,
        ids: context.ids,
        mode: PoolMode::User,
    };
    let before = place.map(|place| Present {
        body: &pools[place].0,
        spec: &pools[place].1,
    });
    let decided = decide(pool, draft, before, &around, "properties", &mut problems);
    match place {
        Some(place) => pools[place] = decided,
        None => pools.push(decided),
    }
    if !pools.iter().any(|(_, spec)| spec.mode == PoolMode::System) {
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
    let (bodies, specs): (Vec<_>, Vec<_>) = pools.into_iter().unzip();
    network::check_room(&present.spec.network, &specs, "properties.count", &mut problems);
    problems.into_result()?;
    let mut spec = present.spec.clone();
    spec.pools = specs;
    Ok(with_pools(
        context,
        name,
        present,
        bodies,
        spec,
        "AgentPools_CreateOrUpdate",
        pool,
    ))
}

/// Decides a DELETE of a pool that is there.
pub(crate) fn delete_pool(
    context: &Context<'_>,
    name: &Name<'_>,
    pool: &str,
    present: &ClusterRecord,
) -> Result<Draft, ArmError> {
    refuse_change(present)?;
    let mut pools = bodies_and_specs(present);
    let incarnation = pools
        .iter()
        .find(|(_, spec)| spec.name == pool)
        .map(|(_, spec)| spec.incarnation.clone());
    pools.retain(|(_, spec)| spec.name != pool);
    if !pools.iter().any(|(_, spec)| spec.mode == PoolMode::System) {
        let message = format!(
            "{} is the cluster's last system pool and cannot be deleted; add another system pool first, or delete the cluster.",
            quote(pool)
        );
        return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message).target(POOLS));
    }
    let (bodies, specs): (Vec<_>, Vec<_>) = pools.into_iter().unzip();
    let mut spec = present.spec.clone();
    spec.pools = specs;
    let mut draft = with_pools(context, name, present, bodies, spec, requests::POOL_DELETE, pool);
    // Not the pool of that name, which may be made anew before this one is gone.
    draft.operation.part = incarnation.map(|incarnation| Part::Leaving {
        pool: pool.to_owned(),
        incarnation,
    });
    Ok(draft)
}

fn with_pools(
    context: &Context<'_>,
    name: &Name<'_>,
    present: &ClusterRecord,
    bodies: Vec<Value>,
    spec: ClusterSpec,
    operation: &str,
    pool: &str,
) -> Draft {
    let mut body = present.body.clone();
    body["properties"]["agentPoolProfiles"] = Value::Array(bodies);
    advance(context, name, Some(present), body, spec, operation, Some(pool))
}
