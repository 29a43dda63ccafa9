//! Stamp-wide data for the loops: the cluster of each machine, the number of machines, and the leased
//! addresses.
//!
//! A copy of the store's records, updated by the controller's watch, and by each loop right after its own
//! leases. A lag does no harm: a lease is written only if its key is absent, and a loop lists its own
//! machines in the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use control_planner::{KeptPlaces, Neighbours, UnknownMachines};
use control_records::{
    LeaseRecord, key,
    network::{self, NetworkRecord},
};
use fabric_api::{Attach, MachineSpec, NetworkSpec, RouteSpec, Side};
use ipnet::Ipv4Net;
use serde::de::DeserializeOwned;

use crate::security_groups::{Guards, SecurityGroups};

/// The label of machines and volumes with the uid of their cluster.
pub(crate) const CLUSTER_LABEL: &str = "cluster";
/// The label of control plane machines with the address of their API.
pub(crate) const VIP_LABEL: &str = "vip";

/// Unknown items of the fabric. They are kept, so their addresses are not given to others.
#[derive(Debug, Default)]
pub(crate) struct Unknown {
    /// By machine: the uid of the cluster in its label.
    clusters: BTreeMap<String, String>,
    /// The addresses of machines in their cluster's VNET, by the cluster's uid.
    places: BTreeMap<String, KeptPlaces>,
    /// Addresses of the stamp's network.
    addresses: BTreeSet<Ipv4Addr>,
}

impl Unknown {
    /// An unknown machine with this cluster's label, and its spec if known.
    pub(crate) fn add_machine(&mut self, id: &str, cluster: Option<&str>, spec: Option<&MachineSpec>) {
        if let Some(uid) = cluster {
            self.clusters.insert(id.to_owned(), uid.to_owned());
        }
        let Some(spec) = spec else { return };
        let vip = spec
            .labels
            .get(VIP_LABEL)
            .and_then(|vip| vip.parse::<Ipv4Addr>().ok());
        self.addresses.extend(vip);
        for card in &spec.nics {
            let own = card.extra.iter().copied().chain([card.address.addr()]);
            match (&card.attach, cluster) {
                (Attach::Stamp, _) => self.addresses.extend(own),
                (Attach::Subnet { .. }, Some(uid)) => {
                    self.places
                        .entry(uid.to_owned())
                        .or_default()
                        .addresses
                        .extend(own);
                }
                (Attach::Subnet { .. }, None) => {}
            }
        }
    }

    /// The clusters in the labels of unknown machines.
    pub(crate) fn clusters(&self) -> BTreeSet<String> {
        self.clusters.values().cloned().collect()
    }

    /// The network of a cluster with such machines, as it was made last: the routes to their pods.
    pub(crate) fn add_routes(&mut self, uid: &str, network: &NetworkSpec) {
        let places = self.places.entry(uid.to_owned()).or_default();
        let theirs = network
            .routes
            .iter()
            .filter(|route| places.addresses.contains(&route.via));
        places.routes = theirs.cloned().collect();
        self.add_balancers(network);
    }

    /// Adds a network without a record.
    pub(crate) fn add_network(&mut self, network: &NetworkSpec) {
        self.addresses.insert(network.uplink);
        self.add_balancers(network);
    }

