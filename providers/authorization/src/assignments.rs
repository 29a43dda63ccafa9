//! Role assignments: a role of a principal at a scope.

use std::sync::OnceLock;

use arm_access::{Scope, built_in};
use arm_ids::ResourcePath;
use arm_kernel::{
    Call, Context, Decision, Items, Mode, Mutation, Presence, Purpose, RequestInfo, Resource, etag,
    odata::{Term, terms},
    quote, store_error, write,
};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use async_trait::async_trait;
use control_records::access::{
    ASSIGNMENTS, AssignmentNameRecord, AssignmentRecord, RoleRecord, Stamped, assigned, assignment_name_key,
    assignments_of, role_key,
};
use control_store::{Store, Stored, Txn, get_record, list_records, put_record};
use http::StatusCode;
use identity_directory::{self as directory, Without};
use serde_json::{Value, json};

use crate::{
    Authorization, NAMESPACE,
    authorizer::permissions_of,
    body::{Body, guid},
    place::{Held, before_roles, id_at, place},
    written::done,
};

/// The most assignments in a subscription, and outside all subscriptions.
const MAX_ASSIGNMENTS: usize = 4000;
const MAX_DESCRIPTION: usize = 1024;
/// The members of bodies; all but the first five are read-only or have no effect here.
const PROPERTIES: &[&str] = &[
    "roleDefinitionId",
    "principalId",
    "principalType",
    "description",
    "condition",
    "conditionVersion",
    "delegatedManagedIdentityResourceId",
    "scope",
    "createdOn",
    "updatedOn",
    "createdBy",
    "updatedBy",
];

/// Role assignments as the kernel sees them.
pub(crate) enum Assignments {}

/// An assignment, and the parents of its scope.
pub(crate) struct State {
    present: Option<Stored<AssignmentRecord>>,
    /// Whether it is at the requested scope.
    here: bool,
    held: Held,
    /// The type of a new assignment's principal, where the request does not name it: for the response.
    principal_type: OnceLock<String>,
}

/// The change to be written.
pub(crate) enum AssignmentChange {
    Make(AssignmentRecord),
    Describe(AssignmentRecord),
    Delete(AssignmentRecord),
}

/// There are no other actions.
pub(crate) enum Action {}

/// The assignment with a name.
async fn named(store: &dyn Store, name: &str) -> Result<Option<Stored<AssignmentRecord>>, ArmError> {
    if guid(name).is_none() {
        return Ok(None);
    }
    let index = get_record::<AssignmentNameRecord>(store, &assignment_name_key(name))
        .await
        .map_err(store_error)?;
    match index {
        Some(index) => get_record(store, &index.value.assignment)
            .await
            .map_err(store_error),
        None => Ok(None),
    }
}

/// The form in responses at a scope: role ids have the scope's subscription, so that clients find them in its
/// list.
fn answer(record: &AssignmentRecord, at: &ResourcePath) -> Value {
    let own = ResourcePath::parse(&record.scope).unwrap_or_default();
    let roles = before_roles(at.subscription.as_ref().or(own.subscription.as_ref()));
    json!({
        "id": id_at(&record.scope, "roleAssignments", &record.name),
        "name": record.name,
        "type": format!("{NAMESPACE}/roleAssignments"),
        "properties": {
            "roleDefinitionId": id_at(&roles, "roleDefinitions", &record.role),
            "principalId": record.principal,
            "principalType": record.principal_type,
            "scope": record.scope,
            "description": record.description,
            "condition": null,
            "conditionVersion": null,
            "delegatedManagedIdentityResourceId": null,
            "createdOn": record.stamped.created_on.to_string(),
            "updatedOn": record.stamped.updated_on.to_string(),
            "createdBy": record.stamped.created_by,
            "updatedBy": record.stamped.updated_by,
        },
    })
}

/// The contents of a body.
struct Wish {
    role: String,
    principal: String,
    principal_type: Option<String>,
    description: Option<String>,
}

