//! Access to a cluster's API server: `apiServerAccessProfile`. Pure.
//!
//! Enforced on the control plane's machines (`cluster/bootstrap`). Always true: a cluster is private from its
//! creation on, or never; a private cluster has no authorised ranges, as they would have no effect.

use arm_kernel::schema::Problems;
use arm_wire::ErrorCode;
use control_records::ClusterRecord;
use serde_json::{Map, Value, json};

const PROFILE: &str = "apiServerAccessProfile";
const RANGES: &str = "authorizedIPRanges";
const PRIVATE: &str = "enablePrivateCluster";
/// Properties that only a private cluster may have.
const OF_PRIVATE: [&str; 2] = ["privateDNSZone", "enablePrivateClusterPublicFQDN"];

/// Checks the rules that the property table cannot express.
pub(crate) fn decide(properties: &mut Map<String, Value>, problems: &mut Problems) {
    let Some(Value::Object(profile)) = properties.get_mut(PROFILE) else {
        return;
    };
    let target = |field: &str| format!("properties.{PROFILE}.{field}");
    let private = profile.get(PRIVATE) == Some(&json!(true));
    let ranges = profile.get(RANGES).and_then(Value::as_array);
    if private && ranges.is_some_and(|ranges| !ranges.is_empty()) {
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            target(RANGES),
            "A private cluster is reached from its own network only: leave the authorized ranges out, or make the cluster without \
             enablePrivateCluster.",
        );
    }
    for field in OF_PRIVATE {
        let asked = profile.get(field).is_some_and(|value| *value != json!(false));
        if asked && !private {
            problems.add(
                ErrorCode::INVALID_PARAMETER,
                target(field),
                format!("'{field}' is for private clusters; this one is made without enablePrivateCluster."),
            );
        }
    }
    if private {
        profile.entry("privateDNSZone").or_insert_with(|| json!("system"));
    }
}

/// The name of a private cluster's API server in its network; its only one.
pub(crate) fn private_name(record: &ClusterRecord) -> Option<&str> {
    let spec = record.spec();
    (spec.access == cluster_spec::ApiAccess::Private).then_some(spec.fqdn.as_str())
}
