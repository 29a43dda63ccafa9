//! The state of support of clusters, and the scope of support.
//!
//! | | |
//! |---|---|
//! | GET `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/supportState` | whether and why; `?profile=` by another profile than the stamp's, `?at=` at another moment |
//! | GET `/providers/Landfall.ContainerService/supportScope` | what is covered and what is not; `?profile=` |
//!
//! The state of now, by the stamp's policies, has the deadlines that run for the cluster as well (`deadlines`).
//!
//! A moment of the past has the facts that had begun by then; which of them were another then is not known, and is said (`replay`). A moment of
//! the future has the facts of now.
//!
//! Always true: it only reads.

use std::time::Duration;

use arm_kernel::{Gate, Operation, ResourceType, Scope, Verb, quote};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use jiff::Timestamp;
use policy_support::{Profile, Reason, SupportState, scope, support_state};
use serde_json::{Value, json};

use super::api::{HISTORY_API_VERSIONS, HISTORY_NAMESPACE, HistoryApi};
use crate::{deadlines, records::ClusterPath, support::gather};

type Row = Operation<HistoryApi>;

/// How far ahead a state can be asked for.
const AHEAD: Duration = Duration::from_secs(5 * 366 * 24 * 60 * 60);

/// The state of a cluster.
pub(super) const SUPPORT_STATE: ResourceType<HistoryApi> = ResourceType {
    path: "managedClusters/supportState",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::read(Verb::List, "SupportState_Get", |api, call| {
        Box::pin(api.support_state(&call.request))
    })],
};

/// The scope.
pub(super) const SUPPORT_SCOPE: ResourceType<HistoryApi> = ResourceType {
    path: "supportScope",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::read(Verb::List, "SupportScope_Get", |api, call| {
        Box::pin(async { api.support_scope(&call.request) })
    })
    .gate(Gate::Anybody)
    .at(Scope::Tenant)],
};

fn invalid(parameter: &'static str, message: String) -> ArmError {
    ArmError::new(ErrorCode::INVALID_PARAMETER, message).target(parameter)
}

/// The moment that is asked about.
fn moment(text: Option<&str>, created: Timestamp, now: Timestamp) -> Result<Timestamp, ArmError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(now);
    };
    let at: Timestamp = text.parse().map_err(|_| {
        let message = format!("'at' is {}; write it as 2027-01-31T00:00:00Z.", quote(text));
        invalid("at", message)
    })?;
    if at < created {
        let message = format!(
            "The cluster was made at {created}; nothing is known of it before. Ask for a later 'at'."
        );
        return Err(invalid("at", message));
    }
    let last = now.checked_add(AHEAD).unwrap_or(Timestamp::MAX);
    if at > last {
        let message = format!("'at' may be at most five years ahead; ask for one until {last}.");
        return Err(invalid("at", message));
    }
    Ok(at)
}

fn reason(reason: &Reason) -> Value {
    let mut fact = json!({ "message": reason.fact });
    if let Some(since) = reason.since {
        fact["since"] = json!(since.to_string());
    }
    let mut told = json!({
        "rule": reason.rule,
        "state": reason.state.as_str(),
        "message": reason.sentence,
        "fact": fact,
    });
    if let Some(area) = reason.area {
        told["area"] = json!(area.as_str());
    }
    if !reason.remedy.is_empty() {
        told["remedy"] = json!(reason.remedy);
    }
    if let Some(by) = reason.by {
        told["by"] = json!(by.to_string());
    }
    told
}

fn answer(told: &SupportState, profile: Profile, at: Timestamp) -> Value {
    let areas = told.areas.iter();
    let areas = areas.map(|(area, state)| json!({ "area": area.as_str(), "state": state.as_str() }));
    let mut answer = json!({
        "profile": profile.as_str(),
        "at": at.to_string(),
        "state": told.state.as_str(),
        "areas": areas.collect::<Vec<_>>(),
        "reasons": told.reasons.iter().map(reason).collect::<Vec<_>>(),
    });
    if let Some(until) = told.until {
        answer["until"] = json!(until.to_string());
    }
    if !told.remedy.is_empty() {
        answer["remedy"] = json!(told.remedy);
    }
    answer
}

impl HistoryApi {
    /// The profile of a request, or the stamp's.
    fn profile(&self, request: &Request) -> Result<Profile, ArmError> {
        match request.query("profile").filter(|text| !text.is_empty()) {
            None => Ok(self.support.profile),
            Some(text) => text.parse::<Profile>().map_err(|error| {
                let message = format!("{} is {error}.", quote(text));
                invalid("profile", message)
            }),
        }
    }

    async fn support_state(&self, request: &Request) -> Result<Response, ArmError> {
        let profile = self.profile(request)?;
        let of = self.cluster(ClusterPath::of(&request.path)?).await?;
        let (store, record) = (&*self.store, &of.record);
        let now = self.env.clock.now();
        let at = moment(request.query("at"), record.created_at, now)?;
        let facts = gather::facts(store, &self.support, record, &of.observed, now).await?;
        let deadlines = if at == now && profile == self.support.profile {
            Some(deadlines::shown(store, profile, record, &of.observed, &facts, now).await?)
        } else {
            None
        };
        let (facts, unknown) = if at < now {
            facts.at(at)
        } else {
            (facts, Vec::new())
        };
        let mut told = answer(&support_state(&facts, profile, at), profile, at);
        told["id"] = json!(format!(
            "{}/supportState",
            arm_ids::resource_id(
                &record.subscription,
                &record.resource_group,
                HISTORY_NAMESPACE,
                &[("managedClusters", record.name.as_str())],
            )
        ));
        told["name"] = json!("supportState");
        told["type"] = json!(format!("{HISTORY_NAMESPACE}/managedClusters/supportState"));
        told["cluster"] = json!(record.name);
        told["resourceGroup"] = json!(record.resource_group);
        if let Some(deadlines) = deadlines {
            told["deadlines"] = deadlines;
        }
        if at != now {
            told["replay"] = json!({ "of": if at < now { "past" } else { "future" }, "unknown": unknown });
        }
        Ok(Response::ok(told))
    }

    fn support_scope(&self, request: &Request) -> Result<Response, ArmError> {
        let profile = self.profile(request)?;
        let subjects = scope::of(profile).map(|subject| {
            let mut told = json!({
                "rule": subject.rule,
                "subject": subject.title,
                "cover": subject.cover.as_str(),
            });
            if let Some(area) = subject.area {
                told["area"] = json!(area.as_str());
            }
            told
        });
        Ok(Response::ok(json!({
            "profile": profile.as_str(),
            "document": profile.document(),
            "value": subjects.collect::<Vec<_>>(),
        })))
    }
}
