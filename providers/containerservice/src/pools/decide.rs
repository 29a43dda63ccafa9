//! Decides an agent pool: defaults, versions, what may not change. Pure.

use arm_kernel::{
    quote,
    schema::{Class, Kind, Node, Problems, Property},
};
use arm_wire::{ArmError, ErrorCode};
use base_env::Ids;
use cluster_spec::{
    DEFAULT_VM_SIZE, PodNetworking, PoolMode, VM_SIZES, build_of, count_or_percent, node_image_version,
    vm_size,
};
use cluster_versions::{Offered, Version, VersionError, check_skew};
use control_records::{DecidedPool, DesiredPool, SnapshotRecord};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{autoscale, rollback, snapshot};
use crate::{
    clusters::{network::default_max_pods, power::power_state, subnets::Place},
    formats::taint,
    images::Images,
    properties::pool_members,
    snapshots::named as snapshots,
};

/// What a pool's decision depends on beyond its own body.
pub(crate) struct Surroundings<'a> {
    pub(crate) offered: &'a Offered,
    pub(crate) control_plane: Version,
    pub(crate) plugin: PodNetworking,
    pub(crate) ids: &'a dyn Ids,
    /// What a new pool is for where it does not say.
    pub(crate) mode: PoolMode,
    /// Where it is put.
    pub(crate) place: &'a Place<'a>,
    /// Snapshots that the request names.
    pub(crate) snapshots: &'a snapshots::Named,
    /// Whether answers tell of each pool of the cluster as stopped, because the cluster is.
    pub(crate) shown_stopped: bool,
    /// Whether the request is for this pool alone.
    pub(crate) alone: bool,
    /// The node images that there are.
    pub(crate) images: &'a Images,
    /// When the request came.
    pub(crate) now: Timestamp,
    /// Whether a channel takes the cluster to newer versions.
    pub(crate) upgrades_itself: bool,
    /// Whether the control plane emulates a minor release, and [`Self::control_plane`] is a version of that.
    pub(crate) emulates: bool,
}

