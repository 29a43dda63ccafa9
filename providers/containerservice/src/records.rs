//! Reading of clusters with their related records, and the errors for missing ones.

use std::collections::BTreeMap;

use arm_ids::ResourcePath;
use arm_kernel::{quote, store_error};
use arm_wire::{ArmError, ErrorCode};
use control_records::{
    ClusterRecord, GroupRecord, ObservedRecord, OperationRecord, OperationStatus, Owner, Part, directory, key,
};
use control_store::{Revision, Stored, get_record};

use crate::{
    ContainerService, NAMESPACE,
    clusters::{body::pool_body, draft::Name, view::ClusterView},
};

/// A cluster as read.
pub(crate) struct StoredCluster {
    pub(crate) record: Stored<ClusterRecord>,
    pub(crate) observed: Option<ObservedRecord>,
    pub(crate) operation: Option<OperationRecord>,
    /// By pool: the operation of its last change, where that is not the cluster's.
    pub(crate) pool_operations: BTreeMap<Part, OperationRecord>,
    /// When `observed` last changed; `None` where there is no such record.
    pub(crate) observed_at: Option<Revision>,
}

impl StoredCluster {
    pub(crate) fn view(&self) -> ClusterView<'_> {
        ClusterView {
            record: &self.record.value,
            observed: self.observed.as_ref(),
            operation: self.operation.as_ref(),
            pool_operations: Some(&self.pool_operations),
        }
    }
}

/// The parts of the path that every route below a resource group has.
#[derive(Clone, Copy)]
pub(crate) struct ClusterPath<'a> {
    pub(crate) subscription: &'a str,
    pub(crate) group: &'a str,
    pub(crate) cluster: &'a str,
    /// The pool, or another name below the cluster; empty for the cluster itself.
    pub(crate) child: &'a str,
}

impl<'a> ClusterPath<'a> {
    pub(crate) fn of(path: &'a ResourcePath) -> Result<Self, ArmError> {
        let missing = || {
            ArmError::new(
                ErrorCode::NOT_FOUND,
                "The path does not name a subscription and resource group.",
            )
        };
        Ok(Self {
            subscription: path.subscription.as_deref().ok_or_else(missing)?,
            group: path.resource_group.as_deref().ok_or_else(missing)?,
            cluster: path.name(0).unwrap_or_default(),
            child: path.name(1).unwrap_or_default(),
        })
    }

    pub(crate) fn name(self) -> Name<'a> {
        Name {
            subscription: self.subscription,
            group: self.group,
            cluster: self.cluster,
        }
    }

    /// The cluster's path.
    pub(crate) fn path(self) -> ResourcePath {
        ResourcePath {
            subscription: Some(self.subscription.to_owned()),
            resource_group: Some(self.group.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            types: vec!["managedClusters".to_owned()],
            names: vec![self.cluster.to_owned()],
            parent: None,
        }
    }

    pub(crate) fn not_found(self) -> ArmError {
        ArmError::new(
            ErrorCode::RESOURCE_NOT_FOUND,
            format!(
                "The resource '{NAMESPACE}/managedClusters/{}' under resource group {} was not found.",
                self.cluster,
                quote(self.group)
            ),
        )
    }

    /// The error for a child resource whose cluster does not exist.
    pub(crate) fn parent_not_found(self) -> ArmError {
        let message = format!(
            "The parent resource '{NAMESPACE}/managedClusters/{}' under resource group {} was not found.",
            self.cluster,
            quote(self.group)
        );
        ArmError::new(ErrorCode::PARENT_RESOURCE_NOT_FOUND, message)
    }

    pub(crate) fn pool_not_found(self) -> ArmError {
        let message = format!(
            "The resource '{NAMESPACE}/managedClusters/{}/agentPools/{}' under resource group {} was not found.",
            self.cluster,
            self.child,
            quote(self.group)
        );
        ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message)
    }
}

pub(crate) fn cluster_etag(record: &ClusterRecord) -> String {
    record.body()["eTag"].as_str().unwrap_or_default().to_owned()
}

