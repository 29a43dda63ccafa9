//! The types of `Microsoft.ContainerService`: one line each.

use arm_kernel::{Gate, Namespace, Operation, ResourceType, Scope, Verb, operations_document};
use arm_wire::Response;

use crate::{
    ContainerService, NAMESPACE, api_versions::API_VERSIONS, bindings, clusters, commands, empty, machines,
    maintenance, namespaces, pools, snapshots, usages, versions,
};

type Row = Operation<ContainerService>;

impl Namespace for ContainerService {
    const NAME: &'static str = NAMESPACE;
    const TYPES: &'static [&'static ResourceType<Self>] = &[
        &clusters::TYPE,
        &clusters::ACCESS_PROFILES,
        &pools::TYPE,
        &machines::TYPE,
        &versions::CLUSTER_UPGRADES,
        &versions::POOL_UPGRADES,
        &versions::POOL_VERSIONS,
        &versions::LOCATION_VERSIONS,
        &maintenance::TYPE,
        &namespaces::TYPE,
        &commands::RESULTS,
        &snapshots::TYPE,
        &bindings::trusted::TYPE,
        &bindings::trusted::ROLES,
        &bindings::identities::TYPE,
        &empty::PRIVATE_ENDPOINTS,
        &empty::PRIVATE_LINKS,
        &empty::OUTBOUND_ENDPOINTS,
        &empty::MESH_REVISIONS,
        &empty::MESH_UPGRADES,
        &usages::TYPE,
        &OPERATIONS,
    ];
}

/// What can be done here at all, for roles.
const OPERATIONS: ResourceType<ContainerService> = ResourceType {
    path: "operations",
    versions: API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::read(Verb::List, "Operations_List", |_, _| {
        Box::pin(async { Ok(Response::ok(operations_document::<ContainerService>())) })
    })
    .gate(Gate::Anybody)
    .at(Scope::Tenant)],
};
