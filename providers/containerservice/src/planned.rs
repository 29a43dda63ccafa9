//! Types of the API that are not there yet. One that is done moves to a module of its own.

use arm_kernel::{
    Operation, ResourceType,
    Verb::{Patch, Put},
};

use crate::{
    ContainerService,
    api_versions::API_VERSIONS,
    empty::{delete, get, list, list_all},
};

type Type = ResourceType<ContainerService>;
type Row = Operation<ContainerService>;

pub(crate) const fn planned(path: &'static str, operations: &'static [Row]) -> Type {
    ResourceType {
        path,
        versions: API_VERSIONS,
        schema: None,
        members: None,
        operations,
    }
}

/// When snapshots came.
const SNAPSHOTS_SINCE: &str = "2021-08-01";
/// When trusted access came.
pub(crate) const TRUSTED_ACCESS_SINCE: &str = "2023-09-01";
/// When identity bindings came.
const IDENTITY_BINDINGS_SINCE: &str = "2026-04-01";

pub(crate) const SNAPSHOTS: Type = planned(
    "snapshots",
    &[
        get("Snapshots_Get").since(SNAPSHOTS_SINCE),
        Row::not_yet(Put, "Snapshots_CreateOrUpdate").since(SNAPSHOTS_SINCE),
        Row::not_yet(Patch, "Snapshots_UpdateTags").since(SNAPSHOTS_SINCE),
        delete("Snapshots_Delete").since(SNAPSHOTS_SINCE),
        list("Snapshots_ListByResourceGroup").since(SNAPSHOTS_SINCE),
        list_all("Snapshots_List").since(SNAPSHOTS_SINCE),
    ],
);
pub(crate) const TRUSTED_ACCESS_BINDINGS: Type = planned(
    "managedClusters/trustedAccessRoleBindings",
    &[
        get("TrustedAccessRoleBindings_Get").since(TRUSTED_ACCESS_SINCE),
        Row::not_yet(Put, "TrustedAccessRoleBindings_CreateOrUpdate").since(TRUSTED_ACCESS_SINCE),
        delete("TrustedAccessRoleBindings_Delete").since(TRUSTED_ACCESS_SINCE),
        list("TrustedAccessRoleBindings_List").since(TRUSTED_ACCESS_SINCE),
    ],
);
pub(crate) const IDENTITY_BINDINGS: Type = planned(
    "managedClusters/identityBindings",
    &[
        get("IdentityBindings_Get").since(IDENTITY_BINDINGS_SINCE),
        Row::not_yet(Put, "IdentityBindings_CreateOrUpdate").since(IDENTITY_BINDINGS_SINCE),
        delete("IdentityBindings_Delete").since(IDENTITY_BINDINGS_SINCE),
        list("IdentityBindings_ListByManagedCluster").since(IDENTITY_BINDINGS_SINCE),
    ],
);
