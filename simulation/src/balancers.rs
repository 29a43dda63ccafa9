//! Script commands for Services of type LoadBalancer, and checks of their load balancers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use anyhow::{Context as _, Result, bail};
use cluster_balancers::Wish;
use control_records::{
    ClusterRecord, LeaseRecord, MachineRecord, ObservedRecord, Role, balancer::BalancerRecord, key,
};
use fabric_api::{Balancer, NetworkSpec, Side};
use fabric_sim::Planted;

use crate::{script::Player, stamp::Stamp};

/// The annotation of an internal load balancer, whose address is of the nodes' subnet.
const INTERNAL: &str = "service.beta.kubernetes.io/azure-load-balancer-internal";

/// Parses a Service: ports with commas, `internal`, `local`, `on=NODES`, `address=ADDRESS`.
pub(crate) fn planted(name: &str, ports: &str, words: &[&str]) -> Result<Planted> {
    let ports: Result<Vec<u16>, _> = ports.split(',').map(str::parse).collect();
    let mut service = Planted {
        name: name.to_owned(),
        ports: ports.context("ports are numbers")?,
        ..Planted::default()
    };
    for word in words {
        match word.split_once('=') {
            None if *word == "internal" => {
                service.annotations.insert(INTERNAL.to_owned(), "true".to_owned());
            }
            None if *word == "local" => service.local = true,
            Some(("on", nodes)) => service.nodes = Some(nodes.split(',').map(str::to_owned).collect()),
            Some(("address", address)) => service.address = Some(address.to_owned()),
            _ => bail!("a Service is not {word}"),
        }
    }
    Ok(service)
}

impl Player {
    /// The load balancers of a cluster, a line each.
    pub(crate) async fn services(&mut self, name: &str) -> Result<()> {
        let cluster = self.stamp.cluster(name).await?;
        let cluster = cluster.context("there is no such cluster")?;
        let networks = self.stamp.world.networks();
        let network = networks.iter().find(|network| network.id.as_str() == cluster.uid);
        let mut lines = Vec::new();
        for wish in self.stamp.wishes(&cluster.uid) {
            let shown = wish
                .shown
                .map_or_else(|| "no address".to_owned(), |shown| shown.to_string());
            let made = network.and_then(|network| {
                let mut all = network.balancers.iter();
                all.find(|made| Some(made.address) == wish.shown)
            });
            let leads = match made {
                None => "leads nowhere".to_owned(),
                Some(made) => leads(made),
            };
            let going = if wish.deleting { ", to go" } else { "" };
            lines.push(format!("{}: {shown} {leads}{going}", wish.name));
            let told = self.stamp.world.told_of_service(&cluster.uid, &wish.name);
            lines.extend(told.map(|told| format!("  {told}")));
        }
        for line in lines {
            let line = self.stamp.trace.told(&line);
            self.say(&line);
        }
        Ok(())
    }
}

/// The targets of a load balancer.
fn leads(made: &Balancer) -> String {
    let side = match made.side {
        Side::Stamp => "the stamp",
        Side::Subnet => "the VNET",
    };
    let ports = made.ports.iter().map(|port| {
        let machines: Vec<String> = port.machines.iter().map(ToString::to_string).collect();
        format!("{} to [{}]", port.port, machines.join(" "))
    });
    let ports: Vec<String> = ports.collect();
    format!("from {side}: {}", ports.join(", "))
}

impl Stamp {
    /// The wishes of a cluster's Services.
    pub(crate) fn wishes(&self, uid: &str) -> Vec<Wish> {
        let services = self.world.services(uid).into_iter();
        services
            .filter_map(|service| Wish::read(&service.object, service.endpoints))
            .collect()
    }

