//! `$filter` of resource lists: `name eq 'value'`, joined by `and`.

use arm_wire::{ArmError, ErrorCode, Request};
use serde_json::Value;

use crate::odata::{self, Term};

/// The fields that a filter may compare.
pub const FIELDS: &[&str] = &[
    "resourceGroup",
    "resourceType",
    "name",
    "location",
    "tagName",
    "tagValue",
];

/// A parsed filter: all terms have to match.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filter(Vec<(&'static str, String)>);

impl Filter {
    /// A request's `$filter`, which may compare `fields`.
    ///
    /// # Errors
    /// When it is invalid.
    pub fn of(request: &Request, fields: &[&str]) -> Result<Self, ArmError> {
        Self::parse(request.query("$filter"), fields)
    }

    /// Parses a filter; no filter matches all entries.
    ///
    /// # Errors
    /// When it is not of that form, or compares other fields than `fields`.
    pub fn parse(text: Option<&str>, fields: &[&str]) -> Result<Self, ArmError> {
        let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
            return Ok(Self::default());
        };
        odata::parse(text)
            .and_then(|terms| {
                terms
                    .into_iter()
                    .map(|term| {
                        let Term::Is(name, value) = term else { return None };
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

    /// Whether a resource (with `id`, `name`, `type`, `location`, `tags`) matches.
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
