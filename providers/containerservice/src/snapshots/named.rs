//! Snapshots that the bodies of clusters and pools name: whether the caller may read them, and their records.

use std::collections::BTreeMap;

use arm_access::Scope;
use arm_ids::ResourcePath;
use arm_kernel::Call;
use arm_wire::ArmError;
use cluster_versions::{Offered, Version};
use control_records::{SnapshotRecord, key};
use serde_json::Value;

use crate::{
    ContainerService, NAMESPACE,
    clusters::{
        State,
        body::{MAX_POOLS, pool_body},
    },
    records::ClusterPath,
};

/// What the caller has to be allowed at a snapshot.
const READ: &str = "Microsoft.ContainerService/snapshots/read";

/// The records of snapshots by their place.
pub(crate) type Named = BTreeMap<Scope, SnapshotRecord>;

/// What the properties of a pool, or of a snapshot, say that it is made from.
pub(crate) fn id_of(properties: &Value) -> Option<&str> {
    properties.pointer("/creationData/sourceResourceId")?.as_str()
}

/// The place of a snapshot, if it is the id of one.
pub(crate) fn snapshot_place(id: &str) -> Option<Scope> {
    path_of(id).map(|path| Scope::of(&path))
}

fn path_of(id: &str) -> Option<ResourcePath> {
    let path = ResourcePath::parse(id).ok()?;
    let is_one = path.resource_group.is_some()
        && path.parent.is_none()
        && path.is_item()
        && path.namespace_is(NAMESPACE)
        && path.type_is("snapshots");
    is_one.then_some(path)
}

/// The snapshots that the body of a cluster, or of this pool, names: each with the pool that is made from it.
fn asked<'a>(body: &'a Value, pool: &'a str) -> Vec<(&'a str, &'a str)> {
    let pools = body
        .pointer("/properties/agentPoolProfiles")
        .and_then(Value::as_array);
    let of_cluster = pools
        .into_iter()
        .flatten()
        .filter_map(|pool| Some((pool["name"].as_str()?, id_of(pool)?)));
    let of_pool = body.get("properties").and_then(id_of).map(|id| (pool, id));
    of_pool.into_iter().chain(of_cluster).take(MAX_POOLS).collect()
}

/// The version of a new cluster whose body says none: that of the first snapshot that one of its pools is made from.
pub(crate) fn version(pools: Option<&Value>, named: &Named, offered: &Offered) -> Option<String> {
    let mut pools = pools.and_then(Value::as_array).into_iter().flatten();
    let snapshot = pools.find_map(|pool| named.get(&snapshot_place(id_of(pool)?)?))?;
    let version = &snapshot.kubernetes_version;
    let is_offered = version
        .parse::<Version>()
        .is_ok_and(|version| offered.versions().contains(&version));
    is_offered.then(|| version.clone())
}

/// Lets the caller through to the snapshots that a body names. What is sent back as it was read is no change: the snapshot may be gone since.
pub(crate) async fn check_reads(provider: &ContainerService, call: &Call) -> Result<(), ArmError> {
    let (path, body) = (&call.request.path, &call.request.body);
    let at = ClusterPath::of(path)?;
    let asked = asked(body, at.child);
    if asked.is_empty() {
        return Ok(());
    }
    let found = provider.find(at).await?;
    let mut linked: Vec<ResourcePath> = Vec::new();
    for (pool, id) in asked {
        let had = found
            .as_ref()
            .and_then(|found| id_of(pool_body(&found.record.value, pool)));
        let Some(snapshot) = path_of(id) else { continue };
        let same = had.is_some_and(|had| had.eq_ignore_ascii_case(id));
        if !same && !linked.iter().any(|known| known.same(&snapshot)) {
            linked.push(snapshot);
        }
    }
    let action = format!("{NAMESPACE}/{}/write", path.type_path());
    call.check_linked(&action, READ, &linked).await
}

impl ContainerService {
    /// Reads the snapshots that the body of a cluster or pool names, those that there are.
    pub(crate) async fn read_snapshots(&self, state: &mut State, body: &Value) -> Result<(), ArmError> {
        for (_, id) in asked(body, "") {
            let Some(path) = path_of(id) else { continue };
            let at = ClusterPath::of(&path)?;
            let key = key::snapshot(at.subscription, at.group, at.cluster);
            if let Some(found) = self.read::<SnapshotRecord>(&key).await? {
                state.snapshots.insert(Scope::of(&path), found.value);
                state.named_at.insert(key, found.revision);
            }
        }
        Ok(())
    }
}
