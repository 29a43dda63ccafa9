//! Upgrades of a control plane to another minor release with a way back.
//!
//! | | |
//! |---|---|
//! | [`begin`] | the programs of the next minor release run, and emulate the present one: they serve its APIs and store what it can read |
//! | [`finalize`] | they are what they are; from then on nobody goes back |
//! | [`roll_back`] | the programs of before run again, a member at a time |
//!
//! It is opt-in. `az aks upgrade` asks for the other release, and who asks for that expects its APIs, and nodes of it, at once; a control plane that
//! emulates has neither. So the three are requests of the stamp's own namespace ([`crate::landfall`]), and of a cluster about which they were
//! never asked nothing is other than before. What is not finalised when its time is over is finalised by the service, as planned work
//! ([`crate::channels`]).
//!
//! Always true: the emulation is written down with the version that needs it, and members take it before they start newer programs
//! (`control/planner`); once it is taken back, nothing brings it back, no abort either.

use arm_kernel::{Decision, quote, schema::Problems};
use arm_wire::{ArmError, ErrorCode};
use cluster_maintenance::{UpgradeChannel, Versions};
use cluster_versions::{Version, check_skew};
use control_records::{ClusterRecord, Soak};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    body::not_an_object,
    draft::{Context, Draft, Name, advance},
    hooks::refuse_change,
    requests::Current,
    upgrade_guard,
};

pub(crate) const BEGIN: &str = "ManagedClusters_SoakUpgrade";
pub(crate) const FINALIZE: &str = "ManagedClusters_FinalizeUpgrade";
pub(crate) const ROLL_BACK: &str = "ManagedClusters_RollBackUpgrade";

/// How long there is a way back where nobody says: as long as AKS keeps one for pools.
pub(crate) const HOURS: i64 = 7 * 24;
const HOUR: i64 = 60 * 60 * 1000;

/// A control plane whose programs emulate the minor release of before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Soaking {
    /// The version of before: what nodes can be at most, and what can be gone back to.
    pub(crate) from: Version,
    /// The version that its programs are.
    pub(crate) to: Version,
    /// When it is finalised by itself, milliseconds since 1970.
    pub(crate) until: i64,
    /// When it was asked for, milliseconds since 1970.
    pub(crate) since: i64,
}

/// What a control plane emulates, if that is not what it is.
pub(crate) fn soaking(record: &ClusterRecord) -> Option<Soaking> {
    let soak = record.state.decided().soak.as_ref()?;
    let from: Version = soak.from.parse().ok()?;
    let to: Version = record.spec().kubernetes_version.parse().ok()?;
    let newer = (to.major, to.minor) > (from.major, from.minor);
    newer.then_some(Soaking {
        from,
        to,
        until: soak.until,
        since: soak.since,
    })
}

/// What is kept of it when the control plane is to have this version. Within the minor release it is as it was. After a way back it stays while
/// nothing else is asked for: for programs of the release itself it changes nothing.
pub(crate) fn carried(present: Option<&ClusterRecord>, version: Version) -> Option<Soak> {
    let present = present?;
    let same = present.spec().kubernetes_version == version.to_string();
    let soak = present.state.decided().soak.clone()?;
    (same || soaking(present).is_some()).then_some(soak)
}

/// Whether a channel of the body takes the cluster to newer versions or node images.
pub(crate) fn upgrades_itself(body: &Value) -> bool {
    let channel = body.pointer("/properties/autoUpgradeProfile/upgradeChannel");
    let channel = channel.and_then(Value::as_str).unwrap_or("none");
    !channel.is_empty() && channel != "none"
}

/// Refuses another version where that would take a way back away without a word, or while the control plane is on its way back: what emulates
/// no more may store what a member that is about to start cannot read.
pub(crate) fn check_upgrade(
    context: &Context<'_>,
    present: Option<&ClusterRecord>,
    to: Version,
    problems: &mut Problems,
) {
    let target = "properties.kubernetesVersion";
    let Some(present) = present else { return };
    match soaking(present) {
        Some(soaking) if to.minor > soaking.to.minor => problems.add(
            ErrorCode::OPERATION_NOT_ALLOWED,
            target,
            format!(
                "The upgrade to Kubernetes {} is not finalised; next: landfall upgrade finalize.",
                soaking.to
            ),
        ),
        None if goes_back(context, present) && to.to_string() != present.spec().kubernetes_version => {
            problems.add(
                ErrorCode::OPERATION_NOT_ALLOWED,
                target,
                format!(
                    "The control plane is on its way back to Kubernetes {}; ask again when it is there ('landfall status').",
                    present.spec().kubernetes_version
                ),
            );
        }
        _ => {}
    }
}

