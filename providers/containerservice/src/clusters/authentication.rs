//! Token issuers of a cluster, and the tokens it accepts: `oidcIssuerProfile`,
//! `securityProfile.workloadIdentity`, `aadProfile`. Pure.
//!
//! Always true: once enabled, the issuer keeps its name, and the directory stays enabled: others depend on
//! them. Settings that a PUT does not name stay as they are, so that a template that does not know them locks
//! no user out.

use arm_kernel::schema::Problems;
use arm_wire::ErrorCode;
use control_records::{ClusterRecord, DesiredState, Malformed};
use serde_json::{Map, Value, json};

use crate::ProviderConfig;

const ISSUER: &str = "/properties/oidcIssuerProfile/enabled";
const WORKLOADS: &str = "/properties/securityProfile/workloadIdentity/enabled";
/// The path of clusters' issuers below the stamp's URL.
pub const ISSUERS: &str = "oidc";

/// Checks and completes the settings that the property table cannot express. `before`: the present body.
pub(crate) fn decide(
    config: &ProviderConfig,
    properties: &mut Map<String, Value>,
    before: Option<&Value>,
    problems: &mut Problems,
) {
    let issues = issuer(properties, before, problems);
    workload_identity(properties, before, issues, problems);
    directory(config, properties, before, problems);
}

fn was(before: Option<&Value>, pointer: &str) -> bool {
    before.and_then(|body| body.pointer(pointer)) == Some(&json!(true))
}

/// Whether the cluster has an issuer afterwards.
fn issuer(properties: &mut Map<String, Value>, before: Option<&Value>, problems: &mut Problems) -> bool {
    let was = was(before, ISSUER);
    let asked = properties
        .get("oidcIssuerProfile")
        .and_then(|profile| profile["enabled"].as_bool());
    match asked {
        Some(false) if was => problems.add(
            ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED,
            "properties.oidcIssuerProfile.enabled",
            "The OIDC issuer of a cluster cannot be disabled again, because others may rely on it.",
        ),
        None if was => object(properties, "oidcIssuerProfile")["enabled"] = json!(true),
        _ => {}
    }
    was || asked == Some(true)
}

fn workload_identity(
    properties: &mut Map<String, Value>,
    before: Option<&Value>,
    issues: bool,
    problems: &mut Problems,
) {
    let asked = properties
        .get("securityProfile")
        .and_then(|profile| profile["workloadIdentity"]["enabled"].as_bool());
    let enabled = asked.unwrap_or_else(|| was(before, WORKLOADS));
    if asked.is_none() && enabled {
        object(properties, "securityProfile")["workloadIdentity"] = json!({ "enabled": true });
    }
    if enabled && !issues {
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            "properties.securityProfile.workloadIdentity.enabled",
            "Workload identity needs the cluster's OIDC issuer: set properties.oidcIssuerProfile.enabled (az: --enable-oidc-issuer) \
             as well.",
        );
    }
}

/// The principals of the directory that the cluster accepts.
pub(crate) fn directory(
    config: &ProviderConfig,
    properties: &mut Map<String, Value>,
    before: Option<&Value>,
    problems: &mut Problems,
) {
    const PROFILE: &str = "aadProfile";
    let before = before.and_then(|body| body.pointer("/properties/aadProfile"));
    let asked = match properties.remove(PROFILE) {
        Some(Value::Object(asked)) => asked,
        _ => Map::new(),
    };
    let target = |field: &str| format!("properties.{PROFILE}.{field}");
    let managed = asked.get("managed").and_then(Value::as_bool);
    if before.is_some() && managed == Some(false) {
        problems.add(
            ErrorCode::PROPERTY_CHANGE_NOT_ALLOWED,
            target("managed"),
            "Directory integration of a cluster cannot be disabled.",
        );
    }
    if before.is_none() && managed != Some(true) {
        let rest = asked.iter().find(|(field, value)| {
            field.as_str() != "managed" && **value != json!(false) && **value != json!([])
        });
        if let Some((field, _)) = rest {
            problems.add(
                ErrorCode::INVALID_PARAMETER,
                target("managed"),
                format!(
                    "'{field}' needs 'managed: true': a cluster with applications of its own for signing in cannot be made any more."
                ),
            );
        }
        return;
    }
    if let Some(tenant) = asked.get("tenantID").and_then(Value::as_str)
        && !tenant.eq_ignore_ascii_case(&config.tenant)
    {
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            target("tenantID"),
            format!(
                "The tenant of this stamp is '{}'; there is no other.",
                config.tenant
            ),
        );
    }
    if properties.get("enableRBAC") == Some(&json!(false)) {
        problems.add(
            ErrorCode::INVALID_PARAMETER,
            "properties.enableRBAC",
            "A cluster with directory integration has Kubernetes' roles enabled: leave enableRBAC out.",
        );
    }
    let mut profile = json!({ "adminGroupObjectIDs": [], "enableAzureRBAC": false });
    for source in [before.and_then(Value::as_object), Some(&asked)] {
        for (field, value) in source.into_iter().flatten() {
            profile[field.as_str()] = value.clone();
        }
    }
    profile["managed"] = json!(true);
    profile["tenantID"] = json!(config.tenant);
    properties.insert(PROFILE.to_owned(), profile);
}

/// A member that is an object, added if it is absent.
fn object<'a>(properties: &'a mut Map<String, Value>, name: &str) -> &'a mut Value {
    let member = properties.entry(name).or_insert_with(|| json!({}));
    if !member.is_object() {
        *member = json!({});
    }
    member
}

/// The cluster's decision, with a name for its issuer if it needs one and has none.
pub(crate) fn with_issuer(
    config: &ProviderConfig,
    record: &ClusterRecord,
) -> Result<DesiredState, Malformed> {
    record.state.with(|body, decided| {
        if was(Some(&*body), ISSUER) && decided.issuer.is_none() {
            decided.issuer = Some(format!("{}/{ISSUERS}/{}/", config.url, record.uid));
        }
    })
}
