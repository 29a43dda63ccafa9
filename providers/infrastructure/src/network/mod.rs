//! `Microsoft.Network`: the network resources of each cluster, in its node resource group; and VNETs,
//! security groups and public IP addresses that tenants make.

pub(crate) mod own;
pub(crate) mod public;
mod services;
#[cfg(test)]
mod tests;
mod view;

use arm_kernel::{
    Gate, Items, Namespace, Operation, ResourceType, Scope,
    Verb::{Delete, Get, List, Patch, Put},
    etag, store_error,
};
use arm_wire::{ArmError, Request, Response};
use base_env::Env;
use control_records::network::{self, NetworkRecord};
use control_store::{Store, list_records};
use serde_json::Value;

use crate::{
    Stamp, compute, missing,
    place::{Place, places},
    usages, with_cluster,
};

/// The namespace.
pub(crate) const NAMESPACE: &str = "Microsoft.Network";
/// The name of a cluster's VNET.
pub(crate) const VNET: &str = "aks-vnet";
/// The name of its subnet for nodes.
pub(crate) const SUBNET: &str = "aks-subnet";

/// The api-versions that are accepted, newest first.
const VERSIONS: &[&str] = &[
    "2025-09-01",
    "2025-07-01",
    "2025-05-01",
    "2025-03-01",
    "2025-01-01",
    "2024-10-01",
    "2024-07-01",
    "2024-05-01",
    "2024-03-01",
    "2024-01-01",
    "2023-11-01",
    "2023-09-01",
    "2023-06-01",
    "2023-04-01",
    "2023-02-01",
    "2022-11-01",
    "2022-09-01",
    "2022-07-01",
    "2022-05-01",
    "2022-01-01",
    "2021-08-01",
    "2021-05-01",
    "2021-02-01",
    "2020-11-01",
    "2020-07-01",
    "2019-11-01",
    "2018-11-01",
];

/// The provider.
pub struct Network {
    /// The source of its data.
    pub stamp: Stamp,
    /// Clock and identities.
    pub env: Env,
}

impl Namespace for Network {
    const NAME: &'static str = NAMESPACE;
    const TYPES: &'static [&'static ResourceType<Self>] = &[
        &own::VNETS,
        &own::SUBNETS,
        &public::ADDRESSES,
        &BALANCERS,
        &POOLS,
        &own::GROUPS,
        &own::RULES,
        &TABLES,
        &ROUTES,
        &CARDS,
        &USAGES,
    ];
}

/// The eTag of what a tenant has made.
fn tag_of(record: &NetworkRecord) -> String {
    let tag = etag(&record.uid, "", record.generation, record.modified_at);
    format!("W/\"{tag}\"")
}

