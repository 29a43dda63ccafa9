//! The lines of the table of properties, and bodies that have one of them.

use serde_json::{Map, Value, json};

use crate::stamp::IDENTITY;

const TABLE: &str = include_str!("../../../src/properties.tsv");
const NEWEST: &str = "2026-08-01";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI a@b";

/// A line of the table, read with other eyes than the program's.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) resource: &'static str,
    pub(super) path: &'static str,
    kind: &'static str,
    pub(super) access: &'static str,
    required: bool,
    last: &'static str,
    pub(super) class: &'static str,
    pub(super) accepts: Vec<&'static str>,
    choices: Vec<&'static str>,
    range: &'static str,
    pattern: &'static str,
}

pub(super) fn lines() -> Vec<Line> {
    let list = |cell: &'static str| cell.split('|').filter(|word| !word.is_empty()).collect();
    let each = TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parsed = each.map(|line| {
        let cells: Vec<&'static str> = line.split('\t').collect();
        assert_eq!(cells.len(), 13, "{line}");
        Line {
            resource: cells[0],
            path: cells[1],
            kind: cells[2],
            access: cells[3],
            required: cells[4] == "required",
            last: cells[5].split_once("..").map_or("", |(_, last)| last),
            class: cells[6],
            accepts: list(cells[7]),
            choices: list(cells[8]),
            range: cells[9],
            pattern: cells[10],
        }
    });
    parsed.collect()
}

/// The path of what a property is in, without the mark of lists and maps.
pub(super) fn parent(path: &str) -> &str {
    let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
    parent.trim_end_matches("[]").trim_end_matches("{}")
}

impl Line {
    pub(super) fn is(&self, resource: &str, path: &str) -> bool {
        self.resource == resource && self.path == path
    }

    /// The newest api-version that has it.
    pub(super) fn version(&self, all: &[Line]) -> &'static str {
        let mut path = self.path;
        loop {
            let line = all.iter().find(|line| line.is(self.resource, path));
            match line.map(|line| line.last) {
                Some("") if parent(path).is_empty() => return NEWEST,
                Some("") => path = parent(path),
                Some(last) => return last,
                None => return NEWEST,
            }
        }
    }

    pub(super) fn word(&self, word: &str) -> Value {
        match self.kind {
            "int" | "number" => json!(word.parse::<f64>().unwrap()),
            "bool" => json!(word == "true"),
            "strings" => json!([word]),
            _ => json!(word),
        }
    }

    /// A value that the table lets pass.
    pub(super) fn good(&self) -> Value {
        if let Some(word) = self.accepts.first() {
            return self.word(word);
        }
        // Not the first choice: that is what most defaults are.
        if let Some(word) = self.choices.last() {
            return self.word(word);
        }
        match (self.kind, self.pattern) {
            (_, "ssh-public-key") => json!(KEY),
            ("int", _) => json!(
                self.range
                    .split("..")
                    .next()
                    .and_then(|least| least.parse::<i64>().ok())
                    .unwrap_or(1)
            ),
            ("bool", _) => json!(false),
            ("strings", _) => json!(["a"]),
            ("strings-by-name", _) => json!({ "a": "b" }),
            ("object" | "objects-by-name", _) => json!({}),
            ("objects", _) => json!([{}]),
            ("number", _) => json!(0.5),
            _ => json!("azureuser"),
        }
    }

    /// A value that it does not.
    pub(super) fn bad(&self) -> Value {
        if let Some(word) = self.choices.iter().find(|word| !self.accepts.contains(*word)) {
            return self.word(word);
        }
        assert!(
            self.choices.is_empty(),
            "{}: every value is accepted: it is not refused",
            self.path
        );
        match self.kind {
            "int" => {
                let (least, most) = self.range.split_once("..").unwrap_or_default();
                let bounds = [least, most, "7"]
                    .into_iter()
                    .filter_map(|text| text.parse::<i64>().ok());
                json!(
                    bounds
                        .into_iter()
                        .find(|bound| !self.accepts.contains(&bound.to_string().as_str()))
                )
            }
            "number" => json!(0.5),
            "bool" => json!(!self.accepts.contains(&"true")),
            "strings" => json!(["other"]),
            "strings-by-name" => json!({ "a": "b" }),
            "objects" => json!([{}]),
            "object" | "objects-by-name" => json!({ "a": {} }),
            _ => json!("other"),
        }
    }
}

impl Line {
    /// A value of its type that the service would not say.
    pub(super) fn bad_of_any(&self) -> Value {
        match self.kind {
            "int" => json!(4711),
            "bool" => json!(true),
            "objects" => json!([{ "id": "bogus" }]),
            "object" => json!({ "bogus": "bogus" }),
            _ => json!("bogus"),
        }
    }
}

/// The name that stands for any in a map.
pub(super) fn entry(path: &str) -> &'static str {
    if path.starts_with("properties.identityProfile") {
        "kubeletidentity"
    } else if path.starts_with("identity.userAssignedIdentities") {
        IDENTITY
    } else {
        "x"
    }
}

/// Puts a value at a path, with what is required beside it on the way.
pub(super) fn put(all: &[Line], line: &Line, value: Value, body: &mut Value) {
    let mut place = body;
    let mut path = String::new();
    let segments: Vec<&str> = line.path.split('.').collect();
    for (index, segment) in segments.iter().enumerate() {
        let name = segment.trim_end_matches("[]").trim_end_matches("{}");
        if !place.is_object() {
            *place = json!({});
        }
        for beside in all.iter().filter(|beside| {
            beside.required
                && beside.resource == line.resource
                && beside.path != line.path
                && !path.is_empty()
                && parent(beside.path) == path
        }) {
            let own = beside.path.rsplit('.').next().unwrap();
            if place.get(own).is_none() {
                let mut inner = Value::Null;
                if ["object", "objects"].contains(&beside.kind) {
                    inner = whole(all, beside);
                }
                place[own] = if inner.is_null() { beside.good() } else { inner };
            }
        }
        path = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        if index + 1 == segments.len() {
            place[name] = value;
            return;
        }
        place = &mut place[name];
        if segment.ends_with("[]") {
            if !place.is_array() {
                *place = json!([{}]);
            }
            place = &mut place[0];
            path = format!("{}[]", path);
        } else if segment.ends_with("{}") {
            if !place.is_object() {
                *place = json!({});
            }
            place = &mut place[entry(line.path)];
            path = format!("{}{{}}", path);
        }
        path = path.trim_end_matches("[]").trim_end_matches("{}").to_owned();
    }
}

/// An object, or a list of one, with all that is required in it.
fn whole(all: &[Line], line: &Line) -> Value {
    let mut object = Map::new();
    for inner in all
        .iter()
        .filter(|inner| inner.required && inner.resource == line.resource && parent(inner.path) == line.path)
    {
        let name = inner.path.rsplit('.').next().unwrap().to_owned();
        let value = if ["object", "objects"].contains(&inner.kind) {
            whole(all, inner)
        } else {
            inner.good()
        };
        object.insert(name, value);
    }
    match line.kind {
        "objects" => json!([object]),
        _ => json!(object),
    }
}
