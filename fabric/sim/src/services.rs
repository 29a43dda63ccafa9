//! Services of type LoadBalancer in the world's clusters.
//!
//! They are ordinary objects, added by tests; the changes of a real API server (uids, node ports, finalizers
//! that delay deletion) are made here. Each has a ready endpoint on every ready node, unless the Service
//! names its nodes.

use std::collections::{BTreeMap, BTreeSet};

use cluster_api::{Ingress, ServiceSeen, ServiceWish};
use cluster_balancers::{FINALIZER, IP_MODE, is_local};
use ipnet::Ipv4Net;
use serde_json::{Value, json};

use crate::{SimWorld, state::Cluster};

/// The key prefix of Services.
const KIND: &str = "v1/Service ";
/// The key prefix of their events.
const TOLD: &str = "v1/Event ";
/// An annotation of the simulation: the nodes with endpoints, by the ends of their names, comma-separated.
const NODES: &str = "simulated-nodes";
/// The first node port.
const FIRST_NODE_PORT: u64 = 30_000;
/// The number of node ports.
const NODE_PORTS: u64 = 2_768;

/// A Service added by a test.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Planted {
    /// Its name; its namespace is `default`.
    pub name: String,
    /// TCP ports.
    pub ports: Vec<u16>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Whether only nodes with an endpoint get connections.
    pub local: bool,
    /// The nodes with endpoints, by the ends of their names; `None`: all.
    pub nodes: Option<BTreeSet<String>>,
    /// The requested address.
    pub address: Option<String>,
}

impl Planted {
    /// The object as stored by the API server; `number` makes it unique.
    fn object(&self, number: u64) -> Value {
        let mut annotations = self.annotations.clone();
        if let Some(nodes) = &self.nodes {
            let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
            annotations.insert(NODES.to_owned(), nodes.join(","));
        }
        let ports = self.ports.iter().zip(0_u64..).map(|(port, index)| {
            let node_port = FIRST_NODE_PORT + (number + index) % NODE_PORTS;
            json!({ "port": port, "protocol": "TCP", "nodePort": node_port })
        });
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "namespace": "default", "name": self.name, "uid": format!("{}-{number}", self.name), "annotations": annotations
            },
            "spec": {
                "type": "LoadBalancer", "ports": ports.collect::<Vec<_>>(), "loadBalancerIP": self.address,
                "externalTrafficPolicy": if self.local { "Local" } else { "Cluster" }
            },
            "status": { "loadBalancer": {} }
        })
    }
}

fn key(namespace: &str, name: &str) -> String {
    format!("{KIND}{namespace}/{name}")
}

/// The Services of type LoadBalancer of a cluster.
pub(crate) fn seen(cluster: &Cluster) -> Vec<ServiceSeen> {
    let services = cluster.objects.range(KIND.to_owned()..);
    let services = services
        .take_while(|(key, _)| key.starts_with(KIND))
        .filter(|(_, object)| object["spec"]["type"] == "LoadBalancer");
    services
        .map(|(_, object)| ServiceSeen {
            endpoints: if is_local(object) {
                endpoints(cluster, object)
            } else {
                BTreeSet::new()
            },
            object: object.clone(),
        })
        .collect()
}

fn endpoints(cluster: &Cluster, service: &Value) -> BTreeSet<String> {
    let named = service["metadata"]["annotations"][NODES].as_str();
    let on = |node: &str| {
        named.is_none_or(|named| named.split(',').any(|end| !end.is_empty() && node.ends_with(end)))
    };
    let ready = cluster.nodes.values().filter(|node| node.seen.ready);
    ready
        .map(|node| node.seen.name.clone())
        .filter(|name| on(name))
        .collect()
}

