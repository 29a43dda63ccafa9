//! Walks a body along the property table. Unknown, wrongly typed, out-of-range or unsupported properties are
//! problems; the rest is canonical: nulls, empty texts and read-only properties removed, enums in the API's
//! casing, secrets apart.

use arm_wire::ErrorCode;
use serde_json::{Map, Value};

use super::{
    problems::Problems,
    table::{Access, Class, Kind, Node, Property},
};
use crate::quote;

/// A free name of a map longer than this is refused.
const LONGEST_NAME: usize = 512;
/// The most items of a list of numbers.
const MOST_NUMBERS: usize = 100;

/// A cleaned body.
#[derive(Default)]
pub struct Clean {
    /// The clean body.
    pub body: Map<String, Value>,
    /// Write-only values by path. Never printed.
    pub secrets: Vec<(String, String)>,
}

/// Checks a body. Invalid properties go to `problems` and are left out of the result.
pub fn clean(root: &Node, body: &Value, api_version: &str, problems: &mut Problems) -> Clean {
    let mut walk = Walk {
        api_version,
        problems,
        secrets: Vec::new(),
    };
    let body = match body {
        Value::Object(members) => walk.members(root, members, ""),
        _ => Map::new(),
    };
    Clean {
        body,
        secrets: walk.secrets,
    }
}

/// A whole number, also in the form 3.0.
fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let float = value.as_f64()?;
        (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64)
    })
}

struct Walk<'a> {
    api_version: &'a str,
    problems: &'a mut Problems,
    secrets: Vec<(String, String)>,
}

fn join(parent: &str, name: &str) -> String {
    let name = if name.len() > LONGEST_NAME {
        name.chars().take(64).collect::<String>() + "…"
    } else {
        name.to_owned()
    };
    if parent.is_empty() {
        name
    } else {
        format!("{parent}.{name}")
    }
}

fn is_absent(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

/// Absent, false, or empty.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(is_nothing),
        _ => false,
    }
}

