//! What channels ask for, as changes of what a cluster is to be. Pure.

use std::collections::{BTreeMap, BTreeSet};

use arm_kernel::{Decision, schema::Problems};
use arm_wire::ArmError;
use cluster_maintenance::{UpgradeChannel, Versions};
use cluster_spec::ClusterSpec;
use cluster_versions::{Offered, Version};
use control_records::{ClusterRecord, MachineRecord, Role};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    ContainerService,
    clusters::{
        draft::{Context, Draft, Name, advance},
        hooks::refuse_change,
        requests::Current,
        upgrade_guard,
    },
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

/// The versions that the cluster's channel requests next; `None` if it requests none.
fn next(record: &ClusterRecord, offered: &Offered) -> Option<Versions> {
    let channel = record
        .body()
        .pointer("/properties/autoUpgradeProfile/upgradeChannel")
        .and_then(Value::as_str)
        .unwrap_or_default();
    versions(record.spec()).and_then(|now| UpgradeChannel::of(channel).next(&now, offered))
}

/// The minor release of the control plane that the cluster's channel requests next.
pub(crate) fn requested(provider: &ContainerService, record: &ClusterRecord) -> Option<u32> {
    next(record, &provider.config.offered).map(|next| next.control_plane.minor)
}

/// Decides the upgrade that the cluster's channel asks for; nothing where it asks for none by now.
///
/// # Errors
/// As for an upgrade by a user: an API in use that the version does not have.
pub(crate) fn upgrade(
    context: &Context<'_>,
    name: &Name<'_>,
    before: Current<'_>,
) -> Result<Decision<Draft>, ArmError> {
    let present = before.record;
    refuse_change(present)?;
    let Some(next) = next(present, &context.config.offered) else {
        return Ok(Decision::Unchanged);
    };
    if let Some(properties) = present.body().get("properties").and_then(Value::as_object) {
        let mut problems = Problems::default();
        upgrade_guard::check(
            context,
            Some(present),
            next.control_plane,
            properties,
            &mut problems,
        );
        problems.into_result()?;
    }
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
