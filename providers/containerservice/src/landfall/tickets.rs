//! `Landfall.ContainerService/managedClusters/supportTickets`: whether support may look into a cluster, by whose consent and until when.
//!
//! | | |
//! |---|---|
//! | GET `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/supportTickets` | all of them, also closed ones |
//! | GET `…/supportTickets/{ticket}` | one, with the credentials that were handed out under it |
//! | PUT `…/supportTickets/{ticket}` `{"properties": {"title": "…", "severity": "moderate"}}` | opens one, or changes what it says |
//! | POST `…/supportTickets/{ticket}/consent` `{"hours": 4}` | support may look into the cluster for so long, 24 hours at most |
//! | POST `…/supportTickets/{ticket}/revoke` | it may not any more; what was handed out stops working |
//! | POST `…/supportTickets/{ticket}/close` | the same for good; the ticket is kept |
//! | GET `…/supportTickets/{ticket}/accessRecord` | every request that was made with what was handed out; [`super::access_record`] |
//!
//! Nobody gets a credential here: the stamp's operator does, at the service's own socket, under a ticket with consent.
//!
//! Always true: whatever changes or ends a consent takes back in its transaction all that was handed out ([`TicketRecord`]).

use arm_ids::ResourcePath;
use arm_kernel::{
    Call, Context, Decision, Mode, Mutation, Operation, Presence, Purpose, RequestInfo, Resource,
    ResourceType, Verb, etag, quote, store_error, write,
};
use arm_wire::{ArmError, ErrorCode, Response};
use async_trait::async_trait;
use control_records::{
    credential::{CredentialRecord, Revoked},
    directory, key,
    ticket::{Act, Consent, LONGEST_CONSENT, Severity, TicketRecord},
};
use control_store::{Revision, Stored, Txn, get_record, list_records, put_record};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    api::{HISTORY_API_VERSIONS, HISTORY_NAMESPACE, HistoryApi},
    credentials::Of,
};
use crate::{clusters::credentials::until, records::ClusterPath};

type Row = Operation<HistoryApi>;

/// The last segment of the type.
const KIND: &str = "supportTickets";
/// Tickets of a cluster that are open at a time.
const MOST_OPEN: usize = 20;
/// Tickets of a cluster that are kept; beyond, the one that was closed first makes room for a new one.
const KEPT: usize = 200;
/// Longer titles are refused: a record is no log.
const MOST_TITLE: usize = 200;
/// Longer names are refused.
const MOST_NAME: usize = 40;

/// The type.
pub(super) const TICKETS: ResourceType<HistoryApi> = ResourceType {
    path: "managedClusters/supportTickets",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::list::<Tickets>("SupportTickets_ListByCluster"),
        Row::get::<Tickets>("SupportTickets_Get"),
        Row::put::<Tickets>("SupportTickets_CreateOrUpdate"),
        Row::write(
            Verb::Action("consent"),
            "SupportTickets_Consent",
            |api, call| Box::pin(api.consent(call, Mode::Commit)),
            |api, call| Box::pin(api.consent(call, Mode::Preview)),
        ),
        Row::write(
            Verb::Action("revoke"),
            "SupportTickets_Revoke",
            |api, call| Box::pin(api.change_ticket(call, &Action::Withdraw, Mode::Commit)),
            |api, call| Box::pin(api.change_ticket(call, &Action::Withdraw, Mode::Preview)),
        ),
        Row::write(
            Verb::Action("close"),
            "SupportTickets_Close",
            |api, call| Box::pin(api.change_ticket(call, &Action::Close, Mode::Commit)),
            |api, call| Box::pin(api.change_ticket(call, &Action::Close, Mode::Preview)),
        ),
    ],
};

/// Tickets as the kernel sees them.
enum Tickets {}

/// What can be done to one beside a PUT.
enum Action {
    /// Consent, for so many hours.
    Consent(u32),
    /// Withdraw the consent.
    Withdraw,
    /// Close it.
    Close,
}

