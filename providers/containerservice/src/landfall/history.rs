//! `Landfall.ContainerService`: information for which AKS' API has no place. A separate namespace, so that it
//! is not mistaken for Azure's.
//!
//! | GET | |
//! |---|---|
//! | `{SUB}/providers/Landfall.ContainerService/operations[/{id}]` | operations of clusters, newest first; `?cluster=`, `?resourceGroup=`, `?active=true` |
//! | `{SUB}/providers/Landfall.ContainerService/events` | the history of clusters, also of deleted ones, oldest first; `?cluster=`, `?resourceGroup=`, `?after={id}` |
//! | `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/events` | the history of one |
//! | `{SUB}/providers/Landfall.ContainerService/activities` | who asked for which change or credentials, and what was answered, oldest first; `?after={id}` |
//!
//! | `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/credentials` | credentials that were handed out; [`super::credentials`] |
//! | `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/upgradePlans/{version}` | the obstacles of an upgrade; [`super::upgrade_plans`] |
//! | `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/upgrades/default` | upgrades of the control plane with a way back; [`super::upgrades`] |
//! | `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/supportState` | whether and why it is supported; [`super::support`] |
//! | `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/supportTickets` | whether support may look into it; [`super::tickets`] |
//! | `{SUB}/providers/Landfall.ContainerService/unknown` | machines, networks, volumes and backups that are in no record; [`super::unknown`] |
//!
//! | `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/cves/default` | vulnerabilities of what its machines run; [`super::cves`] |
//! | `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/knownIssues/default` | known issues that it has; [`super::issues`] |
//! | `{SUB}/providers/Landfall.ContainerService/knownIssues` | the same of all clusters, from the records alone |
//!
//! | `/providers/Landfall.ContainerService/catalogue/stamp` | the version catalogue that is in force; [`super::catalogue`] |
//! | `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/certificates` | certificates and keys of a cluster; [`super::certificates`] |
//! | `{SUB}/providers/Landfall.ContainerService/alerts` | what an operator has to see to; [`super::alerts`] |
//! | `{SUB}/providers/Landfall.ContainerService/usageRecords` | what was used, by the hour; [`super::usage_records`] |
//!
//! | `/providers/Landfall.ContainerService/maintenance/stamp` | whether planned work is held up in the stamp; [`super::maintenance`] |
//!
//! Always true: except for credentials, support tickets, upgrades with a way back, unknown objects and maintenance, it only reads.

use arm_ids::ResourcePath;
use arm_kernel::{Items, Namespace, Operation, ResourceType, Scope, Verb, quote, store_error};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use control_records::{
    DeletedRecord, EventRecord, OperationRecord, OperationStatus, Owner,
    activity::{self, ActivityRecord},
    directory, events, key,
};
use control_store::list_records;
use serde_json::{Value, json};

use super::{
    access_record::ACCESS_RECORD,
    alerts::ALERTS,
    api::{HISTORY_API_VERSIONS, HISTORY_NAMESPACE, HistoryApi},
    catalogue::CATALOGUE,
    certificates::CERTIFICATES,
    credentials::CREDENTIALS,
    cves::CVES,
    deadlines::{ARCHIVES, SUPPORT_POLICIES},
    issues::{CLUSTER_ISSUES, ISSUES},
    maintenance::MAINTENANCE,
    support::{SUPPORT_SCOPE, SUPPORT_STATE},
    tickets::TICKETS,
    unknown::UNKNOWN,
    upgrade_plans::UPGRADE_PLANS,
    upgrades::UPGRADES,
    usage_records::USAGE_RECORDS,
};

type Row = Operation<HistoryApi>;

/// Its types.
const OPERATIONS: ResourceType<HistoryApi> = ResourceType {
    path: "operations",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::items("Operations_List", |api, call| {
            Box::pin(api.operations(&call.request))
        })
        .at(Scope::Subscription),
        Row::read(Verb::Get, "Operations_Get", |api, call| {
            Box::pin(api.operation(&call.request))
        })
        .at(Scope::Subscription),
    ],
};

const EVENTS: ResourceType<HistoryApi> = ResourceType {
    path: "events",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::items("Events_List", |api, call| Box::pin(api.events(&call.request))).at(Scope::Subscription),
    ],
};

const CLUSTER_EVENTS: ResourceType<HistoryApi> = ResourceType {
    path: "managedClusters/events",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::items("Events_ListByCluster", |api, call| {
        Box::pin(api.events(&call.request))
    })],
};

const ACTIVITIES: ResourceType<HistoryApi> = ResourceType {
    path: "activities",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::items("Activities_List", |api, call| {
        Box::pin(api.activities(&call.request))
    })
    .at(Scope::Subscription)],
};