    /// The stamp's addresses of a network's load balancers.
    fn add_balancers(&mut self, network: &NetworkSpec) {
        let outside = network.balancers.iter();
        let outside = outside.filter(|balancer| balancer.side == Side::Stamp);
        self.addresses.extend(outside.map(|balancer| balancer.address));
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// By machine: the uid of its cluster.
    owners: BTreeMap<String, String>,
    /// Machines that are being deleted, or that a user has stopped.
    leaving: BTreeSet<String>,
    /// Uids of clusters that are not to be served.
    off: BTreeSet<String>,
    /// Leased addresses of the stamp.
    taken: BTreeSet<Ipv4Addr>,
    /// By the uid of a tenant's VNET: leased addresses in it, each with the uid of the cluster that has it.
    vnets: BTreeMap<String, BTreeMap<Ipv4Addr, String>>,
    /// By the uid of a cluster: its VNET's address in the stamp's network.
    uplinks: BTreeMap<String, Ipv4Addr>,
    /// Security groups of tenants, and the subnets that use them.
    security_groups: SecurityGroups,
    /// `None` before the first look.
    unknown: Option<Unknown>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Index(Mutex<Inner>);

impl Index {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change below is a single insertion or removal: whole even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets all machines, with their owners and whether they are being deleted, and all leases, by their keys
    /// with their holders.
    pub(crate) fn set(
        &self,
        machines: impl IntoIterator<Item = (String, String, bool)>,
        leases: impl IntoIterator<Item = (String, String)>,
    ) {
        let (mut owners, mut going) = (BTreeMap::new(), BTreeSet::new());
        for (id, uid, leaving) in machines {
            if leaving {
                going.insert(id.clone());
            }
            owners.insert(id, uid);
        }
        let mut inner = self.inner();
        inner.owners = owners;
        inner.leaving = going;
        inner.taken.clear();
        inner.vnets.clear();
        inner.uplinks.clear();
        for (key, holder) in leases {
            inner.add_lease(&key, &holder);
        }
    }

    /// Adds a machine of a cluster; `leaving`: whether it is being deleted.
    pub(crate) fn add_machine(&self, id: &str, uid: &str, leaving: bool) {
        let mut inner = self.inner();
        inner.owners.insert(id.to_owned(), uid.to_owned());
        if leaving {
            inner.leaving.insert(id.to_owned());
        } else {
            inner.leaving.remove(id);
        }
    }

    /// Sets whether the machines of a cluster are stopped on purpose, or being deleted.
    pub(crate) fn set_off(&self, uid: &str, off: bool) {
        let mut inner = self.inner();
        if !off {
            inner.off.remove(uid);
        } else if !inner.off.contains(uid) {
            inner.off.insert(uid.to_owned());
        }
    }

    pub(crate) fn remove_machine(&self, id: &str) {
        let mut inner = self.inner();
        inner.owners.remove(id);
        inner.leaving.remove(id);
    }

    /// The uid of a machine's cluster.
    pub(crate) fn owner(&self, machine: &str) -> Option<String> {
        self.inner().owners.get(machine).cloned()
    }

    /// Sets the items of the fabric that have no record.
    pub(crate) fn set_unknown(&self, unknown: Unknown) {
        self.inner().unknown = Some(unknown);
    }

    /// Whether a cluster has machines without a record.
    pub(crate) fn unknown_machines(&self, uid: &str) -> UnknownMachines {
        match &self.inner().unknown {
            None => UnknownMachines::NotLooked,
            Some(unknown) if unknown.clusters.values().any(|own| own == uid) => UnknownMachines::Some,
            Some(_) => UnknownMachines::None,
        }
    }

    /// The addresses of a cluster's unknown machines in its VNET.
    pub(crate) fn kept_places(&self, uid: &str) -> KeptPlaces {
        let inner = self.inner();
        let places = inner.unknown.as_ref().and_then(|unknown| unknown.places.get(uid));
        places.cloned().unwrap_or_default()
    }

    /// The number of all clusters' machines that are to stay and run, and of those of them without contact. A
    /// machine that is being deleted or was stopped may be off while its record exists: that does not count
    /// for the host's health.
    pub(crate) fn count_machines(&self, heard: impl Fn(&str) -> bool) -> (usize, usize) {
        let inner = self.inner();
        let (mut all, mut silent) = (0, 0);
        let runs = |(id, uid): &(&String, &String)| !inner.leaving.contains(*id) && !inner.off.contains(*uid);
        for (machine, _) in inner.owners.iter().filter(runs) {
            all += 1;
            silent += usize::from(!heard(machine));
        }
        (all, silent)
    }

    /// Updates a record that is not of one cluster. Gives the uids of affected clusters: their networks have
    /// routes to each other's nodes, and depend on the rules of their subnets.
    pub(crate) fn changed(&self, key: &str, value: Option<&[u8]>) -> BTreeSet<String> {
        let told = if key.starts_with(key::LEASES) {
            match value {
                Some(value) => {
                    parse::<LeaseRecord>(key, value).map(|lease| self.add_lease(key, &lease.owner))
                }
                None => Some(self.remove_lease(key)),
            }
        } else if key.starts_with(network::NETWORK) {
            match value {
                Some(value) => parse(key, value).map(|record| self.set_network(key, &record)),
                None => Some(self.remove_network(key)),
            }
        } else {
            None
        };
        told.unwrap_or_default()
    }

    /// Adds a lease, by its key, with its holder. Gives the uids of other affected clusters: those in the
    /// same tenant's VNET.
    pub(crate) fn add_lease(&self, key: &str, holder: &str) -> BTreeSet<String> {
        let mut inner = self.inner();
        inner.add_lease(key, holder);
        let Some(own) = uid_of(holder) else {
            return BTreeSet::new();
        };
        let mut others = inner.in_vnet_of(key);
        if holder.ends_with("/uplink") {
            // The leases of its nodes may have been added before the uplink address that leads to them.
            let with_it = inner
                .vnets
                .values()
                .filter(|vnet| vnet.values().any(|uid| uid == own));
            others.extend(with_it.flat_map(|vnet| vnet.values().cloned()));
        }
        others.remove(own);
        others
    }

    /// Removes a lease. The result is as for [`Self::add_lease`].
    fn remove_lease(&self, key: &str) -> BTreeSet<String> {
        let mut inner = self.inner();
        if let Some((pool, address)) = place_of(key) {
            match inner.vnets.get_mut(pool) {
                Some(vnet) => drop(vnet.remove(&address)),
                None => {
                    inner.taken.remove(&address);
                    inner.uplinks.retain(|_, uplink| *uplink != address);
                }
            }
        }
        inner.in_vnet_of(key)
    }

    /// The addresses of other clusters in a tenant's VNET.
    pub(crate) fn neighbours(&self, vnet: &str, own: &str) -> Neighbours {
        let inner = self.inner();
        let leases = inner.vnets.get(vnet).into_iter().flatten();
        let mut neighbours = Neighbours::default();
        for (address, uid) in leases.filter(|(_, uid)| *uid != own) {
            neighbours.addresses.insert(*address);
            neighbours
                .routes
                .extend(inner.uplinks.get(uid).map(|via| RouteSpec {
                    to: Ipv4Net::from(*address),
                    via: *via,
                }));
        }
        neighbours
    }

    /// Sets all resources of `Microsoft.Network`, by their keys.
    pub(crate) fn set_networks(&self, networks: impl IntoIterator<Item = (String, NetworkRecord)>) {
        let mut groups = SecurityGroups::default();
        for (key, record) in networks {
            groups.set(&key, &record);
        }
        self.inner().security_groups = groups;
    }

    /// Sets a resource of `Microsoft.Network`, by its key. Gives the uids of affected clusters.
    fn set_network(&self, key: &str, record: &NetworkRecord) -> BTreeSet<String> {
        self.inner().security_groups.set(key, record)
    }

    /// Removes such a resource. The result is as for [`Self::set_network`].
    fn remove_network(&self, key: &str) -> BTreeSet<String> {
        self.inner().security_groups.remove(key)
    }

    /// The rules of the subnets of a tenant's VNET with a security group.
    pub(crate) fn guards(&self, vnet: &str) -> Guards {
        self.inner().security_groups.of(vnet)
    }

    /// All addresses that are leased, or in use by an unknown item.
    pub(crate) fn taken(&self) -> BTreeSet<Ipv4Addr> {
        let inner = self.inner();
        let mut taken = inner.taken.clone();
        taken.extend(inner.unknown.iter().flat_map(|unknown| &unknown.addresses));
        taken
    }
}

impl Inner {
    fn add_lease(&mut self, key: &str, holder: &str) {
        let Some((pool, address)) = place_of(key) else {
            return;
        };
        if !STAMP_POOLS.contains(&pool) {
            let uid = uid_of(holder).unwrap_or_default().to_owned();
            self.vnets
                .entry(pool.to_owned())
                .or_default()
                .insert(address, uid);
            return;
        }
        self.taken.insert(address);
        if let Some(uid) = uid_of(holder).filter(|_| holder.ends_with("/uplink")) {
            self.uplinks.insert(uid.to_owned(), address);
        }
    }

    /// The clusters in the tenant's VNET of a lease.
    fn in_vnet_of(&self, key: &str) -> BTreeSet<String> {
        let vnet = place_of(key).and_then(|(pool, _)| self.vnets.get(pool));
        vnet.into_iter().flat_map(|vnet| vnet.values().cloned()).collect()
    }
}

/// A parsed record; `None`, with a log line, if it cannot be parsed.
pub(crate) fn parse<T: DeserializeOwned>(key: &str, value: &[u8]) -> Option<T> {
    match serde_json::from_slice(value) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::error!(key, %error, "the record cannot be read and is left out");
            None
        }
    }
}

