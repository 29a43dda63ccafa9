//! What the control loops ask about Kubernetes, answered by what we know about it.

use std::net::{IpAddr, Ipv4Addr};

use agent_protocol::MachineConfig;
use cluster_addons::AddonOptions;
use cluster_api::{Endpoint, NodeWish};
use cluster_bootstrap::{ControlPlaneAddresses, NodePlace};
use cluster_pki::ClusterPki;
use cluster_spec::PoolSpec;
use control_loops::{RecipeError, Recipes, Secret, Site, network_id};
use control_records::{ClusterRecord, MachineRecord, Role};
use fabric_api::{NetworkSpec, NicSpec, RouteSpec, Uplink};
use jiff::Timestamp;
use serde_json::Value;

use crate::stamp::Settings;

/// The first usable address of a subnet after those that Azure keeps for itself.
const FIRST_ADDRESS: u32 = 4;

/// The recipes of this release.
pub(super) struct KubernetesRecipes {
    addons: AddonOptions,
    /// Cores and memory of this host, for what a node may not use.
    host_cores: u32,
    host_memory_mib: u64,
}

impl KubernetesRecipes {
    pub(super) fn new(settings: &Settings) -> Self {
        let upstream_dns = match settings.uplink {
            Uplink::Host => host_dns(),
            Uplink::None => Vec::new(),
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            addons: AddonOptions { upstream_dns },
            host_cores: u32::try_from(cores).unwrap_or(u32::MAX),
            host_memory_mib: host_memory_mib(),
        }
    }

    fn place<'a>(
        &self,
        cluster: &'a ClusterRecord,
        machine: &MachineRecord,
    ) -> Option<(&'a PoolSpec, NodePlace)> {
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
        let spec = cluster.spec.pools.iter().find(|spec| spec.name == *pool)?;
        let place = NodePlace {
            node_name: node_name.clone(),
            address: *address,
            pod_range: *pod_range,
            subscription: cluster.subscription.clone(),
            machine: machine.id.clone(),
            host_cores: self.host_cores,
            host_memory_mib: self.host_memory_mib,
        };
        Some((spec, place))
    }
}

/// Memory of this host; a generous guess where /proc does not say, since it only bounds what is reserved.
fn host_memory_mib() -> u64 {
    std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            text.lines()
                .next()?
                .split_whitespace()
                .nth(1)?
                .parse::<u64>()
                .ok()
        })
        .map_or(8192, |kib| kib / 1024)
}

/// The host's own name servers that a machine can reach, too: not those on loopback.
fn host_dns() -> Vec<IpAddr> {
    // Where a local resolver stands in between, systemd keeps the real ones here.
    ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| name_servers(&text))
        .find(|servers| !servers.is_empty())
        .unwrap_or_default()
}

fn name_servers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok())
        // CoreDNS takes at most 15; machines have no IPv6 yet.
        .filter(|address| address.is_ipv4() && !address.is_loopback())
        .take(3)
        .collect()
}

fn control_plane_addresses(site: &Site, index: u32) -> ControlPlaneAddresses {
    let range = site.cluster.spec.network.control_plane_range;
    ControlPlaneAddresses {
        vip: site.addresses.vip,
        stamp: site.addresses.control_plane,
        vnet: Ipv4Addr::from(u32::from(range.network()) + FIRST_ADDRESS + index),
    }
}

fn read(pki: &Secret) -> Result<ClusterPki, RecipeError> {
    serde_json::from_slice(pki).map_err(|error| RecipeError::new("the cluster's keys", error))
}

fn unassigned(what: &'static str, machine: &MachineRecord) -> RecipeError {
    RecipeError::new(
        what,
        format!("machine {} has no place in the cluster", machine.id),
    )
}

impl Recipes for KubernetesRecipes {
    fn pki(&self, now: Timestamp) -> Result<Secret, RecipeError> {
        const WHAT: &str = "a cluster's keys";
        let pki = ClusterPki::generate(now).map_err(|error| RecipeError::new(WHAT, error))?;
        serde_json::to_vec(&pki)
            .map(Secret::new)
            .map_err(|error| RecipeError::new(WHAT, error))
    }

    fn config(
        &self,
        site: &Site,
        machine: &MachineRecord,
        pki: &Secret,
        now: Timestamp,
        generation: u64,
    ) -> Result<MachineConfig, RecipeError> {
        const WHAT: &str = "a machine's configuration";
        let keys = read(pki)?;
        let role = machine.assignment.as_ref().map(|assignment| &assignment.role);
        let spec = &site.cluster.spec;
        match role {
            Some(Role::ControlPlane { index }) => {
                let at = control_plane_addresses(site, *index);
                cluster_bootstrap::control_plane_config(spec, &keys, &at, now, generation)
            }
            Some(Role::Node { .. }) => {
                let (pool, place) = self
                    .place(&site.cluster, machine)
                    .ok_or_else(|| unassigned(WHAT, machine))?;
                cluster_bootstrap::node_config(spec, pool, &place, &keys, site.addresses.vip, now, generation)
            }
            None => return Err(unassigned(WHAT, machine)),
        }
        .map_err(|error| RecipeError::new(WHAT, error))
    }

    fn network(&self, site: &Site, routes: Vec<RouteSpec>) -> NetworkSpec {
        cluster_bootstrap::network(
            &site.cluster.spec,
            site.network_id(),
            site.addresses.uplink,
            routes,
        )
    }

    fn nics(&self, site: &Site, machine: &MachineRecord) -> Result<Vec<NicSpec>, RecipeError> {
        const WHAT: &str = "a machine's network cards";
        let network = network_id(&site.cluster.uid);
        match machine.assignment.as_ref().map(|assignment| &assignment.role) {
            Some(Role::ControlPlane { index }) => {
                let at = control_plane_addresses(site, *index);
                Ok(cluster_bootstrap::control_plane_nics(
                    &site.cluster.spec,
                    &network,
                    &at,
                    &site.stamp,
                ))
            }
            Some(Role::Node { .. }) => {
                let (_, place) = self
                    .place(&site.cluster, machine)
                    .ok_or_else(|| unassigned(WHAT, machine))?;
                Ok(cluster_bootstrap::node_nics(&site.cluster.spec, &network, &place))
            }
            None => Err(unassigned(WHAT, machine)),
        }
    }

    fn wish(&self, cluster: &ClusterRecord, machine: &MachineRecord) -> Option<NodeWish> {
        let (pool, place) = self.place(cluster, machine)?;
        Some(cluster_bootstrap::node_wish(&cluster.spec, pool, &place))
    }

    fn endpoint(&self, pki: &Secret, vip: Ipv4Addr, now: Timestamp) -> Result<Endpoint, RecipeError> {
        cluster_bootstrap::admin_endpoint(&read(pki)?, vip, now)
            .map_err(|error| RecipeError::new("the administrator's credential", error))
    }

    fn addons(&self, cluster: &ClusterRecord) -> Result<Vec<Value>, RecipeError> {
        Ok(cluster_addons::manifests(&cluster.spec, &self.addons))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_on_loopback_are_of_no_use_to_a_machine() {
        let text = "# x\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver ::1\noptions edns0\n";
        assert_eq!(name_servers(text), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    }
}
