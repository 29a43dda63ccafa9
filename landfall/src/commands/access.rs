//! `landfall access`: role assignments. Through the ARM API, like `az role`; for hosts without `az`.

use anyhow::Result;
use serde_json::{Value, json};

use super::Context;
use crate::{
    args,
    arm::{ArmClient, ROLES},
    printer,
    problem::Problem,
    stamp::Settings,
};

const PROVIDER: &str = "/providers/Microsoft.Authorization";

pub(crate) async fn run(context: &Context, command: &args::Access) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    let arm = ArmClient::login(&context.places, &settings, &context.env).await?;
    match command {
        args::Access::List(place) => list(context, &arm, &scope(&arm, place)).await,
        args::Access::Grant {
            role,
            principal,
            place,
        } => grant(context, &arm, role, principal, &scope(&arm, place)).await,
        args::Access::Revoke { name, yes } => revoke(context, &arm, name, *yes).await,
    }
}

/// The ARM id of a place, without a slash at its end.
fn scope(arm: &ArmClient, place: &args::AccessPlace) -> String {
    let subscription = arm.subscription();
    match place.at.as_deref() {
        None => subscription,
        Some(id) if id.starts_with('/') => id.trim_end_matches('/').to_owned(),
        Some(name) => match name.split_once('/') {
            None => format!("{subscription}/resourceGroups/{name}"),
            Some((group, cluster)) => format!(
                "{subscription}/resourceGroups/{group}/providers/Microsoft.ContainerService/managedClusters/{cluster}"
            ),
        },
    }
}

/// For people.
fn shown(scope: &str) -> &str {
    if scope.is_empty() { "/" } else { scope }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("-")
}

async fn list(context: &Context, arm: &ArmClient, scope: &str) -> Result<()> {
    let assignments = arm
        .list(&format!("{scope}{PROVIDER}/roleAssignments"), ROLES, &[])
        .await?;
    let below = [("$filter", "atScopeAndBelow()".to_owned())];
    let roles = arm
        .list(&format!("{PROVIDER}/roleDefinitions"), ROLES, &below)
        .await?;
    context
        .printer
        .result(&json!({ "event": "result", "assignments": assignments }), || {
            page(&assignments, &roles)
        });
    Ok(())
}

fn page(assignments: &[Value], roles: &[Value]) -> String {
    if assignments.is_empty() {
        return "Nobody has a role there.\n".to_owned();
    }
    let role = |assignment: &Value| {
        let id = text(assignment, "/properties/roleDefinitionId");
        let name = id.rsplit('/').next().unwrap_or_default().to_owned();
        let found = roles.iter().find(|role| text(role, "/name") == name);
        found.map_or(name, |role| text(role, "/properties/roleName").to_owned())
    };
    let rows = assignments.iter().map(|one| {
        vec![
            text(one, "/properties/principalId").to_owned(),
            text(one, "/properties/principalType").to_owned(),
            role(one),
            text(one, "/properties/scope").to_owned(),
            text(one, "/name").to_owned(),
        ]
    });
    printer::table(&["PRINCIPAL", "TYPE", "ROLE", "AT", "NAME"], rows.collect())
}

/// The id of a role that is named, or given by its id.
async fn role_id(arm: &ArmClient, role: &str, scope: &str) -> Result<String> {
    let roles = arm
        .list(&format!("{scope}{PROVIDER}/roleDefinitions"), ROLES, &[])
        .await?;
    let found = roles.iter().find(|found| {
        text(found, "/name").eq_ignore_ascii_case(role)
            || text(found, "/properties/roleName").eq_ignore_ascii_case(role)
    });
    match found {
        Some(found) => Ok(text(found, "/id").to_owned()),
        None => {
            let names: Vec<&str> = roles
                .iter()
                .map(|role| text(role, "/properties/roleName"))
                .collect();
            let what = format!(
                "there is no role '{role}' that could be given at {}",
                shown(scope)
            );
            Err(Problem::new(what, format!("choose one of: {}", names.join(", "))).into())
        }
    }
}

async fn grant(context: &Context, arm: &ArmClient, role: &str, principal: &str, scope: &str) -> Result<()> {
    let role_id = role_id(arm, role, scope).await?;
    let name = context.env.ids.uuid().to_string();
    let body = json!({ "properties": { "roleDefinitionId": role_id, "principalId": principal } });
    let path = format!("{scope}{PROVIDER}/roleAssignments/{name}");
    arm.put(&path, ROLES, &body).await?;
    context
        .printer
        .result(&json!({ "event": "result", "assignment": path }), || {
            format!("{principal} has the role {role} at {}.\n", shown(scope))
        });
    Ok(())
}

async fn revoke(context: &Context, arm: &ArmClient, name: &str, yes: bool) -> Result<()> {
    let all = arm
        .list(&format!("{PROVIDER}/roleAssignments"), ROLES, &[])
        .await?;
    let found = all
        .iter()
        .find(|one| text(one, "/name").eq_ignore_ascii_case(name));
    let Some(found) = found else {
        let what = format!("there is no role assignment '{name}'");
        let list = format!("landfall access list --at /{}", context.name_flag());
        return Err(Problem::new(what, format!("see the last column of: {list}")).into());
    };
    let principal = text(found, "/properties/principalId");
    if !yes
        && !context
            .printer
            .confirm(&format!(
                "This takes a role at {} away from {principal}.",
                text(found, "/properties/scope")
            ))
            .await?
    {
        return Err(Problem::new("nothing was taken away", "answer y, or give --yes").into());
    }
    arm.delete(text(found, "/id"), ROLES).await?;
    context
        .printer
        .result(&json!({ "event": "result", "revoked": name }), || {
            format!("{principal} has lost that role.\n")
        });
    Ok(())
}
