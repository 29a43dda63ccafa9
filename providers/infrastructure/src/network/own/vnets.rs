//! VNETs and their subnets: validation and rendering. Pure.

use std::net::Ipv4Addr;

use arm_ids::ResourcePath;
use arm_kernel::{
    quote,
    schema::{Node, Problems, Schema},
};
use arm_wire::{ArmError, ErrorCode};
use async_trait::async_trait;
use control_records::network::{self, NetworkRecord};
use control_store::Store;
use ipnet::Ipv4Net;
use serde_json::{Map, Value, json};

use super::{Decided, Kind, User, Users, clusters_in, properties};
use crate::{
    Stamp,
    network::{NAMESPACE, Of, view},
    tenants::check_name,
};

/// A VNET, with its subnets.
pub(crate) enum Vnets {}

/// The longest prefix of a subnet, and the shortest of any range.
const LONGEST: u8 = 29;
const SHORTEST: u8 = 2;

/// Ranges that are never allowed, and why.
const NEVER: &[(&str, &str)] = &[
    ("0.0.0.0/8", "'this network'"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "reserved by Azure"),
    ("169.254.0.0/16", "link-local addresses"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
];

#[async_trait]
impl Kind for Vnets {
    const TYPE: &'static str = "virtualNetworks";
    const KEY: &'static str = network::VNETS;
    const PARTS: &'static str = "subnets";
    const OF_CLUSTERS: Of = view::vnets;
    const SCHEMA: Schema = properties::VNET_SCHEMA;
    const PART_SCHEMA: Schema = properties::SUBNET_SCHEMA;
    const MOST: usize = 1000;

    fn tree() -> &'static Node {
        &properties::VNET
    }

    async fn users(store: &dyn Store, record: &NetworkRecord) -> Result<Users, ArmError> {
        clusters_in(store, record).await
    }

    fn part_tree() -> &'static Node {
        &properties::SUBNET
    }

    fn properties(
        stamp: &Stamp,
        mut asked: Map<String, Value>,
        problems: &mut Problems,
    ) -> Map<String, Value> {
        const SPACE: &str = "properties.addressSpace.addressPrefixes";
        let space = asked
            .get("addressSpace")
            .and_then(|space| space.get("addressPrefixes"));
        let texts: Vec<&str> = space
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if texts.is_empty() {
            problems.add(
                ErrorCode::MISSING_PARAMETER,
                SPACE,
                format!("The required property '{SPACE}' is missing."),
            );
        }
        let mut ranges: Vec<Ipv4Net> = Vec::new();
        for (index, text) in texts.into_iter().enumerate() {
            let target = format!("{SPACE}[{index}]");
            let Some(range) = prefix(text, &target, problems) else {
                continue;
            };
            if let Some(other) = ranges.iter().find(|other| overlap(other, &range)) {
                let message = format!("The address prefixes {other} and {range} overlap.");
                problems.add(ErrorCode::INVALID_PARAMETER, &target, message);
            }
            let never = NEVER
                .iter()
                .filter_map(|(text, why)| Some((text.parse::<Ipv4Net>().ok()?, (*why).to_owned())));
            let mut never = never.chain(stamp.reserved.iter().cloned());
            if let Some((other, why)) = never.find(|(other, _)| overlap(other, &range)) {
                let message = format!("The address prefix {range} overlaps {other} ({why}).");
                problems.add(ErrorCode::INVALID_PARAMETER, &target, message);
            }
            ranges.push(range);
        }
        asked.insert("addressSpace".to_owned(), json!({ "addressPrefixes": ranges }));
        asked.retain(|name, _| ["addressSpace", "subnets", "flowTimeoutInMinutes"].contains(&name.as_str()));
        asked
    }

    fn part(name: &str, mut asked: Map<String, Value>, path: &str, problems: &mut Problems) -> Value {
        let at = |field: &str| format!("{path}properties.{field}");
        check_name(name, 80, &format!("{path}name"), problems);
        let one = asked.get("addressPrefix").and_then(Value::as_str);
        let many: Vec<&str> = asked
            .get("addressPrefixes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        match (one, many.as_slice()) {
            (None, []) => {
                let target = at("addressPrefix");
                let message = format!("The required property '{target}' is missing.");
                problems.add(ErrorCode::MISSING_PARAMETER, target, message);
            }
            (Some(one), []) => check_subnet(one, &at("addressPrefix"), problems),
            (None, [one]) => check_subnet(one, &at("addressPrefixes[0]"), problems),
            (Some(one), [other]) if one == *other => check_subnet(one, &at("addressPrefix"), problems),
            (Some(_), _) => problems.add(
                ErrorCode::INVALID_PARAMETER,
                at("addressPrefixes"),
                "Give either 'addressPrefix' or 'addressPrefixes'.",
            ),
            (None, _) => problems.add(
                ErrorCode::PROPERTY_NOT_SUPPORTED,
                at("addressPrefixes"),
                "More than one range in a subnet is not supported yet; make a subnet of each.",
            ),
        }
        match asked
            .get("networkSecurityGroup")
            .map(|group| group["id"].as_str())
        {
            None => {}
            Some(Some(id)) if is_group(id) => {}
            Some(_) => problems.add(
                ErrorCode::INVALID_RESOURCE_REFERENCE,
                at("networkSecurityGroup.id"),
                "It has to be the id of a network security group.",
            ),
        }
        asked
            .entry("privateEndpointNetworkPolicies")
            .or_insert_with(|| json!("Disabled"));
        asked
            .entry("privateLinkServiceNetworkPolicies")
            .or_insert_with(|| json!("Enabled"));
        for empty in [
            "serviceEndpoints",
            "serviceEndpointPolicies",
            "ipAllocations",
            "delegations",
            "applicationGatewayIPConfigurations",
            "applicationGatewayIpConfigurations",
            "ipamPoolPrefixAllocations",
            "routeTable",
            "natGateway",
            "serviceGateway",
            "sharingScope",
        ] {
            asked.remove(empty);
        }
        json!({ "name": name, "properties": asked })
    }

    fn check(decided: &Decided<'_>, problems: &mut Problems) {
        let space = space(decided.after);
        let mut seen: Vec<(&str, Ipv4Net)> = Vec::new();
        for (index, subnet) in subnets(decided.after).enumerate() {
            let Some(range) = range(subnet) else { continue };
            let name = name_of(subnet);
            let target = decided.target(index, name);
            if !space.iter().any(|prefix| prefix.contains(&range)) {
                let message = format!(
                    "Subnet {} is not valid because its IP address range {range} is outside the IP address range of virtual network {}.",
                    quote(name),
                    quote(decided.name)
                );
                problems.add(ErrorCode::NETCFG_SUBNET_OUTSIDE, &target, message);
            }
            if let Some((other, at)) = seen.iter().find(|(_, other)| overlap(other, &range)) {
                let message = format!(
                    "Subnet {} is not valid because its IP address range {range} overlaps with that of an existing subnet in virtual network \
                     {}: {} has {at}.",
                    quote(name),
                    quote(decided.name),
                    quote(other)
                );
                problems.add(ErrorCode::NETCFG_SUBNET_RANGES_OVERLAP, &target, message);
            }
            seen.push((name, range));
        }
        // Clusters with nodes in a subnet depend on its range, and on the whole address space.
        for user in decided.users {
            let found =
                subnets(decided.after).find(|subnet| name_of(subnet).eq_ignore_ascii_case(&user.part));
            let before = decided.before.and_then(|before| {
                subnets(before).find(|subnet| name_of(subnet).eq_ignore_ascii_case(&user.part))
            });
            let same = found.and_then(range) == before.and_then(range);
            if found.is_none() || !same {
                let verb = if found.is_none() {
                    "deleted"
                } else {
                    "given another range"
                };
                let message = format!(
                    "Subnet {} is in use by {} and cannot be {verb}.",
                    quote(&user.part),
                    user.who
                );
                problems.add(
                    ErrorCode::IN_USE_SUBNET,
                    format!("properties.subnets.{}", user.part),
                    message,
                );
            }
        }
        if let (Some(before), false) = (decided.before, decided.users.is_empty())
            && self::space(before) != space
        {
            problems.add(
                ErrorCode::IN_USE_SUBNET,
                "properties.addressSpace",
                "The address space cannot be changed while clusters are in the virtual network.",
            );
        }
    }

    fn in_use(users: &[User], name: &str, part: Option<&str>) -> Option<(ErrorCode, String)> {
        let mut users = users
            .iter()
            .filter(|user| part.is_none_or(|part| user.part.eq_ignore_ascii_case(part)));
        let user = users.next()?;
        let message = format!(
            "Subnet {} of virtual network {} is in use by {} and cannot be deleted.",
            quote(&user.part),
            quote(name),
            user.who
        );
        Some((ErrorCode::IN_USE_SUBNET, message))
    }

    fn references(properties: &Value) -> Vec<ResourcePath> {
        let ids = subnets(properties)
            .filter_map(|subnet| subnet.pointer("/properties/networkSecurityGroup/id")?.as_str());
        ids.filter_map(|id| ResourcePath::parse(id).ok()).collect()
    }

    fn shown(record: &NetworkRecord, _: &[User]) -> Value {
        let mut properties = json!({
            "provisioningState": "Succeeded",
            "addressSpace": record.properties["addressSpace"],
            "virtualNetworkPeerings": [],
            "enableDdosProtection": false,
            "privateEndpointVNetPolicies": "Disabled",
        });
        if let Some(minutes) = record.properties.get("flowTimeoutInMinutes") {
            properties["flowTimeoutInMinutes"] = minutes.clone();
        }
        properties
    }

    fn shown_part(part: &Value) -> Value {
        let mut properties = part["properties"].clone();
        properties["provisioningState"] = json!("Succeeded");
        properties["delegations"] = json!([]);
        properties["serviceEndpoints"] = json!([]);
        properties
    }
}

