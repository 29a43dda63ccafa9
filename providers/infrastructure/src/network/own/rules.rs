//! Network security groups and their rules: validation and rendering. Pure.

use std::collections::BTreeSet;

use arm_ids::ResourcePath;
use arm_kernel::{
    quote,
    schema::{Node, Problems, Schema},
    store_error,
};
use arm_wire::{ArmError, ErrorCode};
use async_trait::async_trait;
use cluster_security::{Addresses, Direction, Side, parse_ports};
use control_records::network::{self, NetworkRecord};
use control_store::{Store, list_records};
use serde_json::{Map, Value, json};

use super::{
    Decided, Kind, User, Users, id_of, properties,
    vnets::{Vnets, subnets},
};
use crate::{
    Stamp,
    network::{Of, view},
    tenants::check_name,
};

/// A network security group, with its rules.
pub(crate) enum Groups {}

/// The most addresses or ports of a rule.
const MOST: usize = 100;

#[async_trait]
impl Kind for Groups {
    const TYPE: &'static str = "networkSecurityGroups";
    const KEY: &'static str = network::SECURITY_GROUPS;
    const PARTS: &'static str = "securityRules";
    const OF_CLUSTERS: Of = view::security_groups;
    const SCHEMA: Schema = properties::GROUP_SCHEMA;
    const PART_SCHEMA: Schema = properties::RULE_SCHEMA;
    const MOST: usize = 1000;

    fn tree() -> &'static Node {
        &properties::GROUP
    }

    /// The subnets of its subscription that use it.
    async fn users(store: &dyn Store, record: &NetworkRecord) -> Result<Users, ArmError> {
        let own = ResourcePath::parse(&id_of::<Self>(record)).map_err(ArmError::internal)?;
        let prefix = network::key(network::VNETS, &record.subscription, "", "");
        let (vnets, _) = list_records::<NetworkRecord>(store, &prefix)
            .await
            .map_err(store_error)?;
        let mut found = Vec::new();
        for (_, vnet) in vnets {
            for subnet in subnets(&vnet.value.properties) {
                let id = subnet
                    .pointer("/properties/networkSecurityGroup/id")
                    .and_then(Value::as_str);
                let same = id
                    .and_then(|id| ResourcePath::parse(id).ok())
                    .is_some_and(|id| id.same(&own));
                if same {
                    let name = subnet["name"].as_str().unwrap_or_default();
                    found.push(User {
                        part: String::new(),
                        who: format!("{}/subnets/{name}", id_of::<Vnets>(&vnet.value)),
                    });
                }
            }
        }
        Ok(Users {
            found,
            clusters: BTreeSet::new(),
        })
    }

    fn part_tree() -> &'static Node {
        &properties::RULE
    }

    fn properties(_: &Stamp, mut asked: Map<String, Value>, _: &mut Problems) -> Map<String, Value> {
        asked.retain(|name, _| name == "securityRules");
        asked
    }

    fn part(name: &str, mut asked: Map<String, Value>, path: &str, problems: &mut Problems) -> Value {
        let at = |field: &str| format!("{path}properties.{field}");
        check_name(name, 80, &format!("{path}name"), problems);
        for field in ["protocol", "access", "priority", "direction"] {
            if !asked.contains_key(field) {
                let target = at(field);
                let message = format!("The required property '{target}' is missing.");
                problems.add(ErrorCode::MISSING_PARAMETER, target, message);
            }
        }
        for side in ["source", "destination"] {
            let (ports, addresses) = (format!("{side}PortRange"), format!("{side}AddressPrefix"));
            either(
                &asked,
                &ports,
                &format!("{side}PortRanges"),
                path,
                problems,
                |text| {
                    parse_ports(text)
                        .map(drop)
                        .ok_or("'*', a port, or a range of ports such as 80-90")
                },
            );
            either(
                &asked,
                &addresses,
                &format!("{side}AddressPrefixes"),
                path,
                problems,
                |text| {
                    Addresses::parse(text).map(drop).ok_or(
                        "'*', 'VirtualNetwork', 'Internet', 'AzureLoadBalancer', an IPv4 address or a range of them; other service tags are \
                         not there",
                    )
                },
            );
            for list in [format!("{side}PortRanges"), format!("{side}AddressPrefixes")] {
                asked.entry(list).or_insert_with(|| json!([]));
            }
            asked.remove(&format!("{side}ApplicationSecurityGroups"));
        }
        json!({ "name": name, "properties": asked })
    }

    fn check(decided: &Decided<'_>, problems: &mut Problems) {
        let rules = || decided.after["securityRules"].as_array().into_iter().flatten();
        let mut seen: Vec<(&Value, &Value, &str)> = Vec::new();
        for (index, rule) in rules().enumerate() {
            let name = rule["name"].as_str().unwrap_or_default();
            let (priority, direction) = (&rule["properties"]["priority"], &rule["properties"]["direction"]);
            let same = seen.iter().find(|(p, d, _)| *p == priority && *d == direction);
            if let Some((_, _, other)) = same.filter(|_| !priority.is_null()) {
                let message = format!(
                    "Security rule {} conflicts with rule {}. Rules cannot have the same Priority and Direction.",
                    quote(name),
                    quote(other)
                );
                problems.add(
                    ErrorCode::SECURITY_RULE_CONFLICT,
                    decided.target(index, name),
                    message,
                );
            }
            seen.push((priority, direction, name));
        }
    }

    fn in_use(users: &[User], name: &str, part: Option<&str>) -> Option<(ErrorCode, String)> {
        let user = users.first().filter(|_| part.is_none())?;
        let message = format!(
            "Network security group {} cannot be deleted because it is in use by the subnet {}.",
            quote(name),
            user.who
        );
        Some((ErrorCode::IN_USE_SECURITY_GROUP, message))
    }

    fn shown(record: &NetworkRecord, users: &[User]) -> Value {
        let id = id_of::<Self>(record);
        let defaults: Vec<Value> = defaults()
            .into_iter()
            .map(|(name, properties)| {
                json!({
                    "id": format!("{id}/defaultSecurityRules/{name}"),
                    "name": name,
                    "type": "Microsoft.Network/networkSecurityGroups/defaultSecurityRules",
                    "properties": properties,
                })
            })
            .collect();
        let mut properties = json!({ "provisioningState": "Succeeded", "defaultSecurityRules": defaults });
        if !users.is_empty() {
            properties["subnets"] = users.iter().map(|user| json!({ "id": user.who })).collect();
        }
        properties
    }

    fn shown_part(part: &Value) -> Value {
        let mut properties = part["properties"].clone();
        properties["provisioningState"] = json!("Succeeded");
        properties
    }
}

