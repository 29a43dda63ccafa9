//! The data of a response about a cluster. Pure.

use std::collections::BTreeMap;

use cluster_spec::PoolSpec;
use control_records::{ClusterRecord, Leaving, ObservedRecord, OperationRecord, Part};

use super::{draft::cluster_id, requests::is_gone};

/// A cluster with its records.
pub(crate) struct ClusterView<'a> {
    pub(crate) record: &'a ClusterRecord,
    pub(crate) observed: Option<&'a ObservedRecord>,
    pub(crate) operation: Option<&'a OperationRecord>,
    /// By pool, existing or being deleted: the operation of its last change, if that is not the cluster's.
    pub(crate) pool_operations: Option<&'a BTreeMap<Part, OperationRecord>>,
}

impl<'a> ClusterView<'a> {
    /// The pools in responses: those of the cluster, then those that are being deleted.
    pub(crate) fn pool_names(&self) -> Vec<&'a str> {
        let pools = &self.record.spec().pools;
        let mut names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
        for leaving in &self.record.requests.leaving {
            let name = leaving.spec().name.as_str();
            if !names.contains(&name) && !is_gone(leaving, self.observed) {
                names.push(name);
            }
        }
        names
    }

    /// A pool that is being deleted, unless one of the same name was made since.
    pub(crate) fn leaving(&self, pool: &str) -> Option<&'a Leaving> {
        let same = |spec: &PoolSpec| spec.name.eq_ignore_ascii_case(pool);
        if self.record.spec().pools.iter().any(same) {
            return None;
        }
        let mut leaving = self.record.requests.leaving.iter().rev();
        leaving.find(|leaving| same(leaving.spec()) && !is_gone(leaving, self.observed))
    }

    /// The operation of a pool's last change.
    pub(super) fn pool_operation(&self, part: &Part, id: Option<&String>) -> Option<&'a OperationRecord> {
        let own = self.pool_operations.and_then(|operations| operations.get(part));
        own.or_else(|| {
            self.operation
                .filter(|operation| id.is_none_or(|id| operation.id == *id))
        })
    }

    /// The cluster's ARM id.
    pub(super) fn id(&self) -> String {
        cluster_id(
            &self.record.subscription,
            &self.record.resource_group,
            &self.record.name,
        )
    }
}