fn wish(body: &Value) -> Result<Wish, ArmError> {
    let mut body = Body::of(body, PROPERTIES)?;
    for name in ["condition", "delegatedManagedIdentityResourceId"] {
        if body.value(name).is_some() {
            // Ignoring it would grant more than was requested.
            let message = format!("'{name}' is not supported yet in Landfall; leave it out.");
            body.problems.add(
                ErrorCode::PROPERTY_NOT_SUPPORTED,
                format!("properties.{name}"),
                message,
            );
        }
    }
    let role = body.required("roleDefinitionId", 2048);
    let role = match role_of(role) {
        Some(role) => role,
        None => {
            let message = format!(
                "'roleDefinitionId' has to be the id of a role, e.g. '/providers/{NAMESPACE}/roleDefinitions/{}'.",
                arm_access::OWNER
            );
            body.problems.add(
                ErrorCode::INVALID_PARAMETER,
                "properties.roleDefinitionId",
                message,
            );
            String::new()
        }
    };
    let principal = body.required("principalId", 64);
    let principal = guid(principal).unwrap_or_else(|| {
        let message = "'principalId' has to be an object id, a GUID.";
        body.problems
            .add(ErrorCode::INVALID_PARAMETER, "properties.principalId", message);
        String::new()
    });
    const TYPES: [&str; 5] = ["User", "Group", "ServicePrincipal", "ForeignGroup", "Device"];
    let principal_type = body.text("principalType", 64).and_then(|asked| {
        let known = TYPES.iter().find(|known| known.eq_ignore_ascii_case(asked));
        if known.is_none() {
            let message = format!("'principalType' has to be one of {}.", TYPES.join(", "));
            body.problems
                .add(ErrorCode::INVALID_PARAMETER, "properties.principalType", message);
        }
        known.map(|known| (*known).to_owned())
    });
    let description = body.text("description", MAX_DESCRIPTION).map(str::to_owned);
    body.problems.into_result()?;
    Ok(Wish {
        role,
        principal,
        principal_type,
        description,
    })
}

/// The role in the id of one.
fn role_of(id: &str) -> Option<String> {
    let path = ResourcePath::parse(id).ok()?;
    (path.namespace_is(NAMESPACE) && path.type_is("roleDefinitions"))
        .then(|| path.name(0).and_then(guid))
        .flatten()
}

#[async_trait]
impl Resource for Assignments {
    type Provider = Authorization;
    type State = State;
    type Change = AssignmentChange;
    type Action = Action;

    async fn read(
        provider: &Authorization,
        path: &ResourcePath,
        purpose: Purpose,
    ) -> Result<State, ArmError> {
        let store = &*provider.store;
        let at = place(path);
        let present = named(store, path.name(0).unwrap_or_default()).await?;
        let here = present
            .as_ref()
            .is_some_and(|present| present.value.at() == Scope::of(&at));
        let held = match purpose {
            // An assignment at a scope that is being deleted can still be deleted.
            Purpose::Decision if !here => Held::read(store, &at).await?,
            Purpose::Decision | Purpose::Answer => Held::default(),
        };
        Ok(State {
            present,
            here,
            held,
            principal_type: OnceLock::new(),
        })
    }

    fn presence(state: &State, _: &ResourcePath) -> Presence {
        match &state.present {
            Some(present) if state.here => {
                let record = &present.value;
                Presence::Present(etag(
                    &record.key(),
                    "",
                    present.revision.0,
                    record.stamped.updated_on,
                ))
            }
            _ => Presence::Absent,
        }
    }

    fn missing(_: &State, path: &ResourcePath) -> ArmError {
        let message = format!(
            "The role assignment {} is not found.",
            quote(path.name(0).unwrap_or_default())
        );
        ArmError::new(ErrorCode::ROLE_ASSIGNMENT_NOT_FOUND, message)
    }

    async fn list(provider: &Authorization, path: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        let place = place(path);
        let at = Scope::of(&place);
        let all = all(&*provider.store, ASSIGNMENTS).await?;
        let all = all.iter().filter(|one| at.is_related(&one.at()));
        Ok(all.map(|one| answer(one, &place)).collect())
    }

    fn decide(
        context: &Context<'_, String>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<AssignmentChange>, ArmError> {
        let present = state.present.as_ref().map(|present| &present.value);
        let body = match mutation {
            Mutation::Put(body) => body,
            Mutation::Delete => {
                return Ok(match present.filter(|_| state.here) {
                    Some(present) => Decision::Write(AssignmentChange::Delete(present.clone())),
                    None => Decision::Unchanged,
                });
            }
            Mutation::Act(action) => match *action {},
        };
        let path = context.info.path;
        let name = path.name(0).unwrap_or_default();
        let Some(name) = guid(name) else {
            let message = format!(
                "The name of a role assignment has to be a GUID, not {}.",
                quote(name)
            );
            return Err(ArmError::new(ErrorCode::INVALID_RESOURCE_NAME, message));
        };
        let wish = wish(body)?;
        let by = &context.info.principal.object_id;
        let Some(present) = present else {
            return Ok(Decision::Write(AssignmentChange::Make(AssignmentRecord {
                v: 1,
                name,
                principal: wish.principal,
                // Looked up where it is absent.
                principal_type: wish.principal_type.unwrap_or_default(),
                role: wish.role,
                scope: place(path).to_string(),
                description: wish.description,
                stamped: Stamped::now(None, by, context.now),
            })));
        };
        let same = state.here
            && present.principal == wish.principal
            && present.role == wish.role
            && wish
                .principal_type
                .as_ref()
                .is_none_or(|asked| *asked == present.principal_type);
        if !same {
            let message = "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.";
            return Err(ArmError::new(
                ErrorCode::ROLE_ASSIGNMENT_UPDATE_NOT_PERMITTED,
                message,
            ));
        }
        if present.description == wish.description {
            return Ok(Decision::Unchanged);
        }
        Ok(Decision::Write(AssignmentChange::Describe(AssignmentRecord {
            description: wish.description,
            stamped: Stamped::now(Some(&present.stamped), by, context.now),
            ..present.clone()
        })))
    }