impl Walk<'_> {
    fn members(&mut self, node: &Node, members: &Map<String, Value>, path: &str) -> Map<String, Value> {
        let mut clean = Map::new();
        for (name, value) in members {
            if self.problems.is_full() {
                return clean;
            }
            let target = join(path, name);
            match node.members.get(name.as_str()) {
                None => self.unknown(node, name, value, target),
                Some(member) if member.property.access == Access::ReadOnly => {}
                Some(_) if is_absent(value) => {}
                Some(member) if !member.property.is_in(self.api_version) => {
                    self.other_version(member.property, value, target);
                }
                Some(member) => {
                    if let Some(value) = self.value(member, value, &target) {
                        clean.insert(name.clone(), value);
                    }
                }
            }
        }
        for (name, member) in &node.members {
            // The required properties of the body itself, e.g. a cluster's location, are checked by the
            // decision, which reads the present resource.
            let needed =
                member.property.required && member.property.access != Access::ReadOnly && !path.is_empty();
            if needed && members.get(*name).is_none_or(is_absent) {
                let target = join(path, name);
                let message = format!("The required property '{target}' is missing.");
                self.problems.add(ErrorCode::MISSING_PARAMETER, target, message);
            }
        }
        clean
    }

    fn unknown(&mut self, node: &Node, name: &str, value: &Value, target: String) {
        // A null has no effect.
        if value.is_null() {
            return;
        }
        let like = node.members.keys().find(|known| known.eq_ignore_ascii_case(name));
        let hint = like.map_or_else(String::new, |known| format!(" Did you mean '{known}'?"));
        self.problems.add(
            ErrorCode::UNKNOWN_PROPERTY,
            target,
            format!("There is no property {} here.{hint}", quote(name)),
        );
    }

    fn other_version(&mut self, property: &Property, value: &Value, target: String) {
        if is_nothing(value) {
            return;
        }
        let when = match (property.since, property.last) {
            (Some(since), _) => format!("came with api-version {since}"),
            (None, Some(last)) => format!("was last in api-version {last}"),
            (None, None) => return,
        };
        let message = format!("'{target}' {when}; this request uses {}.", self.api_version);
        self.problems.add(ErrorCode::UNKNOWN_PROPERTY, target, message);
    }

    fn value(&mut self, node: &Node, value: &Value, target: &str) -> Option<Value> {
        let property = node.property;
        let value = match (property.kind, value) {
            (Kind::Text, Value::String(text)) => self.text(property, text, target)?,
            (Kind::Bool, Value::Bool(_)) => value.clone(),
            (Kind::Int, number) => match whole(number) {
                Some(whole) => self.number(property, whole, target)?,
                None => return self.wrong_type(property, target),
            },
            (Kind::Ints, Value::Array(items)) => self.numbers(property, items, target)?,
            (Kind::Number, Value::Number(_)) => value.clone(),
            (Kind::Object, Value::Object(members)) => Value::Object(self.members(node, members, target)),
            (Kind::ObjectsByName, Value::Object(members)) => self.objects_by_name(node, members, target),
            (Kind::TextsByName, Value::Object(members)) => self.texts_by_name(property, members, target)?,
            (Kind::Objects, Value::Array(items)) => self.objects(node, items, target)?,
            (Kind::Texts, Value::Array(items)) => self.texts(property, items, target)?,
            _ => return self.wrong_type(property, target),
        };
        self.supported(property, value, target)
    }

    fn wrong_type(&mut self, property: &Property, target: &str) -> Option<Value> {
        let message = format!("'{target}' must be {}.", property.kind.describe());
        self.problems.add(ErrorCode::INVALID_PARAMETER, target, message);
        None
    }

    fn text(&mut self, property: &Property, text: &str, target: &str) -> Option<Value> {
        if property.access == Access::WriteOnly && property.class != Class::NotYet {
            self.secrets.push((target.to_owned(), text.to_owned()));
            return None;
        }
        let mut text = text;
        if !property.choices.is_empty() {
            let Some(choice) = property
                .choices
                .iter()
                .find(|choice| choice.eq_ignore_ascii_case(text))
            else {
                let message = format!(
                    "The value {} of '{target}' is not one of {}.",
                    quote(text),
                    property.choices.join(", ")
                );
                self.problems.add(ErrorCode::INVALID_PARAMETER, target, message);
                return None;
            };
            text = choice;
        }
        if let Some(Err(form)) = property.pattern.map(|pattern| (pattern.check)(text)) {
            let message = format!("The value {} of '{target}' must be {form}.", quote(text));
            self.problems.add(ErrorCode::INVALID_PARAMETER, target, message);
            return None;
        }
        Some(Value::String(text.to_owned()))
    }

    fn number(&mut self, property: &Property, number: i64, target: &str) -> Option<Value> {
        let low = property.minimum.is_some_and(|minimum| number < minimum);
        let high = property.maximum.is_some_and(|maximum| number > maximum);
        if low || high {
            let range = match (property.minimum, property.maximum) {
                (Some(minimum), Some(maximum)) => format!("from {minimum} to {maximum}"),
                (Some(minimum), None) => format!("at least {minimum}"),
                (_, Some(maximum)) => format!("at most {maximum}"),
                (None, None) => return None,
            };
            let message = format!("The value {number} of '{target}' must be {range}.");
            self.problems.add(ErrorCode::INVALID_PARAMETER, target, message);
            return None;
        }
        Some(Value::from(number))
    }

    fn numbers(&mut self, property: &Property, items: &[Value], path: &str) -> Option<Value> {
        if items.len() > MOST_NUMBERS {
            let message = format!(
                "'{path}' has {} entries; at most {MOST_NUMBERS} are allowed.",
                items.len()
            );
            self.problems.add(ErrorCode::INVALID_PARAMETER, path, message);
            return None;
        }
        let mut clean = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let target = format!("{path}[{index}]");
            match whole(item) {
                Some(number) => clean.extend(self.number(property, number, &target)),
                None => {
                    let message = format!("'{target}' must be an integer.");
                    self.problems.add(ErrorCode::INVALID_PARAMETER, target, message);
                }
            }
        }
        Some(Value::Array(clean))
    }

    fn objects_by_name(&mut self, node: &Node, members: &Map<String, Value>, path: &str) -> Value {
        let mut clean = Map::new();
        for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            let target = join(path, name);
            match value {
                _ if self.problems.is_full() => break,
                Value::Object(members) => {
                    let members = self.members(node, members, &target);
                    clean.insert(name.clone(), Value::Object(members));
                }
                _ => {
                    let message = format!("'{target}' must be an object.");
                    self.problems.add(ErrorCode::INVALID_PARAMETER, target, message);
                }
            }
        }
        Value::Object(clean)
    }

    fn texts_by_name(
        &mut self,
        property: &Property,
        members: &Map<String, Value>,
        path: &str,
    ) -> Option<Value> {
        self.at_most(property, members.len(), path)?;
        let mut clean = Map::new();
        for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            let target = join(path, name);
            let Value::String(text) = value else {
                let message = format!("'{target}' must be a string.");
                self.problems.add(ErrorCode::INVALID_PARAMETER, target, message);
                continue;
            };
            if let Some(Err(form)) = property.pattern.map(|pattern| (pattern.check_entry)(name, text)) {
                let message = format!("The entry {} of '{path}' must be {form}.", quote(name));
                self.problems.add(ErrorCode::INVALID_PARAMETER, target, message);
                continue;
            }
            // ARM's names ignore case; Kubernetes' labels do not.
            let same = |other: &&String| other.eq_ignore_ascii_case(name);
            if property.pattern.is_some_and(|pattern| pattern.folds_case)
                && let Some(other) = clean.keys().find(same)
            {
                let message = format!(
                    "The tags {} and {} differ in case only; tag names ignore case.",
                    quote(other),
                    quote(name)
                );
                self.problems.add(ErrorCode::INVALID_PARAMETER, target, message);
                continue;
            }
            clean.insert(name.clone(), Value::String(text.clone()));
        }
        Some(Value::Object(clean))
    }

    /// Lists and maps are bounded, so that one request cannot make a record of megabytes.
    fn at_most(&mut self, property: &Property, count: usize, target: &str) -> Option<()> {
        let most = match (property.maximum, property.pattern) {
            (Some(maximum), _) => usize::try_from(maximum).unwrap_or(usize::MAX),
            (None, Some(pattern)) => pattern.most,
            (None, None) => 100,
        };
        let least = property.minimum.and_then(|minimum| usize::try_from(minimum).ok());
        if count > most || least.is_some_and(|least| count < least) {
            let message = if count > most {
                format!("'{target}' has {count} entries; at most {most} are allowed.")
            } else {
                format!(
                    "'{target}' has {count} entries; at least {} are needed.",
                    least.unwrap_or_default()
                )
            };
            self.problems.add(ErrorCode::INVALID_PARAMETER, target, message);
            return None;
        }
        Some(())
    }

    fn objects(&mut self, node: &Node, items: &[Value], path: &str) -> Option<Value> {
        self.at_most(node.property, items.len(), path)?;
        if node.property.class == Class::NotYet && !items.is_empty() {
            // One problem for the list is clearer than one for each field of each item.
            return Some(Value::Array(items.to_vec()));
        }
        let mut clean = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let target = format!("{path}[{index}]");
            if let Value::Object(members) = item {
                clean.push(Value::Object(self.members(node, members, &target)));
            } else {
                let message = format!("'{target}' must be an object.");
                self.problems.add(ErrorCode::INVALID_PARAMETER, target, message);
                // Keeps the index of the following items.
                clean.push(Value::Object(Map::new()));
            }
        }
        Some(Value::Array(clean))
    }

    fn texts(&mut self, property: &Property, items: &[Value], path: &str) -> Option<Value> {
        self.at_most(property, items.len(), path)?;
        let mut clean = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let target = format!("{path}[{index}]");
            match item {
                Value::String(text) => clean.extend(self.text(property, text, &target)),
                _ => {
                    let message = format!("'{target}' must be a string.");
                    self.problems.add(ErrorCode::INVALID_PARAMETER, target, message);
                }
            }
        }
        Some(Value::Array(clean))
    }

    /// Whether Landfall supports the value.
    fn supported(&mut self, property: &Property, value: Value, target: &str) -> Option<Value> {
        let accepted = match property.class {
            Class::Group | Class::Kept | Class::Present => true,
            Class::Works => property.accepts.is_empty() || is_one_of(&value, &property.accepts),
            Class::Default => is_one_of(&value, &property.accepts),
            Class::NotYet => is_nothing(&value),
        };
        if accepted {
            return Some(value);
        }
        let accepts = match (property.accepts.as_slice(), property.kind) {
            ([], Kind::Bool) => "only false is accepted".to_owned(),
            ([], _) => "leave it out".to_owned(),
            (accepts, _) => format!("accepted: {}", accepts.join(", ")),
        };
        let message = format!("'{target}' with this value is not supported yet; {accepts}.");
        self.problems
            .add(ErrorCode::PROPERTY_NOT_SUPPORTED, target, message);
        None
    }
}

fn is_one_of(value: &Value, accepts: &[&str]) -> bool {
    match value {
        Value::Array(items) => items.iter().all(|item| is_one_of(item, accepts)),
        Value::String(text) => accepts.contains(&text.as_str()),
        Value::Bool(flag) => accepts.contains(&if *flag { "true" } else { "false" }),
        Value::Number(number) => accepts
            .iter()
            .any(|accepted| accepted.parse::<f64>().ok() == number.as_f64()),
        _ => false,
    }
}
