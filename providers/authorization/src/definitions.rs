//! Role definitions: the built-in ones, and custom ones.

use arm_access::{BuiltIn, Permission, Scope, built_in, built_in_roles, plain_pattern};
use arm_ids::ResourcePath;
use arm_kernel::{
    Call, Context, Decision, Items, Mode, Mutation, Presence, Purpose, RequestInfo, Resource, etag,
    odata::{Term, terms},
    quote, store_error, write,
};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use async_trait::async_trait;
use control_records::access::{ROLES, RoleNameRecord, RoleRecord, Stamped, role_key, role_name_key};
use control_store::{Store, Stored, Txn, get_record, list_records, put_record};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    Authorization, NAMESPACE,
    assignments::count_of_role,
    body::{Body, guid},
    place::{before_roles, id_at, place, scope_in_body},
    written::done,
};

const WRITE: &str = "Microsoft.Authorization/roleDefinitions/write";
const DELETE: &str = "Microsoft.Authorization/roleDefinitions/delete";
/// The most custom roles of a stamp.
const MAX_ROLES: usize = 5000;
/// The most scopes where a role can be assigned.
const MAX_SCOPES: usize = 100;
/// Patterns of a role.
const MAX_PATTERNS: usize = 1000;
/// The creation time of the built-in roles in responses.
const BUILT_IN_SINCE: &str = "2026-01-01T00:00:00Z";
const PROPERTIES: &[&str] = &[
    "roleName",
    "description",
    "type",
    "roleType",
    "permissions",
    "assignableScopes",
    "createdOn",
    "updatedOn",
    "createdBy",
    "updatedBy",
    // Of a body without `properties`.
    "id",
    "name",
];

/// Role definitions as the kernel sees them.
pub(crate) enum Definitions {}

/// A role, and whether it is visible at the requested scope.
pub(crate) struct State {
    built_in: Option<&'static BuiltIn>,
    custom: Option<Stored<RoleRecord>>,
}

/// The change to be written.
pub(crate) enum RoleChange {
    Put(RoleRecord),
    Delete(RoleRecord),
}

/// An action, with the scopes at which the caller's permission was checked: if the role has other scopes by
/// then, it fails.
pub(crate) struct Action {
    body: Option<Value>,
    checked: Vec<Scope>,
}

fn answer_of(built_in: &BuiltIn, at: &str) -> Value {
    answer(
        at,
        built_in.id,
        json!({
            "roleName": built_in.name, "type": "BuiltInRole", "description": built_in.description,
            "assignableScopes": ["/"], "permissions": permissions(&built_in.permissions),
            "createdOn": BUILT_IN_SINCE, "updatedOn": BUILT_IN_SINCE, "createdBy": null, "updatedBy": null,
        }),
    )
}

fn answer_of_custom(record: &RoleRecord, at: &str) -> Value {
    answer(
        at,
        &record.id,
        json!({
            "roleName": record.name, "type": "CustomRole", "description": record.description,
            "assignableScopes": record.assignable_scopes, "permissions": permissions(&record.permissions),
            "createdOn": record.stamped.created_on.to_string(), "updatedOn": record.stamped.updated_on.to_string(),
            "createdBy": record.stamped.created_by, "updatedBy": record.stamped.updated_by,
        }),
    )
}

fn answer(at: &str, id: &str, properties: Value) -> Value {
    json!({
        "id": id_at(at, "roleDefinitions", id),
        "name": id,
        "type": format!("{NAMESPACE}/roleDefinitions"),
        "properties": properties,
    })
}

/// The form in responses.
pub(crate) fn permissions(all: &[Permission]) -> Vec<Value> {
    let one = |permission: &Permission| {
        json!({
            "actions": permission.actions, "notActions": permission.not_actions,
            "dataActions": permission.data_actions, "notDataActions": permission.not_data_actions,
        })
    };
    all.iter().map(one).collect()
}

/// The scopes where a role can be assigned.
fn scopes(record: &RoleRecord) -> impl Iterator<Item = Scope> {
    record
        .assignable_scopes
        .iter()
        .filter_map(|text| Scope::parse(text).ok())
}

#[async_trait]
impl Resource for Definitions {
    type Provider = Authorization;
    type State = State;
    type Change = RoleChange;
    type Action = Action;