    async fn transaction(
        provider: &Authorization,
        _: &RequestInfo<'_>,
        state: &State,
        change: &AssignmentChange,
    ) -> Result<Txn, ArmError> {
        let store = &*provider.store;
        match (change, &state.present) {
            (AssignmentChange::Make(record), _) => make(provider, record, state).await,
            (AssignmentChange::Describe(record), Some(present)) => {
                let key = record.key();
                Ok(Txn::default()
                    .at(&key, present.revision)
                    .with(put_record(key, record)))
            }
            (AssignmentChange::Delete(record), Some(present)) => {
                let txn = keeps_an_admin(store, record)
                    .await?
                    .at(record.key(), present.revision);
                Ok(record.removal().into_iter().fold(txn, Txn::with))
            }
            (_, None) => Err(ArmError::internal("an assignment that does not exist is changed")),
        }
    }

    fn render(state: &State, change: Option<&AssignmentChange>, path: &ResourcePath, _: &str) -> Value {
        let at = place(path);
        match change {
            Some(AssignmentChange::Make(record)) => match state.principal_type.get() {
                Some(principal_type) => answer(&typed(record, principal_type), &at),
                None => answer(record, &at),
            },
            Some(AssignmentChange::Describe(record) | AssignmentChange::Delete(record)) => {
                answer(record, &at)
            }
            None => state
                .present
                .as_ref()
                .map_or(Value::Null, |present| answer(&present.value, &at)),
        }
    }

    fn operation(_: &AssignmentChange) -> Option<&str> {
        None
    }
}

/// The same, with this type of the principal.
fn typed(record: &AssignmentRecord, principal_type: &str) -> AssignmentRecord {
    AssignmentRecord {
        principal_type: principal_type.to_owned(),
        ..record.clone()
    }
}

/// A new assignment: checks that its role and principal exist, and that it is not a duplicate.
async fn make(provider: &Authorization, record: &AssignmentRecord, state: &State) -> Result<Txn, ArmError> {
    let store = &*provider.store;
    let scope = record.at();
    let mut txn = state.held.txn();
    if built_in(&record.role).is_none() {
        let key = role_key(&record.role);
        let role = get_record::<RoleRecord>(store, &key).await.map_err(store_error)?;
        let role = role.filter(|role| {
            let mut scopes = role.value.assignable_scopes.iter();
            scopes.any(|one| Scope::parse(one).is_ok_and(|one| one.contains(&scope)))
        });
        let Some(role) = role else {
            let message = format!(
                "The specified role definition with ID '{}' does not exist, or cannot be assigned at this scope.",
                record.role
            );
            return Err(ArmError::new(ErrorCode::ROLE_DEFINITION_DOES_NOT_EXIST, message));
        };
        // Written unchanged, so that a concurrent deletion of the role conflicts and looks for its
        // assignments again.
        txn = txn.at(&key, role.revision).with(put_record(key, &role.value));
    }
    let principal_type = principal_type(provider, record).await?;
    let others = list_keys(store, ASSIGNMENTS).await?;
    if others.iter().any(|key| *key == record.key()) {
        let message = "The role assignment already exists.";
        return Err(ArmError::new(ErrorCode::ROLE_ASSIGNMENT_EXISTS, message));
    }
    let root = |scope: &Scope| ResourcePath::parse(&scope.to_string()).ok()?.subscription;
    let own = root(&scope);
    let count = others
        .iter()
        .filter_map(|key| assigned(key))
        .filter(|one| root(&one.scope) == own)
        .count();
    if count >= MAX_ASSIGNMENTS {
        let message = format!("No more role assignments can be created: at most {MAX_ASSIGNMENTS} are kept.");
        return Err(ArmError::new(ErrorCode::ROLE_ASSIGNMENT_LIMIT, message));
    }
    let principal_type = state.principal_type.get_or_init(|| principal_type);
    Ok(typed(record, principal_type).make(txn))
}

