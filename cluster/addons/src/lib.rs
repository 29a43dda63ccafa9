//! The objects that Landfall keeps in every cluster: DNS, metrics, and the roles of its own credentials.
//!
//! Pure: a desired cluster in, Kubernetes objects out. The control loops apply them (server-side, forced) whenever the
//! cluster changes and whenever one of them was changed by somebody else.
//!
//! Always true: every object carries [`MANAGED_LABEL`], so that changes to it can be watched; images are those of the node
//! image and are never pulled; an object's name does not depend on its content.

mod dns;
mod metrics;
mod roles;

use std::net::IpAddr;

use cluster_spec::ClusterSpec;
use serde_json::{Value, json};

/// The label (key, value) of every managed object.
pub const MANAGED_LABEL: (&str, &str) = ("kubernetes.azure.com/managedby", "aks");

/// What the objects depend on beside the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddonOptions {
    /// Where names outside the cluster are looked up; nowhere if empty (a stamp without an uplink).
    pub upstream_dns: Vec<IpAddr>,
}

/// All managed objects, in an order in which they can be applied.
pub fn manifests(spec: &ClusterSpec, options: &AddonOptions) -> Vec<Value> {
    let mut objects = roles::objects();
    objects.extend(dns::objects(spec, options));
    objects.extend(metrics::objects());
    for object in &mut objects {
        object["metadata"]["labels"][MANAGED_LABEL.0] = json!(MANAGED_LABEL.1);
        object["metadata"]["labels"]["addonmanager.kubernetes.io/mode"] = json!("Reconcile");
    }
    objects
}

/// Where the pods of add-ons run: on system pools where there are any to choose from, whatever taints those have.
fn placement() -> Value {
    json!({
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": { "kubernetes.io/os": "linux" },
        "tolerations": [
            { "key": "CriticalAddonsOnly", "operator": "Exists" },
            { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 },
            { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 }
        ],
        "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "preference": { "matchExpressions": [
                { "key": "kubernetes.azure.com/mode", "operator": "In", "values": ["system"] }
            ] }
        }] } }
    })
}

/// A pod specification with the placement of add-ons.
fn placed(mut pod: Value) -> Value {
    if let (Some(pod), Value::Object(placement)) = (pod.as_object_mut(), placement()) {
        pod.extend(placement);
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_spec::{NetworkProfile, PodNetworking, PoolMode, PoolSpec};

    fn spec(nodes: u32) -> ClusterSpec {
        ClusterSpec {
            name: "c".into(),
            resource_group: "g".into(),
            location: "local".into(),
            node_resource_group: "MC_g_c_local".into(),
            fqdn: "c.local".into(),
            kubernetes_version: "1.36.3".into(),
            network: NetworkProfile {
                plugin: PodNetworking::Kubenet,
                vnet_range: "10.224.0.0/12".parse().unwrap(),
                node_range: "10.224.0.0/16".parse().unwrap(),
                control_plane_range: "10.239.255.240/28".parse().unwrap(),
                pod_range: "10.244.0.0/16".parse().ok(),
                service_range: "10.0.0.0/16".parse().unwrap(),
                dns_service_ip: "10.0.0.10".parse().unwrap(),
                outbound: true,
            },
            pools: vec![PoolSpec {
                name: "nodepool1".into(),
                count: nodes,
                vm_size: "Standard_DS2_v2".into(),
                mode: PoolMode::System,
                kubernetes_version: "1.36.3".into(),
                max_pods: 110,
                labels: Default::default(),
                taints: Vec::new(),
                os_disk_gib: 128,
                incarnation: "1".into(),
                surge: 1,
                unavailable: 0,
            }],
            disable_local_accounts: false,
            tier: cluster_spec::Tier::Free,
            restore: None,
        }
    }

    fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
        objects
            .iter()
            .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    #[test]
    fn every_object_is_named_labelled_and_unique() {
        let objects = manifests(&spec(2), &AddonOptions::default());
        let mut seen = std::collections::BTreeSet::new();
        for object in &objects {
            assert!(
                object["apiVersion"].is_string() && object["kind"].is_string(),
                "{object}"
            );
            assert_eq!(object["metadata"]["labels"][MANAGED_LABEL.0], MANAGED_LABEL.1);
            assert!(seen.insert((
                object["kind"].to_string(),
                object["metadata"]["namespace"].to_string(),
                object["metadata"]["name"].to_string()
            )));
        }
    }

    #[test]
    fn dns_listens_where_kubelets_look_and_forwards_only_where_there_is_an_upstream() {
        let alone = manifests(&spec(1), &AddonOptions::default());
        assert_eq!(
            find(&alone, "Service", "kube-dns")["spec"]["clusterIP"],
            "10.0.0.10"
        );
        assert_eq!(find(&alone, "Deployment", "coredns")["spec"]["replicas"], 1);
        let corefile = &find(&alone, "ConfigMap", "coredns")["data"]["Corefile"];
        assert!(!corefile.as_str().unwrap().contains("forward"));

        let options = AddonOptions {
            upstream_dns: vec!["192.0.2.53".parse().unwrap()],
        };
        let outside = manifests(&spec(5), &options);
        assert_eq!(find(&outside, "Deployment", "coredns")["spec"]["replicas"], 2);
        let corefile = &find(&outside, "ConfigMap", "coredns")["data"]["Corefile"];
        assert!(corefile.as_str().unwrap().contains("forward . 192.0.2.53"));
    }
}