impl Namespace for HistoryApi {
    const NAME: &'static str = HISTORY_NAMESPACE;
    const TYPES: &'static [&'static ResourceType<Self>] = &[
        &OPERATIONS,
        &EVENTS,
        &CLUSTER_EVENTS,
        &ACTIVITIES,
        &CREDENTIALS,
        &UNKNOWN,
        &UPGRADE_PLANS,
        &UPGRADES,
        &CVES,
        &CLUSTER_ISSUES,
        &ISSUES,
        &CATALOGUE,
        &MAINTENANCE,
        &SUPPORT_STATE,
        &SUPPORT_SCOPE,
        &SUPPORT_POLICIES,
        &ARCHIVES,
        &TICKETS,
        &ACCESS_RECORD,
        &ALERTS,
        &USAGE_RECORDS,
        &CERTIFICATES,
    ];
}

/// The cluster of a history.
struct Subject {
    uid: String,
    group: String,
    name: String,
    deleted: bool,
}

/// The conditions of a query; names ignore case.
struct Filter<'a> {
    subscription: &'a str,
    group: Option<&'a str>,
    cluster: Option<&'a str>,
}

impl Filter<'_> {
    fn takes(&self, subscription: &str, group: &str, cluster: &str) -> bool {
        let same =
            |wanted: Option<&str>, own: &str| wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(own));
        self.subscription.eq_ignore_ascii_case(subscription)
            && same(self.group, group)
            && same(self.cluster, cluster)
    }
}

impl HistoryApi {
    fn filter(request: &Request) -> Filter<'_> {
        let path = &request.path;
        let subscription = path.subscription.as_deref().unwrap_or_default();
        match &path.resource_group {
            Some(group) => Filter {
                subscription,
                group: Some(group),
                cluster: path.name(0),
            },
            None => Filter {
                subscription,
                group: request.query("resourceGroup"),
                cluster: request.query("cluster"),
            },
        }
    }

    async fn operations(&self, request: &Request) -> Result<Items, ArmError> {
        let filter = Self::filter(request);
        let active = request
            .query("active")
            .is_some_and(|active| active.eq_ignore_ascii_case("true"));
        // Events of deleted clusters are kept as long as their history.
        let mut all = Vec::new();
        for subject in self.subjects(&filter).await? {
            let owner = Owner::Cluster(subject.uid);
            let operations = directory::operations(&*self.store, &owner).await;
            all.extend(operations.map_err(store_error)?);
        }
        let operations = all
            .into_iter()
            .filter(|operation| !active || operation.status == OperationStatus::InProgress)
            .filter(|operation| {
                place(operation).is_some_and(|(subscription, group, cluster)| {
                    filter.takes(&subscription, &group, &cluster)
                })
            });
        let items =
            operations.filter_map(|operation| Some((newest_first(&operation), operation_json(&operation)?)));
        Ok(Items::Keyed(items.collect()))
    }

    async fn operation(&self, request: &Request) -> Result<Response, ArmError> {
        let id = request.path.name(0).unwrap_or_default();
        let found = directory::operation(&*self.store, id)
            .await
            .map_err(store_error)?;
        let filter = Filter {
            group: None,
            cluster: None,
            ..Self::filter(request)
        };
        found
            .map(|stored| stored.value)
            .filter(|operation| {
                place(operation).is_some_and(|(subscription, ..)| filter.takes(&subscription, "", ""))
            })
            .and_then(|operation| operation_json(&operation))
            .map(Response::ok)
            .ok_or_else(|| {
                let message = format!(
                    "There is no operation {}, or it ended more than seven days ago.",
                    quote(id)
                );
                ArmError::new(ErrorCode::OPERATION_NOT_FOUND, message)
            })
    }

    /// Clusters, and deleted ones with remaining records.
    async fn subjects(&self, filter: &Filter<'_>) -> Result<Vec<Subject>, ArmError> {
        let store = &*self.store;
        let (deleted, _) = list_records::<DeletedRecord>(store, key::DELETED)
            .await
            .map_err(store_error)?;
        let here = directory::clusters(store, Some(filter.subscription), filter.group)
            .await
            .map_err(store_error)?;
        let deleted = deleted.into_iter().map(|(_, stored)| stored.value);
        let deleted = deleted
            .filter(|cluster| filter.takes(&cluster.subscription, &cluster.resource_group, &cluster.name))
            .map(|cluster| Subject {
                uid: cluster.uid,
                group: cluster.resource_group,
                name: cluster.name,
                deleted: true,
            });
        let here = here.into_iter().map(|stored| stored.value);
        let here = here
            .filter(|cluster| filter.takes(&cluster.subscription, &cluster.resource_group, &cluster.name))
            .map(|cluster| Subject {
                uid: cluster.uid,
                group: cluster.resource_group,
                name: cluster.name,
                deleted: false,
            });
        Ok(deleted.chain(here).collect())
    }

    async fn events(&self, request: &Request) -> Result<Items, ArmError> {
        let filter = Self::filter(request);
        let subjects = self.subjects(&filter).await?;
        if subjects.is_empty()
            && let Some(cluster) = filter.cluster
        {
            let message = format!(
                "There is no cluster {}, and none was deleted within the last seven days.",
                quote(cluster)
            );
            return Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message));
        }
        let after = request.query("after").unwrap_or_default();
        let now = self.env.clock.now();
        let mut items = Vec::new();
        for subject in &subjects {
            let events = events::history(&*self.store, &subject.uid, now)
                .await
                .map_err(store_error)?;
            for (id, event) in events {
                if id.as_str() > after {
                    // Events of two clusters may have the same id.
                    let key = format!("{id} {}", subject.uid);
                    items.push((key, event_json(subject, &id, &event)));
                }
            }
        }
        Ok(Items::Keyed(items))
    }

    async fn activities(&self, request: &Request) -> Result<Items, ArmError> {
        let subscription = request.path.subscription.as_deref();
        let log = activity::log(&*self.store, subscription)
            .await
            .map_err(store_error)?;
        let after = request.query("after").unwrap_or_default();
        let log = log.into_iter().filter(|(id, _)| id.as_str() > after);
        let items = log.map(|(id, record)| (id.clone(), activity_json(&id, &record)));
        Ok(Items::Keyed(items.collect()))
    }
}