pub(crate) fn pool_etag(record: &ClusterRecord, pool: &str) -> Option<String> {
    let known = record.spec().pools.iter().any(|spec| spec.name == pool);
    known.then(|| {
        pool_body(record, pool)["eTag"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    })
}

impl ContainerService {
    pub(crate) async fn read<T: serde::de::DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<Stored<T>>, ArmError> {
        get_record(&*self.store, key).await.map_err(store_error)
    }

    pub(crate) async fn group(&self, at: ClusterPath<'_>) -> Result<Stored<GroupRecord>, ArmError> {
        let found = self.read(&key::group(at.subscription, at.group)).await?;
        found.ok_or_else(|| {
            ArmError::new(
                ErrorCode::RESOURCE_GROUP_NOT_FOUND,
                format!("The resource group {} was not found.", quote(at.group)),
            )
        })
    }

    pub(crate) async fn around(&self, record: Stored<ClusterRecord>) -> Result<StoredCluster, ArmError> {
        let observed = self
            .read::<ObservedRecord>(&key::observed(&record.value.uid))
            .await?;
        let owner = Owner::cluster(record.value.uid.as_str());
        let operation = self.read(&owner.operation(&record.value.operation)).await?;
        let cluster = &record.value;
        let requests = &cluster.requests;
        let reached = observed.as_ref().map_or(0, |found| found.value.generation);
        let mut pool_operations = BTreeMap::new();
        // For a state that was reached, no operation is needed.
        let pools = requests
            .pool_operations
            .iter()
            .filter(|(pool, _)| {
                cluster
                    .pool_generations
                    .get(*pool)
                    .is_some_and(|own| *own > reached)
            })
            .map(|(pool, id)| (Part::pool(pool), id));
        let leaving = requests
            .leaving
            .iter()
            .filter(|pool| pool.generation > reached)
            .map(|pool| (pool.part(), &pool.operation));
        for (part, id) in pools.chain(leaving) {
            if *id != cluster.operation
                && let Some(found) = self.read::<OperationRecord>(&owner.operation(id)).await?
            {
                pool_operations.insert(part, found.value);
            }
        }
        Ok(StoredCluster {
            record,
            observed_at: observed.as_ref().map(|found| found.revision),
            observed: observed.map(|found| found.value),
            operation: operation.map(|found| found.value),
            pool_operations,
        })
    }

    /// The operations of a cluster that have not ended, oldest first.
    pub(crate) async fn running(
        &self,
        record: &ClusterRecord,
    ) -> Result<Vec<Stored<OperationRecord>>, ArmError> {
        let owner = Owner::cluster(record.uid.as_str());
        let mut running = Vec::new();
        for id in &record.requests.running {
            let found = self.read::<OperationRecord>(&owner.operation(id)).await?;
            running.extend(found.filter(|found| found.value.status == OperationStatus::InProgress));
        }
        Ok(running)
    }

    pub(crate) async fn find(&self, at: ClusterPath<'_>) -> Result<Option<StoredCluster>, ArmError> {
        let found = directory::cluster_named(&*self.store, at.subscription, at.group, at.cluster);
        match found.await.map_err(store_error)? {
            Some(record) => self.around(record).await.map(Some),
            None => Ok(None),
        }
    }

    /// The cluster, or 404 in ARM's order: group, then resource.
    pub(crate) async fn need(&self, at: ClusterPath<'_>) -> Result<StoredCluster, ArmError> {
        if let Some(found) = self.find(at).await? {
            return Ok(found);
        }
        self.group(at).await?;
        Err(at.not_found())
    }

    /// The cluster and one of its pools under its real name.
    pub(crate) async fn need_pool<'a>(
        &self,
        at: ClusterPath<'a>,
    ) -> Result<(StoredCluster, String), ArmError> {
        let found = self.need(at).await?;
        let pool = found
            .record
            .value
            .spec()
            .pools
            .iter()
            .find(|pool| pool.name.eq_ignore_ascii_case(at.child));
        let leaving = found
            .view()
            .leaving(at.child)
            .map(|leaving| leaving.spec().name.clone());
        let Some(name) = pool.map(|pool| pool.name.clone()).or(leaving) else {
            return Err(at.pool_not_found());
        };
        Ok((found, name))
    }

    pub(crate) async fn all(
        &self,
        subscription: &str,
        group: Option<&str>,
    ) -> Result<Vec<StoredCluster>, ArmError> {
        let records = directory::clusters(&*self.store, Some(subscription), group)
            .await
            .map_err(store_error)?;
        let mut all = Vec::with_capacity(records.len());
        for record in records {
            all.push(self.around(record).await?);
        }
        Ok(all)
    }
}
