//! Conversion between the shape of an api-version and the canonical one; only this module knows their
//! differences. Pure.
//!
//! The canonical shape is the newest. The api-versions of a property are a column of `properties.tsv`;
//! renamed values, and constants that only some versions show, are here.
//!
//! Always true: a body that was read with an api-version and is sent back with it changes nothing, and a
//! request of an older version keeps the properties that it cannot name.

use arm_kernel::schema::{Clean, Node, Problems, clean, keep, prune};
use serde_json::{Map, Value, json};

/// A value that was renamed after an api-version.
struct Renamed {
    pointer: &'static str,
    last: &'static str,
    old: &'static str,
    /// The present values. With several, the old one stands for all of them, and for the first in a new
    /// resource.
    new: &'static [&'static str],
}

const RENAMED: &[Renamed] = &[
    Renamed {
        pointer: "/sku/name",
        last: "2023-01-01",
        old: "Basic",
        new: &["Base"],
    },
    Renamed {
        pointer: "/sku/tier",
        last: "2023-01-01",
        old: "Paid",
        new: &["Standard", "Premium"],
    },
];

/// Properties with the same value in all clusters, which responses show: not part of the canonical body, in
/// which they could differ.
const CONSTANT: &[(&str, &str, &str)] = &[
    ("", "kind", "Base"),
    ("/properties/networkProfile", "dockerBridgeCidr", "172.17.0.1/16"),
];

/// Converts a body of this api-version to the canonical one. `present`: the present body. Problems go to
/// `problems`.
pub(crate) fn from_client(
    tree: &Node,
    body: &Value,
    present: Option<&Value>,
    api_version: &str,
    problems: &mut Problems,
) -> Clean {
    let mut body = body.clone();
    for renamed in RENAMED.iter().filter(|renamed| api_version <= renamed.last) {
        let now = present.and_then(|present| present.pointer(renamed.pointer)?.as_str());
        if let Some(value) = body.pointer_mut(renamed.pointer)
            && value
                .as_str()
                .is_some_and(|value| value.eq_ignore_ascii_case(renamed.old))
        {
            let same = renamed.new.iter().find(|new| now == Some(**new));
            *value = json!(same.or(renamed.new.first()));
        }
    }
    let mut clean = clean(tree, &body, api_version, problems);
    for (parent, name, _) in CONSTANT {
        if let Some(parent) = member(&mut clean.body, parent) {
            parent.remove(*name);
        }
    }
    if let Some(present) = present {
        keep(tree, &mut clean.body, present, api_version);
    }
    clean
}

/// Converts a canonical response to the shape of this api-version.
pub(crate) fn to_client(tree: &Node, answer: &mut Value, api_version: &str) {
    for (parent, name, value) in CONSTANT {
        if let Some(Value::Object(parent)) = answer.pointer_mut(parent)
            && tree.members.contains_key("sku")
        {
            parent.insert((*name).to_owned(), json!(value));
        }
    }
    for renamed in RENAMED.iter().filter(|renamed| api_version <= renamed.last) {
        if let Some(value) = answer.pointer_mut(renamed.pointer)
            && value.as_str().is_some_and(|value| renamed.new.contains(&value))
        {
            *value = json!(renamed.old);
        }
    }
    prune(tree, answer, api_version);
}

/// The object at a pointer of plain names, where there is one.
fn member<'a>(body: &'a mut Map<String, Value>, pointer: &str) -> Option<&'a mut Map<String, Value>> {
    let mut names = pointer.split('/').filter(|name| !name.is_empty());
    names.try_fold(body, |object, name| object.get_mut(name)?.as_object_mut())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::CLUSTER;

    fn read(tier: &str, version: &str) -> Value {
        let mut answer =
            json!({ "sku": { "name": "Base", "tier": tier }, "properties": { "networkProfile": {} } });
        to_client(&CLUSTER, &mut answer, version);
        answer
    }

    fn written(body: &Value, tier: &str, version: &str) -> Value {
        let mut problems = Problems::default();
        let present = json!({ "sku": { "name": "Base", "tier": tier } });
        let clean = from_client(&CLUSTER, body, Some(&present), version, &mut problems);
        assert!(problems.into_result().is_ok());
        Value::Object(clean.body)
    }

    #[test]
    fn words_of_before() {
        for (tier, version, name, shown) in [
            ("Free", "2020-11-01", "Basic", "Free"),
            ("Standard", "2022-11-01", "Basic", "Paid"),
            ("Premium", "2023-01-01", "Basic", "Paid"),
            ("Premium", "2023-02-01", "Base", "Premium"),
        ] {
            let answer = read(tier, version);
            assert_eq!(answer["sku"], json!({ "name": name, "tier": shown }), "{version}");
            // Sent back, it keeps its meaning.
            let body = written(&json!({ "sku": answer["sku"] }), tier, version);
            assert_eq!(body["sku"], json!({ "name": "Base", "tier": tier }), "{version}");
        }
        let paid = json!({ "sku": { "name": "base", "tier": "paid" } });
        assert_eq!(written(&paid, "Free", "2021-05-01")["sku"]["tier"], "Standard");
        let mut problems = Problems::default();
        from_client(&CLUSTER, &paid, None, "2026-08-01", &mut problems);
        assert!(problems.has("sku.tier"));
    }

    #[test]
    fn what_goes_without_saying_is_said_and_not_kept() {
        let old = read("Free", "2020-11-01");
        assert_eq!(
            old["properties"]["networkProfile"]["dockerBridgeCidr"],
            "172.17.0.1/16"
        );
        assert_eq!(old.get("kind"), None);
        let new = read("Free", "2026-08-01");
        assert_eq!(new["kind"], "Base");
        assert_eq!(new["properties"]["networkProfile"], json!({}));
        let body = written(&json!({ "properties": old["properties"] }), "Free", "2020-11-01");
        assert_eq!(body["properties"]["networkProfile"], json!({}));
    }
}
