//! `Landfall.Backup`: what Landfall has backed up of clusters, and how to go back. A namespace of its own, so that nobody takes
//! it for Azure's.
//!
//! | | |
//! |---|---|
//! | GET `{RG}/providers/Landfall.Backup/managedClusters/{name}/backups[/default]` | which seconds can be restored |
//! | POST `…/managedClusters/{name}/preview` `{"at": TIME}` | what going back would change |
//! | POST `…/managedClusters/{name}/verify` | restores into memory and compares |
//! | POST `…/managedClusters/{name}/restore` `{"at": TIME}` | goes back, in place; a long-running operation |
//!
//! Always true: it only reads, but for a restore, and that is a change of the cluster's desired state like any other; a moment that
//! cannot be restored is refused before anything happens.

use std::sync::Arc;

use arm_wire::{ArmError, ErrorCode, Provider, Request, Response, Route, RouteStatus, Scope};
use async_trait::async_trait;
use base_env::Env;
use cluster_archive::{Archive, ArchiveError, Holding, Verdict};
use cluster_backup::chain::{self, NotCovered, end_of_second};
use cluster_spec::RestoreSpec;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    API_VERSIONS, ContainerService, NAMESPACE,
    change::advance,
    problems::quote,
    records::{At, Found},
};

/// The namespace.
pub const BACKUP_NAMESPACE: &str = "Landfall.Backup";
/// Its api-versions.
pub const BACKUP_API_VERSIONS: &[&str] = &["2026-11-01"];
/// What a restore is called as an operation.
const RESTORE: &str = "Backups_Restore";

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
    archive: Arc<Archive>,
}

fn time(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds)
        .unwrap_or_default()
        .to_string()
}

fn refused(message: String) -> ArmError {
    ArmError::new(ErrorCode::INVALID_PARAMETER, message).target("at")
}

fn fault(error: ArchiveError) -> ArmError {
    match error {
        ArchiveError::NotCovered(NotCovered::Nothing) => ArmError::new(
            ErrorCode::RESOURCE_NOT_FOUND,
            "There is no backup of this cluster yet. The first is made within seconds after its control plane runs.",
        ),
        ArchiveError::NotCovered(NotCovered::Outside { before, after }) => {
            let name = |at: Option<i64>| at.map_or_else(|| "none".to_owned(), time);
            refused(format!(
                "That second cannot be restored. The nearest that can are {} before and {} after it.",
                name(before),
                name(after)
            ))
        }
        other => ArmError::internal(other),
    }
}

impl BackupApi {
    /// A provider over the clusters and the archive of their backups.
    pub fn new(env: Env, clusters: Arc<ContainerService>, archive: Arc<Archive>) -> Self {
        Self {
            env,
            clusters,
            archive,
        }
    }

    /// Work that blocks, on a thread for that.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Archive) -> Result<T, ArchiveError> + Send + 'static,
    ) -> Result<T, ArmError> {
        let archive = Arc::clone(&self.archive);
        match tokio::task::spawn_blocking(move || work(&archive)).await {
            Ok(done) => done.map_err(fault),
            Err(error) => Err(ArmError::internal(error)),
        }
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

    async fn holding(&self, found: &Found) -> Result<Holding, ArmError> {
        let uid = found.record.value.uid.clone();
        self.blocking(move |archive| archive.holding(&uid)).await
    }

    async fn get(&self, request: &Request) -> Result<Response, ArmError> {
        let at = At::of(request)?;
        let found = self.clusters.need(at).await?;
        let holding = self.holding(&found).await?;
        let spans: Vec<Value> = holding
            .spans()
            .iter()
            .map(|span| json!({ "from": time(span.from), "until": time(span.until) }))
            .collect();
        let record = &found.record.value;
        let backup = json!({
            "id": format!("{}/backups/default", at.name().id().replace(NAMESPACE, BACKUP_NAMESPACE)),
            "name": "default",
            "type": "Landfall.Backup/managedClusters/backups",
            "properties": {
                "clusterUid": record.uid,
                "files": holding.objects.len(),
                "bytes": holding.objects.iter().map(|(_, size)| size).sum::<u64>(),
                "restorable": spans,
                "restored": found.observed.as_ref().and_then(|observed| observed.restored.clone()),
            },
        });
        match request.path.name(1) {
            None => Ok(Response::ok(json!({ "value": [backup] }))),
            Some(name) if name.eq_ignore_ascii_case("default") => Ok(Response::ok(backup)),
            Some(name) => {
                let message = format!("There is no backup {}; the only one is 'default'.", quote(name));
                Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message))
            }
        }
    }

    async fn preview(&self, request: &Request) -> Result<Response, ArmError> {
        let found = self.clusters.need(At::of(request)?).await?;
        let moment = self.moment(request)?;
        let uid = found.record.value.uid.clone();
        let cut = Some(end_of_second(moment));
        let preview = self.blocking(move |archive| archive.preview(&uid, cut)).await?;
        let mut answer = serde_json::to_value(&preview).map_err(ArmError::internal)?;
        answer["at"] = json!(time(moment));
        Ok(Response::ok(answer))
    }

    async fn verify(&self, request: &Request) -> Result<Response, ArmError> {
        let found = self.clusters.need(At::of(request)?).await?;
        let (uid, now) = (found.record.value.uid.clone(), self.env.clock.now());
        let verdict: Verdict = self.blocking(move |archive| archive.verify(&uid, now)).await?;
        serde_json::to_value(&verdict)
            .map(Response::ok)
            .map_err(ArmError::internal)
    }

    async fn restore(&self, request: &Request) -> Result<Response, ArmError> {
        let at = At::of(request)?;
        let found = self.clusters.need(at).await?;
        let moment = self.moment(request)?;
        // Refused now, not by a machine that has stopped already.
        let names = self.holding(&found).await?.names();
        chain::select(&names, Some(end_of_second(moment)))
            .map_err(|error| fault(ArchiveError::NotCovered(error)))?;
        let id = self.env.ids.short();
        let done = self
            .clusters
            .change(at, |found, _| {
                let present = &found.record.value;
                if present.deleting {
                    return Err(ArmError::new(
                        ErrorCode::OPERATION_NOT_ALLOWED,
                        "The cluster is being deleted.",
                    ));
                }
                let mut spec = present.spec.clone();
                spec.restore = Some(RestoreSpec {
                    id: id.clone(),
                    at: Some(moment),
                    source: present.uid.clone(),
                });
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
        let body = json!({ "at": time(moment), "restore": id });
        let response = Response::with(StatusCode::ACCEPTED, body);
        // The operation is one of the cluster, and is asked for there.
        let mut polled = request.clone();
        API_VERSIONS[0].clone_into(&mut polled.api_version);
        Ok(response.operation(
            &polled,
            NAMESPACE,
            at.subscription,
            &self.clusters.config.location,
            &change.operation.id,
            true,
        ))
    }
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