/// The pool with its canonical properties, and the spec that follows. `path` is where the properties stand in the body.
pub(crate) fn decide(
    name: &str,
    mut draft: Map<String, Value>,
    present: Option<&DesiredPool>,
    around: &Surroundings<'_>,
    path: &str,
    problems: &mut Problems,
) -> Result<DesiredPool, ArmError> {
    let target = |field: &str| format!("{path}.{field}");
    // 0: by the size, which is what absent means.
    if draft.get("osDiskSizeGB").and_then(Value::as_i64) == Some(0) {
        draft.remove("osDiskSizeGB");
    }
    let snapshot = snapshot::take(&mut draft, present, around, path, problems);
    let back = rollback::asked(&mut draft, present, around, path, problems);
    node_image(&mut draft, present, snapshot, path, problems);
    let stopped = is_to_stop(&mut draft, present, around);
    if let Some(present) = present {
        carry(pool_members(), &mut draft, present.body(), path, problems);
    }
    let text =
        |draft: &Map<String, Value>, field: &str| draft.get(field).and_then(Value::as_str).map(str::to_owned);
    let number = |draft: &Map<String, Value>, field: &str| {
        draft
            .get(field)
            .and_then(Value::as_u64)
            .and_then(|number| u32::try_from(number).ok())
    };

    let subnet = match present {
        Some(present) => present.spec().subnet,
        None => around.place.subnet(&mut draft, path, problems),
    };
    let (version, version_text) = match back {
        Some((_, version)) => {
            let asked = text(&draft, "orchestratorVersion");
            (version, asked.unwrap_or_else(|| version.to_string()))
        }
        None => version(&draft, present, around, path, problems),
    };
    let mode = match text(&draft, "mode").as_deref() {
        Some("System") => PoolMode::System,
        Some(_) => PoolMode::User,
        None => present.map_or(around.mode, |present| present.spec().mode),
    };
    let asked_count = number(&draft, "count");
    let range = autoscale::range(name, &draft, mode, path, problems);
    let count = match range {
        Some(range) => autoscale::count(asked_count, range, present, path, problems),
        None => asked_count
            .or(present.map(|present| present.spec().count))
            .unwrap_or(1),
    };
    if mode == PoolMode::System && count == 0 {
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            target("count"),
            format!(
                "The system pool {} needs at least 1 node; only user pools may have 0.",
                quote(name)
            ),
        );
    }
    if mode == PoolMode::System && stopped {
        problems.add(
            ErrorCode::OPERATION_NOT_ALLOWED,
            target("powerState.code"),
            format!(
                "The system pool {} cannot be stopped; only user pools can. 'az aks stop' stops the whole cluster.",
                quote(name)
            ),
        );
    }
    let size = text(&draft, "vmSize").unwrap_or_else(|| DEFAULT_VM_SIZE.to_owned());
    let size = vm_size(&size).unwrap_or_else(|| {
        let sizes: Vec<&str> = VM_SIZES.iter().map(|size| size.name).collect();
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            target("vmSize"),
            format!(
                "The size {} is not offered here; choose one of {}.",
                quote(&size),
                sizes.join(", ")
            ),
        );
        &VM_SIZES[0]
    });
    let max_pods = number(&draft, "maxPods").unwrap_or_else(|| default_max_pods(around.plugin));
    if present.is_none() && mode == PoolMode::System && count > 0 && max_pods.saturating_mul(count) < 30 {
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            target("maxPods"),
            format!(
                "The system pool {} must have room for at least 30 pods: raise maxPods or count.",
                quote(name)
            ),
        );
    }
    let disk = number(&draft, "osDiskSizeGB").unwrap_or(128);
    check_taints(&draft, path, problems);
    upgrade_settings(&mut draft, mode, path, problems);

    let image = match snapshot.and_then(|snapshot| build_of(&snapshot.node_image_version)) {
        Some(build) => Some(build),
        None => around.images.newest(&version.to_string()),
    };
    let image = image.map(str::to_owned);
    let decided = match present {
        None => DecidedPool {
            kubernetes_version: version.to_string(),
            image,
            last: None,
            left: None,
            incarnation: incarnation(around.ids),
            removed: Default::default(),
            renewed: None,
            subnet,
        },
        Some(present) => {
            let mut decided = present.decided().clone();
            decided.subnet = subnet;
            if let Some((last, _)) = back {
                decided.go_back(last);
            } else if decided.kubernetes_version != version.to_string() || snapshot.is_some() {
                decided.go_to(&version.to_string(), image, around.now.as_millisecond());
            }
            decided
        }
    };
    for (field, value) in [
        ("name", json!(name)),
        ("count", json!(count)),
        ("vmSize", json!(size.name)),
        ("maxPods", json!(max_pods)),
        ("osDiskSizeGB", json!(disk)),
        (
            "mode",
            json!(if mode == PoolMode::System {
                "System"
            } else {
                "User"
            }),
        ),
        ("orchestratorVersion", json!(version_text)),
    ] {
        draft.insert(field.to_owned(), value);
    }
    if stopped {
        draft.insert("powerState".to_owned(), power_state(true));
    }
    for (field, value) in [
        ("osDiskType", json!("Managed")),
        ("kubeletDiskType", json!("OS")),
        ("osType", json!("Linux")),
        ("osSKU", json!("Ubuntu")),
        ("type", json!("VirtualMachineScaleSets")),
        ("scaleDownMode", json!("Delete")),
        ("enableAutoScaling", json!(false)),
        ("enableNodePublicIP", json!(false)),
        ("enableEncryptionAtHost", json!(false)),
        ("enableUltraSSD", json!(false)),
        ("enableFIPS", json!(false)),
    ] {
        draft.entry(field).or_insert(value);
    }
    if range.is_none() {
        // Also for a refused range, so that the spec can be derived; the result is not written then.
        draft.insert("enableAutoScaling".to_owned(), json!(false));
    }
    let decided = DesiredPool::new(Value::Object(draft), decided).map_err(ArmError::internal)?;
    if around.alone {
        autoscale::refuse_scaling(asked_count, present, &decided, path, problems);
    }
    Ok(decided)
}

/// Whether the pool is to have no nodes for now; as before, where the request does not say. In a cluster that is stopped or starts, all pools are
/// shown as stopped: what is sent back of that asks for nothing.
fn is_to_stop(
    draft: &mut Map<String, Value>,
    present: Option<&DesiredPool>,
    around: &Surroundings<'_>,
) -> bool {
    let asked = draft.remove("powerState");
    let asked = asked.as_ref().and_then(|state| state["code"].as_str());
    let before = present.map(|present| present.spec().stopped);
    match asked {
        Some("Stopped") if around.shown_stopped => before.unwrap_or(true),
        Some(code) => code == "Stopped",
        None => before.unwrap_or_default(),
    }
}

