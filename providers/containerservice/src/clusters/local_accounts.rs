//! Local accounts: client certificates of the cluster's own CA, and whether they are enabled
//! (`disableLocalAccounts`). Pure.
//!
//! Always true: without local accounts users can log in by the directory (`aadProfile`); this is checked only
//! here.

use arm_kernel::schema::Problems;
use arm_wire::{ArmError, ErrorCode};
use control_records::ClusterRecord;
use serde_json::{Map, Value};

const DISABLE: &str = "disableLocalAccounts";
const DIRECTORY: &str = "aadProfile";

/// Checks the rules that the property table cannot express. A cluster that an earlier release let break them
/// stays changeable.
pub(crate) fn decide(
    properties: &Map<String, Value>,
    present: Option<&ClusterRecord>,
    problems: &mut Problems,
) {
    let stuck = |properties: &Map<String, Value>| {
        properties.get(DISABLE) == Some(&Value::Bool(true)) && !has_directory(properties)
    };
    let before = present.and_then(|present| present.body()["properties"].as_object());
    if stuck(properties) && !before.is_some_and(stuck) {
        problems.add(
            ErrorCode::BAD_REQUEST,
            format!("properties.{DISABLE}"),
            "Local accounts can only be disabled where users log in by the directory: give the cluster an 'aadProfile' (az aks create or \
             update --enable-aad) with or before it, or leave 'disableLocalAccounts' out.",
        );
    }
}

/// Whether users of the cluster log in by the directory.
fn has_directory(properties: &Map<String, Value>) -> bool {
    properties
        .get(DIRECTORY)
        .and_then(Value::as_object)
        .is_some_and(|profile| profile.get("managed") != Some(&Value::Bool(false)))
}

/// Refuses credentials of a cluster without local accounts, with AKS' message, which clients look for.
pub(crate) fn refuse(record: &ClusterRecord) -> Result<(), ArmError> {
    if record.spec().disable_local_accounts {
        return Err(ArmError::new(
            ErrorCode::BAD_REQUEST,
            "Getting static credential is not allowed because this cluster is set to disable local accounts.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decided(properties: &Value) -> Result<(), ArmError> {
        let mut problems = Problems::default();
        decide(properties.as_object().unwrap(), None, &mut problems);
        problems.into_result()
    }

    #[test]
    fn local_accounts_are_disabled_only_where_there_is_another_way_in() {
        for (properties, fine) in [
            (json!({}), true),
            (json!({ "disableLocalAccounts": false }), true),
            (json!({ "disableLocalAccounts": true }), false),
            (json!({ "disableLocalAccounts": true, "aadProfile": null }), false),
            (
                json!({ "disableLocalAccounts": true, "aadProfile": { "managed": false } }),
                false,
            ),
            (
                json!({ "disableLocalAccounts": true, "aadProfile": { "managed": true } }),
                true,
            ),
        ] {
            let decided = decided(&properties);
            assert_eq!(decided.is_ok(), fine, "{properties}");
            if let Err(refused) = decided {
                assert!(refused.body().to_string().contains("--enable-aad"));
            }
        }
    }
}
