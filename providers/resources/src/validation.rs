//! Valid names and bodies of resource groups. Pure.

use arm_kernel::{Tags, read_tags, schema::Problems};
use arm_wire::{ArmError, ErrorCode};
use serde_json::{Map, Value};

/// Properties of a group that a PUT may contain, because clients send back the body that they read.
pub(crate) const READ_ONLY: &[&str] = &["id", "name", "type", "properties"];

/// A group's name: 1 to 90 letters, digits, `_`, `-`, `.`, `(`, `)`, not ending in `.`.
pub(crate) fn group_name(name: &str) -> Result<(), ArmError> {
    let well = name
        .chars()
        .all(|char| char.is_alphanumeric() || matches!(char, '_' | '-' | '.' | '(' | ')'));
    if well && (1..=90).contains(&name.chars().count()) && !name.ends_with('.') {
        return Ok(());
    }
    Err(ArmError::new(
        ErrorCode::INVALID_RESOURCE_NAME,
        "The name of a resource group has 1 to 90 letters, digits, '_', '-', '.', '(' or ')', and does not end in '.'.",
    )
    .target("resourceGroupName"))
}

/// The body of a group.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupBody {
    pub(crate) location: Option<String>,
    pub(crate) tags: Option<Tags>,
    pub(crate) managed_by: Option<String>,
}

/// Reads a body; all its problems in one response.
pub(crate) fn group_body(body: &Value) -> Result<GroupBody, ArmError> {
    let mut problems = Problems::default();
    let mut result = GroupBody::default();
    let empty = Map::new();
    for (name, value) in body.as_object().unwrap_or(&empty) {
        match name.as_str() {
            "location" => result.location = text(name, value, &mut problems),
            "managedBy" => result.managed_by = text(name, value, &mut problems),
            "tags" => result.tags = read_tags(Some(value), &mut problems),
            name if READ_ONLY.contains(&name) => {}
            name => unknown(name, &mut problems),
        }
    }
    problems.into_result()?;
    Ok(result)
}

/// A property that groups do not have.
pub(crate) fn unknown(name: &str, problems: &mut Problems) {
    let short: String = name.chars().take(64).collect();
    let message = format!("'{short}' is not a property of a resource group.");
    problems.add(ErrorCode::UNKNOWN_PROPERTY, short, message);
}

/// A string, or `None`: the Azure CLI sends empty strings and nulls for absent values.
fn text(name: &str, value: &Value, problems: &mut Problems) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) if text.chars().count() <= 1024 => {
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        }
        _ => {
            let message = format!("'{name}' has to be a string of at most 1024 characters.");
            problems.add(ErrorCode::INVALID_PARAMETER, name, message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn names_follow_arms_rules() {
        for (name, ok) in [
            ("a", true),
            ("grün-1_(x).y", true),
            (&*"a".repeat(90), true),
            (&*"a".repeat(91), false),
            ("", false),
            ("a.", false),
            ("a b", false),
            ("a/b", false),
            ("a*b", false),
        ] {
            assert_eq!(group_name(name).is_ok(), ok, "{name}");
        }
    }

    #[test]
    fn all_problems_of_a_body_come_in_one_answer() {
        let error = group_body(
            &json!({ "location": 1, "tags": { "a": 1, "b<": "x", "c": "y", "C": "z" }, "colour": "red" }),
        )
        .unwrap_err();
        assert_eq!(error.code, ErrorCode::VALIDATION_ERROR);
        let mut targets: Vec<_> = error
            .details
            .iter()
            .filter_map(|detail| detail.target.as_deref())
            .collect();
        targets.sort_unstable();
        assert_eq!(targets, ["colour", "location", "tags.a", "tags.b<", "tags.c"]);
        let many: Map<String, Value> = (0..51).map(|i| (format!("t{i}"), json!("v"))).collect();
        assert_eq!(
            group_body(&json!({ "tags": many }))
                .unwrap_err()
                .target
                .as_deref(),
            Some("tags")
        );
        assert!(group_body(&json!({ "tags": [] })).is_err());
    }

    #[test]
    fn what_was_read_may_be_sent_back() {
        let body = group_body(&json!({
            "id": "x", "name": "g", "type": "t", "location": "Local", "tags": {}, "managedBy": null,
            "properties": { "provisioningState": "Succeeded" },
        }));
        let expected = GroupBody {
            location: Some("Local".to_owned()),
            tags: Some(Tags::new()),
            managed_by: None,
        };
        assert_eq!(body.unwrap(), expected);
    }

    proptest! {
        #[test]
        fn any_name_and_tag_is_judged(name in ".*", value in ".*") {
            let _ = group_name(&name);
            let _ = group_body(&json!({ "tags": { name.clone(): value }, name: 1 }));
        }
    }
}