/// Applies a wish to a Service, and removes it when it is deleted and has no finalizers.
pub(crate) fn set(cluster: &mut Cluster, wish: &ServiceWish) {
    let key = key(&wish.namespace, &wish.name);
    let Some(service) = cluster.objects.get_mut(&key) else {
        return;
    };
    if service["metadata"]["uid"] != wish.uid.as_str() {
        return;
    }
    let before = service.clone();
    match wish.ingress {
        Ingress::AsItIs => {}
        Ingress::Nothing => service["status"]["loadBalancer"] = json!({}),
        Ingress::At(address) => {
            service["status"]["loadBalancer"] = json!({ "ingress": [{ "ip": address, "ipMode": IP_MODE }] });
        }
    }
    match wish.finalizer {
        None => {}
        Some(true) => service["metadata"]["finalizers"] = json!([FINALIZER]),
        Some(false) => service["metadata"]["finalizers"] = json!([]),
    }
    let changed = *service != before;
    let over = service["metadata"]["deletionTimestamp"].is_string() && !is_kept(service);
    if over {
        cluster.objects.remove(&key);
    }
    if let Some(note) = wish.note.as_ref().filter(|_| !over) {
        let told = json!(format!("{}: {}", note.reason, note.message));
        cluster
            .objects
            .insert(format!("{TOLD}{}/{}", wish.namespace, wish.name), told);
    }
    if changed || over {
        cluster.changed();
    }
}

fn is_kept(service: &Value) -> bool {
    let finalizers = service["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|finalizers| !finalizers.is_empty())
}

impl SimWorld {
    /// Adds a Service to a cluster, as a user would. An existing one is changed and keeps the fields that the
    /// service set.
    pub fn plant_service(&self, cluster: &str, service: &Planted) {
        let mut state = self.inner.state();
        let cluster = state.cluster(cluster);
        let number = *cluster.changes.borrow() + 1;
        let mut object = service.object(number);
        let key = key("default", &service.name);
        if let Some(before) = cluster.objects.get(&key) {
            object["status"] = before["status"].clone();
            object["metadata"]["uid"] = before["metadata"]["uid"].clone();
            for field in ["finalizers", "deletionTimestamp"] {
                if !before["metadata"][field].is_null() {
                    object["metadata"][field] = before["metadata"][field].clone();
                }
            }
        }
        cluster.objects.insert(key, object);
        cluster.changed();
    }

    /// Deletes a Service, as a user would: it stays while it has finalizers. `false` when it does not exist.
    pub fn remove_service(&self, cluster: &str, name: &str) -> bool {
        let mut state = self.inner.state();
        let cluster = state.cluster(cluster);
        let key = key("default", name);
        let Some(service) = cluster.objects.get_mut(&key) else {
            return false;
        };
        if is_kept(service) {
            service["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        } else {
            cluster.objects.remove(&key);
        }
        cluster.objects.remove(&format!("{TOLD}default/{name}"));
        cluster.changed();
        true
    }

    /// The stamp's range of addresses for load balancers.
    pub fn vips(&self) -> Ipv4Net {
        self.inner.options.network.vips()
    }

    /// The Services of type LoadBalancer of a cluster.
    pub fn services(&self, cluster: &str) -> Vec<ServiceSeen> {
        seen(self.inner.state().cluster(cluster))
    }

    /// The last event of a Service.
    pub fn told_of_service(&self, cluster: &str, name: &str) -> Option<String> {
        let mut state = self.inner.state();
        let told = state
            .cluster(cluster)
            .objects
            .get(&format!("{TOLD}default/{name}"))?;
        told.as_str().map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(uid: &str, finalizer: bool) -> ServiceWish {
        ServiceWish {
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            uid: uid.to_owned(),
            finalizer: Some(finalizer),
            ingress: Ingress::AsItIs,
            note: None,
        }
    }

    #[test]
    fn what_is_deleted_is_there_until_nobody_keeps_it() {
        let planted = Planted {
            name: "web".to_owned(),
            ports: vec![80, 443],
            ..Planted::default()
        };
        let mut cluster = Cluster::default();
        let mut object = planted.object(7);
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        cluster.objects.insert(key("default", "web"), object);
        set(&mut cluster, &wish("web-7", true));
        set(&mut cluster, &wish("another", false));
        let there = seen(&cluster);
        assert_eq!(there.len(), 1);
        assert_eq!(there[0].object["spec"]["ports"][1]["nodePort"], 30_008);
        set(&mut cluster, &wish("web-7", false));
        assert!(seen(&cluster).is_empty());
    }
}
