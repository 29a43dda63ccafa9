//! Requests to delete nodes of a pool, or to reimage all of them with the newest node image. Pure.
//!
//! Always true: a node to be deleted is identified by its machine, whose id is never reused; a later node of
//! the same name stays.

use std::collections::BTreeSet;

use arm_kernel::{Decision, quote, schema::Problems};
use arm_wire::{ArmError, ErrorCode};
use cluster_spec::PoolMode;
use control_records::{DecidedPool, DesiredPool};
use serde_json::{Value, json};

use super::change::with_pools;
use crate::{
    clusters::{
        body::not_an_object,
        draft::{Context, Draft, Name},
        hooks::refuse_change,
        requests::Current,
    },
    images::Images,
};

pub(crate) const DELETE_MACHINES: &str = "AgentPools_DeleteMachines";
pub(crate) const UPGRADE_IMAGE: &str = "AgentPools_UpgradeNodeImageVersion";

/// The most nodes of a request: more than a pool has.
const MOST_NAMES: usize = 1000;
const NAMES: &str = "machineNames";

/// A node of a pool that is not being deleted: its name and its machine's id.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) machine: String,
}

/// Decides to delete these nodes, and to reduce the pool's count by their number. A pool with an autoscaler
/// keeps its minimum, and gets other nodes in their place.
pub(crate) fn delete_machines(
    context: &Context<'_>,
    name: &Name<'_>,
    pool: &str,
    before: Current<'_>,
    nodes: &[Node],
    body: &Value,
) -> Result<Decision<Draft>, ArmError> {
    let present = before.record;
    refuse_change(present)?;
    let asked = asked(body, pool, nodes)?;
    let mut pools = present.state.pools();
    let Some(there) = pools.iter_mut().find(|there| there.spec().name == pool) else {
        return Err(ArmError::internal("a pool that was found is not among the pools"));
    };
    let more: BTreeSet<&String> = asked
        .iter()
        .filter(|id| !there.spec().removed.contains(*id))
        .collect();
    if more.is_empty() {
        let mut running = before.running.iter().rev();
        let same = running.find(|running| running.name == DELETE_MACHINES && running.pool() == Some(pool));
        return Ok(same.map_or(Decision::Unchanged, |same| Decision::InProgress(same.id.clone())));
    }
    let fewer = u32::try_from(more.len()).unwrap_or(u32::MAX);
    let least = there.spec().autoscale.map_or(0, |range| range.min);
    let count = there.spec().count.saturating_sub(fewer).max(least);
    if there.spec().mode == PoolMode::System && count == 0 {
        let message = format!(
            "The system pool {} needs at least 1 node; it has {}, and {fewer} of them would go.",
            quote(pool),
            there.spec().count
        );
        return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message).target(NAMES));
    }
    // Nodes that no longer exist are removed from the list.
    let known = |id: &String| nodes.iter().any(|node| node.machine == *id);
    *there = there
        .with(|body, decided| {
            body["count"] = json!(count);
            decided.removed.retain(known);
            decided.removed.extend(asked);
        })
        .map_err(ArmError::internal)?;
    with_pools(context, name, present, pools, DELETE_MACHINES, pool).map(Decision::Write)
}

/// The machines in a body.
fn asked(body: &Value, pool: &str, nodes: &[Node]) -> Result<BTreeSet<String>, ArmError> {
    let body = body.as_object().ok_or_else(not_an_object)?;
    let mut problems = Problems::default();
    for unknown in body.keys().filter(|member| *member != NAMES) {
        let message = format!("There is no property {} here.", quote(unknown));
        problems.add(ErrorCode::UNKNOWN_PROPERTY, unknown, message);
    }
    let names = body.get(NAMES).and_then(Value::as_array);
    let names = names.map(Vec::as_slice).unwrap_or_default();
    if names.is_empty() || names.len() > MOST_NAMES {
        let message =
            format!("'{NAMES}' must be a list of the names of 1 to {MOST_NAMES} machines of the pool.");
        problems.add(ErrorCode::INVALID_PARAMETER, NAMES, message);
    }
    let mut machines = BTreeSet::new();
    for (index, asked) in names.iter().take(MOST_NAMES).enumerate() {
        let named = asked
            .as_str()
            .map(|asked| nodes.iter().find(|node| node.name.eq_ignore_ascii_case(asked)));
        let message = match named {
            Some(Some(node)) => {
                machines.insert(node.machine.clone());
                continue;
            }
            Some(None) => format!(
                "The pool '{pool}' has no machine {}.",
                quote(asked.as_str().unwrap_or_default())
            ),
            None => "The name of a machine must be a string.".to_owned(),
        };
        problems.add(ErrorCode::INVALID_PARAMETER, format!("{NAMES}[{index}]"), message);
    }
    problems.into_result()?;
    Ok(machines)
}

/// The pool's nodes are to have the newest build of their version's image, where one is known.
pub(crate) fn newest(decided: &mut DecidedPool, images: &Images, now: i64) {
    let version = decided.kubernetes_version.clone();
    if let Some(build) = images.newest(&version) {
        decided.go_to(&version, Some(build.to_owned()), now);
    }
}

/// Decides to replace all nodes that exist now by new ones with the newest node image, as an upgrade does. Where they have that, they are made
/// anew with it.
pub(crate) fn upgrade_image(
    context: &Context<'_>,
    name: &Name<'_>,
    pool: &str,
    before: Current<'_>,
) -> Result<Draft, ArmError> {
    let present = before.record;
    refuse_change(present)?;
    let now = context.now.as_millisecond();
    let pools = present.state.pools().into_iter().map(|there| {
        if there.spec().name == pool {
            there.with(|_, decided| {
                decided.renewed = Some(now);
                newest(decided, context.images, now);
            })
        } else {
            Ok(there)
        }
    });
    let pools: Vec<DesiredPool> = pools.collect::<Result<_, _>>().map_err(ArmError::internal)?;
    with_pools(context, name, present, pools, UPGRADE_IMAGE, pool)
}
