//! The kubelet: configuration, flags, and reservations.

use std::collections::BTreeMap;

use cluster_spec::{ClusterSpec, PoolSpec, VmSize};
use serde_json::{Value, json};

use crate::{NodePlace, containerd, paths::CA_FILE};

pub(crate) const CONFIG: &str = "/etc/kubernetes/kubelet.json";
pub(crate) const KUBECONFIG: &str = "/etc/kubernetes/kubelet.kubeconfig";
/// The directory of static pods, as in AKS. The node image has it.
const STATIC_PODS: &str = "/etc/kubernetes/manifests";
/// Its client certificate until it has renewed that by itself, without a restart.
pub(crate) const IDENTITY: &str = "/etc/kubernetes/pki/kubelet-client";

pub(crate) fn config(spec: &ClusterSpec, pool: &PoolSpec, node: &NodePlace, size: &VmSize) -> Value {
    let reserved = Reserved::of(size, pool.max_pods);
    // The kubelet sees the host's cores and memory. Everything beyond the machine's size is reserved for "the
    // system", so that Allocatable is that of a machine of this size.
    let beyond_cores = node.host_cores.saturating_sub(size.cores);
    let beyond_memory = node.host_memory_mib.saturating_sub(size.memory_mib);
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": CA_FILE }
        },
        "authorization": { "mode": "Webhook" },
        "serverTLSBootstrap": true,
        "rotateCertificates": true,
        "tlsMinVersion": "VersionTLS12",
        "clusterDomain": "cluster.local",
        "clusterDNS": [spec.network.dns_service_ip],
        "containerRuntimeEndpoint": format!("unix://{}", containerd::SOCKET),
        "providerID": provider_id(spec, node),
        "maxPods": pool.max_pods,
        // A quarter of the smallest machine's limit: one pod cannot exhaust the node's.
        "podPidsLimit": 4096,
        "registerWithTaints": pool.taints.iter().filter_map(|taint| parse_taint(taint)).collect::<Vec<_>>(),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": "/",
        "failCgroupV1": false,
        "failSwapOn": false,
        // As on any node. A host without CAP_SYS_RESOURCE refuses it: the kubelet logs that and continues
        // with the machine's own value.
        "oomScoreAdj": -999,
        "kubeReserved": { "cpu": format!("{}m", reserved.cpu_millis), "memory": format!("{}Mi", reserved.memory_mib) },
        "systemReserved": { "cpu": format!("{beyond_cores}"), "memory": format!("{beyond_memory}Mi") },
        "enforceNodeAllocatable": ["pods"],
        "containerLogMaxSize": "50Mi",
        "containerLogMaxFiles": 5,
        "nodeStatusUpdateFrequency": "10s",
        "protectKernelDefaults": false,
        "makeIPTablesUtilChains": true,
        // Pods without a seccomp profile get the container runtime's default.
        "seccompDefault": true,
        // A large image does not delay others.
        "serializeImagePulls": false,
        "staticPodPath": STATIC_PODS,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        "readOnlyPort": 0,
        "volumePluginDir": "/var/lib/kubelet/volumeplugins"
    });
    if let (Some(members), Value::Object(disk)) = (config.as_object_mut(), disk(node.own_disk)) {
        members.extend(disk);
    }
    config
}

/// The allocatable resources of a machine of a size: thousandths of a core, and bytes of memory.
pub(crate) fn allocatable(size: &VmSize, max_pods: u32) -> (u64, u64) {
    let reserved = Reserved::of(size, max_pods);
    let cpu = u64::from(size.cores) * 1000 - u64::from(reserved.cpu_millis);
    // Includes the memory that `evictionHard` keeps free.
    let memory = size.memory_mib.saturating_sub(reserved.memory_mib + 100);
    (cpu, memory << 20)
}

/// Thresholds of pod eviction and image garbage collection. Images of the node image are pinned when they are
/// imported (`node::import`), and the kubelet removes no pinned image, neither by its thresholds nor under
/// disk pressure.
fn disk(own: bool) -> Value {
    if own {
        // As in AKS. Images are on the same filesystem, so its one threshold applies to both: unused images
        // are removed first.
        json!({
            "evictionHard": { "memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%" },
            "imageGCHighThresholdPercent": 85,
            "imageGCLowThresholdPercent": 80
        })
    } else {
        // The host's disk, shared: its usage says nothing about this machine. Images are removed by age.
        json!({
            "evictionHard": { "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%" },
            "imageGCHighThresholdPercent": 100,
            "imageMaximumGCAge": "168h"
        })
    }
}

