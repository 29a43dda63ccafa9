//! The offered Kubernetes versions, and the possible upgrades of a cluster or pool.

use arm_kernel::{Operation, ResourceType, Scope, Verb, quote};
use arm_wire::{ArmError, ErrorCode, Request, Response};

use crate::{ContainerService, api_versions::API_VERSIONS, clusters::render, records::ClusterPath};

type Row = Operation<ContainerService>;

pub(crate) const CLUSTER_UPGRADES: ResourceType<ContainerService> = ResourceType {
    path: "managedClusters/upgradeProfiles",
    versions: API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::read(
        Verb::Get,
        "ManagedClusters_GetUpgradeProfile",
        |provider, call| Box::pin(provider.cluster_upgrades(&call.request)),
    )],
};

pub(crate) const POOL_UPGRADES: ResourceType<ContainerService> = ResourceType {
    path: "managedClusters/agentPools/upgradeProfiles",
    versions: API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::read(
        Verb::Get,
        "AgentPools_GetUpgradeProfile",
        |provider, call| Box::pin(provider.pool_upgrades(&call.request)),
    )],
};

pub(crate) const POOL_VERSIONS: ResourceType<ContainerService> = ResourceType {
    path: "managedClusters/availableAgentPoolVersions",
    versions: API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::read(
        Verb::List,
        "AgentPools_GetAvailableAgentPoolVersions",
        |provider, call| Box::pin(provider.pool_versions(&call.request)),
    )],
};

pub(crate) const LOCATION_VERSIONS: ResourceType<ContainerService> = ResourceType {
    path: "locations/kubernetesVersions",
    versions: API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::read(
        Verb::List,
        "ManagedClusters_ListKubernetesVersions",
        |provider, call| Box::pin(async { provider.location_versions(&call.request) }),
    )
    .at(Scope::Subscription)
    .since("2023-03-01")],
};

impl ContainerService {
    async fn cluster_upgrades(&self, request: &Request) -> Result<Response, ArmError> {
        let at = ClusterPath::of(&request.path)?;
        check_default(at.child)?;
        let found = self.need(at).await?;
        Ok(Response::ok(found.view().upgrade_profile(&self.config.offered)))
    }

    async fn pool_upgrades(&self, request: &Request) -> Result<Response, ArmError> {
        check_default(request.path.name(2).unwrap_or_default())?;
        let (found, pool) = self.need_pool(ClusterPath::of(&request.path)?).await?;
        let images = self.images_for(Some(&found.record.value));
        Ok(Response::ok(found.view().pool_upgrade_profile(
            &pool,
            &self.config.offered,
            &images,
            &request.api_version,
            self.env.clock.now(),
        )))
    }

    async fn pool_versions(&self, request: &Request) -> Result<Response, ArmError> {
        let found = self.need(ClusterPath::of(&request.path)?).await?;
        Ok(Response::ok(found.view().pool_versions(&self.config.offered)))
    }

    fn location_versions(&self, request: &Request) -> Result<Response, ArmError> {
        self.check_location(&request.path)?;
        Ok(Response::ok(render::kubernetes_versions(&self.config.offered)))
    }
}

/// The name of every upgrade profile is `default`.
fn check_default(name: &str) -> Result<(), ArmError> {
    if name.eq_ignore_ascii_case("default") {
        return Ok(());
    }
    let message = format!(
        "There is no upgrade profile {}; the only one is 'default'.",
        quote(name)
    );
    Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message))
}
