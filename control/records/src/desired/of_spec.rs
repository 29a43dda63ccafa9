//! For tests of what reads specs: the least body and decisions from which a spec follows.

use std::collections::BTreeMap;

use cluster_spec::{ApiAccess, ClusterSpec, IngressSpec, PodNetworking, PoolSpec};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Archive, Decided, DecidedPool, DesiredPool, DesiredState, Ranges, Soak};
use crate::{ClusterRecord, Requests};

impl DesiredState {
    /// The state that this spec follows from.
    ///
    /// # Panics
    /// When there is none: two pools of a name, say.
    pub fn of_spec(spec: &ClusterSpec) -> Self {
        let (plugin, mode) = match spec.network.plugin {
            PodNetworking::Kubenet => ("kubenet", None),
            PodNetworking::AzureFlat => ("azure", None),
            PodNetworking::AzureOverlay => ("azure", Some("overlay")),
            PodNetworking::None => ("none", None),
        };
        let power = if spec.stopped { "Stopped" } else { "Running" };
        let (private, ranges) = match &spec.access {
            ApiAccess::Open => (false, &[][..]),
            ApiAccess::Ranges(ranges) => (false, ranges.as_slice()),
            ApiAccess::Private => (true, &[][..]),
        };
        let body = json!({
            "location": spec.location,
            "sku": { "tier": format!("{:?}", spec.tier) },
            "properties": {
                "nodeResourceGroup": spec.node_resource_group,
                "disableLocalAccounts": spec.disable_local_accounts,
                "powerState": { "code": power },
                "oidcIssuerProfile": { "enabled": spec.issuer.is_some() },
                "securityProfile": { "workloadIdentity": { "enabled": spec.workload_identity } },
                "aadProfile": spec.directory.as_ref().map(|directory| json!({
                    "managed": true,
                    "tenantID": directory.tenant,
                    "adminGroupObjectIDs": directory.admins,
                    "enableAzureRBAC": directory.roles,
                })),
                "storageProfile": {
                    "diskCSIDriver": { "enabled": !spec.disks_off },
                    "fileCSIDriver": { "enabled": !spec.files_off },
                    "snapshotController": { "enabled": !spec.snapshots_off },
                },
                "apiServerAccessProfile": { "enablePrivateCluster": private, "authorizedIPRanges": ranges },
                "networkProfile": {
                    "networkPlugin": plugin,
                    "networkPluginMode": mode,
                    "podCidr": spec.network.pod_range,
                    "serviceCidr": spec.network.service_range,
                    "dnsServiceIP": spec.network.dns_service_ip,
                    "outboundType": if spec.network.outbound { "loadBalancer" } else { "none" },
                    "networkPolicy": spec.network.policy.name(),
                },
                "upgradeSettings": spec.forced_until.and_then(|until| Timestamp::from_millisecond(until).ok()).map(|until| json!({
                    "overrideSettings": { "forceUpgrade": true, "until": until.to_string() },
                })),
                "agentPoolProfiles": spec.pools.iter().map(pool_body).collect::<Vec<_>>(),
            },
        });
        let mut body = body;
        if !spec.autoscaler.is_default() {
            body["properties"]["autoScalerProfile"] = json!(spec.autoscaler.texts());
        }
        if !spec.ingress.is_nothing() {
            body["properties"]["ingressProfile"] = ingress_body(spec.ingress);
        }
        let decided = Decided {
            name: spec.name.clone(),
            resource_group: spec.resource_group.clone(),
            fqdn: spec.fqdn.clone(),
            kubernetes_version: spec.kubernetes_version.clone(),
            ranges: Ranges {
                vnet: spec.network.vnet_range,
                nodes: spec.network.node_range,
                control_plane: spec.network.control_plane_range,
            },
            vnet: spec.network.vnet.clone(),
            restore: spec.restore.clone(),
            issuer: spec.issuer.clone(),
            rotations: spec.rotations,
            soak: spec.emulated.as_ref().map(|minor| Soak {
                from: format!("{minor}.0"),
                since: 0,
                until: i64::MAX,
            }),
            archive: spec.archived.then(|| Archive {
                rule: String::new(),
                since: 0,
                stopped: None,
                verified: Some(0),
            }),
            pools: spec
                .pools
                .iter()
                .map(|pool| (pool.name.clone(), DecidedPool::of(pool)))
                .collect(),
        };
        let state = Self::new(body, decided).expect("a spec of a test is one that a body can ask for");
        assert_eq!(
            state.spec(),
            spec,
            "a spec of a test is one that a body can ask for"
        );
        state
    }
}

impl DesiredPool {
    /// The pool that this spec follows from.
    ///
    /// # Panics
    /// When there is none.
    pub fn of_spec(spec: &PoolSpec) -> Self {
        let pool = Self::new(pool_body(spec), DecidedPool::of(spec));
        pool.expect("a spec of a test is one that a body can ask for")
    }
}

impl ClusterRecord {
    /// A cluster that was made at this time to this spec, and about which nothing was asked since.
    ///
    /// # Panics
    /// As [`DesiredState::of_spec`].
    pub fn of_spec(uid: &str, spec: &ClusterSpec, at: Timestamp) -> Self {
        Self {
            v: 3,
            uid: uid.to_owned(),
            subscription: "s".to_owned(),
            resource_group: spec.resource_group.clone(),
            name: spec.name.clone(),
            generation: 1,
            pool_generations: spec.pools.iter().map(|pool| (pool.name.clone(), 1)).collect(),
            state: DesiredState::of_spec(spec),
            sealed: BTreeMap::new(),
            deleting: false,
            operation: "op".to_owned(),
            requests: Requests::default(),
            created_at: at,
            created_by: String::new(),
            created_by_type: String::new(),
            modified_at: at,
            modified_by: String::new(),
            modified_by_type: String::new(),
        }
    }

    /// Has the cluster be something else.
    ///
    /// # Panics
    /// As [`DesiredState::of_spec`].
    pub fn change_spec(&mut self, change: impl FnOnce(&mut ClusterSpec)) {
        let mut spec = self.spec().clone();
        change(&mut spec);
        self.state = DesiredState::of_spec(&spec);
    }
}

fn ingress_body(spec: IngressSpec) -> Value {
    json!({
        "webAppRouting": {
            "enabled": spec.controller.is_some(),
            "nginx": { "defaultIngressControllerType": spec.controller.unwrap_or_default().name() },
        },
        "gatewayAPI": { "installation": if spec.gateway_api { "Standard" } else { "Disabled" } },
    })
}

fn pool_body(spec: &PoolSpec) -> Value {
    let mut body = json!({
        "name": spec.name,
        "count": spec.count,
        "vmSize": spec.vm_size,
        "mode": spec.mode,
        "maxPods": spec.max_pods,
        "nodeLabels": spec.labels,
        "nodeTaints": spec.taints,
        "osDiskSizeGB": spec.os_disk_gib,
        "upgradeSettings": {
            "maxSurge": spec.surge.to_string(),
            "maxUnavailable": spec.unavailable.to_string(),
            "drainTimeoutInMinutes": spec.drain_minutes,
            "nodeSoakDurationInMinutes": spec.soak_minutes,
            "undrainableNodeBehavior": spec.undrainable,
        },
    });
    if spec.stopped {
        body["powerState"] = json!({ "code": "Stopped" });
    }
    if let Some(range) = spec.autoscale {
        body["enableAutoScaling"] = json!(true);
        body["minCount"] = json!(range.min);
        body["maxCount"] = json!(range.max);
    }
    body
}
