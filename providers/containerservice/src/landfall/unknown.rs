//! `Landfall.ContainerService/unknown`: machines, networks, volumes and backups without a record in the
//! store, because the store is new, older than they are, or damaged. They are kept until an administrator
//! releases them.
//!
//! | | |
//! |---|---|
//! | GET `{SUB}/providers/Landfall.ContainerService/unknown` | all of it |
//! | GET `…/unknown/{kind}.{id}` | one, `machine.k3v1q09a2b` |
//! | DELETE `…/unknown/{kind}.{id}` | it may go: a machine with its disk, a network or a volume within minutes; a backup as that of a deleted cluster, seven days after its newest change |

use arm_ids::ResourcePath;
use arm_kernel::{
    Context, Decision, Mutation, Operation, Presence, Purpose, RequestInfo, Resource, ResourceType, Scope,
    etag, quote, store_error,
};
use arm_wire::{ArmError, ErrorCode};
use async_trait::async_trait;
use control_records::unknown::{self, Kind, UnknownRecord};
use control_store::{Op, Stored, Txn, get_record};
use serde_json::{Value, json};

use super::api::{HISTORY_API_VERSIONS, HistoryApi};

type Row = Operation<HistoryApi>;

/// The type.
pub(super) const UNKNOWN: ResourceType<HistoryApi> = ResourceType {
    path: "unknown",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::list::<Unknown>("Unknown_List").at(Scope::Subscription),
        Row::get::<Unknown>("Unknown_Get").at(Scope::Subscription),
        Row::delete::<Unknown>("Unknown_Delete").at(Scope::Subscription),
    ],
};

fn answer(record: &UnknownRecord) -> Value {
    json!({
        "id": record.id,
        "name": format!("{}.{}", record.kind, record.id),
        "kind": record.kind,
        "labels": record.labels,
        "since": record.since.to_string(),
    })
}

/// The resource type of unknown items.
enum Unknown {}

/// Its only change is its release.
enum Action {}

/// The key of a name `{kind}.{id}`.
fn key_of(path: &ResourcePath) -> Option<String> {
    let (kind, id) = path.name(0)?.split_once('.')?;
    Some(unknown::unknown_key(kind.parse::<Kind>().ok()?, id))
}

#[async_trait]
impl Resource for Unknown {
    type Provider = HistoryApi;
    type State = Option<Stored<UnknownRecord>>;
    /// The record that releases it.
    type Change = Op;
    type Action = Action;

    async fn read(api: &HistoryApi, path: &ResourcePath, _: Purpose) -> Result<Self::State, ArmError> {
        match key_of(path) {
            Some(key) => get_record(&*api.store, &key).await.map_err(store_error),
            None => Ok(None),
        }
    }

    fn presence(state: &Self::State, path: &ResourcePath) -> Presence {
        let found = state.as_ref().zip(key_of(path));
        found.map_or(Presence::Absent, |(found, key)| {
            Presence::Present(etag(&key, "", found.revision.0, found.value.since))
        })
    }

    fn missing(_: &Self::State, path: &ResourcePath) -> ArmError {
        ArmError::new(
            ErrorCode::RESOURCE_NOT_FOUND,
            format!(
                "Nothing unknown is called {}; the list says what there is, e.g. machine.k3v1q09a2b.",
                quote(path.name(0).unwrap_or_default())
            ),
        )
    }

    async fn list(api: &HistoryApi, _: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        let all = unknown::list(&*api.store).await.map_err(store_error)?;
        Ok(all.iter().map(answer).collect())
    }

    fn decide(
        context: &Context<'_, ()>,
        state: &Self::State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<Op>, ArmError> {
        match mutation {
            Mutation::Delete => {
                let Some(found) = state else {
                    return Err(Self::missing(state, context.info.path));
                };
                let removed = unknown::removed(found.value.kind, &found.value.id, context.now);
                Ok(Decision::Write(removed))
            }
            Mutation::Put(_) => {
                let message = "What is unknown is found, not made.";
                Err(ArmError::new(ErrorCode::METHOD_NOT_ALLOWED, message))
            }
            Mutation::Act(action) => match *action {},
        }
    }

    async fn transaction(
        _: &HistoryApi,
        info: &RequestInfo<'_>,
        state: &Self::State,
        change: &Op,
    ) -> Result<Txn, ArmError> {
        let (Some(found), Some(key)) = (state, key_of(info.path)) else {
            return Err(Self::missing(state, info.path));
        };
        let txn = Txn::default().at(&key, found.revision).delete(&key);
        Ok(txn.with(change.clone()))
    }

    fn render(state: &Self::State, _: Option<&Op>, _: &ResourcePath, _: &str) -> Value {
        state.as_ref().map_or(Value::Null, |found| answer(&found.value))
    }

    fn operation(_: &Op) -> Option<&str> {
        None
    }
}
