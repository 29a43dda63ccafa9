//! Format 3 to 4: the spec of a cluster follows from its body and from what was decided beside it, and is not stored any more. Records keep
//! their keys; those whose shape changes say so with `v` 3.
//!
//! | record | changes |
//! |---|---|
//! | desired, of deleted clusters too | `state` (`body` and `decided`) instead of `body` and `spec`, in `course.reached` too |
//! | | `course.leaving[].pool` (`body` and `decided`) instead of `body` and `spec` |

use control_store::Store;
use serde_json::{Map, Value, json};

use super::{
    change::Change,
    format::{MigrateError, damaged},
};
use crate::key;

/// The format that this begins with.
const FROM: u32 = 3;
const CHANGE: Change = Change {
    from: FROM,
    version: 3,
};

/// Changes everything. Returns how many records were changed.
pub(super) async fn run(store: &dyn Store) -> Result<usize, MigrateError> {
    let (clusters, _) = store.list(key::CLUSTERS).await?;
    let mut changed = CHANGE
        .each(store, &clusters, |key, value| {
            let is_desired = matches!(key::of_cluster(key), Some((_, "desired")));
            if is_desired {
                desired(key, value)?;
            }
            Ok(is_desired)
        })
        .await?;
    let (deleted, _) = store.list(key::DELETED).await?;
    changed += CHANGE
        .each(store, &deleted, |key, value| {
            if let Some(last) = value.get_mut("last").filter(|last| last.is_object()) {
                desired(key, last)?;
                last["v"] = json!(CHANGE.version);
            }
            Ok(true)
        })
        .await?;
    Ok(changed)
}

fn desired(key: &str, record: &mut Value) -> Result<(), MigrateError> {
    replace(key, record, "state", cluster)?;
    if let Some(reached) = record
        .pointer_mut("/course/reached")
        .filter(|reached| reached.is_object())
    {
        replace(key, reached, "state", cluster)?;
    }
    let leaving = record
        .pointer_mut("/course/leaving")
        .and_then(Value::as_array_mut);
    for leaving in leaving.into_iter().flatten() {
        replace(key, leaving, "pool", pool)?;
    }
    Ok(())
}

/// Puts `body` and what was decided beside it in the place of `body` and `spec`.
fn replace(
    key: &str,
    value: &mut Value,
    name: &str,
    decided: fn(&Value) -> Value,
) -> Result<(), MigrateError> {
    let members = value.as_object_mut();
    let members = members.ok_or_else(|| damaged(key, FROM, "it is not an object"))?;
    let (Some(body), Some(spec)) = (members.remove("body"), members.remove("spec")) else {
        return Err(damaged(key, FROM, "it has no body or no spec"));
    };
    members.insert(
        name.to_owned(),
        json!({ "body": body, "decided": decided(&spec) }),
    );
    Ok(())
}

fn cluster(spec: &Value) -> Value {
    let network = &spec["network"];
    let pools = spec["pools"].as_array().into_iter().flatten();
    let pools: Map<String, Value> = pools
        .filter_map(|spec| Some((spec["name"].as_str()?.to_owned(), pool(spec))))
        .collect();
    json!({
        "name": spec["name"],
        "resourceGroup": spec["resourceGroup"],
        "fqdn": spec["fqdn"],
        "kubernetesVersion": spec["kubernetesVersion"],
        "ranges": {
            "vnet": network["vnetRange"],
            "nodes": network["nodeRange"],
            "controlPlane": network["controlPlaneRange"],
        },
        "restore": spec["restore"],
        "pools": pools,
    })
}

fn pool(spec: &Value) -> Value {
    json!({
        "incarnation": spec["incarnation"],
        "kubernetesVersion": spec["kubernetesVersion"],
    })
}
