//! Names of registries: which are valid, and which are free.

use arm_kernel::{Call, Operation, ResourceType, Scope, Verb, quote, store_error};
use arm_wire::{ArmError, ErrorCode, Response};
use control_records::{
    REGISTRY_NAME_LENGTH, RESERVED_REGISTRY_NAMES, RegistryNameRecord, is_registry_name, key,
};
use control_store::get_record;
use serde_json::{Value, json};

use crate::{API_VERSIONS, ContainerRegistry, NAMESPACE};

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

/// The error for an invalid name.
pub(crate) fn invalid(name: &str) -> String {
    format!(
        "{} is not a name for a registry: it has {} to {} letters and digits, and is none of these: {}.",
        quote(name),
        REGISTRY_NAME_LENGTH.start(),
        REGISTRY_NAME_LENGTH.end(),
        RESERVED_REGISTRY_NAMES.join(", ")
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
