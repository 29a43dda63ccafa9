//! kube-proxy, in nftables mode.

use cluster_spec::{ClusterSpec, PodNetworking};
use serde_json::{Value, json};

use crate::NodePlace;

pub(crate) const CONFIG: &str = "/etc/kubernetes/kube-proxy.json";
pub(crate) const KUBECONFIG: &str = "/etc/kubernetes/kube-proxy.kubeconfig";
pub(crate) const IDENTITY: &str = "/etc/kubernetes/pki/kube-proxy-client";

pub(crate) fn config(spec: &ClusterSpec, node: &NodePlace) -> Value {
    let mut config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": { "kubeconfig": KUBECONFIG },
        "hostnameOverride": node.node_name,
        "bindAddress": "0.0.0.0",
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        // These sysctls are the host's and read-only in a machine: 0 leaves them unchanged.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        "nftables": { "minSyncPeriod": "0.1s", "syncPeriod": "30s" }
    });
    match (spec.network.plugin, spec.network.pod_range) {
        // The plugin is the user's, with its ranges and interface names: no traffic is identified as that of
        // local pods.
        (PodNetworking::None, _) => config["detectLocalMode"] = json!("ClusterCIDR"),
        (_, Some(range)) => {
            config["clusterCIDR"] = json!(range);
            config["detectLocalMode"] = json!("ClusterCIDR");
        }
        // Pods' addresses are the subnet's: their traffic is identified by its interface.
        (_, None) => {
            config["detectLocalMode"] = json!("InterfaceNamePrefix");
            config["detectLocal"] = json!({ "interfaceNamePrefix": "veth" });
        }
    }
    config
}
