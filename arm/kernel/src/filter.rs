//! The part of OData that `$filter` of resource lists needs: `name eq 'value'`, joined by `and`.

use arm_wire::{ArmError, ErrorCode, Request};
use serde_json::Value;

/// What may be compared.
pub const FIELDS: &[&str] = &[
    "resourceGroup",
    "resourceType",
    "name",
    "location",
    "tagName",
    "tagValue",
];

/// A parsed filter: all have to hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filter(Vec<(&'static str, String)>);

impl Filter {
    /// A request's `$filter`, which may compare `fields`.
    ///
    /// # Errors
    /// When it is not understood.
    pub fn of(request: &Request, fields: &[&str]) -> Result<Self, ArmError> {
        Self::parse(request.query("$filter"), fields)
    }

    /// Parses; no filter lets everything through.
    ///
    /// # Errors
    /// When it is not of that form, or compares something else than `fields`.
    pub fn parse(text: Option<&str>, fields: &[&str]) -> Result<Self, ArmError> {
        let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
            return Ok(Self::default());
        };
        clauses(text)
            .and_then(|clauses| {
                clauses
                    .into_iter()
                    .map(|(name, value)| {
                        let known = FIELDS.iter().find(|field| field.eq_ignore_ascii_case(&name))?;
                        fields.contains(known).then_some((*known, value))
                    })
                    .collect::<Option<Vec<_>>>()
            })
            .map(Self)
            .ok_or_else(|| {
                ArmError::new(
                    ErrorCode::BAD_REQUEST,
                    format!(
                        "The $filter is not understood; use \"name eq 'value'\" with one of {}, joined by 'and'.",
                        fields.join(", ")
                    ),
                )
                .target("$filter")
            })
    }

    /// The value that a field has to have.
    pub fn value(&self, field: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(own, _)| *own == field)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a resource (with `id`, `name`, `type`, `location`, `tags`) is let through.
    pub fn admits(&self, resource: &Value) -> bool {
        let text = |field: &str| resource[field].as_str().unwrap_or_default();
        let tags = resource["tags"].as_object();
        self.0.iter().all(|(field, wanted)| match *field {
            "resourceGroup" => arm_ids::ResourcePath::parse(text("id"))
                .ok()
                .and_then(|path| path.resource_group)
                .is_some_and(|group| group.eq_ignore_ascii_case(wanted)),
            "resourceType" => text("type").eq_ignore_ascii_case(wanted),
            "name" => text("name").eq_ignore_ascii_case(wanted),
            "location" => text("location").eq_ignore_ascii_case(wanted),
            "tagName" => tags.is_some_and(|tags| {
                tags.iter().any(|(name, value)| {
                    name.eq_ignore_ascii_case(wanted)
                        && self
                            .value("tagValue")
                            .is_none_or(|wanted| value.as_str() == Some(wanted))
                })
            }),
            // A value is of the name beside it; alone it may be of any.
            _ => {
                self.value("tagName").is_some()
                    || tags.is_some_and(|tags| tags.values().any(|value| value == wanted))
            }
        })
    }
}

/// `a eq 'b' and c eq 'd'`; quotes inside a value are doubled.
fn clauses(text: &str) -> Option<Vec<(String, String)>> {
    let mut clauses = Vec::new();
    let mut rest = text.trim();
    loop {
        let (name, after) = word(rest)?;
        let (operator, after) = word(after)?;
        if !operator.eq_ignore_ascii_case("eq") {
            return None;
        }
        let (value, after) = quoted(after.trim_start())?;
        clauses.push((name.to_owned(), value));
        let after = after.trim_start();
        if after.is_empty() {
            return Some(clauses);
        }
        let (and, after) = word(after)?;
        if !and.eq_ignore_ascii_case("and") || clauses.len() == 10 {
            return None;
        }
        rest = after;
    }
}

fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text
        .find(|char: char| !char.is_ascii_alphanumeric())
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('\'')?;
    let mut value = String::new();
    loop {
        let (before, after) = rest.split_once('\'')?;
        value.push_str(before);
        match after.strip_prefix('\'') {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None => return Some((value, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn filters_are_understood_or_refused() {
        let resource = json!({
            "id": "/subscriptions/s/resourceGroups/Group/providers/N/t/n", "name": "n", "type": "N/t", "location": "local",
            "tags": { "Env": "it's" },
        });
        for (text, admits) in [
            ("", Some(true)),
            ("resourceGroup eq 'group'", Some(true)),
            ("resourceGroup eq 'other'", Some(false)),
            ("resourceType eq 'n/T' and name eq 'n'", Some(true)),
            ("resourceType eq 'n/T' AND name EQ 'm'", Some(false)),
            ("tagName eq 'env' and tagValue eq 'it''s'", Some(true)),
            ("tagName eq 'env' and tagValue eq 'x'", Some(false)),
            ("tagValue eq 'it''s'", Some(true)),
            ("name ne 'n'", None),
            ("name eq n", None),
            ("name eq 'n", None),
            ("name eq 'n' or name eq 'm'", None),
            ("colour eq 'red'", None),
            ("substringof('a', name)", None),
        ] {
            let filter = Filter::parse(Some(text), FIELDS);
            assert_eq!(
                filter.ok().map(|filter| filter.admits(&resource)),
                admits,
                "{text}"
            );
        }
        assert!(Filter::parse(Some("name eq 'n'"), &["tagName"]).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_filter_or_is_refused(text in ".*", tail in "[ a-z'=eqand]*") {
            let _ = Filter::parse(Some(&text), FIELDS);
            let _ = Filter::parse(Some(&format!("name eq '{text}' {tail}")), FIELDS);
        }
    }
}
