//! What channels ask for, as changes of what a cluster is to be. Pure.

use std::collections::{BTreeMap, BTreeSet};

use arm_kernel::Decision;
use arm_wire::ArmError;
use cluster_maintenance::{UpgradeChannel, Versions};
use cluster_spec::ClusterSpec;
use cluster_versions::Version;
use control_records::{MachineRecord, Role};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::clusters::{
    draft::{Context, Draft, Name, advance},
    hooks::refuse_change,
    requests::Current,
};

/// What an upgrade by `upgradeChannel` is called as an operation.
const UPGRADE: &str = "ManagedClusters_AutoUpgrade";
/// What newer node images by a channel are called as an operation.
const RENEW: &str = "ManagedClusters_NodeImageAutoUpgrade";

/// The versions that a cluster is to have.
pub(super) fn versions(spec: &ClusterSpec) -> Option<Versions> {
    let pools = spec.pools.iter().map(|pool| pool.kubernetes_version.parse().ok());
    Some(Versions {
        control_plane: spec.kubernetes_version.parse().ok()?,
        pools: pools.collect::<Option<Vec<Version>>>()?,
    })
}

/// A node is older than an image that was built so much later: the first nodes of a version are written down before its image is built.
const OLDER: SignedDuration = SignedDuration::from_hours(24);

/// Pools with a node that was made well before the newest image of its version was built (`built`, by version).
pub(super) fn outdated(
    spec: &ClusterSpec,
    machines: &[MachineRecord],
    built: &BTreeMap<&str, Timestamp>,
) -> Vec<String> {
    let old: BTreeSet<&str> = machines
        .iter()
        .filter(|machine| {
            let built = built.get(machine.image.as_str());
            let older = |built: &Timestamp| built.duration_since(machine.created_at) > OLDER;
            !machine.deleting && built.is_some_and(older)
        })
        .filter_map(|machine| match &machine.assignment.as_ref()?.role {
            Role::Node { pool, .. } => Some(pool.as_str()),
            Role::ControlPlane { .. } => None,
        })
        .collect();
    let pools = spec.pools.iter().map(|pool| &pool.name);
    pools
        .filter(|pool| old.contains(pool.as_str()))
        .cloned()
        .collect()
}

/// How a body calls a version: as before, where that still means it.
fn called(before: Option<&Value>, version: Version) -> Value {
    let before = before.and_then(Value::as_str);
    match before.and_then(|text| text.parse().ok()) {
        Some(wanted) if version.is_meant_by(wanted) => json!(before),
        _ => json!(version.to_string()),
    }
}

/// Decides the upgrade that the cluster's channel asks for; nothing where it asks for none by now.
pub(super) fn upgrade(
    context: &Context<'_>,
    name: &Name<'_>,
    before: Current<'_>,
) -> Result<Decision<Draft>, ArmError> {
    let present = before.record;
    refuse_change(present)?;
    let channel = present
        .body()
        .pointer("/properties/autoUpgradeProfile/upgradeChannel")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let next = versions(present.spec())
        .and_then(|now| UpgradeChannel::of(channel).next(&now, &context.config.offered));
    let Some(next) = next else {
        return Ok(Decision::Unchanged);
    };
    let pools = present.state.pools().into_iter().zip(&next.pools);
    let pools = pools.map(|(pool, version)| {
        if pool.spec().kubernetes_version == version.to_string() {
            return Ok(pool);
        }
        pool.with(|body, decided| {
            decided.kubernetes_version = version.to_string();
            body["orchestratorVersion"] = called(body.get("orchestratorVersion"), *version);
        })
    });
    let pools = pools.collect::<Result<Vec<_>, _>>().map_err(ArmError::internal)?;
    let version = next.control_plane;
    let state = present.state.with(|body, decided| {
        decided.kubernetes_version = version.to_string();
        let shown = called(body.pointer("/properties/kubernetesVersion"), version);
        body["properties"]["kubernetesVersion"] = shown;
    });
    let state = state
        .and_then(|state| state.with_pools(pools))
        .map_err(ArmError::internal)?;
    advance(context, name, Some(present), state, UPGRADE, None).map(Decision::Write)
}

/// Decides that nodes of these pools that were made before now are replaced by new ones.
pub(crate) fn renew(
    context: &Context<'_>,
    name: &Name<'_>,
    before: Current<'_>,
    pools: &[String],
) -> Result<Draft, ArmError> {
    let present = before.record;
    refuse_change(present)?;
    let now = context.now.as_millisecond();
    let all = present.state.pools().into_iter().map(|pool| {
        if pools.contains(&pool.spec().name) {
            pool.with(|_, decided| decided.renewed = Some(now))
        } else {
            Ok(pool)
        }
    });
    let all = all.collect::<Result<Vec<_>, _>>().map_err(ArmError::internal)?;
    let state = present.state.with_pools(all).map_err(ArmError::internal)?;
    advance(context, name, Some(present), state, RENEW, None)
}