/// The sort key of an operation: later ones first.
fn newest_first(operation: &OperationRecord) -> String {
    let since_1970 = operation
        .started_at
        .as_nanosecond()
        .clamp(0, i128::MAX)
        .unsigned_abs();
    format!(
        "{:032x} {:016x} {}",
        u128::MAX - since_1970,
        u64::MAX - operation.generation,
        operation.id
    )
}

/// Subscription, group and cluster of an operation.
fn place(operation: &OperationRecord) -> Option<(String, String, String)> {
    let path = ResourcePath::parse(&operation.resource_id).ok()?;
    let cluster = path
        .name(0)
        .filter(|_| operation.owner.uid().is_some())?
        .to_owned();
    Some((path.subscription?, path.resource_group?, cluster))
}

fn operation_json(operation: &OperationRecord) -> Option<Value> {
    let (_, group, cluster) = place(operation)?;
    let mut answer = json!({
        "id": operation.id,
        "operation": operation.name,
        "status": operation.status,
        "percentComplete": match operation.status {
            OperationStatus::Succeeded => 100,
            _ => operation.progress.percent,
        },
        "resourceId": operation.resource_id,
        "resourceGroup": group,
        "cluster": cluster,
        "startTime": operation.started_at.to_string(),
    });
    if let Some(pool) = operation.pool() {
        answer["pool"] = json!(pool);
    }
    if !operation.progress.step.is_empty() {
        answer["step"] = json!(operation.progress.step);
    }
    if let Some(ended) = operation.ended_at {
        answer["endTime"] = json!(ended.to_string());
    }
    if let Some(error) = &operation.error {
        answer["error"] = json!({ "code": error.code, "message": error.message });
    }
    Some(answer)
}

fn activity_json(id: &str, record: &ActivityRecord) -> Value {
    let mut answer = json!({
        "id": id,
        "time": record.at.to_string(),
        "caller": record.principal_name,
        "callerId": record.principal,
        "callerType": record.principal_type,
        "action": record.action,
        "scope": record.scope,
        "status": record.status.as_str(),
        "correlationId": record.correlation_id,
        "requestId": record.request_id,
    });
    if let Some(address) = record.address {
        answer["address"] = json!(address.to_string());
    }
    if let Some(status) = record.http_status {
        answer["httpStatus"] = json!(status);
    }
    if let Some(code) = &record.code {
        answer["code"] = json!(code);
    }
    if let Some(operation) = &record.operation {
        answer["operation"] = json!(operation);
    }
    answer
}

fn event_json(subject: &Subject, id: &str, record: &EventRecord) -> Value {
    let event = &record.event;
    let mut answer = json!({
        "id": id,
        "time": record.at.to_string(),
        "level": if event.kind.is_warning() { "Warning" } else { "Normal" },
        "kind": event.kind,
        "resourceGroup": subject.group,
        "cluster": subject.name,
        "clusterUid": subject.uid,
        "clusterDeleted": subject.deleted,
        "subject": event.subject,
        "message": event.message,
    });
    if let Some(operation) = &event.operation {
        answer["operation"] = json!(operation);
    }
    answer
}