/// Eight digits, as in AKS node names.
fn incarnation(ids: &dyn Ids) -> String {
    format!("{:08}", ids.uuid().as_u128() % 100_000_000)
}

/// The node image is the newest of the version, or the one of the snapshot that the request names; clients send back what they read.
fn node_image(
    draft: &mut Map<String, Value>,
    present: Option<&DesiredPool>,
    snapshot: Option<&SnapshotRecord>,
    path: &str,
    problems: &mut Problems,
) {
    let Some(Value::String(asked)) = draft.remove("nodeImageVersion") else {
        return;
    };
    if snapshot.is_some_and(|snapshot| snapshot.node_image_version == asked) {
        return;
    }
    let own = |present: &DesiredPool| {
        let spec = present.spec();
        node_image_version(&spec.kubernetes_version, spec.image.as_deref())
    };
    if present.is_none_or(|present| asked != own(present)) {
        let now = present.map_or_else(String::new, |present| {
            let last = present.decided().last.as_ref();
            let last = last.map(|last| {
                format!(
                    " It can be {} again, with orchestratorVersion {} ('az aks nodepool rollback').",
                    quote(&rollback::image_of(last)),
                    last.kubernetes_version
                )
            });
            format!(" It is {}.{}", quote(&own(present)), last.unwrap_or_default())
        });
        problems.add(
            ErrorCode::PROPERTY_NOT_SUPPORTED,
            format!("{path}.nodeImageVersion"),
            format!(
                "A node image cannot be chosen, but for the one that the pool had before; leave it out. 'az aks nodepool upgrade                  --node-image-only' brings the newest.{now}"
            ),
        );
    }
}

/// A problem with a version, under the code that AKS uses for it.
pub(crate) fn version_problem(error: &VersionError, target: &str, problems: &mut Problems) {
    let code = match error {
        VersionError::Skew { .. } => ErrorCode::NODE_POOL_VERSION_INCOMPATIBLE,
        VersionError::NotOffered { .. } => ErrorCode::K8S_VERSION_NOT_SUPPORTED,
        VersionError::Malformed { .. } | VersionError::Empty => ErrorCode::INVALID_PARAMETER,
    };
    let text = error.to_string();
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    let message: String = first.into_iter().chain(letters).chain(['.']).collect();
    problems.add(code, target, message);
}

/// The pool's version and how it is to be shown: as it was asked for.
fn version(
    draft: &Map<String, Value>,
    present: Option<&DesiredPool>,
    around: &Surroundings<'_>,
    path: &str,
    problems: &mut Problems,
) -> (Version, String) {
    let target = format!("{path}.orchestratorVersion");
    let asked = draft.get("orchestratorVersion").and_then(Value::as_str);
    let now = present.and_then(|present| present.spec().kubernetes_version.parse::<Version>().ok());
    let before = now.unwrap_or(around.control_plane);
    let Some(asked) = asked else {
        let shown = present.and_then(|present| present.body().get("orchestratorVersion")?.as_str());
        return (before, shown.map_or_else(|| before.to_string(), str::to_owned));
    };
    let resolved = match asked.parse() {
        Ok(wanted) if now.is_some_and(|now| now.is_meant_by(wanted)) => return (before, asked.to_owned()),
        // A minor that is the control plane's means its patch, also where a newer one is offered meanwhile.
        Ok(wanted) if around.control_plane.is_meant_by(wanted) => Ok(around.control_plane),
        _ => around.offered.resolve(asked),
    };
    match resolved.and_then(|version| check_skew(version, around.control_plane).map(|()| version)) {
        Ok(to) if now.is_some_and(|now| to < now) => {
            let had = present.and_then(|present| present.decided().last.as_ref());
            let way = match had {
                Some(last) if last.kubernetes_version == to.to_string() => {
                    " To what they were before, they can within seven days: az aks nodepool rollback."
                }
                _ => "",
            };
            problems.add(
                ErrorCode::OPERATION_NOT_ALLOWED,
                target,
                format!(
                    "The pool runs {before}; nodes cannot go back to {to}: make another pool and move there.{way}"
                ),
            );
        }
        Ok(version) => return (version, asked.to_owned()),
        Err(VersionError::Skew { node, .. }) if around.emulates && node > around.control_plane => problems.add(
            ErrorCode::NODE_POOL_VERSION_INCOMPATIBLE,
            target,
            format!(
                "The control plane emulates Kubernetes {} until its upgrade is finalised, and nodes of {node} cannot join it before. Next: \
                 landfall upgrade finalize, then upgrade the pool.",
                around.control_plane.minor_name()
            ),
        ),
        Err(error) => version_problem(&error, &target, problems),
    }
    (before, before.to_string())
}