    /// Each Service has an address that is recorded, leased, in the network and in its status; no other
    /// object has one; no two have the same.
    pub(crate) async fn check_balancers(
        &self,
        clusters: &BTreeMap<String, ClusterRecord>,
        observed: &BTreeMap<String, ObservedRecord>,
        machines: &BTreeMap<String, MachineRecord>,
        problems: &mut Vec<String>,
    ) -> Result<()> {
        let leases = self.records::<LeaseRecord>(key::LEASES).await?;
        let networks = self.world.networks();
        let mut outside = BTreeSet::new();
        for (uid, cluster) in clusters {
            let name = &cluster.name;
            let records = self.records::<BalancerRecord>(&BalancerRecord::all(uid)).await?;
            let balanced = observed.get(uid).is_some_and(|observed| observed.balanced);
            if balanced == records.is_empty() {
                let count = records.len();
                problems.push(format!(
                    "{name}: {count} load balancers, and observed is {balanced}"
                ));
            }
            for record in records.values() {
                if !record.internal && record.public.is_none() && !outside.insert(record.address) {
                    problems.push(format!("{name}: {} is another's address too", record.address));
                }
                let lease = record.own_lease(None);
                let holder = BalancerRecord::holder(uid, &record.uid);
                let held = |key: String| leases.get(&key).is_some_and(|lease| lease.owner == holder);
                if !lease.is_none_or(held) {
                    problems.push(format!("{name}: {} is used without a lease", record.address));
                }
            }
            if cluster.spec().stopped || cluster.requests.halted || cluster.deleting {
                continue;
            }
            let network = networks.iter().find(|network| network.id.as_str() == uid);
            let of_nodes = addresses(uid, machines);
            self.check_services(cluster, &records, network, &of_nodes, problems);
        }
        Ok(())
    }

    fn check_services(
        &self,
        cluster: &ClusterRecord,
        records: &BTreeMap<String, BalancerRecord>,
        network: Option<&NetworkSpec>,
        of_nodes: &BTreeMap<String, Ipv4Addr>,
        problems: &mut Vec<String>,
    ) {
        let (uid, name) = (&cluster.uid, &cluster.name);
        let made = network
            .map(|network| network.balancers.as_slice())
            .unwrap_or_default();
        let nodes = self.world.nodes(uid);
        let mut left: BTreeSet<Ipv4Addr> = made.iter().map(|made| made.address).collect();
        let mut known: BTreeSet<&str> = records.values().map(|record| record.uid.as_str()).collect();
        for wish in self.wishes(uid) {
            let record = records.values().find(|record| record.uid == wish.uid);
            known.remove(wish.uid.as_str());
            if wish.deleting {
                problems.push(format!("{name}: the Service {} is still to go", wish.name));
                continue;
            }
            // It requests an address in use, and has an event about that.
            let told = self.world.told_of_service(uid, &wish.name);
            let refused = told.is_some_and(|told| told.starts_with("SyncLoadBalancerFailed"));
            let Some(record) = record else {
                if !refused {
                    problems.push(format!("{name}: the Service {} has no address", wish.name));
                }
                continue;
            };
            left.remove(&record.address);
            let in_rotation: BTreeSet<Ipv4Addr> = nodes
                .iter()
                .filter(|node| node.ready && !node.cordoned)
                .filter(|node| !wish.local || wish.endpoints.contains(&node.name))
                .filter_map(|node| of_nodes.get(&node.name).copied())
                .collect();
            let ports: BTreeSet<(u16, u16)> = wish
                .ports
                .iter()
                .map(|port| (port.port, port.node_port))
                .collect();
            // Services may share an address.
            let mut here = made.iter().filter(|made| made.address == record.address);
            let balancer = here.find(|made| {
                made.ports
                    .iter()
                    .any(|port| ports.contains(&(port.port, port.target)))
            });
            let right = balancer.is_some_and(|made| {
                let there = made.ports.iter().map(|port| (port.port, port.target));
                there.collect::<BTreeSet<_>>() == ports
                    && made.ports.iter().all(|port| port.machines == in_rotation)
            });
            if !right || wish.shown != Some(record.address) || !wish.finalizer {
                problems.push(format!(
                    "{name}: the Service {} has {}, its status tells of {:?}, and the network has {balancer:?}, wanted {in_rotation:?}",
                    wish.name, record.address, wish.shown
                ));
            }
        }
        for address in left {
            problems.push(format!(
                "{name}: the network has {address}, which is no Service's"
            ));
        }
        for service in known {
            problems.push(format!(
                "{name}: an address is recorded for {service}, which does not exist"
            ));
        }
    }
}

/// The addresses of a cluster's nodes that may be in rotation, by their names.
fn addresses(uid: &str, machines: &BTreeMap<String, MachineRecord>) -> BTreeMap<String, Ipv4Addr> {
    let given = machines
        .values()
        .filter(|machine| !machine.healing.off)
        .filter_map(|machine| machine.assignment.as_ref());
    let own = given.filter(|given| given.cluster == *uid);
    own.filter_map(|given| match &given.role {
        Role::Node {
            node_name, address, ..
        } => Some((node_name.clone(), *address)),
        Role::ControlPlane { .. } => None,
    })
    .collect()
}
