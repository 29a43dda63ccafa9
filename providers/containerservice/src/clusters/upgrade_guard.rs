//! The guard of upgrades: refuses a minor release that lacks an API in use, as in AKS. It applies to requests of users and of channels.
//!
//! If the APIs in use cannot be read, the upgrade is permitted. An override with an end time
//! (`upgradeSettings.overrideSettings`) permits it as well.

use arm_kernel::schema::Problems;
use arm_wire::ErrorCode;
use cluster_versions::{Version, Wanted};
use control_records::ClusterRecord;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{State, draft::Context};
use crate::{
    ContainerService,
    rehearsal::{findings::is_removed, seen::Use},
};

/// The minor release of the control plane that a body requests.
pub(super) fn requested(body: &Value) -> Option<u32> {
    let asked = body
        .pointer("/properties/kubernetesVersion")
        .and_then(Value::as_str);
    let asked = asked?.parse::<Wanted>().ok()?;
    Some(match asked {
        Wanted::Exact(version) => version.minor,
        Wanted::Newest { minor, .. } => minor,
    })
}

/// Reads the deprecated APIs in use, if a running cluster is to get a newer minor release.
pub(super) async fn read(provider: &ContainerService, state: &mut State, requested: Option<u32>) {
    let newer = requested
        .zip(state.record())
        .is_some_and(|(requested, record)| is_newer(record, requested));
    if newer {
        read_now(provider, state).await;
    }
}

/// Reads the deprecated APIs in use in a running cluster.
pub(super) async fn read_now(provider: &ContainerService, state: &mut State) {
    let Some((guard, found)) = provider.guard.as_ref().zip(state.found.as_ref()) else {
        return;
    };
    let record = &found.record.value;
    let serves = found.observed.as_ref().is_some_and(|observed| observed.formed);
    if !serves || record.spec().stopped {
        return;
    }
    let uses = guard.uses(&record.uid, provider.env.clock.now()).await;
    state.uses = uses.unwrap_or_default();
}

fn is_newer(record: &ClusterRecord, minor: u32) -> bool {
    let now = record.spec().kubernetes_version.parse::<Version>();
    now.is_ok_and(|now| minor > now.minor)
}

/// Whether the body's override is in force. One without an end has no effect.
fn is_forced(properties: &Map<String, Value>, now: Timestamp) -> bool {
    let settings = properties.get("upgradeSettings");
    let of = |field: &str| settings?.pointer(&format!("/overrideSettings/{field}"));
    let until = of("until").and_then(Value::as_str);
    let until = until.and_then(|until| until.parse::<Timestamp>().ok());
    of("forceUpgrade") == Some(&Value::Bool(true)) && until.is_some_and(|until| until > now)
}

/// Refuses a minor release that lacks an API in use, with AKS' message.
pub(crate) fn check(
    context: &Context<'_>,
    present: Option<&ClusterRecord>,
    to: Version,
    properties: &Map<String, Value>,
    problems: &mut Problems,
) {
    let from = present.and_then(|present| present.spec().kubernetes_version.parse::<Version>().ok());
    if from.is_none_or(|from| to.minor <= from.minor) {
        return;
    }
    refuse_removed(context, to, properties, problems);
}

/// Refuses a version that lacks an API in use, whatever the cluster runs. `properties`: with the override.
pub(crate) fn refuse_removed(
    context: &Context<'_>,
    to: Version,
    properties: &Map<String, Value>,
    problems: &mut Problems,
) {
    if is_forced(properties, context.now) {
        return;
    }
    let removed: Vec<&Use> = context.uses.iter().filter(|used| is_removed(used, to)).collect();
    if removed.is_empty() {
        return;
    }
    let details: Vec<String> = removed
        .iter()
        .map(|used| {
            let (major, minor) = used.removed_in;
            format!(
                "usage has been detected on API {}, which will be removed in {major}.{minor}",
                used.api
            )
        })
        .collect();
    problems.add(
        ErrorCode::UPGRADE_BLOCKED_ON_DEPRECATED_API_USAGE,
        "properties.kubernetesVersion",
        format!(
            "Control Plane upgrade is blocked due to recent usage of a Kubernetes API deprecated in the specified version. Migrate the usage, \
             and ask again twelve hours after the last use. To bypass this error, set forceUpgrade and until in upgradeSettings.overrideSettings \
             (az aks update --enable-force-upgrade --upgrade-override-until); calls of the API fail then. Usage details: {}.",
            details.join("; ")
        ),
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_override_needs_an_end_in_the_future() {
        let now = Timestamp::from_second(1_767_225_600).unwrap();
        let forced = |settings: Value| {
            let properties = json!({ "upgradeSettings": { "overrideSettings": settings } });
            is_forced(properties.as_object().unwrap(), now)
        };
        assert!(forced(
            json!({ "forceUpgrade": true, "until": "2026-01-01T00:00:01Z" })
        ));
        assert!(!forced(
            json!({ "forceUpgrade": true, "until": "2025-12-31T23:59:59Z" })
        ));
        assert!(!forced(json!({ "forceUpgrade": true })));
        assert!(!forced(
            json!({ "forceUpgrade": false, "until": "2026-01-02T00:00:00Z" })
        ));
        assert!(!is_forced(&Map::new(), now));
    }
}
