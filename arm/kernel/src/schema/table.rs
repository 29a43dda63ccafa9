//! The property table: what the bodies of clusters and pools may hold, and what Landfall does with it.
//!
//! The table is data (`properties.tsv`); validation, answers for older api-versions and the compatibility page are all
//! computed from it. Always true of a parsed table: every member's parent has a line of its own.

use std::{collections::BTreeMap, sync::LazyLock};

use crate::formats::Pattern;

const TABLE: &str = include_str!("properties.tsv");

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Int,
    Number,
    Bool,
    /// Members by name.
    Object,
    /// A list of objects with the members given.
    Objects,
    /// An object whose names are free and whose values are objects with the members given.
    ObjectsByName,
    /// A list of texts.
    Texts,
    /// An object whose names are free and whose values are texts.
    TextsByName,
}

impl Kind {
    /// For messages.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Int => "an integer",
            Self::Number => "a number",
            Self::Bool => "true or false",
            Self::Object | Self::ObjectsByName => "an object",
            Self::Objects => "a list of objects",
            Self::Texts => "a list of strings",
            Self::TextsByName => "an object of strings",
        }
    }
}

/// Who may write a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Only the service: ignored in requests, because clients send back what they read.
    ReadOnly,
    /// The caller.
    ReadWrite,
    /// The caller, and nobody reads it again.
    WriteOnly,
}

/// What is done with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// It is acted on (only on the values of `accepts`, where there are any).
    Works,
    /// It is validated and given back; there is nothing yet that would act on it.
    Kept,
    /// Only the values of `accepts`: what happens anyway.
    Default,
    /// Only false and empty.
    NotYet,
    /// It has members.
    Group,
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Property {
    /// `pool` or `cluster`.
    pub(crate) resource: &'static str,
    /// With `[]` for an item of a list and `{}` for a value by name.
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    pub(crate) access: Access,
    pub(crate) required: bool,
    /// First api-version, where known to be later than the oldest accepted one.
    pub(crate) since: Option<&'static str>,
    /// Last api-version, where it went away.
    pub(crate) last: Option<&'static str>,
    pub(crate) class: Class,
    pub(crate) accepts: Vec<&'static str>,
    /// All values of the API, in its casing.
    pub(crate) choices: Vec<&'static str>,
    /// Of the number, or of the number of items of a list.
    pub(crate) minimum: Option<i64>,
    pub(crate) maximum: Option<i64>,
    pub(crate) pattern: Option<Pattern>,
    /// Can only be set at creation.
    pub(crate) create: bool,
    pub(crate) note: &'static str,
}

impl Property {
    /// Whether an api-version has it. Versions are dates, so their texts compare.
    pub(crate) fn is_in(&self, api_version: &str) -> bool {
        self.since.is_none_or(|since| api_version >= since)
            && self.last.is_none_or(|last| api_version <= last)
    }
}

/// A property and what is in it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) property: &'static Property,
    pub(crate) members: BTreeMap<&'static str, Node>,
}

/// All lines, in order.
pub(crate) static PROPERTIES: LazyLock<Vec<Property>> = LazyLock::new(|| {
    TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            property(line).unwrap_or_else(|| panic!("a line of the property table is malformed: {line}"))
        })
        .collect()
});

static ROOT: Property = Property {
    resource: "",
    path: "",
    kind: Kind::Object,
    access: Access::ReadWrite,
    required: true,
    since: None,
    last: None,
    class: Class::Group,
    accepts: Vec::new(),
    choices: Vec::new(),
    minimum: None,
    maximum: None,
    pattern: None,
    create: false,
    note: "",
};

/// The body of `managedClusters/agentPools`.
pub(crate) static POOL: LazyLock<Node> = LazyLock::new(|| tree("pool"));

/// The body of `managedClusters`. The items of `agentPoolProfiles` have the members of a pool's `properties`.
pub(crate) static CLUSTER: LazyLock<Node> = LazyLock::new(|| {
    let mut root = tree("cluster");
    let pool = tree("pool").members.remove("properties").map(|node| node.members);
    let profiles = root
        .members
        .get_mut("properties")
        .and_then(|node| node.members.get_mut("agentPoolProfiles"))
        .expect("the table has agentPoolProfiles");
    profiles
        .members
        .extend(pool.expect("the table has a pool's properties"));
    root
});

/// The body of a PATCH: tags.
pub(crate) static TAGS: LazyLock<Node> = LazyLock::new(|| {
    let mut root = tree("cluster");
    root.members.retain(|name, _| *name == "tags");
    root
});

