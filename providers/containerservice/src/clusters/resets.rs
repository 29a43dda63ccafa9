//! `resetAADProfile` and `resetServicePrincipalProfile`: one profile of a cluster, changed alone. Pure.

use arm_kernel::{Decision, schema::Problems};
use arm_wire::{ArmError, ErrorCode};
use serde_json::{Map, Value, json};

use super::{
    authentication,
    body::not_an_object,
    draft::{Context, Draft, Name, SERVICE_PRINCIPAL_SECRET, advance},
    hooks::refuse_change,
    requests::Current,
};
use crate::{conversion::from_client, properties::CLUSTER};

/// A profile as a PUT of the cluster would have it, below its name; and secrets of it, by their paths.
type Profile = (Map<String, Value>, Vec<(String, String)>);
/// The outcome of a request.
type Outcome = Result<Decision<Draft>, ArmError>;
/// Decides about an existing cluster, by a body. Pure.
pub(crate) type Reset = fn(&Context<'_>, &Name<'_>, Current<'_>, &Value) -> Outcome;

pub(crate) const AAD: &str = "ManagedClusters_ResetAADProfile";
pub(crate) const SERVICE_PRINCIPAL: &str = "ManagedClusters_ResetServicePrincipalProfile";

/// One profile of a body, checked.
fn profile(
    context: &Context<'_>,
    before: Current<'_>,
    name: &str,
    body: &Value,
    problems: &mut Problems,
) -> Result<Profile, ArmError> {
    refuse_change(before.record)?;
    if !body.is_object() {
        return Err(not_an_object());
    }
    let whole = json!({ "properties": { name: body } });
    let mut cleaned = from_client(
        &CLUSTER,
        &whole,
        Some(before.record.body()),
        context.api_version,
        problems,
    );
    let properties = match cleaned.body.remove("properties") {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    };
    let secrets = cleaned.secrets;
    Ok((properties, secrets))
}

/// Sets which principals of the directory administer a cluster, and whether role assignments apply in it.
pub(crate) fn aad(context: &Context<'_>, name: &Name<'_>, before: Current<'_>, body: &Value) -> Outcome {
    let mut problems = Problems::default();
    let (mut properties, _) = profile(context, before, "aadProfile", body, &mut problems)?;
    authentication::directory(
        context.config,
        &mut properties,
        Some(before.record.body()),
        &mut problems,
    );
    problems.into_result()?;
    let Some(profile) = properties.remove("aadProfile") else {
        return Err(ArmError::new(
            ErrorCode::INVALID_PARAMETER,
            "The cluster does not know the directory, and 'managed: true' does not ask for it: there is nothing to reset.",
        )
        .target("properties.aadProfile.managed"));
    };
    let state = before
        .record
        .state
        .with(|body, _| body["properties"]["aadProfile"] = profile)
        .map_err(ArmError::internal)?;
    let draft = advance(context, name, Some(before.record), state, AAD, None)?;
    if draft.is_so(Some(before)) {
        return Ok(Decision::Unchanged);
    }
    Ok(Decision::Write(draft))
}

/// The service principal of a cluster without managed identity: another secret, or another principal.
pub(crate) fn service_principal(
    context: &Context<'_>,
    name: &Name<'_>,
    before: Current<'_>,
    body: &Value,
) -> Outcome {
    const PROFILE: &str = "servicePrincipalProfile";
    let mut problems = Problems::default();
    let (mut properties, secrets) = profile(context, before, PROFILE, body, &mut problems)?;
    problems.into_result()?;
    let present = &before.record.body()["properties"][PROFILE]["clientId"];
    if present
        .as_str()
        .is_none_or(|client| client.eq_ignore_ascii_case("msi"))
    {
        return Err(ArmError::new(
            ErrorCode::OPERATION_NOT_ALLOWED,
            "The cluster has a managed identity; it has no service principal that could be reset.",
        )
        .target("properties.servicePrincipalProfile.clientId"));
    }
    let asked = properties.remove(PROFILE);
    let client = asked.as_ref().and_then(|asked| asked["clientId"].as_str());
    let client = client.filter(|client| !client.is_empty() && !client.eq_ignore_ascii_case("msi"));
    let mut problems = Problems::default();
    if client.is_none() {
        problems.add(
            ErrorCode::MISSING_PARAMETER,
            "clientId",
            "The required property 'clientId' is missing: the application that the cluster is to be.",
        );
    }
    if !secrets.iter().any(|(path, _)| path == SERVICE_PRINCIPAL_SECRET) {
        problems.add(
            ErrorCode::MISSING_PARAMETER,
            "secret",
            "The service principal's secret is missing.",
        );
    }
    problems.into_result()?;
    let client = json!({ "clientId": client });
    let state = before
        .record
        .state
        .with(|body, _| body["properties"][PROFILE] = client)
        .map_err(ArmError::internal)?;
    let mut draft = advance(context, name, Some(before.record), state, SERVICE_PRINCIPAL, None)?;
    draft.secrets = secrets;
    Ok(Decision::Write(draft))
}