/// A ticket and its cluster.
struct State {
    of: Of,
    /// When the cluster's desired record last changed.
    desired: Revision,
    found: Option<Stored<TicketRecord>>,
    /// Those that would work under it. Only read for decisions, after the ticket: another one changes the ticket as well.
    good: Vec<Stored<CredentialRecord>>,
    /// The cluster's tickets. Only read for decisions.
    all: Vec<TicketRecord>,
    now: Timestamp,
}

/// A change.
struct Change {
    record: TicketRecord,
    /// Tickets that are no longer kept.
    forgotten: Vec<String>,
    /// Whether what was handed out under it is taken back, and by whom.
    takes_back: Option<String>,
}

/// A cluster with when its desired record last changed.
async fn cluster(api: &HistoryApi, at: ClusterPath<'_>) -> Result<(Of, Revision), ArmError> {
    let found = directory::cluster_named(&*api.store, at.subscription, at.group, at.cluster).await;
    let found = found.map_err(store_error)?.ok_or_else(|| at.not_found())?;
    Ok((api.cluster(at).await?, found.revision))
}

/// A ticket's id in ARM.
fn id_of(of: &Of, name: &str) -> String {
    let record = &of.record;
    arm_ids::resource_id(
        &record.subscription,
        &record.resource_group,
        HISTORY_NAMESPACE,
        &[("managedClusters", record.name.as_str()), (KIND, name)],
    )
}

/// `Consented` while support may look, else `Open` or `Closed`.
fn status(record: &TicketRecord, now: Timestamp) -> &'static str {
    match (&record.closed, record.consented(now)) {
        (Some(_), _) => "Closed",
        (None, Some(_)) => "Consented",
        (None, None) => "Open",
    }
}

fn consent_document(consent: &Consent, now: Timestamp, closed: bool) -> Value {
    let mut told = json!({
        "by": consent.given.by_name,
        "byId": consent.given.by,
        "at": consent.given.at.to_string(),
        "until": consent.until.to_string(),
        "inForce": consent.holds(now) && !closed,
    });
    if let Some(withdrawn) = &consent.withdrawn {
        told["withdrawnAt"] = json!(withdrawn.at.to_string());
        told["withdrawnBy"] = json!(withdrawn.by_name);
    }
    told
}

/// The credentials that were handed out under a ticket.
pub(super) fn handed_out(record: &TicketRecord, now: Timestamp) -> Vec<Value> {
    let told = record.access.iter().map(|access| {
        let mut told = json!({
            "credential": access.credential,
            "engineer": access.engineer,
            "issuedAt": access.issued_at.to_string(),
            "expiresAt": access.expires_at.to_string(),
            "state": match access.revoked_at {
                Some(_) => "Revoked",
                None if access.expires_at <= now => "Expired",
                None => "Good",
            },
        });
        if let Some(at) = access.revoked_at {
            told["revokedAt"] = json!(at.to_string());
        }
        told
    });
    told.collect()
}

fn document(of: &Of, record: &TicketRecord, now: Timestamp) -> Value {
    let mut properties = json!({
        "title": record.title,
        "severity": record.severity.as_str(),
        "status": status(record, now),
        "openedBy": record.opened_by_name,
        "openedById": record.opened_by,
        "openedAt": record.opened_at.to_string(),
        "access": handed_out(record, now),
    });
    if let Some(consent) = &record.consent {
        properties["consent"] = consent_document(consent, now, record.closed.is_some());
    }
    if let Some(closed) = &record.closed {
        properties["closedAt"] = json!(closed.at.to_string());
        properties["closedBy"] = json!(closed.by_name);
    }
    json!({
        "id": id_of(of, &record.name),
        "name": record.name,
        "type": format!("{HISTORY_NAMESPACE}/managedClusters/{KIND}"),
        "cluster": of.record.name,
        "resourceGroup": of.record.resource_group,
        "properties": properties,
    })
}

