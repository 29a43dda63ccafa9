//! Resource groups and their clusters: a group that goes takes its clusters with it.

use arm_ids::ResourcePath;
use arm_kernel::{delete_each, quote};
use arm_wire::{ArmError, ErrorCode, Principal, PrincipalKind};
use control_records::{ClusterRecord, GroupRecord, key};

use super::{Clusters, PATH};
use crate::{ContainerService, NAMESPACE, api_versions::API_VERSIONS, records::ClusterPath};

impl ContainerService {
    /// Starts deleting all clusters of a resource group. The group of a cluster's nodes goes with the cluster, not before it.
    pub(super) async fn delete_group(&self, subscription: &str, group: &str) -> Result<usize, ArmError> {
        if let Some(cluster) = self.owner(subscription, group).await? {
            if cluster.deleting {
                return Ok(1);
            }
            let message = format!(
                "The resource group {} belongs to the cluster '{}' in '{}'; delete the cluster.",
                quote(group),
                cluster.name,
                cluster.resource_group
            );
            return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message));
        }
        let clusters = self.all(subscription, Some(group)).await?;
        let mut each = Vec::new();
        for record in clusters.iter().map(|found| &found.record.value) {
            let at = ClusterPath {
                subscription: &record.subscription,
                group: &record.resource_group,
                cluster: &record.name,
                child: "",
            };
            each.push((at.path(), last_editor(record)));
        }
        delete_each::<Clusters>(self, &each, API_VERSIONS[0]).await
    }

    /// The cluster whose nodes live in a group.
    async fn owner(&self, subscription: &str, group: &str) -> Result<Option<ClusterRecord>, ArmError> {
        let found = self.read::<GroupRecord>(&key::group(subscription, group)).await?;
        let Some(id) = found.and_then(|found| found.value.managed_by) else {
            return Ok(None);
        };
        let path = ResourcePath::parse(&id).map_err(ArmError::internal)?;
        if !path.namespace_is(NAMESPACE) || !path.type_is(PATH) {
            return Ok(None);
        }
        let found = self.find(ClusterPath::of(&path)?).await?;
        Ok(found.map(|found| found.record.value))
    }
}

fn last_editor(record: &ClusterRecord) -> Principal {
    Principal {
        object_id: String::new(),
        name: record.modified_by.clone(),
        tenant_id: String::new(),
        kind: if record.modified_by_type == "User" {
            PrincipalKind::User
        } else {
            PrincipalKind::Application
        },
    }
}
