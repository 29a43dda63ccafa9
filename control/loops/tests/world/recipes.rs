//! Recipes without cryptography: what a scenario needs of a cluster's parts, and nothing that takes time.

use std::{collections::BTreeMap, net::Ipv4Addr};

use agent_protocol::MachineConfig;
use cluster_api::{Endpoint, NodeWish};
use control_loops::{RecipeError, Recipes, Secret, Site};
use control_records::{ClusterRecord, MachineRecord, Role};
use fabric_api::{NetworkSpec, NicSpec, RouteSpec};
use jiff::Timestamp;
use serde_json::Value;

pub struct PlainRecipes;

impl Recipes for PlainRecipes {
    fn pki(&self, _now: Timestamp) -> Result<Secret, RecipeError> {
        Ok(Secret::new(b"keys".to_vec()))
    }

    fn config(
        &self,
        _site: &Site,
        machine: &MachineRecord,
        pki: &Secret,
        _now: Timestamp,
        generation: u64,
    ) -> Result<MachineConfig, RecipeError> {
        assert_eq!(pki.as_slice(), b"keys", "sealed and unsealed");
        Ok(MachineConfig {
            generation,
            role: machine.id.clone(),
            ..MachineConfig::default()
        })
    }

    fn network(&self, site: &Site, routes: Vec<RouteSpec>) -> NetworkSpec {
        NetworkSpec {
            id: site.network_id(),
            address_space: vec![site.cluster.spec.network.vnet_range],
            subnets: Vec::new(),
            reserved: Vec::new(),
            routes,
            uplink: site.addresses.uplink,
        }
    }

    fn nics(&self, _site: &Site, _machine: &MachineRecord) -> Result<Vec<NicSpec>, RecipeError> {
        Ok(Vec::new())
    }

    fn wish(&self, cluster: &ClusterRecord, machine: &MachineRecord) -> Option<NodeWish> {
        let Role::Node {
            pool,
            node_name,
            address,
            pod_range,
            ..
        } = &machine.assignment.as_ref()?.role
        else {
            return None;
        };
        let pool = cluster.spec.pools.iter().find(|spec| spec.name == *pool)?;
        Some(NodeWish {
            name: node_name.clone(),
            pod_range: *pod_range,
            labels: pool.labels.clone(),
            taints: pool.taints.clone(),
            address: Some(*address),
        })
    }

    fn endpoint(&self, _pki: &Secret, vip: Ipv4Addr, _now: Timestamp) -> Result<Endpoint, RecipeError> {
        Ok(Endpoint {
            server: format!("https://{vip}:443"),
            ca: String::new(),
            certificate: String::new(),
            key: String::new(),
        })
    }

    fn addons(&self, cluster: &ClusterRecord) -> Result<Vec<Value>, RecipeError> {
        let objects: BTreeMap<_, _> = [("dns", cluster.spec.network.dns_service_ip.to_string())].into();
        Ok(vec![serde_json::json!(objects)])
    }
}
