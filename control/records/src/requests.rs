//! How the requests about a cluster relate to each other: which may still run, what was reached last, what was aborted.
//!
//! Kept in the cluster's own record, so that it is decided and written together with desired.

use std::collections::BTreeMap;

use cluster_spec::PoolSpec;
use serde::{Deserialize, Serialize};

use crate::{DesiredPool, DesiredState, Part};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Requests {
    /// Operations that had not ended when the last request was accepted, oldest first; the last one is the latest.
    pub running: Vec<String>,
    /// The generation of the last accepted change to the cluster as a whole.
    pub generation: u64,
    /// By pool: the operation that its last change belongs to.
    pub pool_operations: BTreeMap<String, String>,
    /// What was asked for when the cluster was last what it was to be, before the present wish; nothing before the first
    /// time. An abort returns to it.
    pub reached: Option<Box<Reached>>,
    /// The generation that an abort made of a part. Says `Canceled` as long as it is the present one; of [`Part::Base`], the
    /// present one of the whole cluster.
    pub aborted: BTreeMap<Part, u64>,
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
    /// [`crate::ClusterRecord::state`] then.
    pub state: DesiredState,
    /// [`crate::ClusterRecord::sealed`] then.
    pub sealed: BTreeMap<String, Vec<u8>>,
}

/// A deleted pool on its way out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leaving {
    /// What it was to be.
    pub pool: DesiredPool,
    /// The generation that deleted it.
    pub generation: u64,
    /// The operation that did.
    pub operation: String,
}

impl Leaving {
    /// What it was to be.
    pub fn spec(&self) -> &PoolSpec {
        self.pool.spec()
    }

    /// It among the parts of the cluster.
    pub fn part(&self) -> Part {
        Part::Leaving {
            pool: self.spec().name.clone(),
            incarnation: self.spec().incarnation.clone(),
        }
    }
}
