//! The recipes of real clusters: `cluster/pki`, `cluster/bootstrap` and `cluster/addons` behind [`Recipes`].

use std::net::Ipv4Addr;

use agent_protocol::MachineConfig;
use cluster_addons::{AddonOptions, manifests};
use cluster_api::{Endpoint, NodeWish};
use cluster_bootstrap::{
    ControlPlaneAddresses, NodePlace, admin_endpoint, control_plane_config, control_plane_nics, network, node_config,
    node_nics, node_wish,
};
use cluster_pki::ClusterPki;
use cluster_spec::{ClusterSpec, PoolSpec};
use control_records::{ClusterRecord, MachineRecord, Role};
use fabric_api::{NetworkSpec, NicSpec, RouteSpec};
use jiff::Timestamp;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::recipes::{RecipeError, Recipes, Secret, Site};

/// Azure keeps the first four addresses of a subnet to itself; the control plane's own card has the next.
const CONTROL_PLANE_OFFSET: u32 = 4;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct KubernetesRecipes {
    /// Cores of the host that machines run on.
    pub host_cores: u32,
    /// Its memory, MiB.
    pub host_memory_mib: u64,
    /// What add-ons depend on beside the cluster.
    pub addons: AddonOptions,
}

impl KubernetesRecipes {
    fn place(&self, cluster: &ClusterRecord, machine: &MachineRecord) -> Option<(PoolSpec, NodePlace)> {
        let Role::Node {
            pool,
            node_name,
            address,
            pod_range,
            ..
        } = role(machine)?
        else {
            return None;
        };
        let pool = cluster.spec.pools.iter().find(|spec| spec.name == *pool)?;
        let place = NodePlace {
            node_name: node_name.clone(),
            address: *address,
            pod_range: *pod_range,
            subscription: cluster.subscription.clone(),
            machine: machine.id.clone(),
            host_cores: self.host_cores,
            host_memory_mib: self.host_memory_mib,
        };
        Some((pool.clone(), place))
    }
}

fn role(machine: &MachineRecord) -> Option<&Role> {
    machine.assignment.as_ref().map(|assignment| &assignment.role)
}

fn is_control_plane(machine: &MachineRecord) -> bool {
    matches!(role(machine), Some(Role::ControlPlane { .. }))
}

fn control_plane(site: &Site) -> ControlPlaneAddresses {
    let range = site.cluster.spec.network.control_plane_range;
    ControlPlaneAddresses {
        vip: site.addresses.vip,
        stamp: site.addresses.control_plane,
        vnet: Ipv4Addr::from(u32::from(range.network()) + CONTROL_PLANE_OFFSET),
    }
}

fn read(pki: &Secret) -> Result<ClusterPki, RecipeError> {
    serde_json::from_slice(pki).map_err(|error| RecipeError::new("a certificate from the cluster's keys", error))
}

/// A machine of a pool that is no longer there gets no configuration: it is on its way out.
fn no_pool() -> RecipeError {
    RecipeError::new("the configuration of a node", "its pool is not there any more")
}

/// The machine's version rules over the specification's: a machine keeps what it was made with.
fn as_made(spec: &ClusterSpec, machine: &MachineRecord) -> ClusterSpec {
    ClusterSpec {
        kubernetes_version: machine.image.clone(),
        ..spec.clone()
    }
}

impl Recipes for KubernetesRecipes {
    fn pki(&self, now: Timestamp) -> Result<Secret, RecipeError> {
        let pki = ClusterPki::generate(now).map_err(|error| RecipeError::new("the cluster's keys", error))?;
        let bytes = serde_json::to_vec(&pki).map_err(|error| RecipeError::new("the cluster's keys", error))?;
        Ok(Zeroizing::new(bytes))
    }

    fn config(
        &self,
        site: &Site,
        machine: &MachineRecord,
        pki: &Secret,
        now: Timestamp,
        generation: u64,
    ) -> Result<MachineConfig, RecipeError> {
        let pki = read(pki)?;
        let cluster = &site.cluster;
        if is_control_plane(machine) {
            let spec = as_made(&cluster.spec, machine);
            return control_plane_config(&spec, &pki, &control_plane(site), now, generation)
                .map_err(|error| RecipeError::new("the configuration of the control plane", error));
        }
        let (mut pool, place) = self.place(cluster, machine).ok_or_else(no_pool)?;
        pool.kubernetes_version.clone_from(&machine.image);
        node_config(
            &cluster.spec,
            &pool,
            &place,
            &pki,
            site.addresses.vip,
            now,
            generation,
        )
        .map_err(|error| RecipeError::new("the configuration of a node", error))
    }

    fn network(&self, site: &Site, routes: Vec<RouteSpec>) -> NetworkSpec {
        network(
            &site.cluster.spec,
            site.network_id(),
            site.addresses.uplink,
            routes,
        )
    }

    fn nics(&self, site: &Site, machine: &MachineRecord) -> Result<Vec<NicSpec>, RecipeError> {
        let spec = &site.cluster.spec;
        if is_control_plane(machine) {
            return Ok(control_plane_nics(
                spec,
                &site.network_id(),
                &control_plane(site),
                &site.stamp,
            ));
        }
        let (_, place) = self.place(&site.cluster, machine).ok_or_else(no_pool)?;
        Ok(node_nics(spec, &site.network_id(), &place))
    }

    fn wish(&self, cluster: &ClusterRecord, machine: &MachineRecord) -> Option<NodeWish> {
        let (mut pool, place) = self.place(cluster, machine)?;
        pool.kubernetes_version.clone_from(&machine.image);
        Some(node_wish(&cluster.spec, &pool, &place))
    }

    fn endpoint(&self, pki: &Secret, vip: Ipv4Addr, now: Timestamp) -> Result<Endpoint, RecipeError> {
        admin_endpoint(&read(pki)?, vip, now)
            .map_err(|error| RecipeError::new("the administrator's certificate", error))
    }

    fn addons(&self, cluster: &ClusterRecord) -> Result<Vec<Value>, RecipeError> {
        Ok(manifests(&cluster.spec, &self.addons))
    }
}
