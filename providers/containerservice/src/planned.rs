//! Types of the API that are not there yet. One that is done moves to a module of its own.

use arm_kernel::{
    Operation, ResourceType,
    Verb::{Action, Patch, Put},
};

use crate::{
    ContainerService,
    api_versions::API_VERSIONS,
    empty::{delete, get, list},
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

/// When namespaces came.
const NAMESPACES_SINCE: &str = "2025-09-01";

pub(crate) const NAMESPACES: Type = planned(
    "managedClusters/managedNamespaces",
    &[
        get("ManagedNamespaces_Get").since(NAMESPACES_SINCE),
        Row::not_yet(Put, "ManagedNamespaces_CreateOrUpdate").since(NAMESPACES_SINCE),
        Row::not_yet(Patch, "ManagedNamespaces_Update").since(NAMESPACES_SINCE),
        delete("ManagedNamespaces_Delete").since(NAMESPACES_SINCE),
        list("ManagedNamespaces_ListByManagedCluster").since(NAMESPACES_SINCE),
        Row::not_yet(Action("listCredential"), "ManagedNamespaces_ListCredential").since(NAMESPACES_SINCE),
    ],
);