/// Whether members may still be on their way back from what emulated.
fn goes_back(context: &Context<'_>, present: &ClusterRecord) -> bool {
    present.state.decided().soak.is_some() && soaking(present).is_none() && !context.base_reached
}

fn refused(message: String) -> ArmError {
    ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message)
}

/// Whether all members run the version that is asked for, and nothing is on its way to another one.
fn runs(before: Current<'_>, context: &Context<'_>) -> bool {
    let asked = before.record.spec().kubernetes_version.parse::<Version>().ok();
    let moving = before
        .observed
        .is_some_and(|observed| observed.upgrading_to.is_some());
    context.running.is_some() && context.running == asked && !moving
}

/// The hours of a body.
fn hours(body: &Map<String, Value>) -> Result<i64, ArmError> {
    let hours = match body.get("hours") {
        None | Some(Value::Null) => Some(HOURS),
        Some(hours) => hours.as_i64().filter(|hours| (1..=HOURS).contains(hours)),
    };
    hours.ok_or_else(|| {
        let message = format!("'hours' must be a number from 1 to {HOURS}.");
        ArmError::new(ErrorCode::INVALID_PARAMETER, message).target("hours")
    })
}

/// The same request that runs already, or nothing to do.
fn already(before: Current<'_>, name: &str) -> Decision<Draft> {
    let mut running = before.running.iter().rev();
    let same = running.find(|running| running.name == name);
    same.map_or(Decision::Unchanged, |same| Decision::InProgress(same.id.clone()))
}

/// Decides the upgrade to the next minor release with a way back.
pub(crate) fn begin(
    context: &Context<'_>,
    name: &Name<'_>,
    before: Current<'_>,
    body: &Value,
) -> Result<Decision<Draft>, ArmError> {
    let present = before.record;
    refuse_change(present)?;
    let body = body.as_object().ok_or_else(not_an_object)?;
    let mut problems = Problems::default();
    for unknown in body
        .keys()
        .filter(|member| !["kubernetesVersion", "hours"].contains(&member.as_str()))
    {
        let message = format!("There is no property {} here.", quote(unknown));
        problems.add(ErrorCode::UNKNOWN_PROPERTY, unknown, message);
    }
    problems.into_result()?;
    let hours = hours(body)?;
    let target = "kubernetesVersion";
    let asked = body.get(target).and_then(Value::as_str).unwrap_or_default();
    let wrong = |message: String| refused(message).target(target);
    if asked.is_empty() {
        let message = format!("'{target}' must name the version to upgrade to, e.g. \"1.37\".");
        return Err(ArmError::new(ErrorCode::MISSING_PARAMETER, message).target(target));
    }
    let to = context.config.offered.resolve(asked).map_err(|error| {
        let message = format!("{error}.");
        ArmError::new(ErrorCode::K8S_VERSION_NOT_SUPPORTED, message).target(target)
    })?;
    if let Some(soaking) = soaking(present) {
        if soaking.to == to {
            return Ok(already(before, BEGIN));
        }
        return Err(wrong(format!(
            "The upgrade to Kubernetes {} is not finalised; finalise it, or roll it back, first.",
            soaking.to
        )));
    }
    let now: Version = present
        .spec()
        .kubernetes_version
        .parse()
        .map_err(ArmError::internal)?;
    if !runs(before, context) || goes_back(context, present) {
        return Err(wrong(format!(
            "The control plane does not run Kubernetes {now} everywhere yet; ask again when it does ('landfall status')."
        )));
    }
    if to.minor != now.minor + 1 || to.major != now.major {
        let why = if to.minor == now.minor && to > now {
            "a newer patch of the same minor release needs no way back: use az aks upgrade".to_owned()
        } else {
            let steps = context.config.offered.upgrades(now).into_iter();
            let steps = steps.filter(|step| step.minor > now.minor);
            let steps: Vec<String> = steps.map(|step| step.to_string()).collect();
            if steps.is_empty() {
                "no newer minor release is offered here".to_owned()
            } else {
                format!("from there it can go to {}", steps.join(" or "))
            }
        };
        return Err(wrong(format!(
            "The control plane runs Kubernetes {now} and cannot go to {to} with a way back: {why}."
        )));
    }
    let since = context.now.as_millisecond();
    let state = present.state.with(|body, decided| {
        decided.soak = Some(Soak {
            from: now.to_string(),
            since,
            until: since.saturating_add(hours * HOUR),
        });
        decided.kubernetes_version = to.to_string();
        body["properties"]["kubernetesVersion"] = json!(asked);
    });
    let state = state.map_err(ArmError::internal)?;
    advance(context, name, Some(present), state, BEGIN, None).map(Decision::Write)
}