/// What tenants have made of a kind in a subscription, or in one group of it.
async fn records(
    store: &dyn Store,
    kind: &str,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<NetworkRecord>, ArmError> {
    let prefix = network::key(kind, subscription, group.unwrap_or_default(), "");
    let (found, _) = list_records::<NetworkRecord>(store, &prefix)
        .await
        .map_err(store_error)?;
    Ok(found.into_iter().map(|(_, found)| found.value).collect())
}

type Row = Operation<Network>;
type Type = ResourceType<Network>;
/// All resources of a type that a cluster has.
pub(crate) type Of = fn(&Place, &Stamp) -> Vec<Value>;

const fn kind(path: &'static str, operations: &'static [Row]) -> Type {
    ResourceType {
        path,
        versions: VERSIONS,
        schema: None,
        members: None,
        operations,
    }
}

/// A type with resources of each cluster in its node resource group.
macro_rules! of_clusters {
    ($path:literal, $of:path, $get:literal, $list:literal, $all:literal, [$($more:expr),* $(,)?]) => {
        ResourceType {
            members: Some(with_cluster(|provider: &Network, subscription, group| {
                Box::pin(provider.summaries(subscription, group, $of))
            })),
            ..kind(
                $path,
                &[
                    Row::read(Get, $get, |provider, call| {
                        Box::pin(provider.one(&call.request, $path, $of))
                    })
                    .expand(EXPANDED),
                    Row::items($list, |provider, call| Box::pin(provider.all(&call.request, $of)))
                        .gate(Gate::Items),
                    Row::items($all, |provider, call| Box::pin(provider.all(&call.request, $of)))
                        .gate(Gate::Items)
                        .at(Scope::Subscription),
                    $($more),*
                ],
            )
        }
    };
}

/// A part of a resource that is also a resource type.
macro_rules! part {
    ($path:literal, $of:path, $parent:literal, $member:literal, $get:literal, $list:literal, [$($more:expr),* $(,)?]) => {
        kind(
            $path,
            &[
                Row::read(Get, $get, |provider, call| {
                    Box::pin(provider.part(&call.request, ($parent, $of, $member)))
                })
                .expand(EXPANDED),
                Row::items($list, |provider, call| {
                    Box::pin(provider.parts(&call.request, ($parent, $of, $member)))
                }),
                $($more),*
            ],
        )
    };
}

/// Values of `$expand` that clients send; these parts are always shown.
const EXPANDED: &[&str] = &["ipConfigurations", "ipConfigurations/networkInterface"];

const BALANCERS: Type = of_clusters!(
    "loadBalancers",
    view::balancers,
    "LoadBalancers_Get",
    "LoadBalancers_List",
    "LoadBalancers_ListAll",
    [
        Row::not_yet(Put, "LoadBalancers_CreateOrUpdate"),
        Row::not_yet(Patch, "LoadBalancers_UpdateTags"),
        Row::not_yet(Delete, "LoadBalancers_Delete"),
    ]
);
const POOLS: Type = part!(
    "loadBalancers/backendAddressPools",
    view::balancers,
    "loadBalancers",
    "backendAddressPools",
    "LoadBalancerBackendAddressPools_Get",
    "LoadBalancerBackendAddressPools_List",
    []
);
const TABLES: Type = of_clusters!(
    "routeTables",
    view::route_tables,
    "RouteTables_Get",
    "RouteTables_List",
    "RouteTables_ListAll",
    [
        Row::not_yet(Put, "RouteTables_CreateOrUpdate"),
        Row::not_yet(Patch, "RouteTables_UpdateTags"),
        Row::not_yet(Delete, "RouteTables_Delete"),
    ]
);
const ROUTES: Type = part!(
    "routeTables/routes",
    view::route_tables,
    "routeTables",
    "routes",
    "Routes_Get",
    "Routes_List",
    [
        Row::not_yet(Put, "Routes_CreateOrUpdate"),
        Row::not_yet(Delete, "Routes_Delete"),
    ]
);
/// Network interfaces outside scale sets: there are none.
const CARDS: Type = kind(
    "networkInterfaces",
    &[
        Row::items("NetworkInterfaces_List", |_, _| {
            Box::pin(async { Ok(Items::ById(Vec::new())) })
        }),
        Row::items("NetworkInterfaces_ListAll", |_, _| {
            Box::pin(async { Ok(Items::ById(Vec::new())) })
        })
        .at(Scope::Subscription),
        Row::not_yet(Get, "NetworkInterfaces_Get"),
        Row::not_yet(Put, "NetworkInterfaces_CreateOrUpdate"),
        Row::not_yet(Delete, "NetworkInterfaces_Delete"),
    ],
);
const USAGES: Type = kind(
    "locations/usages",
    &[Row::read(List, "Usages_List", |provider, call| {
        Box::pin(provider.usages(&call.request))
    })
    .at(Scope::Subscription)],
);

impl Network {
    async fn found(&self, subscription: &str, group: Option<&str>, of: Of) -> Result<Vec<Value>, ArmError> {
        let places = places(&*self.stamp.store, subscription, group).await?;
        Ok(places.iter().flat_map(|place| of(place, &self.stamp)).collect())
    }

    async fn all(&self, request: &Request, of: Of) -> Result<Items, ArmError> {
        let subscription = request.path.subscription.as_deref().unwrap_or_default();
        let group = request.path.resource_group.as_deref();
        Ok(Items::ById(self.found(subscription, group, of).await?))
    }

    async fn summaries(
        &self,
        subscription: &str,
        group: Option<&str>,
        of: Of,
    ) -> Result<Vec<Value>, ArmError> {
        let found = self.found(subscription, group, of).await?;
        Ok(found.into_iter().map(compute::summary).collect())
    }

    async fn named(&self, request: &Request, kind: &str, of: Of) -> Result<Value, ArmError> {
        let path = &request.path;
        let (group, name) = (
            path.resource_group.as_deref().unwrap_or_default(),
            path.name(0).unwrap_or_default(),
        );
        let subscription = path.subscription.as_deref().unwrap_or_default();
        let found = self.found(subscription, Some(group), of).await?;
        let mut found = found.into_iter().filter(|item| is_called(item, name));
        found
            .next()
            .ok_or_else(|| missing(&format!("{NAMESPACE}/{kind}"), name, group))
    }

    async fn one(&self, request: &Request, kind: &str, of: Of) -> Result<Response, ArmError> {
        Ok(Response::ok(self.named(request, kind, of).await?))
    }

    async fn parts(
        &self,
        request: &Request,
        (kind, of, member): (&str, Of, &str),
    ) -> Result<Items, ArmError> {
        let parent = self.named(request, kind, of).await?;
        let parts = parent["properties"][member].as_array().cloned();
        Ok(Items::ById(parts.unwrap_or_default()))
    }

    async fn part(
        &self,
        request: &Request,
        (kind, of, member): (&str, Of, &str),
    ) -> Result<Response, ArmError> {
        let parent = self.named(request, kind, of).await?;
        let name = request.path.name(1).unwrap_or_default();
        let parts = parent["properties"][member].as_array().into_iter().flatten();
        let mut found = parts.filter(|part| is_called(part, name));
        let group = request.path.resource_group.as_deref().unwrap_or_default();
        let missing = || {
            let parent = request.path.name(0).unwrap_or_default();
            missing(
                &format!("{NAMESPACE}/{kind}"),
                &format!("{parent}/{member}/{name}"),
                group,
            )
        };
        found.next().cloned().map(Response::ok).ok_or_else(missing)
    }

    async fn usages(&self, request: &Request) -> Result<Response, ArmError> {
        self.stamp
            .check_location(request.path.name(0).unwrap_or_default())?;
        let subscription = request.path.subscription.as_deref().unwrap_or_default();
        let used = usages::of(&self.stamp, subscription).await?;
        let made = public::count(&*self.stamp.store, subscription).await?;
        let made = u64::try_from(made).unwrap_or(u64::MAX);
        Ok(Response::ok(usages::network(
            &used,
            made,
            &self.stamp,
            subscription,
        )))
    }
}

fn is_called(item: &Value, name: &str) -> bool {
    item["name"]
        .as_str()
        .is_some_and(|own| own.eq_ignore_ascii_case(name))
}