    async fn read(
        provider: &Authorization,
        path: &ResourcePath,
        purpose: Purpose,
    ) -> Result<State, ArmError> {
        let id = path.name(0).and_then(guid).unwrap_or_default();
        let mut custom = get_record::<RoleRecord>(&*provider.store, &role_key(&id))
            .await
            .map_err(store_error)?;
        let at = Scope::of(&place(path));
        if purpose == Purpose::Answer {
            custom = custom.filter(|custom| scopes(&custom.value).any(|scope| scope.is_related(&at)));
        }
        Ok(State {
            built_in: built_in(&id),
            custom,
        })
    }

    fn presence(state: &State, _: &ResourcePath) -> Presence {
        match (state.built_in, &state.custom) {
            (Some(built_in), _) => Presence::Present(etag(built_in.id, "", 0, Timestamp::UNIX_EPOCH)),
            (None, Some(custom)) => {
                let record = &custom.value;
                Presence::Present(etag(&record.id, "", custom.revision.0, record.stamped.updated_on))
            }
            (None, None) => Presence::Absent,
        }
    }

    fn missing(_: &State, path: &ResourcePath) -> ArmError {
        let message = format!(
            "The specified role definition with ID {} does not exist.",
            quote(path.name(0).unwrap_or_default())
        );
        ArmError::new(ErrorCode::ROLE_DEFINITION_DOES_NOT_EXIST, message)
    }

    async fn list(provider: &Authorization, path: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        roles_at(&*provider.store, &place(path), false).await
    }

    fn decide(
        context: &Context<'_, String>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<RoleChange>, ArmError> {
        let Mutation::Act(action) = mutation else {
            return Err(ArmError::internal(
                "roles are changed with the scopes that were checked",
            ));
        };
        if state.built_in.is_some() {
            let message = "Built-in roles cannot be changed or deleted.";
            return Err(ArmError::new(ErrorCode::CANNOT_CHANGE_BUILT_IN_ROLE, message));
        }
        let present = state.custom.as_ref().map(|custom| &custom.value);
        let unchecked =
            present.is_some_and(|present| scopes(present).any(|scope| !action.checked.contains(&scope)));
        if unchecked {
            let message = "The role is being changed by another request; repeat this one.";
            return Err(ArmError::new(ErrorCode::CONFLICT, message));
        }
        let Some(body) = &action.body else {
            return Ok(present.map_or(Decision::Unchanged, |present| {
                Decision::Write(RoleChange::Delete(present.clone()))
            }));
        };
        let name = context.info.path.name(0).unwrap_or_default();
        let Some(id) = guid(name) else {
            let message = format!(
                "The name of a role definition has to be a GUID, not {}.",
                quote(name)
            );
            return Err(ArmError::new(ErrorCode::INVALID_RESOURCE_NAME, message));
        };
        let by = &context.info.principal.object_id;
        let before = present.map(|present| &present.stamped);
        let stamped = Stamped::now(before, by, context.now);
        Ok(Decision::Write(RoleChange::Put(record(id, body, stamped)?)))
    }

    async fn transaction(
        provider: &Authorization,
        _: &RequestInfo<'_>,
        state: &State,
        change: &RoleChange,
    ) -> Result<Txn, ArmError> {
        let store = &*provider.store;
        match change {
            RoleChange::Put(record) => put_txn(store, state, record).await,
            RoleChange::Delete(record) => {
                let count = count_of_role(store, &record.id).await?;
                if count > 0 {
                    let message =
                        format!("There are existing role assignments referencing role (Count: {count}).");
                    return Err(ArmError::new(ErrorCode::ROLE_DEFINITION_HAS_ASSIGNMENTS, message));
                }
                let key = role_key(&record.id);
                let txn = match &state.custom {
                    Some(custom) => Txn::default().at(&key, custom.revision),
                    None => Txn::default(),
                };
                Ok(txn.delete(key).delete(role_name_key(&record.name)))
            }
        }
    }

    fn render(state: &State, change: Option<&RoleChange>, path: &ResourcePath, _: &str) -> Value {
        let at = before_roles(place(path).subscription.as_ref());
        match (change, state.built_in, &state.custom) {
            (Some(RoleChange::Put(record) | RoleChange::Delete(record)), _, _) => {
                answer_of_custom(record, &at)
            }
            (None, Some(built_in), _) => answer_of(built_in, &at),
            (None, None, Some(custom)) => answer_of_custom(&custom.value, &at),
            (None, None, None) => Value::Null,
        }
    }

    fn operation(_: &RoleChange) -> Option<&str> {
        None
    }
}

