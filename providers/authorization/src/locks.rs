//! Locks: they forbid actions at a scope, whatever the caller's roles.

use arm_access::Scope;
use arm_ids::ResourcePath;
use arm_kernel::{
    Context, Decision, Items, Mutation, Presence, Purpose, RequestInfo, Resource, etag,
    odata::{Term, terms},
    quote, store_error,
};
use arm_wire::{ArmError, ErrorCode, Request};
use async_trait::async_trait;
use control_records::access::{LOCKS, LockLevel, LockRecord, lock_key};
use control_store::{Store, Stored, Txn, get_record, list_records, put_record};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    Authorization, NAMESPACE,
    body::Body,
    place::{Held, id_at, place},
};

const PROPERTIES: &[&str] = &["level", "notes", "owners"];
const MAX_NAME: usize = 260;
const MAX_NOTES: usize = 512;
const MAX_OWNERS: usize = 20;
/// The most locks of a stamp: each change checks all of them.
const MAX_LOCKS: usize = 2000;

/// Locks as the kernel sees them.
pub(crate) enum Locks {}

/// A lock, and the parents of its scope.
pub(crate) struct State {
    present: Option<Stored<LockRecord>>,
    held: Held,
}

/// The change to be written.
pub(crate) enum LockChange {
    Put(LockRecord),
    Delete(String),
}

/// There are no other actions.
pub(crate) enum Action {}

fn answer(record: &LockRecord) -> Value {
    let mut properties = json!({ "level": record.level.as_str() });
    if let Some(notes) = &record.notes {
        properties["notes"] = json!(notes);
    }
    if !record.owners.is_empty() {
        let owners = record.owners.iter().map(|id| json!({ "applicationId": id }));
        properties["owners"] = owners.collect();
    }
    json!({
        "id": id_at(&record.scope, "locks", &record.name),
        "name": record.name,
        "type": format!("{NAMESPACE}/locks"),
        "properties": properties,
    })
}

#[async_trait]
impl Resource for Locks {
    type Provider = Authorization;
    type State = State;
    type Change = LockChange;
    type Action = Action;

    async fn read(
        provider: &Authorization,
        path: &ResourcePath,
        purpose: Purpose,
    ) -> Result<State, ArmError> {
        let store = &*provider.store;
        let at = place(path);
        let key = lock_key(&Scope::of(&at), path.name(0).unwrap_or_default());
        let present = get_record(store, &key).await.map_err(store_error)?;
        let held = match purpose {
            Purpose::Decision if present.is_none() => Held::read(store, &at).await?,
            Purpose::Decision | Purpose::Answer => Held::default(),
        };
        Ok(State { present, held })
    }

    fn presence(state: &State, _: &ResourcePath) -> Presence {
        state.present.as_ref().map_or(Presence::Absent, |present| {
            let key = present.value.key();
            Presence::Present(etag(&key, "", present.revision.0, Timestamp::UNIX_EPOCH))
        })
    }

    fn missing(_: &State, path: &ResourcePath) -> ArmError {
        let message = format!(
            "The lock {} could not be found.",
            quote(path.name(0).unwrap_or_default())
        );
        ArmError::new(ErrorCode::LOCK_NOT_FOUND, message)
    }

    async fn list(provider: &Authorization, path: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        let at = Scope::of(&place(path));
        locks(&*provider.store, |scope| at.contains(scope)).await
    }

