//! `Landfall.ContainerService/managedClusters/credentials`: the issued credentials of a cluster, and their
//! revocation.
//!
//! | | |
//! |---|---|
//! | GET `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/credentials` | all of them, until they have ended |
//! | GET `…/credentials/{id}` | one |
//! | POST `…/credentials/{id}/revoke` | it stops working; answered once it has, or after five seconds, with its state |

use arm_ids::ResourcePath;
use arm_kernel::{
    Call, Context, Decision, Mode, Mutation, Operation, Presence, Purpose, RequestInfo, Resource,
    ResourceType, Verb, etag, quote, store_error, write,
};
use arm_wire::{ArmError, ErrorCode, Response};
use async_trait::async_trait;
use control_records::{
    ClusterRecord, ObservedRecord,
    credential::{CredentialRecord, Revoked},
    directory, key,
    ticket::TicketRecord,
};
use control_store::{Stored, Txn, get_record, list_records, put_record};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::api::{HISTORY_API_VERSIONS, HISTORY_NAMESPACE, HistoryApi};
use crate::{clusters::credentials::until_granted, records::ClusterPath};

type Row = Operation<HistoryApi>;

/// The type.
pub(super) const CREDENTIALS: ResourceType<HistoryApi> = ResourceType {
    path: "managedClusters/credentials",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::list::<Handed>("Credentials_List"),
        Row::get::<Handed>("Credentials_Get"),
        Row::write(
            Verb::Action("revoke"),
            "Credentials_Revoke",
            |api, call| Box::pin(api.revoke(call, Mode::Commit)),
            |api, call| Box::pin(api.revoke(call, Mode::Preview)),
        ),
    ],
};

/// The resource type of issued credentials.
enum Handed {}

/// The action that revokes one.
struct Revoke;

/// A cluster with its observed state.
pub(super) struct Of {
    pub(super) record: ClusterRecord,
    pub(super) observed: ObservedRecord,
}

struct State {
    of: Of,
    found: Option<Stored<CredentialRecord>>,
    now: Timestamp,
}

impl Of {
    /// The state of a credential.
    fn state(&self, credential: &CredentialRecord, now: Timestamp) -> &'static str {
        let works = self.observed.credentials.contains(&credential.id);
        let local = credential.ticket.is_none() && self.record.spec().disable_local_accounts;
        let off = credential.revoked.is_some() || local;
        match (credential.has_expired(now), off, works) {
            (true, ..) => "Expired",
            (false, true, true) => "Revoking",
            (false, true, false) => "Revoked",
            (false, false, true) => "Active",
            (false, false, false) => "Pending",
        }
    }

    fn answer(&self, credential: &CredentialRecord, now: Timestamp) -> Value {
        let cluster = &self.record;
        let id = arm_ids::resource_id(
            &cluster.subscription,
            &cluster.resource_group,
            HISTORY_NAMESPACE,
            &[
                ("managedClusters", cluster.name.as_str()),
                ("credentials", credential.id.as_str()),
            ],
        );
        let mut answer = json!({
            "id": id,
            "name": credential.id,
            "type": format!("{HISTORY_NAMESPACE}/managedClusters/credentials"),
            "cluster": cluster.name,
            "resourceGroup": cluster.resource_group,
            "kind": credential.kind,
            "state": self.state(credential, now),
            "caller": credential.asked_by_name,
            "callerId": credential.asked_by,
            "issuedAt": credential.issued_at.to_string(),
            "expiresAt": credential.expires_at.to_string(),
        });
        if let Some(namespace) = &credential.namespace {
            answer["namespace"] = json!(namespace);
        }
        if let Some(ticket) = &credential.ticket {
            answer["ticket"] = json!(ticket);
        }
        if let Some(address) = credential.address {
            answer["address"] = json!(address.to_string());
        }
        if let Some(revoked) = &credential.revoked {
            answer["revokedAt"] = json!(revoked.at.to_string());
            if let Some(by) = &revoked.by {
                answer["revokedBy"] = json!(by);
            }
        }
        answer
    }
}

impl HistoryApi {
    pub(super) async fn cluster(&self, at: ClusterPath<'_>) -> Result<Of, ArmError> {
        let store = &*self.store;
        let found = directory::cluster_named(store, at.subscription, at.group, at.cluster).await;
        let record = found.map_err(store_error)?.ok_or_else(|| at.not_found())?.value;
        let observed = get_record::<ObservedRecord>(store, &key::observed(&record.uid)).await;
        let observed = observed.map_err(store_error)?.map(|found| found.value);
        Ok(Of {
            record,
            observed: observed.unwrap_or_default(),
        })
    }