fn invalid(target: &'static str, message: String) -> ArmError {
    ArmError::new(ErrorCode::INVALID_PARAMETER, message).target(target)
}

/// Title and severity of a body.
fn said(body: &Value) -> Result<(String, Severity), ArmError> {
    let properties = &body["properties"];
    let title = properties["title"].as_str().map(str::trim).unwrap_or_default();
    if title.is_empty() || title.chars().count() > MOST_TITLE || title.chars().any(char::is_control) {
        let message = format!(
            "'properties.title' must say what the ticket is about, in one line of at most {MOST_TITLE} characters."
        );
        return Err(invalid("properties.title", message));
    }
    let severity = match &properties["severity"] {
        Value::Null => Some(Severity::Minimal),
        Value::String(text) => Severity::ALL
            .into_iter()
            .find(|own| own.as_str().eq_ignore_ascii_case(text)),
        _ => None,
    };
    let severity = severity.ok_or_else(|| {
        let all = Severity::ALL.map(Severity::as_str).join(", ");
        invalid(
            "properties.severity",
            format!("'properties.severity' must be one of {all}."),
        )
    })?;
    Ok((title.to_owned(), severity))
}

/// The hours of a consent.
fn hours(body: &Value) -> Result<u32, ArmError> {
    let hours = body["hours"].as_u64().and_then(|hours| u32::try_from(hours).ok());
    hours
        .filter(|hours| (1..=LONGEST_CONSENT).contains(hours))
        .ok_or_else(|| {
            let message = format!(
                "'hours' must say how long support may look into the cluster: a whole number from 1 to {LONGEST_CONSENT}."
            );
            invalid("hours", message)
        })
}

fn check_name(name: &str) -> Result<(), ArmError> {
    let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if letters && (1..=MOST_NAME).contains(&name.len()) {
        return Ok(());
    }
    let message = format!(
        "A ticket's name has 1 to {MOST_NAME} letters, digits and hyphens; {} has not.",
        quote(name)
    );
    Err(ArmError::new(ErrorCode::INVALID_RESOURCE_NAME, message).target("name"))
}

fn closed(record: &TicketRecord) -> ArmError {
    let message = format!(
        "The ticket {} is closed and stays so; open another one.",
        quote(&record.name)
    );
    ArmError::new(ErrorCode::CONFLICT, message)
}

