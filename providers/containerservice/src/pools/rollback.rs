//! The way back of a pool: to the version and the node image that its nodes had before ([`control_records::LastNodes`]). Pure.
//!
//! As in AKS, it is a PUT of the pool that names both of before (`az aks nodepool rollback`), one step, within seven days, and not while a
//! channel would take the pool on again. Unlike there, the node image goes back too where `nodeOSUpgradeChannel` asks for newer ones: that channel
//! leaves the build alone that was taken back, until there is a newer one.

use arm_kernel::schema::Problems;
use arm_wire::ErrorCode;
use cluster_spec::node_image_version;
use cluster_versions::{Version, Wanted, check_skew};
use control_records::{DesiredPool, LastNodes};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::decide::{Surroundings, version_problem};

/// How long a pool can go back after its nodes were to be others.
const OPEN: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The `nodeImageVersion` of nodes.
pub(crate) fn image_of(last: &LastNodes) -> String {
    node_image_version(&last.kubernetes_version, last.image.as_deref())
}

/// What a pool can go back to, if its time is not over.
pub(crate) fn open(pool: &DesiredPool, now: Timestamp) -> Option<&LastNodes> {
    let last = pool.decided().last.as_ref()?;
    left_at(last).filter(|at| now.duration_since(*at) <= OPEN)?;
    Some(last)
}

fn left_at(last: &LastNodes) -> Option<Timestamp> {
    Timestamp::from_millisecond(last.at).ok()
}

/// `recentlyUsedVersions` of a pool's upgrade profile.
pub(crate) fn recently_used(pool: &DesiredPool, now: Timestamp) -> Value {
    let last = open(pool, now).into_iter();
    let each = last.map(|last| {
        json!({
            "orchestratorVersion": last.kubernetes_version,
            "nodeImageVersion": image_of(last),
            "timestamp": left_at(last).map(|at| at.to_string()),
        })
    });
    Value::Array(each.collect())
}

/// What the nodes are to be again, where the request asks for what they were before; with what speaks against it among the problems. The
/// properties that ask for it are taken out of the request.
pub(super) fn asked<'a>(
    draft: &mut Map<String, Value>,
    present: Option<&'a DesiredPool>,
    around: &Surroundings<'_>,
    path: &str,
    problems: &mut Problems,
) -> Option<(&'a LastNodes, Version)> {
    let present = present?;
    let last = present.decided().last.as_ref()?;
    let version: Version = last.kubernetes_version.parse().ok()?;
    let image = draft.get("nodeImageVersion").and_then(Value::as_str)?;
    if image != image_of(last) {
        return None;
    }
    // Images of two versions may have one name: then the version tells what is asked for.
    let wanted = draft.get("orchestratorVersion").and_then(Value::as_str);
    let means = match wanted.map(str::parse::<Wanted>) {
        Some(Ok(wanted)) => version.is_meant_by(wanted),
        Some(Err(_)) => false,
        None => true,
    };
    if !means {
        return None;
    }
    draft.remove("nodeImageVersion");
    let target = format!("{path}.nodeImageVersion");
    if open(present, around.now).is_none() {
        let at = left_at(last).map(|at| at.to_string()).unwrap_or_default();
        problems.add(
            ErrorCode::OPERATION_NOT_ALLOWED,
            &target,
            format!(
                "The pool left Kubernetes {version} with {} at {at}; it can go back for seven days. Make another pool and move there.",
                image_of(last)
            ),
        );
    }
    if around.upgrades_itself {
        problems.add(
            ErrorCode::OPERATION_NOT_ALLOWED,
            &target,
            "The cluster's upgradeChannel would take the pool on again; turn it off first: az aks update --auto-upgrade-channel none.",
        );
    }
    let gone = match &last.image {
        Some(build) => !around.images.has(&last.kubernetes_version, build),
        None => false,
    };
    let there = around.offered.versions().contains(&version) || around.images.knows(&last.kubernetes_version);
    if gone || !there {
        problems.add(
            ErrorCode::OPERATION_NOT_ALLOWED,
            &target,
            format!(
                "The node image {} of Kubernetes {version} is no longer on this stamp; 'landfall image list' shows which there are.",
                image_of(last)
            ),
        );
    }
    if let Err(error) = check_skew(version, around.control_plane) {
        version_problem(&error, &format!("{path}.orchestratorVersion"), problems);
    }
    Some((last, version))
}
