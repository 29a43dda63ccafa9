//! The rows of tenants' networks.

use arm_ids::ResourcePath;
use arm_kernel::{
    Call, FIELDS, Gate, Members, Mode, Operation, ResourceType, Scope,
    Verb::{self, Put},
    put,
};
use arm_wire::{ArmError, Response};
use serde_json::json;

use super::{Kind, Part, Top, delete_all, rules::Groups, summaries, vnets::Vnets};
use crate::network::{EXPANDED, NAMESPACE, Network, VERSIONS};

type Row = Operation<Network>;
type Type = ResourceType<Network>;

/// The permission that is needed to use a security group.
const JOIN_GROUP: &str = "Microsoft.Network/networkSecurityGroups/join/action";

/// PUT of a resource that may name security groups.
async fn put_top<K: Kind>(provider: &Network, call: &Call, mode: Mode) -> Result<Response, ArmError> {
    joins::<K>(call, &K::references(&call.request.body["properties"])).await?;
    put::<Top<K>>(provider, call, mode).await
}

/// PUT of a part that may name security groups.
async fn put_part<K: Kind>(provider: &Network, call: &Call, mode: Mode) -> Result<Response, ArmError> {
    let properties = json!({ K::PARTS: [{ "properties": call.request.body["properties"] }] });
    joins::<K>(call, &K::references(&properties)).await?;
    put::<Part<K>>(provider, call, mode).await
}

async fn joins<K: Kind>(call: &Call, groups: &[ResourcePath]) -> Result<(), ArmError> {
    let own = format!("{NAMESPACE}/{}/write", call.request.path.type_path());
    call.check_linked(&own, JOIN_GROUP, groups).await
}

const fn put_row<K: Kind>(name: &'static str) -> Row {
    Row::write(
        Put,
        name,
        |provider, call| Box::pin(put_top::<K>(provider, call, Mode::Commit)),
        |provider, call| Box::pin(put_top::<K>(provider, call, Mode::Preview)),
    )
}

const fn put_part_row<K: Kind>(name: &'static str) -> Row {
    Row::write(
        Put,
        name,
        |provider, call| Box::pin(put_part::<K>(provider, call, Mode::Commit)),
        |provider, call| Box::pin(put_part::<K>(provider, call, Mode::Preview)),
    )
}

const fn members<K: Kind>() -> Option<Members<Network>> {
    Some(Members {
        list: |provider, subscription, group| Box::pin(summaries::<K>(provider, subscription, group)),
        delete: |provider, subscription, group| Box::pin(delete_all::<K>(provider, subscription, group)),
    })
}

pub(in crate::network) const VNETS: Type = ResourceType {
    path: Vnets::TYPE,
    versions: VERSIONS,
    schema: Some(Vnets::SCHEMA),
    members: members::<Vnets>(),
    operations: &[
        Row::get::<Top<Vnets>>("VirtualNetworks_Get").expand(EXPANDED),
        put_row::<Vnets>("VirtualNetworks_CreateOrUpdate"),
        Row::patch_tags::<Top<Vnets>>("VirtualNetworks_UpdateTags"),
        Row::delete::<Top<Vnets>>("VirtualNetworks_Delete"),
        Row::list::<Top<Vnets>>("VirtualNetworks_List")
            .filter(FIELDS)
            .gate(Gate::Items),
        Row::list::<Top<Vnets>>("VirtualNetworks_ListAll")
            .filter(FIELDS)
            .gate(Gate::Items)
            .at(Scope::Subscription),
        Row::not_yet(
            Verb::Action("checkIpAddressAvailability"),
            "VirtualNetworks_CheckIPAddressAvailability",
        ),
    ],
};

pub(in crate::network) const SUBNETS: Type = ResourceType {
    path: "virtualNetworks/subnets",
    versions: VERSIONS,
    schema: Some(Vnets::PART_SCHEMA),
    members: None,
    operations: &[
        Row::get::<Part<Vnets>>("Subnets_Get").expand(EXPANDED),
        put_part_row::<Vnets>("Subnets_CreateOrUpdate"),
        Row::delete::<Part<Vnets>>("Subnets_Delete"),
        Row::list::<Part<Vnets>>("Subnets_List"),
    ],
};

pub(in crate::network) const GROUPS: Type = ResourceType {
    path: Groups::TYPE,
    versions: VERSIONS,
    schema: Some(Groups::SCHEMA),
    members: members::<Groups>(),
    operations: &[
        Row::get::<Top<Groups>>("NetworkSecurityGroups_Get").expand(EXPANDED),
        put_row::<Groups>("NetworkSecurityGroups_CreateOrUpdate"),
        Row::patch_tags::<Top<Groups>>("NetworkSecurityGroups_UpdateTags"),
        Row::delete::<Top<Groups>>("NetworkSecurityGroups_Delete"),
        Row::list::<Top<Groups>>("NetworkSecurityGroups_List")
            .filter(FIELDS)
            .gate(Gate::Items),
        Row::list::<Top<Groups>>("NetworkSecurityGroups_ListAll")
            .filter(FIELDS)
            .gate(Gate::Items)
            .at(Scope::Subscription),
    ],
};

pub(in crate::network) const RULES: Type = ResourceType {
    path: "networkSecurityGroups/securityRules",
    versions: VERSIONS,
    schema: Some(Groups::PART_SCHEMA),
    members: None,
    operations: &[
        Row::get::<Part<Groups>>("SecurityRules_Get"),
        put_part_row::<Groups>("SecurityRules_CreateOrUpdate"),
        Row::delete::<Part<Groups>>("SecurityRules_Delete"),
        Row::list::<Part<Groups>>("SecurityRules_List"),
    ],
};
