//! What channels ask for, as changes of what a cluster is to be. Pure.

use arm_kernel::{Decision, schema::Problems};
use arm_wire::ArmError;
use cluster_maintenance::{UpgradeChannel, Versions};
use cluster_spec::{ClusterSpec, is_newer};
use cluster_versions::{Offered, Version};
use control_records::{ClusterRecord, DesiredPool, MachineRecord, Role};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    ContainerService,
    clusters::{
        draft::{Context, Draft, Name, advance},
        hooks::refuse_change,
        requests::Current,
        soak, upgrade_guard,
    },
    images::Images,
    pools::nodes::newest,
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

/// A node of which it is not known which build it has is older than an image of this much later: the first nodes of a version are written down
/// before its image is built.
const OLDER: SignedDuration = SignedDuration::from_hours(24);

/// Pools for which there is a newer build of their version's image: another one than what they were taken back from, and with other packages
/// where `patched` is asked, given version and both builds. Of a pool whose build is not known: where a node was made well before that.
pub(super) fn outdated(
    pools: &[DesiredPool],
    machines: &[MachineRecord],
    images: &Images,
    patched: &dyn Fn(&str, &str, &str) -> bool,
) -> Vec<String> {
    let is_old = |pool: &&DesiredPool| {
        let (spec, decided) = (pool.spec(), pool.decided());
        let Some(newest) = images.newest(&spec.kubernetes_version) else {
            return false;
        };
        if decided.left.as_deref() == Some(newest) {
            return false;
        }
        match &spec.image {
            Some(own) => is_newer(newest, own) && patched(&spec.kubernetes_version, own, newest),
            None => machines.iter().any(|machine| {
                let own = machine.assignment.as_ref().is_some_and(
                    |given| matches!(&given.role, Role::Node { pool, .. } if *pool == spec.name),
                );
                own && !machine.deleting && machine.build.is_none() && is_before(machine.created_at, newest)
            }),
        }
    };
    let old = pools.iter().filter(is_old);
    old.map(|pool| pool.spec().name.clone()).collect()
}

/// Whether a moment is well before the day of a build.
fn is_before(at: Timestamp, build: &str) -> bool {
    let day = at
        .checked_add(OLDER)
        .unwrap_or(Timestamp::MAX)
        .strftime("%Y.%m.%d")
        .to_string();
    is_newer(build, &day)
}

/// How a body calls a version: as before, where that still means it.
fn called(before: Option<&Value>, version: Version) -> Value {
    let before = before.and_then(Value::as_str);
    match before.and_then(|text| text.parse().ok()) {
        Some(wanted) if version.is_meant_by(wanted) => json!(before),
        _ => json!(version.to_string()),
    }
}

/// The versions that the cluster's channel requests next; `None` if it requests none, as while there is a way back from an upgrade.
fn next(record: &ClusterRecord, offered: &Offered) -> Option<Versions> {
    if soak::soaking(record).is_some() {
        return None;
    }
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
    let now = context.now.as_millisecond();
    let pools = present.state.pools().into_iter().zip(&next.pools);
    let pools = pools.map(|(pool, version)| {
        if pool.spec().kubernetes_version == version.to_string() {
            return Ok(pool);
        }
        pool.with(|body, decided| {
            let version_text = version.to_string();
            let image = context.images.newest(&version_text).map(str::to_owned);
            decided.go_to(&version_text, image, now);
            body["orchestratorVersion"] = called(body.get("orchestratorVersion"), *version);
        })
    });
    let pools = pools.collect::<Result<Vec<_>, _>>().map_err(ArmError::internal)?;
    let version = next.control_plane;
    let soak = soak::carried(Some(present), version);
    let state = present.state.with(|body, decided| {
        decided.soak = soak;
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
            pool.with(|_, decided| {
                decided.renewed = Some(now);
                newest(decided, context.images, now);
            })
        } else {
            Ok(pool)
        }
    });
    let all = all.collect::<Result<Vec<_>, _>>().map_err(ArmError::internal)?;
    let state = present.state.with_pools(all).map_err(ArmError::internal)?;
    advance(context, name, Some(present), state, RENEW, None)
}