/// Decides that the control plane is what its programs are.
pub(crate) fn finalize(
    context: &Context<'_>,
    name: &Name<'_>,
    before: Current<'_>,
) -> Result<Decision<Draft>, ArmError> {
    let present = before.record;
    refuse_change(present)?;
    let Some(soaking) = soaking(present) else {
        return Ok(already(before, FINALIZE));
    };
    if !runs(before, context) {
        return Err(refused(format!(
            "The control plane does not run Kubernetes {} everywhere yet; finalise the upgrade when it does ('landfall status').",
            soaking.to
        )));
    }
    if let Some(properties) = present.body().get("properties").and_then(Value::as_object) {
        let mut problems = Problems::default();
        upgrade_guard::refuse_removed(context, soaking.to, properties, &mut problems);
        problems.into_result()?;
    }
    let state = present.state.with(|_, decided| decided.soak = None);
    let state = state.map_err(ArmError::internal)?;
    advance(context, name, Some(present), state, FINALIZE, None).map(Decision::Write)
}

/// Decides that the control plane is what it was before.
pub(crate) fn roll_back(
    context: &Context<'_>,
    name: &Name<'_>,
    before: Current<'_>,
) -> Result<Decision<Draft>, ArmError> {
    let present = before.record;
    refuse_change(present)?;
    let Some(soaking) = soaking(present) else {
        let same = already(before, ROLL_BACK);
        if matches!(same, Decision::InProgress(_)) {
            return Ok(same);
        }
        return Err(refused(format!(
            "The control plane of '{}' cannot go back: it emulates no older minor release, for it was upgraded without a way back ('landfall \
             upgrade soak' leaves one), or that was finalised. Objects may be stored in a form that an older one cannot read.",
            present.name
        )));
    };
    let newer: Vec<String> = present
        .spec()
        .pools
        .iter()
        .filter(|pool| {
            let version = pool.kubernetes_version.parse::<Version>();
            version.is_ok_and(|version| check_skew(version, soaking.from).is_err())
        })
        .map(|pool| format!("{} ({})", pool.name, pool.kubernetes_version))
        .collect();
    if !newer.is_empty() {
        return Err(refused(format!(
            "Nodes of {} cannot work with a control plane of Kubernetes {}: take these pools back first ('az aks nodepool rollback').",
            newer.join(", "),
            soaking.from
        )));
    }
    if goes_on_again(context, present, soaking.from) {
        return Err(refused(
            "The cluster's upgradeChannel would take it on again; turn it off first: az aks update --auto-upgrade-channel none."
                .to_owned(),
        ));
    }
    let from = soaking.from.to_string();
    let state = present.state.with(|body, decided| {
        body["properties"]["kubernetesVersion"] = json!(from);
        decided.kubernetes_version = from;
    });
    let state = state.map_err(ArmError::internal)?;
    advance(context, name, Some(present), state, ROLL_BACK, None).map(Decision::Write)
}

/// Whether the cluster's channel would ask for a newer minor release from this version on.
fn goes_on_again(context: &Context<'_>, present: &ClusterRecord, from: Version) -> bool {
    let channel = present
        .body()
        .pointer("/properties/autoUpgradeProfile/upgradeChannel")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let pools = present.spec().pools.iter();
    let pools = pools.filter_map(|pool| pool.kubernetes_version.parse().ok());
    let now = Versions {
        control_plane: from,
        pools: pools.collect(),
    };
    let next = UpgradeChannel::of(channel).next(&now, &context.config.offered);
    next.is_some_and(|next| next.control_plane.minor > from.minor)
}

/// How it stands with the way back, for answers.
pub(crate) fn shown(record: &ClusterRecord) -> Value {
    let at = |millisecond: i64| {
        Timestamp::from_millisecond(millisecond)
            .ok()
            .map(|at| at.to_string())
    };
    match soaking(record) {
        Some(soaking) => json!({
            "state": "Soaking",
            "emulates": soaking.from.minor_name(),
            "rollbackTo": soaking.from.to_string(),
            "since": at(soaking.since),
            "finalizesAt": at(soaking.until),
        }),
        None => json!({ "state": "None" }),
    }
}
