//! The provider: answers each working operation from the records, or hands it to `writes`.

use std::sync::Arc;

use arm_wire::{ArmError, ErrorCode, Principal, PrincipalKind, Provider, Request, Response, Route};
use async_trait::async_trait;
use base_env::Env;
use control_records::{MachineRecord, Role, key};
use control_store::{Sealer, Store, list_records};
use serde_json::{Value, json};

use crate::{
    NAMESPACE, ProviderConfig,
    change::{Context, cluster_id},
    credentials::{self, CredentialKind, Credentials},
    problems::quote,
    records::{At, Found, fault},
    render,
    routes::{API_VERSIONS, ROUTES},
};

/// The provider.
pub struct ContainerService {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) config: ProviderConfig,
    pub(crate) credentials: Arc<dyn Credentials>,
}

/// The name under which a secret of a cluster's body is sealed; `path` is its key in [`ClusterRecord::sealed`].
pub fn secret_name(uid: &str, path: &str) -> String {
    format!("/clusters/{uid}/{path}")
}

impl ContainerService {
    /// A provider over a store.
    pub fn new(
        env: Env,
        store: Arc<dyn Store>,
        sealer: Arc<Sealer>,
        config: ProviderConfig,
        credentials: Arc<dyn Credentials>,
    ) -> Self {
        Self {
            env,
            store,
            sealer,
            config,
            credentials,
        }
    }

    async fn list(&self, request: &Request) -> Result<Response, ArmError> {
        let path = &request.path;
        let subscription = path.subscription.as_deref().unwrap_or_default();
        if path.resource_group.is_some() {
            self.group(At::of(request)?).await?;
        }
        let all = self.all(subscription, path.resource_group.as_deref()).await?;
        let value: Vec<Value> = all
            .iter()
            .map(|found| found.seen().cluster(&request.api_version))
            .collect();
        Ok(Response::ok(json!({ "value": value })))
    }

    async fn list_pools(&self, request: &Request) -> Result<Response, ArmError> {
        let found = self.need(At::of(request)?).await?;
        let seen = found.seen();
        let value: Vec<Value> = seen
            .pool_names()
            .into_iter()
            .map(|pool| seen.pool(pool, &request.api_version))
            .collect();
        Ok(Response::ok(json!({ "value": value })))
    }

    /// The machines of a pool, in order of their numbers.
    async fn machines(&self, found: &Found, pool: &str) -> Result<Vec<MachineRecord>, ArmError> {
        let (machines, _) = list_records::<MachineRecord>(&*self.store, &key::machine(""))
            .await
            .map_err(fault)?;
        let uid = &found.record.value.uid;
        let mut of_pool: Vec<(u32, MachineRecord)> = machines
            .into_iter()
            .filter_map(|(_, stored)| {
                let machine = stored.value;
                let assignment = machine.assignment.as_ref()?;
                match &assignment.role {
                    Role::Node { pool: own, index, .. }
                        if own == pool && &assignment.cluster == uid && !machine.deleting =>
                    {
                        Some((*index, machine))
                    }
                    _ => None,
                }
            })
            .collect();
        of_pool.sort_by_key(|(index, _)| *index);
        Ok(of_pool.into_iter().map(|(_, machine)| machine).collect())
    }