/// Pools of addresses of the stamp. Any other is a tenant's VNET, by its uid.
const STAMP_POOLS: [&str; 2] = ["machines", "vips"];

/// The pool and the address of a lease's key.
fn place_of(key: &str) -> Option<(&str, Ipv4Addr)> {
    let (pool, address) = key.strip_prefix(key::LEASES)?.split_once('/')?;
    Some((pool, address.parse().ok()?))
}

/// The cluster that holds a lease.
fn uid_of(holder: &str) -> Option<&str> {
    holder.strip_prefix("cluster/")?.split('/').next()
}

#[cfg(test)]
mod tests {
    use fabric_api::{MachineId, NetworkId, NicSpec};

    use super::*;

    #[test]
    fn machines_that_are_to_go_are_not_counted_as_silent() {
        let index = Index::default();
        for machine in ["a", "b", "c", "d"] {
            index.add_machine(machine, "u", false);
        }
        // Half of the machines are being removed by a scale-down: that says nothing about the others.
        index.add_machine("c", "u", true);
        index.add_machine("d", "u", true);
        assert_eq!(index.count_machines(|machine| machine == "a"), (2, 1));
        index.add_machine("d", "u", false);
        assert_eq!(index.count_machines(|machine| machine == "a"), (3, 2));
        index.remove_machine("c");
        index.add_machine("c", "u", false);
        assert_eq!(
            index.count_machines(|_| false),
            (4, 4),
            "another machine of the same id"
        );
    }