/// An IPv4 prefix without host bits.
fn prefix(text: &str, target: &str, problems: &mut Problems) -> Option<Ipv4Net> {
    let Ok(range) = text.parse::<Ipv4Net>() else {
        let (code, message) = if text.contains(':') {
            (
                ErrorCode::PROPERTY_NOT_SUPPORTED,
                format!(
                    "The address prefix {} is one of IPv6, which is not supported yet.",
                    quote(text)
                ),
            )
        } else {
            (
                ErrorCode::INVALID_CIDR_NOTATION,
                format!(
                    "The address prefix {} is not an IPv4 address with a length, e.g. '10.1.0.0/16'.",
                    quote(text)
                ),
            )
        };
        problems.add(code, target, message);
        return None;
    };
    if range.trunc() != range {
        let message = format!(
            "The address prefix {} has an invalid CIDR notation. For the given prefix length, it should be {}.",
            quote(text),
            range.trunc()
        );
        problems.add(ErrorCode::INVALID_CIDR_NOTATION, target, message);
        return None;
    }
    if !(SHORTEST..=LONGEST).contains(&range.prefix_len()) {
        let message = format!("The address prefix {range} has to be from /{SHORTEST} to /{LONGEST}.");
        problems.add(ErrorCode::NETCFG_INVALID_SUBNET, target, message);
        return None;
    }
    Some(range)
}

