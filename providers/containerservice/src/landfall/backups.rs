//! `Landfall.Backup`: what Landfall has backed up of clusters, and how to go back. A namespace of its own, so that nobody takes
//! it for Azure's.
//!
//! | | |
//! |---|---|
//! | GET `{SUB}/providers/Landfall.Backup/managedClusters` | the backups of all clusters, deleted ones included |
//! | GET `{RG}/providers/Landfall.Backup/managedClusters/{name}/backups[/default]` | which seconds can be restored |
//! | POST `…/managedClusters/{name}/preview` `{"at": TIME}` | what going back would change |
//! | POST `…/managedClusters/{name}/verify` | restores into memory and compares |
//! | POST `…/managedClusters/{name}/restore` `{"at": TIME}` | goes back, in place; a long-running operation |
//! | POST `…/managedClusters/{name}/restore` `{"at": TIME, "as": NAME}` | a new cluster with that state, here or in another `resourceGroup` |
//!
//! A deleted cluster is asked about by its name, too, for as long as its backup is kept; `clusterUid` (in the body, or as a query)
//! tells clusters of one name apart.
//!
//! Always true: it only reads, but for a restore, and that is a change of the cluster's desired state like any other; a moment that
//! cannot be restored is refused before anything happens.

use std::{collections::BTreeMap, sync::Arc};

use agent_api::Agents;
use agent_protocol::programs::{BACKUP, BackupStatus};
use arm_wire::{ArmError, ErrorCode, Provider, Request, Response, Route, RouteStatus, Scope};
use async_trait::async_trait;
use base_env::Env;
use cluster_backup::chain::{self, end_of_second};
use cluster_spec::RestoreSpec;
use control_records::{ClusterRecord, MachineRecord, ObservedRecord, Role, key};
use control_store::list_records;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    API_VERSIONS, Backups, ContainerService, NAMESPACE,
    archived::not_covered,
    change::{advance, cluster_id},
    problems::quote,
    records::{At, fault as store_fault},
    recreate::{self, Source},
};

/// The namespace.
pub const BACKUP_NAMESPACE: &str = "Landfall.Backup";
/// Its api-versions.
pub const BACKUP_API_VERSIONS: &[&str] = &["2026-11-01"];
/// What a restore is called as an operation.
pub(crate) const RESTORE: &str = "Backups_Restore";

const fn works(method: &'static str, path: &'static str, name: &'static str) -> Route {
    Route {
        method,
        path,
        scope: Scope::ResourceGroup,
        name,
        status: RouteStatus::Works,
    }
}

/// Its operations.
pub const BACKUP_ROUTES: &[Route] = &[
    Route {
        scope: Scope::Subscription,
        ..works("GET", "managedClusters", "Backups_ListClusters")
    },
    works("GET", "managedClusters/backups", "Backups_Get"),
    works("GET", "managedClusters/backups", "Backups_List"),
    works("POST", "managedClusters/:preview", "Backups_Preview"),
    works("POST", "managedClusters/:verify", "Backups_Verify"),
    works("POST", "managedClusters/:restore", RESTORE),
];

/// The provider.
pub struct BackupApi {
    env: Env,
    clusters: Arc<ContainerService>,
    backups: Arc<dyn Backups>,
    agents: Arc<dyn Agents>,
}

pub(crate) fn time(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds)
        .unwrap_or_default()
        .to_string()
}

pub(crate) fn refused(message: String) -> ArmError {
    ArmError::new(ErrorCode::INVALID_PARAMETER, message).target("at")
}

impl BackupApi {
    /// A provider over the clusters and their backups.
    pub fn new(
        env: Env,
        clusters: Arc<ContainerService>,
        backups: Arc<dyn Backups>,
        agents: Arc<dyn Agents>,
    ) -> Self {
        Self {
            env,
            clusters,
            backups,
            agents,
        }
    }

    /// The cluster that a request is about, be it there or deleted.
    async fn source(&self, request: &Request) -> Result<Source, ArmError> {
        let uid = request.body.get("clusterUid").and_then(Value::as_str);
        let uid = uid.or_else(|| request.query("clusterUid"));
        self.clusters.source(At::of(request)?, uid).await
    }

    /// How far shipping is, by cluster: what the machine says that ships. Nothing of one that is silent.
    async fn shipping(&self) -> Result<BTreeMap<String, BackupStatus>, ArmError> {
        let (machines, _) = list_records::<MachineRecord>(&*self.clusters.store, &key::machine(""))
            .await
            .map_err(store_fault)?;
        let mut shipping = BTreeMap::new();
        for machine in machines.into_iter().map(|(_, stored)| stored.value) {
            let Some(given) = &machine.assignment else {
                continue;
            };
            if !self.agents.heard(&machine.id) || !matches!(given.role, Role::ControlPlane { .. }) {
                continue;
            }
            let report = self.agents.report(&machine.id);
            let status: Option<BackupStatus> = report.and_then(|report| report.status(BACKUP));
            if let Some(status) = status.filter(|status| status.ships) {
                shipping.insert(given.cluster.clone(), status);
            }
        }
        Ok(shipping)
    }

