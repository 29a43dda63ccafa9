//! Bodies; all problems of one in one response. Pure.

use arm_kernel::{Tags, quote, read_tags, schema::Problems};
use arm_wire::{ArmError, ErrorCode};
use identity_directory::{ISSUER_IS, is_issuer};
use serde_json::Value;

/// Members of a PUT that are ignored, because clients send back the body that they read.
const READ_ONLY: &[&str] = &["id", "name", "type", "systemData"];
const READ_ONLY_PROPERTIES: &[&str] = &["tenantId", "principalId", "clientId"];
/// The most audiences of a federated credential.
const MOST_AUDIENCES: usize = 1;
const MAX_TEXT: usize = 600;

/// The requested identity.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IdentityBody {
    pub(crate) location: Option<String>,
    pub(crate) tags: Option<Tags>,
}

/// Reads the body of an identity.
pub(crate) fn identity(body: &Value) -> Result<IdentityBody, ArmError> {
    let mut problems = Problems::default();
    let mut result = IdentityBody {
        location: None,
        tags: None,
    };
    for (name, value) in problems.members(Some(body), "") {
        match name.as_str() {
            "location" => match value {
                Value::Null => {}
                Value::String(text) if text.len() <= 128 => {
                    result.location = Some(text.trim().to_owned()).filter(|text| !text.is_empty());
                }
                _ => problems.has_to_be("location", "a string of at most 128 characters"),
            },
            "tags" => result.tags = read_tags(Some(value), &mut problems),
            "properties" => {
                for (name, value) in problems.members(Some(value), "properties") {
                    match name.as_str() {
                        "isolationScope" if isolates_nothing(value) => {}
                        "isolationScope" => problems.add(
                            ErrorCode::PROPERTY_NOT_SUPPORTED,
                            "properties.isolationScope",
                            "There is one region here; leave 'isolationScope' out, or set it to 'None'.",
                        ),
                        name if READ_ONLY_PROPERTIES.contains(&name) || value.is_null() => {}
                        name => problems.unknown_property(&format!("properties.{name}")),
                    }
                }
            }
            name if READ_ONLY.contains(&name) || value.is_null() => {}
            name => problems.unknown_property(name),
        }
    }
    problems.into_result()?;
    Ok(result)
}

fn isolates_nothing(value: &Value) -> bool {
    value.is_null()
        || value
            .as_str()
            .is_some_and(|text| text.is_empty() || text.eq_ignore_ascii_case("None"))
}

/// The requested federated credential.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FederatedBody {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) audiences: Vec<String>,
}

/// Reads the body of a federated credential.
pub(crate) fn federated(body: &Value) -> Result<FederatedBody, ArmError> {
    let mut problems = Problems::default();
    for (name, value) in problems.members(Some(body), "") {
        if name != "properties" && !READ_ONLY.contains(&name.as_str()) && !value.is_null() {
            problems.unknown_property(name);
        }
    }
    let properties = problems.members(body.get("properties"), "properties");
    let mut text = |name: &str| {
        let path = format!("properties.{name}");
        let must = format!("a string of 1 to {MAX_TEXT} characters");
        match properties.get(name) {
            None | Some(Value::Null) => {
                problems.add(
                    ErrorCode::MISSING_PARAMETER,
                    &path,
                    format!("'{path}' is required."),
                );
                String::new()
            }
            Some(Value::String(text)) if is_text(text) => text.clone(),
            Some(_) => {
                problems.has_to_be(&path, &must);
                String::new()
            }
        }
    };
    let (issuer, subject) = (text("issuer"), text("subject"));
    if !issuer.is_empty() && !is_issuer(&issuer) {
        let message = format!(
            "The request format was unexpected. The 'issuer' of a Federated Identity Credential has to be {ISSUER_IS}; keys are asked \
             for over https only."
        );
        problems.add(ErrorCode::BAD_REQUEST, "properties.issuer", message);
    }
    let audiences = match properties.get("audiences") {
        None | Some(Value::Null) => {
            let message = "'properties.audiences' is required.";
            problems.add(ErrorCode::MISSING_PARAMETER, "properties.audiences", message);
            Vec::new()
        }
        Some(value) => {
            let texts: Option<Vec<String>> = value.as_array().and_then(|all| {
                let texts = all.iter().map(|one| one.as_str().filter(|text| is_text(text)));
                texts.map(|one| one.map(str::to_owned)).collect()
            });
            let must = format!("a list of {MOST_AUDIENCES} string");
            texts
                .filter(|texts| texts.len() == MOST_AUDIENCES)
                .unwrap_or_else(|| {
                    problems.has_to_be("properties.audiences", &must);
                    Vec::new()
                })
        }
    };
    for (name, value) in properties {
        if !["issuer", "subject", "audiences"].contains(&name.as_str()) && !value.is_null() {
            problems.unknown_property(&format!("properties.{name}"));
        }
    }
    problems.into_result()?;
    Ok(FederatedBody {
        issuer,
        subject,
        audiences,
    })
}