/// The type of the principal: from its record, or, for one that is not yet known, from the request.
async fn principal_type(provider: &Authorization, record: &AssignmentRecord) -> Result<String, ArmError> {
    let id = &record.principal;
    let store = &*provider.store;
    let found = directory::principal(store, id).await.map_err(store_error)?;
    let asked = record.principal_type.as_str();
    let own = match found.as_ref().map(|found| found.value.kind.as_str()) {
        Some("User") => "User",
        Some(_) => "ServicePrincipal",
        None if directory::group(store, id).await.map_err(store_error)?.is_some() => "Group",
        None if asked.is_empty() || asked == "User" => {
            let message = format!(
                "Principal {} does not exist in the directory {}. Check that you have the correct principal ID.",
                id.replace('-', ""),
                provider.tenant
            );
            return Err(ArmError::new(ErrorCode::PRINCIPAL_NOT_FOUND, message));
        }
        None => asked,
    };
    if !asked.is_empty() && asked != own {
        let message = format!(
            "The PrincipalId '{id}' has type '{own}', which is different from specified PrincipalType '{asked}'."
        );
        return Err(ArmError::new(ErrorCode::UNMATCHED_PRINCIPAL_TYPE, message));
    }
    Ok(own.to_owned())
}

/// Another administrator of the whole stamp has to exist, and to stay until this assignment is deleted.
async fn keeps_an_admin(store: &dyn Store, gone: &AssignmentRecord) -> Result<Txn, ArmError> {
    let gives = permissions_of(store, &gone.role).await?;
    if gone.at() != Scope::root() || !gives.iter().any(|one| one.permits(directory::GIVES_RIGHTS)) {
        return Ok(Txn::default());
    }
    let left = directory::admin_left(store, Without::Assignment(&gone.key()))
        .await
        .map_err(store_error)?;
    left.ok_or_else(|| {
        ArmError::new(
            ErrorCode::LAST_ADMIN_ASSIGNMENT,
            "Cannot delete the last RBAC admin assignment.",
        )
    })
}

async fn list_keys(store: &dyn Store, prefix: &str) -> Result<Vec<String>, ArmError> {
    let (found, _) = store.list(prefix).await.map_err(store_error)?;
    Ok(found.into_iter().map(|(key, _)| key).collect())
}

async fn all(store: &dyn Store, prefix: &str) -> Result<Vec<AssignmentRecord>, ArmError> {
    let (found, _) = list_records::<AssignmentRecord>(store, prefix)
        .await
        .map_err(store_error)?;
    Ok(found.into_iter().map(|(_, found)| found.value).collect())
}

/// The assignments at a scope, above and below; with `atScope()` without those below.
pub(crate) async fn list(provider: &Authorization, request: &Request) -> Result<Items, ArmError> {
    let known = |term: &Term| match term {
        Term::Call(name) => name == "atscope",
        Term::CallOf(name, _) => name == "assignedto",
        Term::Is(name, _) => name == "principalid",
        _ => false,
    };
    let words = "atScope(), principalId eq '{id}' or assignedTo('{id}')";
    let mut at_scope = false;
    // For each term: the principals whose assignments match it.
    let mut of: Vec<Vec<String>> = Vec::new();
    for term in terms(request.query("$filter"), known, words)? {
        match term {
            Term::Call(_) => at_scope = true,
            Term::Is(_, id) => of.push(vec![id.to_ascii_lowercase()]),
            Term::CallOf(_, id) => {
                // A group's assignments also apply to its members.
                let mut all = directory::groups_of(&*provider.store, &id)
                    .await
                    .map_err(store_error)?;
                all.push(id.to_ascii_lowercase());
                of.push(all);
            }
            _ => {}
        }
    }
    let place = place(&request.path);
    let at = Scope::of(&place);
    let mut found = Vec::new();
    match of.first() {
        Some(ids) if ids.iter().all(|id| guid(id).is_some()) => {
            for id in ids {
                found.extend(all(&*provider.store, &assignments_of(id)).await?);
            }
        }
        _ => found = all(&*provider.store, ASSIGNMENTS).await?,
    }
    let found = found.into_iter().filter(|one| {
        of.iter().all(|ids| ids.contains(&one.principal))
            && if at_scope {
                one.at().contains(&at)
            } else {
                at.is_related(&one.at())
            }
    });
    Ok(Items::ById(found.map(|one| answer(&one, &place)).collect()))
}

/// DELETE: 200 with the deleted assignment.
pub(crate) async fn delete(provider: &Authorization, call: &Call, mode: Mode) -> Result<Response, ArmError> {
    let request = &call.request;
    let info = RequestInfo::of(request);
    let written = write::<Assignments>(provider, &info, Mutation::Delete, mode).await?;
    Ok(done(&written, request, StatusCode::OK))
}

/// How many assignments have a role.
pub(crate) async fn count_of_role(store: &dyn Store, role: &str) -> Result<usize, ArmError> {
    let keys = list_keys(store, ASSIGNMENTS).await?;
    let of = keys.iter().filter_map(|key| assigned(key));
    Ok(of.filter(|one| one.role == role).count())
}