    /// The moment that the body asks for, milliseconds since 1970.
    fn moment(&self, request: &Request) -> Result<i64, ArmError> {
        let example = || time(self.env.clock.now().as_millisecond() / 1000 * 1000 - 60_000);
        let asked = request.body.get("at").and_then(Value::as_str).ok_or_else(|| {
            refused(format!(
                "The body must say which second to go back to, e.g. {{\"at\": \"{}\"}}.",
                example()
            ))
        })?;
        let at: Timestamp = asked.parse().map_err(|_| {
            refused(format!(
                "{} is not a time; write it like {}.",
                quote(asked),
                example()
            ))
        })?;
        if at > self.env.clock.now() {
            return Err(refused(format!("{at} is in the future.")));
        }
        Ok(at.as_millisecond())
    }

    async fn describe(
        &self,
        source: &Source,
        shipping: &BTreeMap<String, BackupStatus>,
    ) -> Result<Value, ArmError> {
        let record = &source.record;
        let holding = self.backups.holding(&record.uid).await?;
        let spans: Vec<Value> = holding
            .spans()
            .iter()
            .map(|span| json!({ "from": time(span.from), "until": time(span.until) }))
            .collect();
        let observed = self
            .clusters
            .read::<ObservedRecord>(&key::observed(&record.uid))
            .await?;
        let id = cluster_id(&record.subscription, &record.resource_group, &record.name);
        let mut backup = json!({
            "id": format!("{}/backups/default", id.replace(NAMESPACE, BACKUP_NAMESPACE)),
            "name": "default",
            "type": "Landfall.Backup/managedClusters/backups",
            "properties": {
                "cluster": record.name,
                "resourceGroup": record.resource_group,
                "clusterUid": record.uid,
                "files": holding.objects.len(),
                "bytes": holding.objects.iter().map(|(_, size)| size).sum::<u64>(),
                "restorable": spans,
                "restored": observed.and_then(|observed| observed.value.restored),
            },
        });
        let properties = &mut backup["properties"];
        if let Some(deleted) = source.deleted {
            properties["clusterDeleted"] = json!(deleted.to_string());
        } else {
            // `null`: no machine says that it ships.
            properties["shipping"] = shipping.get(&record.uid).map_or(Value::Null, |status| {
                json!({
                    "behindSeconds": status.lag_ms / 1000,
                    "writtenRevision": status.written,
                    "acknowledgedRevision": status.acknowledged,
                    "lastBase": status.base_at.map(|at| at.to_string()),
                    "givenUp": status.given_up,
                    "problem": status.problem.as_ref().or(status.gave_up.as_ref()),
                })
            });
        }
        Ok(backup)
    }