/// Taints without doubles: Kubernetes refuses a node with the same key and effect twice.
fn check_taints(draft: &Map<String, Value>, path: &str, problems: &mut Problems) {
    let mut seen = Vec::new();
    let taints = draft.get("nodeTaints").and_then(Value::as_array);
    for (index, text) in taints.into_iter().flatten().enumerate() {
        let Some((key, _, effect)) = text.as_str().and_then(taint) else {
            continue;
        };
        if seen.contains(&(key, effect)) {
            problems.add(
                ErrorCode::INVALID_PARAMETER,
                format!("{path}.nodeTaints[{index}]"),
                format!("The taint {} with effect {effect} is there twice.", quote(key)),
            );
        }
        seen.push((key, effect));
    }
}

/// How many nodes beyond its `count` a pool may have while it is upgraded, and how many fewer may be ready.
fn upgrade_settings(draft: &mut Map<String, Value>, mode: PoolMode, path: &str, problems: &mut Problems) {
    let settings = draft.entry("upgradeSettings").or_insert_with(|| json!({}));
    let Value::Object(settings) = settings else {
        return;
    };
    // Any share of the nodes, however small, is at least a node.
    let some = |settings: &mut Map<String, Value>, field: &str, default: &str| {
        let value = settings.entry(field).or_insert_with(|| json!(default));
        let parsed = value.as_str().and_then(count_or_percent);
        parsed.is_some_and(|(number, _)| number > 0)
    };
    let unavailable = some(settings, "maxUnavailable", "0");
    let surge = some(settings, "maxSurge", "10%");
    if !surge && !unavailable {
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            format!("{path}.upgradeSettings.maxSurge"),
            "maxSurge and maxUnavailable cannot both be 0: no node could be upgraded.",
        );
    }
    if unavailable && mode == PoolMode::System {
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            format!("{path}.upgradeSettings.maxUnavailable"),
            "maxUnavailable must be 0 for a system pool.",
        );
    }
}

/// What can only be set at creation: kept where the request is silent, a problem where it says otherwise.
pub(crate) fn carry(
    node: &Node,
    draft: &mut Map<String, Value>,
    present: &Value,
    path: &str,
    problems: &mut Problems,
) {
    for (name, member) in &node.members {
        let target = if path.is_empty() {
            (*name).to_owned()
        } else {
            format!("{path}.{name}")
        };
        let Some(old) = present.get(*name) else {
            // Absent at creation is a value, too (a plugin without a mode); what asks for nothing new may come later.
            let new = draft.get(*name).is_some_and(|new| *new != json!(false));
            if member.property.create && member.property.class == Class::Works && new {
                draft.remove(*name);
                refuse(member.property, &Value::Null, &target, problems);
            } else if let (Kind::Object, Some(Value::Object(draft))) =
                (member.property.kind, draft.get_mut(*name))
            {
                carry(member, draft, &Value::Null, &target, problems);
            }
            continue;
        };
        match (member.property.kind, draft.get_mut(*name)) {
            (Kind::Object, Some(Value::Object(draft))) => carry(member, draft, old, &target, problems),
            (Kind::Object, None) => {
                let mut kept = Map::new();
                carry(member, &mut kept, old, &target, problems);
                if !kept.is_empty() {
                    draft.insert((*name).to_owned(), Value::Object(kept));
                }
            }
            (_, None) if member.property.create => {
                draft.insert((*name).to_owned(), old.clone());
            }
            (_, Some(new)) if member.property.create => {
                if same(new, old) {
                    *new = old.clone();
                } else {
                    refuse(member.property, old, &target, problems);
                    *new = old.clone();
                }
            }
            _ => {}
        }
    }
}

fn same(new: &Value, old: &Value) -> bool {
    match (new.as_str(), old.as_str()) {
        (Some(new), Some(old)) => new.eq_ignore_ascii_case(old),
        _ => new == old,
    }
}

fn refuse(property: &Property, old: &Value, target: &str, problems: &mut Problems) {
    let now = match old {
        Value::Null => "not set".to_owned(),
        Value::String(text) => quote(text),
        other => other.to_string(),
    };
    let what = property.path.rsplit('.').next().unwrap_or(property.path);
    problems.add(
        ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED,
        target,
        format!("'{what}' can only be set at creation; it is {now}."),
    );
}
