//! `Landfall.Backup`: backups of clusters, and restores. A separate namespace, so that it is not mistaken for
//! Azure's.
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
//! A deleted cluster can be requested by its name, too, for as long as its backup is kept; `clusterUid` (in
//! the body, or as a query) distinguishes clusters of one name.
//!
//! Always true: all requests only read, except a restore, which is a change of the cluster's desired state
//! like any other; a time that cannot be restored is refused before any effect.

use std::sync::Arc;

use agent_api::Agents;
use agent_protocol::programs::{BACKUP, BackupStatus};
use arm_kernel::{
    Call, Items, Mode, Mutation, Namespace, Operation, RequestInfo, ResourceType, Scope, Verb, quote,
    store_error, write,
};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use base_env::Env;
use cluster_backup::chain::{self, end_of_second};
use cluster_spec::RestoreSpec;
use control_records::{ObservedRecord, Role, directory, key};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    archive::BackupReader,
    restore_points::{not_covered, refused, time},
};
use crate::{
    API_VERSIONS, ContainerService, NAMESPACE,
    clusters::{
        Action, Clusters,
        change::RESTORE,
        draft::cluster_id,
        recreate::{self, Source},
        subnets::check_joins,
    },
    records::ClusterPath,
};

/// The namespace.
pub const BACKUP_NAMESPACE: &str = "Landfall.Backup";
/// Its api-versions.
pub const BACKUP_API_VERSIONS: &[&str] = &["2026-11-01"];

/// The permission that a restore needs for the cluster that it changes or makes.
const WRITE: &str = "Microsoft.ContainerService/managedClusters/write";

type Row = Operation<BackupApi>;

const CLUSTERS: ResourceType<BackupApi> = ResourceType {
    path: "managedClusters",
    versions: BACKUP_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::items("Backups_ListClusters", |api, call| {
            Box::pin(api.list(&call.request))
        })
        .at(Scope::Subscription),
        Row::read(Verb::Action("preview"), "Backups_Preview", |api, call| {
            Box::pin(api.preview(&call.request))
        }),
        Row::read(Verb::Action("verify"), "Backups_Verify", |api, call| {
            Box::pin(api.verify(&call.request))
        }),
        Row::write(
            Verb::Action("restore"),
            RESTORE,
            |api, call| Box::pin(api.restore(call, Mode::Commit)),
            |api, call| Box::pin(api.restore(call, Mode::Preview)),
        ),
    ],
};

const BACKUPS: ResourceType<BackupApi> = ResourceType {
    path: "managedClusters/backups",
    versions: BACKUP_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[
        Row::read(Verb::Get, "Backups_Get", |api, call| {
            Box::pin(api.get(&call.request))
        }),
        Row::items("Backups_List", |api, call| Box::pin(api.list_of(&call.request))),
    ],
};

impl Namespace for BackupApi {
    const NAME: &'static str = BACKUP_NAMESPACE;
    const TYPES: &'static [&'static ResourceType<Self>] = &[&CLUSTERS, &BACKUPS];
}

/// The provider.
pub struct BackupApi {
    env: Env,
    clusters: Arc<ContainerService>,
    backups: Arc<dyn BackupReader>,
    agents: Arc<dyn Agents>,
}

impl BackupApi {
    /// A provider over the clusters and their backups.
    pub fn new(
        env: Env,
        clusters: Arc<ContainerService>,
        backups: Arc<dyn BackupReader>,
        agents: Arc<dyn Agents>,
    ) -> Self {
        Self {
            env,
            clusters,
            backups,
            agents,
        }
    }

    /// The cluster of a request, existing or deleted.
    async fn source(&self, request: &Request) -> Result<Source, ArmError> {
        let uid = request.body.get("clusterUid").and_then(Value::as_str);
        let uid = uid.or_else(|| request.query("clusterUid"));
        self.clusters.source(ClusterPath::of(&request.path)?, uid).await
    }

    /// The state of a cluster's shipping, as the machine reports that ships. `None` if it does not report.
    async fn shipping(&self, uid: &str) -> Result<Option<BackupStatus>, ArmError> {
        let machines = directory::machines(&*self.clusters.store, uid).await;
        for machine in machines.map_err(store_error)? {
            let Some(given) = &machine.assignment else {
                continue;
            };
            if !self.agents.heard(&machine.id) || !matches!(given.role, Role::ControlPlane { .. }) {
                continue;
            }
            let report = self.agents.report(&machine.id);
            let status: Option<BackupStatus> = report.and_then(|report| report.status(BACKUP));
            if let Some(status) = status.filter(|status| status.ships) {
                return Ok(Some(status));
            }
        }
        Ok(None)
    }