fn check_subnet(text: &str, target: &str, problems: &mut Problems) {
    prefix(text, target, problems);
}

fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    let has = |a: &Ipv4Net, address: Ipv4Addr| a.contains(&address);
    has(a, b.network()) || has(b, a.network())
}

fn is_group(id: &str) -> bool {
    ResourcePath::parse(id).is_ok_and(|path| {
        path.namespace_is(NAMESPACE)
            && path.type_is("networkSecurityGroups")
            && path.resource_group.is_some()
            && path.name(0).is_some()
    })
}

fn space(properties: &Value) -> Vec<Ipv4Net> {
    let texts = properties
        .pointer("/addressSpace/addressPrefixes")
        .and_then(Value::as_array);
    let texts = texts.into_iter().flatten().filter_map(Value::as_str);
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// The subnets of a VNET's properties.
pub(crate) fn subnets(properties: &Value) -> impl Iterator<Item = &Value> {
    properties["subnets"].as_array().into_iter().flatten()
}

/// The range of a subnet.
pub(crate) fn range(subnet: &Value) -> Option<Ipv4Net> {
    let properties = &subnet["properties"];
    let one = properties["addressPrefix"].as_str();
    one.or(properties["addressPrefixes"][0].as_str())?.parse().ok()
}

fn name_of(part: &Value) -> &str {
    part["name"].as_str().unwrap_or_default()
}