async fn put_txn(store: &dyn Store, state: &State, record: &RoleRecord) -> Result<Txn, ArmError> {
    let taken = || {
        let message = format!(
            "A custom role with the name {} exists already.",
            quote(&record.name)
        );
        ArmError::new(ErrorCode::ROLE_DEFINITION_WITH_SAME_NAME_EXISTS, message)
    };
    if built_in_roles()
        .iter()
        .any(|role| role.name.eq_ignore_ascii_case(&record.name))
    {
        return Err(taken());
    }
    let (key, name) = (role_key(&record.id), role_name_key(&record.name));
    let index = get_record::<RoleNameRecord>(store, &name)
        .await
        .map_err(store_error)?;
    let mut txn = match &state.custom {
        Some(custom) => {
            let mut txn = Txn::default().at(&key, custom.revision);
            let before = role_name_key(&custom.value.name);
            if before != name {
                txn = txn.delete(before);
            }
            txn
        }
        None => {
            let (all, _) = store.list(ROLES).await.map_err(store_error)?;
            if all.len() >= MAX_ROLES {
                let message = format!("No more custom roles can be created: at most {MAX_ROLES} are kept.");
                return Err(ArmError::new(ErrorCode::ROLE_DEFINITION_LIMIT, message));
            }
            Txn::default().absent(&key)
        }
    };
    match index {
        Some(index) if index.value.id != record.id => return Err(taken()),
        Some(_) => {}
        None => {
            let index = RoleNameRecord {
                v: 1,
                id: record.id.clone(),
            };
            txn = txn.absent(&name).with(put_record(name, &index));
        }
    }
    Ok(txn.with(put_record(key, record)))
}

/// The role that a body describes.
fn record(id: String, body: &Value, stamped: Stamped) -> Result<RoleRecord, ArmError> {
    let mut body = Body::of(body, PROPERTIES)?;
    let name = body.required("roleName", 512).trim().to_owned();
    let description = body.text("description", 2048).unwrap_or_default().to_owned();
    for property in ["type", "roleType"] {
        if body
            .text(property, 64)
            .is_some_and(|kind| !kind.eq_ignore_ascii_case("CustomRole"))
        {
            let message = format!("'{property}' can only be 'CustomRole'.");
            body.problems.add(
                ErrorCode::INVALID_PARAMETER,
                format!("properties.{property}"),
                message,
            );
        }
    }
    let mut permissions = Vec::new();
    let given = body.value("permissions").and_then(Value::as_array);
    for (at, one) in given.into_iter().flatten().enumerate() {
        let mut patterns = |name: &str| {
            let target = format!("properties.permissions[{at}].{name}");
            let patterns = body.texts(one.get(name), &target);
            for pattern in &patterns {
                if !plain_pattern(pattern) {
                    let message = format!(
                        "{} is no action, nor a pattern of actions such as 'Microsoft.ContainerService/*/read'.",
                        quote(pattern)
                    );
                    body.problems.add(ErrorCode::INVALID_PARAMETER, &target, message);
                }
            }
            patterns
        };
        permissions.push(Permission {
            actions: patterns("actions"),
            not_actions: patterns("notActions"),
            data_actions: patterns("dataActions"),
            not_data_actions: patterns("notDataActions"),
        });
    }
    let some = permissions.iter().any(Permission::is_some);
    let count: usize = permissions
        .iter()
        .map(|one| {
            one.actions.len() + one.not_actions.len() + one.data_actions.len() + one.not_data_actions.len()
        })
        .sum();
    if !some || count > MAX_PATTERNS {
        let message = format!(
            "'permissions' has to have an action or a data action, and at most {MAX_PATTERNS} patterns."
        );
        body.problems
            .add(ErrorCode::INVALID_PARAMETER, "properties.permissions", message);
    }
    let given = body.value("assignableScopes");
    let assignable_scopes = body.texts(given, "properties.assignableScopes");
    if assignable_scopes.is_empty() || assignable_scopes.len() > MAX_SCOPES {
        let message = format!("'assignableScopes' has to name 1 to {MAX_SCOPES} scopes.");
        body.problems.add(
            ErrorCode::INVALID_PARAMETER,
            "properties.assignableScopes",
            message,
        );
    }
    for scope in &assignable_scopes {
        if scope_in_body(scope).is_none() {
            let message = format!(
                "{} is no scope: '/' or the id of a subscription, group or resource is one.",
                quote(scope)
            );
            body.problems.add(
                ErrorCode::INVALID_PARAMETER,
                "properties.assignableScopes",
                message,
            );
        }
    }
    body.problems.into_result()?;
    Ok(RoleRecord {
        v: 1,
        id,
        name,
        description,
        permissions,
        assignable_scopes: assignable_scopes
            .iter()
            .filter_map(|scope| Some(scope_in_body(scope)?.to_string()))
            .collect(),
        stamped,
    })
}

