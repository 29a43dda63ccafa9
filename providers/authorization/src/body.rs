//! Bodies with `properties` of texts and lists; unknown members are refused.

use arm_kernel::{quote, schema::Problems};
use arm_wire::{ArmError, ErrorCode};
use serde_json::{Map, Value};

/// The `properties` of a body, and their problems.
pub(crate) struct Body<'a> {
    properties: Option<&'a Map<String, Value>>,
    pub(crate) problems: Problems,
}

impl<'a> Body<'a> {
    /// The properties; `known` are the permitted members, used or ignored.
    pub(crate) fn of(body: &'a Value, known: &[&str]) -> Result<Self, ArmError> {
        let properties = body.get("properties").and_then(Value::as_object);
        // Some clients send the properties of a role as the body itself.
        let properties =
            properties.or_else(|| body.as_object().filter(|body| !body.contains_key("properties")));
        if properties.is_none() {
            let message = "The body has to be an object with 'properties'.";
            return Err(ArmError::new(ErrorCode::INVALID_REQUEST_CONTENT, message).target("properties"));
        }
        let mut problems = Problems::default();
        for name in properties.into_iter().flat_map(Map::keys) {
            if !known.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                problems.add(
                    ErrorCode::UNKNOWN_PROPERTY,
                    format!("properties.{name}"),
                    format!("There is no property {} here.", quote(name)),
                );
            }
        }
        Ok(Self { properties, problems })
    }

    /// A property; null and empty mean absent.
    pub(crate) fn value(&self, name: &str) -> Option<&'a Value> {
        let (_, value) = self
            .properties?
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))?;
        let absent = value.is_null() || value.as_str() == Some("");
        (!absent).then_some(value)
    }

    /// A text of at most so many characters.
    pub(crate) fn text(&mut self, name: &str, most: usize) -> Option<&'a str> {
        let value = self.value(name)?;
        let target = format!("properties.{name}");
        match value.as_str() {
            Some(text)
                if text.chars().count() <= most
                    && !text.chars().any(|char| char.is_control() && char != '\n') =>
            {
                Some(text)
            }
            Some(_) => {
                let message = format!("'{name}' has to have at most {most} printable characters.");
                self.problems.add(ErrorCode::INVALID_PARAMETER, target, message);
                None
            }
            None => {
                self.problems.add(
                    ErrorCode::INVALID_PARAMETER,
                    target,
                    format!("'{name}' has to be a text."),
                );
                None
            }
        }
    }

    /// A text that has to be there.
    pub(crate) fn required(&mut self, name: &str, most: usize) -> &'a str {
        if self.value(name).is_none() {
            self.problems.add(
                ErrorCode::MISSING_PARAMETER,
                format!("properties.{name}"),
                format!("'{name}' is required."),
            );
        }
        self.text(name, most).unwrap_or_default()
    }

    /// A list of texts.
    pub(crate) fn texts(&mut self, value: Option<&'a Value>, target: &str) -> Vec<String> {
        let mut texts = Vec::new();
        match value {
            None | Some(Value::Null) => {}
            Some(Value::Array(all)) => {
                for (at, one) in all.iter().enumerate() {
                    match one.as_str() {
                        Some(text) => texts.push(text.to_owned()),
                        None => self.problems.add(
                            ErrorCode::INVALID_PARAMETER,
                            format!("{target}[{at}]"),
                            "Only texts can be here.",
                        ),
                    }
                }
            }
            Some(_) => self.problems.add(
                ErrorCode::INVALID_PARAMETER,
                target,
                format!("'{target}' has to be a list of texts."),
            ),
        }
        texts
    }
}

/// A GUID, in lower case with its dashes.
pub(crate) fn guid(text: &str) -> Option<String> {
    (text.len() == 36)
        .then(|| uuid::Uuid::try_parse(text).ok())
        .flatten()
        .map(|id| id.to_string())
}