impl State {
    fn opened(&self, context: &Context<'_, ()>, body: &Value) -> Result<Decision<Change>, ArmError> {
        let (title, severity) = said(body)?;
        let name = context.info.path.name(1).unwrap_or_default();
        if let Some(found) = &self.found {
            let before = &found.value;
            if before.title == title && before.severity == severity {
                return Ok(Decision::Unchanged);
            }
            if before.closed.is_some() {
                return Err(closed(before));
            }
            return Ok(Decision::Write(Change {
                record: TicketRecord {
                    title,
                    severity,
                    generation: before.generation + 1,
                    ..before.clone()
                },
                forgotten: Vec::new(),
                takes_back: None,
            }));
        }
        check_name(name)?;
        if self.of.record.deleting {
            let message = format!("The cluster {} is being deleted.", quote(&self.of.record.name));
            return Err(ArmError::new(ErrorCode::CONFLICT, message));
        }
        if self.all.iter().filter(|known| known.closed.is_none()).count() >= MOST_OPEN {
            let message = format!(
                "{MOST_OPEN} tickets of the cluster {} are open; close one first.",
                quote(&self.of.record.name)
            );
            return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message));
        }
        let mut done: Vec<&TicketRecord> = self.all.iter().filter(|known| known.closed.is_some()).collect();
        done.sort_by_key(|known| known.closed.as_ref().map(|closed| closed.at));
        let over = (self.all.len() + 1).saturating_sub(KEPT);
        let principal = context.info.principal;
        Ok(Decision::Write(Change {
            record: TicketRecord {
                v: 1,
                name: name.to_owned(),
                title,
                severity,
                opened_by: principal.object_id.clone(),
                opened_by_name: principal.name.clone(),
                opened_at: context.now,
                consent: None,
                closed: None,
                access: Vec::new(),
                generation: 1,
            },
            forgotten: done.iter().take(over).map(|known| known.name.clone()).collect(),
            takes_back: None,
        }))
    }

    fn acted(&self, context: &Context<'_, ()>, action: &Action) -> Result<Decision<Change>, ArmError> {
        let Some(found) = &self.found else {
            return Err(Tickets::missing(self, context.info.path));
        };
        let (before, now) = (&found.value, context.now);
        let mut record = before.clone();
        let principal = context.info.principal;
        let act = Act {
            by: principal.object_id.clone(),
            by_name: principal.name.clone(),
            at: now,
        };
        match action {
            Action::Consent(_) if before.closed.is_some() => return Err(closed(before)),
            Action::Consent(hours) => {
                let span = SignedDuration::from_hours(i64::from(*hours));
                record.consent = Some(Consent {
                    given: act,
                    until: now.checked_add(span).map_err(ArmError::internal)?,
                    withdrawn: None,
                });
            }
            Action::Withdraw => match record.consent.as_mut() {
                Some(consent) if before.consented(now).is_some() => consent.withdrawn = Some(act),
                _ => return Ok(Decision::Unchanged),
            },
            Action::Close if before.closed.is_some() => return Ok(Decision::Unchanged),
            Action::Close => record.closed = Some(act),
        }
        record.revoke(None, now);
        record.generation += 1;
        Ok(Decision::Write(Change {
            record,
            forgotten: Vec::new(),
            takes_back: Some(principal.name.clone()),
        }))
    }
}

#[async_trait]
impl Resource for Tickets {
    type Provider = HistoryApi;
    type State = State;
    type Change = Change;
    type Action = Action;

    async fn read(api: &HistoryApi, path: &ResourcePath, purpose: Purpose) -> Result<State, ArmError> {
        let at = ClusterPath::of(path)?;
        let (of, desired) = cluster(api, at).await?;
        let (store, now) = (&*api.store, api.env.clock.now());
        let uid = of.record.uid.clone();
        let found = get_record::<TicketRecord>(store, &TicketRecord::key(&uid, at.child)).await;
        let found = found.map_err(store_error)?;
        let (mut good, mut all) = (Vec::new(), Vec::new());
        if purpose == Purpose::Decision {
            let (known, _) = list_records::<CredentialRecord>(store, &CredentialRecord::all(&uid))
                .await
                .map_err(store_error)?;
            let of_this = |record: &CredentialRecord| {
                let ticket = record.ticket.as_deref();
                ticket.is_some_and(|ticket| ticket.eq_ignore_ascii_case(at.child)) && record.is_good(now)
            };
            let known = known.into_iter().map(|(_, known)| known);
            good = known.filter(|known| of_this(&known.value)).collect();
            let (known, _) = list_records::<TicketRecord>(store, &TicketRecord::all(&uid))
                .await
                .map_err(store_error)?;
            all = known.into_iter().map(|(_, known)| known.value).collect();
        }
        Ok(State {
            of,
            desired,
            found,
            good,
            all,
            now,
        })
    }

    fn presence(state: &State, _: &ResourcePath) -> Presence {
        state.found.as_ref().map_or(Presence::Absent, |found| {
            let ticket = &found.value;
            let part = format!("{KIND}/{}", ticket.name);
            let uid = &state.of.record.uid;
            Presence::Present(etag(uid, &part, ticket.generation, ticket.opened_at))
        })
    }

    fn missing(state: &State, path: &ResourcePath) -> ArmError {
        ArmError::new(
            ErrorCode::RESOURCE_NOT_FOUND,
            format!(
                "The cluster {} has no support ticket {}; the list says which there are.",
                quote(&state.of.record.name),
                quote(path.name(1).unwrap_or_default())
            ),
        )
    }