    /// The time in the body, milliseconds since 1970.
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

    async fn describe(&self, source: &Source) -> Result<Value, ArmError> {
        let record = &source.record;
        let shipping = self.shipping(&record.uid).await?;
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
                "restored": observed.and_then(|observed| Some(observed.value.restored?.id)),
            },
        });
        let properties = &mut backup["properties"];
        if let Some(deleted) = source.deleted {
            properties["clusterDeleted"] = json!(deleted.to_string());
        } else {
            // `null`: no machine reports that it ships.
            properties["shipping"] = shipping.map_or(Value::Null, |status| {
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
        let name = request.path.name(1).unwrap_or_default();
        if name.eq_ignore_ascii_case("default") {
            return Ok(Response::ok(self.describe(&source).await?));
        }
        let message = format!("There is no backup {}; the only one is 'default'.", quote(name));
        Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message))
    }

    /// The backups of one cluster: always one item.
    async fn list_of(&self, request: &Request) -> Result<Items, ArmError> {
        let source = self.source(request).await?;
        Ok(Items::ById(vec![self.describe(&source).await?]))
    }

    /// All backups: of existing clusters, then of deleted ones, whose record may no longer exist.
    async fn list(&self, request: &Request) -> Result<Items, ArmError> {
        let subscription = request.path.subscription.as_deref().unwrap_or_default();
        let here = self.clusters.all(subscription, None).await?;
        let here = here.into_iter().map(|found| Source {
            record: found.record.value,
            deleted: None,
        });
        let mut value = Vec::new();
        for source in here.chain(self.clusters.deleted(subscription).await?) {
            let backup = self.describe(&source).await?;
            if source.deleted.is_none() || backup["properties"]["files"] != json!(0) {
                value.push(backup);
            }
        }
        Ok(Items::ById(value))
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

    async fn restore(&self, call: &Call, mode: Mode) -> Result<Response, ArmError> {
        let request = &call.request;
        let source = self.source(request).await?;
        let moment = self.moment(request)?;
        // Refused now, instead of by a machine that has stopped already.
        let names = self.backups.holding(&source.record.uid).await?.names();
        chain::select(&names, Some(end_of_second(moment))).map_err(|why| not_covered(&why))?;
        let restore = RestoreSpec {
            id: self.env.ids.short(),
            at: Some(moment),
            source: source.record.uid.clone(),
        };
        let asked = |field: &str| request.body.get(field).and_then(Value::as_str);
        let own = ClusterPath::of(&request.path)?;
        let (at, action) = match (asked("as"), source.deleted) {
            (Some(name), _) => {
                let at = ClusterPath {
                    cluster: name,
                    group: asked("resourceGroup").unwrap_or(own.group),
                    child: "",
                    ..own
                };
                let body = recreate::desired_body(&source.record, &self.clusters.sealer)?;
                check_joins(call, &at.path(), &body).await?;
                let restore = restore.clone();
                (at, Action::Recreate { body, restore })
            }
            (None, None) => (own, Action::Restore(restore.clone())),
            (None, Some(deleted)) => {
                let message = format!(
                    "The cluster {} was deleted at {deleted}: its backup can be restored as a new cluster; give its name with 'as'.",
                    quote(&source.record.name)
                );
                return Err(ArmError::new(ErrorCode::MISSING_PARAMETER, message).target("as"));
            }
        };
        // The changed resource is a cluster, in this or another group, not the one of the path.
        let path = at.path();
        call.check(WRITE, &path).await?;
        if let Action::Recreate { body, .. } = &action {
            self.clusters.may_assign(call, at, body).await?;
        }
        let polled = polled(request);
        let info = RequestInfo {
            path: &path,
            ..RequestInfo::of(&polled)
        };
        let written = write::<Clusters>(&*self.clusters, &info, Mutation::Act(&action), mode).await?;
        let operation = written.operation().unwrap_or_default();
        let body = json!({ "at": time(moment), "restore": restore.id, "cluster": at.name().id() });
        let response = Response::with(StatusCode::ACCEPTED, body);
        let location = &self.clusters.config.location;
        Ok(response.operation(&polled, NAMESPACE, at.subscription, location, operation, true))
    }
}

/// The request with AKS' namespace: operations belong to clusters, and are polled there.
pub(super) fn polled(request: &Request) -> Request {
    let mut polled = request.clone();
    API_VERSIONS[0].clone_into(&mut polled.api_version);
    polled
}
