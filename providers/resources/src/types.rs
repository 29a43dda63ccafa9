//! The types of `Microsoft.Resources`. Paths without a namespace are items and collections at tenant scope here, as ARM names their
//! types: `/subscriptions/{s}/resourceGroups/{g}` is `subscriptions/resourceGroups`.

use arm_kernel::{
    FIELDS, Gate, Mode, Namespace, Operation, ResourceType,
    Scope::{Resource, Subscription, Tenant},
    Verb::{Action, Delete, Exists, Get, List, Patch, Put},
};

use crate::{
    NAMESPACE, ResourcesProvider,
    groups::{self, Groups},
    moves, providers, tags,
};

/// The api-versions that are accepted, newest first. Azure uses several tables here (subscriptions, providers, groups,
/// deployments); clients mix them, and the parts that are served have not changed, so there is one.
pub(crate) const API_VERSIONS: &[&str] = &[
    "2025-04-01",
    "2025-03-01",
    "2024-11-01",
    "2024-08-01",
    "2024-07-01",
    "2024-03-01",
    "2023-07-01",
    "2022-12-01",
    "2022-09-01",
    "2022-06-01",
    "2022-05-01",
    "2022-01-01",
    "2021-04-01",
    "2021-01-01",
    "2020-10-01",
    "2020-09-01",
    "2020-08-01",
    "2020-06-01",
    "2020-05-01",
    "2020-01-01",
    "2019-11-01",
    "2019-10-01",
    "2019-08-01",
    "2019-07-01",
    "2019-06-01",
    "2019-05-10",
    "2019-05-01",
    "2019-03-01",
    "2018-06-01",
    "2018-05-01",
    "2018-02-01",
    "2017-05-10",
    "2016-09-01",
    "2016-06-01",
    "2016-02-01",
    "2015-11-01",
    "2015-01-01",
];

type Type = ResourceType<ResourcesProvider>;
type Row = Operation<ResourcesProvider>;

const fn kind(path: &'static str, operations: &'static [Row]) -> Type {
    ResourceType {
        path,
        versions: API_VERSIONS,
        schema: None,
        // Groups and subscriptions are not resources in such lists.
        members: None,
        operations,
    }
}

impl Namespace for ResourcesProvider {
    const NAME: &'static str = NAMESPACE;
    const TYPES: &'static [&'static ResourceType<Self>] = &[
        &TENANTS,
        &SUBSCRIPTIONS,
        &LOCATIONS,
        &TENANT_PROVIDERS,
        &PROVIDERS,
        &GROUPS,
        &RESOURCES,
        &GROUP_RESOURCES,
        &GROUP_DEPLOYMENT_OPERATIONS,
        &TAG_NAMES,
        &DEPLOYMENTS,
        &DEPLOYMENT_OPERATIONS,
        &TAGS,
    ];
}