    async fn revoke(&self, call: &Call, mode: Mode) -> Result<Response, ArmError> {
        let info = RequestInfo::of(&call.request);
        let written = write::<Handed>(self, &info, Mutation::Act(&Revoke), mode).await?;
        let before = &written.state;
        if mode == Mode::Preview {
            let change = match &written.decision {
                Decision::Write(change) => Some(change),
                Decision::InProgress(_) | Decision::Unchanged => None,
            };
            let path = &call.request.path;
            return Ok(Response::ok(Handed::render(
                before,
                change,
                path,
                &call.request.api_version,
            )));
        }
        let cluster = &before.of.record;
        if let (Some(found), false) = (&before.found, cluster.spec().stopped) {
            // If the cluster does not answer in time, the state shows that.
            until_granted(&self.env, &*self.store, &cluster.uid, &found.value.id, false).await?;
        }
        arm_kernel::get::<Handed>(self, call).await
    }
}

#[async_trait]
impl Resource for Handed {
    type Provider = HistoryApi;
    type State = State;
    type Change = CredentialRecord;
    type Action = Revoke;

    async fn read(api: &HistoryApi, path: &ResourcePath, _: Purpose) -> Result<State, ArmError> {
        let at = ClusterPath::of(path)?;
        let of = api.cluster(at).await?;
        let own = CredentialRecord::key(&of.record.uid, at.child);
        Ok(State {
            found: get_record(&*api.store, &own).await.map_err(store_error)?,
            of,
            now: api.env.clock.now(),
        })
    }

    fn presence(state: &State, _: &ResourcePath) -> Presence {
        state.found.as_ref().map_or(Presence::Absent, |found| {
            let own = CredentialRecord::key(&state.of.record.uid, &found.value.id);
            Presence::Present(etag(&own, "", found.revision.0, found.value.issued_at))
        })
    }

    fn missing(state: &State, path: &ResourcePath) -> ArmError {
        ArmError::new(
            ErrorCode::RESOURCE_NOT_FOUND,
            format!(
                "The cluster {} has no credential {}, or it has ended; the list says which there are.",
                quote(&state.of.record.name),
                quote(path.name(1).unwrap_or_default())
            ),
        )
    }

    async fn list(api: &HistoryApi, path: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        let of = api.cluster(ClusterPath::of(path)?).await?;
        let prefix = CredentialRecord::all(&of.record.uid);
        let (found, _) = list_records::<CredentialRecord>(&*api.store, &prefix)
            .await
            .map_err(store_error)?;
        let now = api.env.clock.now();
        Ok(found
            .iter()
            .map(|(_, found)| of.answer(&found.value, now))
            .collect())
    }

    fn decide(
        context: &Context<'_, ()>,
        state: &State,
        mutation: Mutation<'_, Revoke>,
    ) -> Result<Decision<CredentialRecord>, ArmError> {
        let Mutation::Act(Revoke) = mutation else {
            let message = "Credentials are handed out by the cluster, and end by themselves or by 'revoke'.";
            return Err(ArmError::new(ErrorCode::METHOD_NOT_ALLOWED, message));
        };
        let Some(found) = &state.found else {
            return Err(Self::missing(state, context.info.path));
        };
        if !found.value.is_good(context.now) {
            return Ok(Decision::Unchanged);
        }
        Ok(Decision::Write(CredentialRecord {
            revoked: Some(Revoked {
                at: context.now,
                by: Some(context.info.principal.name.clone()),
            }),
            ..found.value.clone()
        }))
    }

    async fn transaction(
        api: &HistoryApi,
        info: &RequestInfo<'_>,
        state: &State,
        change: &CredentialRecord,
    ) -> Result<Txn, ArmError> {
        let Some(found) = &state.found else {
            return Err(Self::missing(state, info.path));
        };
        let uid = &state.of.record.uid;
        let own = CredentialRecord::key(uid, &change.id);
        let txn = Txn::default()
            .at(&own, found.revision)
            .with(put_record(own, change))
            .delete(CredentialRecord::certificate_key(uid, &change.id));
        let Some(ticket) = &change.ticket else {
            return Ok(txn);
        };
        // Its ticket tells of it when its record is gone.
        let of = TicketRecord::key(uid, ticket);
        let Some(ticket) = get_record::<TicketRecord>(&*api.store, &of)
            .await
            .map_err(store_error)?
        else {
            return Ok(txn);
        };
        let mut record = ticket.value;
        record.revoke(Some(&change.id), state.now);
        record.generation += 1;
        Ok(txn.at(&of, ticket.revision).with(put_record(of, &record)))
    }

    fn render(state: &State, change: Option<&CredentialRecord>, _: &ResourcePath, _: &str) -> Value {
        let found = state.found.as_ref().map(|found| &found.value);
        let shown = change.or(found);
        shown.map_or(Value::Null, |shown| state.of.answer(shown, state.now))
    }

    fn operation(_: &CredentialRecord) -> Option<&str> {
        None
    }
}