fn is_text(text: &str) -> bool {
    (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The name of an identity or of a federated credential.
pub(crate) fn name(name: &str, shortest: usize) -> Result<(), ArmError> {
    let plain = name
        .chars()
        .all(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_'));
    let begins = name.starts_with(|char: char| char.is_ascii_alphanumeric());
    if plain && begins && (shortest..=120).contains(&name.len()) {
        return Ok(());
    }
    let message = format!(
        "The name has {shortest} to 120 letters, digits, '-' and '_', and begins with a letter or a digit; {} does not.",
        quote(name)
    );
    Err(ArmError::new(ErrorCode::INVALID_RESOURCE_NAME, message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The fields of several problems.
    fn targets(error: &ArmError) -> Vec<&str> {
        let many = error.details.iter().filter_map(|detail| detail.target.as_deref());
        let mut all: Vec<&str> = many.collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn what_was_read_may_be_sent_back_and_nothing_else() {
        let body = json!({
            "id": "x", "location": "local", "tags": { "a": "b" }, "type": "t",
            "properties": { "principalId": "p", "clientId": "c", "tenantId": "t", "isolationScope": "None" },
        });
        assert_eq!(identity(&body).unwrap().location.as_deref(), Some("local"));
        let error = identity(&json!({
            "location": 1, "tags": { "a": 1 }, "colour": "red", "properties": { "isolationScope": "Regional", "x": 1 },
        }))
        .unwrap_err();
        assert_eq!(
            targets(&error),
            [
                "colour",
                "location",
                "properties.isolationScope",
                "properties.x",
                "tags.a"
            ]
        );
        assert!(identity(&json!({ "properties": [] })).is_err());
    }

    #[test]
    fn all_that_is_wrong_with_a_credential_is_told() {
        let error =
            federated(&json!({ "properties": { "issuer": 1, "audiences": ["a", "b"], "y": 1 }, "x": 1 }))
                .unwrap_err();
        assert_eq!(
            targets(&error),
            [
                "properties.audiences",
                "properties.issuer",
                "properties.subject",
                "properties.y",
                "x"
            ]
        );
        let right =
            json!({ "properties": { "issuer": "https://i", "subject": "s", "audiences": ["a"] }, "id": "x" });
        assert!(federated(&right).is_ok());
        let plain = json!({ "properties": { "issuer": "http://i", "subject": "s", "audiences": ["a"] } });
        let error = federated(&plain).unwrap_err();
        assert_eq!(
            (error.code, error.target.as_deref()),
            (ErrorCode::BAD_REQUEST, Some("properties.issuer")),
            "{error:?}"
        );
        for (text, ok) in [
            ("ci-1_a", true),
            ("-ci", false),
            ("", false),
            ("a b", false),
            ("a/b", false),
        ] {
            assert_eq!(name(text, 1).is_ok(), ok, "{text}");
        }
        assert!(name("ab", 3).is_err());
    }
}
