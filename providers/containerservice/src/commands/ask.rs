//! Bodies of requests for a command, and the clusters that can run one. Pure.

use arm_kernel::{quote, schema::Problems};
use arm_wire::{ArmError, ErrorCode};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use control_records::command::CommandInput;
use serde_json::Value;

use crate::{
    clusters::{body::not_an_object, hooks::refuse_change},
    records::StoredCluster,
};

/// Characters of a command.
const MOST_COMMAND: usize = 64 * 1024;
/// Bytes of an archive: a cluster keeps no larger secret than a mebibyte.
const MOST_CONTEXT: usize = 512 * 1024;
/// Characters of a token.
const MOST_TOKEN: usize = 32 * 1024;

/// The command of a body, or all its problems.
pub(super) fn input(body: &Value) -> Result<CommandInput, ArmError> {
    let members = body.as_object().ok_or_else(not_an_object)?;
    let mut problems = Problems::default();
    for unknown in members
        .keys()
        .filter(|name| !["command", "context", "clusterToken"].contains(&name.as_str()))
    {
        let message = format!("There is no property {} here.", quote(unknown));
        problems.add(ErrorCode::UNKNOWN_PROPERTY, unknown, message);
    }
    let mut text = |name: &str, most: usize| match members.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::String(text)) if text.len() <= most => Some(text.clone()),
        Some(Value::String(text)) => {
            let message = format!(
                "'{name}' has {} characters; at most {most} are taken.",
                text.len()
            );
            problems.add(ErrorCode::INVALID_PARAMETER, name, message);
            None
        }
        Some(_) => {
            problems.add(
                ErrorCode::INVALID_PARAMETER,
                name,
                format!("'{name}' must be a string."),
            );
            None
        }
    };
    let command = text("command", MOST_COMMAND);
    let token = text("clusterToken", MOST_TOKEN);
    // Three bytes are four characters; the Azure CLI sends them in lines.
    let context = text("context", MOST_CONTEXT / 2 * 3);
    let context = context.map(|context| context.split_ascii_whitespace().collect::<String>());
    if command.is_none() && !problems.has("command") {
        problems.add(
            ErrorCode::MISSING_PARAMETER,
            "command",
            "The required property 'command' is missing.",
        );
    }
    if let Some(context) = &context {
        let archive = STANDARD
            .decode(context)
            .ok()
            .filter(|bytes| bytes.starts_with(b"PK"));
        if archive.is_none_or(|bytes| bytes.len() > MOST_CONTEXT) {
            let message = format!(
                "'context' must be a zip archive of at most {} KiB, in base64.",
                MOST_CONTEXT >> 10
            );
            problems.add(ErrorCode::INVALID_PARAMETER, "context", message);
        }
    }
    problems.into_result()?;
    Ok(CommandInput {
        command: command.unwrap_or_default(),
        context,
        token,
    })
}

/// Whether a cluster runs this command.
pub(super) fn check_cluster(cluster: &StoredCluster, input: &CommandInput) -> Result<(), ArmError> {
    let record = &cluster.record.value;
    refuse_change(record)?;
    let properties = &record.body()["properties"];
    let refuse = |message: String, target: &str| {
        Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message).target(target))
    };
    if properties["apiServerAccessProfile"]["disableRunCommand"] == true {
        let message = format!(
            "Running commands is switched off for the cluster {} (disableRunCommand).",
            quote(&record.name)
        );
        return refuse(message, "properties.apiServerAccessProfile.disableRunCommand");
    }
    if properties["aadProfile"]["managed"] == true && input.token.is_none() {
        let message = format!(
            "The cluster {} authenticates users by their tokens: send the caller's as 'clusterToken'.",
            quote(&record.name)
        );
        return refuse(message, "clusterToken");
    }
    let formed = cluster.observed.as_ref().is_some_and(|observed| observed.formed);
    if !formed {
        let message = format!(
            "The cluster {} has not served yet; ask again when it has.",
            quote(&record.name)
        );
        return refuse(message, "properties.provisioningState");
    }
    Ok(())
}
