//! Names of registries: which are valid, and which are free.

use arm_kernel::{Call, Operation, ResourceType, Scope, Verb, quote, store_error};
use arm_wire::{ArmError, ErrorCode, Response};
use control_records::{RegistryNameRecord, key};
use control_store::get_record;
use serde_json::{Value, json};

use crate::{API_VERSIONS, ContainerRegistry, NAMESPACE};

/// The shortest name.
pub const SHORTEST_NAME: usize = 5;
/// The longest name.
pub const LONGEST_NAME: usize = 50;
/// Names that are first segments of other paths of the stamp's endpoint.
const RESERVED: &[&str] = &[
    "common",
    "graph",
    "healthz",
    "metadata",
    "oauth2",
    "organizations",
    "providers",
    "readyz",
    "subscriptions",
];

pub(crate) const TYPE: ResourceType<ContainerRegistry> = ResourceType {
    path: "checkNameAvailability",
    versions: API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Operation::read(Verb::Ask, "Registries_CheckNameAvailability", |provider, call| {
            Box::pin(check(provider, call))
        })
        .at(Scope::Subscription),
    ],
};

/// Whether a registry may have this name: 5 to 50 ASCII letters and digits that are no other path's.
pub fn is_registry_name(name: &str) -> bool {
    (SHORTEST_NAME..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && !RESERVED
            .iter()
            .any(|reserved| reserved.eq_ignore_ascii_case(name))
}

/// The error for an invalid name.
pub(crate) fn invalid(name: &str) -> String {
    format!(
        "{} is not a name for a registry: it has {SHORTEST_NAME} to {LONGEST_NAME} letters and digits, and none of these names: {}.",
        quote(name),
        RESERVED.join(", ")
    )
}

/// The key of the registry that has this name, if any.
pub(crate) async fn holder(provider: &ContainerRegistry, name: &str) -> Result<Option<String>, ArmError> {
    let found = get_record::<RegistryNameRecord>(&*provider.store, &key::registry_name(name))
        .await
        .map_err(store_error)?;
    Ok(found.map(|found| found.value.registry))
}

async fn check(provider: &ContainerRegistry, call: &Call) -> Result<Response, ArmError> {
    let body = &call.request.body;
    let Some(name) = body["name"].as_str() else {
        let message = "'name' is required: a string.";
        return Err(ArmError::new(ErrorCode::MISSING_PARAMETER, message).target("name"));
    };
    let kind = format!("{NAMESPACE}/registries");
    if let Some(asked) = body.get("type").filter(|asked| !asked.is_null())
        && !asked
            .as_str()
            .is_some_and(|asked| asked.eq_ignore_ascii_case(&kind))
    {
        let message = format!("'type' has to be '{kind}'.");
        return Err(ArmError::new(ErrorCode::INVALID_PARAMETER, message).target("type"));
    }
    let refused = |reason: &str, message: String| -> Value {
        json!({ "nameAvailable": false, "reason": reason, "message": message })
    };
    let answer = if !is_registry_name(name) {
        refused("Invalid", invalid(name))
    } else if holder(provider, name).await?.is_some() {
        refused("AlreadyExists", taken(name))
    } else {
        json!({ "nameAvailable": true })
    };
    Ok(Response::ok(answer))
}

/// The error for a name that is another registry's.
pub(crate) fn taken(name: &str) -> String {
    format!("The registry {} is already in use.", quote(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_part_of_references_and_of_no_other_path() {
        for (name, valid) in [
            ("acme1", true),
            ("Acme1", true),
            ("acme", false),
            ("ac-me", false),
            ("ac.me", false),
            ("subscriptions", false),
            ("GRAPH", false),
            (&"a".repeat(50), true),
            (&"a".repeat(51), false),
        ] {
            assert_eq!(is_registry_name(name), valid, "{name}");
        }
    }
}