    fn decide(
        context: &Context<'_, String>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<LockChange>, ArmError> {
        let body = match mutation {
            Mutation::Put(body) => body,
            Mutation::Delete => {
                return Ok(state.present.as_ref().map_or(Decision::Unchanged, |present| {
                    Decision::Write(LockChange::Delete(present.value.key()))
                }));
            }
            Mutation::Act(action) => match *action {},
        };
        let path = context.info.path;
        let name = path.name(0).unwrap_or_default();
        if name.chars().count() > MAX_NAME || name.chars().any(|char| "<>%&:\\?/".contains(char)) {
            let message = format!(
                "A lock cannot be called {}: <>%&:\\?/ are not allowed.",
                quote(name)
            );
            return Err(ArmError::new(ErrorCode::INVALID_RESOURCE_NAME, message));
        }
        let mut body = Body::of(body, PROPERTIES)?;
        let level = match body.required("level", 64).to_ascii_lowercase().as_str() {
            "cannotdelete" => Some(LockLevel::CanNotDelete),
            "readonly" => Some(LockLevel::ReadOnly),
            _ => {
                let message = "'level' has to be 'CanNotDelete' or 'ReadOnly'.";
                body.problems
                    .add(ErrorCode::INVALID_PARAMETER, "properties.level", message);
                None
            }
        };
        let notes = body.text("notes", MAX_NOTES).map(str::to_owned);
        let given = body.value("owners").and_then(Value::as_array);
        let owners: Vec<String> = given
            .into_iter()
            .flatten()
            .filter_map(|owner| owner["applicationId"].as_str())
            .map(str::to_owned)
            .collect();
        if body.value("owners").is_some()
            && (given.is_none_or(|given| given.len() != owners.len())
                || owners.len() > MAX_OWNERS
                || owners.iter().any(|owner| owner.len() > 64))
        {
            let message =
                format!("'owners' has to be a list of at most {MAX_OWNERS} objects with 'applicationId'.");
            body.problems
                .add(ErrorCode::INVALID_PARAMETER, "properties.owners", message);
        }
        body.problems.into_result()?;
        let Some(level) = level else {
            return Err(ArmError::internal("a lock without a level"));
        };
        let record = LockRecord {
            v: 1,
            name: name.to_owned(),
            scope: place(path).to_string(),
            level,
            notes,
            owners,
        };
        if state
            .present
            .as_ref()
            .is_some_and(|present| present.value == record)
        {
            return Ok(Decision::Unchanged);
        }
        Ok(Decision::Write(LockChange::Put(record)))
    }

    async fn transaction(
        provider: &Authorization,
        _: &RequestInfo<'_>,
        state: &State,
        change: &LockChange,
    ) -> Result<Txn, ArmError> {
        let txn = state.held.txn();
        Ok(match change {
            LockChange::Put(record) => {
                let key = record.key();
                let txn = match &state.present {
                    Some(present) => txn.at(&key, present.revision),
                    None => {
                        let (all, _) = provider.store.list(LOCKS).await.map_err(store_error)?;
                        if all.len() >= MAX_LOCKS {
                            let message =
                                format!("At most {MAX_LOCKS} locks are kept; delete one that is not needed.");
                            return Err(ArmError::new(ErrorCode::QUOTA_EXCEEDED, message));
                        }
                        txn.absent(&key)
                    }
                };
                txn.with(put_record(key, record))
            }
            LockChange::Delete(key) => match &state.present {
                Some(present) => txn.at(key, present.revision).delete(key),
                None => txn.delete(key),
            },
        })
    }

    fn render(state: &State, change: Option<&LockChange>, _: &ResourcePath, _: &str) -> Value {
        match (change, &state.present) {
            (Some(LockChange::Put(record)), _) => answer(record),
            (_, Some(present)) => answer(&present.value),
            (_, None) => Value::Null,
        }
    }

    fn operation(_: &LockChange) -> Option<&str> {
        None
    }
}

async fn locks(store: &dyn Store, at: impl Fn(&Scope) -> bool) -> Result<Vec<Value>, ArmError> {
    let (all, _) = list_records::<LockRecord>(store, LOCKS)
        .await
        .map_err(store_error)?;
    let all = all.iter().map(|(_, found)| &found.value);
    let here = all.filter(|lock| Scope::parse(&lock.scope).is_ok_and(|scope| at(&scope)));
    Ok(here.map(answer).collect())
}

/// The locks at a scope and below; with `atScope()` those in effect at it: its own and those above.
pub(crate) async fn list(provider: &Authorization, request: &Request) -> Result<Items, ArmError> {
    let known = |term: &Term| matches!(term, Term::Call(name) if name == "atscope");
    let at_scope = !terms(request.query("$filter"), known, "atScope()")?.is_empty();
    let at = Scope::of(&place(&request.path));
    let found = locks(&*provider.store, |scope| {
        if at_scope {
            scope.contains(&at)
        } else {
            at.contains(scope)
        }
    });
    Ok(Items::ById(found.await?))
}
