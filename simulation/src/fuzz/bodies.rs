//! Bodies: valid ones of each type, from its property table or fixed, and mutations of them.

use arm_kernel::{
    Namespace as _,
    schema::{Kind, Property, Schema},
};
use providers_containerservice::ContainerService;
use serde_json::{Map, Number, Value, json};

use super::dice::Dice;

/// The deepest nesting of a value.
const DEPTH: usize = 200;

/// The schema of a type, by its path, e.g. `managedClusters`.
pub(super) fn schema(kind: &str) -> Option<Schema> {
    let mut types = ContainerService::TYPES.iter();
    types.find(|known| known.path.eq_ignore_ascii_case(kind))?.schema
}

/// A valid body, if one is known for the type.
pub(super) fn whole(namespace: &str, kind: &str, dice: &mut Dice) -> Value {
    let number = dice.roll(3) + 1;
    let tags = json!({ "a": "1", "Env": "test" });
    match (namespace, kind) {
        ("Microsoft.ContainerService", "managedClusters") => json!({
            "location": "local",
            "identity": { "type": "SystemAssigned" },
            "sku": { "name": "Base", "tier": dice.pick(&["Free", "Standard"]) },
            "tags": tags,
            "properties": {
                "kubernetesVersion": dice.pick(&["", "1.36.3", "1.37.1", "1.36"]),
                "dnsPrefix": "c",
                "agentPoolProfiles": [{ "name": "np1", "mode": "System", "count": number, "vmSize": "Standard_DS2_v2" }],
                "networkProfile": { "networkPlugin": dice.pick(&["azure", "kubenet", "none"]) },
            },
        }),
        ("Microsoft.ContainerService", "managedClusters/agentPools") => json!({ "properties": {
            "mode": dice.pick(&["User", "System"]), "count": number, "nodeLabels": { "a": "b" }, "nodeTaints": ["k=v:NoSchedule"],
        }}),
        ("Microsoft.ContainerService", "managedClusters/maintenanceConfigurations") => {
            json!({ "properties": { "maintenanceWindow": {
                "schedule": { "weekly": { "intervalWeeks": 1, "dayOfWeek": "Friday" } }, "startTime": "01:00", "durationHours": 4,
            }}})
        }
        ("Microsoft.Resources", "subscriptions/resourceGroups") => {
            json!({ "location": "local", "tags": tags })
        }
        ("Microsoft.Resources", "tags") => {
            let operation = dice.pick(&["Merge", "Replace", "Delete"]);
            json!({ "operation": operation, "properties": { "tags": tags } })
        }
        ("Microsoft.Authorization", "roleAssignments") => json!({ "properties": {
            "roleDefinitionId": "/providers/Microsoft.Authorization/roleDefinitions/acdd72a7-3385-48ef-bd42-f606fba81ae7",
            "principalId": "0a0a0a0a-0000-4000-8000-000000000001", "principalType": "ServicePrincipal",
        }}),
        ("Microsoft.Authorization", "roleDefinitions") => json!({ "properties": {
            "roleName": format!("own {number}"), "type": "CustomRole", "description": "d", "assignableScopes": ["/"],
            "permissions": [{ "actions": ["*/read"], "notActions": [], "dataActions": [], "notDataActions": [] }],
        }}),
        ("Microsoft.Authorization", "locks") => {
            json!({ "properties": { "level": "CanNotDelete", "notes": "n" } })
        }
        _ => match dice.roll(3) {
            0 => json!({}),
            1 => json!({ "location": "local", "tags": tags, "properties": {} }),
            _ => json!({ "properties": {} }),
        },
    }
}

/// Adds properties of the type's table to a body, most of them with the right type.
pub(super) fn season(body: &mut Value, schema: &Schema, dice: &mut Dice) {
    let properties: Vec<&'static Property> = (schema.table)().of(schema.resource).collect();
    for _ in 0..=dice.roll(4) {
        let Some(property) = dice.one_of(&properties).copied() else {
            return;
        };
        let value = if dice.once_in(4) {
            anything(dice)
        } else {
            of_kind(property, dice)
        };
        put(body, property.path, value);
    }
}

/// A value of the right type, inside or outside its range.
fn of_kind(property: &Property, dice: &mut Dice) -> Value {
    let text = |dice: &mut Dice| match dice.one_of(&property.choices) {
        Some(choice) if !dice.once_in(4) => json!(choice),
        _ => json!(dice.text()),
    };
    match property.kind {
        Kind::Text => text(dice),
        Kind::Int | Kind::Number => number(dice),
        Kind::Bool => json!(dice.once_in(2)),
        Kind::Object => json!({}),
        Kind::Objects => json!([{}]),
        Kind::ObjectsByName => json!({ dice.text(): {} }),
        Kind::Texts => json!([text(dice), text(dice)]),
        Kind::Ints => json!([number(dice)]),
        Kind::TextsByName => json!({ dice.text(): dice.text() }),
    }
}

fn number(dice: &mut Dice) -> Value {
    const WHOLE: &[i64] = &[
        0,
        1,
        2,
        3,
        -1,
        10,
        30,
        100,
        250,
        1000,
        1001,
        65536,
        i64::MAX,
        i64::MIN,
    ];
    match dice.roll(8) {
        0 => json!(1.5),
        1 => Number::from_f64(1e308).map_or(Value::Null, Value::Number),
        2 => json!(u64::MAX),
        3 => json!(dice.text()),
        _ => json!(dice.one_of(WHOLE)),
    }
}

