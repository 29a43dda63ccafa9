//! The part of a body that exists in an api-version: a response shows only that, and a request changes only
//! that. Pure.

use serde_json::{Map, Value};

use super::table::{Access, Kind, Node};

/// Removes the properties that an api-version does not have from a response.
pub fn prune(node: &Node, value: &mut Value, api_version: &str) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| prune(node, item, api_version)),
        Value::Object(members) if node.property.kind == Kind::ObjectsByName => {
            members
                .values_mut()
                .for_each(|value| prune_members(node, value, api_version));
        }
        other => prune_members(node, other, api_version),
    }
}

fn prune_members(node: &Node, value: &mut Value, api_version: &str) {
    let Value::Object(members) = value else { return };
    members.retain(|name, _| {
        node.members
            .get(name.as_str())
            .is_none_or(|member| member.property.is_in(api_version))
    });
    for (name, value) in members {
        if let Some(member) = node.members.get(name.as_str()) {
            prune(member, value, api_version);
        }
    }
}

/// Keeps the properties that a request cannot name because its api-version does not have them: a client that
/// reads, changes and writes a resource loses none of them. `body` is clean, `present` is the present body.
pub fn keep(node: &Node, body: &mut Map<String, Value>, present: &Value, api_version: &str) {
    for (name, member) in &node.members {
        let Some(old) = present.get(*name) else { continue };
        if member.property.access == Access::ReadOnly {
            continue;
        }
        if !member.property.is_in(api_version) {
            body.insert((*name).to_owned(), old.clone());
            continue;
        }
        match (member.property.kind, body.get_mut(*name)) {
            (Kind::Object, Some(Value::Object(new))) => keep(member, new, old, api_version),
            (Kind::Object, None) => {
                let mut kept = Map::new();
                keep(member, &mut kept, old, api_version);
                if !kept.is_empty() {
                    body.insert((*name).to_owned(), Value::Object(kept));
                }
            }
            (Kind::ObjectsByName, Some(Value::Object(new))) => {
                for (key, new) in new {
                    if let (Value::Object(new), Some(old)) = (new, old.get(key)) {
                        keep(member, new, old, api_version);
                    }
                }
            }
            (Kind::Objects, Some(Value::Array(new))) => {
                for (place, new) in new.iter_mut().enumerate() {
                    if let (Some(old), Value::Object(new)) = (same_item(old, place, new), new) {
                        keep(member, new, old, api_version);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The corresponding item of a list: with the same name, or, if items have none, at the same index.
fn same_item<'a>(list: &'a Value, place: usize, item: &Value) -> Option<&'a Value> {
    let items = list.as_array()?;
    match item.get("name") {
        Some(name) => items.iter().find(|old| old.get("name") == Some(name)),
        None => items.get(place),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Table;
    use super::*;

    /// The properties of a body `a` whose members were added and removed over time.
    fn tree() -> Node {
        const TABLE: &str = "\
a\tnow\tstring\tRW\t\t\tkept\t\t\t\t\t\t
a\tnew\tstring\tRW\t\t2025-01-01\tkept\t\t\t\t\t\t
a\told\tstring\tRW\t\t..2022-01-01\tkept\t\t\t\t\t\t
a\tmiddle\tstring\tRW\t\t2022-01-01..2023-01-01\tkept\t\t\t\t\t\t
a\tgroup\tobject\tRW\t\t\tgroup\t\t\t\t\t\t
a\tgroup.new\tstring\tRW\t\t2025-01-01\tkept\t\t\t\t\t\t
a\tgroup.now\tstring\tRW\t\t\tkept\t\t\t\t\t\t
a\tlist\tobjects\tRW\t\t\tkept\t\t\t\t\t\t
a\tlist[].name\tstring\tRW\t\t\tkept\t\t\t\t\t\t
a\tlist[].new\tstring\tRW\t\t2025-01-01\tkept\t\t\t\t\t\t
a\tmap\tobjects-by-name\tRW\t\t\tgroup\t\t\t\t\t\t
a\tmap{}.new\tstring\tRW\t\t2025-01-01\tkept\t\t\t\t\t\t
a\tseen\tstring\tRO\t\t2025-01-01\t\t\t\t\t\t\t
";
        let table: &'static Table = Box::leak(Box::new(Table::parse(TABLE, &[])));
        table.tree("a")
    }

    fn whole() -> Value {
        json!({
            "now": "1", "new": "1", "old": "1", "middle": "1", "group": { "new": "1", "now": "1" }, "seen": "1",
            "list": [{ "name": "x", "new": "1" }, { "name": "y", "new": "2" }], "map": { "k": { "new": "1" } },
        })
    }

    #[test]
    fn an_answer_shows_what_its_version_has() {
        for (version, members) in [
            ("2021-01-01", &["group", "list", "map", "now", "old"][..]),
            ("2022-01-01", &["group", "list", "map", "middle", "now", "old"]),
            ("2024-01-01", &["group", "list", "map", "now"]),
            ("2025-01-01", &["group", "list", "map", "new", "now", "seen"]),
        ] {
            let mut answer = whole();
            prune(&tree(), &mut answer, version);
            let mut names: Vec<&String> = answer.as_object().unwrap().keys().collect();
            names.sort();
            assert_eq!(names, members, "{version}");
            assert_eq!(answer["group"].get("new").is_some(), version >= "2025-01-01");
            assert_eq!(answer["map"]["k"].get("new").is_some(), version >= "2025-01-01");
        }
    }

    #[test]
    fn what_a_version_cannot_name_is_kept_and_nothing_else() {
        let mut body = json!({ "now": "2", "list": [{ "name": "y" }, { "name": "z" }], "map": { "k": {} } });
        keep(&tree(), body.as_object_mut().unwrap(), &whole(), "2024-01-01");
        let expected = json!({
            "now": "2", "new": "1", "old": "1", "middle": "1", "group": { "new": "1" },
            "list": [{ "name": "y", "new": "2" }, { "name": "z" }], "map": { "k": { "new": "1" } },
        });
        assert_eq!(body, expected);
        let mut body = json!({});
        keep(&tree(), body.as_object_mut().unwrap(), &whole(), "2025-01-01");
        assert_eq!(body, json!({ "old": "1", "middle": "1" }));
    }
}
