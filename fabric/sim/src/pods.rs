//! Pods with requests for cores in the world's clusters, for the autoscaler.
//!
//! They are planted by tests, and stored among the other objects. Scheduler and controllers are simulated
//! here: a pod gets the first ready node with room for it; a pod whose node is removed or drained is made
//! again without a node; a pod without a place is reported as unschedulable.

use cluster_api::WorkObjects;
use serde_json::{Value, json};

use crate::{SimWorld, state::Cluster};

/// Prefix of the keys of planted pods.
const KIND: &str = "v1/Pod default/";
/// The key of the autoscaler's status.
pub(crate) const STATUS: &str = "v1/ConfigMap kube-system/cluster-autoscaler-status";
/// Prefix of the keys of pods' and nodes' events.
pub(crate) const TOLD: &str = "told/";
/// Allocatable resources of each node: thousandths of a core, and memory.
const CORES: u64 = 1900;
const MEMORY: &str = "4Gi";
/// The creation time of all objects.
const MADE: &str = "2026-01-01T00:00:00Z";

fn pods(cluster: &Cluster) -> impl Iterator<Item = (&String, &Value)> {
    let from = cluster.objects.range(KIND.to_owned()..);
    from.take_while(|(key, _)| key.starts_with(KIND))
}

fn cores(pod: &Value) -> u64 {
    let text = pod["spec"]["containers"][0]["resources"]["requests"]["cpu"].as_str();
    let number = text.and_then(|text| text.strip_suffix('m')?.parse().ok());
    number.unwrap_or(0)
}

fn node_of(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str()
}

/// Places pods without a node where there is room, after it has unplaced the pods of removed nodes. Returns
/// whether anything has changed.
pub(crate) fn settle(cluster: &mut Cluster) -> bool {
    let keys: Vec<String> = pods(cluster).map(|(key, _)| key.clone()).collect();
    let mut changed = false;
    for key in &keys {
        let lost = node_of(&cluster.objects[key]).is_some_and(|node| !cluster.nodes.contains_key(node));
        if lost {
            changed |= send_off(cluster, key);
        }
    }
    for key in &keys {
        let pod = &cluster.objects[key];
        if node_of(pod).is_some() {
            continue;
        }
        let asked = cores(pod);
        let used = |node: &str| -> u64 {
            let there = pods(cluster).filter(|(_, pod)| node_of(pod) == Some(node));
            there.map(|(_, pod)| cores(pod)).sum()
        };
        let place = cluster
            .nodes
            .values()
            .filter(|node| node.seen.ready && !node.seen.cordoned)
            .map(|node| node.seen.name.clone())
            .find(|name| used(name) + asked <= CORES);
        let version = json!((*cluster.changes.borrow() + 1).to_string());
        let Some(pod) = cluster.objects.get_mut(key) else {
            continue;
        };
        let before = pod.clone();
        match place {
            Some(name) => {
                pod["spec"]["nodeName"] = json!(name);
                pod["status"] = json!({ "phase": "Running" });
            }
            None => {
                pod["status"] = json!({ "phase": "Pending", "conditions": [{
                    "type": "PodScheduled", "status": "False", "reason": "Unschedulable"
                }] });
            }
        }
        if *pod != before {
            pod["metadata"]["resourceVersion"] = version;
            changed = true;
        }
    }
    changed
}

/// Ends a pod; its controller replaces it by one without a node.
fn send_off(cluster: &mut Cluster, key: &str) -> bool {
    let version = json!((*cluster.changes.borrow() + 1).to_string());
    let Some(pod) = cluster.objects.get_mut(key) else {
        return false;
    };
    if let Some(spec) = pod["spec"].as_object_mut() {
        spec.remove("nodeName");
    }
    pod["metadata"]["resourceVersion"] = version;
    true
}

/// Evicts the pods of a node, and places them again.
pub(crate) fn evict(cluster: &mut Cluster, node: &str) {
    let there = pods(cluster).filter(|(_, pod)| node_of(pod) == Some(node));
    let keys: Vec<String> = there.map(|(key, _)| key.clone()).collect();
    for key in keys {
        send_off(cluster, &key);
    }
    settle(cluster);
}

