//! The stamp's own network: a bridge on the host, with the service's address.

use std::sync::Arc;

use fabric_api::{FabricError, MachineId, MachineSeen, Uplink};
use fabric_net::{
    BLACKHOLE_METRIC, NamespaceSeen, Surroundings, parse_links, private_ranges, route_destinations,
    stamp_ruleset, stamp_script,
};
use tokio::task::JoinSet;

use crate::{Inner, cgroup, disk, exec, files, forwarding, host_limits, namespace};

/// Number of machines that are stopped or deleted, and of volumes that are detached, at the same time with
/// their stamp.
const AT_A_TIME: usize = 8;

impl Inner {
    pub(crate) async fn ensure_stamp(&self) -> Result<(), FabricError> {
        let act = "make the stamp's network";
        let _lock = self.locks.hold("stamp").await;
        host_limits::raise();
        let network = &self.config.network;
        if network.uplink == Uplink::Host {
            forwarding::switch_on()?;
        }
        // Rules first: the bridge must never exist without them.
        let rules = stamp_ruleset(&self.names, network, &self.surroundings(act).await?)
            + &self.stamp_ports_rules(act)?;
        let rules = exec::run(&self.env, act, &["nft", "-f", "-"], Some(&rules));
        let links = exec::run(&self.env, act, &["ip", "-j", "address", "show"], None);
        let (rules, links) = tokio::join!(rules, links);
        rules?;
        let seen = NamespaceSeen {
            links: parse_links(&links?).map_err(|error| FabricError::failed(act, error))?,
            routes: Vec::new(),
        };
        let script = stamp_script(&self.names, network, &seen, &self.known_ports()?);
        exec::ip_batch(&self.env, act, None, &script).await
    }

    /// The host's properties that the stamp's rules depend on.
    async fn surroundings(&self, act: &str) -> Result<Surroundings, FabricError> {
        let around = Surroundings {
            service_port: self.config.service_port,
            allow: self.config.uplink_allow.clone(),
            ..Surroundings::default()
        };
        if self.config.network.uplink == Uplink::None {
            return Ok(around);
        }
        let argv = ["ip", "-j", "-4", "route", "show", "table", "all"];
        let routes = exec::run(&self.env, act, &argv, None).await?;
        let routes = route_destinations(&routes).map_err(|error| FabricError::failed(act, error))?;
        Ok(Surroundings {
            name_servers: disk::host_name_servers(),
            private: private_ranges(&routes),
            ..around
        })
    }

    /// Ensures the stamp network before something is attached to it.
    pub(crate) async fn stamp_is_there(&self) -> Result<(), FabricError> {
        let there = namespace::host_has_link(&self.names.bridge())
            .map_err(|error| FabricError::failed("look for the stamp's network", error))?;
        if there { Ok(()) } else { self.ensure_stamp().await }
    }

    /// Stops everything that is not on disk.
    pub(crate) async fn stop_stamp(self: &Arc<Self>) -> Result<(), FabricError> {
        let inventory = self.inventory().await?;
        self.for_all(ids(&inventory.machines), |inner, id| async move {
            match inner.stop_machine(&id).await {
                // It has no disk: a left-over of a deletion.
                Err(FabricError::NotFound(_)) => inner.delete_machine(&id).await,
                other => other,
            }
        })
        .await?;
        self.detach_volumes().await?;
        for network in &inventory.networks {
            self.unplug_network(network).await?;
        }
        self.remove_stamp_network().await
    }

    pub(crate) async fn delete_stamp(self: &Arc<Self>) -> Result<(), FabricError> {
        let inventory = self.inventory().await?;
        self.for_all(ids(&inventory.machines), |inner, id| async move {
            inner.delete_machine(&id).await
        })
        .await?;
        self.detach_volumes().await?;
        for network in &inventory.networks {
            self.delete_network(network).await?;
        }
        self.remove_stamp_network().await?;
        self.delete_volumes().await?;
        files::remove_tree(&self.machines_dir())?;
        files::remove_tree(&self.kept_dir())?;
        files::remove_tree(&self.networks_dir())?;
        files::remove_if_empty(&self.config.state_dir)
    }

    /// Releases the loop devices of all volumes. Their machines are stopped.
    async fn detach_volumes(self: &Arc<Self>) -> Result<(), FabricError> {
        self.for_all(self.held_volumes()?, |inner, id| async move {
            inner.detach_volume(&id).await
        })
        .await
    }

    /// Runs an action for all items, several at a time. All are tried; one of the errors is returned.
    async fn for_all<I, F, Fut>(self: &Arc<Self>, all: Vec<I>, act: F) -> Result<(), FabricError>
    where
        F: Fn(Arc<Self>, I) -> Fut,
        Fut: Future<Output = Result<(), FabricError>> + Send + 'static,
    {
        let mut running = JoinSet::new();
        let mut failed = None;
        for one in all {
            if running.len() >= AT_A_TIME {
                failed = outcome(running.join_next().await).or(failed);
            }
            running.spawn(act(Arc::clone(self), one));
        }
        while let Some(result) = running.join_next().await {
            failed = outcome(Some(result)).or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Removes bridge, routes, rules, control groups and runtime state. Machines and networks are stopped.
    async fn remove_stamp_network(&self) -> Result<(), FabricError> {
        let act = "remove the stamp's network";
        let bridge = self.names.bridge();
        let there = || namespace::host_has_link(&bridge).map_err(|error| FabricError::failed(act, error));
        let mut script = vec![format!(
            "route delete unreachable {} metric {BLACKHOLE_METRIC}",
            self.config.network.range
        )];
        if there()? {
            let argv = ["ip", "-j", "link", "show", "master", &bridge];
            let text = exec::run(&self.env, act, &argv, None).await?;
            let ports = parse_links(&text).map_err(|error| FabricError::failed(act, error))?;
            script.extend(ports.iter().map(|port| format!("link delete {}", port.name)));
            script.push(format!("link delete {bridge}"));
        }
        let complaint = exec::ip_batch_anyway(&self.env, act, None, &script).await;
        if there()? {
            return Err(complaint.unwrap_or_else(|| FabricError::failed(act, "its bridge is still there")));
        }
        let table = self.names.table();
        let rules: String = ["inet", "bridge"]
            .map(|family| format!("table {family} {table}\ndelete table {family} {table}\n"))
            .concat();
        exec::run(&self.env, act, &["nft", "-f", "-"], Some(&rules)).await?;
        let argv = ["ip", "-j", "-d", "link", "show"];
        let links = exec::run(&self.env, act, &argv, None).await?;
        forwarding::put_back(&links)?;
        cgroup::remove(&self.env, &self.names.cgroup()).await?;
        files::remove_tree(&self.runc_dir())?;
        files::remove_if_empty(&self.config.run_dir)
    }
}

fn ids(machines: &[MachineSeen]) -> Vec<MachineId> {
    machines.iter().map(|machine| machine.id.clone()).collect()
}

fn outcome(result: Option<Result<Result<(), FabricError>, tokio::task::JoinError>>) -> Option<FabricError> {
    match result? {
        Ok(result) => result.err(),
        Err(error) => Some(FabricError::failed("stop or delete parts of the stamp", error)),
    }
}