/// The default rules of every group, after its own, as they are shown.
fn defaults() -> Vec<(&'static str, Value)> {
    let word = |side: &Side| side.addresses.first().map(ToString::to_string);
    let shown = cluster_security::defaults().map(|(name, rule)| {
        let properties = json!({
            "priority": rule.priority,
            "direction": match rule.direction {
                Direction::Inbound => "Inbound",
                Direction::Outbound => "Outbound",
            },
            "access": if rule.allow { "Allow" } else { "Deny" },
            "protocol": "*", "sourcePortRange": "*", "destinationPortRange": "*",
            "sourceAddressPrefix": word(&rule.from), "destinationAddressPrefix": word(&rule.to),
            "sourcePortRanges": [], "destinationPortRanges": [], "sourceAddressPrefixes": [], "destinationAddressPrefixes": [],
            "provisioningState": "Succeeded",
        });
        (name, properties)
    });
    shown.to_vec()
}

/// Checks a value that is given either as a single one or as a list.
fn either(
    asked: &Map<String, Value>,
    one: &str,
    many: &str,
    path: &str,
    problems: &mut Problems,
    check: impl Fn(&str) -> Result<(), &'static str>,
) {
    let target = |field: &str| format!("{path}properties.{field}");
    let alone = asked.get(one).and_then(Value::as_str);
    let list: Vec<&str> = asked
        .get(many)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if alone.is_some() != list.is_empty() {
        let message = format!("Give either '{one}' or '{many}'.");
        problems.add(ErrorCode::INVALID_PARAMETER, target(one), message);
    }
    if list.len() > MOST {
        let message = format!("'{many}' has {} entries; at most {MOST} are allowed.", list.len());
        problems.add(ErrorCode::INVALID_PARAMETER, target(many), message);
        return;
    }
    let named = alone.into_iter().map(|text| (target(one), text));
    let listed = list
        .iter()
        .enumerate()
        .map(|(index, text)| (format!("{}[{index}]", target(many)), *text));
    for (at, text) in named.chain(listed) {
        if let Err(must) = check(text) {
            problems.add(
                ErrorCode::INVALID_PARAMETER,
                at.as_str(),
                format!("The value {} of '{at}' must be {must}.", quote(text)),
            );
        }
    }
}