    async fn list(api: &HistoryApi, path: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        let of = api.cluster(ClusterPath::of(path)?).await?;
        let prefix = TicketRecord::all(&of.record.uid);
        let (found, _) = list_records::<TicketRecord>(&*api.store, &prefix)
            .await
            .map_err(store_error)?;
        let now = api.env.clock.now();
        Ok(found
            .iter()
            .map(|(_, found)| document(&of, &found.value, now))
            .collect())
    }

    fn decide(
        context: &Context<'_, ()>,
        state: &State,
        mutation: Mutation<'_, Action>,
    ) -> Result<Decision<Change>, ArmError> {
        match mutation {
            Mutation::Put(body) => state.opened(context, body),
            Mutation::Act(action) => state.acted(context, action),
            Mutation::Delete => {
                let message = "A ticket is kept; close it instead.";
                Err(ArmError::new(ErrorCode::METHOD_NOT_ALLOWED, message))
            }
        }
    }

    async fn transaction(
        _: &HistoryApi,
        _: &RequestInfo<'_>,
        state: &State,
        change: &Change,
    ) -> Result<Txn, ArmError> {
        let uid = &state.of.record.uid;
        let own = TicketRecord::key(uid, &change.record.name);
        let mut txn = match &state.found {
            Some(found) => Txn::default().at(&own, found.revision),
            // A cluster that begins to go meanwhile takes no more tickets.
            None => Txn::default().absent(&own).at(key::desired(uid), state.desired),
        };
        if let Some(by) = &change.takes_back {
            for good in &state.good {
                let name = CredentialRecord::key(uid, &good.value.id);
                let revoked = CredentialRecord {
                    revoked: Some(Revoked {
                        at: state.now,
                        by: Some(by.clone()),
                    }),
                    ..good.value.clone()
                };
                txn = txn.at(&name, good.revision).with(put_record(name, &revoked));
            }
        }
        let forgotten = change.forgotten.iter();
        let txn = forgotten.fold(txn, |txn, name| txn.delete(TicketRecord::key(uid, name)));
        Ok(txn.with(put_record(own, &change.record)))
    }

    fn render(state: &State, change: Option<&Change>, _: &ResourcePath, _: &str) -> Value {
        let found = state.found.as_ref().map(|found| &found.value);
        let shown = change.map(|change| &change.record).or(found);
        shown.map_or(Value::Null, |shown| document(&state.of, shown, state.now))
    }

    fn operation(_: &Change) -> Option<&str> {
        None
    }
}

impl HistoryApi {
    async fn consent(&self, call: &Call, mode: Mode) -> Result<Response, ArmError> {
        let hours = hours(&call.request.body)?;
        self.change_ticket(call, &Action::Consent(hours), mode).await
    }

    /// Changes a ticket, and waits a while for what was handed out under it to stop working.
    async fn change_ticket(&self, call: &Call, action: &Action, mode: Mode) -> Result<Response, ArmError> {
        let request = &call.request;
        let info = RequestInfo::of(request);
        let written = write::<Tickets>(self, &info, Mutation::Act(action), mode).await?;
        let change = match &written.decision {
            Decision::Write(change) => Some(change),
            Decision::InProgress(_) | Decision::Unchanged => None,
        };
        let state = &written.state;
        let (of, good) = (&state.of, &state.good);
        let takes_back = change.is_some_and(|change| change.takes_back.is_some()) && !good.is_empty();
        if mode == Mode::Commit && takes_back && of.observed.formed && !of.record.spec().stopped {
            // Where the cluster does not answer now, its loop takes them away when it does; the list of credentials says so.
            until(&self.env, &*self.store, &of.record.uid, |observed| {
                observed.is_none_or(|seen| !good.iter().any(|good| seen.credentials.contains(&good.value.id)))
            })
            .await?;
        }
        let version = &request.api_version;
        Ok(Response::ok(Tickets::render(
            state,
            change,
            &request.path,
            version,
        )))
    }
}