const TENANTS: Type = kind(
    "tenants",
    &[Row::items("Tenants_List", |provider, _| {
        Box::pin(async { Ok(provider.tenants()) })
    })
    .gate(Gate::Anybody)
    .at(Tenant)],
);
const SUBSCRIPTIONS: Type = kind(
    "subscriptions",
    &[
        Row::items("Subscriptions_List", |provider, _| {
            Box::pin(provider.list_subscriptions())
        })
        .gate(Gate::ItemsReached)
        .at(Tenant),
        Row::read(Get, "Subscriptions_Get", |provider, call| {
            Box::pin(provider.get_subscription(&call.request))
        })
        .gate(Gate::Reaches)
        .at(Tenant),
    ],
);
const LOCATIONS: Type = kind(
    "subscriptions/locations",
    &[Row::items("Subscriptions_ListLocations", |provider, call| {
        Box::pin(provider.locations(&call.request))
    })
    .gate(Gate::Reaches)
    .at(Tenant)],
);
const TENANT_PROVIDERS: Type = kind(
    "providers",
    &[
        Row::items("Providers_ListAtTenantScope", |provider, call| {
            Box::pin(provider.list_providers(&call.request))
        })
        .expand(providers::EXPANDED)
        .gate(Gate::Anybody)
        .at(Tenant),
        Row::read(Get, "Providers_GetAtTenantScope", |provider, call| {
            Box::pin(provider.get_provider(&call.request))
        })
        .expand(providers::EXPANDED)
        .gate(Gate::Anybody)
        .at(Tenant),
    ],
);
const PROVIDERS: Type = kind(
    "subscriptions/providers",
    &[
        Row::items("Providers_List", |provider, call| {
            Box::pin(provider.list_providers(&call.request))
        })
        .expand(providers::EXPANDED)
        .gate(Gate::Reaches)
        .at(Tenant),
        Row::read(Get, "Providers_Get", |provider, call| {
            Box::pin(provider.get_provider(&call.request))
        })
        .expand(providers::EXPANDED)
        .gate(Gate::Reaches)
        .at(Tenant),
        Row::write(
            Action("register"),
            "Providers_Register",
            |provider, call| Box::pin(provider.register(&call.request, true, Mode::Commit)),
            |provider, call| Box::pin(provider.register(&call.request, true, Mode::Preview)),
        )
        .at(Tenant)
        .permission("{namespace}/register/action"),
        Row::write(
            Action("unregister"),
            "Providers_Unregister",
            |provider, call| Box::pin(provider.register(&call.request, false, Mode::Commit)),
            |provider, call| Box::pin(provider.register(&call.request, false, Mode::Preview)),
        )
        .at(Tenant)
        .permission("{namespace}/unregister/action"),
    ],
);
const GROUPS: Type = kind(
    "subscriptions/resourceGroups",
    &[
        Row::list::<Groups>("ResourceGroups_List")
            .filter(&["tagName", "tagValue", "name", "location"])
            .gate(Gate::Items)
            .at(Tenant),
        Row::get::<Groups>("ResourceGroups_Get").at(Tenant),
        Row::exists::<Groups>("ResourceGroups_CheckExistence").at(Tenant),
        Row::put::<Groups>("ResourceGroups_CreateOrUpdate").at(Tenant),
        Row::patch_tags::<Groups>("ResourceGroups_Update").at(Tenant),
        Row::delete::<Groups>(arm_kernel::GROUP_DELETION).at(Tenant),
        Row::not_yet(Action("exportTemplate"), "ResourceGroups_ExportTemplate").at(Tenant),
        moves::row("moveResources", "Resources_MoveResources"),
        moves::row("validateMoveResources", "Resources_ValidateMoveResources"),
    ],
);
const RESOURCES: Type = kind(
    "subscriptions/resources",
    &[Row::items("Resources_List", |provider, call| {
        Box::pin(provider.list_resources(&call.request))
    })
    .filter(FIELDS)
    .expand(groups::EXPANDED)
    .gate(Gate::ItemsByType)
    .at(Tenant)],
);
const GROUP_RESOURCES: Type = kind(
    "subscriptions/resourceGroups/resources",
    &[Row::items("Resources_ListByResourceGroup", |provider, call| {
        Box::pin(provider.list_resources(&call.request))
    })
    .filter(FIELDS)
    .expand(groups::EXPANDED)
    .gate(Gate::ItemsByType)
    .at(Tenant)],
);
const GROUP_DEPLOYMENT_OPERATIONS: Type = kind(
    "subscriptions/resourceGroups/deployments/operations",
    &[
        Row::not_yet(List, "DeploymentOperations_List").at(Tenant),
        Row::not_yet(Get, "DeploymentOperations_Get").at(Tenant),
    ],
);
const TAG_NAMES: Type = kind(
    "subscriptions/tagNames",
    &[
        Row::not_yet(List, "Tags_List").at(Tenant),
        Row::not_yet(Put, "Tags_CreateOrUpdate").at(Tenant),
        Row::not_yet(Delete, "Tags_Delete").at(Tenant),
    ],
);
const DEPLOYMENTS: Type = kind(
    "deployments",
    &[
        Row::not_yet(List, "Deployments_ListByResourceGroup"),
        Row::not_yet(Get, "Deployments_Get"),
        Row::not_yet(Exists, "Deployments_CheckExistence"),
        Row::not_yet(Put, "Deployments_CreateOrUpdate"),
        Row::not_yet(Delete, "Deployments_Delete"),
        Row::not_yet(Action("validate"), "Deployments_Validate"),
        Row::not_yet(Action("whatIf"), "Deployments_WhatIf"),
        Row::not_yet(Action("cancel"), "Deployments_Cancel"),
        Row::not_yet(Action("exportTemplate"), "Deployments_ExportTemplate"),
        Row::not_yet(List, "Deployments_ListAtSubscriptionScope").at(Subscription),
        Row::not_yet(Get, "Deployments_GetAtSubscriptionScope").at(Subscription),
        Row::not_yet(Exists, "Deployments_CheckExistenceAtSubscriptionScope").at(Subscription),
        Row::not_yet(Put, "Deployments_CreateOrUpdateAtSubscriptionScope").at(Subscription),
        Row::not_yet(Delete, "Deployments_DeleteAtSubscriptionScope").at(Subscription),
        Row::not_yet(Action("validate"), "Deployments_ValidateAtSubscriptionScope").at(Subscription),
        Row::not_yet(Action("whatIf"), "Deployments_WhatIfAtSubscriptionScope").at(Subscription),
    ],
);
const DEPLOYMENT_OPERATIONS: Type = kind(
    "deployments/operations",
    &[
        Row::not_yet(List, "DeploymentOperations_List"),
        Row::not_yet(Get, "DeploymentOperations_Get"),
    ],
);
const TAGS: Type = kind(
    "tags",
    &[
        Row::not_yet(Get, "Tags_GetAtScope").at(Subscription),
        Row::not_yet(Put, "Tags_CreateOrUpdateAtScope").at(Subscription),
        Row::not_yet(Patch, "Tags_UpdateAtScope").at(Subscription),
        Row::not_yet(Delete, "Tags_DeleteAtScope").at(Subscription),
        tags::read("Tags_GetAtScope"),
        tags::write(Put, "Tags_CreateOrUpdateAtScope"),
        tags::write(Patch, "Tags_UpdateAtScope"),
        tags::write(Delete, "Tags_DeleteAtScope"),
        tags::read("Tags_GetAtScope").at(Resource),
        tags::write(Put, "Tags_CreateOrUpdateAtScope").at(Resource),
        tags::write(Patch, "Tags_UpdateAtScope").at(Resource),
        tags::write(Delete, "Tags_DeleteAtScope").at(Resource),
    ],
);