    #[test]
    fn machines_of_clusters_that_are_off_are_not_counted_as_silent() {
        let index = Index::default();
        for (machine, uid) in [("a", "u"), ("b", "v"), ("c", "v")] {
            index.add_machine(machine, uid, false);
        }
        index.set_off("v", true);
        assert_eq!(index.count_machines(|machine| machine == "a"), (1, 0));
        index.set_off("v", false);
        assert_eq!(index.count_machines(|machine| machine == "a"), (3, 2));
    }

    #[test]
    fn whether_machines_are_unknown_is_not_known_before_they_were_looked_for() {
        let index = Index::default();
        assert_eq!(index.unknown_machines("u"), UnknownMachines::NotLooked);
        let mut unknown = Unknown::default();
        unknown.add_machine("m", Some("u"), None);
        index.set_unknown(unknown);
        assert_eq!(index.unknown_machines("u"), UnknownMachines::Some);
        assert_eq!(index.unknown_machines("v"), UnknownMachines::None);
    }

    #[test]
    fn clusters_in_a_tenants_vnet_know_each_others_nodes() {
        let index = Index::default();
        let address = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        for (key, holder) in [
            ("/leases/machines/100.64.0.4", "cluster/a/uplink"),
            ("/leases/machines/100.64.0.5", "cluster/b/uplink"),
            ("/leases/machines/100.64.0.6", "cluster/b/machine/m"),
            ("/leases/v1/10.1.0.4", "cluster/a/machine/x"),
        ] {
            assert!(index.add_lease(key, holder).is_empty(), "{key}");
        }
        let told = index.add_lease("/leases/v1/10.1.0.5", "cluster/b/machine/y");
        assert_eq!(told, ["a".to_owned()].into());
        // Another VNET may have the same addresses.
        assert!(
            index
                .add_lease("/leases/v2/10.1.0.5", "cluster/c/machine/z")
                .is_empty()
        );
        let neighbours = index.neighbours("v1", "a");
        assert_eq!(neighbours.addresses, [address("10.1.0.5")].into());
        let route = RouteSpec {
            to: "10.1.0.5/32".parse().unwrap(),
            via: address("100.64.0.5"),
        };
        assert_eq!(neighbours.routes, [route]);
        assert_eq!(
            index.neighbours("v1", "b").addresses,
            [address("10.1.0.4")].into()
        );
        assert!(
            !index.taken().contains(&address("10.1.0.4")),
            "it is none of the stamp's"
        );
        assert_eq!(index.remove_lease("/leases/v1/10.1.0.5"), ["a".to_owned()].into());
        assert_eq!(index.neighbours("v1", "a"), Neighbours::default());
    }

