//! How the requests about a cluster relate to each other: which may still run, what was reached last, what was aborted.
//!
//! Kept in the cluster's own record, so that it is decided and written together with desired.

use std::collections::BTreeMap;

use cluster_spec::{ClusterSpec, PoolSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ClusterRecord;

/// The key of what belongs to a cluster without its pools, where parts are told apart by pool names.
pub const BASE: &str = "";

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Course {
    /// Operations that had not ended when the last request was accepted, oldest first; the last one is the latest.
    pub running: Vec<String>,
    /// The generation of the last accepted change to the cluster as a whole.
    pub generation: u64,
    /// By pool: the operation that its last change belongs to.
    pub pool_operations: BTreeMap<String, String>,
    /// What was asked for when the cluster was last what it was to be, before the present wish; nothing before the first
    /// time. An abort returns to it.
    pub reached: Option<Box<Reached>>,
    /// By pool, [`BASE`] for the cluster: the generation that an abort made. Says `Canceled` as long as it is the present one.
    pub aborted: BTreeMap<String, u64>,
    /// The creation was aborted: nothing of the cluster is to be there but its record, until the next request.
    pub halted: bool,
    /// Pools that were deleted and whose machines may not be gone yet, oldest first.
    pub leaving: Vec<Leaving>,
}

/// A desired state that was reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reached {
    /// Its generation.
    pub generation: u64,
    /// [`ClusterRecord::body`] then.
    pub body: Value,
    /// [`ClusterRecord::spec`] then.
    pub spec: ClusterSpec,
    /// [`ClusterRecord::sealed`] then.
    pub sealed: BTreeMap<String, Vec<u8>>,
}

/// A deleted pool on its way out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leaving {
    /// Its properties as they stood in the cluster's body.
    pub body: Value,
    /// What it was to be.
    pub spec: PoolSpec,
    /// The generation that deleted it.
    pub generation: u64,
    /// The operation that did.
    pub operation: String,
}

impl Leaving {
    /// Its name among the parts of the cluster: a pool of the same name that was made since is another one.
    pub fn part(&self) -> String {
        format!("-{}", self.spec.incarnation)
    }
}

impl ClusterRecord {
    /// The generation of the last change to a part: a pool, or [`BASE`]. `None` for a pool that is not there.
    pub fn part_generation(&self, part: &str) -> Option<u64> {
        if part == BASE {
            return Some(self.course.generation);
        }
        self.pool_generations.get(part).copied()
    }
}