/// Requires the caller's permission at each scope where the role can be assigned now or after the change.
async fn checked(
    provider: &Authorization,
    call: &Call,
    action: &str,
    body: Option<&Value>,
) -> Result<Vec<Scope>, ArmError> {
    let id = call.request.path.name(0).and_then(guid).unwrap_or_default();
    let present = get_record::<RoleRecord>(&*provider.store, &role_key(&id))
        .await
        .map_err(store_error)?;
    let before = present
        .into_iter()
        .flat_map(|present| present.value.assignable_scopes);
    let properties = body.map(|body| body.get("properties").unwrap_or(body));
    let after = properties
        .and_then(|properties| properties.get("assignableScopes")?.as_array())
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned);
    let mut checked = Vec::new();
    // An invalid scope is refused with the other problems of the body.
    for path in before.chain(after).filter_map(|scope| scope_in_body(&scope)) {
        let scope = Scope::of(&path);
        if !checked.contains(&scope) {
            call.check(action, &path).await?;
            checked.push(scope);
        }
    }
    Ok(checked)
}

/// PUT: 201, as in ARM, also for an existing role.
pub(crate) async fn put(provider: &Authorization, call: &Call, mode: Mode) -> Result<Response, ArmError> {
    let body = &call.request.body;
    let action = Action {
        checked: checked(provider, call, WRITE, Some(body)).await?,
        body: Some(body.clone()),
    };
    act(provider, call, &action, mode, StatusCode::CREATED).await
}

/// DELETE: 200 with the deleted role.
pub(crate) async fn delete(provider: &Authorization, call: &Call, mode: Mode) -> Result<Response, ArmError> {
    let action = Action {
        checked: checked(provider, call, DELETE, None).await?,
        body: None,
    };
    act(provider, call, &action, mode, StatusCode::OK).await
}

async fn act(
    provider: &Authorization,
    call: &Call,
    action: &Action,
    mode: Mode,
    status: StatusCode,
) -> Result<Response, ArmError> {
    let info = RequestInfo::of(&call.request);
    let written = write::<Definitions>(provider, &info, Mutation::Act(action), mode).await?;
    Ok(done(&written, &call.request, status))
}

/// The roles that can be assigned at a scope; or also those of scopes below.
async fn roles_at(store: &dyn Store, at: &ResourcePath, below: bool) -> Result<Vec<Value>, ArmError> {
    let (scope, prefix) = (Scope::of(at), before_roles(at.subscription.as_ref()));
    let (custom, _) = list_records::<RoleRecord>(store, ROLES)
        .await
        .map_err(store_error)?;
    let custom = custom
        .into_iter()
        .map(|(_, stored)| stored.value)
        .filter(|role| scopes(role).any(|own| own.contains(&scope) || below && scope.contains(&own)));
    let built_in = built_in_roles().iter().map(|role| answer_of(role, &prefix));
    Ok(built_in
        .chain(custom.map(|role| answer_of_custom(&role, &prefix)))
        .collect())
}

/// The roles at a scope; with `atScopeAndBelow()` also those that can be assigned only below.
pub(crate) async fn list(provider: &Authorization, request: &Request) -> Result<Items, ArmError> {
    let known = |term: &Term| match term {
        Term::Call(name) => name == "atscopeandbelow" || name == "atscope",
        Term::Is(name, _) => name == "rolename" || name == "type",
        _ => false,
    };
    let words = "atScopeAndBelow(), roleName eq '{name}' or type eq '{BuiltInRole or CustomRole}'";
    let terms = terms(request.query("$filter"), known, words)?;
    let below = terms
        .iter()
        .any(|term| matches!(term, Term::Call(name) if name == "atscopeandbelow"));
    let mut roles = roles_at(&*provider.store, &place(&request.path), below).await?;
    for term in &terms {
        if let Term::Is(name, value) = term {
            let property = if name == "type" { "type" } else { "roleName" };
            roles.retain(|role| {
                let own = role["properties"][property].as_str().unwrap_or_default();
                own.eq_ignore_ascii_case(value)
            });
        }
    }
    Ok(Items::ById(roles))
}