    async fn get_machines(&self, request: &Request) -> Result<Response, ArmError> {
        let (found, pool) = self.need_pool(At::of(request)?).await?;
        let seen = found.seen();
        let machines = self.machines(&found, &pool).await?;
        let mut value = machines.iter().filter_map(|machine| seen.machine(machine));
        let Some(name) = request.path.name(2) else {
            let value: Vec<Value> = value.collect();
            return Ok(Response::ok(json!({ "value": value })));
        };
        let one = value.find(|item| {
            item["name"]
                .as_str()
                .is_some_and(|own| own.eq_ignore_ascii_case(name))
        });
        one.map(Response::ok).ok_or_else(|| {
            let message = format!("The pool '{pool}' has no machine {}.", quote(name));
            ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message)
        })
    }

    async fn credential(&self, request: &Request, kind: CredentialKind) -> Result<Response, ArmError> {
        let found = self.need(At::of(request)?).await?;
        let encoded = self.kubeconfig(request, &found, kind).await?;
        Ok(Response::ok(credentials::results(kind, &encoded)))
    }

    async fn kubeconfig(
        &self,
        request: &Request,
        found: &Found,
        kind: CredentialKind,
    ) -> Result<String, ArmError> {
        let record = &found.record.value;
        credentials::kubeconfig(&*self.credentials, request, record, found.observed.as_ref(), kind).await
    }

    async fn access_profile(&self, request: &Request) -> Result<Response, ArmError> {
        let at = At::of(request)?;
        let found = self.need(at).await?;
        let kinds = [CredentialKind::Admin, CredentialKind::User];
        let Some(kind) = kinds
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(at.child))
        else {
            let message = format!(
                "There is no access profile {}; use clusterAdmin or clusterUser.",
                quote(at.child)
            );
            return Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message));
        };
        let encoded = self.kubeconfig(request, &found, kind).await?;
        let record = &found.record.value;
        let id = cluster_id(&record.subscription, &record.resource_group, &record.name);
        Ok(Response::ok(json!({
            "id": format!("{id}/accessProfiles/{}", kind.name()),
            "name": kind.name(),
            "type": "Microsoft.ContainerService/managedClusters/accessProfiles",
            "location": record.spec.location,
            "properties": { "kubeConfig": encoded },
        })))
    }

    fn check_location(&self, request: &Request) -> Result<(), ArmError> {
        let asked = request.path.name(0).unwrap_or_default();
        let plain = asked.replace(' ', "");
        if plain.eq_ignore_ascii_case(&self.config.location) {
            return Ok(());
        }
        let message = format!(
            "The location {} is not available here; use '{}'.",
            quote(asked),
            self.config.location
        );
        Err(ArmError::new(ErrorCode::LOCATION_NOT_AVAILABLE, message).target("location"))
    }

    /// Upgrade profiles are all called `default`.
    fn check_default(name: &str) -> Result<(), ArmError> {
        if name.eq_ignore_ascii_case("default") {
            return Ok(());
        }
        let message = format!(
            "There is no upgrade profile {}; the only one is 'default'.",
            quote(name)
        );
        Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message))
    }
}

fn operations() -> Value {
    let register = json!({
        "name": format!("{NAMESPACE}/register/action"),
        "isDataAction": false,
        "display": { "provider": NAMESPACE, "resource": "Subscription", "operation": "Register",
            "description": "Registers the subscription with the provider." },
    });
    let mut names: Vec<(String, &str)> = ROUTES
        .iter()
        .filter(|route| !route.path.starts_with("operations"))
        .map(|route| {
            let path = route.path.trim_end_matches('/');
            let (resource, verb) = match (route.method, path.rsplit_once("/:")) {
                (_, Some((resource, action))) => (format!("{resource}/{action}"), "action"),
                ("GET", _) => (path.to_owned(), "read"),
                ("DELETE", _) => (path.to_owned(), "delete"),
                _ => (path.to_owned(), "write"),
            };
            (format!("{NAMESPACE}/{resource}/{verb}"), path)
        })
        .collect();
    names.sort();
    names.dedup_by(|a, b| a.0 == b.0);
    let rest = names.into_iter().map(|(name, resource)| {
        json!({
            "name": name,
            "isDataAction": false,
            "display": { "provider": NAMESPACE, "resource": resource, "operation": name.rsplit('/').next(), "description": name },
        })
    });
    let value: Vec<Value> = std::iter::once(register).chain(rest).collect();
    json!({ "value": value })
}