    #[test]
    fn what_is_in_no_record_keeps_its_addresses_and_routes() {
        let address = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        let card = |attach, own: &str, extra: &[&str]| NicSpec {
            name: "eth0".to_owned(),
            attach,
            address: own.parse().unwrap(),
            extra: extra.iter().map(|text| address(text)).collect(),
            gateway: None,
            routes: Vec::new(),
            sending: None,
        };
        let subnet = || Attach::Subnet {
            network: NetworkId::from("u"),
            subnet: "nodes".to_owned(),
        };
        let machine = |nics, labels| MachineSpec {
            id: MachineId::from("m"),
            hostname: "m".to_owned(),
            image: String::new(),
            cpu_millis: 0,
            memory_mib: 0,
            disk_gib: None,
            nics,
            seed_files: BTreeMap::new(),
            labels,
        };
        let vip = BTreeMap::from([(VIP_LABEL.to_owned(), "100.64.8.8".to_owned())]);
        let member = machine(vec![card(Attach::Stamp, "100.64.0.7/20", &["100.64.8.9"])], vip);
        let node = machine(vec![card(subnet(), "10.224.0.5/16", &[])], BTreeMap::new());
        let route = |to: &str, via: &str| RouteSpec {
            to: to.parse().unwrap(),
            via: address(via),
        };
        let network = NetworkSpec {
            id: NetworkId::from("u"),
            address_space: Vec::new(),
            subnets: Vec::new(),
            reserved: Vec::new(),
            routes: vec![
                route("10.244.0.0/24", "10.224.0.4"),
                route("10.244.1.0/24", "10.224.0.5"),
            ],
            uplink: address("100.64.0.9"),
            balancers: Vec::new(),
            egress: None,
        };
        let mut unknown = Unknown::default();
        unknown.add_machine("a", Some("u"), Some(&member));
        unknown.add_machine("b", Some("u"), Some(&node));
        unknown.add_routes("u", &network);
        unknown.add_network(&network);
        let index = Index::default();
        index.add_lease("/leases/machines/100.64.0.4", "cluster/v/uplink");
        index.set_unknown(unknown);
        let taken: Vec<String> = index.taken().iter().map(ToString::to_string).collect();
        assert_eq!(
            taken,
            [
                "100.64.0.4",
                "100.64.0.7",
                "100.64.0.9",
                "100.64.8.8",
                "100.64.8.9"
            ]
        );
        let kept = index.kept_places("u");
        assert_eq!(kept.addresses, [address("10.224.0.5")].into());
        assert_eq!(kept.routes, [route("10.244.1.0/24", "10.224.0.5")]);
        assert_eq!(index.kept_places("v"), KeptPlaces::default());
    }
}