impl Node {
    /// The member at a path of bare names, e.g. `["properties", "networkProfile"]`.
    pub(crate) fn at<'a>(&'a self, path: &[&'a str]) -> Option<&'a Node> {
        path.iter().try_fold(self, |node, name| node.members.get(name))
    }
}

/// The members of `agentPoolProfiles[]`.
pub(crate) fn pool_members() -> &'static Node {
    CLUSTER
        .at(&["properties", "agentPoolProfiles"])
        .expect("the table has agentPoolProfiles")
}

fn tree(resource: &str) -> Node {
    let mut root = Node {
        property: &ROOT,
        members: BTreeMap::new(),
    };
    for property in PROPERTIES.iter().filter(|property| property.resource == resource) {
        let (parents, name) = property.path.rsplit_once('.').unwrap_or(("", property.path));
        let mut node = &mut root;
        for segment in parents.split('.').filter(|segment| !segment.is_empty()) {
            node = node
                .members
                .get_mut(segment.trim_end_matches("[]").trim_end_matches("{}"))
                .unwrap_or_else(|| panic!("{}: its parent has no line in the property table", property.path));
        }
        node.members.insert(
            name,
            Node {
                property,
                members: BTreeMap::new(),
            },
        );
    }
    root
}

fn list(cell: &'static str) -> Vec<&'static str> {
    cell.split('|').filter(|part| !part.is_empty()).collect()
}

fn property(line: &'static str) -> Option<Property> {
    let cells: Vec<&'static str> = line.split('\t').collect();
    let [
        resource,
        path,
        kind,
        access,
        required,
        versions,
        class,
        accepts,
        choices,
        range,
        pattern,
        create,
        note,
    ] = *cells.as_slice()
    else {
        return None;
    };
    let (since, last) = match versions.strip_prefix("..") {
        Some(last) => (None, Some(last)),
        None => (Some(versions).filter(|since| !since.is_empty()), None),
    };
    let (minimum, maximum) = range.split_once("..").unwrap_or_default();
    let bound = |text: &str| (!text.is_empty()).then(|| text.parse().expect("bounds are numbers"));
    Some(Property {
        resource,
        path,
        kind: match kind {
            "string" => Kind::Text,
            "int" => Kind::Int,
            "number" => Kind::Number,
            "bool" => Kind::Bool,
            "object" => Kind::Object,
            "objects" => Kind::Objects,
            "objects-by-name" => Kind::ObjectsByName,
            "strings" => Kind::Texts,
            "strings-by-name" => Kind::TextsByName,
            _ => return None,
        },
        access: match access {
            "RO" => Access::ReadOnly,
            "RW" => Access::ReadWrite,
            "WO" => Access::WriteOnly,
            _ => return None,
        },
        required: required == "required",
        since,
        last,
        class: match class {
            "works" => Class::Works,
            "kept" => Class::Kept,
            "default" => Class::Default,
            "notyet" => Class::NotYet,
            "group" | "" => Class::Group,
            _ => return None,
        },
        accepts: list(accepts),
        choices: list(choices),
        minimum: bound(minimum),
        maximum: bound(maximum),
        pattern: match pattern {
            "" => None,
            name => Some(Pattern::named(name)?),
        },
        create: create == "create",
        note,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_parses_and_every_line_makes_sense() {
        assert!(PROPERTIES.len() > 480);
        assert!(
            CLUSTER
                .at(&["properties", "agentPoolProfiles", "count"])
                .is_some()
        );
        assert!(POOL.at(&["properties", "count"]).is_some());
        for property in PROPERTIES.iter() {
            let path = property.path;
            if property.class == Class::Default {
                assert!(!property.accepts.is_empty(), "{path}: accepts nothing");
            }
            if !property.choices.is_empty() {
                for accepted in &property.accepts {
                    assert!(
                        property.choices.contains(accepted),
                        "{path}: {accepted} is no value of the API"
                    );
                }
            }
            if property.class == Class::Group && property.access != Access::ReadOnly {
                assert!(
                    matches!(property.kind, Kind::Object | Kind::ObjectsByName | Kind::Objects),
                    "{path}: has no members and no class"
                );
            }
        }
    }

    #[test]
    fn versions_bound_a_property() {
        let find = |path: &str| PROPERTIES.iter().find(|property| property.path == path).unwrap();
        let fips = PROPERTIES
            .iter()
            .find(|property| property.resource == "cluster" && property.path == "properties.enableFIPS")
            .unwrap();
        assert!(fips.is_in("2026-08-01") && !fips.is_in("2026-06-01"));
        let docker = find("properties.networkProfile.dockerBridgeCidr");
        assert!(docker.is_in("2020-11-01") && !docker.is_in("2026-06-01"));
    }
}
