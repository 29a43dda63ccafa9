//! The rows of tenants' disks and snapshots.

use arm_ids::ResourcePath;
use arm_kernel::{
    Call, Decision, FIELDS, Gate, Members, Mode, Mutation, Operation, Purpose, RequestInfo, Resource,
    ResourceType, Scope,
    Verb::{Action, Patch, Put},
    Written, patch_tags, store_error, tags_at, write,
};
use arm_wire::{ArmError, Response};
use control_records::disk::{self, DiskRecord};
use control_store::get_record;
use http::StatusCode;
use serde_json::Value;

use super::{Change, Disks, Kind, Own, Snapshots, State, decide, delete_all, listed};
use crate::{
    compute::{Compute, NAMESPACE, VERSIONS, summary},
    tenants::At,
};

type Row = Operation<Compute>;
type Type = ResourceType<Compute>;

/// PUT. What is copied has to be the caller's to read.
async fn put<K: Kind>(provider: &Compute, call: &Call, mode: Mode) -> Result<Response, ArmError> {
    let request = &call.request;
    let source = request.body.pointer(decide::SOURCE).and_then(Value::as_str);
    let source = source.and_then(|id| ResourcePath::parse(id).ok());
    if let Some(source) = source {
        let at = At::of(&request.path);
        let own = disk::key(K::SNAPSHOT, at.subscription, at.group, at.name);
        let found = get_record::<DiskRecord>(&*provider.stamp.store, &own).await;
        // Clients send back what they read.
        if found.map_err(store_error)?.is_none() {
            let action = format!("{NAMESPACE}/{}/beginGetAccess/action", source.type_path());
            let own = format!("{NAMESPACE}/{}/write", K::TYPE);
            call.check_linked(&own, &action, &[source]).await?;
        }
    }
    wanted::<K>(provider, call, &request.body, mode).await
}

/// PATCH: of tags alone, or of what is there with the members of the body.
async fn patch<K: Kind>(provider: &Compute, call: &Call, mode: Mode) -> Result<Response, ArmError> {
    let request = &call.request;
    let members = request.body.as_object();
    let other = members.is_some_and(|members| {
        let mut members = members.iter();
        members.any(|(name, value)| name != "tags" && !value.is_null())
    });
    if !other {
        return patch_tags::<Own<K>>(provider, call, mode).await;
    }
    let state = Own::<K>::read(provider, &request.path, Purpose::Answer).await?;
    state.refuse_view()?;
    let Some(present) = state.record() else {
        return Err(Own::<K>::missing(&state, &request.path));
    };
    let mut body = decide::as_body(present);
    decide::merge(&mut body, &request.body);
    wanted::<K>(provider, call, &body, mode).await
}

/// Decides and writes. 202 while its volume is to be made or made larger: clients ask for the resource until it says that this is done.
async fn wanted<K: Kind>(
    provider: &Compute,
    call: &Call,
    body: &Value,
    mode: Mode,
) -> Result<Response, ArmError> {
    let request = &call.request;
    let info = RequestInfo::of(request);
    let written = write::<Own<K>>(provider, &info, Mutation::Put(body), mode).await?;
    let Written { state, decision } = &written;
    let change = match decision {
        Decision::Write(change) => Some(change),
        Decision::InProgress(_) | Decision::Unchanged => None,
    };
    let shown = Own::<K>::render(state, change, &request.path, &request.api_version);
    Ok(Response::with(status(state, change), shown))
}

fn status(state: &State, change: Option<&Change>) -> StatusCode {
    let record = match change {
        Some(Change::Put(record)) => Some(&**record),
        Some(Change::Delete) | None => state.record(),
    };
    match record {
        Some(record) if !record.is_settled() => StatusCode::ACCEPTED,
        _ => StatusCode::OK,
    }
}

const fn put_row<K: Kind>(name: &'static str) -> Row {
    Row::write(
        Put,
        name,
        |provider, call| Box::pin(put::<K>(provider, call, Mode::Commit)),
        |provider, call| Box::pin(put::<K>(provider, call, Mode::Preview)),
    )
}

const fn patch_row<K: Kind>(name: &'static str) -> Row {
    let mut row = Row::write(
        Patch,
        name,
        |provider, call| Box::pin(patch::<K>(provider, call, Mode::Commit)),
        |provider, call| Box::pin(patch::<K>(provider, call, Mode::Preview)),
    );
    row.tags = Some(|provider, call, wish, mode| Box::pin(tags_at::<Own<K>>(provider, call, wish, mode)));
    row
}

/// Their lines in lists of resources.
async fn summaries<K: Kind>(
    provider: &Compute,
    subscription: &str,
    group: Option<&str>,
) -> Result<Vec<Value>, ArmError> {
    let all = listed::<K>(provider, subscription, group).await?;
    Ok(all.into_iter().map(summary).collect())
}

const fn members<K: Kind>() -> Option<Members<Compute>> {
    Some(Members {
        list: |provider, subscription, group| Box::pin(summaries::<K>(provider, subscription, group)),
        delete: |provider, subscription, group| Box::pin(delete_all::<K>(provider, subscription, group)),
    })
}

pub(in crate::compute) const OF_DISKS: Type = ResourceType {
    path: Disks::TYPE,
    versions: VERSIONS,
    schema: Some(Disks::SCHEMA),
    members: members::<Disks>(),
    operations: &[
        Row::get::<Own<Disks>>("Disks_Get"),
        put_row::<Disks>("Disks_CreateOrUpdate"),
        patch_row::<Disks>("Disks_Update"),
        Row::delete::<Own<Disks>>("Disks_Delete"),
        Row::list::<Own<Disks>>("Disks_ListByResourceGroup")
            .filter(FIELDS)
            .gate(Gate::Items),
        Row::list::<Own<Disks>>("Disks_List")
            .filter(FIELDS)
            .gate(Gate::Items)
            .at(Scope::Subscription),
        Row::not_yet(Action("beginGetAccess"), "Disks_GrantAccess"),
        Row::not_yet(Action("endGetAccess"), "Disks_RevokeAccess"),
    ],
};

pub(in crate::compute) const OF_SNAPSHOTS: Type = ResourceType {
    path: Snapshots::TYPE,
    versions: VERSIONS,
    schema: Some(Snapshots::SCHEMA),
    members: members::<Snapshots>(),
    operations: &[
        Row::get::<Own<Snapshots>>("Snapshots_Get"),
        put_row::<Snapshots>("Snapshots_CreateOrUpdate"),
        patch_row::<Snapshots>("Snapshots_Update"),
        Row::delete::<Own<Snapshots>>("Snapshots_Delete"),
        Row::list::<Own<Snapshots>>("Snapshots_ListByResourceGroup")
            .filter(FIELDS)
            .gate(Gate::Items),
        Row::list::<Own<Snapshots>>("Snapshots_List")
            .filter(FIELDS)
            .gate(Gate::Items)
            .at(Scope::Subscription),
        Row::not_yet(Action("beginGetAccess"), "Snapshots_GrantAccess"),
        Row::not_yet(Action("endGetAccess"), "Snapshots_RevokeAccess"),
    ],
};