fn anything(dice: &mut Dice) -> Value {
    match dice.roll(10) {
        0 => Value::Null,
        1 => json!(dice.once_in(2)),
        2 | 3 => number(dice),
        4 => json!([]),
        5 => json!({}),
        6 => json!([dice.text(), null, 1, {}]),
        7 => json!({ dice.text(): dice.text() }),
        8 => deep(dice.roll(DEPTH)),
        _ => json!(dice.text()),
    }
}

fn deep(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, level| {
        if level % 2 == 0 {
            json!([inner])
        } else {
            json!({ "properties": inner })
        }
    })
}

/// Sets a value at a path of a table. Values in its way are replaced.
fn put(at: &mut Value, path: &str, value: Value) {
    let (first, rest) = path
        .split_once('.')
        .map_or((path, None), |(first, rest)| (first, Some(rest)));
    let name = first.trim_end_matches("[]").trim_end_matches("{}");
    let (list, named) = (first.ends_with("[]"), first.ends_with("{}"));
    if !at.is_object() {
        *at = json!({});
    }
    let Some(members) = at.as_object_mut() else { return };
    let member = members.entry(name).or_insert(Value::Null);
    let inner = if list {
        if member.as_array().is_none_or(Vec::is_empty) {
            *member = json!([{}]);
        }
        member.get_mut(0)
    } else if named {
        if !member.is_object() {
            *member = json!({ "a": {} });
        }
        member
            .as_object_mut()
            .and_then(|members| members.values_mut().next())
    } else {
        Some(member)
    };
    match (inner, rest) {
        (Some(inner), Some(rest)) => put(inner, rest, value),
        (Some(inner), None) => *inner = value,
        (None, _) => {}
    }
}

/// Makes one random mutation of a body.
pub(super) fn shake(body: &mut Value, dice: &mut Dice) {
    let count = nodes(body);
    let target = dice.roll(count);
    let mut at = 0;
    let Some(node) = node(body, target, &mut at) else {
        return;
    };
    match dice.roll(10) {
        0..=3 => *node = anything(dice),
        4 => match node {
            Value::Object(members) => drop_one(members, dice),
            Value::Array(items) => {
                let at = dice.roll(items.len());
                if at < items.len() {
                    items.remove(at);
                }
            }
            other => *other = Value::Null,
        },
        5 => match node {
            Value::Object(members) => {
                let value = anything(dice);
                members.insert(dice.text(), value);
            }
            Value::Array(items) => items.push(anything(dice)),
            other => *other = json!([other.take()]),
        },
        6 => match node {
            // A name in another case is another name in JSON, and the same one to some readers.
            Value::Object(members) => {
                let names: Vec<String> = members.keys().cloned().collect();
                if let Some(name) = dice.one_of(&names) {
                    let value = members.get(name).cloned().unwrap_or_default();
                    members.insert(name.to_uppercase(), value);
                }
            }
            Value::String(text) => *text = text.to_uppercase(),
            other => *other = anything(dice),
        },
        7 => match node {
            Value::Array(items) if items.len() < 64 => {
                let again = items.clone();
                items.extend(again);
            }
            Value::String(text) => text.push_str(&dice.text()),
            other => *other = json!(other.to_string()),
        },
        8 => *node = number(dice),
        _ => *node = json!(dice.text()),
    }
}

fn drop_one(members: &mut Map<String, Value>, dice: &mut Dice) {
    let names: Vec<String> = members.keys().cloned().collect();
    if let Some(name) = dice.one_of(&names) {
        members.remove(name);
    }
}

fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Object(members) => members.values().map(nodes).sum(),
        Value::Array(items) => items.iter().map(nodes).sum(),
        _ => 0,
    }
}

fn node<'a>(value: &'a mut Value, target: usize, at: &mut usize) -> Option<&'a mut Value> {
    if *at == target {
        return Some(value);
    }
    *at += 1;
    match value {
        Value::Object(members) => members.values_mut().find_map(|member| node(member, target, at)),
        Value::Array(items) => items.iter_mut().find_map(|item| node(item, target, at)),
        _ => None,
    }
}

/// The bytes of a body, now and then broken as JSON.
pub(super) fn bytes(body: &Value, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = body.to_string().into_bytes();
    if !dice.once_in(12) {
        return bytes;
    }
    let at = dice.roll(bytes.len());
    match dice.roll(9) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, 0xff),
        2 => bytes = [b"\xef\xbb\xbf".as_slice(), &bytes].concat(),
        3 => bytes.extend(b" trailing"),
        4 => bytes = b"NaN".to_vec(),
        5 => bytes = format!("{}1{}", "[".repeat(5000), "]".repeat(5000)).into_bytes(),
        6 => bytes = format!("{{\"location\":\"local\",{}", &body.to_string()[1..]).into_bytes(),
        7 => bytes = b"{\"properties\":{\"count\":1e400}}".to_vec(),
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << dice.roll(8);
            }
        }
    }
    bytes
}
