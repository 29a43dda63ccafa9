//! Requests of tenants as `az` sends them.

use anyhow::Result;
use control_records::{ClusterRecord, GroupRecord, directory, key};
use jiff::SignedDuration;
use providers_containerservice::{BACKUP_NAMESPACE, HISTORY_NAMESPACE, NAMESPACE};
use serde_json::{Value, json};

use crate::{
    stamp::{Answer, SUBSCRIPTION, Stamp},
    wishes::{CONTROL_PLANE, GROUP, Wish},
};

pub(crate) fn path(cluster: &str, rest: &str) -> String {
    format!("resourceGroups/{GROUP}/providers/{NAMESPACE}/managedClusters/{cluster}{rest}")
}

/// An action of the stamp's own namespace on the upgrade of a control plane.
fn own_path(cluster: &str, action: &str) -> String {
    path(cluster, &format!("/upgrades/default/{action}")).replace(NAMESPACE, HISTORY_NAMESPACE)
}

impl Stamp {
    /// Sends a request as `az` does: the resource is read, changed and put.
    pub async fn ask(&mut self, wish: &Wish) -> Result<Answer> {
        match wish {
            Wish::Group => {
                let body = json!({ "location": "local" });
                self.arm("PUT", &format!("resourcegroups/{GROUP}"), Some(body))
                    .await
            }
            Wish::DeleteGroup => self.arm("DELETE", &format!("resourcegroups/{GROUP}"), None).await,
            Wish::Create {
                cluster,
                pools,
                plugin,
                tier,
            } => {
                let group = key::group(SUBSCRIPTION, GROUP);
                if self.record::<GroupRecord>(&group).await?.is_none() {
                    Box::pin(self.ask(&Wish::Group)).await?;
                }
                let body = cluster_body(cluster, pools, plugin.as_deref(), tier.as_deref());
                self.arm("PUT", &path(cluster, ""), Some(body)).await
            }
            Wish::Tier { cluster, tier } => {
                self.put_again(cluster, |body| {
                    body["sku"] = json!({ "name": "Base", "tier": tier })
                })
                .await
            }
            Wish::Upgrade {
                cluster,
                version,
                only,
            } => match only.as_deref() {
                None | Some(CONTROL_PLANE) => {
                    self.put_again(cluster, |body| {
                        body["properties"]["kubernetesVersion"] = json!(version);
                        let pools = body["properties"]["agentPoolProfiles"].as_array_mut();
                        for pool in pools.into_iter().flatten().filter(|_| only.is_none()) {
                            pool["orchestratorVersion"] = json!(version);
                        }
                    })
                    .await
                }
                Some(pool) => {
                    self.put_pool(cluster, pool, |properties| {
                        properties["orchestratorVersion"] = json!(version);
                    })
                    .await
                }
            },
            Wish::Soak { cluster, version } => {
                let body = json!({ "kubernetesVersion": version });
                self.arm("POST", &own_path(cluster, "soak"), Some(body)).await
            }
            Wish::Finalize { cluster } => {
                self.arm("POST", &own_path(cluster, "finalize"), Some(json!({})))
                    .await
            }
            Wish::RollBack { cluster, .. } => {
                self.arm("POST", &own_path(cluster, "rollback"), Some(json!({})))
                    .await
            }
            Wish::PoolBack {
                cluster,
                pool,
                version,
            } => {
                let profile = path(cluster, &format!("/agentPools/{pool}/upgradeProfiles/default"));
                let profile = self.arm("GET", &profile, None).await?;
                let used = &profile.body["properties"]["recentlyUsedVersions"][0];
                let image = used["nodeImageVersion"].clone();
                self.put_pool(cluster, pool, |properties| {
                    properties["orchestratorVersion"] = json!(version);
                    properties["nodeImageVersion"] = image;
                })
                .await
            }
            Wish::Renew { cluster, pool } => {
                let path = path(cluster, &format!("/agentPools/{pool}/upgradeNodeImageVersion"));
                self.arm("POST", &path, None).await
            }
            Wish::Pool { cluster, pool, count } => {
                let count = *count;
                self.put_pool(cluster, pool, |properties| properties["count"] = json!(count))
                    .await
            }
            Wish::Label {
                cluster,
                pool,
                label: (name, value),
            } => {
                let (name, value) = (name.clone(), value.clone());
                self.put_pool(cluster, pool, |properties| {
                    properties["nodeLabels"][&name] = json!(value);
                })
                .await
            }
            Wish::Taint { cluster, pool, taint } => {
                let taint = taint.clone();
                self.put_pool(cluster, pool, |properties| {
                    if let Some(taints) = properties["nodeTaints"].as_array_mut()
                        && !taints.contains(&json!(taint))
                    {
                        taints.push(json!(taint));
                    }
                })
                .await
            }
            Wish::Drop { cluster, pool } => {
                self.arm("DELETE", &path(cluster, &format!("/agentPools/{pool}")), None)
                    .await
            }
            Wish::Delete { cluster } => self.arm("DELETE", &path(cluster, ""), None).await,
            Wish::Abort { cluster } => self.arm("POST", &path(cluster, "/abort"), None).await,
            Wish::Power { cluster, stopped } => {
                let action = if *stopped { "/stop" } else { "/start" };
                self.arm("POST", &path(cluster, action), None).await
            }
            Wish::Rotate { cluster, keys } => {
                let action = if *keys {
                    "/rotateServiceAccountSigningKeys"
                } else {
                    "/rotateClusterCertificates"
                };
                self.arm("POST", &path(cluster, action), None).await
            }
            Wish::Restore { cluster, ago, new } => {
                let at = self.env.clock.now() - SignedDuration::from_secs(i64::from(*ago));
                let mut body = json!({ "at": at.to_string() });
                if let Some(new) = new {
                    body["as"] = json!(new);
                }
                let path = path(cluster, "/restore").replace(NAMESPACE, BACKUP_NAMESPACE);
                self.arm("POST", &path, Some(body)).await
            }
        }
    }

