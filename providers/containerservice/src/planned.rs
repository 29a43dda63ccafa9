//! Types of the API that are not there yet. One that is done moves to a module of its own.

use arm_kernel::{
    Operation, ResourceType,
    Scope::Subscription,
    Verb::{Action, Delete, Get, List, Patch, Put},
};

use crate::{ContainerService, api_versions::API_VERSIONS};

type Type = ResourceType<ContainerService>;
type Row = Operation<ContainerService>;

const fn planned(path: &'static str, operations: &'static [Row]) -> Type {
    ResourceType {
        path,
        versions: API_VERSIONS,
        schema: None,
        members: None,
        operations,
    }
}

pub(crate) const NAMESPACES: Type = planned(
    "managedClusters/managedNamespaces",
    &[
        Row::not_yet(Get, "ManagedNamespaces_Get"),
        Row::not_yet(Put, "ManagedNamespaces_CreateOrUpdate"),
        Row::not_yet(Patch, "ManagedNamespaces_Update"),
        Row::not_yet(Delete, "ManagedNamespaces_Delete"),
        Row::not_yet(List, "ManagedNamespaces_ListByManagedCluster"),
        Row::not_yet(Action("listCredential"), "ManagedNamespaces_ListCredential"),
    ],
);
pub(crate) const COMMAND_RESULTS: Type = planned(
    "managedClusters/commandResults",
    &[Row::not_yet(Get, "ManagedClusters_GetCommandResult")],
);
pub(crate) const SNAPSHOTS: Type = planned(
    "snapshots",
    &[
        Row::not_yet(Get, "Snapshots_Get"),
        Row::not_yet(Put, "Snapshots_CreateOrUpdate"),
        Row::not_yet(Patch, "Snapshots_UpdateTags"),
        Row::not_yet(Delete, "Snapshots_Delete"),
        Row::not_yet(List, "Snapshots_ListByResourceGroup"),
        Row::not_yet(List, "Snapshots_List").at(Subscription),
    ],
);
pub(crate) const TRUSTED_ACCESS_BINDINGS: Type = planned(
    "managedClusters/trustedAccessRoleBindings",
    &[
        Row::not_yet(Get, "TrustedAccessRoleBindings_Get"),
        Row::not_yet(Put, "TrustedAccessRoleBindings_CreateOrUpdate"),
        Row::not_yet(Delete, "TrustedAccessRoleBindings_Delete"),
        Row::not_yet(List, "TrustedAccessRoleBindings_List"),
    ],
);
pub(crate) const TRUSTED_ACCESS_ROLES: Type = planned(
    "locations/trustedAccessRoles",
    &[Row::not_yet(List, "TrustedAccessRoles_List").at(Subscription)],
);
pub(crate) const IDENTITY_BINDINGS: Type = planned(
    "managedClusters/identityBindings",
    &[
        Row::not_yet(Get, "IdentityBindings_Get"),
        Row::not_yet(Put, "IdentityBindings_CreateOrUpdate"),
        Row::not_yet(Delete, "IdentityBindings_Delete"),
        Row::not_yet(List, "IdentityBindings_ListByManagedCluster"),
    ],
);
pub(crate) const PRIVATE_ENDPOINTS: Type = planned(
    "managedClusters/privateEndpointConnections",
    &[
        Row::not_yet(Get, "PrivateEndpointConnections_Get"),
        Row::not_yet(Put, "PrivateEndpointConnections_Update"),
        Row::not_yet(Delete, "PrivateEndpointConnections_Delete"),
        Row::not_yet(List, "PrivateEndpointConnections_List"),
    ],
);
pub(crate) const PRIVATE_LINKS: Type = planned(
    "managedClusters/privateLinkResources",
    &[Row::not_yet(List, "PrivateLinkResources_List")],
);
pub(crate) const OUTBOUND_ENDPOINTS: Type = planned(
    "managedClusters/outboundNetworkDependenciesEndpoints",
    &[Row::not_yet(
        List,
        "ManagedClusters_ListOutboundNetworkDependenciesEndpoints",
    )],
);
pub(crate) const MESH_REVISIONS: Type = planned(
    "locations/meshRevisionProfiles",
    &[
        Row::not_yet(Get, "ManagedClusters_GetMeshRevisionProfile").at(Subscription),
        Row::not_yet(List, "ManagedClusters_ListMeshRevisionProfiles").at(Subscription),
    ],
);
pub(crate) const MESH_UPGRADES: Type = planned(
    "managedClusters/meshUpgradeProfiles",
    &[
        Row::not_yet(Get, "ManagedClusters_GetMeshUpgradeProfile"),
        Row::not_yet(List, "ManagedClusters_ListMeshUpgradeProfiles"),
    ],
);
