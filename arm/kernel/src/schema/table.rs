//! Property tables: the properties of bodies, and how each is treated.
//!
//! A table is data, a tab-separated line for each property with its type, access, class, range and pattern; validation, answers for older
//! api-versions and the compatibility page are all computed from it. Always true of a parsed table: every member's parent has a line of
//! its own.

use std::{collections::BTreeMap, fmt};

/// A form that a table names.
#[derive(Clone, Copy)]
pub struct Pattern {
    /// Its name in tables.
    pub name: &'static str,
    /// Checks a text; the error describes the valid form.
    pub check: fn(&str) -> Result<(), &'static str>,
    /// Checks one entry of a map of texts.
    pub check_entry: fn(&str, &str) -> Result<(), &'static str>,
    /// How many entries a map or list of this may have.
    pub most: usize,
    /// Whether two names of a map that differ in case only are the same.
    pub folds_case: bool,
}

impl Pattern {
    /// A form of texts.
    pub const fn of(name: &'static str, check: fn(&str) -> Result<(), &'static str>) -> Self {
        Self {
            name,
            check,
            check_entry: |_, _| Ok(()),
            most: 100,
            folds_case: false,
        }
    }

    /// A form of maps' entries.
    pub const fn of_entries(
        name: &'static str,
        check_entry: fn(&str, &str) -> Result<(), &'static str>,
        most: usize,
    ) -> Self {
        Self {
            check_entry,
            most,
            ..Self::of(name, |_| Ok(()))
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A whole number.
    Int,
    /// A number.
    Number,
    /// True or false.
    Bool,
    /// Members by name.
    Object,
    /// A list of objects with the members given.
    Objects,
    /// An object with free names, whose values are objects with the members given.
    ObjectsByName,
    /// A list of texts.
    Texts,
    /// A list of whole numbers; a range is that of the items.
    Ints,
    /// An object with free names, whose values are texts.
    TextsByName,
}

impl Kind {
    /// For messages.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Int => "an integer",
            Self::Number => "a number",
            Self::Bool => "true or false",
            Self::Object | Self::ObjectsByName => "an object",
            Self::Objects => "a list of objects",
            Self::Texts => "a list of strings",
            Self::Ints => "a list of integers",
            Self::TextsByName => "an object of strings",
        }
    }
}

/// Who may write a property, the caller or the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only the service: ignored in requests, because clients send back what they read.
    ReadOnly,
    /// The caller.
    ReadWrite,
    /// Only the caller; no response shows it.
    WriteOnly,
}

/// How the service treats a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It has an effect (only with the values of `accepts`, if there are any).
    Works,
    /// It is validated and shown, but has no effect yet.
    Kept,
    /// Only the values of `accepts`, which describe the default behaviour.
    Default,
    /// Only the present value, which the decision about the body checks. Clients send back the body that they
    /// read.
    Present,
    /// Only false and empty.
    NotYet,
    /// It has members.
    Group,
}

/// One line of the table.
#[derive(Debug)]
pub struct Property {
    /// Which body of the table it is of, e.g. `pool`.
    pub resource: &'static str,
    /// With `[]` for an item of a list and `{}` for a value by name.
    pub path: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether the caller or the service writes it.
    pub access: Access,
    /// Whether a body must have it.
    pub required: bool,
    /// First api-version, where known to be later than the oldest accepted one.
    pub since: Option<&'static str>,
    /// The last api-version, if it was removed since.
    pub last: Option<&'static str>,
    /// How the service treats it.
    pub class: Class,
    /// The only values that are accepted, where there are any.
    pub accepts: Vec<&'static str>,
    /// All values of the API, in its casing.
    pub choices: Vec<&'static str>,
    /// Of the number, of the items of a list of numbers, or of the number of items of another list.
    pub minimum: Option<i64>,
    /// As [`Self::minimum`].
    pub maximum: Option<i64>,
    /// The form of its text.
    pub pattern: Option<Pattern>,
    /// Can only be set at creation.
    pub create: bool,
    /// For the compatibility page.
    pub note: &'static str,
}

impl Property {
    /// Whether an api-version has it. Versions are dates, so their texts compare.
    pub fn is_in(&self, api_version: &str) -> bool {
        self.since.is_none_or(|since| api_version >= since)
            && self.last.is_none_or(|last| api_version <= last)
    }
}

/// A property and its members.
#[derive(Debug)]
pub struct Node {
    /// The property.
    pub property: &'static Property,
    /// Its members by name.
    pub members: BTreeMap<&'static str, Node>,
}

/// A parsed table.
#[derive(Debug)]
pub struct Table {
    /// All lines, in order.
    pub properties: Vec<Property>,
}

impl Table {
    /// Parses a table that is part of the program.
    ///
    /// # Panics
    /// When a line is malformed; the tests of the table find that.
    pub fn parse(text: &'static str, patterns: &[Pattern]) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let properties = lines.map(|line| {
            property(line, patterns)
                .unwrap_or_else(|| panic!("a line of the property table is malformed: {line}"))
        });
        Self {
            properties: properties.collect(),
        }
    }

    /// The lines of one body.
    pub fn of(&'static self, resource: &str) -> impl Iterator<Item = &'static Property> {
        self.properties
            .iter()
            .filter(move |property| property.resource == resource)
    }

    /// One body as a tree.
    ///
    /// # Panics
    /// When a member's parent has no line.
    pub fn tree(&'static self, resource: &str) -> Node {
        let mut root = Node {
            property: &ROOT,
            members: BTreeMap::new(),
        };
        for property in self.of(resource) {
            let (parents, name) = property.path.rsplit_once('.').unwrap_or(("", property.path));
            let mut node = &mut root;
            for segment in parents.split('.').filter(|segment| !segment.is_empty()) {
                node = node
                    .members
                    .get_mut(segment.trim_end_matches("[]").trim_end_matches("{}"))
                    .unwrap_or_else(|| {
                        panic!("{}: its parent has no line in the property table", property.path)
                    });
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
}

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

impl Node {
    /// The member at a path of bare names, e.g. `["properties", "networkProfile"]`.
    pub fn at<'a>(&'a self, path: &[&'a str]) -> Option<&'a Node> {
        path.iter().try_fold(self, |node, name| node.members.get(name))
    }
}

fn list(cell: &'static str) -> Vec<&'static str> {
    cell.split('|').filter(|part| !part.is_empty()).collect()
}

fn property(line: &'static str, patterns: &[Pattern]) -> Option<Property> {
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
    let (since, last) = versions.split_once("..").unwrap_or((versions, ""));
    let version = |text: &'static str| Some(text).filter(|text| !text.is_empty());
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
            "ints" => Kind::Ints,
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
        since: version(since),
        last: version(last),
        class: match class {
            "works" => Class::Works,
            "kept" => Class::Kept,
            "default" => Class::Default,
            "present" => Class::Present,
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
            name => Some(*patterns.iter().find(|pattern| pattern.name == name)?),
        },
        create: create == "create",
        note,
    })
}
