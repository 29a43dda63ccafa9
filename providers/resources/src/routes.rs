//! The version table and the operations. Paths without a namespace are items and collections at tenant scope here, as ARM
//! names their types: `/subscriptions/{s}/resourceGroups/{g}` is `subscriptions/resourceGroups`.

use arm_wire::{Route, RouteStatus, Scope};

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

const fn generic(method: &'static str, path: &'static str, name: &'static str) -> Route {
    Route {
        method,
        path,
        scope: Scope::Tenant,
        name,
        status: RouteStatus::Works,
    }
}

const fn later(method: &'static str, path: &'static str, scope: Scope, name: &'static str) -> Route {
    Route {
        method,
        path,
        scope,
        name,
        status: RouteStatus::NotYet,
    }
}

const GROUP: Scope = Scope::ResourceGroup;
const SUBSCRIPTION: Scope = Scope::Subscription;
const TENANT: Scope = Scope::Tenant;

/// All operations.
pub(crate) const ROUTES: &[Route] = &[
    generic("GET", "tenants", "Tenants_List"),
    generic("GET", "subscriptions", "Subscriptions_List"),
    generic("GET", "subscriptions", "Subscriptions_Get"),
    generic("GET", "subscriptions/locations", "Subscriptions_ListLocations"),
    generic("GET", "providers", "Providers_ListAtTenantScope"),
    generic("GET", "providers", "Providers_GetAtTenantScope"),
    generic("GET", "subscriptions/providers", "Providers_List"),
    generic("GET", "subscriptions/providers", "Providers_Get"),
    generic("POST", "subscriptions/providers/:register", "Providers_Register"),
    generic(
        "POST",
        "subscriptions/providers/:unregister",
        "Providers_Unregister",
    ),
    generic("GET", "subscriptions/resourceGroups", "ResourceGroups_List"),
    generic("GET", "subscriptions/resourceGroups", "ResourceGroups_Get"),
    generic(
        "HEAD",
        "subscriptions/resourceGroups",
        "ResourceGroups_CheckExistence",
    ),
    generic(
        "PUT",
        "subscriptions/resourceGroups",
        "ResourceGroups_CreateOrUpdate",
    ),
    generic("PATCH", "subscriptions/resourceGroups", "ResourceGroups_Update"),
    generic("DELETE", "subscriptions/resourceGroups", "ResourceGroups_Delete"),
    generic("GET", "subscriptions/resources", "Resources_List"),
    generic(
        "GET",
        "subscriptions/resourceGroups/resources",
        "Resources_ListByResourceGroup",
    ),
    later(
        "POST",
        "subscriptions/resourceGroups/:exportTemplate",
        TENANT,
        "ResourceGroups_ExportTemplate",
    ),
    later(
        "POST",
        "subscriptions/resourceGroups/:moveResources",
        TENANT,
        "Resources_MoveResources",
    ),
    later(
        "POST",
        "subscriptions/resourceGroups/:validateMoveResources",
        TENANT,
        "Resources_ValidateMoveResources",
    ),
    later(
        "GET",
        "subscriptions/resourceGroups/deployments/operations",
        TENANT,
        "DeploymentOperations_List",
    ),
    later(
        "GET",
        "subscriptions/resourceGroups/deployments/operations",
        TENANT,
        "DeploymentOperations_Get",
    ),
    later("GET", "subscriptions/tagNames", TENANT, "Tags_List"),
    later("PUT", "subscriptions/tagNames", TENANT, "Tags_CreateOrUpdate"),
    later("DELETE", "subscriptions/tagNames", TENANT, "Tags_Delete"),
    later("GET", "deployments", GROUP, "Deployments_ListByResourceGroup"),
    later("GET", "deployments", GROUP, "Deployments_Get"),
    later("HEAD", "deployments", GROUP, "Deployments_CheckExistence"),
    later("PUT", "deployments", GROUP, "Deployments_CreateOrUpdate"),
    later("DELETE", "deployments", GROUP, "Deployments_Delete"),
    later("POST", "deployments/:validate", GROUP, "Deployments_Validate"),
    later("POST", "deployments/:whatIf", GROUP, "Deployments_WhatIf"),
    later("POST", "deployments/:cancel", GROUP, "Deployments_Cancel"),
    later(
        "POST",
        "deployments/:exportTemplate",
        GROUP,
        "Deployments_ExportTemplate",
    ),
    later(
        "GET",
        "deployments/operations",
        GROUP,
        "DeploymentOperations_List",
    ),
    later("GET", "deployments/operations", GROUP, "DeploymentOperations_Get"),
    later(
        "GET",
        "deployments",
        SUBSCRIPTION,
        "Deployments_ListAtSubscriptionScope",
    ),
    later(
        "GET",
        "deployments",
        SUBSCRIPTION,
        "Deployments_GetAtSubscriptionScope",
    ),
    later(
        "HEAD",
        "deployments",
        SUBSCRIPTION,
        "Deployments_CheckExistenceAtSubscriptionScope",
    ),
    later(
        "PUT",
        "deployments",
        SUBSCRIPTION,
        "Deployments_CreateOrUpdateAtSubscriptionScope",
    ),
    later(
        "DELETE",
        "deployments",
        SUBSCRIPTION,
        "Deployments_DeleteAtSubscriptionScope",
    ),
    later(
        "POST",
        "deployments/:validate",
        SUBSCRIPTION,
        "Deployments_ValidateAtSubscriptionScope",
    ),
    later(
        "POST",
        "deployments/:whatIf",
        SUBSCRIPTION,
        "Deployments_WhatIfAtSubscriptionScope",
    ),
    later("GET", "tags", SUBSCRIPTION, "Tags_GetAtScope"),
    later("PUT", "tags", SUBSCRIPTION, "Tags_CreateOrUpdateAtScope"),
    later("PATCH", "tags", SUBSCRIPTION, "Tags_UpdateAtScope"),
    later("GET", "tags", GROUP, "Tags_GetAtScope"),
    later("PUT", "tags", GROUP, "Tags_CreateOrUpdateAtScope"),
    later("PATCH", "tags", GROUP, "Tags_UpdateAtScope"),
];
