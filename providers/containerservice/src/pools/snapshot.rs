//! What a pool takes of the snapshot that its body names. Pure.
//!
//! A pool that is made takes Kubernetes version, node image and VM size, as far as its body leaves them open; one that is there takes the version,
//! and with it the node image. Images of a version are there as long as it is offered or runs; of a snapshot's build that is not there any more, nothing
//! is made.

use arm_kernel::{quote, schema::Problems};
use arm_wire::ErrorCode;
use cluster_spec::build_of;
use cluster_versions::{Version, Wanted};
use control_records::{DesiredPool, SnapshotRecord};
use serde_json::{Map, Value, json};

use super::decide::{Surroundings, version_problem};
use crate::{
    clusters::subnets::quote_id,
    snapshots::named::{id_of, snapshot_place},
};

/// Fills in what the body leaves open; gives the snapshot that the request names anew. `path`: where the pool's properties stand in the body.
pub(super) fn take<'a>(
    draft: &mut Map<String, Value>,
    present: Option<&DesiredPool>,
    around: &Surroundings<'a>,
    path: &str,
    problems: &mut Problems,
) -> Option<&'a SnapshotRecord> {
    let data = draft.remove("creationData")?;
    let id = data["sourceResourceId"].as_str()?.to_owned();
    // What is sent back as it was read asks for nothing: the snapshot may be gone since.
    let before = present.and_then(|present| id_of(present.body()));
    if let Some(before) = before.filter(|before| before.eq_ignore_ascii_case(&id)) {
        draft.insert("creationData".to_owned(), json!({ "sourceResourceId": before }));
        return None;
    }
    let target = format!("{path}.creationData.sourceResourceId");
    let Some(place) = snapshot_place(&id) else {
        let message = format!(
            "{} is not the id of a snapshot; 'az aks nodepool snapshot show --query id' prints it.",
            quote_id(&id)
        );
        problems.add(ErrorCode::INVALID_PARAMETER, target, message);
        return None;
    };
    let Some(snapshot) = around.snapshots.get(&place) else {
        let message = format!(
            "The snapshot {} was not found; 'az aks nodepool snapshot list' shows what there is.",
            quote_id(&id)
        );
        problems.add(ErrorCode::INVALID_RESOURCE_REFERENCE, target, message);
        return None;
    };
    let version = match snapshot.kubernetes_version.parse::<Version>() {
        Ok(version) => version,
        Err(error) => {
            version_problem(&error, &target, problems);
            return None;
        }
    };
    if !is_there(snapshot, version, present, around) {
        let offered: Vec<String> = around.offered.versions().iter().map(Version::to_string).collect();
        let message = format!(
            "The snapshot {} has the node image {}, which is no longer on this stamp: there are those of Kubernetes {}. Leave creationData \
             out, or name a snapshot of a pool of one of these.",
            quote(&snapshot.name),
            quote(&snapshot.node_image_version),
            offered.join(", ")
        );
        problems.add(ErrorCode::OPERATION_NOT_ALLOWED, target, message);
        return None;
    }
    let asked = draft.get("orchestratorVersion").and_then(Value::as_str);
    match asked.map(str::parse::<Wanted>) {
        Some(Ok(wanted)) if !version.is_meant_by(wanted) => {
            let message = format!(
                "The snapshot {} is of Kubernetes {version}, and the body asks for {}: leave orchestratorVersion out, or send {version}.",
                quote(&snapshot.name),
                quote(asked.unwrap_or_default())
            );
            problems.add(
                ErrorCode::INVALID_PARAMETER,
                format!("{path}.orchestratorVersion"),
                message,
            );
            return None;
        }
        // What cannot be read is refused with all other versions.
        Some(Err(_)) => {}
        // A minor stands for the snapshot's version, whatever newer patch there is.
        None | Some(Ok(_)) => {
            draft.insert("orchestratorVersion".to_owned(), json!(version.to_string()));
        }
    }
    if present.is_none() && !draft.contains_key("vmSize") {
        draft.insert("vmSize".to_owned(), json!(snapshot.vm_size));
    }
    draft.insert("creationData".to_owned(), json!({ "sourceResourceId": id }));
    Some(snapshot)
}

/// Whether nodes of a snapshot can be made here.
fn is_there(
    snapshot: &SnapshotRecord,
    version: Version,
    present: Option<&DesiredPool>,
    around: &Surroundings<'_>,
) -> bool {
    let build = build_of(&snapshot.node_image_version);
    if build.is_some_and(|build| !around.images.has(&snapshot.kubernetes_version, build)) {
        return false;
    }
    let now = present.and_then(|present| present.spec().kubernetes_version.parse::<Version>().ok());
    around.offered.versions().contains(&version) || version == around.control_plane || now == Some(version)
}
