//! Answers: records as ARM resources, for the api-version asked for. Pure.

use arm_kernel::system_data;
use cluster_spec::{PoolSpec, node_image_version};
use cluster_versions::{Offered, Version};
use control_records::{MachineRecord, Part, Role};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    access,
    body::{MAX_POOLS, pool_body},
    draft::system_data_of,
    hooks,
    power::power_state,
    soak,
    state::{ProvisioningState, cluster_state, leaving_state, pool_state},
    view::ClusterView,
};
use crate::{
    conversion::to_client,
    images::Images,
    pools::rollback,
    properties::{CLUSTER, POOL},
};

/// Since this api-version upgrade profiles of pools tell what a pool can go back to.
const ROLLBACK_SINCE: &str = "2026-04-01";

impl ClusterView<'_> {
    /// What is wrong, where the state says that something is.
    fn status(&self, state: ProvisioningState) -> Option<Value> {
        if state != ProvisioningState::Failed {
            return None;
        }
        let error = self.operation.and_then(|operation| operation.error.as_ref());
        let problem = self.observed.and_then(|observed| observed.problem.as_ref());
        let message = problem.or(error.map(|error| &error.message))?;
        let code = error.map_or("OperationNotAllowed", |error| error.code.as_str());
        Some(json!({ "provisioningError": { "code": code, "message": message } }))
    }

    /// A cluster.
    pub(crate) fn cluster(&self, api_version: &str) -> Value {
        let record = self.record;
        let state = cluster_state(record, self.observed, self.operation);
        let mut answer = record.body().clone();
        answer["id"] = json!(self.id());
        answer["name"] = json!(record.name);
        answer["type"] = json!("Microsoft.ContainerService/managedClusters");
        answer["systemData"] = system_data::document(&system_data_of(record));
        let pools: Vec<Value> = self
            .pool_names()
            .into_iter()
            .map(|pool| self.pool_properties(pool))
            .collect();
        let running = self
            .observed
            .and_then(|observed| observed.kubernetes_version.as_ref());
        let properties = &mut answer["properties"];
        properties["agentPoolProfiles"] = Value::Array(pools);
        properties["provisioningState"] = json!(state.as_str());
        properties["powerState"] = json!({ "code": "Running" });
        hooks::show(self, properties);
        properties["fqdn"] = json!(record.spec().fqdn);
        if let Some(name) = access::private_name(record) {
            properties["privateFQDN"] = json!(name);
        }
        if let Some(issuer) = &record.spec().issuer {
            properties["oidcIssuerProfile"]["issuerURL"] = json!(issuer);
        }
        properties["currentKubernetesVersion"] = json!(running.unwrap_or(&record.spec().kubernetes_version));
        properties["maxAgentPools"] = json!(MAX_POOLS);
        properties["resourceUID"] = json!(record.uid);
        if let Some(status) = self.status(state) {
            properties["status"] = status;
        }
        to_client(&CLUSTER, &mut answer, api_version);
        answer
    }

    /// A pool's properties as they stand in a cluster, with its name.
    fn pool_properties(&self, name: &str) -> Value {
        let record = self.record;
        let (mut properties, version, state) = match self.leaving(name) {
            Some(leaving) => {
                let operation = self.pool_operation(&leaving.part(), Some(&leaving.operation));
                (
                    leaving.pool.body().clone(),
                    leaving.spec().kubernetes_version.as_str(),
                    leaving_state(operation),
                )
            }
            None => {
                let operation =
                    self.pool_operation(&Part::pool(name), record.requests.pool_operations.get(name));
                let pool = record.spec().pools.iter().find(|pool| pool.name == name);
                (
                    pool_body(record, name).clone(),
                    pool.map_or(record.spec().kubernetes_version.as_str(), |pool| {
                        self.running(pool)
                    }),
                    pool_state(record, name, self.observed, operation),
                )
            }
        };
        let stopped = properties["powerState"]["code"] == json!("Stopped");
        properties["provisioningState"] = json!(state.as_str());
        properties["powerState"] = json!({ "code": "Running" });
        hooks::show(self, &mut properties);
        // What it is to be: clients send it back, also while its nodes go.
        if stopped {
            properties["powerState"] = power_state(true);
        }
        properties["currentOrchestratorVersion"] = json!(version);
        // What is wished for: clients send it back, also while nodes are on their way there.
        let wished = record.spec().pools.iter().find(|pool| pool.name == name);
        let image = match wished {
            Some(pool) => node_image_version(&pool.kubernetes_version, pool.image.as_deref()),
            None => node_image_version(version, None),
        };
        properties["nodeImageVersion"] = json!(image);
        properties
    }

    /// The version of a pool's nodes, as long as not all of them have its own the one before.
    fn running<'s>(&'s self, pool: &'s PoolSpec) -> &'s str {
        let record = self.record;
        let own = record
            .pool_generations
            .get(&pool.name)
            .copied()
            .unwrap_or_default();
        let there = self
            .observed
            .is_some_and(|observed| observed.has_reached(&Part::pool(&pool.name), own));
        let before = record.requests.reached.as_deref().filter(|_| !there);
        before
            .and_then(|reached| {
                let mut pools = reached.state.spec().pools.iter();
                pools.find(|before| before.incarnation == pool.incarnation)
            })
            .map_or(&pool.kubernetes_version, |before| &before.kubernetes_version)
    }

    /// A pool as a resource of its own.
    pub(crate) fn pool(&self, name: &str, api_version: &str) -> Value {
        let mut properties = self.pool_properties(name);
        if let Some(properties) = properties.as_object_mut() {
            properties.remove("name");
        }
        let mut answer = json!({
            "id": format!("{}/agentPools/{name}", self.id()),
            "name": name,
            "type": "Microsoft.ContainerService/managedClusters/agentPools",
            "properties": properties,
        });
        to_client(&POOL, &mut answer, api_version);
        answer
    }

    /// One line of a resource list.
    pub(crate) fn summary(&self) -> Value {
        let record = self.record;
        let mut item = json!({
            "id": self.id(),
            "name": record.name,
            "type": "Microsoft.ContainerService/managedClusters",
            "location": record.spec().location,
            "tags": record.body().get("tags").cloned().unwrap_or_else(|| json!({})),
        });
        item["kind"] = json!("Base");
        for field in ["sku", "identity"] {
            if let Some(value) = record.body().get(field) {
                item[field] = value.clone();
            }
        }
        item["createdTime"] = json!(record.created_at.to_string());
        item["changedTime"] = json!(record.modified_at.to_string());
        item["provisioningState"] = json!(cluster_state(record, self.observed, self.operation).as_str());
        item
    }

    /// `upgradeProfiles/default` of the cluster.
    pub(crate) fn upgrade_profile(&self, offered: &Offered) -> Value {
        let record = self.record;
        let profile = |version: &str, upgrades: Vec<Value>| json!({ "kubernetesVersion": version, "osType": "Linux", "upgrades": upgrades });
        let pools: Vec<Value> = record
            .spec()
            .pools
            .iter()
            .map(|pool| {
                let mut item = profile(&pool.kubernetes_version, self.node_upgrades(pool, offered));
                item["name"] = json!(pool.name);
                item
            })
            .collect();
        let control_plane = &record.spec().kubernetes_version;
        let upgrades = control_plane.parse().map(|from| offered.upgrades(from));
        json!({
            "id": format!("{}/upgradeprofiles/default", self.id()),
            "name": "default",
            "type": "Microsoft.ContainerService/managedClusters/upgradeprofiles",
            "properties": {
                "controlPlaneProfile": profile(control_plane, shown(upgrades.unwrap_or_default())),
                "agentPoolProfiles": pools,
            },
        })
    }

    /// Where a pool's nodes may go while the control plane stays.
    fn node_upgrades(&self, pool: &PoolSpec, offered: &Offered) -> Vec<Value> {
        let versions = (
            pool.kubernetes_version.parse(),
            self.record.spec().kubernetes_version.parse(),
        );
        let (Ok(from), Ok(control_plane)) = versions else {
            return Vec::new();
        };
        let control_plane = soak::soaking(self.record).map_or(control_plane, |soaking| soaking.from);
        shown(offered.node_upgrades(from, control_plane))
    }

    /// `upgradeProfiles/default` of a pool.
    pub(crate) fn pool_upgrade_profile(
        &self,
        name: &str,
        offered: &Offered,
        images: &Images,
        api_version: &str,
        now: Timestamp,
    ) -> Value {
        let pool = self.record.spec().pools.iter().find(|pool| pool.name == name);
        let version = pool.map_or("", |pool| pool.kubernetes_version.as_str());
        let own = pool.and_then(|pool| pool.image.as_deref());
        let mut profile = json!({
            "id": format!("{}/agentPools/{name}/upgradeProfiles/default", self.id()),
            "name": "default",
            "type": "Microsoft.ContainerService/managedClusters/agentPools/upgradeProfiles",
            "properties": {
                "kubernetesVersion": version,
                "osType": "Linux",
                "upgrades": pool.map(|pool| self.node_upgrades(pool, offered)).unwrap_or_default(),
                "latestNodeImageVersion": node_image_version(version, images.newest(version).or(own)),
            },
        });
        if api_version >= ROLLBACK_SINCE {
            let all = self.record.state.pools();
            let desired = all.iter().find(|pool| pool.spec().name == name);
            profile["properties"]["recentlyUsedVersions"] =
                desired.map_or_else(|| json!([]), |pool| rollback::recently_used(pool, now));
        }
        profile
    }

    /// `availableAgentPoolVersions`.
    pub(crate) fn pool_versions(&self, offered: &Offered) -> Value {
        let control_plane = self.record.spec().kubernetes_version.parse::<Version>().ok();
        let emulated = soak::soaking(self.record).map(|soaking| soaking.from);
        let control_plane = emulated.or(control_plane);
        let versions: Vec<Value> = control_plane
            .map(|control_plane| offered.node_versions(control_plane))
            .unwrap_or_default()
            .into_iter()
            .map(|version| {
                json!({ "kubernetesVersion": version, "default": Some(version) == control_plane, "isPreview": false })
            })
            .collect();
        json!({
            "id": format!("{}/availableAgentPoolVersions/default", self.id()),
            "name": "default",
            "type": "Microsoft.ContainerService/managedClusters/availableAgentPoolVersions",
            "properties": { "agentPoolVersions": versions },
        })
    }

    /// A node of a pool.
    pub(crate) fn machine(&self, machine: &MachineRecord) -> Option<Value> {
        let Role::Node {
            pool,
            index,
            node_name,
            address,
            ..
        } = &machine.assignment.as_ref()?.role
        else {
            return None;
        };
        // Six characters of number at the end are the machine's; what stands before is its scale set.
        let set = node_name
            .get(..node_name.len().saturating_sub(6))
            .unwrap_or(node_name);
        let spec = self.record.spec();
        let resource = arm_ids::resource_id(
            &self.record.subscription,
            &spec.node_resource_group,
            "Microsoft.Compute",
            &[
                ("virtualMachineScaleSets", set),
                ("virtualMachines", &index.to_string()),
            ],
        );
        Some(json!({
            "id": format!("{}/agentPools/{pool}/machines/{node_name}", self.id()),
            "name": node_name,
            "type": "Microsoft.ContainerService/managedClusters/agentPools/machines",
            "properties": {
                "resourceId": resource,
                "network": { "ipAddresses": [{ "family": "IPv4", "ip": address }] },
            },
            "zones": [],
        }))
    }
}

/// Versions to upgrade to.
fn shown(versions: Vec<Version>) -> Vec<Value> {
    let each = versions.into_iter();
    each.map(|version| json!({ "kubernetesVersion": version, "isPreview": false }))
        .collect()
}

/// `locations/{l}/kubernetesVersions`.
pub(crate) fn kubernetes_versions(offered: &Offered) -> Value {
    let default = offered.default_version();
    let values: Vec<Value> = offered
        .minors()
        .into_iter()
        .map(|(major, minor)| {
            let patches: Map<String, Value> = offered
                .versions()
                .iter()
                .filter(|version| (version.major, version.minor) == (major, minor))
                .map(|version| {
                    (
                        version.to_string(),
                        json!({ "upgrades": offered.upgrades(*version) }),
                    )
                })
                .collect();
            json!({
                "version": format!("{major}.{minor}"),
                "isDefault": (default.major, default.minor) == (major, minor),
                "isPreview": false,
                "capabilities": { "supportPlan": ["KubernetesOfficial"] },
                "patchVersions": patches,
            })
        })
        .collect();
    json!({ "values": values })
}