    /// A cluster's record.
    pub async fn cluster(&self, name: &str) -> Result<Option<ClusterRecord>> {
        let found = directory::cluster_named(&*self.disk, SUBSCRIPTION, GROUP, name).await?;
        Ok(found.map(|found| found.value))
    }

    /// A cluster as ARM shows it.
    pub async fn show(&mut self, name: &str) -> Result<Answer> {
        self.arm("GET", &path(name, ""), None).await
    }

    /// Reads the cluster, changes the body and sends it back.
    pub(crate) async fn put_again(
        &mut self,
        cluster: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<Answer> {
        let Some(present) = self.cluster(cluster).await? else {
            return self.arm("GET", &path(cluster, ""), None).await;
        };
        let mut body = present.body().clone();
        if let Some(members) = body.as_object_mut() {
            members.remove("eTag");
        }
        for pool in body["properties"]["agentPoolProfiles"]
            .as_array_mut()
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            pool.remove("eTag");
        }
        change(&mut body);
        self.arm("PUT", &path(cluster, ""), Some(body)).await
    }

    /// The PUT of a pool with other upgrade settings. The checks of a settled stamp do not depend on them.
    pub(crate) async fn set_upgrades(
        &mut self,
        cluster: &str,
        pool: &str,
        settings: Value,
    ) -> Result<Answer> {
        self.put_pool(cluster, pool, |properties| {
            properties["upgradeSettings"] = settings
        })
        .await
    }

    pub(crate) async fn put_pool(
        &mut self,
        cluster: &str,
        pool: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<Answer> {
        let present = self.cluster(cluster).await?;
        let found = present
            .as_ref()
            .and_then(|record| record.spec().pools.iter().find(|spec| spec.name == pool));
        let mut properties = pool_body(pool, found.map_or(1, |spec| spec.count));
        if let Some(spec) = found {
            properties["nodeLabels"] = json!(spec.labels);
            properties["nodeTaints"] = json!(spec.taints);
        }
        change(&mut properties);
        let body = json!({ "properties": properties });
        let path = path(cluster, &format!("/agentPools/{pool}"));
        self.arm("PUT", &path, Some(body)).await
    }
}

/// Only `np1` is a system pool: others may have no nodes.
fn pool_body(name: &str, count: u32) -> Value {
    let mode = if name == "np1" { "System" } else { "User" };
    json!({
        "count": count, "mode": mode, "vmSize": "Standard_B2s", "osType": "Linux", "type": "VirtualMachineScaleSets",
        "nodeLabels": {}, "nodeTaints": [],
    })
}

fn cluster_body(name: &str, pools: &[(String, u32)], plugin: Option<&str>, tier: Option<&str>) -> Value {
    let pools: Vec<Value> = pools
        .iter()
        .map(|(name, count)| {
            let mut pool = pool_body(name, *count);
            pool["name"] = json!(name);
            pool
        })
        .collect();
    let network = match plugin.unwrap_or("kubenet") {
        "overlay" => json!({ "networkPlugin": "azure", "networkPluginMode": "overlay" }),
        plugin => json!({ "networkPlugin": plugin }),
    };
    json!({
        "location": "local",
        "identity": { "type": "SystemAssigned" },
        "sku": { "name": "Base", "tier": tier.unwrap_or("Free") },
        "properties": { "dnsPrefix": name, "agentPoolProfiles": pools, "networkProfile": network },
    })
}
