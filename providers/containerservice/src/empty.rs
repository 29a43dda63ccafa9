//! Types of which a stamp has none, and says so: lists are empty, one that is asked for is not there, one that is to go is gone.
//!
//! Always true: what they hang on (cluster, location) is looked for first, so that an empty list is about something that is there.
//! Nothing outside a stamp is needed by a cluster: node images carry all that it is made of. There are no service meshes, and no private
//! link service: a private cluster is reached in its own network.

use arm_ids::{ResourcePath, same_location};
use arm_kernel::{Items, Operation, ResourceType, Scope, Verb, quote};
use arm_wire::{ArmError, ErrorCode, Response};
use http::StatusCode;

use crate::{ContainerService, NAMESPACE, api_versions::API_VERSIONS, records::ClusterPath};

type Type = ResourceType<ContainerService>;
type Row = Operation<ContainerService>;

/// A type whose requests have no bodies that would be checked.
pub(crate) const fn bodiless(path: &'static str, operations: &'static [Row]) -> Type {
    ResourceType {
        path,
        versions: API_VERSIONS,
        schema: None,
        members: None,
        operations,
    }
}

/// When meshes came.
const MESH_SINCE: &str = "2023-08-01";

pub(crate) const PRIVATE_ENDPOINTS: Type = bodiless(
    "managedClusters/privateEndpointConnections",
    &[
        get("PrivateEndpointConnections_Get"),
        // Connections come to be at the other end; here they are only approved or rejected.
        Row::write(
            Verb::Put,
            "PrivateEndpointConnections_Update",
            run_missing,
            run_missing,
        ),
        delete("PrivateEndpointConnections_Delete"),
        list("PrivateEndpointConnections_List"),
    ],
);
pub(crate) const PRIVATE_LINKS: Type = bodiless(
    "managedClusters/privateLinkResources",
    &[list("PrivateLinkResources_List")],
);
pub(crate) const OUTBOUND_ENDPOINTS: Type = bodiless(
    "managedClusters/outboundNetworkDependenciesEndpoints",
    &[list("ManagedClusters_ListOutboundNetworkDependenciesEndpoints").since("2021-05-01")],
);
pub(crate) const MESH_REVISIONS: Type = bodiless(
    "locations/meshRevisionProfiles",
    &[
        Row::read(
            Verb::Get,
            "ManagedClusters_GetMeshRevisionProfile",
            |provider, call| {
                Box::pin(async {
                    provider.check_location(&call.request.path)?;
                    Err(no(&call.request.path, 1))
                })
            },
        )
        .at(Scope::Subscription)
        .since(MESH_SINCE),
        list_at_location("ManagedClusters_ListMeshRevisionProfiles").since(MESH_SINCE),
    ],
);
pub(crate) const MESH_UPGRADES: Type = bodiless(
    "managedClusters/meshUpgradeProfiles",
    &[
        get("ManagedClusters_GetMeshUpgradeProfile").since(MESH_SINCE),
        list("ManagedClusters_ListMeshUpgradeProfiles").since(MESH_SINCE),
    ],
);

/// `resolvePrivateLinkServiceId` of a cluster.
pub(crate) const RESOLVE: Row = Row::read(
    Verb::Action("resolvePrivateLinkServiceId"),
    "ResolvePrivateLinkServiceId_POST",
    |provider, call| {
        Box::pin(async {
            let at = ClusterPath::of(&call.request.path)?;
            provider.need(at).await?;
            let message = format!(
                "The cluster {} has no private link service: there is none here. A private cluster is reached in its own network.",
                quote(at.cluster)
            );
            Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message))
        })
    },
);

/// One, below a cluster.
pub(crate) const fn get(name: &'static str) -> Row {
    Row::read(Verb::Get, name, run_missing)
}

/// All, below a cluster.
pub(crate) const fn list(name: &'static str) -> Row {
    Row::items(name, |provider, call| {
        Box::pin(async {
            provider.find_holder(&call.request.path).await?;
            Ok(Items::ById(Vec::new()))
        })
    })
}

/// All at a location.
const fn list_at_location(name: &'static str) -> Row {
    Row::items(name, |provider, call| {
        Box::pin(async {
            provider.check_location(&call.request.path)?;
            Ok(Items::ById(Vec::new()))
        })
    })
    .at(Scope::Subscription)
}

/// To be gone, below a cluster: it is.
pub(crate) const fn delete(name: &'static str) -> Row {
    Row::write(Verb::Delete, name, run_gone, run_gone)
}

fn run_missing<'a>(
    provider: &'a ContainerService,
    call: &'a arm_kernel::Call,
) -> futures::future::BoxFuture<'a, Result<Response, ArmError>> {
    Box::pin(async {
        let path = &call.request.path;
        provider.find_holder(path).await?;
        Err(no(path, path.names.len().saturating_sub(1)))
    })
}

fn run_gone<'a>(
    provider: &'a ContainerService,
    call: &'a arm_kernel::Call,
) -> futures::future::BoxFuture<'a, Result<Response, ArmError>> {
    Box::pin(async {
        provider.find_holder(&call.request.path).await?;
        Ok(Response::empty(StatusCode::NO_CONTENT))
    })
}

/// There is none of that name.
fn no(path: &ResourcePath, place: usize) -> ArmError {
    let message = format!(
        "The resource '{NAMESPACE}/{}' {} was not found: there is none here.",
        path.types.join("/"),
        quote(path.name(place).unwrap_or_default())
    );
    ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message)
}

impl ContainerService {
    /// The cluster that it would hang on.
    async fn find_holder(&self, path: &ResourcePath) -> Result<(), ArmError> {
        self.need(ClusterPath::of(path)?).await.map(drop)
    }

    /// The location that the path names, which must be the stamp's.
    pub(crate) fn check_location(&self, path: &ResourcePath) -> Result<(), ArmError> {
        let asked = path.name(0).unwrap_or_default();
        if same_location(asked, &self.config.location) {
            return Ok(());
        }
        let message = format!(
            "The location {} is not available here; use '{}'.",
            quote(asked),
            self.config.location
        );
        Err(ArmError::new(ErrorCode::LOCATION_NOT_AVAILABLE, message).target("location"))
    }
}