/// Where a kubelet keeps what the cluster has signed for it: elsewhere once that is not to be shown any more, so that it asks anew.
fn signed(signings: u32) -> String {
    match signings {
        0 => "/var/lib/kubelet/pki".to_owned(),
        signings => format!("/var/lib/kubelet/pki-{signings}"),
    }
}

/// `signings`: see [`cluster_pki::ClusterPki::signings`].
pub(crate) fn flags(node: &NodePlace, labels: &BTreeMap<String, String>, signings: u32) -> Vec<String> {
    let labels = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join(",");
    vec![
        format!("--config={CONFIG}"),
        format!("--kubeconfig={KUBECONFIG}"),
        format!("--cert-dir={}", signed(signings)),
        "--root-dir=/var/lib/kubelet".to_owned(),
        format!("--hostname-override={}", node.node_name),
        format!("--node-ip={}", node.address),
        format!("--node-labels={labels}"),
    ]
}

/// The labels that a kubelet may set on itself: all outside the Kubernetes domains, and a short list within
/// them (the admission plugin `NodeRestriction`). The service sets the others.
pub(crate) fn own_labels(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    const ALLOWED: &[&str] = &[
        "node.kubernetes.io/instance-type",
        "beta.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
    ];
    let restricted = |name: &str| {
        name.split_once('/').is_some_and(|(domain, _)| {
            ["kubernetes.io", "k8s.io"]
                .iter()
                .any(|owned| domain == *owned || domain.ends_with(&format!(".{owned}")))
        })
    };
    labels
        .iter()
        .filter(|(name, _)| ALLOWED.contains(&name.as_str()) || !restricted(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// In the format of Azure's cloud provider.
fn provider_id(spec: &ClusterSpec, node: &NodePlace) -> String {
    let (scale_set, index) = node
        .node_name
        .rsplit_once("vmss")
        .unwrap_or((&node.node_name, "0"));
    let index = u64::from_str_radix(index, 36).unwrap_or_default();
    format!(
        "azure:///subscriptions/{}/resourceGroups/{}/providers/Microsoft.Compute/virtualMachineScaleSets/{scale_set}vmss/virtualMachines/{index}",
        node.subscription,
        spec.node_resource_group.to_lowercase(),
    )
}

/// `key=value:Effect` or `key:Effect`.
fn parse_taint(taint: &str) -> Option<Value> {
    let (pair, effect) = taint.rsplit_once(':')?;
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    Some(json!({ "key": key, "value": value, "effect": effect }))
}

/// AKS' reservation for Kubernetes itself on a node (its documented formula, Kubernetes 1.29 and later).
#[derive(Debug, PartialEq, Eq)]
struct Reserved {
    cpu_millis: u32,
    memory_mib: u64,
}

impl Reserved {
    fn of(size: &VmSize, max_pods: u32) -> Self {
        let cpu_millis = match size.cores {
            0 | 1 => 60,
            2 | 3 => 100,
            4..8 => 140,
            8..16 => 180,
            16..32 => 260,
            32..64 => 420,
            _ => 740,
        };
        // 20 MB per pod and 50 MB, at most a quarter of the memory.
        let memory_mib = (20 * u64::from(max_pods) + 50).min(size.memory_mib / 4);
        Self {
            cpu_millis,
            memory_mib,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_follow_the_documented_example() {
        // AKS documentation: 8 GB and 30 pods reserve 650 MB.
        let size = VmSize {
            name: "x",
            cores: 2,
            memory_mib: 8192,
            disk_gib: 0,
        };
        assert_eq!(
            Reserved::of(&size, 30),
            Reserved {
                cpu_millis: 100,
                memory_mib: 650
            }
        );
        assert_eq!(Reserved::of(&size, 250).memory_mib, 2048);
    }

    #[test]
    fn a_kubelet_names_only_what_it_may() {
        let labels = [
            "kubernetes.io/role",
            "node-role.kubernetes.io/agent",
            "agentpool",
            "kubernetes.azure.com/mode",
        ]
        .map(|name| (name.to_owned(), String::new()));
        let own = own_labels(&BTreeMap::from(labels));
        assert_eq!(
            own.keys().collect::<Vec<_>>(),
            ["agentpool", "kubernetes.azure.com/mode"]
        );
    }

    #[test]
    fn taints_are_read_with_and_without_value() {
        assert_eq!(parse_taint("a=b:NoSchedule").unwrap()["value"], "b");
        assert_eq!(parse_taint("a:NoExecute").unwrap()["effect"], "NoExecute");
        assert!(parse_taint("a").is_none());
    }
}
