//! Snapshots of agent pools.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::SystemData;

/// What an agent pool was when it was taken, at `/snapshots/{s}/{group}/{name}` in lower case. The pool may be gone since.
///
/// Always true: but for its tags it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotRecord {
    /// Format.
    pub v: u32,
    /// Its identity over its life, `[0-9a-v]{10}`; one made anew under the same name gets another.
    pub uid: String,
    /// GUID of the subscription.
    pub subscription: String,
    /// Group, as in the request that made it.
    pub resource_group: String,
    /// Name, as in the request that made it.
    pub name: String,
    /// Region.
    pub location: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Grows by one with each accepted change.
    pub generation: u64,
    /// ARM id of the agent pool.
    pub source: String,
    /// The version of the pool's nodes, e.g. `1.36.3`.
    pub kubernetes_version: String,
    /// The pool's `nodeImageVersion`.
    pub node_image_version: String,
    /// The pool's `osSKU`.
    pub os_sku: String,
    /// The pool's `vmSize`.
    pub vm_size: String,
    /// Who made and last changed it.
    pub system_data: SystemData,
}
