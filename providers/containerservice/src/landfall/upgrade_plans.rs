//! `Landfall.ContainerService/managedClusters/upgradePlans`: the obstacles of an upgrade of a cluster, before it begins.
//!
//! | | |
//! |---|---|
//! | GET `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/upgradePlans/{version}` | for control plane and pools, as upgraded by `az aks upgrade` |
//!
//! Always true: it only reads, and reports each part that could not be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arm_kernel::{Operation, ResourceType, Verb, quote, store_error};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use cluster_spec::{ClusterSpec, PoolSpec};
use cluster_versions::{Offered, Version};
use control_records::{
    MachineRecord, Role, directory,
    times::{Step, StepTimes, words},
    usage::{Amounts, Limits, Usage, upgrade},
};
use serde_json::{Value, json};

use super::api::{HISTORY_API_VERSIONS, HISTORY_NAMESPACE, HistoryApi};
use crate::{
    ContainerService, estimates,
    records::ClusterPath,
    rehearsal::{
        UpgradeGuard,
        findings::{Facts, Weight, covers, findings},
        seen::{self, Pod, Seen},
    },
};

type Row = Operation<HistoryApi>;

/// The resource type.
pub(super) const UPGRADE_PLANS: ResourceType<HistoryApi> = ResourceType {
    path: "managedClusters/upgradePlans",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::read(Verb::Get, "UpgradePlans_Get", |api, call| {
        Box::pin(api.upgrade_plan(&call.request))
    })],
};

/// The input of rehearsals besides the records.
pub struct Rehearsals {
    /// Reads clusters.
    pub guard: Arc<UpgradeGuard>,
    /// Changes them.
    pub clusters: Arc<ContainerService>,
    /// The versions that are offered.
    pub offered: Offered,
    /// The limits of the stamp and its subscriptions.
    pub limits: Limits,
}

impl HistoryApi {
    async fn upgrade_plan(&self, request: &Request) -> Result<Response, ArmError> {
        let at = ClusterPath::of(&request.path)?;
        let of = self.cluster(at).await?;
        let Some(rehearsals) = &self.rehearsals else {
            return Err(ArmError::new(
                ErrorCode::SERVICE_UNAVAILABLE,
                "This service has no way to the APIs of clusters; nothing can be said of an upgrade.",
            ));
        };
        let spec = of.record.spec();
        let from: Version = spec.kubernetes_version.parse().map_err(ArmError::internal)?;
        let runs = of.observed.kubernetes_version.as_ref();
        let runs = runs.and_then(|runs| runs.parse::<Version>().ok());
        let target = target(&rehearsals.offered, from, runs.unwrap_or(from), at.child)?;
        let after = upgraded(spec, target);
        let usage = Usage::read(&*self.store).await.map_err(store_error)?;
        let excesses = rehearsals.limits.excesses(
            &usage.record,
            &of.record.subscription,
            &Amounts::of(spec),
            &Amounts::of(&after),
            upgrade(spec, &after),
        );
        let excesses: Vec<String> = excesses
            .iter()
            .map(|excess| {
                format!(
                    "the nodes that are added meanwhile pass a limit: {}, of which {} are in use of {}, and {} more are needed",
                    excess.quota.title(),
                    excess.usage,
                    excess.limit,
                    excess.required
                )
            })
            .collect();
        let machines = directory::machines(&*self.store, &of.record.uid).await;
        let replaced = replaced(machines.map_err(store_error)?, spec, &after);
        let nodes: BTreeSet<String> = replaced.keys().cloned().collect();
        let times = estimates::times(&*self.store, Some(&of.observed)).await?;
        let now = self.env.clock.now();
        let (seen, uses) = futures::future::join(
            seen::read(rehearsals.guard.reader(), &of.record.uid),
            rehearsals.guard.uses(&of.record.uid, now),
        )
        .await;
        let found = findings(&Facts {
            target,
            minor: target.minor > from.minor,
            forced: spec
                .forced_until
                .is_some_and(|until| until > now.as_millisecond()),
            nodes: &nodes,
            uses: &uses,
            seen: &seen,
            excesses: &excesses,
        });
        let name = target.to_string();
        let id = arm_ids::resource_id(
            &of.record.subscription,
            &of.record.resource_group,
            HISTORY_NAMESPACE,
            &[
                ("managedClusters", of.record.name.as_str()),
                ("upgradePlans", name.as_str()),
            ],
        );
        let pools = spec.pools.iter().zip(&after.pools);
        let pools = pools.filter(|(before, after)| before.kubernetes_version != after.kubernetes_version);
        let steps = replaced.iter().filter_map(|(node, pool)| {
            let pool = spec.pools.iter().find(|own| own.name == *pool)?;
            Some(step(node, pool, &seen, &times))
        });
        let control_plane = if target == from {
            0
        } else {
            times.control_plane(spec)
        };
        Ok(Response::ok(json!({
            "id": id,
            "name": name,
            "type": format!("{HISTORY_NAMESPACE}/managedClusters/upgradePlans"),
            "cluster": of.record.name,
            "resourceGroup": of.record.resource_group,
            "from": from.to_string(),
            "to": target.to_string(),
            "refused": found.iter().any(|finding| finding.weight == Weight::Refused),
            "findings": found.iter().map(|finding| finding.answer()).collect::<Vec<_>>(),
            "controlPlane": { "members": spec.tier.members(), "estimatedSeconds": control_plane },
            "pools": pools.map(|(before, after)| pool(before, after, &times)).collect::<Vec<_>>(),
            "nodes": steps.collect::<Vec<_>>(),
            "estimatedSeconds": times.upgrade(spec, &after),
            "estimatedFrom": if times.is_empty() { "Defaults" } else { "Measured" },
        })))
    }
}