    async fn get(&self, request: &Request) -> Result<Response, ArmError> {
        let source = self.source(request).await?;
        let backup = self.describe(&source, &self.shipping().await?).await?;
        match request.path.name(1) {
            None => Ok(Response::ok(json!({ "value": [backup] }))),
            Some(name) if name.eq_ignore_ascii_case("default") => Ok(Response::ok(backup)),
            Some(name) => {
                let message = format!("There is no backup {}; the only one is 'default'.", quote(name));
                Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message))
            }
        }
    }

    /// Everything that there is a backup of: clusters that are there, then deleted ones, of which there may be none any more.
    async fn list(&self, request: &Request) -> Result<Response, ArmError> {
        let subscription = request.path.subscription.as_deref().unwrap_or_default();
        let here = self.clusters.all(subscription, None).await?;
        let here = here.into_iter().map(|found| Source {
            record: found.record.value,
            deleted: None,
        });
        let shipping = self.shipping().await?;
        let mut value = Vec::new();
        for source in here.chain(self.clusters.deleted(subscription).await?) {
            let backup = self.describe(&source, &shipping).await?;
            if source.deleted.is_none() || backup["properties"]["files"] != json!(0) {
                value.push(backup);
            }
        }
        Ok(Response::ok(json!({ "value": value })))
    }

    async fn preview(&self, request: &Request) -> Result<Response, ArmError> {
        let source = self.source(request).await?;
        let moment = self.moment(request)?;
        let uid = source.record.uid;
        let preview = self.backups.preview(&uid, end_of_second(moment)).await?;
        let mut answer = serde_json::to_value(&preview).map_err(ArmError::internal)?;
        answer["at"] = json!(time(moment));
        Ok(Response::ok(answer))
    }

    async fn verify(&self, request: &Request) -> Result<Response, ArmError> {
        let (uid, now) = (self.source(request).await?.record.uid, self.env.clock.now());
        let verdict = self.backups.verify(&uid, now).await?;
        serde_json::to_value(&verdict)
            .map(Response::ok)
            .map_err(ArmError::internal)
    }

    async fn restore(&self, request: &Request) -> Result<Response, ArmError> {
        let source = self.source(request).await?;
        let moment = self.moment(request)?;
        // Refused now, not by a machine that has stopped already.
        let names = self.backups.holding(&source.record.uid).await?.names();
        chain::select(&names, Some(end_of_second(moment))).map_err(|why| not_covered(&why))?;
        let restore = RestoreSpec {
            id: self.env.ids.short(),
            at: Some(moment),
            source: source.record.uid.clone(),
        };
        let asked = |field: &str| request.body.get(field).and_then(Value::as_str);
        let own = At::of(request)?;
        let (at, operation) = match (asked("as"), source.deleted) {
            (Some(name), _) => {
                let at = At {
                    cluster: name,
                    group: asked("resourceGroup").unwrap_or(own.group),
                    child: "",
                    ..own
                };
                (at, self.anew(request, at, &source.record, &restore).await?)
            }
            (None, None) => (own, self.in_place(request, own, &restore).await?),
            (None, Some(deleted)) => {
                let message = format!(
                    "The cluster {} was deleted at {deleted}: its backup can be restored as a new cluster; give its name with 'as'.",
                    quote(&source.record.name)
                );
                return Err(ArmError::new(ErrorCode::MISSING_PARAMETER, message).target("as"));
            }
        };
        let body = json!({ "at": time(moment), "restore": restore.id, "cluster": at.name().id() });
        let response = Response::with(StatusCode::ACCEPTED, body);
        Ok(response.operation(
            &polled(request),
            NAMESPACE,
            at.subscription,
            &self.clusters.config.location,
            &operation,
            true,
        ))
    }

    /// Goes back. Gives the operation.
    async fn in_place(
        &self,
        request: &Request,
        at: At<'_>,
        restore: &RestoreSpec,
    ) -> Result<String, ArmError> {
        let done = self
            .clusters
            .change(at, |found, _| {
                let present = &found.record.value;
                if present.deleting {
                    return Err(ArmError::new(
                        ErrorCode::OPERATION_NOT_ALLOWED,
                        "The cluster is being deleted; its backup can be restored as a new cluster: give its name with 'as'.",
                    ));
                }
                let mut spec = present.spec.clone();
                spec.restore = Some(restore.clone());
                let context = self.clusters.context(request);
                let body = present.body.clone();
                Ok(Some(advance(
                    &context,
                    &at.name(),
                    Some(present),
                    body,
                    spec,
                    RESTORE,
                    None,
                )))
            })
            .await?;
        let (_, change) = done.ok_or_else(|| at.not_found())?;
        Ok(change.operation.id)
    }

    /// Makes a new cluster. Gives the operation.
    async fn anew(
        &self,
        request: &Request,
        at: At<'_>,
        source: &ClusterRecord,
        restore: &RestoreSpec,
    ) -> Result<String, ArmError> {
        let (_, change) = self
            .clusters
            .write_cluster(&polled(request), at, |context, present| {
                let sealer = &self.clusters.sealer;
                recreate::decide(context, &at.name(), present, source, restore.clone(), sealer)
            })
            .await?;
        Ok(change.operation.id)
    }
}

/// The request as one of AKS': operations are the clusters', and are asked for there.
fn polled(request: &Request) -> Request {
    let mut polled = request.clone();
    API_VERSIONS[0].clone_into(&mut polled.api_version);
    polled
}

#[async_trait]
impl Provider for BackupApi {
    fn namespace(&self) -> &'static str {
        BACKUP_NAMESPACE
    }

    fn api_versions(&self) -> &'static [&'static str] {
        BACKUP_API_VERSIONS
    }

    fn routes(&self) -> &'static [Route] {
        BACKUP_ROUTES
    }

    async fn handle(&self, route: &'static Route, request: Request) -> Result<Response, ArmError> {
        match route.name {
            "Backups_Preview" => self.preview(&request).await,
            "Backups_Verify" => self.verify(&request).await,
            RESTORE => self.restore(&request).await,
            "Backups_ListClusters" => self.list(&request).await,
            _ => self.get(&request).await,
        }
    }

    async fn resources(&self, _: &str, _: Option<&str>) -> Result<Vec<Value>, ArmError> {
        Ok(Vec::new())
    }

    async fn delete_resource_group(&self, _: &str, _: &str) -> Result<usize, ArmError> {
        Ok(0)
    }
}
