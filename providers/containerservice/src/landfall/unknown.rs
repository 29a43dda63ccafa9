//! `Landfall.ContainerService/unknown`: what exists and is in no record of the store, because that is new, older than what it
//! describes, or damaged. It is kept until a person says that it may go.
//!
//! | | |
//! |---|---|
//! | GET `{SUB}/providers/Landfall.ContainerService/unknown` | all of it |
//! | GET `…/unknown/{kind}.{id}` | one, `machine.k3v1q09a2b` |
//! | DELETE `…/unknown/{kind}.{id}` | it may go: a machine with its disk or a network within minutes; a backup as that of a deleted cluster, seven days after its newest change |

use arm_kernel::{Operation, ResourceType, Scope, Verb, quote, store_error};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use control_records::unknown::{self, Kind, UnknownRecord};
use control_store::{Stored, Txn, get_record};
use http::StatusCode;
use serde_json::{Value, json};

use super::history::{HISTORY_API_VERSIONS, HistoryApi};

type Row = Operation<HistoryApi>;

/// The type.
pub(super) const UNKNOWN: ResourceType<HistoryApi> = ResourceType {
    path: "unknown",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::run(Verb::List, "Unknown_List", |api, _| Box::pin(api.list_unknown())).at(Scope::Subscription),
        Row::run(Verb::Get, "Unknown_Get", |api, call| {
            Box::pin(api.get_unknown(&call.request))
        })
        .at(Scope::Subscription),
        Row::run(Verb::Delete, "Unknown_Delete", |api, call| {
            Box::pin(api.delete_unknown(&call.request))
        })
        .at(Scope::Subscription),
    ],
};

fn answer(record: &UnknownRecord) -> Value {
    json!({
        "name": format!("{}.{}", record.kind, record.id),
        "kind": record.kind,
        "id": record.id,
        "labels": record.labels,
        "since": record.since.to_string(),
    })
}

impl HistoryApi {
    async fn list_unknown(&self) -> Result<Response, ArmError> {
        let all = unknown::list(&*self.store).await.map_err(store_error)?;
        let value: Vec<Value> = all.iter().map(answer).collect();
        Ok(Response::ok(json!({ "value": value })))
    }

    async fn unknown(&self, request: &Request) -> Result<(String, Stored<UnknownRecord>), ArmError> {
        let name = request.path.name(0).unwrap_or_default();
        let key = name
            .split_once('.')
            .and_then(|(kind, id)| Some(unknown::unknown_key(kind.parse::<Kind>().ok()?, id)));
        if let Some(key) = key
            && let Some(found) = get_record::<UnknownRecord>(&*self.store, &key)
                .await
                .map_err(store_error)?
        {
            return Ok((key, found));
        }
        Err(ArmError::new(
            ErrorCode::RESOURCE_NOT_FOUND,
            format!(
                "Nothing unknown is called {}; the list says what there is, e.g. machine.k3v1q09a2b.",
                quote(name)
            ),
        ))
    }

    async fn get_unknown(&self, request: &Request) -> Result<Response, ArmError> {
        let (_, found) = self.unknown(request).await?;
        Ok(Response::ok(answer(&found.value)))
    }

    async fn delete_unknown(&self, request: &Request) -> Result<Response, ArmError> {
        let (key, found) = self.unknown(request).await?;
        let record = &found.value;
        let txn = Txn::default()
            .at(&key, found.revision)
            .delete(&key)
            .with(unknown::removed(record.kind, &record.id, self.env.clock.now()));
        self.store.txn(txn).await.map_err(store_error)?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }
}