/// The requested version, if the control plane can be upgraded to it, or runs it already.
fn target(offered: &Offered, from: Version, runs: Version, asked: &str) -> Result<Version, ArmError> {
    let wrong = |message: String| ArmError::new(ErrorCode::INVALID_PARAMETER, message).target("version");
    let target = offered
        .resolve(asked)
        .map_err(|error| wrong(format!("{error}.")))?;
    let steps = offered.upgrades(runs.min(from));
    if target == from || steps.contains(&target) {
        return Ok(target);
    }
    let steps: Vec<String> = steps.iter().map(Version::to_string).collect();
    Err(wrong(format!(
        "The control plane runs {} and cannot go to {}; from there it can go to {}.",
        runs.min(from),
        quote(asked),
        if steps.is_empty() {
            "nothing newer".to_owned()
        } else {
            steps.join(" or ")
        }
    )))
}

/// The cluster with control plane and pools at a version.
fn upgraded(spec: &ClusterSpec, target: Version) -> ClusterSpec {
    let mut after = spec.clone();
    after.kubernetes_version = target.to_string();
    for pool in &mut after.pools {
        pool.kubernetes_version = target.to_string();
    }
    after
}

/// The nodes that would be replaced, by name, each with its pool.
fn replaced(
    machines: Vec<MachineRecord>,
    before: &ClusterSpec,
    after: &ClusterSpec,
) -> BTreeMap<String, String> {
    let same = |name: &str| {
        let version = |spec: &ClusterSpec| {
            let pool = spec.pools.iter().find(|pool| pool.name == name);
            pool.map(|pool| pool.kubernetes_version.clone())
        };
        version(before) == version(after)
    };
    let nodes = machines.into_iter().filter(|machine| !machine.deleting);
    nodes
        .filter_map(|machine| match machine.assignment?.role {
            Role::Node { pool, node_name, .. } => (!same(&pool)).then_some((node_name, pool)),
            Role::ControlPlane { .. } => None,
        })
        .collect()
}

/// What the replacement of a node waits for, and how long that takes as a rule. What holds its pods up is named; how long that does is not known.
fn step(node: &str, pool: &PoolSpec, seen: &Seen, times: &StepTimes) -> Value {
    let mut waits = vec![format!(
        "a node in its place to start: {}",
        words(times.usual(Step::Start))
    )];
    let pods = match &seen.pods {
        Ok(pods) => {
            let own: Vec<&Pod> = pods.iter().filter(|pod| pod.node == node).collect();
            waits.push(format!(
                "{} pods to leave: {}",
                own.len(),
                words(times.usual(Step::Leave))
            ));
            waits.extend(held_by(&own, seen));
            json!(own.len())
        }
        Err(_) => {
            waits.push(format!("its pods to leave: {}", words(times.usual(Step::Leave))));
            Value::Null
        }
    };
    if pool.soak_minutes > 0 {
        waits.push(format!("its soak time: {} min", pool.soak_minutes));
    }
    json!({
        "name": node,
        "pool": pool.name,
        "pods": pods,
        "waitsFor": waits,
        "estimatedSeconds": times.node(pool),
    })
}

/// The disruption budgets that pods of a node wait for: how many of them may leave at a time.
fn held_by(pods: &[&Pod], seen: &Seen) -> Vec<String> {
    let budgets = seen.budgets.iter().flatten();
    let held = budgets.filter_map(|budget| {
        let covered = pods.iter().filter(|pod| covers(budget, pod)).count();
        let allowed = usize::try_from(budget.allowed).unwrap_or_default();
        (covered > allowed).then(|| {
            format!(
                "the disruption budget {}/{}, which lets {} of {covered} pods go at a time",
                budget.namespace, budget.name, budget.allowed
            )
        })
    });
    held.collect()
}

/// The upgrade of a pool, by what was measured before; and the longest wait for drains and soaks.
fn pool(before: &PoolSpec, after: &PoolSpec, times: &StepTimes) -> Value {
    let nodes = before.wanted();
    let at_a_time = (before.surge + before.unavailable).max(1);
    let rounds = nodes.div_ceil(at_a_time);
    json!({
        "name": before.name,
        "from": before.kubernetes_version,
        "to": after.kubernetes_version,
        "nodes": nodes,
        "surge": before.surge,
        "unavailable": before.unavailable,
        "drainTimeoutInMinutes": before.drain_minutes,
        "nodeSoakDurationInMinutes": before.soak_minutes,
        "undrainableNodeBehavior": before.undrainable,
        "estimatedMinutes": times.pool(before).div_ceil(60),
        "estimatedSeconds": times.pool(before),
        "waitsAtMostMinutes": rounds.saturating_mul(before.drain_minutes + before.soak_minutes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_for_a_version_that_can_be_had() {
        let offered = Offered::new(["1.35.1", "1.36.3", "1.37.1"], Some("1.36.3")).unwrap();
        let version = |text: &str| text.parse::<Version>().unwrap();
        let ask = |asked: &str| target(&offered, version("1.35.1"), version("1.35.1"), asked);
        assert_eq!(ask("1.36").unwrap(), version("1.36.3"));
        assert_eq!(
            ask("1.35.1").unwrap(),
            version("1.35.1"),
            "its pools may be behind"
        );
        let error = ask("1.37.1").unwrap_err();
        assert!(error.message.contains("it can go to 1.36.3"), "{}", error.message);
        assert!(ask("1.99.0").is_err());
    }
}