/// The input of the autoscaler.
pub(crate) fn seen(cluster: &Cluster) -> WorkObjects {
    let nodes = cluster.nodes.values().map(|node| {
        let taints = node.seen.taints.iter().filter_map(|text| {
            let (pair, effect) = text.rsplit_once(':')?;
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some(json!({ "key": key, "value": value, "effect": effect }))
        });
        json!({
            "metadata": {
                "name": node.seen.name, "uid": node.machine, "resourceVersion": "1", "labels": node.seen.labels
            },
            "spec": { "unschedulable": node.seen.cordoned, "taints": taints.collect::<Vec<_>>() },
            "status": {
                "allocatable": { "cpu": format!("{CORES}m"), "memory": MEMORY, "pods": "250" },
                "conditions": [{
                    "type": "Ready", "lastTransitionTime": MADE,
                    "status": if node.seen.ready { "True" } else { "False" }
                }]
            }
        })
    });
    WorkObjects {
        pods: pods(cluster).map(|(_, pod)| pod.clone()).collect(),
        nodes: nodes.collect(),
        ..WorkObjects::default()
    }
}

impl SimWorld {
    /// Makes a pod in a cluster that requests this number of thousandths of a core. A controller makes it
    /// again if its node is removed.
    pub fn plant_pod(&self, cluster: &str, name: &str, cores: u64) {
        let mut state = self.inner.state();
        let cluster = state.cluster(cluster);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": "default", "name": name, "uid": format!("pod-{name}"), "resourceVersion": "1",
                "creationTimestamp": MADE, "labels": { "app": name },
                "ownerReferences": [{ "kind": "ReplicaSet", "uid": format!("set-{name}"), "controller": true }]
            },
            "spec": { "containers": [{ "resources": { "requests": { "cpu": format!("{cores}m") } } }] },
            "status": { "phase": "Pending" }
        });
        cluster.objects.insert(format!("{KIND}{name}"), pod);
        settle(cluster);
        cluster.changed();
    }

    /// Removes such a pod permanently. `false` if it does not exist.
    pub fn remove_pod(&self, cluster: &str, name: &str) -> bool {
        let mut state = self.inner.state();
        let cluster = state.cluster(cluster);
        let there = cluster.objects.remove(&format!("{KIND}{name}")).is_some();
        settle(cluster);
        cluster.changed();
        there
    }

    /// Such pods by name, with their nodes.
    pub fn pods(&self, cluster: &str) -> Vec<(String, Option<String>)> {
        let mut state = self.inner.state();
        let there = pods(state.cluster(cluster));
        let named = there.map(|(key, pod)| {
            let name = key.strip_prefix(KIND).unwrap_or_default();
            (name.to_owned(), node_of(pod).map(str::to_owned))
        });
        named.collect()
    }

    /// The autoscaler's last event of a pod or node of this name.
    pub fn told_of_work(&self, cluster: &str, name: &str) -> Option<String> {
        let mut state = self.inner.state();
        let told = state.cluster(cluster).objects.get(&format!("{TOLD}{name}"))?;
        told.as_str().map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clusters::new_node;

    fn pod(cores: u64) -> Value {
        json!({
            "metadata": {},
            "spec": { "containers": [{ "resources": { "requests": { "cpu": format!("{cores}m") } } }] }
        })
    }

    #[test]
    fn pods_go_where_there_is_room_and_say_where_there_is_none() {
        let mut cluster = Cluster::default();
        for name in ["a", "b"] {
            let mut node = new_node(name, name, None, 0);
            node.seen.ready = name == "a";
            cluster.nodes.insert(name.to_owned(), node);
        }
        for (name, cores) in [("one", 1500), ("two", 1500)] {
            cluster.objects.insert(format!("{KIND}{name}"), pod(cores));
        }
        assert!(settle(&mut cluster));
        let node = |cluster: &Cluster, name: &str| {
            node_of(&cluster.objects[&format!("{KIND}{name}")]).map(str::to_owned)
        };
        assert_eq!(
            (node(&cluster, "one").as_deref(), node(&cluster, "two")),
            (Some("a"), None)
        );
        assert!(!settle(&mut cluster), "nothing has changed since");
        cluster.nodes.get_mut("b").unwrap().seen.ready = true;
        assert!(settle(&mut cluster));
        assert_eq!(node(&cluster, "two").as_deref(), Some("b"));
        cluster.nodes.get_mut("b").unwrap().seen.cordoned = true;
        evict(&mut cluster, "b");
        assert_eq!(node(&cluster, "two"), None);
        assert_eq!(seen(&cluster).pods.len(), 2);
    }
}