#[async_trait]
impl Provider for ContainerService {
    fn namespace(&self) -> &'static str {
        NAMESPACE
    }

    fn api_versions(&self) -> &'static [&'static str] {
        API_VERSIONS
    }

    fn routes(&self) -> &'static [Route] {
        ROUTES
    }

    async fn handle(&self, route: &'static Route, request: Request) -> Result<Response, ArmError> {
        let request = &request;
        let offered = &self.config.offered;
        let version = &request.api_version;
        match route.name {
            "ManagedClusters_CreateOrUpdate" => self.put_cluster(request).await,
            "ManagedClusters_Get" => {
                let found = self.need(At::of(request)?).await?;
                Ok(Response::ok(found.seen().cluster(version)))
            }
            "ManagedClusters_List" | "ManagedClusters_ListByResourceGroup" => self.list(request).await,
            "ManagedClusters_UpdateTags" => self.patch_cluster(request).await,
            "ManagedClusters_AbortLatestOperation" => self.abort(request, false).await,
            "AgentPools_AbortLatestOperation" => self.abort(request, true).await,
            "ManagedClusters_Delete" => self.delete_cluster(request).await,
            "ManagedClusters_ListClusterAdminCredentials" => {
                self.credential(request, CredentialKind::Admin).await
            }
            "ManagedClusters_ListClusterUserCredentials" => {
                self.credential(request, CredentialKind::User).await
            }
            "ManagedClusters_ListClusterMonitoringUserCredentials" => {
                self.credential(request, CredentialKind::Monitoring).await
            }
            "ManagedClusters_GetAccessProfile" => self.access_profile(request).await,
            "ManagedClusters_GetUpgradeProfile" => {
                let at = At::of(request)?;
                Self::check_default(at.child)?;
                let found = self.need(at).await?;
                Ok(Response::ok(found.seen().upgrade_profile(offered)))
            }
            "ManagedClusters_ListKubernetesVersions" => {
                self.check_location(request)?;
                Ok(Response::ok(render::kubernetes_versions(offered)))
            }
            "AgentPools_CreateOrUpdate" => self.put_pool(request).await,
            "AgentPools_Get" => {
                let (found, pool) = self.need_pool(At::of(request)?).await?;
                Ok(Response::ok(found.seen().pool(&pool, version)))
            }
            "AgentPools_List" => self.list_pools(request).await,
            "AgentPools_Delete" => self.delete_pool(request).await,
            "AgentPools_GetAvailableAgentPoolVersions" => {
                let found = self.need(At::of(request)?).await?;
                Ok(Response::ok(found.seen().pool_versions(offered)))
            }
            "AgentPools_GetUpgradeProfile" => {
                Self::check_default(request.path.name(2).unwrap_or_default())?;
                let (found, pool) = self.need_pool(At::of(request)?).await?;
                Ok(Response::ok(found.seen().pool_upgrade_profile(&pool, offered)))
            }
            "Machines_Get" | "Machines_List" => self.get_machines(request).await,
            "Operations_List" => Ok(Response::ok(operations())),
            name => {
                let message = format!("The operation {name} is part of the API and not there yet.");
                Err(ArmError::new(ErrorCode::NOT_IMPLEMENTED, message))
            }
        }
    }

    async fn resources(
        &self,
        subscription: &str,
        resource_group: Option<&str>,
    ) -> Result<Vec<Value>, ArmError> {
        let all = self.all(subscription, resource_group).await?;
        Ok(all.iter().map(|found| found.seen().summary()).collect())
    }

    async fn delete_resource_group(
        &self,
        subscription: &str,
        resource_group: &str,
    ) -> Result<usize, ArmError> {
        // The nodes of a cluster live in a group of their own: it goes with the cluster, not before it.
        let nodes_of = self
            .all(subscription, None)
            .await?
            .into_iter()
            .map(|found| found.record.value)
            .find(|record| {
                record
                    .spec
                    .node_resource_group
                    .eq_ignore_ascii_case(resource_group)
            });
        if let Some(cluster) = nodes_of {
            if cluster.deleting {
                return Ok(1);
            }
            let message = format!(
                "The resource group {} belongs to the cluster '{}' in '{}'; delete the cluster.",
                quote(resource_group),
                cluster.name,
                cluster.resource_group
            );
            return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message));
        }
        let mut left = 0;
        for found in self.all(subscription, Some(resource_group)).await? {
            let record = &found.record.value;
            left += 1;
            if record.deleting {
                continue;
            }
            let principal = Principal {
                object_id: String::new(),
                name: record.modified_by.clone(),
                tenant_id: String::new(),
                kind: if record.modified_by_type == "User" {
                    PrincipalKind::User
                } else {
                    PrincipalKind::Application
                },
            };
            let context = Context {
                config: &self.config,
                ids: &*self.env.ids,
                now: self.env.clock.now(),
                principal: &principal,
                api_version: API_VERSIONS[0],
                running: None,
            };
            let at = At {
                subscription: &record.subscription,
                group: &record.resource_group,
                cluster: &record.name,
                child: "",
            };
            self.mark_deleting(at, &context, |_| Ok(())).await?;
        }
        Ok(left)
    }
}
