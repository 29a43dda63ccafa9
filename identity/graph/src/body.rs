//! Bodies: read member by member; all problems are reported at once, with the name of each field. Pure.

use serde_json::{Map, Value};

use crate::GraphError;

/// A body, or an object in one.
pub(crate) struct Body<'a> {
    members: &'a Map<String, Value>,
    /// The path of the object that is being read, with a dot at its end.
    above: String,
    known: Vec<&'static str>,
    problems: Vec<(String, String)>,
}

static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

impl<'a> Body<'a> {
    /// A request's body.
    pub(crate) fn of(body: &'a Value) -> Result<Self, GraphError> {
        let members: &Map<String, Value> = match body {
            Value::Object(members) => members,
            Value::Null => &NONE,
            _ => return Err(GraphError::bad("The request needs a JSON object as its content.")),
        };
        Ok(Self {
            members,
            above: String::new(),
            known: Vec::new(),
            problems: Vec::new(),
        })
    }

    pub(crate) fn problem(&mut self, name: &str, message: impl Into<String>) {
        self.problems
            .push((format!("{}{name}", self.above), message.into()));
    }

    /// A member; null counts as absent.
    pub(crate) fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.members.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Option<&'a str> {
        let value = self.value(name)?;
        let text = value.as_str();
        if text.is_none() {
            self.problem(name, "It has to be a string.");
        }
        text
    }

    /// A text that is required; empty where it is absent, which is a problem.
    pub(crate) fn required(&mut self, name: &'static str) -> &'a str {
        let before = self.problems.len();
        match self.text(name).filter(|text| !text.trim().is_empty()) {
            Some(text) => text,
            None => {
                if self.problems.len() == before {
                    self.problem(name, "It is missing.");
                }
                ""
            }
        }
    }

    pub(crate) fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let value = self.value(name)?;
        let boolean = value.as_bool();
        if boolean.is_none() {
            self.problem(name, "It has to be true or false.");
        }
        boolean
    }

    /// A boolean of which only one value is supported.
    pub(crate) fn only(&mut self, name: &'static str, wanted: bool) {
        if self.boolean(name).is_some_and(|asked| asked != wanted) {
            self.problem(name, format!("Only {wanted} is there yet in Landfall."));
        }
    }

    pub(crate) fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let value = self.value(name)?;
        let texts: Option<Vec<String>> = value.as_array().and_then(|all| {
            let texts = all.iter().map(|one| one.as_str().map(str::to_owned));
            texts.collect()
        });
        if texts.is_none() {
            self.problem(name, "It has to be a list of strings.");
        }
        texts
    }

    pub(crate) fn list(&mut self, name: &'static str) -> Option<&'a Vec<Value>> {
        let value = self.value(name)?;
        let list = value.as_array();
        if list.is_none() {
            self.problem(name, "It has to be a list.");
        }
        list
    }

    /// An object in it, which is read by `read`.
    pub(crate) fn object<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Body<'a>) -> T,
    ) -> Option<T> {
        let value = self.value(name)?;
        let Some(members) = value.as_object() else {
            self.problem(name, "It has to be an object.");
            return None;
        };
        Some(self.inner(members, name, read))
    }

    /// Reads an object that is at `name` in it.
    pub(crate) fn inner<T>(
        &mut self,
        members: &'a Map<String, Value>,
        name: &str,
        read: impl FnOnce(&mut Body<'a>) -> T,
    ) -> T {
        let mut inner = Body {
            members,
            above: format!("{}{name}.", self.above),
            known: Vec::new(),
            problems: Vec::new(),
        };
        let read = read(&mut inner);
        inner.unknown();
        self.problems.append(&mut inner.problems);
        read
    }

    /// Members without effect: a client may send them as it read them, or empty.
    pub(crate) fn ignored(&mut self, names: &[&'static str]) {
        self.known.extend(names);
    }

    fn unknown(&mut self) {
        let unknown: Vec<String> = self
            .members
            .iter()
            .filter(|(name, value)| {
                let empty = match value {
                    Value::Null => true,
                    Value::Array(all) => all.is_empty(),
                    Value::Object(members) => members.is_empty(),
                    _ => false,
                };
                // Annotations of the type only.
                !empty && !name.contains("@odata.type") && !self.known.contains(&name.as_str())
            })
            .map(|(name, _)| name.chars().take(64).collect())
            .collect();
        for name in unknown {
            self.problem(
                &name,
                "It is not known, or not there yet in Landfall; leave it out.",
            );
        }
    }

    /// Ends the reading: gives all problems.
    pub(crate) fn end(mut self) -> Result<(), GraphError> {
        self.unknown();
        let mut problems = std::mem::take(&mut self.problems);
        problems.truncate(32);
        match problems.as_slice() {
            [] => Ok(()),
            [(target, message)] => {
                let mut error = GraphError::bad(format!(
                    "Invalid value specified for property '{target}'. {message}"
                ));
                error.details = problems;
                Err(error)
            }
            many => {
                let names: Vec<&str> = many.iter().map(|(target, _)| target.as_str()).collect();
                let mut error = GraphError::bad(format!(
                    "Invalid values specified for the properties '{}'; 'details' says what is wrong with each.",
                    names.join("', '")
                ));
                error.details = problems;
                Err(error)
            }
        }
    }
}
