//! The types of `Microsoft.Authorization`.

use arm_kernel::{
    Gate, Items, Namespace, Operation, ResourceType, Scope,
    Verb::{Delete, Get, List, Put},
    operations_document,
};
use arm_wire::{ArmError, ErrorCode, Response};

use crate::{
    Authorization, NAMESPACE,
    assignments::{self, Assignments},
    definitions,
    locks::Locks,
};

type Type = ResourceType<Authorization>;
type Row = Operation<Authorization>;

/// Of roles and assignments. The supported part has not changed between these.
const ROLE_VERSIONS: &[&str] = &[
    "2022-05-01-preview",
    "2022-04-01",
    "2021-04-01-preview",
    "2020-10-01-preview",
    "2020-08-01-preview",
    "2020-04-01-preview",
    "2020-03-01-preview",
    "2018-09-01-preview",
    "2018-07-01",
    "2018-01-01-preview",
    "2017-10-01-preview",
    "2015-07-01",
    "2015-06-01",
    "2015-05-01-preview",
];
const LOCK_VERSIONS: &[&str] = &["2020-05-01", "2017-04-01", "2016-09-01", "2015-01-01"];

const fn kind(path: &'static str, versions: &'static [&'static str], operations: &'static [Row]) -> Type {
    ResourceType {
        path,
        versions,
        schema: None,
        // They are deleted with the resource that they extend.
        members: None,
        operations,
    }
}

impl Namespace for Authorization {
    const NAME: &'static str = NAMESPACE;
    const TYPES: &'static [&'static ResourceType<Self>] = &[
        &ROLE_ASSIGNMENTS,
        &ROLE_DEFINITIONS,
        &PERMISSIONS,
        &DENY_ASSIGNMENTS,
        &LOCKS,
        &OPERATIONS,
    ];
}

const ROLE_ASSIGNMENTS: Type = kind(
    "roleAssignments",
    ROLE_VERSIONS,
    &[
        Row::items("RoleAssignments_ListForScope", |provider, call| {
            Box::pin(assignments::list(provider, &call.request))
        })
        .own_filter()
        .at(Scope::Any),
        Row::get::<Assignments>("RoleAssignments_Get").at(Scope::Any),
        Row::put::<Assignments>("RoleAssignments_Create").at(Scope::Any),
        Row::write(
            Delete,
            "RoleAssignments_Delete",
            |provider, call| Box::pin(assignments::delete(provider, call, arm_kernel::Mode::Commit)),
            |provider, call| Box::pin(assignments::delete(provider, call, arm_kernel::Mode::Preview)),
        )
        .at(Scope::Any),
    ],
);

const ROLE_DEFINITIONS: Type = kind(
    "roleDefinitions",
    ROLE_VERSIONS,
    &[
        Row::items("RoleDefinitions_List", |provider, call| {
            Box::pin(definitions::list(provider, &call.request))
        })
        .own_filter()
        .at(Scope::Any),
        Row::get::<definitions::Definitions>("RoleDefinitions_Get").at(Scope::Any),
        Row::write(
            Put,
            "RoleDefinitions_CreateOrUpdate",
            |provider, call| Box::pin(definitions::put(provider, call, arm_kernel::Mode::Commit)),
            |provider, call| Box::pin(definitions::put(provider, call, arm_kernel::Mode::Preview)),
        )
        .at(Scope::Any),
        Row::write(
            Delete,
            "RoleDefinitions_Delete",
            |provider, call| Box::pin(definitions::delete(provider, call, arm_kernel::Mode::Commit)),
            |provider, call| Box::pin(definitions::delete(provider, call, arm_kernel::Mode::Preview)),
        )
        .at(Scope::Any),
    ],
);

const PERMISSIONS: Type = kind(
    "permissions",
    ROLE_VERSIONS,
    &[Row::items("Permissions_ListForScope", |provider, call| {
        Box::pin(crate::permissions::list(provider, &call.request))
    })
    .at(Scope::Any)],
);

/// There are no deny assignments: the list is always empty.
const DENY_ASSIGNMENTS: Type = kind(
    "denyAssignments",
    ROLE_VERSIONS,
    &[
        Row::items("DenyAssignments_List", |_, _| {
            Box::pin(async { Ok(Items::ById(Vec::new())) })
        })
        .own_filter()
        .at(Scope::Any),
        Row::read(Get, "DenyAssignments_Get", |_, _| {
            Box::pin(async {
                Err(ArmError::new(
                    ErrorCode::RESOURCE_NOT_FOUND,
                    "There are no deny assignments here.",
                ))
            })
        })
        .at(Scope::Any),
    ],
);

const LOCKS: Type = kind(
    "locks",
    LOCK_VERSIONS,
    &[
        Row::items("ManagementLocks_ListByScope", |provider, call| {
            Box::pin(crate::locks::list(provider, &call.request))
        })
        .own_filter()
        .at(Scope::Any),
        Row::get::<Locks>("ManagementLocks_GetByScope").at(Scope::Any),
        Row::put::<Locks>("ManagementLocks_CreateOrUpdateByScope").at(Scope::Any),
        Row::delete::<Locks>("ManagementLocks_DeleteByScope").at(Scope::Any),
    ],
);

const OPERATIONS: Type = kind(
    "operations",
    ROLE_VERSIONS,
    &[Row::read(List, "Operations_List", |_, _| {
        Box::pin(async { Ok(Response::ok(operations_document::<Authorization>())) })
    })
    .gate(Gate::Anybody)
    .at(Scope::Tenant)],
);
